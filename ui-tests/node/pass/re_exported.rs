//! A crate that re-exports agentflow gives its path; the name `agentflow` does not resolve there.
#![deny(warnings)]

mod framework {
    pub use agentflow as flow;
}

mod agentflow {}

mod app {
    use crate::framework::flow::{self, AgentState, CompiledGraph};

    #[flow::node(crate = crate::framework::flow)]
    async fn greet(state: &mut AgentState) -> Result<(), flow::NodeError> {
        state.context.clear();
        Ok(())
    }

    #[flow::node(PART, crate = crate::framework::flow)]
    async fn part<T: Send + Sync + 'static>(state: AgentState) -> AgentState {
        let _ = std::any::type_name::<T>();
        state
    }

    pub fn app() -> CompiledGraph<AgentState> {
        flow::graph! {
            crate = crate::framework::flow;
            node BYE = PART<u8>;
            greet -> BYE -> END;
            compile { shutdown_timeout: 1s }
        }
    }
}

fn main() {
    assert_eq!(app::app().name(), "graph");
}
