//! A type that implements `Node` itself, with fixed and with generic types of state and services.
#![deny(warnings)]

use agentflow::{AgentState, Message, NodeError, RunConfig, State, graph, graph::{Node, NodeContext}};

struct Greet {
    greeting: String,
}

impl Node<AgentState> for Greet {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, AgentState>) -> Result<(), NodeError> {
        cx.state.context.push(Message::assistant(&*self.greeting));
        Ok(())
    }
}

struct Count;

impl<S: State, C: Send + Sync + 'static> Node<S, C> for Count {
    type Output = ();
    const MUTATES_STATE: bool = false;

    async fn run(&self, cx: NodeContext<'_, S, C>) -> Result<(), NodeError> {
        assert_eq!(cx.task_manager().task_count(), 0);
        assert_eq!(cx.node_name(), "COUNT");
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let greet = Greet { greeting: "hello".into() };
    let app = graph! {
        node GREET = (greet);
        node COUNT = (Count);
        GREET -> COUNT -> END;
    };
    let state = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.context[0].text(), "hello");
}
