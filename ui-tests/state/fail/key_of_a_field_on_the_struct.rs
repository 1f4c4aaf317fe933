use agentflow::State;

#[derive(Clone, State)]
#[state(append)]
struct Report {
    notes: Vec<String>,
}

fn main() {}
