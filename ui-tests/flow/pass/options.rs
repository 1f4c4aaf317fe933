//! Options of nodes.
#![deny(warnings)]

use std::time::Duration;

use agentflow::{AgentState, CompiledGraph, Message, NodeError, NodeFailure, RetryPolicy, RunConfig, graph, node};

#[node]
async fn a(state: &mut AgentState) {
    state.context.push(Message::assistant("a"));
}

#[node]
async fn fail_twice(state: &mut AgentState, attempt: u32) -> Result<(), NodeError> {
    state.context.push(Message::assistant(format!("attempt {attempt}")));
    if attempt < 3 { Err("not yet".into()) } else { Ok(()) }
}

#[node]
async fn fail() -> Result<(), NodeError> {
    Err("broken".into())
}

#[node]
async fn sleep() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[node]
async fn recover(state: &mut AgentState, error: Option<&NodeFailure>) {
    state.context.push(Message::assistant(if error.is_some() { "recovered" } else { "fine" }));
}

async fn run(app: CompiledGraph<AgentState>) -> String {
    let state = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let texts: Vec<_> = state.context.iter().map(Message::text).collect();
    texts.join(" ")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let delay = Duration::from_millis(1);
    assert_eq!(run(graph! { node A = a {}; A -> END }).await, "a");
    assert_eq!(run(graph! { node A = fail_twice { retry: 2 }; A -> END }).await, "attempt 3");
    assert_eq!(
        run(graph! { node A = fail_twice { retry: RetryPolicy::new(2).backoff(delay), timeout: 5m, }; A -> END }).await,
        "attempt 3"
    );
    assert_eq!(
        run(graph! { node A = fail_twice { timeout: delay * 1000, retry: 1 + 1, label: "twice" }; A -> END }).await,
        "attempt 3"
    );
    assert_eq!(run(graph! { node A = (fail_twice {}) { retry: 2 }; A -> END }).await, "attempt 3");
    assert_eq!(
        run(graph! { type State = AgentState; node A = fail { on_error: recover }; A -> a -> END; recover -> END })
            .await,
        "recovered"
    );
    assert_eq!(
        run(graph! { node A = sleep { timeout: 10ms, on_error: recover, retry: 0 }; a -> A -> END; recover -> END })
            .await,
        "a recovered"
    );
    // The fallback may also be the next step.
    assert_eq!(run(graph! { node A = fail { on_error: recover }; a -> A -> recover -> END }).await, "a recovered");
    assert_eq!(run(graph! { node A = a { on_error: recover }; A -> recover -> END }).await, "a fine");
    assert_eq!(
        run(graph! { node A = fail { on_error: crate::recover }; a -> A -> END; crate::recover -> END }).await,
        "a recovered"
    );
    // A graph is a node, with options too.
    assert_eq!(run(graph! { node INNER = (graph! { a -> END }) { timeout: 1h, retry: 1 }; INNER -> END }).await, "a");
}
