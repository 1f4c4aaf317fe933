use agentflow::State;

#[derive(Clone, State)]
#[state(version = "2")]
struct Mail {
    to: String,
}

fn main() {}
