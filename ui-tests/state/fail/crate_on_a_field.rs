use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(crate = agentflow)]
    notes: Vec<String>,
}

fn main() {}
