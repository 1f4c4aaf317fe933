//! Groups under code that panics, never waits, or never ends.

use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use agentflow::{
    CancellationToken, CompileOptions, END, EachOptions, NodeFailure, NodeOptions, RunConfig, State, StateGraph, graph,
    node,
    run::{EventKind, RunErrorKind},
};
use tokio::time::sleep;

use crate::support::{Trip, TripUpdate, failure, steps};

#[node]
async fn number(_state: &Trip, input: usize) -> TripUpdate {
    Trip::update().steps([input.to_string()])
}

#[node]
async fn hang(_state: &Trip) {
    pending::<()>().await;
}

#[tokio::test]
async fn a_cancel_stops_an_each_whose_items_never_wait() {
    static RAN: AtomicUsize = AtomicUsize::new(0);
    #[node]
    async fn cancels(_state: &Trip, input: usize, cancel: &CancellationToken) {
        RAN.fetch_add(1, Ordering::Relaxed);
        if input == 10 {
            cancel.cancel();
        }
    }
    let app = graph! { type State = Trip; START -> each |_: &Trip| 0..10_000_usize { cancels } -> END };
    let error = failure(&app).await;
    assert!(matches!(error.kind(), RunErrorKind::Cancelled { .. }), "{error}");
    assert!(RAN.load(Ordering::Relaxed) < 1_000, "{RAN:?}");
}

#[tokio::test]
async fn an_each_whose_items_never_wait_lets_other_tasks_run() {
    static RAN: AtomicUsize = AtomicUsize::new(0);
    #[node]
    async fn counts(_state: &Trip, _input: usize) {
        RAN.fetch_add(1, Ordering::Relaxed);
    }
    let seen = tokio::spawn(async { RAN.load(Ordering::Relaxed) });
    let app = graph! { type State = Trip; START -> each |_: &Trip| 0..10_000_usize { counts } -> END };
    steps(&app).await;
    assert!(seen.await.unwrap() < 1_000);
}

/// Fails the test instead of going on for ever.
fn count_round(rounds: &AtomicUsize) {
    assert!(rounds.fetch_add(1, Ordering::Relaxed) < 1_000, "the loop has no end");
}

#[tokio::test]
async fn a_loop_around_an_each_without_items_reaches_the_recursion_limit() {
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    let no_items = |_: &Trip| {
        count_round(&ROUNDS);
        Vec::<usize>::new()
    };
    let mut graph = StateGraph::new();
    graph.add_parallel_node("N", number {}).add_each("E", no_items, EachOptions::new(), ["N"]).set_entry_point("E");
    graph.add_route("E", |_: &Trip| true, [(true, "E".into()), (false, END.into())]);
    let error = failure(&graph.compile(CompileOptions::new()).unwrap()).await;
    let RunErrorKind::RecursionLimit { nodes, .. } = error.kind() else { panic!("{error}") };
    assert_eq!(nodes.iter().map(|node| &**node).collect::<Vec<_>>(), ["E"]);
}

#[tokio::test]
async fn fallbacks_between_two_each_whose_items_panic_reach_the_recursion_limit() {
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    fn broken(_: &Trip) -> Vec<usize> {
        count_round(&ROUNDS);
        panic!("no items")
    }
    let mut graph = StateGraph::new();
    graph.add_parallel_node("N", number {}).add_parallel_node("M", number {}).set_entry_point("E");
    graph.add_each("E", broken, EachOptions::new(), ["N"]).add_edge("E", END);
    graph.add_each("F", broken, EachOptions::new(), ["M"]).add_edge("F", END);
    graph.set_node_options("E", NodeOptions::new().on_error("F"));
    graph.set_node_options("F", NodeOptions::new().on_error("E"));
    let error = failure(&graph.compile(CompileOptions::new()).unwrap()).await;
    assert!(matches!(error.kind(), RunErrorKind::RecursionLimit { .. }), "{error}");
}

/// A value whose destructor panics if it is armed.
#[derive(Clone, Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the bomb was dropped");
    }
}

#[derive(Clone, Debug, Default, State)]
struct Mined {
    #[state(append)]
    bombs: Vec<Bomb>,
    count: u32,
}

#[node]
async fn plant(_state: &Mined, input: u32) -> MinedUpdate {
    Mined::update().bombs([Bomb]).count(input)
}

#[tokio::test]
async fn updates_whose_destructors_panic_do_not_replace_the_error_of_a_group() {
    let app = graph! { START -> each |_: &Mined| 0..3_u32 { plant } -> END };
    let error = app.invoke(Mined::default(), RunConfig::new()).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Conflict { field: "count", .. }), "{error}");
}

#[tokio::test]
async fn updates_of_losers_whose_destructors_panic_do_not_change_an_any() {
    #[node]
    async fn lay(_state: &Mined) -> MinedUpdate {
        Mined::update().bombs([Bomb])
    }
    #[node]
    async fn wait(_state: &Mined) {
        pending::<()>().await;
    }
    #[node]
    async fn win(_state: &Mined) -> MinedUpdate {
        Mined::update().count(1_u32)
    }
    let app = graph! {
        node LAY1 = lay;
        node LAY2 = lay;
        node WAIT1 = wait;
        node WAIT2 = wait;
        START -> any { LAY1 -> WAIT1, LAY2 -> WAIT2, win } -> END
    };
    assert_eq!(app.invoke(Mined::default(), RunConfig::new()).await.unwrap().count, 1);
}

#[tokio::test]
async fn a_state_whose_clone_panics_in_a_branch_is_a_failure_of_the_group() {
    #[derive(Debug, Default)]
    struct NoClone;
    impl Clone for NoClone {
        fn clone(&self) -> Self {
            panic!("not to be cloned")
        }
    }
    #[derive(Clone, Debug, Default, State)]
    struct Sticky {
        _value: NoClone,
        seen: String,
    }
    #[node]
    async fn read(_state: &Sticky) {}
    #[node]
    async fn recover(state: &mut Sticky, error: Option<&NodeFailure>) {
        state.seen = error.unwrap().node.to_string();
    }
    let app = graph! {
        node A = read;
        node B = read;
        node C = read;
        node D = read;
        START -> { { A, B } -> match |_: &Sticky| true { true => C, false => JOIN }, D } { on_error: recover } -> END;
        recover -> END
    };
    let state = app.invoke(Sticky::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.seen, "{A, B}");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_at_any_moment_closes_every_group() {
    #[node]
    async fn wait(_state: &Trip, input: u64) {
        sleep(Duration::from_millis(input)).await;
    }
    #[node]
    async fn begin(_state: &mut Trip) {}
    let app = graph! { begin -> any { { each |_: &Trip| 1..4_u64 { wait }, number2 }, hang } -> END };
    #[node]
    async fn number2(_state: &Trip) {}
    for micros in (0..5_000).step_by(250) {
        let token = CancellationToken::new();
        let mut stream = app.stream(Trip::default(), RunConfig::new().with_cancellation_token(token.clone()));
        tokio::spawn(async move {
            sleep(Duration::from_micros(micros)).await;
            token.cancel();
        });
        let (mut open, mut has_ended) = (0, false);
        while let Some(event) = stream.next().await {
            match event.kind {
                EventKind::GroupStarted { .. } => open += 1,
                EventKind::GroupJoined { .. } | EventKind::GroupFailed { .. } => open -= 1,
                EventKind::RunEnded { .. } => has_ended = true,
                _ => {}
            }
        }
        assert_eq!((open, has_ended), (0, true), "cancelled after {micros} µs");
    }
}
