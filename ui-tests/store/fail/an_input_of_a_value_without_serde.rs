use std::sync::Arc;

use agentflow::{
    NodeError, Route, State, graph,
    graph::{Node, NodeContext},
    node,
    store::Store,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, State)]
struct Mail {
    to: String,
}

struct Call;

#[derive(Route)]
enum Step {
    Tool(Call),
    Done,
}

#[node]
async fn model(_state: &mut Mail) -> Step {
    Step::Done
}

struct Tool;

impl Node<Mail, (), Call> for Tool {
    type Output = ();

    async fn run(&self, _: NodeContext<'_, Mail, (), Call>) -> Result<(), NodeError> {
        Ok(())
    }
}

fn app(store: Arc<dyn Store>) {
    let _ = graph! {
        name = "mail";
        node TOOL = (Tool);
        model -> match { Step::Tool(call) => TOOL(call) -> model, Step::Done => END };
        compile { store: store }
    };
}

fn main() {}
