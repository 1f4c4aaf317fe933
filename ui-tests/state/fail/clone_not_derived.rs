use agentflow::State;

#[derive(State)]
struct Report {
    title: String,
}

fn main() {}
