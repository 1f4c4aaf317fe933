//! A race of two model providers with a deadline: both are asked, the first answer wins and the other call is dropped. If
//! both fail or take too long, a prepared answer is sent.
//!
//! `any { .. }` waits for the first branch that *succeeds*, so a provider that fails at once does not win. The `timeout`
//! of the nodes is the deadline; the group's own `on_error` follows when all branches have failed.
//!
//! The idea is that of hedged requests: Dean and Barroso, "The Tail at Scale",
//! <https://doi.org/10.1145/2408776.2408794>.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 17_model_race
//! ? What is an owl?
//!     SMALL wins
//! = a bird (by the small model), after 200.0ms
//! ? Why do owls hoot?
//!     SMALL failed: the small model answered 529
//!     LARGE wins
//! = to find each other (by the large model), after 1.0s
//! ? What do owls dream of?
//!     SMALL failed: timed out after 2s
//!     LARGE failed: timed out after 3s
//!     any {SMALL, LARGE} failed, on to SORRY
//! = Please ask again later. (2 models failed), after 3.0s
//! ```

use std::{future::pending, time::Duration};

use agentflow::{
    CompiledGraph, NodeFailure, RunConfig, State, graph, node,
    run::{AllFailed, EventKind},
};
use tokio::time::{Instant, sleep};

#[derive(Clone, Debug, Default, State)]
struct Chat {
    question: String,
    answer: String,
}

#[derive(Debug, thiserror::Error)]
#[error("the small model answered 529")]
struct Overloaded;

#[node]
async fn ask_small_model(state: &Chat) -> Result<ChatUpdate, Overloaded> {
    match state.question.as_str() {
        "What is an owl?" => sleep(Duration::from_millis(200)).await,
        "Why do owls hoot?" => return Err(Overloaded),
        _ => pending().await,
    }
    Ok(Chat::update().answer("a bird (by the small model)"))
}

#[node]
async fn ask_large_model(state: &Chat) -> ChatUpdate {
    match state.question.as_str() {
        "What do owls dream of?" => pending().await,
        _ => sleep(Duration::from_secs(1)).await,
    }
    Chat::update().answer("to find each other (by the large model)")
}

/// Answers in the place of all models. It runs after the group, not in a branch, so it may change the state in place.
#[node(SORRY)]
async fn apologize(state: &mut Chat, error: Option<&NodeFailure>) {
    let failed = error.and_then(|failure| failure.source.downcast_ref::<AllFailed>());
    let failures = failed.map_or(0, |failed| failed.failures.len());
    state.answer = format!("Please ask again later. ({failures} models failed)");
}

fn race() -> CompiledGraph<Chat> {
    graph! {
        node SMALL = ask_small_model { timeout: 2s };
        node LARGE = ask_large_model { timeout: 3s };
        START -> any { SMALL, LARGE } { on_error: SORRY } -> END;
        SORRY -> END;
    }
}

// The clock is paused: the output is the same on every machine, and the deadlines take no time.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), agentflow::RunError> {
    let app = race();
    for question in ["What is an owl?", "Why do owls hoot?", "What do owls dream of?"] {
        println!("? {question}");
        let started = Instant::now();
        let mut run = app.stream(Chat { question: question.to_owned(), ..Chat::default() }, RunConfig::new());
        while let Some(event) = run.next().await {
            match event.kind {
                EventKind::GroupJoined { winner: Some(winner), .. } => println!("    {winner} wins"),
                EventKind::NodeFailed { node, error, .. } => println!("    {node} failed: {error}"),
                EventKind::FallbackTaken { node, to, .. } => println!("    {node} failed, on to {to}"),
                _ => {}
            }
        }
        let chat = run.finish().await?;
        println!("= {}, after {:.1?}", chat.answer, started.elapsed());
    }
    Ok(())
}
