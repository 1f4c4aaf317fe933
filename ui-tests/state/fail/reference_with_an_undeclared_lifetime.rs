use agentflow::State;

#[derive(Clone, State)]
struct Report {
    title: &str,
}

fn main() {}
