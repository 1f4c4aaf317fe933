//! Live events of tasks: `TaskEventStream`.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Barrier, Mutex},
    task::{Context, Wake, Waker},
    time::Duration,
};

use agentflow::{
    AgentState, BackgroundTaskManager, CompiledGraph, RetryPolicy, RunConfig, TaskContext, graph,
    run::EventKind,
    task::{OnFull, TaskEvent, TaskEventStream, TaskManagerOptions, TaskOutcome, TaskState},
};
use futures::{FutureExt, StreamExt};
use tokio::{
    sync::Notify,
    time::{advance, sleep},
};

use crate::{steps::step, support::settle};

const SECOND: Duration = Duration::from_secs(1);

/// Formats an event as a short text with the id of its task.
fn short(event: &TaskEvent) -> String {
    match event {
        TaskEvent::Spawned(task) => format!("{} spawned {}", task.id(), task.state()),
        TaskEvent::Started(task) => format!("{} started at {}", task.id(), task.attempt()),
        TaskEvent::AttemptFailed { task, attempt, error, retry_in, .. } => {
            format!("{} attempt {attempt} failed: {error}, again in {retry_in:?}", task.id())
        }
        TaskEvent::Progress(task) => format!("{} at {}", task.id(), task.progress().unwrap()),
        TaskEvent::Ended(end) => format!("{} {}", end.id(), end.outcome()),
        TaskEvent::Missed(missed) => format!("missed {missed}"),
        other => format!("{other:?}"),
    }
}

/// Returns the events that can be read without waiting.
fn ready_events(events: &mut TaskEventStream) -> Vec<String> {
    let mut events_seen = Vec::new();
    while let Some(event) = events.next().now_or_never().flatten() {
        events_seen.push(short(&event));
    }
    events_seen
}

/// Returns all events until the end of the stream.
async fn remaining_events(events: TaskEventStream) -> Vec<String> {
    events.map(|event| short(&event)).collect().await
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_task_arrive_in_order() {
    let tasks = BackgroundTaskManager::new();
    let events = tasks.events();
    let attempt = |number| async move {
        TaskContext::current().unwrap().progress(f64::from(number) / 2.0, "sending");
        if number == 1 { Err(anyhow::anyhow!("no route").context("sending")) } else { Ok(()) }
    };
    tasks.create_retrying_task(attempt).retry(RetryPolicy::new(3).backoff(SECOND)).spawn().unwrap();
    tasks.close(None).await;
    assert_eq!(
        remaining_events(events).await,
        [
            "1 spawned running",
            "1 started at 1",
            "1 at 50 % sending",
            "1 attempt 1 failed: sending: no route, again in 1s",
            "1 at 100 % sending",
            "1 completed"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_is_available_at_once() {
    let tasks = BackgroundTaskManager::new();
    let mut events = tasks.events();
    let task = tasks.create_task(sleep(SECOND)).name("upload").context("user", "ada").spawn().unwrap();
    let Some(Some(TaskEvent::Spawned(spawned))) = events.next().now_or_never() else { panic!("no such event") };
    assert_eq!((spawned.id(), spawned.name(), spawned.context().len()), (task.id(), "upload", 1));
    assert!(events.next().now_or_never().is_none(), "it has not been polled");
    settle().await;
    assert_eq!(ready_events(&mut events), ["1 started at 1"]);
    task.await.unwrap();
    let Some(Some(TaskEvent::Ended(end))) = events.next().now_or_never() else { panic!("no such event") };
    assert_eq!((end.outcome(), end.age(), end.attempts()), (TaskOutcome::Completed, SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn each_outcome_is_reported() {
    let options = TaskManagerOptions::new().max_tasks(1).on_full(OnFull::DropOldest);
    let tasks = BackgroundTaskManager::with_options(options);
    let mut events = tasks.events();
    tasks.create_task(async { Err::<(), _>("no") }).spawn().unwrap().await.unwrap_err();
    tasks.create_task(async { panic!("boom") }).spawn().unwrap().await.unwrap_err();
    tasks.create_task(pending::<()>()).timeout(Duration::ZERO).spawn().unwrap().await.unwrap_err();
    let aborted = tasks.create_task(pending::<()>()).spawn().unwrap();
    settle().await;
    drop(aborted.abort_on_drop());
    settle().await;
    let evicted = tasks.create_task(pending::<()>()).spawn().unwrap();
    settle().await;
    let cancelled = tasks.create_task(pending::<()>()).spawn().unwrap();
    evicted.await.unwrap_err();
    cancelled.cancel();
    cancelled.await.unwrap_err();
    let events_seen = ready_events(&mut events);
    let of = |id: u32| -> Vec<&str> {
        let prefix = format!("{id} ");
        events_seen.iter().filter_map(|line| line.strip_prefix(&prefix)).collect()
    };
    let through = |end| vec!["spawned running", "started at 1", end];
    assert_eq!(of(1), through("failed"));
    assert_eq!(of(2), through("panicked"));
    assert_eq!(of(3), ["spawned running", "timed out"], "it never began");
    assert_eq!(of(4), through("aborted"));
    assert_eq!(of(5), through(TaskOutcome::Evicted.to_string().as_str()));
    assert_eq!(of(6).last(), Some(&"cancelled"));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_dropped_before_its_first_poll_never_started() {
    let tasks = BackgroundTaskManager::new();
    let mut events = tasks.events();
    let cancelled = tasks.create_task(pending::<()>()).spawn().unwrap();
    cancelled.cancel();
    cancelled.await.unwrap_err();
    assert_eq!(ready_events(&mut events), ["1 spawned running", "1 cancelled"]);
    // A task with a token does start: it has its grace period to end by itself.
    let listens = |task: TaskContext| async move { task.cancelled().await };
    let cancelled = tasks.create_task_with_context(listens).spawn().unwrap();
    cancelled.cancel();
    cancelled.await.unwrap();
    assert_eq!(ready_events(&mut events), ["2 spawned running", "2 started at 1", "2 completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_queued_task_reports_its_start_when_it_leaves_the_queue() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    let mut events = tasks.events();
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    tasks.create_task(async move { wait.notified().await }).spawn().unwrap();
    tasks.create_task(async {}).spawn().unwrap();
    let dropped = tasks.create_task(async {}).spawn().unwrap();
    settle().await;
    assert_eq!(
        ready_events(&mut events),
        ["1 spawned running", "2 spawned queued", "3 spawned queued", "1 started at 1"]
    );
    dropped.cancel();
    settle().await;
    assert_eq!(ready_events(&mut events), ["3 cancelled"]);
    go.notify_one();
    settle().await;
    assert_eq!(ready_events(&mut events), ["1 completed", "2 started at 1", "2 completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_receives_the_number_of_missed_events_and_delays_no_task() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().event_buffer(4));
    let mut events = tasks.events();
    for _ in 0..100 {
        tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    }
    assert_eq!(tasks.stats().outcomes.completed, 100);
    assert_eq!(
        ready_events(&mut events),
        ["missed 296", "99 completed", "100 spawned running", "100 started at 1", "100 completed"],
        "three of each task, and four are kept"
    );
    // The stream continues as before.
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    assert_eq!(ready_events(&mut events), ["101 spawned running", "101 started at 1", "101 completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_is_behind_by_the_capacity_misses_nothing() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().event_buffer(4));
    let mut events = tasks.events();
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    tasks.create_task(async {}).spawn().unwrap();
    assert_eq!(ready_events(&mut events), ["1 spawned running", "1 started at 1", "1 completed", "2 spawned running"]);
}

#[tokio::test(start_paused = true)]
async fn a_capacity_of_zero_means_one() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().event_buffer(0));
    let mut events = tasks.events();
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    assert_eq!(ready_events(&mut events), ["missed 2", "1 completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_does_not_affect_the_others() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().event_buffer(4));
    let (mut quick, mut slow) = (tasks.events(), tasks.events());
    for id in 1..=3 {
        tasks.create_task(async {}).spawn().unwrap().await.unwrap();
        let lines = [format!("{id} spawned running"), format!("{id} started at 1"), format!("{id} completed")];
        assert_eq!(ready_events(&mut quick), lines);
    }
    assert_eq!(ready_events(&mut slow)[..2], ["missed 5", "2 completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_receives_events_from_its_creation_on() {
    let tasks = BackgroundTaskManager::new();
    let (go, before) = (Arc::new(Notify::new()), tasks.events());
    let wait = Arc::clone(&go);
    let work = |task: TaskContext| async move {
        wait.notified().await;
        task.progress(0.25, "late");
    };
    tasks.create_task_with_context(work).spawn().unwrap();
    settle().await;
    let after = tasks.events();
    go.notify_one();
    tasks.close(None).await;
    assert_eq!(remaining_events(after).await, ["1 at 25 % late", "1 completed"]);
    assert_eq!(remaining_events(before).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_when_the_manager_is_closed_and_its_last_task_has_ended() {
    let tasks = BackgroundTaskManager::new();
    let mut events = tasks.events();
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    tasks.create_task(sleep(3 * SECOND)).spawn().unwrap();
    let closer = tasks.clone();
    let closing = tokio::spawn(async move { closer.close(None).await });
    sleep(2 * SECOND).await;
    assert_eq!(ready_events(&mut events).last().unwrap(), "1 completed");
    assert!(events.next().now_or_never().is_none(), "one still runs");
    assert_eq!(remaining_events(events).await, ["2 completed"]);
    closing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_after_tasks_cancelled_by_a_close() {
    let tasks = BackgroundTaskManager::new();
    let events = tasks.events();
    tasks.create_task(pending::<()>()).spawn().unwrap();
    tasks.create_task_with_context(|_| pending::<()>()).spawn().unwrap();
    tasks.close(Some(SECOND)).await;
    assert_eq!(remaining_events(events).await[4..], ["1 cancelled", "2 aborted"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_the_close_is_reported_before_the_end() {
    let tasks = BackgroundTaskManager::new();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let work = move |_: TaskContext| {
        begun.send(()).unwrap();
        wait.recv().unwrap();
    };
    tasks.create_blocking_task(work).spawn().unwrap();
    has_begun.await.unwrap();
    let mut events = tasks.events();
    let closer = tasks.clone();
    let closing = tokio::spawn(async move { closer.close(Some(Duration::ZERO)).await });
    settle().await;
    // The paused clock does not advance by itself while a blocking task runs.
    advance(2 * SECOND).await;
    settle().await;
    advance(2 * SECOND).await;
    assert_eq!(closing.await.unwrap().still_running.len(), 1);
    assert!(events.next().now_or_never().is_none(), "it still runs");
    go.send(()).unwrap();
    assert_eq!(remaining_events(events).await, ["1 completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_an_idle_manager_ends_with_it() {
    let closed = BackgroundTaskManager::new();
    let events = closed.events();
    closed.close(None).await;
    assert_eq!(events.count().await, 0);
    assert_eq!(closed.events().next().await.map(|event| short(&event)), None, "closed before it began");

    let dropped = BackgroundTaskManager::new();
    let events = dropped.events();
    drop(dropped);
    assert_eq!(events.count().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_of_a_dropped_manager_receives_the_ends() {
    let tasks = BackgroundTaskManager::new();
    let mut events = tasks.events();
    tasks.create_task(pending::<()>()).spawn().unwrap();
    settle().await;
    drop(tasks);
    assert_eq!(events.by_ref().skip(2).map(|event| short(&event)).collect::<Vec<_>>().await, ["1 cancelled"]);
    // A stream that has ended stays ended.
    assert!(events.next().await.is_none());
    assert!(StreamExt::next(&mut events).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watcher_does_not_keep_a_manager_alive() {
    let tasks = BackgroundTaskManager::new();
    let _events = tasks.events();
    let held = Arc::new(());
    let its = Arc::clone(&held);
    let task = tasks.create_task(async move { drop(its) }).spawn().unwrap();
    task.await.unwrap();
    assert_eq!(Arc::strong_count(&held), 1, "what is unread holds nothing of the task's");
    let orphan = tasks.create_task(pending::<()>()).spawn().unwrap();
    drop(tasks);
    assert_eq!(orphan.await.unwrap_err().outcome(), TaskOutcome::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn next_task_event_is_cancel_safe() {
    let tasks = BackgroundTaskManager::new();
    let mut events = tasks.events();
    for _ in 0..3 {
        assert!(tokio::time::timeout(SECOND, events.next()).await.is_err());
    }
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    assert_eq!(ready_events(&mut events), ["1 spawned running", "1 started at 1", "1 completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_watcher_is_woken() {
    let tasks = BackgroundTaskManager::new();
    let mut events = tasks.events();
    let watcher = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let TaskEvent::Ended(end) = event {
                return end.id().get();
            }
        }
        0
    });
    settle().await;
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    assert_eq!(watcher.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_spawn_is_no_event() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1));
    let mut events = tasks.events();
    tasks.create_task(pending::<()>()).spawn().unwrap();
    tasks.create_task(async {}).spawn().unwrap_err();
    settle().await;
    assert_eq!(ready_events(&mut events), ["1 spawned running", "1 started at 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_may_be_created_after_another_was_dropped() {
    let tasks = BackgroundTaskManager::new();
    for id in [1, 3, 5] {
        let mut events = tasks.events();
        tasks.create_task(async {}).spawn().unwrap().await.unwrap();
        assert_eq!(ready_events(&mut events)[0], format!("{id} spawned running"));
        drop(events);
        // This task has no watcher.
        tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    }
}

#[test]
fn a_watcher_can_be_moved_shared_and_polled_anywhere() {
    fn anywhere<T: Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
    anywhere::<TaskEventStream>();
    anywhere::<TaskEvent>();
    let tasks = BackgroundTaskManager::new();
    assert_eq!(format!("{:?}", tasks.events()), "TaskEventStream { .. }");
    // The stream also works outside of a runtime.
    let events = tasks.events();
    drop(tasks);
    assert_eq!(futures::executor::block_on(events.count()), 0);
}

/// Reports that it was woken, and blocks the waking thread until it is released.
struct HoldsUp(std::sync::mpsc::SyncSender<()>, Mutex<std::sync::mpsc::Receiver<()>>);

impl Wake for HoldsUp {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
        self.1.lock().unwrap().recv().unwrap();
    }
}

#[test]
fn an_end_delivered_slowly_arrives_before_the_end_of_the_stream() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let entered = runtime.enter();
    let [slow, quick] = [(); 2].map(|()| Arc::new(Notify::new()));
    let wait = Arc::clone(&slow);
    let app: CompiledGraph<AgentState> = graph! {
        node SPAWN = (step(move |given| {
            let wait = Arc::clone(&wait);
            async move {
                given.tasks.create_task(async move { wait.notified().await }).name("slow").spawn()?;
                pending().await
            }
        }));
        SPAWN -> END
    };
    // The run's reader receives the task's end first, and its waker blocks.
    let (woken, is_woken) = std::sync::mpsc::sync_channel(1);
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let waker = Waker::from(Arc::new(HoldsUp(woken, Mutex::new(may_go_on))));
    let mut run = app.stream(AgentState::default(), RunConfig::new());
    drop(entered);
    // The last event before the node waits.
    while !matches!(runtime.block_on(run.next()).unwrap().kind, EventKind::TaskStarted { .. }) {}
    assert!(run.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());

    let tasks = app.task_manager();
    let events = tasks.events();
    let wait = Arc::clone(&quick);
    tasks.create_task(async move { wait.notified().await }).name("quick").spawn().unwrap();
    slow.notify_one();
    is_woken.recv().unwrap();
    quick.notify_one();
    runtime.block_on(tasks.close(None));
    assert_eq!(tasks.stats().outcomes.completed, 2);
    go_on.send(()).unwrap();
    let ends: Vec<_> = futures::executor::block_on(events.collect::<Vec<_>>())
        .iter()
        .filter_map(|event| if let TaskEvent::Ended(end) = event { Some(end.name().to_owned()) } else { None })
        .collect();
    assert_eq!(ends, ["slow", "quick"]);
}

/// Many threads spawn tasks that report progress, and the manager is closed meanwhile.
#[test]
fn each_task_of_many_threads_is_reported_in_order_and_ends_once() {
    for round in 0..200 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
        let tasks = {
            let _entered = runtime.enter();
            BackgroundTaskManager::with_options(TaskManagerOptions::new().event_buffer(1 << 12).max_running(3))
        };
        let watchers = [tasks.events(), tasks.events()];
        let start = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (tasks, start) = (tasks.clone(), Arc::clone(&start));
                std::thread::spawn(move || {
                    start.wait();
                    for _ in 0..20 {
                        let work = |task: TaskContext| async move {
                            task.progress(0.5, "half-way");
                            tokio::task::yield_now().await;
                            task.progress(1.0, "done");
                        };
                        tasks.create_task_with_context(work).spawn().unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        runtime.block_on(tasks.close(None));
        for watcher in watchers {
            let mut by_task: HashMap<u64, Vec<&'static str>> = HashMap::new();
            for event in futures::executor::block_on(watcher.collect::<Vec<_>>()) {
                let (id, what) = match event {
                    TaskEvent::Spawned(task) => (task.id(), "spawned"),
                    TaskEvent::Started(task) => {
                        assert_eq!(task.state(), TaskState::Running);
                        (task.id(), "started")
                    }
                    TaskEvent::Progress(task) => (task.id(), "progress"),
                    TaskEvent::Ended(end) => (end.id(), "ended"),
                    other => panic!("{other:?}"),
                };
                by_task.entry(id.get()).or_default().push(what);
            }
            assert_eq!(by_task.len(), 80, "round {round}");
            for (id, events_seen) in by_task {
                assert_eq!(
                    events_seen,
                    ["spawned", "started", "progress", "progress", "ended"],
                    "task {id}, round {round}"
                );
            }
        }
    }
}
