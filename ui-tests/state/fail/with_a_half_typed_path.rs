use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(with = )]
    summary: String,
}

fn main() {}
