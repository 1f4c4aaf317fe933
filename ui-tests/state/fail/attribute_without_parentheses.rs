use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state]
    notes: Vec<String>,
}

fn main() {}
