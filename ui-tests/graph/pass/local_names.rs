//! The names around a graph and the generated names in it do not collide.
#![deny(warnings)]

use agentflow::{AgentState, Message, NodeError, RunConfig, graph, graph::{Node, NodeContext}, node};

struct Say(u32);

impl Node<AgentState> for Say {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, AgentState>) -> Result<(), NodeError> {
        cx.state.context.push(Message::assistant(self.0.to_string()));
        Ok(())
    }
}

#[node]
async fn a(state: &mut AgentState) {
    state.context.push(Message::assistant("a"));
}

// The expansion uses no name of the prelude, so local items may have these names.
#[allow(dead_code, non_camel_case_types)]
mod shadowed {
    struct Result;
    struct Option;
    struct Send;
    struct State;
    struct Duration;
    struct Context;
    enum Ok {}
    mod core {}
    mod std {}

    #[agentflow::node]
    pub async fn b(state: &mut agentflow::AgentState) {
        state.context.clear();
    }

    pub fn app() -> agentflow::CompiledGraph<agentflow::AgentState> {
        agentflow::graph! { b -> END; compile { shutdown_timeout: 1s } }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (__g, __options, __node0) = (1, 30, 2);
    let app = graph! {
        node FIRST = Say(__g);
        node SECOND = Say(__node0);
        FIRST -> SECOND -> a -> END;
        compile { recursion_limit: __options }
    };
    let state = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let texts: Vec<_> = state.context.iter().map(Message::text).collect();
    assert_eq!(texts, ["1", "2", "a"]);

    shadowed::app().invoke(state, RunConfig::new()).await.unwrap();
}
