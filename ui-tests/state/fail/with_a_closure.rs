use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(with = |old, new| *old = new)]
    summary: String,
}

fn main() {}
