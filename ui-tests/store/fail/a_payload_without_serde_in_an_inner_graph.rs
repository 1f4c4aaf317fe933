use std::sync::Arc;

use agentflow::{Route, State, graph, node, store::Store};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, State)]
struct Mail {
    to: String,
}

#[derive(Clone)]
struct Call;

#[derive(Route)]
enum Step {
    Tools(Vec<Call>),
    Done,
}

#[node]
async fn model(_state: &mut Mail) -> Step {
    Step::Done
}

#[node]
async fn tools(_state: &mut Mail, input: &Vec<Call>) {
    let _ = input;
}

fn app(store: Arc<dyn Store>) {
    let _ = graph! {
        name = "mail";
        graph INNER {
            model -> match { Step::Tools(calls) => tools(calls) -> model, Step::Done => END };
        }
        INNER -> END;
        compile { store: store }
    };
}

fn main() {}
