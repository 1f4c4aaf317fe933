use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(append)]
    #[state(append)]
    notes: Vec<String>,
}

fn main() {}
