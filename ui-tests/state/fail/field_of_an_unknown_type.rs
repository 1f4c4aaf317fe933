use agentflow::State;

#[derive(Clone, State)]
struct Report {
    title: Strin,
    #[state(append)]
    notes: Vec<Strin>,
}

fn main() {}
