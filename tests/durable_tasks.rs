//! Durable tasks that run: the worker of an app claims them, and records their ends in the store.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use agentflow::{
    AgentState, BackgroundTaskManager, CompiledGraph, NodeError, Provide, RetryPolicy, RunConfig, graph, node,
    run::RunErrorKind,
    store::{MemoryStore, Store, StoreErrorKind, StoredTaskFilter, StoredTaskId, TaskChanged, TaskRow, TaskStatus},
    task,
    task::{DurableTaskContext, OnDuplicateKey, SpawnError, TaskOutcome},
};
use tokio::sync::Semaphore;

use crate::failing_store::FailingStore;

/// The lines that the tasks of a test have written, and the signals that they give and wait for.
#[derive(Clone)]
struct Desk {
    lines: Arc<Mutex<Vec<String>>>,
    begun: Arc<Semaphore>,
    go_on: Arc<Semaphore>,
}

impl Default for Desk {
    fn default() -> Self {
        let none = || Arc::new(Semaphore::new(0));
        Self { lines: Arc::default(), begun: none(), go_on: none() }
    }
}

impl Desk {
    fn write(&self, line: impl Into<String>) {
        self.lines.lock().unwrap().push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until a task has begun.
    async fn begun(&self) {
        self.begun.acquire().await.unwrap().forget();
    }
}

#[derive(Clone, Default, Provide)]
struct Services {
    desk: Desk,
}

#[task]
async fn note(args: String, #[inject] desk: &Desk) {
    desk.write(args);
}

#[task]
async fn wait(args: String, #[inject] desk: &Desk) {
    desk.begun.add_permits(1);
    desk.go_on.acquire().await.unwrap().forget();
    desk.write(args);
}

/// Fails in its first `args` attempts.
#[task]
async fn flaky(args: u32, attempt: u32, #[inject] desk: &Desk) -> Result<(), NodeError> {
    desk.write(format!("attempt {attempt}"));
    if attempt <= args { Err(format!("no answer to attempt {attempt}").into()) } else { Ok(()) }
}

#[task]
async fn panics() {
    panic!("out of paper");
}

#[node]
async fn idle(_state: &mut AgentState) {}

type App = CompiledGraph<AgentState, Services>;

fn app_on(store: &Arc<dyn Store>, services: &Services) -> App {
    graph! {
        name = "office";
        type State = AgentState;
        idle -> END;
        tasks { note, wait, flaky, panics }
        compile { services: services.clone(), store: Arc::clone(store) }
    }
}

fn store() -> (MemoryStore, Arc<dyn Store>) {
    let memory = MemoryStore::new();
    (memory.clone(), Arc::new(memory))
}

fn app() -> (App, Desk) {
    let services = Services::default();
    (app_on(&store().1, &services), services.desk)
}

async fn ended(app: &App, task: StoredTaskId) -> TaskRow {
    app.tasks().wait(task).await.unwrap().expect("the task is stored")
}

async fn all<C: Send + Sync + 'static>(app: &CompiledGraph<AgentState, C>) -> Vec<TaskRow> {
    app.tasks().list(StoredTaskFilter::default()).await.unwrap()
}

fn state() -> AgentState {
    AgentState::default()
}

#[tokio::test(start_paused = true)]
async fn the_tasks_of_a_step_are_stored_with_its_commit_and_run_once() {
    #[node]
    async fn sends(
        _state: &mut AgentState,
        attempt: u32,
        task_manager: &BackgroundTaskManager,
    ) -> Result<(), NodeError> {
        task_manager.create_durable_task::<note>(format!("of attempt {attempt}")).spawn()?;
        if attempt == 1 { Err("try again".into()) } else { Ok(()) }
    }
    #[node]
    async fn fails(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        task_manager.create_durable_task::<note>("never".to_owned()).spawn()?;
        Err("the node fails".into())
    }
    let services = Services::default();
    let app = graph! {
        name = "office";
        type State = AgentState;
        node SENDS = sends { retry: 1 };
        SENDS -> fails -> END;
        tasks { note }
        compile { services: services.clone(), store: MemoryStore::new() }
    };
    app.thread("case").invoke(AgentState::update(), RunConfig::new()).await.unwrap_err();
    let tasks = all(&app).await;
    assert_eq!(tasks.len(), 1);
    assert!(tasks[0].task.run.is_some());
    assert_eq!(tasks[0].task.node.as_deref(), Some("SENDS"));
    let row = app.tasks().wait(tasks[0].task.id).await.unwrap().unwrap();
    assert_eq!((row.status, row.epoch), (TaskStatus::Done, 1));
    assert_eq!(services.desk.lines(), ["of attempt 2"]);
    assert_eq!(app.task_manager().stats().outcomes.completed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_thread_stores_its_tasks_before_it_ends() {
    #[node]
    async fn sends(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        task_manager.create_durable_task::<note>("of the run".to_owned()).spawn()?;
        Ok(())
    }
    let app = graph! {
        name = "office";
        type State = AgentState;
        sends -> END;
        tasks { note }
        compile { services: Services::default(), store: MemoryStore::new(), task_workers: 0 }
    };
    app.invoke(state(), RunConfig::new()).await.unwrap();
    let tasks = all(&app).await;
    assert_eq!(tasks.len(), 1);
    // No worker claims it.
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(all(&app).await[0].status, TaskStatus::Pending);
}

#[tokio::test(start_paused = true)]
async fn a_task_from_outside_is_stored_in_the_order_of_the_spawns() {
    let (app, desk) = app();
    let manager = app.task_manager();
    let first = manager.create_durable_task::<note>("first".to_owned()).spawn().unwrap();
    let second = manager.create_durable_task::<note>("second".to_owned()).spawn_stored().await.unwrap();
    let rows = all(&app).await;
    assert_eq!(rows.iter().map(|row| row.task.id).collect::<Vec<_>>(), [second, first]);
    ended(&app, first).await;
    ended(&app, second).await;
    assert_eq!(desk.lines(), ["first", "second"]);
    app.aclose().await;
    let refused = manager.create_durable_task::<note>(String::new()).spawn_stored().await;
    assert_eq!(refused, Err(SpawnError::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_when_its_delay_is_over() {
    let (memory, store) = store();
    let services = Services::default();
    let app = app_on(&store, &services);
    let spawn = app.task_manager().create_durable_task::<note>("late".to_owned()).delay(Duration::from_hours(48));
    let id = spawn.spawn_stored().await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(services.desk.lines().is_empty());
    memory.advance(Duration::from_hours(48));
    let row = ended(&app, id).await;
    assert_eq!((row.status, row.crashes, row.epoch), (TaskStatus::Done, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_task_of_a_higher_priority_is_claimed_first() {
    let services = Services::default();
    let app = graph! {
        name = "office";
        type State = AgentState;
        idle -> END;
        tasks { note, wait }
        compile { services: services.clone(), store: MemoryStore::new(), task_workers: 1 }
    };
    let manager = app.task_manager();
    manager.create_durable_task::<wait>("before".to_owned()).spawn_stored().await.unwrap();
    services.desk.begun().await;
    let mut last = None;
    for (text, priority) in [("low", -1), ("high", 5), ("normal", 0)] {
        let task = manager.create_durable_task::<note>(text.to_owned()).priority(priority);
        let id = task.spawn_stored().await.unwrap();
        last = (priority == -1).then_some(id).or(last);
    }
    services.desk.go_on.add_permits(1);
    app.tasks().wait(last.unwrap()).await.unwrap();
    assert_eq!(services.desk.lines(), ["before", "high", "normal", "low"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_at_its_limit_blocks_no_other_one() {
    let services = Services::default();
    let app = graph! {
        name = "office";
        type State = AgentState;
        idle -> END;
        tasks { note, wait }
        compile { services: services.clone(), store: MemoryStore::new(), task_limits: [("wait", 1)] }
    };
    let manager = app.task_manager();
    for text in ["one", "two"] {
        manager.create_durable_task::<wait>(text.to_owned()).priority(9).spawn_stored().await.unwrap();
    }
    let other = manager.create_durable_task::<note>("other".to_owned()).spawn_stored().await.unwrap();
    app.tasks().wait(other).await.unwrap();
    services.desk.begun().await;
    assert_eq!(services.desk.begun.available_permits(), 0);
    services.desk.go_on.add_permits(2);
    services.desk.begun().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_lets_one_unfinished_task_run_at_a_time() {
    let (app, desk) = app();
    let manager = app.task_manager();
    let keyed = |text: &str, policy| manager.create_durable_task::<wait>(text.to_owned()).key("a", policy);
    let first = keyed("first", OnDuplicateKey::Skip).spawn_stored().await.unwrap();
    desk.begun().await;
    assert_eq!(keyed("skipped", OnDuplicateKey::Skip).spawn_stored().await, Ok(first));
    let second = keyed("second", OnDuplicateKey::Queue).spawn_stored().await.unwrap();
    assert_eq!(desk.begun.available_permits(), 0);
    desk.go_on.add_permits(1);
    desk.begun().await;
    // A running one is cancelled, and the new one starts after its end.
    let third = keyed("third", OnDuplicateKey::Replace).spawn_stored().await.unwrap();
    assert_eq!(ended(&app, second).await.status, TaskStatus::Cancelled);
    desk.begun().await;
    desk.go_on.add_permits(1);
    assert_eq!(ended(&app, third).await.status, TaskStatus::Done);
    assert_eq!(desk.lines(), ["first", "third"]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_is_tried_again_after_its_backoff() {
    let (app, desk) = app();
    let hour = Duration::from_hours(1);
    let policy = RetryPolicy::new(5).backoff(hour).factor(1.0).max_delay(hour);
    let task = app.task_manager().create_durable_task::<flaky>(2).retry(policy);
    let began = tokio::time::Instant::now();
    let id = task.spawn_stored().await.unwrap();
    let row = ended(&app, id).await;
    assert_eq!((row.status, row.failed_attempts, row.epoch), (TaskStatus::Done, 2, 3));
    // The clock of the store is a little faster than tokio's, because it grows with each operation.
    assert!(began.elapsed().abs_diff(2 * hour) < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(desk.lines(), ["attempt 1", "attempt 2", "attempt 3"]);
    let stats = app.task_manager().stats().outcomes;
    assert_eq!((stats.completed, stats.failed), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_task_without_attempts_left_stays_as_failed_until_it_is_retried_by_hand() {
    let (app, _) = app();
    let id = app.task_manager().create_durable_task::<flaky>(2).retry(1).spawn_stored().await.unwrap();
    let row = ended(&app, id).await;
    assert_eq!((row.status, row.failed_attempts), (TaskStatus::Failed, 2));
    assert_eq!(row.error.as_deref(), Some("no answer to attempt 2"));
    assert_eq!(app.tasks().retry(id).await.unwrap(), TaskChanged::Yes);
    assert_eq!(ended(&app, id).await.failed_attempts, 2);
    assert_eq!(app.tasks().delete(id).await.unwrap(), TaskChanged::Yes);
    assert!(app.tasks().get(id).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt() {
    let (app, _) = app();
    let id = app.task_manager().create_durable_task::<panics>(()).retry(1).spawn_stored().await.unwrap();
    let row = ended(&app, id).await;
    assert_eq!((row.status, row.failed_attempts), (TaskStatus::Failed, 2));
    assert_eq!(row.error.as_deref(), Some("panicked: out of paper"));
    app.task_manager().wait_for_all(None).await.unwrap();
    let finished = app.task_manager().recently_finished();
    assert!(finished.iter().all(|task| task.outcome() == TaskOutcome::Panicked));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_has_failed_and_a_task_whose_time_is_over_too() {
    let (app, desk) = app();
    let manager = app.task_manager();
    let task = manager.create_durable_task::<wait>("slow".to_owned()).retry(2);
    let id = task.attempt_timeout(Duration::from_secs(5)).spawn_stored().await.unwrap();
    let row = ended(&app, id).await;
    assert_eq!((row.status, row.failed_attempts), (TaskStatus::Failed, 3));
    assert_eq!(row.error.as_deref(), Some("the attempt timed out after 5s"));

    // Two attempts use up 10 s of the budget; the pauses between them use up nothing.
    let policy = RetryPolicy::new(9).backoff(Duration::from_mins(1));
    let task = manager.create_durable_task::<wait>("slow".to_owned()).retry(policy);
    let task = task.attempt_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(12));
    let row = ended(&app, task.spawn_stored().await.unwrap()).await;
    assert_eq!((row.status, row.failed_attempts), (TaskStatus::Failed, 3));
    assert_eq!(row.consumed.as_secs(), 12);
    assert!(row.error.unwrap().contains("timed out"));
    assert!(desk.lines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_pending_tasks_and_running_ones_in_any_process() {
    let (_, store) = store();
    let services = Services::default();
    let (app, other) = (app_on(&store, &services), app_on(&store, &Services::default()));
    let manager = app.task_manager();
    let pending = manager.create_durable_task::<note>(String::new()).delay(Duration::from_hours(1));
    let pending = pending.spawn_stored().await.unwrap();
    assert_eq!(app.tasks().cancel(pending).await.unwrap(), TaskChanged::Yes);
    for by in [&app, &other] {
        let running = manager.create_durable_task::<wait>(String::new()).spawn_stored().await.unwrap();
        services.desk.begun().await;
        assert!(matches!(by.tasks().cancel(running).await.unwrap(), TaskChanged::Marked(_)));
        assert_eq!(ended(&app, running).await.status, TaskStatus::Cancelled);
        assert_eq!(by.tasks().cancel(running).await.unwrap(), TaskChanged::No(TaskStatus::Cancelled));
    }
    // The manager cancels what runs in this process.
    let running = manager.create_durable_task::<wait>(String::new()).spawn_stored().await.unwrap();
    services.desk.begun().await;
    assert_eq!(manager.cancel_named("wait"), 1);
    assert_eq!(ended(&app, running).await.status, TaskStatus::Cancelled);
    // They did not ask for their tokens, so they were dropped after the grace period.
    assert_eq!(app.task_manager().stats().outcomes.aborted, 3);
}

#[test]
fn a_task_of_a_process_that_died_runs_in_another_one() {
    let (memory, store) = store();
    let services = Services::default();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let id = first.block_on(async {
        let app = app_on(&store, &services);
        let id = app.task_manager().create_durable_task::<wait>("survives".to_owned()).spawn_stored().await.unwrap();
        services.desk.begun().await;
        id
    });
    // The owner never leaves the store.
    first.shutdown_background();
    runtime().block_on(async {
        let app = app_on(&store, &services);
        memory.advance(Duration::from_mins(2));
        let report = app.recover().await.unwrap();
        assert!(report.taken.is_empty());
        services.desk.begun().await;
        services.desk.go_on.add_permits(1);
        let row = ended(&app, id).await;
        assert_eq!((row.status, row.epoch, row.failed_attempts), (TaskStatus::Done, 2, 0));
        assert_eq!(services.desk.lines(), ["survives"]);
    });
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_tasks_and_releases_those_that_do_not_end() {
    let (_, store) = store();
    let services = Services::default();
    let app = app_on(&store, &services);
    let manager = app.task_manager();
    let kept = manager.create_durable_task::<wait>("kept".to_owned()).spawn_stored().await.unwrap();
    services.desk.begun().await;
    let later = manager.create_durable_task::<note>("later".to_owned()).delay(Duration::from_secs(5));
    let later = later.spawn_stored().await.unwrap();
    let report = app.aclose().await;
    assert_eq!(report.kept_tasks, [kept]);
    assert!(report.to_string().contains("1 durable tasks kept in the store"), "{report}");
    assert_eq!(app.aclose().await.kept_tasks, [kept]);
    let row = app.tasks().get(kept).await.unwrap().unwrap();
    assert_eq!((row.status, row.crashes, row.failed_attempts), (TaskStatus::Pending, 0, 0));
    assert!((30..33).contains(&row.consumed.as_secs()), "{:?}", row.consumed);
    assert!(services.desk.lines().is_empty(), "a draining app claims nothing");

    services.desk.go_on.add_permits(1);
    let next = app_on(&store, &services);
    let _ = next.recover().await.unwrap();
    assert_eq!(ended(&next, kept).await.status, TaskStatus::Done);
    assert_eq!(ended(&next, later).await.status, TaskStatus::Done);
    assert!(next.aclose().await.kept_tasks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_a_process_cannot_read_is_left_for_another_one() {
    mod other_version {
        use super::{Desk, task};

        #[task]
        pub(super) async fn note(args: u32, #[inject] desk: &Desk) {
            desk.write(format!("number {args}"));
        }

        #[task]
        pub(super) async fn unknown() {}
    }
    let (_, store) = store();
    let services = Services::default();
    let new = graph! {
        name = "office";
        type State = AgentState;
        idle -> END;
        tasks { other_version::note, other_version::unknown }
        compile { services: services.clone(), store: Arc::clone(&store), task_workers: 0 }
    };
    let unreadable = new.task_manager().create_durable_task::<other_version::note>(7).spawn_stored().await.unwrap();
    let unknown = new.task_manager().create_durable_task::<other_version::unknown>(()).spawn_stored().await.unwrap();

    let app = app_on(&store, &services);
    let _ = app.recover().await.unwrap();
    let done = app.task_manager().create_durable_task::<note>("readable".to_owned()).spawn_stored().await.unwrap();
    ended(&app, done).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let stuck = app.tasks().stuck().await.unwrap();
    let stuck: Vec<_> = stuck.iter().map(|task| (task.row.task.id, &*task.reason)).collect();
    assert_eq!(stuck.len(), 2);
    assert_eq!(stuck[0], (unknown, "the app does not register the task `unknown`"));
    assert_eq!(stuck[1].0, unreadable);
    assert!(stuck[1].1.starts_with("the stored arguments of the durable task `note` cannot be read"), "{}", stuck[1].1);
    let row = app.tasks().get(unreadable).await.unwrap().unwrap();
    assert_eq!((row.status, row.failed_attempts), (TaskStatus::Pending, 0));
    assert!((4..9).contains(&row.epoch), "the delay grows: {} claims in a minute", row.epoch);
    app.aclose().await;

    let reads = graph! {
        name = "office";
        type State = AgentState;
        idle -> END;
        tasks { other_version::note, other_version::unknown }
        compile { services: services.clone(), store: Arc::clone(&store) }
    };
    let _ = reads.recover().await.unwrap();
    assert_eq!(reads.tasks().wait(unreadable).await.unwrap().unwrap().status, TaskStatus::Done);
    assert_eq!(reads.tasks().wait(unknown).await.unwrap().unwrap().status, TaskStatus::Done);
    assert_eq!(services.desk.lines(), ["readable", "number 7"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_knows_its_attempt_and_has_one_id_for_its_runs() {
    #[task]
    async fn asks(args: (), attempt: u32, task: &DurableTaskContext, #[inject] desk: &Desk) -> Result<(), NodeError> {
        let () = args;
        desk.write(format!("{} {attempt}", task.run_id()));
        if attempt == 1 { Err("again".into()) } else { Ok(()) }
    }
    let services = Services::default();
    let app = graph! {
        name = "office";
        type State = AgentState;
        idle -> END;
        tasks { asks }
        compile { services: services.clone(), store: MemoryStore::new() }
    };
    let task = app.task_manager().create_durable_task::<asks>(()).retry(1).context("user", "ada");
    let id = task.spawn_stored().await.unwrap();
    app.tasks().wait(id).await.unwrap();
    let lines = services.desk.lines();
    let ids: Vec<_> = lines.iter().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!((ids[0].0, ids[0].1, ids[1].1), (ids[1].0, "1", "2"));
    let finished = app.task_manager().recently_finished();
    let context: Vec<_> = finished[0].context().map(|(key, value)| (key, value.as_str().unwrap())).collect();
    assert_eq!(context, [("durable_task", &*id.to_string()), ("user", "ada")]);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_dropped_releases_its_tasks() {
    let (_, store) = store();
    let services = Services::default();
    let app = app_on(&store, &services);
    let id = app.task_manager().create_durable_task::<wait>("kept".to_owned()).spawn_stored().await.unwrap();
    services.desk.begun().await;
    drop(app);
    let next = app_on(&store, &services);
    let _ = next.recover().await.unwrap();
    services.desk.begun().await;
    services.desk.go_on.add_permits(1);
    let row = ended(&next, id).await;
    assert_eq!((row.status, row.crashes, row.epoch), (TaskStatus::Done, 0, 2));
    assert_eq!(services.desk.lines(), ["kept"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_task_that_was_asked_to_stop_is_no_failed_attempt() {
    #[task]
    async fn polite(cancel: &agentflow::CancellationToken, #[inject] desk: &Desk) -> Result<(), NodeError> {
        desk.begun.add_permits(1);
        cancel.cancelled().await;
        Err("stopped half-way".into())
    }
    let (_, store) = store();
    let services = Services::default();
    let app = graph! {
        name = "office";
        type State = AgentState;
        idle -> END;
        tasks { polite }
        compile { services: services.clone(), store: store }
    };
    let manager = app.task_manager();
    let cancelled = manager.create_durable_task::<polite>(()).spawn_stored().await.unwrap();
    services.desk.begun().await;
    assert!(matches!(app.tasks().cancel(cancelled).await.unwrap(), TaskChanged::Marked(_)));
    assert_eq!(app.tasks().wait(cancelled).await.unwrap().unwrap().status, TaskStatus::Cancelled);

    let kept = manager.create_durable_task::<polite>(()).spawn_stored().await.unwrap();
    services.desk.begun().await;
    assert_eq!(app.stop().await.kept_tasks, [kept]);
    let row = app.tasks().get(kept).await.unwrap().unwrap();
    assert_eq!((row.status, row.failed_attempts), (TaskStatus::Pending, 0));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_the_store_does_not_take_is_reported() {
    #[node]
    async fn sends(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        task_manager.create_durable_task::<note>("of the run".to_owned()).spawn()?;
        Ok(())
    }
    let (store, services) = (FailingStore::default(), Services::default());
    let app = graph! {
        name = "office";
        type State = AgentState;
        sends -> END;
        tasks { note }
        compile { services: services.clone(), store: store.clone() }
    };
    store.fail("enqueue", StoreErrorKind::Full);
    let task = app.task_manager().create_durable_task::<note>("refused".to_owned());
    let error = task.spawn_stored().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the durable task is not stored: the store's operation `enqueue` failed: the disk is full"
    );
    let error = app.invoke(state(), RunConfig::new()).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Store(error) if *error.kind() == StoreErrorKind::Full), "{error}");
    assert!(all(&app).await.is_empty());

    // An error that may pass is waited for.
    store.fail("enqueue", StoreErrorKind::Unavailable);
    let stored = tokio::spawn({
        let app = app.clone();
        async move { app.task_manager().create_durable_task::<note>("from outside".to_owned()).spawn_stored().await }
    });
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!stored.is_finished());
    store.recover();
    let id = stored.await.unwrap().unwrap();
    app.tasks().wait(id).await.unwrap();
    assert_eq!(services.desk.lines(), ["from outside"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_minute_loses_no_end_of_a_task() {
    let (store, services) = (FailingStore::default(), Services::default());
    let app = app_on(&(Arc::new(store.clone()) as _), &services);
    let spawn = |text: &str| app.task_manager().create_durable_task::<wait>(text.to_owned());
    let short = spawn("short").spawn_stored().await.unwrap();
    services.desk.begun().await;
    store.fail("", StoreErrorKind::Unavailable);
    services.desk.go_on.add_permits(1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    store.recover();
    let row = ended(&app, short).await;
    assert_eq!((row.status, row.epoch), (TaskStatus::Done, 1));

    // After 30 s the end is given up, and the task runs again.
    let long = spawn("long").spawn_stored().await.unwrap();
    services.desk.begun().await;
    store.fail("", StoreErrorKind::Unavailable);
    services.desk.go_on.add_permits(1);
    tokio::time::sleep(Duration::from_mins(1)).await;
    store.recover();
    services.desk.begun().await;
    services.desk.go_on.add_permits(1);
    let row = ended(&app, long).await;
    assert_eq!((row.status, row.epoch, row.failed_attempts), (TaskStatus::Done, 2, 0));
    assert_eq!(services.desk.lines(), ["short", "long", "long"]);
}
