use agentflow::State;

#[derive(Clone, State)]
struct Report {
    #[state(append)]
    pages: u32,
}

fn main() {}
