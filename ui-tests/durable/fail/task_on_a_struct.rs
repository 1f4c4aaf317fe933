use agentflow::task;

#[task]
struct Deliver;

fn main() {}
