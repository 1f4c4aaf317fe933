//! Log lines, events, metrics, counters, records and handles agree about each task, and the code that they call (a
//! subscriber, a recorder, a waker) changes nothing of what they report.

use std::{
    convert::Infallible,
    fmt,
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, mpsc},
    task::{Context, Wake, Waker},
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager, RetryPolicy, TaskContext,
    task::{
        OnDuplicateKey, SpawnError, TaskError, TaskEvent, TaskEventStream, TaskHandle, TaskManagerOptions, TaskOutcome,
        TaskState, TimeoutKind,
    },
};
use futures::FutureExt;
use tokio::{
    runtime::Builder,
    sync::oneshot,
    time::{sleep, timeout},
};
use tracing::{
    Event, Level, Metadata, Subscriber, span,
    subscriber::{DefaultGuard, Interest},
};

use crate::support::{OnDrop, capture, settle};

const SECOND: Duration = Duration::from_secs(1);

/// Panics without a message on stderr, of which these tests would write thousands.
fn quiet_panic(message: &'static str) -> ! {
    std::panic::resume_unwind(Box::new(message))
}

/// A subscriber that panics in the call of this name, or in every call.
struct PanicsIn(&'static str);

impl PanicsIn {
    const CALLS: [&'static str; 8] =
        ["enabled", "new_span", "record_follows_from", "event", "enter", "exit", "clone_span", "try_close"];

    fn set(call: &'static str) -> DefaultGuard {
        tracing::subscriber::set_default(Self(call))
    }

    fn call(&self, call: &'static str) {
        if self.0 == call || self.0 == "every call" {
            quiet_panic("failed printing to stderr");
        }
    }
}

impl Subscriber for PanicsIn {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // Otherwise `enabled` would panic while `tracing` holds a lock of its own, which breaks all of `tracing`.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.target().starts_with("agentflow") {
            self.call("enabled");
        }
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        self.call("new_span");
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {
        self.call("record_follows_from");
    }

    fn event(&self, _: &Event<'_>) {
        self.call("event");
    }

    fn enter(&self, _: &span::Id) {
        self.call("enter");
    }

    fn exit(&self, _: &span::Id) {
        self.call("exit");
    }

    fn clone_span(&self, id: &span::Id) -> span::Id {
        self.call("clone_span");
        id.clone()
    }

    fn try_close(&self, _: span::Id) -> bool {
        self.call("try_close");
        true
    }
}

/// An error that panics when it is formatted, and when it is dropped.
struct Hostile;

impl fmt::Debug for Hostile {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        quiet_panic("formatted")
    }
}

impl fmt::Display for Hostile {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        quiet_panic("formatted")
    }
}

impl std::error::Error for Hostile {}

impl Drop for Hostile {
    fn drop(&mut self) {
        quiet_panic("dropped");
    }
}

/// A waker that panics when it is used.
struct HostileWaker;

impl Wake for HostileWaker {
    fn wake(self: Arc<Self>) {
        quiet_panic("woken");
    }
}

/// Spawns a task of each kind and outcome, and asserts that each handle reports what happened.
async fn assert_all_kinds_of_tasks_work(tasks: &BackgroundTaskManager) {
    let future = tasks.create_task(async { Ok::<_, Infallible>(7) }).name("future").spawn().unwrap();
    let listens = |task: TaskContext| async move {
        task.cancelled().await;
        Ok::<_, Infallible>(8)
    };
    let listens = tasks.create_task_with_context(listens).name("listens").spawn().unwrap();
    let blocking = tasks.create_blocking_task(|_| Ok::<_, Infallible>(9)).name("blocking").spawn().unwrap();
    let retries = |attempt| async move { if attempt == 1 { Err("busy") } else { Ok(attempt) } };
    let retries = tasks.create_retrying_task(retries).name("retries").spawn().unwrap();
    let failed = tasks.create_task(async { Err::<(), _>("no route") }).name("failed").spawn().unwrap();
    let hostile = tasks.create_task(async { Err::<(), _>(Hostile) }).name("hostile").spawn().unwrap();
    let panicked = tasks.create_task(async { panic!("boom") }).name("panicked").spawn().unwrap();
    let timed_out = tasks.create_task(pending::<()>()).name("timed out").timeout(SECOND).spawn().unwrap();
    let cancelled = tasks.create_task(pending::<()>()).name("cancelled").spawn().unwrap();
    settle().await;
    listens.cancel();
    cancelled.cancel();

    assert_eq!(future.await.ok(), Some(7));
    assert_eq!(listens.await.ok(), Some(8));
    assert_eq!(blocking.await.ok(), Some(9));
    assert_eq!(retries.await.ok(), Some(2));
    assert!(matches!(failed.await, Err(TaskError::Failed(source)) if source.to_string() == "no route"));
    match hostile.await {
        Err(TaskError::Failed(source)) => std::mem::forget(source),
        _ => panic!("it failed"),
    }
    assert!(matches!(panicked.await, Err(TaskError::Panicked { message, .. }) if message == "boom"));
    assert!(matches!(timed_out.await, Err(TaskError::TimedOut { .. })));
    assert!(matches!(cancelled.await, Err(TaskError::Cancelled)));
    assert!(tasks.wait_for_all(None).await.is_ok());
    let ended = tasks.stats().outcomes;
    let counts = [ended.completed, ended.failed, ended.panicked, ended.timed_out, ended.cancelled, ended.aborted];
    assert_eq!(counts, [4, 2, 1, 1, 1, 0]);
    assert_eq!(tasks.stats().active, 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_changes_no_outcome() {
    for call in PanicsIn::CALLS.into_iter().chain(["every call"]) {
        let _guard = PanicsIn::set(call);
        assert_all_kinds_of_tasks_work(&BackgroundTaskManager::new()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_changes_no_refusal() {
    for call in PanicsIn::CALLS.into_iter().chain(["every call"]) {
        let _guard = PanicsIn::set(call);
        let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1));
        tasks.create_task(pending::<()>()).spawn().unwrap();
        assert_eq!(tasks.create_task(async {}).spawn().map(drop), Err(SpawnError::Full));
        assert_eq!(tasks.stats().rejected, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_a_manager_cancels_its_tasks_whatever_the_subscriber_does() {
    for call in PanicsIn::CALLS.into_iter().chain(["every call"]) {
        let _guard = PanicsIn::set(call);
        let tasks = BackgroundTaskManager::new();
        let (held, captured) = (Arc::new(()), Arc::new(()));
        let holds = Arc::clone(&held);
        let work = async move { drop((pending::<()>().await, holds)) };
        let handle = tasks.create_task(work).spawn().unwrap();
        drop(tasks);
        assert!(matches!(timeout(SECOND, handle).await, Ok(Err(TaskError::Cancelled))), "{call}");
        assert_eq!((Arc::strong_count(&held), Arc::strong_count(&captured)), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_may_be_dropped_while_its_owner_panics() {
    for call in PanicsIn::CALLS.into_iter().chain(["every call"]) {
        let _guard = PanicsIn::set(call);
        let owner = || {
            let tasks = BackgroundTaskManager::new();
            let _handle = tasks.create_task(pending::<()>()).spawn().unwrap();
            panic!("the owner's own");
        };
        // Reaching the end means that the process did not abort.
        let panic = catch_unwind(AssertUnwindSafe(owner)).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the owner's own"), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_keeps_nobody_else_waiting() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(2));
    let listens = |task: TaskContext| async move { task.cancelled().await };
    let listens = tasks.create_task_with_context(listens).spawn().unwrap();
    let mut awaited = tasks.create_task(async { sleep(SECOND).await }).spawn().unwrap();
    settle().await;
    let hostile = Waker::from(Arc::new(HostileWaker));
    let cx = &mut Context::from_waker(&hostile);
    // Each of these waits has its hostile waker, and was there first.
    let (mut all, mut room) = (pin!(tasks.wait_for_all(None)), pin!(tasks.create_task(async {}).spawn_wait()));
    assert!(all.as_mut().poll(cx).is_pending());
    assert!(room.as_mut().poll(cx).is_pending());
    assert!(Pin::new(&mut awaited).poll(cx).is_pending());
    let waits = tokio::spawn({
        let tasks = tasks.clone();
        async move { tasks.wait_for_all(None).await.is_ok() }
    });
    settle().await;
    listens.cancel();
    assert!(listens.await.is_ok());
    sleep(2 * SECOND).await;
    assert!(room.await.unwrap().await.is_ok());
    assert!(waits.await.unwrap());
    assert!(all.await.is_ok());
    assert!(awaited.await.is_ok());
    assert_eq!(tasks.stats().outcomes.completed, 3);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_tasks_own_code_is_its_outcome_and_no_other_tasks() {
    let tasks = BackgroundTaskManager::new();
    let destructor = tasks
        .create_task(async {
            let _hostile = OnDrop(|| panic!("in the destructor"));
            pending::<()>().await;
        })
        .timeout(SECOND)
        .spawn()
        .unwrap();
    let policy = RetryPolicy::new(3).when(|_| panic!("in the predicate"));
    let predicate = tasks.create_retrying_task(|_| async { Err::<(), _>(Hostile) }).retry(policy).spawn().unwrap();
    let fine = tasks.create_task(async {}).spawn().unwrap();
    for (handle, expected) in [(destructor, "in the destructor"), (predicate, "in the predicate")] {
        assert!(matches!(handle.await, Err(TaskError::Panicked { message, .. }) if message == expected));
    }
    assert!(fine.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_attempts_error_that_panics_when_dropped_leaves_the_next_attempt_alone() {
    let tasks = BackgroundTaskManager::new();
    let attempts = |attempt| async move { if attempt < 3 { Err(Hostile) } else { Ok(attempt) } };
    assert_eq!(tasks.create_retrying_task(attempts).spawn().unwrap().await.ok(), Some(3));
    assert_eq!(tasks.stats().retries, 2);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_panics_when_dropped_stays_the_outcome_that_it_was() {
    let tasks = BackgroundTaskManager::new();
    let result = || async { Ok::<_, Infallible>(OnDrop(|| panic!("dropped"))) };
    let ended = tasks.create_task(result()).spawn().unwrap();
    drop(tasks.create_task(result()).spawn().unwrap());
    tasks.wait_for_all(None).await.unwrap();
    drop(ended);
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().outcomes.panicked), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_drops_the_last_owner_as_it_completes_is_not_named_as_cancelled() {
    let (log, _guard) = capture();
    let warnings = || log.ends().into_iter().filter(|line| line.level == Level::WARN).count();
    for (is_cut_off, expected) in [(false, 0), (true, 1)] {
        let tasks = BackgroundTaskManager::new();
        let own = tasks.clone();
        let work = async move {
            sleep(SECOND).await;
            drop(own);
            if is_cut_off {
                pending::<()>().await;
            }
        };
        let handle = tasks.create_task(work).spawn().unwrap();
        drop(tasks);
        let outcome = handle.await.map_or_else(|error| error.outcome(), |()| TaskOutcome::Completed);
        assert_eq!(outcome, if is_cut_off { TaskOutcome::Cancelled } else { TaskOutcome::Completed });
        assert_eq!(warnings(), expected);
    }
}

/// Spawns tasks on threads of their own, and calls `ended` with the manager and each handle. `ended` returns when the
/// task has ended, as far as it is told.
async fn assert_ready_when<F: Future<Output = ()>>(
    ended: impl Fn(BackgroundTaskManager, TaskEventStream, TaskHandle<u32>) -> F,
) {
    for round in 0..2_000 {
        let tasks = BackgroundTaskManager::new();
        let events = tasks.events();
        let work = async move {
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            Ok::<_, Infallible>(7)
        };
        let handle = tasks.create_task(work).spawn().unwrap();
        ended(tasks, events, handle).await;
    }
}

fn assert_ready(tasks: &BackgroundTaskManager, handle: TaskHandle<u32>) {
    assert!(handle.is_finished());
    assert_eq!((tasks.task_count(), tasks.stats().outcomes.completed), (0, 1));
    assert_eq!(tasks.recently_finished().len(), 1);
    assert_eq!(handle.now_or_never().map(Result::unwrap), Some(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_that_says_finished_is_ready() {
    assert_ready_when(|tasks, _, handle| async move {
        while !handle.is_finished() {
            std::hint::spin_loop();
        }
        assert_ready(&tasks, handle);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_is_ready_when_its_task_is_counted_out() {
    assert_ready_when(|tasks, _, handle| async move {
        while tasks.task_count() > 0 {
            std::hint::spin_loop();
        }
        assert_ready(&tasks, handle);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_is_ready_when_the_wait_for_all_is_over() {
    assert_ready_when(|tasks, _, handle| async move {
        tasks.wait_for_all(None).await.unwrap();
        assert_ready(&tasks, handle);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_is_ready_when_the_event_of_its_end_arrives() {
    assert_ready_when(|tasks, mut events, handle| async move {
        while !matches!(events.next().await, Some(TaskEvent::Ended(_))) {}
        assert_ready(&tasks, handle);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_result_goes_with_the_last_that_can_read_it() {
    let tasks = BackgroundTaskManager::new();
    let value = Arc::new(());
    let returns = || {
        let value = Arc::clone(&value);
        async move { Ok::<_, Infallible>(value) }
    };
    // The history keeps a record of each of them, and no value.
    drop(tasks.create_task(returns()).spawn().unwrap());
    let unread = tasks.create_task(returns()).spawn().unwrap();
    let read = tasks.create_task(returns()).spawn().unwrap();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(Arc::strong_count(&value), 3);
    drop(read.await.unwrap());
    drop(unread);
    assert_eq!((Arc::strong_count(&value), tasks.recently_finished().len()), (1, 3));
}

#[test]
fn a_handle_outlives_its_runtime() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (mut waiting, cancelled) = runtime.block_on(async {
        let tasks = BackgroundTaskManager::new();
        let waiting = tasks.create_task(pending::<()>()).spawn().unwrap();
        let cancelled = tasks.create_task_with_context(|_| pending::<()>()).spawn().unwrap();
        settle().await;
        cancelled.cancel();
        std::mem::forget(tasks);
        (waiting, cancelled)
    });
    assert!((&mut waiting).now_or_never().is_none());
    drop(runtime);
    assert!(matches!(waiting.now_or_never(), Some(Err(TaskError::Aborted))));
    assert!(matches!(cancelled.now_or_never(), Some(Err(TaskError::Cancelled))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_watcher_ever_counts_more_running_tasks_than_may_run() {
    const TASKS: usize = 2_000;
    let options = TaskManagerOptions::new().max_running(1).event_buffer(4 * TASKS);
    let tasks = BackgroundTaskManager::with_options(options);
    let mut watchers = [tasks.events(), tasks.events()];
    for _ in 0..TASKS {
        tasks.create_task(async {}).spawn().unwrap();
    }
    tasks.close(None).await;
    let mut seen = Vec::new();
    for watcher in &mut watchers {
        let (mut running, mut kinds) = (0, Vec::new());
        while let Some(event) = watcher.next().await {
            kinds.push(match event {
                TaskEvent::Spawned(task) => ("spawned", task.id()),
                TaskEvent::Started(task) => {
                    running += 1;
                    ("started", task.id())
                }
                TaskEvent::Ended(end) => {
                    running -= 1;
                    ("ended", end.id())
                }
                other => panic!("{other:?}"),
            });
            assert!((0..=1).contains(&running));
            assert_eq!(watcher.sequence(), kinds.len() as u64);
        }
        assert_eq!(kinds.len(), 3 * TASKS);
        seen.push(kinds);
    }
    assert_eq!(seen[0], seen[1], "all watchers see one order");
}

#[tokio::test(start_paused = true)]
async fn the_events_of_all_ends_are_there_when_a_wait_is_over() {
    let tasks = BackgroundTaskManager::new();
    let mut events = tasks.events();
    for _ in 0..3 {
        tasks.create_task(async {}).spawn().unwrap();
    }
    tasks.wait_for_all(None).await.unwrap();
    let mut ended = 0;
    while let Some(Some(event)) = events.next().now_or_never() {
        ended += u32::from(matches!(event, TaskEvent::Ended(_)));
    }
    assert_eq!(ended, 3);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_falls_behind_knows_where_it_is() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().event_buffer(2));
    let (mut slow, mut quick) = (tasks.events(), tasks.events());
    tasks.create_task(async {}).spawn().unwrap();
    let mut sequences = Vec::new();
    for _ in 0..3 {
        quick.next().await.unwrap();
        sequences.push(quick.sequence());
    }
    assert!(matches!(slow.next().await, Some(TaskEvent::Missed(1))));
    sequences.push(slow.sequence());
    slow.next().await.unwrap();
    sequences.push(slow.sequence());
    assert_eq!(sequences, [1, 2, 3, 1, 2]);
    // The numbers go on after a time without watchers.
    drop((slow, quick));
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    let mut late = tasks.events();
    assert_eq!(late.sequence(), 0);
    tasks.create_task(async {}).spawn().unwrap();
    late.next().await.unwrap();
    assert_eq!(late.sequence(), 4);
}

#[tokio::test(start_paused = true)]
async fn no_progress_is_reported_after_the_end() {
    let tasks = BackgroundTaskManager::new();
    let mut events = tasks.events();
    let context = tasks.create_task_with_context(|task| async move { Ok::<_, Infallible>(task) }).spawn().unwrap();
    let context = context.await.unwrap();
    context.progress(0.5, "late");
    tasks.close(None).await;
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert!(matches!(last, Some(TaskEvent::Ended(_))));
}

#[test]
fn a_spawn_on_a_runtime_that_has_shut_down_is_refused_and_nothing_else() {
    let (log, _guard) = capture();
    let runtime = Builder::new_current_thread().build().unwrap();
    let tasks = runtime.block_on(async { BackgroundTaskManager::new() });
    drop(runtime);
    let mut events = tasks.events();
    let held = Arc::new(());
    for _ in 0..2 {
        let its = Arc::clone(&held);
        let spawned = tasks.create_task(async move { drop(its) }).key("k", OnDuplicateKey::Skip).spawn();
        assert_eq!(spawned.map(drop), Err(SpawnError::Closed));
        let its = Arc::clone(&held);
        let spawned = tasks.create_blocking_task(move |_| drop(its)).spawn();
        assert_eq!(spawned.map(drop), Err(SpawnError::Closed));
    }
    let hostile = OnDrop(|| quiet_panic("dropped"));
    assert_eq!(tasks.create_task(async move { drop(hostile) }).spawn().map(drop), Err(SpawnError::Closed));
    assert_eq!(Arc::strong_count(&held), 1);
    let stats = tasks.stats();
    assert_eq!((stats.spawned, stats.active, stats.outcomes.total(), stats.rejected), (0, 0, 0, 5));
    assert!(tasks.recently_finished().is_empty());
    assert!(events.next().now_or_never().is_none());
    let messages: Vec<_> = log.ends().iter().map(|line| line.field("message").to_owned()).collect();
    assert_eq!(messages, ["background task rejected"; 5]);
    drop(tasks);
    assert!(matches!(events.next().now_or_never(), Some(None)));
}

#[test]
fn while_a_runtime_shuts_down_each_spawn_is_accepted_and_ended_or_refused() {
    for _ in 0..50 {
        let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let options = TaskManagerOptions::new().history(100_000).event_buffer(1 << 20);
        let tasks = {
            let _entered = runtime.enter();
            BackgroundTaskManager::with_options(options)
        };
        let mut events = tasks.events();
        let spawner = std::thread::spawn({
            let tasks = tasks.clone();
            move || {
                let mut accepted = Vec::new();
                loop {
                    match tasks.create_task(async { tokio::task::yield_now().await }).spawn() {
                        Ok(handle) => accepted.push(handle),
                        Err(why) => {
                            assert_eq!(why, SpawnError::Closed);
                            return accepted;
                        }
                    }
                }
            }
        });
        while tasks.stats().spawned < 20 {
            std::hint::spin_loop();
        }
        drop(runtime);
        let accepted = spawner.join().unwrap();
        let stats = tasks.stats();
        assert_eq!((stats.spawned, stats.active, stats.rejected), (accepted.len() as u64, 0, 1));
        assert_eq!(stats.outcomes.total(), stats.spawned);
        drop(tasks);
        let (mut begun, mut ended) = (0, 0);
        while let Some(event) = events.next().now_or_never().unwrap() {
            begun += u64::from(matches!(event, TaskEvent::Spawned(_)));
            ended += u64::from(matches!(event, TaskEvent::Ended(_)));
        }
        assert_eq!((begun, ended), (stats.spawned, stats.spawned));
        for handle in accepted {
            let end = handle.now_or_never().expect("it has ended");
            assert!(matches!(end, Ok(()) | Err(TaskError::Aborted)));
        }
    }
}

/// Calls the test on a runtime whose only thread for blocking work is taken until the sender is used or dropped.
fn with_a_taken_thread<F: Future<Output = ()>>(test: impl FnOnce(mpsc::Sender<()>) -> F) {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let (free, taken) = mpsc::channel();
        tokio::task::spawn_blocking(move || taken.recv());
        test(free).await;
    });
}

/// Advances the paused clock, which stands still while a thread is blocked.
async fn pass(time: Duration) {
    settle().await;
    tokio::time::advance(time).await;
    settle().await;
}

#[test]
fn a_blocking_task_without_a_thread_is_queued_and_ends_when_it_is_stopped() {
    with_a_taken_thread(|free| async move {
        let _taken = free;
        let options = TaskManagerOptions::new().max_running(4);
        let tasks = BackgroundTaskManager::with_options(options);
        let mut events = tasks.events();
        let held = Arc::new(());
        let spawn = |name: &'static str| {
            let its = Arc::clone(&held);
            let panics = move |_: TaskContext| -> () { panic!("begun, with {its:?}") };
            tasks.create_blocking_task(panics).name(name).key("k", OnDuplicateKey::Queue).idle_timeout(SECOND)
        };
        let cancelled = spawn("cancelled").spawn().unwrap();
        settle().await;
        let info = tasks.task_info().remove(0);
        assert_eq!((info.state(), info.attempt(), tasks.stats().queued), (TaskState::Queued, 0, 1));
        pass(2 * SECOND).await;
        assert!(!cancelled.is_finished(), "there was no heartbeat to miss yet");
        cancelled.cancel();
        assert!(matches!(cancelled.await, Err(TaskError::Cancelled)));
        assert_eq!(Arc::strong_count(&held), 1, "its captures are gone");

        for (builder, limit) in [
            (spawn("total").timeout(SECOND), TimeoutKind::Total),
            (spawn("queue").queue_timeout(SECOND), TimeoutKind::Queue),
        ] {
            let mut handle = builder.spawn().unwrap();
            pass(2 * SECOND).await;
            let end = (&mut handle).now_or_never().expect("it has timed out");
            assert!(matches!(end, Err(TaskError::TimedOut { limit: over, .. }) if over == limit));
        }
        let aborted = spawn("aborted").spawn().unwrap();
        settle().await;
        drop(aborted.abort_on_drop());
        settle().await;
        assert_eq!((Arc::strong_count(&held), tasks.task_count(), tasks.stats().queued), (1, 0, 0));
        // The key was not held for nothing.
        assert!(tasks.create_task(async {}).name("next").key("k", OnDuplicateKey::Skip).spawn().unwrap().await.is_ok());
        let ends = tasks.stats().outcomes;
        assert_eq!((ends.cancelled, ends.timed_out, ends.aborted, ends.completed), (1, 2, 1, 1));
        let mut begun = Vec::new();
        while let Some(Some(event)) = events.next().now_or_never() {
            if let TaskEvent::Started(task) = event {
                begun.push(task.name().to_owned());
            }
        }
        assert_eq!(begun, ["next"]);
        assert!(tasks.recently_finished()[..4].iter().all(|end| end.attempts() == 0));
    });
}

#[test]
fn a_close_does_not_wait_for_a_blocking_task_without_a_thread() {
    with_a_taken_thread(|free| async move {
        let _taken = free;
        let tasks = BackgroundTaskManager::new();
        let waits = tasks.create_blocking_task(|_| panic!("begun")).name("waits").spawn().unwrap();
        settle().await;
        let report = tasks.close(Some(Duration::ZERO)).await;
        assert_eq!((report.still_running.len(), report.unfinished[0].name()), (0, "waits"));
        let Err(error) = waits.await;
        assert_eq!(error.outcome(), TaskOutcome::Cancelled);
    });
}

#[test]
fn a_blocking_task_begins_when_its_closure_is_called() {
    with_a_taken_thread(|free| async move {
        let tasks = BackgroundTaskManager::new();
        let mut events = tasks.events();
        let ((begun, mut has_begun), (go, may_go)) = (oneshot::channel(), mpsc::channel::<()>());
        let work = move |_: TaskContext| {
            begun.send(()).unwrap();
            may_go.recv().unwrap();
            Ok::<_, Infallible>(7)
        };
        let handle = tasks.create_blocking_task(work).idle_timeout(5 * SECOND).spawn().unwrap();
        pass(3 * SECOND).await;
        assert!(matches!(events.next().now_or_never(), Some(Some(TaskEvent::Spawned(_)))));
        assert!(events.next().now_or_never().is_none());
        free.send(()).unwrap();
        (&mut has_begun).await.unwrap();
        let info = tasks.task_info().remove(0);
        assert_eq!((info.state(), info.attempt(), tasks.stats().queued), (TaskState::Running, 1, 0));
        assert!(matches!(events.next().await, Some(TaskEvent::Started(task)) if task.age() == 3 * SECOND));
        // The idle timeout counts from the beginning.
        pass(4 * SECOND).await;
        assert_eq!(tasks.task_info()[0].state(), TaskState::Running);
        pass(2 * SECOND).await;
        assert_eq!(tasks.task_info()[0].state(), TaskState::Cancelling);
        go.send(()).unwrap();
        assert_eq!(handle.await.ok(), Some(7));
    });
}

#[test]
fn a_blocking_closure_that_outlives_its_runtime_keeps_its_key_until_it_returns() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let tasks = {
        let _entered = runtime.enter();
        BackgroundTaskManager::new()
    };
    let ((begun, has_begun), (go, may_go)) = (mpsc::channel(), mpsc::channel::<()>());
    let work = move |_: TaskContext| {
        begun.send(()).unwrap();
        may_go.recv().unwrap();
        Ok::<_, Infallible>(7)
    };
    let handle = tasks.create_blocking_task(work).key("k", OnDuplicateKey::Skip).spawn().unwrap();
    has_begun.recv().unwrap();
    runtime.shutdown_background();
    // The worker drops the supervisor, which leaves the end to the thread of the closure.
    while tasks.task_info()[0].state() != TaskState::Cancelling {
        std::thread::yield_now();
    }
    let again = || tasks.create_task(async {}).key("k", OnDuplicateKey::Skip).spawn().map(drop);
    assert_eq!((again(), handle.is_finished()), (Err(SpawnError::DuplicateKey), false));
    go.send(()).unwrap();
    assert_eq!(futures::executor::block_on(handle).ok(), Some(7));
    assert_eq!(again(), Err(SpawnError::Closed), "the runtime is gone, and the key is free");
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().active), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn progress_is_that_of_the_current_attempt() {
    let tasks = BackgroundTaskManager::new();
    let attempts = |attempt| async move {
        sleep(SECOND).await;
        if attempt == 1 {
            TaskContext::current().unwrap().progress(0.9, "nearly");
            return Err("busy");
        }
        sleep(SECOND).await;
        Ok(())
    };
    tasks.create_retrying_task(attempts).retry(RetryPolicy::new(2)).spawn().unwrap();
    sleep(3 * SECOND / 2).await;
    let info = tasks.task_info().remove(0);
    assert_eq!((info.attempt(), info.progress()), (2, None));
}

#[tokio::test(start_paused = true)]
async fn a_tasks_clock_is_that_of_its_runtime_wherever_it_is_used() {
    let tasks = BackgroundTaskManager::new();
    sleep(3_600 * SECOND).await;
    // A plain thread has no paused clock.
    let plain_thread = {
        let tasks = tasks.clone();
        move || {
            let work = |task: TaskContext| async move {
                sleep(5 * SECOND).await;
                Ok::<_, Infallible>(task)
            };
            let handle = tasks.create_task_with_context(work).timeout(60 * SECOND).spawn().unwrap();
            let info = tasks.task_info().remove(0);
            assert_eq!((info.age(), info.remaining()), (Duration::ZERO, Some(60 * SECOND)));
            handle
        }
    };
    let handle = std::thread::spawn(plain_thread).join().unwrap();
    assert!(handle.await.is_ok());
    assert_eq!(tasks.recently_finished()[0].age(), 5 * SECOND);

    // A heartbeat from a plain thread counts for the paused clock.
    let beats = |task: TaskContext| async move {
        for _ in 0..3 {
            sleep(4 * SECOND).await;
            let task = task.clone();
            std::thread::spawn(move || task.heartbeat()).join().unwrap();
        }
    };
    let beats = tasks.create_task_with_context(beats).idle_timeout(5 * SECOND).spawn().unwrap();
    assert!(beats.await.is_ok());
}
