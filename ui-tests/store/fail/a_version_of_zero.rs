use agentflow::State;

#[derive(Clone, State)]
#[state(version = 0)]
struct Mail {
    to: String,
}

fn main() {}
