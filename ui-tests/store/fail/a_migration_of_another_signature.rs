use agentflow::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Serialize, Deserialize, State)]
#[state(version = 2, migrate = from_older)]
struct Mail {
    to: String,
}

fn from_older(state: Value) -> Value {
    state
}

fn main() {}
