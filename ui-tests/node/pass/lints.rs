//! The expansion causes none of the lints that a crate can turn on.
#![deny(warnings, unused, missing_docs, unreachable_pub, elided_lifetimes_in_paths, single_use_lifetimes)]

use agentflow::{CompiledGraph, EventWriter, NodeError, Provide, Route, RunConfig, State, graph, node};

/// A model.
pub trait Model: Send + Sync + 'static {
    /// Asks the model.
    fn ask(&self) -> String;
}

/// A service.
#[derive(Debug)]
pub struct Db;

impl Model for Db {
    fn ask(&self) -> String {
        String::new()
    }
}

/// The services.
#[derive(Debug, Provide)]
pub struct Services {
    db: Db,
}

/// A state.
#[derive(Clone, Debug, Default, State)]
pub struct Report {
    /// The title.
    pub title: String,
    #[state(append)]
    parts: Vec<Self>,
    count: u32,
}

/// A route.
#[derive(Debug, Route)]
pub enum Step {
    /// Goes on.
    On(String),
    /// Ends.
    Done,
}

/// A node that changes the state.
#[node]
pub async fn change(state: &mut Report, config: &RunConfig) -> Result<(), NodeError> {
    let _ = config;
    state.count += 1;
    Ok(())
}

/// A node that reads the state.
#[node]
pub async fn read(state: &Report, events: &EventWriter, #[inject] db: &Db) -> Result<(ReportUpdate, Step), NodeError> {
    let _ = (events, db);
    let step = if state.count > 1 { Step::On(state.title.clone()) } else { Step::Done };
    Ok((Report::update().title("x").count(1).parts(state.parts.clone()), step))
}

/// A node that takes the state.
#[node]
async fn take(mut state: Report) -> Report {
    state.count += 1;
    state
}

/// A node of any state.
#[node]
pub async fn ask<M: Model>(#[inject] model: &M) -> Result<(), std::io::Error> {
    let _ = model.ask();
    Ok(())
}

/// A generic node with an input.
#[node]
pub async fn check<M: Model>(state: &mut Report, input: &String, #[inject] model: &M) -> Result<(), std::io::Error> {
    state.title = format!("{input}{}", model.ask());
    Ok(())
}

/// Returns the graph.
#[must_use]
pub fn app() -> CompiledGraph<Report, Services> {
    graph! {
        START -> change -> take -> ask<Db> -> read -> match {
            Step::On(text) => check<Db>(text),
            Step::Done => END,
        };
        check<Db> -> END;
        compile { services: Services { db: Db } }
    }
}

fn main() {
    let _ = app();
}
