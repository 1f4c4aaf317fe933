//! `#[state(messages)]` merges messages, and nothing else has their ids.

use agentflow::State;

#[derive(Clone, State)]
struct Chat {
    #[state(messages)]
    context: Vec<String>,
}

fn main() {}
