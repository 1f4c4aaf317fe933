use agentflow::{AgentState, NodeError, graph, graph::{Node, NodeContext}, node};

struct Tool;

impl Tool {
    fn new() -> Self {
        Self
    }
}

impl Node<AgentState> for Tool {
    type Output = ();

    async fn run(&self, _: NodeContext<'_, AgentState>) -> Result<(), NodeError> {
        Ok(())
    }
}

#[node]
async fn a(_state: &AgentState) {}

#[node]
async fn c(_state: &AgentState) {}

fn main() {
    let _ = graph! {
        node TOOL = Tool::new();
        a -> { TOOL, c } -> END;
    };
}
