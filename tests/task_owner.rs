//! Tasks whose run ends: `OnRunEnd`.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager, CancellationToken, CompiledGraph, NodeError, RunConfig, RunError, RunId, TaskContext, graph,
    graph::{Node, NodeContext, ParallelContext, ParallelNode},
    run::{EventKind, RunErrorKind},
    task::{FinishedTask, OnDuplicateKey, OnRunEnd, SpawnError, TaskInfo, TaskManagerOptions, TaskOutcome},
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    steps::{Step, step},
    support::{Trip, TripUpdate, settle},
};

const SECOND: Duration = Duration::from_secs(1);

/// A node that spawns a task with the node's name, which takes this long.
struct Spawns(OnRunEnd, Duration);

impl Spawns {
    fn spawn(&self, tasks: &BackgroundTaskManager, node: &str) -> Result<(), NodeError> {
        tasks.create_task(sleep(self.1)).name(node.to_owned()).on_run_end(self.0).spawn()?;
        Ok(())
    }
}

impl<C: Send + Sync + 'static> Node<Trip, C> for Spawns {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, Trip, C>) -> Result<(), NodeError> {
        self.spawn(&cx.task_manager(), cx.node_name())
    }
}

impl<C: Send + Sync + 'static> ParallelNode<Trip, C> for Spawns {
    type Output = ();

    async fn run_parallel(&self, cx: ParallelContext<'_, Trip, C>) -> Result<(Option<TripUpdate>, ()), NodeError> {
        self.spawn(&cx.task_manager(), cx.node_name())?;
        Ok((None, ()))
    }
}

fn fails() -> Step<impl Fn(crate::steps::Given) -> std::future::Ready<Result<(), NodeError>> + Send + Sync + 'static> {
    step(|_| std::future::ready(Err("broken".into())))
}

/// Builds a graph whose first node spawns three tasks, one of each kind, and whose second node is the test's.
fn three_of<N: Node<Trip, Output = ()>>(last: N) -> CompiledGraph<Trip> {
    let spawn = step(|given| async move {
        for (name, on_run_end) in [("detach", OnRunEnd::Detach), ("cancel", OnRunEnd::Cancel), ("wait", OnRunEnd::Wait)]
        {
            given.tasks.create_task(sleep(5 * SECOND)).name(name).on_run_end(on_run_end).spawn()?;
        }
        Ok(())
    });
    graph! {
        type State = Trip;
        node SPAWN = (spawn);
        node LAST = (last);
        SPAWN -> LAST -> END;
        compile { shutdown_timeout: 3s }
    }
}

fn nothing() -> Step<impl Fn(crate::steps::Given) -> std::future::Ready<Result<(), NodeError>> + Send + Sync + 'static>
{
    step(|_| std::future::ready(Ok(())))
}

fn stuck() -> Step<impl Fn(crate::steps::Given) -> std::future::Pending<Result<(), NodeError>> + Send + Sync + 'static>
{
    step(|_| pending())
}

fn start(app: &CompiledGraph<Trip>, config: RunConfig) -> JoinHandle<Result<Trip, RunError>> {
    let app = app.clone();
    tokio::spawn(async move { app.invoke(Trip::default(), config).await })
}

/// Returns the tasks as `name outcome after seconds`, in the order of their ends.
async fn ends(tasks: &BackgroundTaskManager) -> Vec<String> {
    tasks.wait_for_all(None).await.unwrap();
    let end = |end: &FinishedTask| format!("{} {} after {}", end.name(), end.outcome(), end.age().as_secs());
    tasks.recently_finished().iter().map(end).collect()
}

fn live(tasks: &BackgroundTaskManager) -> Vec<String> {
    tasks.task_info().iter().map(|task| task.name().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_waits_for_cancels_or_leaves_each_task() {
    let (app, began) = (three_of(nothing()), Instant::now());
    let run = start(&app, RunConfig::new());
    sleep(4 * SECOND).await;
    assert_eq!(live(app.task_manager()), ["detach", "cancel", "wait"], "the run has not ended");
    assert!(!run.is_finished());
    run.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), 5 * SECOND);

    // Without a task to wait for, the run ends at once.
    let app = graph! {
        type State = Trip;
        node DETACH = (Spawns(OnRunEnd::Detach, 5 * SECOND));
        node CANCEL = (Spawns(OnRunEnd::Cancel, 5 * SECOND));
        DETACH -> CANCEL -> END
    };
    let began = Instant::now();
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(ends(app.task_manager()).await, ["CANCEL cancelled after 0", "DETACH completed after 5"]);
}

#[tokio::test(start_paused = true)]
async fn by_default_a_task_outlives_its_run() {
    assert_eq!(OnRunEnd::default(), OnRunEnd::Detach);
    let app = graph! {
        type State = Trip;
        node SPAWN = (step(|given| async move {
            given.tasks.create_task(sleep(5 * SECOND)).name("mail").spawn()?;
            Ok(())
        }));
        SPAWN -> END
    };
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!(ends(app.task_manager()).await, ["mail completed after 5"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_waits_for_its_tasks_and_keeps_its_error() {
    let (app, began) = (three_of(fails()), Instant::now());
    let error = app.invoke(Trip::default(), RunConfig::new()).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Node(failure) if &*failure.node == "LAST"), "{error}");
    assert_eq!(began.elapsed(), 5 * SECOND);
    assert_eq!(app.task_manager().stats().outcomes.completed, 3);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_state_panics_waits_for_its_tasks() {
    #[derive(Debug, Default, agentflow::State)]
    struct Brittle {
        breaks: bool,
    }
    impl Clone for Brittle {
        fn clone(&self) -> Self {
            assert!(!self.breaks, "cannot be cloned");
            Self { breaks: self.breaks }
        }
    }
    /// Its retry makes the run clone the state before the first attempt.
    #[agentflow::node]
    async fn retried(_state: &mut Brittle) {}

    let app = graph! {
        type State = Brittle;
        node SPAWN = (step(|given| async move {
            given.tasks.create_task(sleep(5 * SECOND)).on_run_end(OnRunEnd::Wait).spawn()?;
            Ok(())
        }));
        node RETRIED = retried { retry: 1 };
        SPAWN -> match |state: &Brittle| state.breaks { true => RETRIED, false => END };
        RETRIED -> END
    };
    let began = Instant::now();
    let ended = app.invoke(Brittle { breaks: true }, RunConfig::new());
    let error = tokio::time::timeout(60 * SECOND, ended).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("cannot be cloned"), "{error}");
    assert_eq!(began.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_does_not_wait_for_its_tasks() {
    // The run's token is cancelled.
    let (app, token) = (three_of(stuck()), CancellationToken::new());
    let run = start(&app, RunConfig::new().with_cancellation_token(token.clone()));
    sleep(SECOND).await;
    token.cancel();
    assert!(matches!(run.await.unwrap().unwrap_err().kind(), RunErrorKind::Cancelled { .. }));
    let expected = ["cancel cancelled after 1", "detach completed after 5", "wait completed after 5"];
    assert_eq!(ends(app.task_manager()).await, expected);

    // The run times out.
    let app = three_of(stuck());
    let run = start(&app, RunConfig::new().with_run_timeout(SECOND));
    assert!(matches!(run.await.unwrap().unwrap_err().kind(), RunErrorKind::TimedOut { .. }));
    assert_eq!(ends(app.task_manager()).await, expected);

    // The run is dropped.
    let app = three_of(stuck());
    let run = start(&app, RunConfig::new());
    sleep(SECOND).await;
    run.abort();
    assert_eq!(ends(app.task_manager()).await, expected);

    // The run's stream is dropped.
    let app = three_of(stuck());
    let mut run = app.stream(Trip::default(), RunConfig::new());
    while tokio::time::timeout(SECOND, run.next()).await.is_ok() {}
    drop(run);
    assert_eq!(ends(app.task_manager()).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_wait_keeps_the_runs_result_and_the_task() {
    // The run times out.
    let (app, began) = (three_of(nothing()), Instant::now());
    let config = RunConfig::new().with_run_timeout(2 * SECOND);
    app.invoke(Trip { count: 7, ..Trip::default() }, config).await.unwrap();
    assert_eq!(began.elapsed(), 2 * SECOND);
    let expected = ["cancel cancelled after 2", "detach completed after 5", "wait completed after 5"];
    assert_eq!(ends(app.task_manager()).await, expected);

    // The token of a failed run is cancelled.
    let (app, token) = (three_of(fails()), CancellationToken::new());
    let run = start(&app, RunConfig::new().with_cancellation_token(token.clone()));
    sleep(2 * SECOND).await;
    token.cancel();
    let error = run.await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Node(_)), "{error}");
    assert_eq!(ends(app.task_manager()).await, expected);

    // The run is dropped.
    let app = three_of(nothing());
    let run = start(&app, RunConfig::new());
    sleep(2 * SECOND).await;
    run.abort();
    assert_eq!(ends(app.task_manager()).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_wait_at_its_bound() {
    let app = three_of(nothing());
    let run = start(&app, RunConfig::new());
    settle().await;
    let report = app.aclose().await;
    let state = run.await.unwrap();
    assert!(state.is_ok(), "its result stands: {state:?}");
    // The run's wait used up the three seconds; the remaining tasks were then cancelled.
    assert_eq!(report.tasks.outcomes.cancelled, 3);
    assert_eq!(ends(app.task_manager()).await.len(), 3);
    assert_eq!((report.runs.ended + report.runs.unfinished.len(), report.runs.still_running.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_in_time_waits_for_the_run_and_its_tasks() {
    let app = graph! {
        type State = Trip;
        node SPAWN = (Spawns(OnRunEnd::Wait, 2 * SECOND));
        SPAWN -> END;
        compile { shutdown_timeout: 10s }
    };
    let run = start(&app, RunConfig::new());
    settle().await;
    let report = app.aclose().await;
    run.await.unwrap().unwrap();
    assert_eq!((report.elapsed, report.runs.ended, report.tasks.outcomes.completed), (2 * SECOND, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_run_waits_for_the_children_of_its_tasks() {
    let app = graph! {
        type State = Trip;
        node SPAWN = (step(|given| async move {
            let parent = |task: TaskContext| async move {
                sleep(2 * SECOND).await;
                let tasks = task.manager();
                tasks.create_task(sleep(3 * SECOND)).name("child").on_run_end(OnRunEnd::Wait).spawn()?;
                tasks.create_task(sleep(9 * SECOND)).name("detached").spawn()?;
                tasks.create_task(sleep(9 * SECOND)).name("cancelled").on_run_end(OnRunEnd::Cancel).spawn().map(drop)
            };
            given.tasks.create_task_with_context(parent).name("parent").on_run_end(OnRunEnd::Wait).spawn()?;
            Ok(())
        }));
        SPAWN -> END
    };
    let began = Instant::now();
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!(began.elapsed(), 5 * SECOND);
    let expected = [
        "parent completed after 2",
        "child completed after 3",
        "cancelled cancelled after 3",
        "detached completed after 9",
    ];
    assert_eq!(ends(app.task_manager()).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_ended_does_not_wait_for_children_of_detached_tasks() {
    let app = graph! {
        type State = Trip;
        node SPAWN = (step(|given| async move {
            let parent = |task: TaskContext| async move {
                sleep(2 * SECOND).await;
                for (name, on_run_end) in [("cancel", OnRunEnd::Cancel), ("wait", OnRunEnd::Wait)] {
                    task.manager().create_task(sleep(3 * SECOND)).name(name).on_run_end(on_run_end).spawn()?;
                }
                Ok::<_, agentflow::task::SpawnError>(())
            };
            given.tasks.create_task_with_context(parent).name("parent").spawn()?;
            Ok(())
        }));
        SPAWN -> END
    };
    let began = Instant::now();
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    let expected = ["parent completed after 2", "cancel cancelled after 0", "wait completed after 3"];
    assert_eq!(ends(app.task_manager()).await, expected, "one that is to end with its run comes too late");
}

#[tokio::test(start_paused = true)]
async fn a_task_with_a_token_is_cancelled_cooperatively_at_the_end_of_its_run() {
    let app = graph! {
        type State = Trip;
        node SPAWN = (step(|given| async move {
            let saves = |task: TaskContext| async move {
                task.cancelled().await;
                sleep(SECOND / 2).await;
            };
            given.tasks.create_task_with_context(saves).name("saves").on_run_end(OnRunEnd::Cancel).spawn()?;
            tokio::task::yield_now().await;
            Ok(())
        }));
        SPAWN -> END
    };
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!(app.task_manager().task_count(), 1, "the run does not wait for it");
    assert_eq!(ends(app.task_manager()).await, ["saves completed after 0"]);
}

#[tokio::test(start_paused = true)]
async fn nodes_of_groups_and_subgraphs_belong_to_the_same_run() {
    let app = graph! {
        type State = Trip;
        node A = (Spawns(OnRunEnd::Wait, 2 * SECOND));
        node B = (Spawns(OnRunEnd::Wait, 3 * SECOND));
        node C = (Spawns(OnRunEnd::Cancel, 60 * SECOND));
        graph SUB {
            node D = (Spawns(OnRunEnd::Wait, 4 * SECOND));
            node E = (Spawns(OnRunEnd::Cancel, 60 * SECOND));
            D -> E -> END
        }
        A -> { B, C } -> SUB -> END
    };
    let (id, began) = (RunId::new(), Instant::now());
    let run = start(&app, RunConfig::new().with_run_id(id));
    settle().await;
    let of_run = app.task_manager().tasks_of_run(id);
    let nodes: Vec<_> = of_run.iter().map(|task| (task.name(), task.origin().unwrap().node())).collect();
    assert_eq!(nodes, ["A", "B", "C", "SUB/D", "SUB/E"].map(|node| (node, node)));
    run.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), 4 * SECOND, "a subgraph is no run of its own");
    let expected = [
        "A completed after 2",
        "B completed after 3",
        "SUB/D completed after 4",
        "C cancelled after 4",
        "SUB/E cancelled after 4",
    ];
    assert_eq!(ends(app.task_manager()).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_run_waits_only_for_its_own_tasks() {
    let app = graph! {
        type State = Trip;
        node SPAWN = (Spawns(OnRunEnd::Cancel, 60 * SECOND));
        node SLEEP = (crate::steps::sleeps(SECOND));
        SPAWN -> match |state: &Trip| state.count { 0 => END, _ => SLEEP };
        SLEEP -> END
    };
    let (quick, slow) = (RunId::new(), RunId::new());
    let slower = app.clone();
    let running = tokio::spawn(async move {
        slower.invoke(Trip { count: 1, ..Trip::default() }, RunConfig::new().with_run_id(slow)).await
    });
    settle().await;
    app.invoke(Trip::default(), RunConfig::new().with_run_id(quick)).await.unwrap();
    settle().await;
    let of = |run| app.task_manager().tasks_of_run(run).len();
    assert_eq!((of(quick), of(slow), of(RunId::new())), (0, 1, 0));
    running.await.unwrap().unwrap();
    assert_eq!(ends(app.task_manager()).await, ["SPAWN cancelled after 0", "SPAWN cancelled after 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_reports_the_awaited_ends_before_the_runs_own() {
    let app = three_of(nothing());
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let mut told = Vec::new();
    while let Some(event) = run.next().await {
        match event.kind {
            EventKind::NodeEnded { node, .. } => told.push(node),
            EventKind::TaskEnded { task, outcome, .. } => told.push(format!("{task} {outcome}")),
            EventKind::RunEnded { error, .. } => told.push(format!("end {error:?}")),
            _ => {}
        }
    }
    assert_eq!(told[..2], ["SPAWN", "LAST"]);
    // All three end after five seconds, in an order that is not defined.
    assert!(told[2..told.len() - 1].contains(&"wait completed".to_owned()), "{told:?}");
    assert_eq!(told.last().unwrap(), "end None");
    run.finish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn tasks_cancelled_at_the_end_of_a_run_are_not_reported_after_it() {
    let app = graph! {
        type State = Trip;
        node SPAWN = (Spawns(OnRunEnd::Cancel, 60 * SECOND));
        SPAWN -> END
    };
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let mut last = None;
    while let Some(event) = run.next().await {
        last = Some(event.kind);
    }
    assert!(matches!(last, Some(EventKind::RunEnded { error: None, .. })));
    assert_eq!(ends(app.task_manager()).await, ["SPAWN cancelled after 0"]);
    assert_eq!(run.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn on_run_end_has_no_effect_outside_of_a_run() {
    let tasks = BackgroundTaskManager::new();
    for on_run_end in [OnRunEnd::Detach, OnRunEnd::Cancel, OnRunEnd::Wait] {
        tasks.create_task(sleep(SECOND)).name("task").on_run_end(on_run_end).spawn().unwrap();
    }
    let app = graph! { type State = Trip; node A = (nothing()); A -> END };
    app.task_manager().create_task(sleep(SECOND)).name("apps").on_run_end(OnRunEnd::Cancel).spawn().unwrap();
    let began = Instant::now();
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(ends(&tasks).await, ["task completed after 1"; 3]);
    assert_eq!(ends(app.task_manager()).await, ["apps completed after 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_spawned_with_the_apps_manager_carries_run_and_node() {
    let others = BackgroundTaskManager::new();
    let (ready, is_ready) = oneshot::channel();
    let hold = std::sync::Mutex::new(Some((others.clone(), ready)));
    let app = graph! {
        type State = Trip;
        node SPAWN = (step(move |given| {
            let (others, ready) = hold.lock().unwrap().take().unwrap();
            async move {
                given.tasks.create_task(async move {
                    let (send, receive) = oneshot::channel::<BackgroundTaskManager>();
                    ready.send(send).unwrap();
                    let owner = receive.await?;
                    owner.create_task(sleep(SECOND)).name("child").on_run_end(OnRunEnd::Wait).spawn()?;
                    // A task of another manager is not a child.
                    others.create_task(sleep(SECOND)).name("stranger").spawn()?;
                    Ok::<_, anyhow::Error>(())
                }).name("parent").on_run_end(OnRunEnd::Wait).spawn()?;
                Ok(())
            }
        }));
        SPAWN -> END
    };
    let (id, began) = (RunId::new(), Instant::now());
    let run = start(&app, RunConfig::new().with_run_id(id));
    is_ready.await.unwrap().send(app.task_manager().clone()).unwrap();
    settle().await;
    let of_run: Vec<_> = app.task_manager().tasks_of_run(id);
    let origins: Vec<_> = of_run.iter().map(|task: &TaskInfo| (task.name(), task.origin().unwrap().node())).collect();
    assert_eq!(origins, [("child", "SPAWN")]);
    assert!(others.task_info()[0].origin().is_none());
    run.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), SECOND, "so the run waited for it");
}

#[test]
fn runs_on_many_threads_wait_for_all_descendants() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    runtime.block_on(async {
        let app = graph! {
            type State = Trip;
            node SPAWN = (step(|given| async move {
                for _ in 0..4 {
                    let parent = |task: TaskContext| async move {
                        let child = async { tokio::task::yield_now().await };
                        task.manager().create_task(child).name("child").on_run_end(OnRunEnd::Wait).spawn().map(drop)
                    };
                    given.tasks.create_task_with_context(parent).name("parent").on_run_end(OnRunEnd::Wait).spawn()?;
                }
                Ok(())
            }));
            SPAWN -> END
        };
        let runs: Vec<_> = (0..200)
            .map(|_| {
                let (app, id) = (app.clone(), RunId::new());
                tokio::spawn(async move {
                    app.invoke(Trip::default(), RunConfig::new().with_run_id(id)).await.unwrap();
                    app.task_manager().tasks_of_run(id).len()
                })
            })
            .collect();
        for run in runs {
            assert_eq!(run.await.unwrap(), 0, "a task of the run still lived when it ended");
        }
        assert_eq!(app.task_manager().stats().outcomes.completed, 1600);
    });
}

#[agentflow::node]
async fn fails_beside_a_task_that_listens(
    _state: &mut Trip,
    task_manager: &BackgroundTaskManager,
    cancel: &CancellationToken,
) -> Result<(), NodeError> {
    let cancel = cancel.clone();
    let listens = async move { cancel.cancelled().await };
    task_manager.create_task(listens).name("listens").on_run_end(OnRunEnd::Wait).spawn()?;
    Err("it fails".into())
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_does_not_wait_forever_for_a_task_that_waits_for_its_end() {
    let app = graph! { fails_beside_a_task_that_listens -> END };
    let ended = app.invoke(Trip::default(), RunConfig::new());
    let error = tokio::time::timeout(60 * SECOND, ended).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("it fails"), "{error}");
    assert_eq!(ends(app.task_manager()).await, ["listens completed after 0"]);
}

/// Spawns many tasks that run one at a time.
#[agentflow::node]
async fn lines_up(state: &mut Trip, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    for _ in 0..50 {
        let work = std::future::pending::<()>();
        let task = task_manager.create_task(work).key("one", OnDuplicateKey::Queue);
        task.on_run_end(OnRunEnd::Cancel).spawn()?;
    }
    state.count += 1;
    Ok(())
}

#[test]
fn tasks_cancelled_with_their_run_never_start_in_freed_slots() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    for round in 0..100 {
        runtime.block_on(async {
            let app = graph! { lines_up -> END };
            app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
            app.task_manager().wait_for_all(None).await.unwrap();
            let begun = app.task_manager().recently_finished().iter().filter(|end| end.attempts() > 0).count();
            assert!(begun <= 1, "round {round}: {begun}");
        });
    }
}

/// Runs a graph whose node leaves its task manager behind, and returns the app and that manager.
async fn leave_behind() -> (CompiledGraph<Trip>, BackgroundTaskManager) {
    let left = Arc::new(Mutex::new(None));
    let leave = {
        let left = Arc::clone(&left);
        step(move |given| {
            *left.lock().unwrap() = Some(given.tasks);
            std::future::ready(Ok(()))
        })
    };
    let app: CompiledGraph<Trip> = graph! { node LEAVE = (leave); LEAVE -> END };
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    let left = left.lock().unwrap().take().unwrap();
    (app, left)
}

#[tokio::test(start_paused = true)]
async fn a_nodes_manager_spawns_nothing_once_its_run_has_ended() {
    let (app, left) = leave_behind().await;
    let spawn = || left.create_task(async {}).spawn().map(drop);
    assert_eq!(spawn(), Err(SpawnError::RunEnded));
    assert_eq!(left.create_task(async {}).spawn_wait().await.map(drop), Err(SpawnError::RunEnded));
    assert_eq!(SpawnError::RunEnded.as_str(), "run_ended");
    // The app's own manager, and a task of it, still spawn.
    assert!(app.task_manager().create_task(async {}).spawn().is_ok());
    let closing = tokio::spawn({
        let app = app.clone();
        async move { app.aclose().await }
    });
    let keeps_open = app.task_manager().create_task(sleep(SECOND)).spawn().unwrap();
    settle().await;
    assert_eq!(spawn(), Err(SpawnError::RunEnded), "while the manager drains");
    keeps_open.await.unwrap();
    assert!(closing.await.unwrap().tasks.is_clean());
    assert_eq!(spawn(), Err(SpawnError::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_outlives_its_run_does_not_hold_up_a_close() {
    let (app, left) = leave_behind().await;
    tokio::spawn(async move {
        while left.create_task(sleep(2 * SECOND)).spawn().is_ok() {
            sleep(SECOND).await;
        }
    });
    settle().await;
    let began = Instant::now();
    assert!(app.aclose().await.tasks.is_clean());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_live_task_of_an_ended_run_still_spawns_children() {
    let spawn = step(|given| async move {
        let nodes = given.tasks.clone();
        let parent = |task: TaskContext| async move {
            sleep(SECOND).await;
            // Through its own manager, and through that of the node.
            task.manager().create_task(sleep(SECOND)).name("child").spawn()?;
            nodes.create_task(sleep(SECOND)).name("child").spawn()?;
            Ok::<_, SpawnError>(())
        };
        given.tasks.create_task_with_context(parent).name("parent").spawn()?;
        Ok(())
    });
    let app: CompiledGraph<Trip> = graph! { node SPAWN = (spawn); SPAWN -> END; compile { shutdown_timeout: 30s } };
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert!(app.aclose().await.tasks.is_clean());
    let ends = app.task_manager().recently_finished();
    let ends: Vec<_> = ends.iter().map(|end| (end.name(), end.outcome())).collect();
    let completed = TaskOutcome::Completed;
    assert_eq!(ends, [("parent", completed), ("child", completed), ("child", completed)]);
}

#[tokio::test(start_paused = true)]
async fn a_spawn_that_waits_for_room_is_refused_when_its_run_ends() {
    let refused = Arc::new(Mutex::new(None));
    let waits = {
        let refused = Arc::clone(&refused);
        step(move |given| {
            let refused = Arc::clone(&refused);
            async move {
                let tasks = given.tasks;
                tokio::spawn(async move {
                    *refused.lock().unwrap() = tasks.create_task(async {}).spawn_wait().await.err();
                });
                settle().await;
                Ok(())
            }
        })
    };
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1));
    let full = tasks.create_task(pending::<()>()).spawn().unwrap();
    let app: CompiledGraph<Trip> = graph! { node WAITS = (waits); WAITS -> END; compile { task_manager: tasks } };
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    settle().await;
    assert_eq!(*refused.lock().unwrap(), Some(SpawnError::RunEnded));
    full.cancel();
}
