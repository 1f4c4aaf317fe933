use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(with = "longest")]
    summary: String,
}

fn main() {}
