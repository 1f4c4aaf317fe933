//! Limits of a run: its timeout, its token, the drop of its future, and the recursion limit.

use std::{future::pending, time::Duration};

use agentflow::{
    AgentState, CancellationToken, CompileOptions, CompiledGraph, END, Message, RunConfig, RunError, StateGraph, graph,
    node,
    run::{LastState, RunErrorKind},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::steps::{Counter, sleeps, step};

const SECOND: Duration = Duration::from_secs(1);

#[node]
async fn speak(state: &mut AgentState) {
    state.context.push(Message::assistant("word"));
}

async fn invoke(app: &CompiledGraph<AgentState>, config: RunConfig) -> Result<AgentState, RunError> {
    app.invoke(AgentState::default(), config).await
}

/// Builds a graph whose first node never ends: `dropped` counts the drops of that node, `later` the runs of the next.
fn stuck(dropped: &Counter, later: &Counter) -> CompiledGraph<AgentState> {
    let (dropped, later) = (dropped.clone(), later.clone());
    graph! {
        node STUCK = (step(move |_| {
            let guard = dropped.on_drop();
            async move {
                let _guard = guard;
                pending().await
            }
        }));
        node LATER = (step(move |_| {
            later.add();
            async { Ok(()) }
        }));
        speak -> STUCK -> LATER -> END
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_times_out_inside_its_current_node() {
    let (dropped, later) = (Counter::default(), Counter::default());
    let app = stuck(&dropped, &later);
    let began = Instant::now();
    let mut error = invoke(&app, RunConfig::new().with_run_timeout(5 * SECOND)).await.unwrap_err();
    assert_eq!(began.elapsed(), 5 * SECOND);
    assert!(matches!(error.kind(), RunErrorKind::TimedOut { limit, .. } if *limit == 5 * SECOND));
    assert_eq!(error.node(), Some("STUCK"));
    assert_eq!((dropped.get(), later.get()), (1, 0));
    let Some(LastState::Committed(state)) = error.take_state::<AgentState>() else {
        panic!("the node before had succeeded");
    };
    assert_eq!(state.context.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_run_timeout_covers_the_whole_run() {
    let app = graph! {
        node A = (sleeps(2 * SECOND));
        node B = (sleeps(2 * SECOND));
        speak -> A -> B -> END
    };
    let error = invoke(&app, RunConfig::new().with_run_timeout(3 * SECOND)).await.unwrap_err();
    assert_eq!(error.node(), Some("B"));
    invoke(&app, RunConfig::new().with_run_timeout(5 * SECOND)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_ready_at_its_deadline_succeeds() {
    let app = graph! {
        type State = AgentState;
        node A = (sleeps(3 * SECOND));
        A -> END
    };
    invoke(&app, RunConfig::new().with_run_timeout(3 * SECOND)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_node_is_not_the_runs() {
    let app = graph! {
        type State = AgentState;
        node A = (step(|_| async { timeout(SECOND, pending()).await? }));
        A -> END
    };
    let error = invoke(&app, RunConfig::new().with_run_timeout(5 * SECOND)).await.unwrap_err();
    assert!(error.downcast_ref::<tokio::time::error::Elapsed>().is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ignores_its_token_still_times_out() {
    let app = graph! {
        type State = AgentState;
        node DEAF = (step(|given| async move {
            loop {
                given.cancel.cancelled().await;
                tokio::task::yield_now().await;
            }
        }));
        DEAF -> END
    };
    let token = CancellationToken::new();
    let config = RunConfig::new().with_cancellation_token(token.clone()).with_run_timeout(SECOND);
    invoke(&app, config.clone()).await.unwrap_err();
    // The cancelled token ends a run whose node ignores the token, too.
    let (run, ()) = tokio::join!(invoke(&app, config), async { token.cancel() });
    assert!(matches!(run.unwrap_err().kind(), RunErrorKind::Cancelled { .. }));
}

#[tokio::test(start_paused = true)]
async fn no_node_starts_with_a_zero_timeout() {
    let (dropped, later) = (Counter::default(), Counter::default());
    let app = stuck(&dropped, &later);
    let mut error = invoke(&app, RunConfig::new().with_run_timeout(Duration::ZERO)).await.unwrap_err();
    assert_eq!(error.node(), Some("speak"));
    assert_eq!(error.take_state(), Some(LastState::Committed(AgentState::default())));
}

#[tokio::test(start_paused = true)]
async fn the_longest_run_timeout_never_fires() {
    let app = graph! {
        type State = AgentState;
        node A = (sleeps(1_000_000 * SECOND));
        A -> END
    };
    invoke(&app, RunConfig::new().with_run_timeout(Duration::MAX)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_token_drops_the_current_node_and_later_ones_never_start() {
    let (dropped, later) = (Counter::default(), Counter::default());
    let app = stuck(&dropped, &later);
    let token = CancellationToken::new();
    let run = tokio::spawn({
        let (app, config) = (app.clone(), RunConfig::new().with_cancellation_token(token.clone()));
        async move { invoke(&app, config).await }
    });
    sleep(SECOND).await;
    assert_eq!(dropped.get(), 0);

    token.cancel();
    let error = run.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Cancelled { .. }));
    assert_eq!(error.node(), Some("STUCK"));
    assert_eq!((dropped.get(), later.get()), (1, 0));
}

#[tokio::test]
async fn a_busy_node_is_cancelled() {
    let token = CancellationToken::new();
    let spins = Counter::default();
    let app = graph! {
        type State = AgentState;
        node SPIN = (step({
            let (token, spins) = (token.clone(), spins.clone());
            move |_| {
                let (token, spins) = (token.clone(), spins.clone());
                async move {
                    loop {
                        spins.add();
                        if spins.get() == 3 {
                            token.cancel();
                        }
                        tokio::task::yield_now().await;
                    }
                }
            }
        }));
        SPIN -> END
    };
    let error = invoke(&app, RunConfig::new().with_cancellation_token(token)).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Cancelled { .. }));
    assert_eq!(spins.get(), 3);
}

#[tokio::test]
async fn with_a_cancelled_token_no_node_starts() {
    let token = CancellationToken::new();
    token.cancel();
    let app = graph! { speak -> END };
    let mut error = invoke(&app, RunConfig::new().with_cancellation_token(token)).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Cancelled { node, .. } if &**node == "speak"));
    assert_eq!(error.take_state(), Some(LastState::Committed(AgentState::default())));
}

/// Builds a graph of one node that sends its run's token to the test and then never ends.
fn token_sender(dropped: &Counter) -> (CompiledGraph<AgentState>, mpsc::UnboundedReceiver<CancellationToken>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let dropped = dropped.clone();
    let app = graph! {
        node SEND = (step(move |given| {
            let (sender, guard) = (sender.clone(), dropped.on_drop());
            async move {
                let _guard = guard;
                sender.send(given.cancel)?;
                pending().await
            }
        }));
        SEND -> END
    };
    (app, receiver)
}

#[tokio::test]
async fn dropping_a_run_drops_its_node_and_cancels_its_token() {
    let dropped = Counter::default();
    let (app, mut tokens) = token_sender(&dropped);
    let callers = CancellationToken::new();
    let mut run = Box::pin(invoke(&app, RunConfig::new().with_cancellation_token(callers.clone())));
    assert!(futures::poll!(run.as_mut()).is_pending());
    let token = tokens.try_recv().unwrap();
    assert!(!token.is_cancelled());

    drop(run);
    assert_eq!(dropped.get(), 1);
    assert!(token.is_cancelled());
    assert!(!callers.is_cancelled(), "the caller's own token is the caller's");
}

#[tokio::test(start_paused = true)]
async fn the_runs_token_ends_with_a_run_that_timed_out() {
    let (app, mut tokens) = token_sender(&Counter::default());
    invoke(&app, RunConfig::new().with_run_timeout(SECOND)).await.unwrap_err();
    assert!(tokens.try_recv().unwrap().is_cancelled());
}

#[tokio::test]
async fn the_runs_token_outlives_a_run_that_reached_its_end() {
    let (sender, mut tokens) = mpsc::unbounded_channel();
    let app = graph! {
        type State = AgentState;
        node SEND = (step(move |given| {
            let sent = sender.send(given.cancel);
            async { sent.map_err(Into::into) }
        }));
        SEND -> END
    };
    invoke(&app, RunConfig::new()).await.unwrap();
    assert!(!tokens.try_recv().unwrap().is_cancelled(), "what it guards may go on in the background");
}

#[tokio::test]
async fn a_path_of_exactly_the_recursion_limit_succeeds() {
    let app = graph! {
        node B = speak;
        node C = speak;
        speak -> B -> C -> END;
        compile { recursion_limit: 3 }
    };
    assert_eq!(invoke(&app, RunConfig::new()).await.unwrap().context.len(), 3);
}

#[tokio::test]
async fn a_path_of_one_node_more_than_the_recursion_limit_fails_before_that_node() {
    let app = graph! {
        node B = speak;
        node C = speak;
        speak -> B -> C -> END;
        compile { recursion_limit: 2 }
    };
    let mut error = invoke(&app, RunConfig::new()).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::RecursionLimit { limit: 2, .. }));
    assert_eq!(error.node(), Some("C"));
    let Some(LastState::Committed(state)) = error.take_state::<AgentState>() else {
        panic!("both nodes before had succeeded");
    };
    assert_eq!(state.context.len(), 2);
}

/// Builds a chain of this many nodes.
fn chain(length: usize, options: CompileOptions) -> CompiledGraph<AgentState> {
    let mut graph = StateGraph::new();
    for index in 0..length {
        graph.add_node(index.to_string(), speak {});
        match index {
            0 => graph.set_entry_point("0"),
            _ => graph.add_edge((index - 1).to_string(), index.to_string()),
        };
    }
    graph.add_edge((length - 1).to_string(), END);
    graph.compile(options).unwrap()
}

#[tokio::test]
async fn a_graph_with_more_nodes_than_the_default_limit_runs_without_an_option() {
    let app = chain(40, CompileOptions::new());
    assert_eq!(invoke(&app, RunConfig::new()).await.unwrap().context.len(), 40);
}

#[tokio::test]
async fn an_explicit_limit_overrides_the_default() {
    let app = chain(40, CompileOptions::new().recursion_limit(25));
    let error = invoke(&app, RunConfig::new()).await.unwrap_err();
    assert_eq!(error.node(), Some("25"));
}
