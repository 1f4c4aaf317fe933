//! Each type that can be a route.
#![deny(warnings)]

use agentflow::{AgentState, CompiledGraph, Route, RunConfig, graph, node};

#[derive(Route)]
enum Plain {
    One,
    Two,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Route)]
#[allow(dead_code)]
enum WithData {
    Unit,
    Tuple(u32, String),
    Struct { name: String },
}

#[derive(Route)]
enum Generic<T: Default, const N: usize>
where
    T: Clone,
{
    Some(T),
    None,
}

#[derive(Route)]
#[route(crate = ::agentflow)]
enum OfACrate {
    Only,
}

mod inner {
    #[derive(agentflow::Route)]
    pub(crate) enum Public {
        Only,
    }
}

#[node]
async fn plain(state: &AgentState) -> Plain {
    if state.context.is_empty() { Plain::One } else { Plain::Two }
}

#[node]
async fn with_data(_state: &mut AgentState) -> Result<WithData, std::io::Error> {
    Ok(WithData::Tuple(3, "three".to_owned()))
}

#[node]
async fn generic() -> Generic<u8, 3> {
    Generic::Some(7)
}

#[node]
async fn of_a_crate(state: AgentState) -> (AgentState, OfACrate) {
    (state, OfACrate::Only)
}

#[node]
async fn public() -> inner::Public {
    inner::Public::Only
}

fn generic_app<T: Default + Clone + Send + Sync + 'static>() -> CompiledGraph<AgentState> {
    #[node]
    async fn decide<T: Default + Clone + Send + Sync + 'static>(_state: &AgentState) -> Generic<T, 1> {
        Generic::None
    }
    graph! { decide::<T> -> match { Generic::Some(_) => decide::<T>, Generic::None => END } }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let app = graph! {
        plain -> match { Plain::One => with_data, Plain::Two => END };
        with_data -> match {
            WithData::Tuple(3, text) if text == "three" => generic,
            WithData::Unit | WithData::Tuple(..) | WithData::Struct { .. } => with_data,
        };
        generic -> match { Generic::Some(7..) => of_a_crate, Generic::Some(_) | Generic::None => generic };
        of_a_crate -> match { OfACrate::Only => public };
        public -> match { inner::Public::Only => END };
    };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    generic_app::<u8>().invoke(AgentState::default(), RunConfig::new()).await.unwrap();
}
