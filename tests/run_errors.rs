//! Failed runs: the text and content of the error, and an app that still works afterwards.

use std::{error::Error, fmt, io, time::Duration};

use agentflow::{
    AgentState, Message, NodeError, RunConfig, RunId, State,
    error::Panicked,
    graph,
    graph::{Node, NodeContext},
    node,
    run::{LastState, RunErrorKind},
};
use tokio::time::sleep;

use crate::steps::{Counter, step};

fn fresh() -> (AgentState, RunConfig) {
    (AgentState::default(), RunConfig::new())
}

/// Succeeds or fails in the way that the config's value `how` selects.
#[node]
async fn moody(state: &mut AgentState, config: &RunConfig) -> Result<(), NodeError> {
    state.context.push(Message::assistant("half done"));
    match config.value::<String>("how")?.as_deref() {
        Some("error") => Err(io::Error::other("the disk is full"))?,
        Some("panic") => panic!("out of luck"),
        Some("panic with a value") => panic!("out of luck {}", state.context.len()),
        Some("panic with no text") => std::panic::panic_any(7),
        _ => {}
    }
    Ok(())
}

fn how(how: &str) -> RunConfig {
    RunConfig::new().with_value("how", how)
}

#[tokio::test(start_paused = true)]
async fn an_error_reports_the_node_the_time_and_the_cause() {
    let app = graph! {
        type State = AgentState;
        node SLOW = (step(|_| async {
            sleep(Duration::from_secs(3)).await;
            Err(io::Error::other("the disk is full").into())
        }));
        SLOW -> END
    };
    let run = RunId::new();
    let config = RunConfig::new().with_run_id(run);
    let error = app.invoke(AgentState::default(), config).await.unwrap_err();
    assert_eq!((error.run_id(), error.node()), (run, Some("SLOW")));
    let RunErrorKind::Node(failed) = error.kind() else {
        panic!("{error:?}");
    };
    assert_eq!((failed.attempt, failed.elapsed), (1, Duration::from_secs(3)));
    let text = error.to_string();
    assert!(text.starts_with("node `SLOW` failed (attempt 1, after 3.0s)"), "{text}");
}

#[tokio::test]
async fn the_nodes_error_keeps_its_type() {
    let app = graph! { moody -> END };
    let error = app.invoke(AgentState::default(), how("error")).await.unwrap_err();
    let cause = error.downcast_ref::<io::Error>().unwrap();
    assert_eq!(cause.to_string(), "the disk is full");
    assert!(error.downcast_ref::<fmt::Error>().is_none());
}

#[tokio::test]
async fn the_source_chain_ends_at_the_root_cause() {
    #[derive(Debug, thiserror::Error)]
    #[error("the report was not saved")]
    struct Unsaved(#[source] io::Error);

    #[node]
    async fn save(_state: &AgentState) -> Result<(), Unsaved> {
        Err(Unsaved(io::Error::other("the disk is full")))
    }
    let app = graph! { save -> END };
    let (state, config) = fresh();
    let error = app.invoke(state, config).await.unwrap_err();
    // The text includes the node's error, so the source is that error's cause: nothing is printed twice.
    assert!(error.to_string().ends_with("the report was not saved"), "{error}");
    assert!(error.downcast_ref::<Unsaved>().is_some());
    assert_eq!(error.source().unwrap().to_string(), "the disk is full");
}

#[tokio::test]
async fn an_anyhow_error_keeps_its_context_and_its_cause() {
    #[node]
    async fn load(_state: &AgentState) -> anyhow::Result<()> {
        use anyhow::Context;
        Err(io::Error::other("the disk is gone")).context("loading the report")
    }
    let app = graph! { load -> END };
    let (state, config) = fresh();
    let error = app.invoke(state, config).await.unwrap_err();
    assert!(error.to_string().ends_with("loading the report"), "{error}");
    assert!(error.source().unwrap().is::<io::Error>());
}

#[tokio::test]
async fn a_panic_is_the_nodes_error_with_its_message() {
    let app = graph! { moody -> END };
    for (panic, text) in [
        ("panic", "out of luck"),
        ("panic with a value", "out of luck 1"),
        ("panic with no text", "(the panic carried no text)"),
    ] {
        let error = app.invoke(AgentState::default(), how(panic)).await.unwrap_err();
        assert_eq!(error.node(), Some("moody"));
        assert_eq!(&*error.downcast_ref::<Panicked>().unwrap().message, text);
    }
}

#[tokio::test]
async fn the_app_works_after_errors_and_panics() {
    let app = graph! { moody -> END };
    for failure in ["error", "panic", "panic with no text"] {
        app.invoke(AgentState::default(), how(failure)).await.unwrap_err();
        let state = app.invoke(AgentState::default(), how("")).await.unwrap();
        assert_eq!(state.context.len(), 1);
    }
    assert_eq!(app.aclose().await.runs.still_running, []);
}

#[tokio::test]
async fn a_panic_before_the_nodes_future_exists_fails_the_attempt() {
    struct Eager {
        attempts: Counter,
    }
    impl Node<AgentState> for Eager {
        type Output = ();
        #[allow(clippy::manual_async_fn, reason = "an async fn would panic later")]
        fn run(&self, cx: NodeContext<'_, AgentState>) -> impl Future<Output = Result<(), NodeError>> + Send {
            self.attempts.add();
            assert!(!cx.state.context.is_empty(), "nothing was said");
            async { Ok(()) }
        }
    }
    let attempts = Counter::default();
    let eager = Eager { attempts: attempts.clone() };
    let app = graph! { node EAGER = (eager) { retry: 2 }; EAGER -> END };
    let (state, config) = fresh();
    let error = app.invoke(state, config).await.unwrap_err();
    let panicked = error.downcast_ref::<Panicked>().unwrap();
    assert_eq!(&*panicked.message, "nothing was said");
    assert_eq!(attempts.get(), 3);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the destructor");
    }
}

#[tokio::test]
async fn a_panic_while_an_ended_node_is_dropped_is_the_nodes_error() {
    let app = graph! {
        type State = AgentState;
        node BOMB = (step(|_| async {
            let _bomb = Bomb;
            Ok(())
        }));
        BOMB -> END
    };
    let (state, config) = fresh();
    let error = app.invoke(state, config).await.unwrap_err();
    assert_eq!(&*error.downcast_ref::<Panicked>().unwrap().message, "the destructor");
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_the_node_is_dropped_does_not_replace_the_runs_error() {
    let app = graph! {
        type State = AgentState;
        node BOMB = (step(|_| async {
            let _bomb = Bomb;
            std::future::pending().await
        }));
        BOMB -> END
    };
    let config = RunConfig::new().with_run_timeout(Duration::from_secs(1));
    let mut error = app.invoke(AgentState::default(), config).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::TimedOut { .. }), "{error}");
    assert!(error.take_state::<AgentState>().is_some());
}

#[tokio::test]
async fn a_panic_whose_payload_panics_when_dropped_is_the_nodes_error() {
    let app = graph! {
        type State = AgentState;
        node BOMB = (step(|_| async { std::panic::panic_any(Bomb) }));
        BOMB -> END
    };
    let (state, config) = fresh();
    let error = app.invoke(state, config).await.unwrap_err();
    let panicked = error.downcast_ref::<Panicked>().unwrap();
    assert_eq!(&*panicked.message, "(the panic carried no text)");
}

#[tokio::test]
async fn the_state_of_a_failed_node_is_returned_as_uncommitted() {
    let app = graph! { moody -> END };
    let mut error = app.invoke(AgentState::default(), how("error")).await.unwrap_err();
    let Some(LastState::Uncommitted(state)) = error.take_state::<AgentState>() else {
        panic!("it had the state in its hands");
    };
    assert_eq!(state.last_message().unwrap().text(), "half done");
}

#[tokio::test]
async fn the_state_is_returned_once_and_only_as_its_own_type() {
    #[derive(Clone, State)]
    struct Other {}

    let app = graph! { moody -> END };
    let mut error = app.invoke(AgentState::default(), how("error")).await.unwrap_err();
    assert!(error.take_state::<Other>().is_none());
    assert!(error.take_state::<AgentState>().is_some(), "asking for another type took it");
    assert!(error.take_state::<AgentState>().is_none());
}

#[tokio::test]
async fn a_run_can_continue_with_the_state_of_a_failed_one() {
    let app = graph! { moody -> END };
    let mut error = app.invoke(AgentState::default(), how("panic")).await.unwrap_err();
    let state = error.take_state::<AgentState>().unwrap().into_inner();
    let state = app.invoke(state, how("")).await.unwrap();
    assert_eq!(state.context.len(), 2);
}

#[tokio::test]
async fn a_run_error_is_a_small_error_that_is_send_and_sync() {
    fn assert_error<E: Error + Send + Sync + 'static>(_: &E) {}
    let app = graph! { moody -> END };
    let error = app.invoke(AgentState::default(), how("error")).await.unwrap_err();
    assert_error(&error);
    assert_eq!(size_of_val(&error), size_of::<usize>(), "a `Result` of a run stays small");
}
