use agentflow::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Serialize, Deserialize, State)]
#[state(migrate = from_older)]
struct Mail {
    to: String,
}

fn from_older(state: Value, _version: u32) -> Result<Value, serde_json::Error> {
    Ok(state)
}

fn main() {}
