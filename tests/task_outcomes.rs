//! Outcomes: every spawned task ends once, with the outcome that is reported.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::pending,
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agentflow::{
    AgentState, BackgroundTaskManager, NodeError, RetryPolicy, RunConfig, graph, node,
    task::{SpawnError, TaskError, TaskManagerOptions, TaskOutcome, TaskState},
};

use crate::support::{OnDrop, settle};

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("no route to {0}")]
struct NoRoute(&'static str);

fn last(tasks: &BackgroundTaskManager) -> TaskOutcome {
    tasks.recently_finished().last().unwrap().outcome()
}

#[tokio::test(start_paused = true)]
async fn a_task_that_returns_is_completed_with_its_value() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    let seven = tasks.create_task(async { Ok::<_, Infallible>(7) }).spawn().unwrap();
    assert_eq!(seven.await.unwrap(), 7);
    assert_eq!(last(&tasks), TaskOutcome::Completed);
    assert_eq!(tasks.stats().outcomes.completed, 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_fails_the_task_and_keeps_its_type() {
    let tasks = BackgroundTaskManager::new();
    let error = tasks.create_task(async { Err::<(), _>(NoRoute("ada")) }).spawn().unwrap().await.unwrap_err();
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&NoRoute("ada")));
    let TaskError::Failed(source) = error else { panic!("{error:?}") };
    assert_eq!(*source.downcast::<NoRoute>().unwrap(), NoRoute("ada"));
    assert_eq!(last(&tasks), TaskOutcome::Failed);
    assert_eq!(tasks.recently_finished()[0].error(), Some("no route to ada"));
}

#[tokio::test(start_paused = true)]
async fn texts_and_anyhow_errors_are_errors() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async { Err::<(), _>("plain text") }).spawn().unwrap();
    tasks.create_task(async { Err::<(), _>(format!("text {}", 2)) }).spawn().unwrap();
    let chain = anyhow::Error::new(NoRoute("ada")).context("sending failed");
    tasks.create_task(async { Err::<(), _>(chain) }).spawn().unwrap();
    tasks.wait_for_all(None).await.unwrap();
    let mut errors: Vec<_> = tasks.recently_finished().iter().map(|end| end.error().unwrap().to_owned()).collect();
    errors.sort();
    assert_eq!(errors, ["plain text", "sending failed: no route to ada", "text 2"]);
    assert_eq!(tasks.stats().outcomes.failed, 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_and_a_task_may_share_a_function() {
    async fn send_invoice(to: &'static str) -> Result<&'static str, NodeError> {
        tokio::task::yield_now().await;
        if to.is_empty() { Err(NoRoute("nobody"))? } else { Ok(to) }
    }

    #[node]
    async fn invoice(_state: &AgentState) -> Result<(), NodeError> {
        send_invoice("").await.map(drop)
    }

    let tasks = BackgroundTaskManager::new();
    assert_eq!(tasks.create_task(send_invoice("ada")).spawn().unwrap().await.unwrap(), "ada");
    let retried = tasks.create_retrying_task(|_| send_invoice("")).retry(RetryPolicy::new(1));
    for failed in [retried.spawn(), tasks.create_task_with_context(|_| send_invoice("")).spawn()] {
        let TaskError::Failed(source) = failed.unwrap().await.unwrap_err() else { panic!("expected a failure") };
        assert_eq!(source.downcast_ref(), Some(&NoRoute("nobody")));
        // The way back: a task's error is the error of a node that awaits it.
        assert!(NodeError::from(source).downcast_ref::<NoRoute>().is_some());
    }

    let app = graph! { invoice -> END };
    let error = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&NoRoute("nobody")));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_outcome_with_its_message_and_the_manager_works_on() {
    let tasks = BackgroundTaskManager::new();
    let number = 2;
    let panics = [
        (tasks.create_task(async { panic!("a literal") }).spawn().unwrap(), "a literal"),
        (tasks.create_task(async move { panic!("number {number}") }).spawn().unwrap(), "number 2"),
        (tasks.create_task(async { panic_any(7_u8) }).spawn().unwrap(), "(the panic carried no text)"),
    ];
    for (handle, expected) in panics {
        let Err(TaskError::Panicked { message, .. }) = handle.await else { panic!("expected a panic") };
        assert_eq!(message, expected);
    }
    assert_eq!(tasks.stats().outcomes.panicked, 3);
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panicking_closure_is_the_tasks_panic_and_not_the_spawners() {
    let tasks = BackgroundTaskManager::new();
    let make = |_| -> std::future::Ready<()> { panic!("before the future") };
    let handle = tasks.create_task_with_context(make).spawn().unwrap();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Panicked);
    assert_eq!(tasks.task_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_destructor_is_the_outcome_of_a_cancelled_task() {
    let tasks = BackgroundTaskManager::new();
    let handle = tasks
        .create_task(async {
            let _bomb = OnDrop(|| panic!("in the destructor"));
            pending::<()>().await;
        })
        .spawn()
        .unwrap();
    settle().await;
    handle.cancel();
    let Err(TaskError::Panicked { message, .. }) = handle.await else { panic!("expected a panic") };
    assert_eq!(message, "in the destructor");
    let stats = tasks.stats();
    assert_eq!((stats.spawned, stats.outcomes.panicked, stats.outcomes.cancelled), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_payload_that_panics_when_dropped_is_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("again");
        }
    }
    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task(async { panic_any(Bomb) }).spawn().unwrap();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Panicked);
    assert_eq!(tasks.stats().outcomes.panicked, 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_display_panics_is_a_failure() {
    #[derive(Debug)]
    struct Unspeakable;
    impl fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("cannot be shown")
        }
    }
    impl Error for Unspeakable {}

    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task(async { Err::<(), _>(Unspeakable) }).spawn().unwrap();
    let TaskError::Failed(source) = handle.await.unwrap_err() else { panic!("expected a failure") };
    assert!(source.is::<Unspeakable>());
    assert_eq!(tasks.stats().outcomes.failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_may_be_a_loop_that_never_ends() {
    let tasks = BackgroundTaskManager::new();
    let tick = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let handle = tasks.create_task(tick).timeout(Duration::from_secs(5)).spawn().unwrap();
    let Err(error) = handle.await;
    assert_eq!(error.outcome(), TaskOutcome::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn the_future_starts_at_spawn_and_not_before() {
    let tasks = BackgroundTaskManager::new();
    let started = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&started);
    let builder = tasks.create_task(async move { flag.store(true, Ordering::SeqCst) });
    settle().await;
    assert!(!started.load(Ordering::SeqCst));
    assert_eq!(tasks.stats().spawned, 0);
    let _handle = builder.spawn().unwrap();
    settle().await;
    assert!(started.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_detaches_the_task() {
    let tasks = BackgroundTaskManager::new();
    drop(tasks.create_task(tokio::time::sleep(Duration::from_secs(1))).spawn().unwrap());
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(last(&tasks), TaskOutcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn an_abort_on_drop_handle_aborts_its_task() {
    let tasks = BackgroundTaskManager::new();
    drop(tasks.create_task(pending::<()>()).spawn().unwrap().abort_on_drop());
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(last(&tasks), TaskOutcome::Aborted);
    // The outcome of an ended task does not change.
    let done = tasks.create_task(async {}).spawn().unwrap().abort_on_drop();
    settle().await;
    drop(done);
    assert_eq!(last(&tasks), TaskOutcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_handle_reports_its_task_and_if_it_has_ended() {
    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task(async {}).name("quick").spawn().unwrap();
    assert_eq!((handle.id().get(), handle.name(), handle.is_finished()), (1, "quick", false));
    tasks.wait_for_all(None).await.unwrap();
    assert!(handle.is_finished(), "true as soon as a wait has returned");
}

#[test]
fn without_a_runtime_a_spawn_is_an_error_and_not_a_panic() {
    let tasks = BackgroundTaskManager::new();
    let error = tasks.create_task(async {}).spawn().unwrap_err();
    assert_eq!(error, SpawnError::NoRuntime);
    assert_eq!((tasks.stats().spawned, tasks.stats().rejected), (0, 1));
}

#[test]
fn a_manager_created_without_a_runtime_uses_that_of_the_spawn() {
    let tasks = BackgroundTaskManager::new();
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tasks.create_task(async {}).spawn().unwrap().await }).unwrap();
    }
    assert_eq!(tasks.stats().outcomes.completed, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_thread_can_spawn() {
    let tasks = BackgroundTaskManager::new();
    let clone = tasks.clone();
    let handle = std::thread::spawn(move || clone.create_task(async { Ok::<_, Infallible>(7) }).spawn().unwrap());
    assert_eq!(handle.join().unwrap().await.unwrap(), 7);
}

#[test]
fn a_wait_works_on_another_executor() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let tasks = runtime.block_on(async { BackgroundTaskManager::new() });
    tasks.create_task(pending::<()>()).spawn().unwrap();
    let waited = futures::executor::block_on(tasks.wait_for_all(Some(Duration::from_millis(1))));
    assert_eq!(waited.unwrap_err().still_running.len(), 1);
    futures::executor::block_on(tasks.close(Some(Duration::ZERO)));
}

#[test]
fn tasks_that_the_runtime_drops_are_aborted_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let tasks = runtime.block_on(async {
        let tasks = BackgroundTaskManager::new();
        tasks.create_task(pending::<()>()).spawn().unwrap();
        settle().await;
        // This task is never polled.
        tasks.create_task(pending::<()>()).spawn().unwrap();
        tasks
    });
    drop(runtime);
    let stats = tasks.stats();
    assert_eq!((stats.spawned, stats.active, stats.outcomes.aborted), (2, 0, 2));
}

#[test]
fn a_spawn_on_a_runtime_that_has_shut_down_is_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let tasks = runtime.block_on(async { BackgroundTaskManager::new() });
    drop(runtime);
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Closed);
    let blocking = tasks.create_blocking_task(|_| ()).spawn();
    assert_eq!(blocking.unwrap_err(), SpawnError::Closed);
    let stats = tasks.stats();
    assert_eq!((stats.active, stats.outcomes.completed), (0, 0));
}

#[test]
fn a_runtime_without_a_timer_makes_a_timeout_a_panic_of_the_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let tasks = BackgroundTaskManager::new();
        let handle = tasks.create_task(pending::<()>()).timeout(Duration::from_secs(1)).spawn().unwrap();
        let Err(TaskError::Panicked { message, .. }) = handle.await else { panic!("expected a panic") };
        assert!(message.contains("enable_time"), "{message}");
    });
}

#[tokio::test(start_paused = true)]
async fn an_unnamed_task_is_named_after_its_function() {
    async fn send_notification() {
        settle().await;
    }
    let tasks = BackgroundTaskManager::new();
    let name = |handle: agentflow::task::TaskHandle<()>| handle.name().to_owned();
    assert_eq!(name(tasks.create_task(send_notification()).spawn().unwrap()), "send_notification");
    let function = "an_unnamed_task_is_named_after_its_function";
    assert_eq!(name(tasks.create_task(async {}).spawn().unwrap()), function);
    assert_eq!(name(tasks.create_task_with_context(|_| async {}).spawn().unwrap()), function);
    assert_eq!(name(tasks.create_task(std::future::ready(())).spawn().unwrap()), "Ready");
    assert_eq!(name(tasks.create_task(async {}).name(format!("n{}", 1)).spawn().unwrap()), "n1");
}

#[tokio::test]
async fn a_blocking_task_has_outcomes_like_any_other() {
    let tasks = BackgroundTaskManager::new();
    let value = tasks.create_blocking_task(|_| Ok::<_, Infallible>(7)).spawn().unwrap();
    assert_eq!(value.await.unwrap(), 7);
    let failed = tasks.create_blocking_task(|_| Err::<(), _>(NoRoute("ada"))).spawn().unwrap();
    assert_eq!(failed.await.unwrap_err().outcome(), TaskOutcome::Failed);
    let panicked = tasks.create_blocking_task(|_| -> () { panic!("on its thread") }).spawn().unwrap();
    let Err(TaskError::Panicked { message, .. }) = panicked.await else { panic!("expected a panic") };
    assert_eq!(message, "on its thread");
    let stats = tasks.stats();
    assert_eq!((stats.outcomes.completed, stats.outcomes.failed, stats.outcomes.panicked, stats.active), (1, 1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_history_is_bounded_and_ended_tasks_are_freed() {
    struct Held;
    let held = Arc::new(Held);
    let options = TaskManagerOptions::new().history(3);
    let tasks = BackgroundTaskManager::with_options(options);
    for number in 0..10 {
        let held = Arc::clone(&held);
        let work = async move { drop(held) };
        tasks.create_task(work).name("n").context("number", number).spawn().unwrap();
    }
    tasks.wait_for_all(None).await.unwrap();
    let ids: Vec<_> = tasks.recently_finished().iter().map(|end| end.id().get()).collect();
    assert_eq!(ids, [8, 9, 10]);
    assert_eq!(Arc::strong_count(&held), 1);

    let forgetful = BackgroundTaskManager::with_options(TaskManagerOptions::new().history(0));
    forgetful.create_task(async {}).spawn().unwrap().await.unwrap();
    assert!(forgetful.recently_finished().is_empty());
    assert_eq!(forgetful.stats().outcomes.completed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_counters_are_consistent_at_any_moment() {
    let tasks = BackgroundTaskManager::new();
    let done = Arc::new(AtomicBool::new(false));
    let spawner = {
        let (tasks, done) = (tasks.clone(), Arc::clone(&done));
        std::thread::spawn(move || {
            for number in 0..2_000_u32 {
                let work = async move { if number % 2 == 0 { Ok(()) } else { Err("odd") } };
                tasks.create_task(work).spawn().unwrap();
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    while !done.load(Ordering::SeqCst) || tasks.task_count() > 0 {
        let s = tasks.stats();
        let ended = s.outcomes.completed
            + s.outcomes.failed
            + s.outcomes.panicked
            + s.outcomes.timed_out
            + s.outcomes.cancelled
            + s.outcomes.aborted;
        assert_eq!(s.spawned, s.active + ended);
        tokio::task::yield_now().await;
    }
    spawner.join().unwrap();
    let stats = tasks.stats();
    assert_eq!((stats.outcomes.completed, stats.outcomes.failed), (1_000, 1_000));
}

#[tokio::test(start_paused = true)]
async fn promise_05_live_tasks_have_a_state_and_ended_ones_a_record() {
    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task(pending::<()>()).name("stuck").spawn().unwrap();
    assert_eq!(tasks.task_count(), 1);
    assert_eq!(tasks.task_info()[0].state(), TaskState::Running);
    handle.cancel();
    assert_eq!(tasks.task_info()[0].state(), TaskState::Cancelling);
    settle().await;
    assert_eq!(tasks.task_count(), 0);
    assert!(tasks.task_info().is_empty());
    let ends = tasks.recently_finished();
    assert_eq!((ends[0].name(), ends[0].outcome()), ("stuck", TaskOutcome::Cancelled));
}
