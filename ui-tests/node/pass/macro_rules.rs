//! Nodes whose parts come from `macro_rules!`.
#![deny(warnings)]

use agentflow::{AgentState, CompiledGraph, NodeError, Provide, graph, message::AgentStateUpdate, node};

struct Db;

#[derive(Provide)]
struct Services {
    db: Db,
}

macro_rules! nodes {
    ($($name:ident($state:ty, $db:ty) -> $result:ty $body:block)*) => {$(
        #[node]
        async fn $name(state: $state, #[inject] db: $db) -> $result {
            let _ = (state, db);
            $body
        }
    )*};
}

nodes! {
    first(&mut AgentState, &Db) -> Result<(), NodeError> { Ok(()) }
    second(&AgentState, &Db) -> AgentStateUpdate { AgentState::update() }
}

fn app() -> CompiledGraph<AgentState, Services> {
    graph! {
        first -> second -> END;
        compile { services: Services { db: Db } }
    }
}

fn main() {
    let _ = app();
}
