use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(append, with = longest)]
    notes: Vec<String>,
}

fn main() {}
