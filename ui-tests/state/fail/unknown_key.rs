use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(apend)]
    notes: Vec<String>,
}

fn main() {}
