//! Streams whose readers are slow, or go away.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager, CompiledGraph, EventWriter, NodeError, RunConfig, RunError, State,
    error::AttemptTimedOut,
    graph, node,
    run::{EventKind, RunErrorKind, RunStream},
    shutdown::RunsReport,
    task::{OnRunEnd, SpawnError},
};
use futures::poll;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    steps::{Counter, sleeps, step},
    support::{Trip, TripUpdate, capture, settle},
};

const SECOND: Duration = Duration::from_secs(1);

/// Reads the stream with this pause after each event. Returns the kinds of the events, and the end.
async fn read_slowly(mut run: RunStream<Trip>, pause: Duration) -> (Vec<EventKind>, Result<Trip, RunError>) {
    let mut kinds = Vec::new();
    while let Some(event) = run.next().await {
        kinds.push(event.kind);
        sleep(pause).await;
    }
    (kinds, run.finish().await)
}

fn stream(app: &CompiledGraph<Trip>) -> RunStream<Trip> {
    app.stream(Trip::default(), RunConfig::new())
}

#[track_caller]
fn assert_timed_out(ended: &Result<Trip, RunError>, after: Duration) {
    let error = ended.as_ref().unwrap_err();
    assert_eq!(error.downcast_ref::<AttemptTimedOut>().map(|timed_out| timed_out.after), Some(after), "{error}");
}

mod timeouts {
    use super::*;

    #[node]
    async fn two_waits() {
        sleep(SECOND / 10).await;
        sleep(SECOND / 10).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_does_not_make_a_node_time_out() {
        let app = graph! {
            type State = Trip;
            node A = two_waits { timeout: 1s };
            A -> END
        };
        let (kinds, ended) = read_slowly(stream(&app), 2 * SECOND).await;
        let elapsed = kinds.iter().find_map(|kind| match kind {
            EventKind::NodeEnded { elapsed, .. } => Some(*elapsed),
            _ => None,
        });
        assert_eq!(elapsed, Some(SECOND / 5));
        ended.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_does_not_save_a_node_from_its_timeout() {
        let app = graph! {
            type State = Trip;
            node A = (sleeps(3 * SECOND)) { timeout: 1s };
            A -> END
        };
        let began = Instant::now();
        let mut run = stream(&app);
        assert!(run.next().await.is_some());
        sleep(5 * SECOND).await;
        let (_, ended) = read_slowly(run, Duration::ZERO).await;
        assert_timed_out(&ended, SECOND);
        assert_eq!(began.elapsed(), 5 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_does_not_hold_up_the_branch_that_ends_before_its_sibling_times_out() {
        #[node]
        async fn quick(_state: &Trip) -> TripUpdate {
            sleep(SECOND / 10).await;
            Trip::update().count(1_u32)
        }
        #[node]
        async fn stuck(_state: &Trip) {
            pending::<()>().await;
        }
        let app = graph! {
            node STUCK = stuck { timeout: 1s };
            START -> { STUCK, quick } -> END
        };
        let (kinds, ended) = read_slowly(stream(&app), 20 * SECOND).await;
        let at = |found: fn(&EventKind) -> bool| kinds.iter().position(found).unwrap();
        let quick = at(|kind| matches!(kind, EventKind::NodeEnded { node, .. } if node == "quick"));
        let stuck = at(|kind| matches!(kind, EventKind::NodeFailed { node, .. } if node == "STUCK"));
        assert!(quick < stuck, "{kinds:?}");
        assert_timed_out(&ended, SECOND);
    }

    /// Emits events, sleeps between them, and then goes on for a while.
    #[node]
    async fn speaks(state: &mut Trip, events: &EventWriter) {
        for n in 0..300 {
            events.emit("n", n).await;
        }
        sleep(SECOND / 2).await;
        state.count = 300;
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_a_node_waits_for_the_reader_is_not_its_own() {
        let app = graph! { node A = speaks { timeout: 1s }; A -> END };
        let (kinds, ended) = read_slowly(stream(&app), SECOND).await;
        assert_eq!(ended.unwrap().count, 300);
        assert_eq!(kinds.len(), 304);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_its_time_is() {
        let app = graph! {
            node A = speaks { timeout: 400ms };
            A -> END
        };
        let (kinds, ended) = read_slowly(stream(&app), SECOND).await;
        assert_timed_out(&ended, 2 * SECOND / 5);
        assert_eq!(kinds.iter().filter(|kind| matches!(kind, EventKind::Custom { .. })).count(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn the_nodes_of_a_graph_with_a_timeout_wait_for_the_reader_at_no_cost_to_it() {
        #[node]
        async fn emits(state: &mut Trip, events: &EventWriter) {
            events.emit("n", 1).await;
            state.count += 1;
        }
        let app = graph! {
            graph INNER {
                node LAST = (sleeps(SECOND / 2));
                emits -> match |state: &Trip| state.count < 100 { true => emits, false => LAST };
                LAST -> END
            }
            node OUTER = (graph! { type State = Trip; emits -> END });
            node SUB = (graph! {
                graph SUBSUB {
                    emits -> match |state: &Trip| state.count < 200 { true => emits, false => END }
                }
                SUBSUB -> END;
                compile { recursion_limit: 200 }
            }) { timeout: 1s };
            INNER -> OUTER -> SUB -> END;
            compile { recursion_limit: 500 }
        };
        let (kinds, ended) = read_slowly(stream(&app), SECOND).await;
        assert_eq!(ended.unwrap().count, 200);
        assert!(kinds.len() > 800, "{}", kinds.len());
    }

    /// A node that waits for the reader, gives that up, and keeps the future.
    #[node]
    async fn gives_up(events: &EventWriter) {
        loop {
            let mut waits = pin!(events.emit("n", ()));
            if poll!(waits.as_mut()).is_pending() {
                return pending().await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_a_node_gave_up_holds_up_no_timeout() {
        let app = graph! { type State = Trip; node A = gives_up { timeout: 1s }; A -> END };
        let began = Instant::now();
        let (_, ended) = read_slowly(stream(&app), SECOND).await;
        assert_timed_out(&ended, SECOND);
        assert!(began.elapsed() < 100 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_timeout_includes_the_time_in_which_the_run_waits_for_its_reader() {
        let app = graph! { node A = speaks { timeout: 1s }; A -> END };
        let run = app.stream(Trip::default(), RunConfig::new().with_run_timeout(3 * SECOND));
        let (_, ended) = read_slowly(run, SECOND).await;
        assert!(matches!(ended.unwrap_err().kind(), RunErrorKind::TimedOut { .. }));
    }
}

mod backpressure {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_run_waits_for_its_reader_before_a_step() {
        let counter = Counter::default();
        let steps = counter.clone();
        let app: CompiledGraph<Trip> = graph! {
            node A = (step(move |_| {
                steps.add();
                async { Ok(()) }
            }));
            A -> match |_: &Trip| true { true => A, false => END };
            compile { recursion_limit: 1_000 }
        };
        let mut run = stream(&app);
        settle().await;
        // Three events a step: the start, the end, the route.
        let before = counter.get();
        assert!((15..=22).contains(&before), "{before}");
        settle().await;
        assert_eq!(counter.get(), before);
        for _ in 0..40 {
            run.next().await;
        }
        settle().await;
        assert!(counter.get() > before);
    }
}

mod hanging_up {
    use super::*;

    /// A state that shows when it is dropped.
    #[derive(Clone, Debug, Default, State)]
    struct Held {
        holder: Holder,
    }

    #[derive(Clone, Debug, Default)]
    struct Holder(Arc<()>);

    fn held() -> (Held, Weak<()>) {
        let state = Held::default();
        let weak = Arc::downgrade(&state.holder.0);
        (state, weak)
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_whose_reader_goes_away_ends_and_drops_its_state() {
        let (log, _guard) = capture();
        let app: CompiledGraph<Held> = graph! { node A = (sleeps(1_000 * SECOND)); A -> END };
        for reads in 0..3 {
            let (state, weak) = held();
            let mut run = app.stream(state, RunConfig::new());
            for _ in 0..reads {
                run.next().await;
            }
            drop(run);
            settle().await;
            assert_eq!(weak.strong_count(), 0, "after {reads} events");
        }
        let began = Instant::now();
        assert_eq!(app.aclose().await.runs.ended, 0);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let lines = log.events("run cancelled: its reader went away");
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.level == tracing::Level::DEBUG && line.within == ["agentflow.run"]));
        assert!(log.events("run failed").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_whose_reader_goes_away_waits_for_no_task() {
        #[node]
        async fn spawns(task_manager: &BackgroundTaskManager) -> Result<(), SpawnError> {
            task_manager.create_task(sleep(100 * SECOND)).on_run_end(OnRunEnd::Wait).spawn()?;
            Ok(())
        }
        let app = graph! { type State = Trip; spawns -> END };
        let mut run = stream(&app);
        while !matches!(run.next().await.unwrap().kind, EventKind::NodeEnded { .. }) {}
        settle().await;
        drop(run);
        settle().await;
        // The run has ended before.
        assert_eq!(app.stop().await.runs, RunsReport::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_goes_away_after_the_end_cancels_nothing() {
        let tokens = Arc::new(std::sync::Mutex::new(Vec::new()));
        let kept = Arc::clone(&tokens);
        let app: CompiledGraph<Trip> = graph! {
            node A = (step(move |given| {
                kept.lock().unwrap().push(given.cancel.clone());
                async { Ok(()) }
            }));
            A -> END
        };
        let run = stream(&app);
        settle().await;
        drop(run);
        settle().await;
        assert!(!tokens.lock().unwrap()[0].is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_waits_for_a_reader_ends_with_it() {
        static EMITTED: AtomicUsize = AtomicUsize::new(0);
        static DROPPED: AtomicBool = AtomicBool::new(false);
        #[node]
        async fn speaks(events: &EventWriter) {
            let _guard = crate::support::OnDrop(|| DROPPED.store(true, Ordering::SeqCst));
            loop {
                events.emit("n", ()).await;
                EMITTED.fetch_add(1, Ordering::SeqCst);
            }
        }
        let app = graph! { type State = Trip; speaks -> END };
        let run = stream(&app);
        settle().await;
        let before = EMITTED.load(Ordering::SeqCst);
        assert!((50..=64).contains(&before), "{before}");
        drop(run);
        settle().await;
        assert!(DROPPED.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn an_invoked_run_whose_future_is_dropped_leaves_a_line() {
        let (log, _guard) = capture();
        let app: CompiledGraph<Trip> = graph! { node A = (sleeps(1_000 * SECOND)); A -> END };
        let run = app.invoke(Trip::default(), RunConfig::new());
        assert!(tokio::time::timeout(SECOND, run).await.is_err());
        let line = log.event("run cancelled: its future was dropped");
        assert_eq!((line.level, line.within), (tracing::Level::DEBUG, vec!["agentflow.run"]));
        app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
        assert_eq!(log.events("run cancelled").len(), 1);
    }
}

mod helpers {
    use super::*;

    /// A node whose helper, a task of tokio, writes for it.
    #[node]
    async fn delegates(events: &EventWriter) -> Result<(), NodeError> {
        let events = events.clone();
        let helper = tokio::spawn(async move {
            for n in 0..200 {
                events.emit("n", n).await;
            }
        });
        helper.await?;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_waits_for_a_clone_of_its_writer_waits_for_the_reader() {
        let app = graph! { type State = Trip; node A = delegates { timeout: 1s }; A -> END };
        let (kinds, ended) = read_slowly(stream(&app), SECOND).await;
        ended.unwrap();
        assert_eq!(kinds.len(), 204);
    }

    static NEVER: Notify = Notify::const_new();

    /// A node that nothing wakes once its helper has written.
    #[node]
    async fn forgets(events: &EventWriter) {
        let events = events.clone();
        let _helper = tokio::spawn(async move {
            for n in 0..70 {
                events.emit("n", n).await;
            }
        });
        NEVER.notified().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_goes_on_when_the_wait_of_another_task_ends() {
        let app = graph! { type State = Trip; node A = forgets { timeout: 1s }; A -> END };
        let (kinds, ended) = read_slowly(stream(&app), SECOND).await;
        assert_timed_out(&ended, SECOND);
        assert_eq!(kinds.iter().filter(|kind| matches!(kind, EventKind::Custom { .. })).count(), 70);
    }
}
