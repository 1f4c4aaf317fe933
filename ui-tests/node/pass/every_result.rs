//! Each result that a node may return, for each form of `state`.
#![deny(warnings)]

use std::fmt;

use agentflow::{NodeError, RunConfig, State, graph, node};

#[derive(Clone, Default, State)]
struct Count {
    count: u32,
}

/// Like `anyhow::Error`, this is no `std::error::Error` but converts into a node's error.
struct Anyhow(Box<dyn std::error::Error + Send + Sync>);

impl From<Anyhow> for Box<dyn std::error::Error + Send + Sync> {
    fn from(error: Anyhow) -> Self {
        error.0
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Anyhow {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

type Fallible<T> = Result<T, Anyhow>;

#[derive(Debug)]
enum Mine {}

impl fmt::Display for Mine {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Mine {}

#[node]
async fn in_place(state: &mut Count) {
    state.count += 1;
}

#[node]
async fn in_place_unit(state: &mut Count) -> () {
    state.count += 1;
}

#[node]
async fn in_place_result(state: &mut Count) -> Result<(), NodeError> {
    state.count += "1".parse::<u32>()?;
    Ok(())
}

#[node]
async fn in_place_text(state: &mut Count) -> Result<(), String> {
    state.count += 1;
    Ok(())
}

#[node]
async fn in_place_anyhow(state: &mut Count) -> Fallible<()> {
    state.count += "1".parse::<u32>()?;
    Ok(())
}

#[node]
async fn no_state() -> Result<(), Mine> {
    Ok(())
}

#[node]
async fn reads(state: &Count) {
    assert_eq!(state.count, 5);
}

#[node]
async fn reads_result(state: &Count) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    assert_eq!(state.count, 5);
    Ok(())
}

#[node]
async fn updates(state: &Count) -> CountUpdate {
    Count::update().count(state.count + 1)
}

#[node]
async fn updates_by_name(state: &Count) -> <Count as State>::Update {
    Count::update().count(state.count + 1)
}

#[node]
async fn updates_result(state: &Count) -> Result<CountUpdate, NodeError> {
    Ok(Count::update().count(state.count + 1))
}

#[node]
async fn owns(mut state: Count) -> Count {
    state.count += 1;
    state
}

#[node]
async fn owns_result(state: Count) -> Result<Count, Mine> {
    Ok(Count { count: state.count + 1 })
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let app = graph! {
        in_place -> in_place_unit -> in_place_result -> in_place_text -> in_place_anyhow -> no_state
            -> reads -> reads_result -> updates -> updates_by_name -> updates_result -> owns -> owns_result -> END
    };
    let state = app.invoke(Count::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.count, 10);
}
