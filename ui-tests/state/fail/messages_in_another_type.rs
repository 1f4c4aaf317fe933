//! `#[state(messages)]` merges messages by their ids, which no other type has.

use agentflow::State;

#[derive(Clone, State)]
struct Chat {
    #[state(messages)]
    context: Vec<String>,
}

fn main() {}
