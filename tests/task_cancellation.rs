//! Cancelling one task, several, and all.

use std::{
    convert::Infallible,
    future::pending,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use agentflow::{
    AgentState, BackgroundTaskManager, CompiledGraph, NodeError, RunConfig, RunId, TaskContext, graph, node,
    task::{OnDuplicateKey, SpawnError, TaskError, TaskManagerOptions, TaskOutcome, TaskState},
};
use futures::{FutureExt, poll};
use tokio::time::{Instant, sleep};

use crate::support::{OnDrop, settle};

const SECOND: Duration = Duration::from_secs(1);

fn with_grace(grace: Duration) -> BackgroundTaskManager {
    BackgroundTaskManager::with_options(TaskManagerOptions::new().grace_period(grace))
}

#[tokio::test(start_paused = true)]
async fn a_task_that_cancels_itself_without_a_grace_period_is_cancelled() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().grace_period(Duration::ZERO));
    let work = async {
        tokio::task::yield_now().await;
        let task = TaskContext::current().unwrap();
        task.manager().cancel(task.id());
        pending::<()>().await;
    };
    assert!(matches!(tasks.create_task(work).spawn().unwrap().await, Err(TaskError::Cancelled)));

    let listens = |task: TaskContext| async move {
        tokio::task::yield_now().await;
        task.manager().cancel(task.id());
        tokio::task::yield_now().await;
    };
    assert!(tasks.create_task_with_context(listens).spawn().unwrap().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_task_without_a_token_is_dropped_at_its_await() {
    let tasks = BackgroundTaskManager::new();
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let work = async move {
        let _on_drop = OnDrop(|| flag.store(true, Ordering::SeqCst));
        pending::<()>().await;
    };
    let handle = tasks.create_task(work).spawn().unwrap();
    settle().await;
    let began = Instant::now();
    handle.cancel();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_task_cancelled_before_its_first_poll_is_never_polled_and_counted_once() {
    let tasks = BackgroundTaskManager::new();
    let polled = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&polled);
    let handle = tasks.create_task(async move { flag.store(true, Ordering::SeqCst) }).spawn().unwrap();
    handle.cancel();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
    assert!(!polled.load(Ordering::SeqCst));
    let stats = tasks.stats();
    assert_eq!((stats.spawned, stats.active, stats.outcomes.cancelled), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_task_with_a_token_may_end_by_itself_with_its_own_result() {
    let tasks = with_grace(2 * SECOND);
    let work = |task: TaskContext| async move {
        task.cancelled().await;
        assert!(task.is_cancelled());
        sleep(SECOND).await;
        Ok::<_, Infallible>("saved")
    };
    let handle = tasks.create_task_with_context(work).spawn().unwrap();
    settle().await;
    handle.cancel();
    settle().await;
    assert_eq!(tasks.task_info()[0].state(), TaskState::Cancelling);
    assert_eq!(handle.await.unwrap(), "saved");
    let fails = |task: TaskContext| async move {
        task.cancelled().await;
        Err::<(), _>("half done")
    };
    let handle = tasks.create_task_with_context(fails).spawn().unwrap();
    handle.cancel();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Failed);
    assert_eq!(tasks.stats().outcomes.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ignores_its_token_is_aborted_after_the_grace() {
    let tasks = with_grace(2 * SECOND);
    let handle = tasks.create_task_with_context(|_task| pending::<()>()).spawn().unwrap();
    settle().await;
    let began = Instant::now();
    handle.cancel();
    sleep(SECOND).await;
    // A second request does not restart the grace period.
    handle.cancel();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Aborted);
    assert_eq!(began.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_within_the_grace_is_a_timeout() {
    let tasks = with_grace(10 * SECOND);
    let began = Instant::now();
    let handle = tasks.create_task_with_context(|_task| pending::<()>()).timeout(3 * SECOND).spawn().unwrap();
    sleep(SECOND).await;
    handle.cancel();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::TimedOut);
    assert_eq!(began.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_that_never_awaits_again_completes() {
    let tasks = BackgroundTaskManager::new();
    let (send, receive) = tokio::sync::oneshot::channel::<agentflow::task::TaskHandle<()>>();
    let work = async move { receive.await.unwrap().cancel() };
    let handle = tasks.create_task(work).spawn().unwrap();
    let other = tasks.create_task(async {}).spawn().unwrap();
    settle().await;
    drop(other);
    send.send(handle).unwrap();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(tasks.stats().outcomes.completed, 2);
}

#[tokio::test(start_paused = true)]
async fn cancelling_an_ended_task_has_no_effect() {
    let tasks = BackgroundTaskManager::new();
    let handle = tasks.create_task(async {}).spawn().unwrap();
    settle().await;
    handle.cancel();
    handle.await.unwrap();
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().outcomes.cancelled), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn promise_07_cancel_all_cancels_at_once_and_waits_for_the_ends() {
    let tasks = with_grace(2 * SECOND);
    let slow = |task: TaskContext| async move {
        task.cancelled().await;
        sleep(SECOND).await;
    };
    tasks.create_task(pending::<()>()).name("plain").spawn().unwrap();
    tasks.create_task_with_context(slow).name("slow").spawn().unwrap();
    settle().await;
    let began = Instant::now();
    let report = tasks.cancel_all().await;
    assert_eq!(began.elapsed(), SECOND);
    let ends: Vec<_> = report.ended.iter().map(|end| (end.name(), end.outcome())).collect();
    assert_eq!(ends, [("plain", TaskOutcome::Cancelled), ("slow", TaskOutcome::Completed)]);
    assert!(report.still_running.is_empty());
    // The manager stays open after it cancelled its tasks.
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn cancel_all_without_tasks_returns_at_once() {
    let began = Instant::now();
    let report = BackgroundTaskManager::new().cancel_all().await;
    assert_eq!((report.ended.len(), report.still_running.len()), (0, 0));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn cancel_all_does_not_affect_later_tasks() {
    let tasks = with_grace(2 * SECOND);
    tasks.create_task_with_context(|_| pending::<()>()).name("stubborn").spawn().unwrap();
    let cancelling = tasks.cancel_all();
    futures::pin_mut!(cancelling);
    assert!(cancelling.as_mut().now_or_never().is_none());
    tasks.create_task(pending::<()>()).name("later").spawn().unwrap();
    let report = cancelling.await;
    assert_eq!(report.ended[0].outcome(), TaskOutcome::Aborted);
    assert_eq!(tasks.task_info()[0].name(), "later");
}

#[tokio::test(start_paused = true)]
async fn cancel_all_inside_a_task_does_not_cancel_that_task() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).name("other").spawn().unwrap();
    let work = |task: TaskContext| async move {
        let report = task.manager().cancel_all().await;
        Ok::<_, Infallible>(report.ended.iter().map(|end| end.name().to_owned()).collect::<Vec<_>>())
    };
    let ended = tasks.create_task_with_context(work).spawn().unwrap().await.unwrap();
    assert_eq!(ended, ["other"]);
}

#[tokio::test]
async fn a_cancelled_blocking_task_is_reported_as_still_running() {
    let tasks = with_grace(Duration::ZERO);
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let work = move |task: TaskContext| {
        begun.send(()).unwrap();
        wait.recv().unwrap();
        assert!(task.is_cancelled());
    };
    let handle = tasks.create_blocking_task(work).name("crunch").spawn().unwrap();
    has_begun.await.unwrap();
    let report = tasks.cancel_all().await;
    assert_eq!(report.still_running[0].name(), "crunch");
    assert_eq!(report.still_running[0].state(), TaskState::Cancelling);
    assert_eq!(report.to_string().split('(').next(), Some("0 ended; 1 still runs: crunch #1 "));
    go.send(()).unwrap();
    handle.await.unwrap();
    assert_eq!(tasks.stats().outcomes.completed, 1);
}

#[test]
fn a_blocking_task_cancelled_before_it_starts_never_starts() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let tasks = BackgroundTaskManager::new();
        let (go, wait) = mpsc::channel::<()>();
        tasks.create_blocking_task(move |_| wait.recv().unwrap()).spawn().unwrap();
        let queued = tasks.create_blocking_task(|_| panic!("begun")).spawn().unwrap();
        queued.cancel();
        go.send(()).unwrap();
        let Err(error) = queued.await;
        assert_eq!(error.outcome(), TaskOutcome::Cancelled);
    });
}

#[tokio::test(start_paused = true)]
async fn a_cancel_does_not_undo_an_abort() {
    let tasks = with_grace(2 * SECOND);
    let handle = tasks.create_task_with_context(|_| pending::<()>()).spawn().unwrap();
    settle().await;
    let began = Instant::now();
    drop(handle.abort_on_drop());
    let report = tasks.cancel_all().await;
    assert_eq!((report.ended[0].outcome(), began.elapsed()), (TaskOutcome::Aborted, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_task_cancelled_during_its_first_poll_is_cancelled() {
    let tasks = BackgroundTaskManager::new();
    let (send, receive) = mpsc::channel::<agentflow::task::TaskHandle<()>>();
    let work = async move {
        receive.recv().unwrap().cancel();
        pending::<()>().await;
    };
    send.send(tasks.create_task(work).spawn().unwrap()).unwrap();
    settle().await;
    assert_eq!(tasks.stats().outcomes.cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_cancelled_by_its_id() {
    let tasks = BackgroundTaskManager::new();
    let handles = [(); 3].map(|()| tasks.create_task(pending::<()>()).spawn().unwrap());
    settle().await;
    let id = handles[1].id();
    assert!(tasks.cancel(id));
    let [_first, second, _third] = handles;
    assert_eq!(second.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
    assert_eq!(tasks.task_info().iter().map(|task| task.id().get()).collect::<Vec<_>>(), [1, 3]);
    // The task has ended, and its entry in the slab may be reused by now.
    tasks.create_task(pending::<()>()).spawn().unwrap();
    assert!(!tasks.cancel(id));
    settle().await;
    assert_eq!((tasks.task_count(), tasks.stats().outcomes.cancelled), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_task_with_a_token_is_cancelled_and_counted_until_it_has_ended() {
    let tasks = with_grace(2 * SECOND);
    let saves = |task: TaskContext| async move {
        task.cancelled().await;
        sleep(SECOND).await;
    };
    let handle = tasks.create_task_with_context(saves).name("saves").spawn().unwrap();
    settle().await;
    assert!(tasks.cancel(handle.id()));
    settle().await;
    // The task still lives; a second request changes nothing.
    assert!(tasks.cancel(handle.id()));
    assert_eq!(tasks.cancel_named("saves"), 1);
    handle.await.unwrap();
    assert_eq!(tasks.cancel_named("saves"), 0);
}

#[tokio::test(start_paused = true)]
async fn tasks_are_cancelled_by_their_name() {
    let tasks = BackgroundTaskManager::new();
    for name in ["mail", "index", "mail", "mailing", "mail"] {
        tasks.create_task(pending::<()>()).name(name).spawn().unwrap();
    }
    tasks.create_task(async {}).name("mail").spawn().unwrap().await.unwrap();
    assert_eq!(tasks.cancel_named("mail"), 3, "the fourth has ended");
    assert_eq!(tasks.cancel_named("other"), 0);
    settle().await;
    assert_eq!(tasks.task_info().iter().map(|task| task.name().to_owned()).collect::<Vec<_>>(), ["index", "mailing"]);
    assert_eq!((tasks.stats().outcomes.cancelled, tasks.stats().outcomes.completed), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn tasks_are_found_and_cancelled_by_their_run() {
    #[node]
    async fn spawn(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        let parent = |task: TaskContext| async move {
            task.manager().create_task(pending::<()>()).name("child").spawn()?;
            pending::<Result<(), SpawnError>>().await
        };
        task_manager.create_task_with_context(parent).name("parent").grace_period(SECOND).spawn()?;
        task_manager.create_task(async {}).name("done").spawn()?;
        Ok(())
    }
    let app: CompiledGraph<AgentState> = graph! { spawn -> END };
    let tasks = app.task_manager();
    let (one, two) = (RunId::new(), RunId::new());
    for run in [one, two] {
        app.invoke(AgentState::default(), RunConfig::new().with_run_id(run)).await.unwrap();
    }
    tasks.create_task(pending::<()>()).name("without a run").spawn().unwrap();
    settle().await;
    let names = |run| tasks.tasks_of_run(run).iter().map(|task| task.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(one), ["parent", "child"]);
    assert_eq!(names(two), ["parent", "child"]);
    assert_eq!(names(RunId::new()), [""; 0]);

    assert_eq!(tasks.cancel_tasks_of_run(RunId::new()), 0);
    assert_eq!(tasks.cancel_tasks_of_run(one), 2, "those that have ended are not counted");
    settle().await;
    assert_eq!(names(one), ["parent"], "it has its grace");
    sleep(2 * SECOND).await;
    assert_eq!(names(one), [""; 0]);
    assert_eq!(tasks.cancel_tasks_of_run(one), 0);
    assert_eq!(names(two), ["parent", "child"]);
    assert_eq!(tasks.task_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_tasks_grace_period_overrides_the_managers() {
    let tasks = with_grace(2 * SECOND);
    let spawn =
        |grace: Duration| tasks.create_task_with_context(|_| pending::<()>()).grace_period(grace).spawn().unwrap();
    for grace in [Duration::ZERO, SECOND, 9 * SECOND] {
        let handle = spawn(grace);
        settle().await;
        let began = Instant::now();
        handle.cancel();
        assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Aborted);
        assert!(began.elapsed() >= grace, "{:?}", began.elapsed());
        // Timers have a resolution of a millisecond.
        assert!(began.elapsed() <= grace + Duration::from_millis(1), "{:?}", began.elapsed());
    }
    // Cancelling all of them waits for the longest grace period.
    for (longest, grace) in [(SECOND, SECOND), (9 * SECOND, 9 * SECOND)] {
        spawn(grace);
        spawn(Duration::ZERO);
        settle().await;
        let began = Instant::now();
        let report = tasks.cancel_all().await;
        assert_eq!((report.ended.len(), report.still_running.len()), (2, 0));
        assert_eq!(began.elapsed(), longest);
    }
}

#[tokio::test(start_paused = true)]
async fn cancel_last_adds_no_grace_period_to_a_direct_cancel() {
    let tasks = with_grace(2 * SECOND);
    let handle = tasks.create_task(pending::<()>()).cancel_last().spawn().unwrap();
    settle().await;
    let began = Instant::now();
    handle.cancel();
    assert_eq!(handle.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

/// Runs a closure in the thread that wakes it.
struct OnWake<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

#[test]
fn tasks_cancelled_together_never_start_in_freed_slots() {
    type Cancel = fn(&BackgroundTaskManager);
    let ways: [Cancel; 4] = [
        |tasks| assert_eq!(tasks.cancel_named("mail"), 2),
        |tasks| drop(tasks.cancel_all().now_or_never()),
        |tasks| drop(tasks.close(Some(Duration::ZERO)).now_or_never()),
        |tasks| {
            tasks.create_task(pending::<()>()).name("mail").key("k", OnDuplicateKey::Replace).spawn().unwrap();
        },
    ];
    for cancel in ways {
        // Another thread runs the tasks while this one cancels them.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let _entered = runtime.enter();
        let tasks = BackgroundTaskManager::new();
        let (send, token) = mpsc::channel();
        let first = move |task: TaskContext| async move {
            // The task waits before the test does, so that its waker is the first to be called.
            let mut cancelled = pin!(task.cancelled());
            assert!(poll!(cancelled.as_mut()).is_pending());
            send.send(task.token().clone()).unwrap();
            cancelled.await;
        };
        tasks.create_task_with_context(first).name("mail").key("k", OnDuplicateKey::Queue).spawn().unwrap();
        let token = token.recv().unwrap();
        let (says, said) = mpsc::channel();
        let begun = says.clone();
        let dropped = OnDrop(move || says.send("dropped").unwrap());
        let second = async move {
            let _dropped = dropped;
            begun.send("begun").unwrap();
            pending::<()>().await;
        };
        tasks.create_task(second).name("mail").key("k", OnDuplicateKey::Queue).spawn().unwrap();
        // The waker blocks the cancelling thread until the second task could have started.
        let mut cancelled = Box::pin(async move { token.cancelled().await });
        let (result, became) = mpsc::channel();
        let said = Mutex::new(said);
        let waker = Waker::from(Arc::new(OnWake(move || result.send(said.lock().unwrap().recv().unwrap()).unwrap())));
        assert!(cancelled.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        cancel(&tasks);
        assert_eq!(became.recv().unwrap(), "dropped");
        drop(tasks);
    }
}
