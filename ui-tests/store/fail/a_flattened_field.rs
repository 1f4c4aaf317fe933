use agentflow::State;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Address {
    city: String,
}

#[derive(Clone, Serialize, Deserialize, State)]
struct Mail {
    #[serde(flatten)]
    to: Address,
}

fn main() {}
