//! Delayed tasks: `delay` and `on_close`.

use std::{convert::Infallible, future::pending, time::Duration};

use agentflow::{
    AgentState, BackgroundTaskManager, NodeError, RetryPolicy, RunConfig, TaskContext, graph, node,
    task::{
        OnClose, OnDuplicateKey, OnFull, SpawnError, TaskError, TaskEvent, TaskHandle, TaskInfo, TaskManagerOptions,
        TaskOutcome, TaskState, TimeoutKind,
    },
};
use tokio::time::{Instant, sleep};
use tracing::Level;

use crate::support::{Journal, capture, settle};

const SECOND: Duration = Duration::from_secs(1);

fn with(options: TaskManagerOptions) -> BackgroundTaskManager {
    BackgroundTaskManager::with_options(options)
}

/// Spawns a delayed task of each kind, which notes that it begins.
fn one_of_each_kind(tasks: &BackgroundTaskManager, journal: &Journal, delay: Duration) -> Vec<TaskHandle<()>> {
    let [plain, context, blocking, retrying] = [(); 4].map(|()| journal.clone());
    vec![
        tasks.create_task(async move { plain.add("plain") }).delay(delay).spawn().unwrap(),
        tasks.create_task_with_context(move |_| async move { context.add("context") }).delay(delay).spawn().unwrap(),
        tasks.create_blocking_task(move |_| blocking.add("blocking")).delay(delay).spawn().unwrap(),
        tasks
            .create_retrying_task(move |_| {
                let journal = retrying.clone();
                async move {
                    journal.add("retrying");
                    Ok::<_, Infallible>(())
                }
            })
            .retry(RetryPolicy::new(2))
            .delay(delay)
            .spawn()
            .unwrap(),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_task_of_each_kind_begins_when_its_delay_is_over() {
    let (tasks, journal) = (BackgroundTaskManager::new(), Journal::default());
    let mut events = tasks.events();
    let handles = one_of_each_kind(&tasks, &journal, 3 * SECOND);
    sleep(2 * SECOND).await;
    assert_eq!(journal.entries().len(), 0);
    for info in tasks.task_info() {
        assert_eq!((info.state(), info.attempt()), (TaskState::Delayed, 0), "{info:?}");
    }
    let began = Instant::now();
    for handle in handles {
        handle.await.unwrap();
    }
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(journal.entries().len(), 4);
    tasks.close(None).await;
    let mut spawned = Vec::new();
    while let Some(event) = events.next().await {
        if let TaskEvent::Spawned(task) = event {
            spawned.push(task.state());
        }
    }
    assert_eq!(spawned, [TaskState::Delayed; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_task_is_listed_and_counted_as_delayed() {
    let tasks = with(TaskManagerOptions::new().max_running(1));
    tasks.create_task(pending::<()>()).spawn().unwrap();
    tasks.create_task(pending::<()>()).spawn().unwrap();
    tasks.create_task(pending::<()>()).name("later").delay(2 * SECOND).spawn().unwrap();
    sleep(SECOND).await;
    let stats = tasks.stats();
    assert_eq!((stats.spawned, stats.active, stats.delayed, stats.queued), (3, 3, 1, 1));
    assert_eq!(stats.to_string(), "3 spawned: 3 active (1 delayed, 1 queued)");
    assert_eq!(tasks.task_info()[2].to_string(), "later #3 (delayed for 1.0s)");
    sleep(2 * SECOND).await;
    assert_eq!(tasks.task_info()[2].state(), TaskState::Queued);
    assert_eq!((tasks.stats().delayed, tasks.stats().queued), (0, 2));
    tasks.cancel_all().await;
    assert_eq!((tasks.stats().delayed, tasks.stats().queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_task_occupies_no_slot_to_run_in_and_is_queued_afterwards() {
    let (tasks, journal) = (with(TaskManagerOptions::new().max_running(1)), Journal::default());
    let (later, soon) = (journal.clone(), journal.clone());
    tasks.create_task(async move { later.add("later") }).delay(2 * SECOND).spawn().unwrap();
    let soon = async move {
        soon.add("soon");
        sleep(5 * SECOND).await;
        soon.add("soon ends");
    };
    tasks.create_task(soon).spawn().unwrap();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(journal.entries(), ["soon", "soon ends", "later"]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_of_zero_is_none() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).delay(Duration::ZERO).spawn().unwrap();
    settle().await;
    assert_eq!(tasks.task_info()[0].state(), TaskState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_is_not_longer_than_the_delay_ends_the_task_before_it_begins() {
    let tasks = BackgroundTaskManager::new();
    for timeout in [SECOND, 2 * SECOND] {
        let late = tasks.create_task(async {}).delay(2 * SECOND).timeout(timeout).spawn().unwrap();
        let Err(TaskError::TimedOut { limit, .. }) = late.await else { panic!("it did not time out") };
        assert_eq!(limit, TimeoutKind::Total);
    }
    let end = &tasks.recently_finished()[0];
    assert_eq!((end.age(), end.attempts()), (SECOND, 0));
    let in_time = tasks.create_task(pending::<()>()).delay(2 * SECOND).timeout(3 * SECOND).spawn().unwrap();
    in_time.await.unwrap_err();
    let end = &tasks.recently_finished()[2];
    assert_eq!((end.age(), end.attempts()), (3 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn the_queue_timeout_counts_from_the_end_of_the_delay() {
    let tasks = with(TaskManagerOptions::new().max_running(1).queue_timeout(2 * SECOND));
    tasks.create_task(pending::<()>()).spawn().unwrap();
    let began = Instant::now();
    let later = tasks.create_task(async {}).delay(5 * SECOND).spawn().unwrap();
    let Err(TaskError::TimedOut { limit, .. }) = later.await else { panic!("it did not time out") };
    assert_eq!((limit, began.elapsed()), (TimeoutKind::Queue, 7 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn cancelling_a_delayed_task_ends_it_at_once() {
    let (tasks, journal) = (BackgroundTaskManager::new(), Journal::default());
    let began = Instant::now();
    let handles = one_of_each_kind(&tasks, &journal, 3 * SECOND);
    settle().await;
    for handle in handles {
        handle.cancel();
        assert!(matches!(handle.await, Err(TaskError::Cancelled)));
    }
    assert_eq!((began.elapsed(), tasks.task_count()), (Duration::ZERO, 0));
    assert!(tasks.recently_finished().iter().all(|end| end.attempts() == 0));
    assert_eq!(journal.entries().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_close_begins_delayed_tasks_at_once() {
    let (tasks, journal) = (BackgroundTaskManager::new(), Journal::default());
    let began = Instant::now();
    one_of_each_kind(&tasks, &journal, 3_600 * SECOND);
    settle().await;
    let report = tasks.close(Some(5 * SECOND)).await;
    assert_eq!((report.outcomes.completed, report.is_clean(), journal.entries().len()), (4, true, 4));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn at_a_close_delayed_tasks_run_in_the_order_of_their_spawns_within_its_bound() {
    let (tasks, journal) = (with(TaskManagerOptions::new().max_running(1)), Journal::default());
    for (name, delay) in [("first", 3), ("second", 2), ("third", 1)] {
        let journal = journal.clone();
        let work = async move {
            journal.add(name);
            sleep(2 * SECOND).await;
        };
        tasks.create_task(work).name(name).delay(delay * 3_600 * SECOND).spawn().unwrap();
    }
    let report = tasks.close(Some(3 * SECOND)).await;
    assert_eq!(journal.entries(), ["first", "second"]);
    let cut_off: Vec<_> = report.unfinished.iter().map(|end| (end.name(), end.outcome(), end.attempts())).collect();
    assert_eq!(cut_off, [("second", TaskOutcome::Cancelled, 1), ("third", TaskOutcome::Cancelled, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_close_drops_the_delayed_tasks_that_ask_for_it() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let begun =
        tasks.create_task(async { sleep(2 * SECOND).await }).delay(SECOND).on_close(OnClose::Drop).spawn().unwrap();
    sleep(3 * SECOND / 2).await;
    let again = tasks
        .create_task(async { panic!("begun") })
        .name("again")
        .delay(SECOND)
        .on_close(OnClose::Drop)
        .spawn()
        .unwrap();
    let report = tasks.close(Some(5 * SECOND)).await;
    assert!(begun.await.is_ok(), "it had begun");
    assert!(matches!(again.await, Err(TaskError::Cancelled)));
    assert_eq!((report.outcomes.completed, report.outcomes.cancelled, report.is_clean()), (1, 1, true));
    let line = log.ends().into_iter().find(|line| line.field("name") == "again").unwrap();
    assert_eq!((line.level, line.field("outcome")), (Level::DEBUG, "cancelled"));
}

#[tokio::test(start_paused = true)]
async fn while_the_manager_drains_a_new_delay_is_over_at_once() {
    let tasks = BackgroundTaskManager::new();
    let parent = |task: TaskContext| async move {
        sleep(SECOND).await;
        let child = |on_close| task.manager().create_task(async {}).delay(3_600 * SECOND).on_close(on_close).spawn();
        child(OnClose::Run).unwrap().await.unwrap();
        assert!(matches!(child(OnClose::Drop).unwrap().await, Err(TaskError::Cancelled)));
    };
    tasks.create_task_with_context(parent).spawn().unwrap();
    let report = tasks.close(Some(2 * SECOND)).await;
    assert_eq!((report.outcomes.completed, report.outcomes.cancelled, report.elapsed), (2, 1, SECOND));
}

#[tokio::test(start_paused = true)]
async fn an_apps_shutdown_begins_delayed_tasks() {
    #[node]
    async fn note(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        task_manager.create_task(async {}).name("save").delay(3_600 * SECOND).spawn()?;
        Ok(())
    }
    let app = graph! { note -> END };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let began = Instant::now();
    let report = app.aclose().await.tasks;
    assert_eq!((report.outcomes.completed, report.is_clean()), (1, true));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn without_a_close_a_delayed_task_is_cancelled_with_its_manager() {
    let (log, _guard) = capture();
    let tasks = BackgroundTaskManager::new();
    let later = tasks.create_task(async {}).name("later").delay(SECOND).spawn().unwrap();
    drop(tasks);
    assert!(matches!(later.await, Err(TaskError::Cancelled)));
    assert_eq!(log.event("the task manager was dropped").field("tasks"), "later #1");
}

#[tokio::test(start_paused = true)]
async fn the_last_of_many_replaced_tasks_runs_once_it_was_quiet() {
    let (tasks, journal) = (BackgroundTaskManager::new(), Journal::default());
    for number in 0..5 {
        let journal = journal.clone();
        let work = async move { journal.add(number.to_string()) };
        tasks.create_task(work).name("index").key("ada", OnDuplicateKey::Replace).delay(3 * SECOND).spawn().unwrap();
        sleep(SECOND).await;
    }
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(journal.entries(), ["4"]);
    assert_eq!((tasks.stats().outcomes.completed, tasks.stats().outcomes.cancelled), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_taken_by_a_delayed_task_for_skip_and_held_up_for_nobody_by_it() {
    let tasks = BackgroundTaskManager::new();
    let task =
        |on_duplicate| tasks.create_task(async { sleep(4 * SECOND).await }).name("index").key("ada", on_duplicate);
    let delayed = task(OnDuplicateKey::Queue).delay(2 * SECOND).spawn().unwrap();
    assert_eq!(task(OnDuplicateKey::Skip).spawn().unwrap_err(), SpawnError::DuplicateKey);
    let began = Instant::now();
    let queued = task(OnDuplicateKey::Queue).spawn().unwrap();
    sleep(3 * SECOND).await;
    let states: Vec<_> = tasks.task_info().iter().map(TaskInfo::state).collect();
    assert_eq!(states, [TaskState::Queued, TaskState::Running]);
    queued.await.unwrap();
    assert_eq!(began.elapsed(), 4 * SECOND);
    delayed.await.unwrap();
    assert_eq!(began.elapsed(), 8 * SECOND);
    assert!(task(OnDuplicateKey::Skip).spawn().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_replacement_is_of_delayed_queued_and_running_tasks() {
    let tasks = BackgroundTaskManager::new();
    let task = |on_duplicate| tasks.create_task(pending::<()>()).name("index").key("ada", on_duplicate);
    let old = [
        task(OnDuplicateKey::Queue).delay(SECOND).spawn().unwrap(),
        task(OnDuplicateKey::Queue).spawn().unwrap(),
        task(OnDuplicateKey::Queue).spawn().unwrap(),
    ];
    settle().await;
    task(OnDuplicateKey::Replace).delay(SECOND).spawn().unwrap();
    for old in old {
        assert!(matches!(old.await, Err(TaskError::Cancelled)));
    }
    assert_eq!(tasks.task_info()[0].state(), TaskState::Delayed);
    sleep(2 * SECOND).await;
    assert_eq!(tasks.task_info()[0].state(), TaskState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_all_waits_for_delays() {
    let tasks = BackgroundTaskManager::new();
    let began = Instant::now();
    tasks.create_task(async { sleep(SECOND).await }).name("later").delay(5 * SECOND).spawn().unwrap();
    let timeout = tasks.wait_for_all(Some(SECOND)).await.unwrap_err();
    assert_eq!(timeout.still_running[0].state(), TaskState::Delayed);
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(began.elapsed(), 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_task_counts_towards_max_tasks_and_is_evicted_like_a_queued_one() {
    let later = |tasks: &BackgroundTaskManager| tasks.create_task(async {}).delay(SECOND).spawn();
    let tasks = with(TaskManagerOptions::new().max_tasks(1));
    later(&tasks).unwrap();
    assert_eq!(later(&tasks).unwrap_err(), SpawnError::Full);

    let tasks = with(TaskManagerOptions::new().max_tasks(2).on_full(OnFull::DropOldest));
    let running = tasks.create_task(sleep(2 * SECOND)).spawn().unwrap();
    let evicted = later(&tasks).unwrap();
    later(&tasks).unwrap().await.unwrap();
    assert!(matches!(evicted.await, Err(TaskError::Evicted)));
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_delay_beyond_the_clocks_range_lasts_until_a_close() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async {}).delay(Duration::MAX).spawn().unwrap();
    sleep(1_000_000 * SECOND).await;
    assert_eq!(tasks.stats().delayed, 1);
    assert_eq!(tasks.close(None).await.outcomes.completed, 1);
}
