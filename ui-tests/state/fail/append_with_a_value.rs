use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(append = true)]
    notes: Vec<String>,
}

fn main() {}
