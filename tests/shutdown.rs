//! `aclose` and `stop`: runs end first, then their tasks, within a bound that holds whatever they do.

use std::{
    future::pending,
    sync::{Arc, OnceLock},
    time::Duration,
};

use agentflow::{
    AgentState, BackgroundTaskManager, CancellationToken, CompiledGraph, Message, NodeError, RunConfig, RunError,
    RunId, ShutdownReport, TaskContext, graph,
    graph::ErasedGraph,
    node,
    run::{LastState, RunErrorKind},
    shutdown::RunsReport,
    task::{OnDuplicateKey, OnRunEnd, SpawnError, TaskManagerOptions},
};
use futures::future::BoxFuture;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    steps::{Counter, step},
    support::{Journal, closing, settle},
};

const SECOND: Duration = Duration::from_secs(1);
/// The grace period of a cancelled task, and the margin in which an aborted task is dropped.
const GRACE: Duration = Duration::from_millis(1_100);

/// Takes two seconds and spawns a task that takes three.
#[node]
async fn work(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    sleep(2 * SECOND).await;
    task_manager.create_task(sleep(3 * SECOND)).name("upload").spawn()?;
    Ok(())
}

fn worker() -> CompiledGraph<AgentState> {
    graph! { work -> END }
}

/// Builds an app whose runs never end.
fn stuck() -> CompiledGraph<AgentState> {
    graph! {
        node STUCK = (step(|_| pending()));
        STUCK -> END;
        compile { shutdown_timeout: 5s }
    }
}

fn start(app: &CompiledGraph<AgentState>) -> (RunId, JoinHandle<Result<AgentState, RunError>>) {
    let (app, run) = (app.clone(), RunId::new());
    let config = RunConfig::new().with_run_id(run);
    (run, tokio::spawn(async move { app.invoke(AgentState::default(), config).await }))
}

#[tokio::test(start_paused = true)]
async fn an_idle_app_closes_at_once() {
    let began = Instant::now();
    let report = worker().aclose().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(report.runs, RunsReport::default());
    assert!(report.tasks.is_clean());
}

#[tokio::test(start_paused = true)]
async fn the_report_covers_what_was_live_when_the_shutdown_began() {
    let app = worker();
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    app.task_manager().wait_for_all(None).await.unwrap();
    let report = app.aclose().await;
    assert_eq!((report.runs.ended, report.tasks.outcomes.completed), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn runs_are_drained_first_then_their_tasks() {
    let app = worker();
    let (_, run) = start(&app);
    settle().await;
    let began = Instant::now();
    let report = app.aclose().await;
    assert_eq!(began.elapsed(), 5 * SECOND, "two for the run, three for its task");
    assert_eq!(report.elapsed, 5 * SECOND);
    assert_eq!((report.runs.ended, report.tasks.outcomes.completed), (1, 1));
    assert!(report.runs.unfinished.is_empty() && report.tasks.is_clean());
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_draining_app_accepts_tasks_of_live_runs_only() {
    let app = worker();
    let (_, run) = start(&app);
    settle().await;
    let closing = closing(&app).await;
    let refused = app.task_manager().create_task(async {}).spawn().unwrap_err();
    assert_eq!(refused, SpawnError::Closed);

    run.await.unwrap().unwrap();
    assert_eq!(app.task_manager().task_info()[0].name(), "upload");
    assert_eq!(closing.await.unwrap().tasks.outcomes.completed, 1);
}

/// Spawns tasks that each run the app, one after the other.
fn spawn_consumers(app: &CompiledGraph<AgentState>, streamed: bool, count: usize) {
    for _ in 0..count {
        let inner = app.clone();
        let job = async move {
            let (state, config) = (AgentState::default(), RunConfig::new());
            let ended =
                if streamed { inner.stream(state, config).finish().await } else { inner.invoke(state, config).await };
            ended.map(drop)
        };
        app.task_manager().create_task(job).name("consumer").key("customer", OnDuplicateKey::Queue).spawn().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn runs_that_live_tasks_start_while_the_app_drains_are_accepted_and_awaited() {
    for streamed in [false, true] {
        let app = worker();
        spawn_consumers(&app, streamed, 3);
        let began = Instant::now();
        let report = app.aclose().await;
        assert_eq!(began.elapsed(), 9 * SECOND, "three runs, one after the other, and the task of the last");
        assert_eq!((report.runs.ended, report.tasks.outcomes.completed), (3, 6));
        assert!(report.runs.unfinished.is_empty() && report.tasks.is_clean());
    }
}

/// The app of a node that runs its own app, once.
type Inner = Arc<OnceLock<ErasedGraph<AgentState>>>;

#[node]
async fn delegate(state: &AgentState, #[inject] app: &Inner) -> Result<(), NodeError> {
    sleep(2 * SECOND).await;
    let Some(app) = app.get().filter(|_| state.context.len() < 3) else { return Ok(()) };
    let mut inner = state.clone();
    inner.context.push(Message::user("deeper"));
    // Every second one is streamed.
    if inner.context.len().is_multiple_of(2) {
        app.stream(inner, RunConfig::new()).finish().await?;
    } else {
        app.invoke(inner, RunConfig::new()).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn runs_that_nodes_of_live_runs_start_while_the_app_drains_are_accepted_and_awaited() {
    let inner = Inner::default();
    let app = graph! { delegate -> END; compile { services: Arc::clone(&inner) } };
    assert!(inner.set(app.clone().erase()).is_ok());
    let run = tokio::spawn(async move { inner.get().unwrap().invoke(AgentState::default(), RunConfig::new()).await });
    settle().await;
    let began = Instant::now();
    let report = app.aclose().await;
    assert_eq!(began.elapsed(), 8 * SECOND, "four runs, each inside another one");
    assert_eq!((report.runs.ended, report.runs.unfinished.len()), (4, 0));
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_that_a_node_of_another_app_starts_is_outside_work() {
    let (app, inner) = (worker(), Inner::default());
    assert!(inner.set(app.clone().erase()).is_ok());
    let (_, live) = start(&app);
    let run = tokio::spawn(async move {
        let app = graph! { delegate -> END; compile { services: inner } };
        app.invoke(AgentState::default(), RunConfig::new()).await
    });
    settle().await;
    let closing = closing(&app).await;
    let error = run.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the app is shut down"), "{error}");
    live.await.unwrap().unwrap();
    drop(closing.await.unwrap());
}

/// Returns a graph with a task manager of its own, whose node spawns a task that takes three seconds.
fn with_own_manager(tasks: &BackgroundTaskManager) -> CompiledGraph<AgentState> {
    graph! { work -> END; compile { task_manager: tasks.clone() } }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_closes_the_managers_of_nested_graphs_too() {
    let (tasks, other) = (BackgroundTaskManager::new(), BackgroundTaskManager::new());
    let app = graph! {
        node A = with_own_manager(&tasks);
        node B = with_own_manager(&tasks).erase();
        node OWN = work;
        graph INNER { node C = with_own_manager(&other); C -> END }
        A -> B -> INNER -> OWN -> END
    };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!((tasks.stats().outcomes.completed, tasks.task_count()), (2, 0), "those of A and B have ended");
    assert_eq!((other.task_count(), app.task_manager().task_count()), (1, 1));
    assert_eq!(other.task_info()[0].origin().unwrap().node(), "INNER/C/work");
    let began = Instant::now();
    let report = app.aclose().await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    let nested: Vec<_> = report.nested.iter().map(|nested| (&*nested.node, nested.tasks.outcomes.completed)).collect();
    assert_eq!(nested, [("A", 0), ("INNER/C", 1)]);
    assert_eq!(report.tasks.outcomes.completed, 1);
    for tasks in [tasks, other] {
        assert_eq!(tasks.create_task(async {}).spawn().map(drop), Err(SpawnError::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn the_report_names_the_nested_graph_of_a_task_that_was_cut_off() {
    let tasks = BackgroundTaskManager::new();
    let app = graph! { node A = with_own_manager(&tasks); A -> END; compile { shutdown_timeout: 1s } };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!(
        app.aclose().await.to_string(),
        "shut down in 1.0s\n  \
         runs:  0 ended meanwhile, 0 unfinished, 0 still running\n  \
         tasks: closed in 1.0s: 0 completed\n  \
         tasks of `A`: closed in 1.0s: 0 completed, 1 cancelled\n         \
         unfinished: upload #1 (cancelled after 1.0s)"
    );
}

/// The tasks of two managers may have the same ids.
#[tokio::test(start_paused = true)]
async fn a_run_ends_its_tasks_in_each_manager() {
    #[node]
    async fn bound(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        task_manager.create_task(pending::<()>()).on_run_end(OnRunEnd::Cancel).spawn()?;
        Ok(())
    }
    let tasks = BackgroundTaskManager::new();
    let app = graph! {
        type State = AgentState;
        node SUB = (graph! { type State = AgentState; bound -> END; compile { task_manager: tasks.clone() } });
        node OWN = bound;
        SUB -> OWN -> END
    };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    settle().await;
    assert_eq!((tasks.task_count(), app.task_manager().task_count()), (0, 0));
    assert_eq!((tasks.stats().outcomes.cancelled, app.task_manager().stats().outcomes.cancelled), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_run_is_accepted_when_it_is_started_and_not_when_it_is_read() {
    let app = worker();
    let mut early = app.stream(AgentState::default(), RunConfig::new());
    let closing = closing(&app).await;
    let error = app.stream(AgentState::default(), RunConfig::new()).finish().await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Closed));
    assert!(early.next().await.is_some());
    early.finish().await.unwrap();
    assert_eq!(closing.await.unwrap().runs.ended, 1);
}

#[tokio::test(start_paused = true)]
async fn the_future_of_a_run_that_an_ended_task_left_behind_is_outside_work() {
    let app = worker();
    let (_, live) = start(&app);
    let (sender, mut runs) = mpsc::unbounded_channel();
    let inner = app.clone();
    let job = async move {
        let run = async move { inner.invoke(AgentState::default(), RunConfig::new()).await };
        sender.send(Box::pin(run)).map_err(drop).unwrap();
    };
    drop(app.task_manager().create_task(job).spawn().unwrap().await);
    let closing = closing(&app).await;
    let error = runs.recv().await.unwrap().await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Closed));
    live.await.unwrap().unwrap();
    drop(closing.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn tasks_that_start_runs_forever_are_stopped_at_the_bound() {
    let app = graph! {
        node WORK = (step(|_| async {
            sleep(SECOND).await;
            Ok(())
        }));
        WORK -> END;
        compile { shutdown_timeout: 5s }
    };
    let inner = app.clone();
    let (sender, mut errors) = mpsc::unbounded_channel();
    let job = async move {
        for _ in 0..2 {
            let error = loop {
                if let Err(error) = inner.invoke(AgentState::default(), RunConfig::new()).await {
                    break error;
                }
            };
            sender.send(error).unwrap();
        }
    };
    app.task_manager().create_task(job).cancel_last().spawn().unwrap();
    settle().await;
    let began = Instant::now();
    drop(app.aclose().await);
    assert!(began.elapsed() <= 5 * SECOND + 2 * GRACE);
    while let Some(error) = errors.recv().await {
        assert!(matches!(error.kind(), RunErrorKind::ShutDown { .. } | RunErrorKind::Closed), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_run_of_many_is_reported_once() {
    const RUNS: usize = 1_000;
    let app = stuck();
    let mut runs: Vec<_> = (0..RUNS).map(|_| start(&app)).collect();
    settle().await;
    // Polled no more: these stay active.
    let mut held = Vec::new();
    for _ in 0..RUNS {
        let mut run = Box::pin(app.invoke(AgentState::default(), RunConfig::new()));
        assert!(futures::poll!(run.as_mut()).is_pending());
        held.push(run);
    }
    let report = app.aclose().await;
    let ids = |ids: &[RunId]| ids.iter().copied().collect::<std::collections::BTreeSet<_>>();
    let started = runs.iter().map(|(id, _)| *id).collect();
    assert_eq!((report.runs.ended, report.runs.unfinished.len()), (0, RUNS));
    assert_eq!(ids(&report.runs.unfinished), started);
    assert_eq!((report.runs.still_running.len(), ids(&report.runs.still_running).len()), (RUNS, RUNS));
    for (_, run) in runs.drain(..) {
        run.await.unwrap().unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_beyond_the_bound_is_cancelled_and_named() {
    let app = stuck();
    let (id, run) = start(&app);
    settle().await;
    let began = Instant::now();
    let report = app.aclose().await;
    assert_eq!(began.elapsed(), 5 * SECOND);
    assert_eq!((report.runs.ended, &report.runs.unfinished[..]), (0, &[id][..]));
    assert!(report.runs.still_running.is_empty());

    let mut error = run.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::ShutDown { node, .. } if &**node == "STUCK"));
    assert!(error.take_state::<AgentState>().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_closed_app_refuses_runs_and_returns_their_state() {
    let app = worker();
    let (_, live) = start(&app);
    settle().await;
    let closing = closing(&app).await;
    for closed in [false, true] {
        if closed {
            drop(app.aclose().await);
        }
        let state = AgentState::from_user("hello");
        let mut error = app.invoke(state.clone(), RunConfig::new()).await.unwrap_err();
        assert!(matches!(error.kind(), RunErrorKind::Closed));
        assert_eq!(error.node(), None);
        assert_eq!(error.take_state(), Some(LastState::Committed(state)));
    }
    live.await.unwrap().unwrap();
    drop(closing.await.unwrap());
}

fn assert_same(one: &ShutdownReport, other: &ShutdownReport) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

#[tokio::test(start_paused = true)]
async fn every_later_call_returns_at_once_with_the_same_report() {
    let app = stuck();
    drop(start(&app));
    app.task_manager().create_task(pending::<()>()).name("stuck").spawn().unwrap();
    settle().await;
    let first = app.aclose().await;
    assert_eq!((first.runs.unfinished.len(), first.tasks.unfinished.len()), (1, 1));

    sleep(7 * SECOND).await;
    let began = Instant::now();
    assert_same(&app.aclose().await, &first);
    assert_same(&app.stop().await, &first);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn concurrent_calls_all_wait_and_get_the_same_report() {
    let app = worker();
    let (_, run) = start(&app);
    settle().await;
    let (one, two, three) = tokio::join!(app.aclose(), app.aclose(), async {
        sleep(SECOND).await;
        app.aclose().await
    });
    assert_eq!(one.tasks.outcomes.completed, 1);
    assert_same(&one, &two);
    assert_same(&one, &three);
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn stop_cancels_runs_and_tasks_at_once() {
    let app = stuck();
    let (id, run) = start(&app);
    app.task_manager().create_task(pending::<()>()).name("stuck").spawn().unwrap();
    settle().await;
    let began = Instant::now();
    let report = app.stop().await;
    assert!(began.elapsed() < GRACE);
    assert_eq!(report.runs.unfinished, [id]);
    assert_eq!(report.tasks.unfinished[0].name(), "stuck");
    run.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn no_node_starts_once_its_run_is_cancelled() {
    let (ready, later) = (Arc::new(Notify::new()), Counter::default());
    let app: CompiledGraph<AgentState> = graph! {
        node WAIT = (step({
            let ready = Arc::clone(&ready);
            move |_| {
                let ready = Arc::clone(&ready);
                async move {
                    ready.notified().await;
                    Ok(())
                }
            }
        }));
        node LATER = (step({
            let later = later.clone();
            move |_| {
                later.add();
                async { Ok(()) }
            }
        }));
        WAIT -> LATER -> END
    };
    let (_, run) = start(&app);
    settle().await;
    let mut stopping = Box::pin(app.stop());
    assert!(futures::poll!(stopping.as_mut()).is_pending());
    // The node is done in the same poll and its result counts; the run is cancelled after it.
    ready.notify_one();
    drop(stopping.await);
    assert_eq!(run.await.unwrap().unwrap_err().node(), Some("LATER"));
    assert_eq!(later.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn stop_shortens_a_waiting_aclose() {
    let app = stuck();
    let (id, run) = start(&app);
    app.task_manager().create_task(pending::<()>()).name("stuck").spawn().unwrap();
    settle().await;
    let began = Instant::now();
    let (closed, stopped) = tokio::join!(app.aclose(), async {
        sleep(SECOND).await;
        app.stop().await
    });
    assert!(began.elapsed() < SECOND + GRACE, "{:?}", began.elapsed());
    for report in [closed, stopped] {
        assert_eq!(report.runs.unfinished, [id]);
        assert_eq!(report.tasks.unfinished[0].name(), "stuck");
    }
    run.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn an_unpolled_run_does_not_delay_the_shutdown() {
    let app = stuck();
    let run_id = RunId::new();
    let config = RunConfig::new().with_run_id(run_id);
    let mut run = Box::pin(app.invoke(AgentState::default(), config));
    assert!(futures::poll!(run.as_mut()).is_pending());

    let began = Instant::now();
    let report = app.aclose().await;
    assert!(began.elapsed() >= 5 * SECOND);
    assert!(began.elapsed() <= 5 * SECOND + GRACE, "{:?}", began.elapsed());
    assert_eq!((&report.runs.unfinished[..], &report.runs.still_running[..]), (&[][..], &[run_id][..]));

    // The run ends when it is polled again, and the next call reports that.
    assert!(matches!(run.await.unwrap_err().kind(), RunErrorKind::ShutDown { .. }));
    let report = app.aclose().await;
    assert_eq!((&report.runs.unfinished[..], &report.runs.still_running[..]), (&[run_id][..], &[][..]));
}

#[tokio::test(start_paused = true)]
async fn stop_shortens_an_aclose_that_waits_for_an_unpolled_run() {
    let app = stuck();
    let mut run = Box::pin(app.invoke(AgentState::default(), RunConfig::new()));
    assert!(futures::poll!(run.as_mut()).is_pending());
    let began = Instant::now();
    tokio::join!(async { drop(app.aclose().await) }, async {
        drop(app.stop().await);
    });
    assert!(began.elapsed() <= GRACE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_within_the_bound_is_not_cancelled() {
    let app = worker();
    let (_, run) = start(&app);
    settle().await;
    let report = app.aclose().await;
    assert_eq!((report.runs.ended, report.runs.unfinished.len()), (1, 0));
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn runs_and_tasks_share_one_bound() {
    // The run takes two of the four seconds; its task, which needs three, has the other two.
    let app = graph! {
        type State = AgentState;
        work -> END;
        compile { shutdown_timeout: 4s }
    };
    let (_, run) = start(&app);
    settle().await;
    let began = Instant::now();
    let report = app.aclose().await;
    assert_eq!(began.elapsed(), 4 * SECOND);
    assert_eq!(report.tasks.unfinished[0].name(), "upload");
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_zero_shutdown_timeout_cancels_everything_at_once() {
    let app = graph! { type State = AgentState; work -> END; compile { shutdown_timeout: 0s } };
    let (id, run) = start(&app);
    settle().await;
    let began = Instant::now();
    assert_eq!(app.aclose().await.runs.unfinished, [id]);
    assert!(began.elapsed() < GRACE);
    run.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn the_longest_shutdown_timeout_waits_for_every_run() {
    let app = graph! {
        type State = AgentState;
        work -> END;
        compile { shutdown_timeout: Duration::MAX }
    };
    let (_, run) = start(&app);
    settle().await;
    assert_eq!(app.aclose().await.tasks.outcomes.completed, 1);
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_report_prints_twenty_lines_at_most() {
    let app = stuck();
    for _ in 0..100 {
        app.task_manager().create_task(pending::<()>()).name("upload").spawn().unwrap();
    }
    let text = app.stop().await.to_string();
    assert_eq!(text.lines().count(), 20, "{text}");
    assert!(text.ends_with("\n         … and 84 more"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_report_reads_as_text() {
    let app = stuck();
    drop(start(&app));
    settle().await;
    app.task_manager().create_task(pending::<()>()).name("upload").spawn().unwrap();
    assert_eq!(
        app.aclose().await.to_string(),
        "shut down in 5.0s\n  \
         runs:  0 ended meanwhile, 1 unfinished, 0 still running\n  \
         tasks: closed in 5.0s: 0 completed, 1 cancelled\n         \
         unfinished: upload #1 (cancelled after 5.0s)"
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_an_aclose_leaves_the_app_closed_and_another_call_continues() {
    let app = worker();
    let (_, run) = start(&app);
    settle().await;
    {
        let mut closing = Box::pin(app.aclose());
        assert!(futures::poll!(closing.as_mut()).is_pending());
    }
    let refused = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
    assert!(matches!(refused.kind(), RunErrorKind::Closed));
    let report = app.aclose().await;
    assert_eq!((report.runs.ended, report.tasks.outcomes.completed), (1, 1));
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_background_task_can_close_its_app_and_is_not_waited_for() {
    let (sender, mut reports) = mpsc::unbounded_channel();
    let app = worker();
    let (_, run) = start(&app);
    settle().await;
    let closer = app.clone();
    app.task_manager().create_task(async move { sender.send(closer.aclose().await) }).name("closer").spawn().unwrap();
    let began = Instant::now();
    let report = reports.recv().await.unwrap();
    assert_eq!(began.elapsed(), 5 * SECOND);
    assert_eq!((report.runs.ended, report.tasks.outcomes.completed), (1, 1));
    assert_eq!(report.tasks.still_running[0].name(), "closer");
    run.await.unwrap().unwrap();

    settle().await;
    let report = app.aclose().await;
    assert!(report.tasks.is_clean());
    assert_eq!(report.tasks.outcomes.completed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_closes_its_own_app_is_cancelled_at_the_bound() {
    let slot: Arc<OnceLock<CompiledGraph<AgentState>>> = Arc::default();
    let later = Counter::default();
    let app: CompiledGraph<AgentState> = graph! {
        node CLOSE = (step({
            let slot = Arc::clone(&slot);
            move |given| {
                let slot = Arc::clone(&slot);
                async move {
                    given.tasks.create_task(pending::<()>()).name("stuck").spawn()?;
                    if let Some(app) = slot.get() {
                        drop(app.aclose().await);
                    }
                    Ok(())
                }
            }
        }));
        node LATER = (step({
            let later = later.clone();
            move |_| {
                later.add();
                async { Ok(()) }
            }
        }));
        CLOSE -> LATER -> END;
        compile { shutdown_timeout: 5s }
    };
    slot.set(app.clone()).unwrap();
    let (id, run) = start(&app);
    let began = Instant::now();
    let error = run.await.unwrap().unwrap_err();
    assert!(began.elapsed() <= 5 * SECOND + GRACE);
    assert!(matches!(error.kind(), RunErrorKind::ShutDown { .. }));
    assert_eq!(later.get(), 0);

    let report = app.aclose().await;
    assert_eq!(report.runs.unfinished, [id]);
    assert_eq!(report.tasks.unfinished[0].name(), "stuck");
    assert!(began.elapsed() <= 5 * SECOND + GRACE);
}

#[tokio::test(start_paused = true)]
async fn the_app_closes_a_manager_passed_to_compile() {
    let manager = BackgroundTaskManager::with_options(TaskManagerOptions::new().grace_period(7 * SECOND));
    let app = graph! {
        type State = AgentState;
        work -> END;
        compile { task_manager: manager.clone(), shutdown_timeout: 1s }
    };
    manager
        .create_task_with_context(|task| async move {
            task.cancelled().await;
            sleep(6 * SECOND).await;
        })
        .spawn()
        .unwrap();
    let began = Instant::now();
    let report = app.aclose().await;
    assert_eq!(began.elapsed(), 7 * SECOND, "one to drain, six of its own grace");
    assert_eq!(report.tasks.outcomes.completed, 1);
    assert_eq!(manager.create_task(async {}).spawn().unwrap_err(), SpawnError::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_returns_its_committed_state() {
    #[node]
    async fn speak(state: &mut AgentState) {
        state.context.push(Message::assistant("word"));
    }
    let app = graph! {
        node STUCK = (step(|_| pending()));
        speak -> STUCK -> END
    };
    let (_, run) = start(&app);
    settle().await;
    drop(app.stop().await);
    let mut error = run.await.unwrap().unwrap_err();
    let Some(LastState::Committed(state)) = error.take_state::<AgentState>() else {
        panic!("the node that was cut off doesn't touch the state");
    };
    assert_eq!(state.context.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_as_it_is_cancelled_is_not_reported_as_unfinished() {
    let cutting = CancellationToken::new();
    // The node is ready in the poll in which the shutdown cancels it.
    let until = cutting.clone();
    let last = step(move |_| {
        let until = until.clone();
        async move {
            until.cancelled().await;
            Ok(())
        }
    });
    let app: CompiledGraph<AgentState> = graph! { node LAST = (last); LAST -> END; compile { shutdown_timeout: 1s } };
    let mut run = Box::pin(app.invoke(AgentState::default(), RunConfig::new()));
    assert!(futures::poll!(run.as_mut()).is_pending());
    let mut closing = Box::pin(app.stop());
    assert!(futures::poll!(closing.as_mut()).is_pending());
    cutting.cancel();
    run.await.unwrap();
    let report = closing.await;
    assert_eq!((report.runs.ended, report.runs.unfinished.len()), (1, 0));
}

/// Spawns a task that, once cancelled, writes its name down and takes this much longer to end.
fn ends_after_cancel(manager: &BackgroundTaskManager, journal: &Journal, name: &'static str, time: Duration) {
    let journal = journal.clone();
    let work = move |task: TaskContext| async move {
        task.cancelled().await;
        journal.add(name);
        sleep(time).await;
    };
    let builder = manager.create_task_with_context(work).name(name).grace_period(4 * SECOND);
    if name == "must" { builder.cancel_last().spawn() } else { builder.spawn() }.unwrap();
}

#[tokio::test(start_paused = true)]
async fn tasks_keep_their_grace_periods_and_cancel_last_tasks_are_cancelled_last() {
    let (app, journal) = (stuck(), Journal::default());
    let (id, run) = start(&app);
    ends_after_cancel(app.task_manager(), &journal, "must", 3 * SECOND);
    ends_after_cancel(app.task_manager(), &journal, "other", 2 * SECOND);
    settle().await;
    let began = Instant::now();
    let (one, two) = tokio::join!(app.aclose(), app.aclose());
    assert_eq!(began.elapsed(), 10 * SECOND, "five of the bound, two for the other, three for what must finish");
    assert_eq!(one.elapsed, 10 * SECOND);
    assert_eq!(journal.entries(), ["other", "must"]);
    assert_eq!((one.runs.unfinished.as_slice(), one.tasks.outcomes.completed), (&[id][..], 2));
    assert!(one.tasks.is_clean());
    assert_same(&one, &two);
    assert_same(&app.stop().await, &one);
    run.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_bounded_whatever_runs_and_tasks_do() {
    let app = stuck();
    let manager = app.task_manager();
    manager.create_task_with_context(|_| pending::<()>()).name("stubborn").grace_period(2 * SECOND).spawn().unwrap();
    let must = manager.create_task_with_context(|_| pending::<()>()).name("must").cancel_last();
    must.grace_period(3 * SECOND).context("user", "ada").spawn().unwrap();
    // No task polls this run.
    let mut run = Box::pin(app.invoke(AgentState::default(), RunConfig::new()));
    assert!(futures::poll!(run.as_mut()).is_pending());
    let began = Instant::now();
    let report = app.aclose().await;
    assert_eq!(began.elapsed(), 10 * SECOND, "the bound, and both graces");
    assert_eq!(report.runs.still_running.len(), 1);
    let unfinished: Vec<_> = report.tasks.unfinished.iter().map(ToString::to_string).collect();
    assert_eq!(unfinished, ["stubborn #1 (aborted after 7.0s)", "must #2 (aborted after 10.0s) {\"user\":\"ada\"}"]);
}

#[tokio::test(start_paused = true)]
async fn stop_waits_only_for_grace_periods() {
    let (app, journal) = (stuck(), Journal::default());
    ends_after_cancel(app.task_manager(), &journal, "must", 3 * SECOND);
    ends_after_cancel(app.task_manager(), &journal, "other", 2 * SECOND);
    settle().await;
    let report = app.stop().await;
    assert_eq!((report.elapsed, report.tasks.outcomes.completed), (5 * SECOND, 2));
    assert_eq!(journal.entries(), ["other", "must"]);
}

#[tokio::test(start_paused = true)]
async fn endless_chains_of_tasks_are_cancelled_at_the_bound() {
    fn link(task: TaskContext) -> BoxFuture<'static, Result<(), SpawnError>> {
        Box::pin(async move {
            sleep(SECOND / 10).await;
            task.manager().create_task_with_context(link).spawn().map(drop)
        })
    }
    #[node]
    async fn begin(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        task_manager.create_task_with_context(link).spawn()?;
        Ok(())
    }
    let app = graph! {
        type State = AgentState;
        begin -> END;
        compile { shutdown_timeout: 5s }
    };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let report = app.aclose().await;
    assert!(report.elapsed < 6 * SECOND, "{report}");
    assert_eq!((report.tasks.outcomes.failed, report.tasks.still_running.len()), (1, 0), "its last spawn was refused");
    assert!(report.tasks.outcomes.completed > 40, "{report}");
}

#[tokio::test(start_paused = true)]
async fn queued_tasks_of_a_run_start_while_the_app_drains() {
    #[node]
    async fn spawn(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        for _ in 0..3 {
            task_manager.create_task(async { sleep(SECOND).await }).spawn()?;
        }
        Ok(())
    }
    let manager = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    let app = graph! {
        type State = AgentState;
        spawn -> END;
        compile { task_manager: manager, shutdown_timeout: 5s }
    };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let report = app.aclose().await;
    assert_eq!((report.tasks.outcomes.completed, report.elapsed), (3, 3 * SECOND));
}
