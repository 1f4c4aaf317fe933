//! Concurrent runs of one app.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use agentflow::{
    CancellationToken, CompiledGraph, NodeError, RunConfig, graph,
    graph::{Node, NodeContext},
    node,
    run::RunErrorKind,
};
use futures::future::join_all;
use tokio::{
    sync::{Barrier, Notify},
    time::{Instant, sleep},
};

use crate::support::{OnDrop, Say, Trip, cancelled_midway, committed, settle};

const SECOND: Duration = Duration::from_secs(1);

/// Continues when all expected runs have arrived.
struct Meet(Barrier);

impl Node<Trip> for Meet {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, Trip>) -> Result<(), NodeError> {
        self.0.wait().await;
        cx.state.count += 1;
        Ok(())
    }
}

#[tokio::test]
async fn concurrent_runs_do_not_see_each_other() {
    #[node]
    async fn own(state: &mut Trip, config: &RunConfig) -> Result<(), NodeError> {
        let user = config.user_id().ok_or("no user")?;
        state.steps.push(user.to_owned());
        Ok(())
    }

    let app = graph! {
        node FIRST = own;
        node MEET = (Meet(Barrier::new(10)));
        node SECOND = own;
        FIRST -> MEET -> SECOND -> match |state: &Trip| state.count { 3 => END, _ => FIRST }
    };
    let runs = (0..10).map(|n| {
        let app = app.clone();
        let state = Trip { title: n.to_string(), ..Trip::default() };
        let config = RunConfig::new().with_user_id(n.to_string());
        tokio::spawn(async move { app.invoke(state, config).await.unwrap() })
    });
    for (n, state) in join_all(runs).await.into_iter().enumerate() {
        let steps = vec![n.to_string(); 6];
        let title = n.to_string();
        assert_eq!(state.unwrap(), Trip { steps, count: 3, title });
    }
}

/// Records each run that arrives and each that is dropped, and waits until it is opened.
struct Gate {
    told: Arc<Mutex<Vec<String>>>,
    open: Arc<Notify>,
}

impl Node<Trip> for Gate {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, Trip>) -> Result<(), NodeError> {
        let title = cx.state.title.clone();
        let tell = |what: &str| self.told.lock().unwrap().push(format!("{title} {what}"));
        tell("came");
        let _guard = OnDrop(|| tell("left"));
        self.open.notified().await;
        tell("went on");
        Ok(())
    }
}

fn titled(title: &str) -> Trip {
    Trip { title: title.into(), ..Trip::default() }
}

#[tokio::test]
async fn cancelling_one_run_stops_its_node_and_no_other_run() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let open = Arc::new(Notify::new());
    let app = graph! {
        node BEFORE = (Say);
        node GATE = (Gate { told: told.clone(), open: open.clone() });
        node AFTER = (Say);
        BEFORE -> GATE -> AFTER -> END
    };
    let token = CancellationToken::new();
    let config = RunConfig::new().with_cancellation_token(token.clone());
    let cancelled = app.invoke(titled("one"), config);
    let other = app.invoke(titled("two"), RunConfig::new());
    let (cancelled, other, ()) = tokio::join!(cancelled, other, async {
        settle().await;
        token.cancel();
        settle().await;
        assert_eq!(*told.lock().unwrap(), ["one came", "two came", "one left"]);
        open.notify_waiters();
    });

    let mut error = cancelled.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Cancelled { .. }), "{error}");
    assert_eq!(error.node(), Some("GATE"));
    // The node mutates the state and was dropped in the middle, so its state is uncommitted.
    assert!(error.take_state::<Trip>().is_some());
    assert_eq!(other.unwrap().steps, ["BEFORE", "AFTER"]);
    assert_eq!(told.lock().unwrap()[3..], ["two went on", "two left"]);
}

#[tokio::test]
async fn no_node_starts_with_a_cancelled_token() {
    let app = graph! { node A = (Say); A -> END };
    let token = CancellationToken::new();
    token.cancel();
    let config = RunConfig::new().with_cancellation_token(token);
    let mut error = app.invoke(Trip::default(), config).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Cancelled { .. }), "{error}");
    assert_eq!(committed(&mut error), Trip::default());
}

#[tokio::test]
async fn a_cancelled_run_starts_no_further_node_even_if_nothing_awaits() {
    #[node]
    async fn cancels(state: &mut Trip, cancel: &CancellationToken) {
        cancel.cancel();
        state.count += 1;
    }

    #[node]
    async fn cancels_beside(cancel: &CancellationToken) {
        cancel.cancel();
    }

    let app = graph! { node A = (Say); cancels -> A -> END };
    let mut error = app.invoke(Trip::default(), RunConfig::new()).await.unwrap_err();
    assert_eq!(error.node(), Some("A"));
    assert_eq!(committed(&mut error).count, 1);

    // Neither a group nor a branch continues.
    let app = graph! { node A = (Say); node B = (Say); cancels -> { A, B } -> END };
    let error = app.invoke(Trip::default(), RunConfig::new()).await.unwrap_err();
    assert_eq!(error.node(), Some("A"));
    let app = graph! { node A = (Say); node B = (Say); START -> { cancels_beside -> A, B } -> END };
    let error = app.invoke(Trip::default(), RunConfig::new()).await.unwrap_err();
    assert_eq!(error.node(), Some("A"));

    // A run whose last node has succeeded has ended, so the cancellation comes too late.
    let app = graph! { cancels -> END };
    assert_eq!(app.invoke(Trip::default(), RunConfig::new()).await.unwrap().count, 1);
}

#[tokio::test]
async fn a_run_does_not_cancel_its_callers_token() {
    #[node]
    async fn cancels(cancel: &CancellationToken) -> Result<(), NodeError> {
        cancel.cancel();
        Err("no".into())
    }

    let app = graph! { type State = Trip; cancels -> END };
    let token = CancellationToken::new();
    let config = RunConfig::new().with_cancellation_token(token.clone());
    app.invoke(Trip::default(), config).await.unwrap_err();
    assert!(!token.is_cancelled());
}

async fn sleeper(app: &CompiledGraph<Trip>, shut_down_after: Duration) -> (String, Duration, usize) {
    let began = Instant::now();
    let run = app.invoke(Trip::default(), RunConfig::new());
    let (ended, report) = tokio::join!(run, async {
        sleep(shut_down_after).await;
        app.aclose().await
    });
    let ended = ended.map_or_else(|error| error.to_string(), |state| state.steps.join(" "));
    (ended, began.elapsed(), report.runs.unfinished.len())
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_during_the_last_node_lets_it_end() {
    #[node]
    async fn last(state: &mut Trip) {
        sleep(5 * SECOND).await;
        state.steps.push("last".into());
    }

    let app = graph! { node A = (Say); A -> last -> END; compile { shutdown_timeout: 10s } };
    assert_eq!(sleeper(&app, SECOND).await, ("A last".into(), 5 * SECOND, 0));

    // The node ends at the very moment of the cancellation, so the run counts as ended.
    let app = graph! { node A = (Say); A -> last -> END; compile { shutdown_timeout: 5s } };
    assert_eq!(sleeper(&app, Duration::ZERO).await, ("A last".into(), 5 * SECOND, 0));

    let app = graph! { node A = (Say); A -> last -> END; compile { shutdown_timeout: 3s } };
    let unfinished = "stopped at node `last`: the app was shut down";
    assert_eq!(sleeper(&app, SECOND).await, (unfinished.into(), 4 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_runs_to_complete() {
    #[node]
    async fn slow(state: &mut Trip) {
        sleep(2 * SECOND).await;
        state.count += 1;
    }

    let app = graph! {
        slow -> match |state: &Trip| state.count { 3 => END, _ => slow };
        compile { shutdown_timeout: 10s }
    };
    assert_eq!(sleeper(&app, SECOND).await, (String::new(), 6 * SECOND, 0));
}

#[tokio::test]
async fn a_panicking_destructor_does_not_replace_the_cancellation() {
    #[node]
    async fn bomb() {
        let _guard = OnDrop(|| panic!("from the destructor"));
        std::future::pending::<()>().await;
    }

    let app = graph! { type State = Trip; bomb -> END };
    cancelled_midway(&app).await;
}
