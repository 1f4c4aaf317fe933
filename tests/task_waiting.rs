//! Waiting for tasks.

use std::{future::pending, time::Duration};

use agentflow::{
    AgentState, BackgroundTaskManager, NodeError, RunConfig, RunId, TaskContext,
    task::{
        OnDuplicateKey, SpawnError, TaskEvent, TaskEventStream, TaskFilter, TaskHandle, TaskInfo, TaskManagerOptions,
    },
};
use futures::FutureExt;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// Takes a second from its first poll on; `sleep` counts from its call.
async fn a_second() {
    sleep(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn promise_06_wait_for_all_drains_and_never_cancels() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(sleep(SECOND)).name("short").spawn().unwrap();
    let long = tasks.create_task(sleep(10 * SECOND)).name("long").spawn().unwrap();
    let began = Instant::now();
    let still = tasks.wait_for_all(Some(3 * SECOND)).await.unwrap_err();
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(still.still_running.len(), 1);
    assert_eq!(still.to_string(), "1 background task still runs: long #2 (for 3.0s)");
    // The wait did not affect the task.
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(began.elapsed(), 10 * SECOND);
    long.await.unwrap();
    assert_eq!(tasks.stats().outcomes.completed, 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_nothing_returns_at_once() {
    let tasks = BackgroundTaskManager::new();
    assert!(tasks.wait_for_all(None).now_or_never().unwrap().is_ok());
    assert!(tasks.wait_for_all(Some(Duration::ZERO)).now_or_never().unwrap().is_ok());
    tasks.create_task(pending::<()>()).spawn().unwrap();
    assert!(tasks.wait_for_all(Some(Duration::ZERO)).now_or_never().unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_wait_made_before_a_spawn_waits_for_it() {
    let tasks = BackgroundTaskManager::new();
    let wait = tasks.wait_for_all(None);
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    wait.await.unwrap();
    assert_eq!(tasks.task_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn tasks_spawned_meanwhile_are_waited_for() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        sleep(SECOND).await;
        task.manager().create_task(sleep(SECOND)).spawn().unwrap();
    };
    tasks.create_task_with_context(work).spawn().unwrap();
    let began = Instant::now();
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!((began.elapsed(), tasks.stats().outcomes.completed), (2 * SECOND, 2));
}

#[tokio::test(start_paused = true)]
async fn wait_for_all_inside_a_task_excludes_the_task_and_its_ancestors() {
    let tasks = BackgroundTaskManager::new();
    let manager = tasks.clone();
    let began = Instant::now();
    let parent = async move {
        let inner = manager.clone();
        let child = async move {
            inner.create_task(sleep(SECOND)).name("other").spawn().unwrap();
            inner.wait_for_all(None).await
        };
        // The parent waits for the child, and the child waits for all tasks.
        manager.create_task(child).spawn().unwrap().await
    };
    tasks.create_task(parent).timeout(60 * SECOND).spawn().unwrap().await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn work_outside_of_a_task_waits_through_the_tasks_manager() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        let manager = task.manager().clone();
        tokio::spawn(async move { manager.wait_for_all(Some(SECOND)).await }).await.unwrap()
    };
    tasks.create_task_with_context(work).spawn().unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_of_another_manager_is_not_excluded_from_a_wait() {
    let ours = BackgroundTaskManager::new();
    let others = BackgroundTaskManager::new();
    let manager = ours.clone();
    ours.create_task(sleep(SECOND)).spawn().unwrap();
    let began = Instant::now();
    // Both tasks are number 1 of their manager.
    let work = async move { manager.wait_for_all(None).await };
    others.create_task(work).spawn().unwrap().await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn concurrent_waits_are_independent() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    {
        let dropped = tasks.wait_for_all(None);
        futures::pin_mut!(dropped);
        assert!(dropped.now_or_never().is_none());
    }
    let (one, two) = tokio::join!(tasks.wait_for_all(None), tasks.wait_for_all(None));
    one.unwrap();
    two.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_created_before_the_wait_is_live_after_it() {
    let tasks = BackgroundTaskManager::new();
    for _ in 0..500 {
        let handle = tasks.create_task(tokio::task::yield_now()).spawn().unwrap();
        tasks.wait_for_all(None).await.unwrap();
        assert!(handle.is_finished());
    }
    assert_eq!(tasks.stats().outcomes.completed, 500);
}

#[tokio::test]
async fn a_blocking_task_that_waits_does_not_wait_for_itself() {
    let tasks = BackgroundTaskManager::new();
    let runtime = tokio::runtime::Handle::current();
    let manager = tasks.clone();
    let work = move |_| {
        manager.create_task(tokio::task::yield_now()).spawn().unwrap();
        runtime.block_on(manager.wait_for_all(None))
    };
    tasks.create_blocking_task(work).spawn().unwrap().await.unwrap();
    assert_eq!(tasks.stats().outcomes.completed, 2);
}

#[tokio::test(start_paused = true)]
async fn some_tasks_are_awaited_by_name_handle_id_and_key() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).name("poll").spawn().unwrap();
    let began = Instant::now();
    let after = |seconds| assert_eq!(began.elapsed(), seconds * SECOND);
    let spawn = |name, seconds| tasks.create_task(sleep(seconds * SECOND)).name(name).spawn().unwrap();
    let handles = [spawn("mail", 1), spawn("mail", 3), spawn("index", 4)];

    tasks.wait_for(&handles[0], None).await.unwrap();
    after(1);
    tasks.wait_for(handles[0].id(), None).await.unwrap();
    let late = tasks.wait_for("mail", Some(SECOND)).await.unwrap_err();
    assert_eq!(late.to_string(), "1 background task still runs: mail #3 (for 2.0s)");
    tasks.wait_for("mail".to_owned(), Some(60 * SECOND)).await.unwrap();
    after(3);
    let ids: Vec<_> = handles.iter().map(TaskHandle::id).collect();
    let late = tasks.wait_for(ids.clone(), Some(Duration::ZERO)).await.unwrap_err();
    assert_eq!(late.still_running.len(), 1);
    tasks.wait_for(ids, None).await.unwrap();
    after(4);

    for _ in 0..3 {
        let task = tasks.create_task(a_second()).name("sync");
        task.key("user-7", OnDuplicateKey::Queue).spawn().unwrap();
    }
    tasks.wait_for(TaskFilter::keyed("sync", "user-8"), None).now_or_never().unwrap().unwrap();
    tasks.wait_for(TaskFilter::keyed("sync", "user-7"), None).await.unwrap();
    after(7);
    // There is no such task.
    for nothing in [TaskFilter::named("upload"), RunId::new().into(), Vec::new().into()] {
        tasks.wait_for(nothing, None).now_or_never().unwrap().unwrap();
    }
    assert_eq!(tasks.task_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_name_includes_the_tasks_that_are_spawned_meanwhile() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        sleep(SECOND).await;
        task.manager().create_task(sleep(SECOND)).name("mail").spawn().map(drop)
    };
    tasks.create_task_with_context(work).name("mail").spawn().unwrap();
    let began = Instant::now();
    tasks.wait_for("mail", None).await.unwrap();
    assert_eq!((began.elapsed(), tasks.stats().outcomes.completed), (2 * SECOND, 2));
}

#[agentflow::node]
async fn mails(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    task_manager.create_task(sleep(SECOND)).name("mail").spawn()?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_tasks_of_a_run_are_awaited_without_those_of_others() {
    let app = agentflow::graph! { mails -> END };
    let tasks = app.task_manager();
    tasks.create_task(pending::<()>()).name("mail").spawn().unwrap();
    let run = RunId::new();
    app.invoke(AgentState::default(), RunConfig::new().with_run_id(run)).await.unwrap();
    let began = Instant::now();
    tasks.wait_for(run, None).await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_its_own_name_does_not_wait_for_itself() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(sleep(SECOND)).name("batch").spawn().unwrap();
    let work = |task: TaskContext| async move { task.manager().wait_for("batch", None).await };
    let began = Instant::now();
    tasks.create_task_with_context(work).name("batch").spawn().unwrap().await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_wait_within_a_task_leaves_out_what_is_queued_behind_its_key() {
    let tasks = BackgroundTaskManager::new();
    let parent = |task: TaskContext| async move {
        let manager = task.manager().clone();
        manager.create_task(a_second()).name("sync").key("k", OnDuplicateKey::Queue).spawn().unwrap();
        let child = |task: TaskContext| async move {
            let manager = task.manager();
            // One more behind the parent's key, one that has nothing to do with it, and one behind that one.
            manager.create_task(a_second()).name("sync").key("k", OnDuplicateKey::Queue).spawn()?;
            for _ in 0..2 {
                manager.create_task(a_second()).name("other").key("k", OnDuplicateKey::Queue).spawn()?;
            }
            let late = manager.wait_for_all(Some(SECOND / 2)).await.unwrap_err();
            assert_eq!(late.still_running.iter().map(TaskInfo::name).collect::<Vec<_>>(), ["other", "other"]);
            manager.wait_for_all(None).await.unwrap();
            manager.wait_for("sync", None).await.unwrap();
            Ok::<_, SpawnError>(manager.task_count())
        };
        manager.create_task_with_context(child).name("child").spawn().unwrap().await
    };
    let began = Instant::now();
    let parent = tasks.create_task_with_context(parent).name("sync").key("k", OnDuplicateKey::Queue).spawn().unwrap();
    let left = parent.await.map_err(|error| error.to_string());
    assert_eq!((left, began.elapsed()), (Ok(4), 2 * SECOND));
    // A caller outside of the tasks waits for those that were left out.
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!((began.elapsed(), tasks.stats().outcomes.completed), (4 * SECOND, 6));
}

#[tokio::test(start_paused = true)]
async fn a_close_within_a_task_leaves_what_is_queued_behind_its_key_to_run() {
    let tasks = BackgroundTaskManager::new();
    let sync = |task: TaskContext| async move {
        task.manager().create_task(a_second()).key("k", OnDuplicateKey::Queue).name("sync").spawn().unwrap();
        let report = task.manager().close(None).await;
        report.still_running.iter().map(|task| task.id().get()).collect::<Vec<_>>()
    };
    let sync = move |task: TaskContext| async move { Ok::<_, SpawnError>(sync(task).await) };
    let sync = tasks.create_task_with_context(sync).key("k", OnDuplicateKey::Queue).name("sync").spawn().unwrap();
    assert_eq!(sync.await.unwrap(), [1, 2]);
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(tasks.stats().outcomes.completed, 2);
}

/// Reads all events, and returns the number of the ends among them.
async fn count_ends(mut events: TaskEventStream) -> Result<usize, SpawnError> {
    let mut ends = 0;
    while let Some(event) = events.next().await {
        ends += usize::from(matches!(event, TaskEvent::Ended(_)));
    }
    Ok(ends)
}

#[tokio::test(start_paused = true)]
async fn tasks_that_watch_the_others_end_with_a_close() {
    let tasks = BackgroundTaskManager::new();
    let watchers = [(); 2].map(|()| tasks.create_task(count_ends(tasks.events())).name("watcher").spawn().unwrap());
    for seconds in 1..=3 {
        tasks.create_task(sleep(seconds * SECOND)).spawn().unwrap();
    }
    let began = Instant::now();
    let report = tasks.close(None).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((began.elapsed(), report.outcomes.completed), (3 * SECOND, 5));
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), 3, "each end was seen");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_watches_the_others_and_closes_the_manager_ends() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(count_ends(tasks.events())).spawn().unwrap();
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    let closes = |task: TaskContext| async move {
        let events = task.manager().events();
        tokio::join!(count_ends(events), task.manager().close(None)).0
    };
    let seen = tasks.create_task_with_context(closes).spawn().unwrap();
    assert_eq!(seen.await.unwrap(), 1, "the other watcher ends after its own stream has");
}

#[tokio::test(start_paused = true)]
async fn a_wait_leaves_out_the_tasks_that_watch_the_others() {
    let tasks = BackgroundTaskManager::new();
    let watcher = tasks.create_task(count_ends(tasks.events())).name("watcher").spawn().unwrap();
    tasks.create_task(sleep(SECOND)).spawn().unwrap();
    let began = Instant::now();
    tasks.wait_for_all(None).await.unwrap();
    tasks.wait_for("watcher", None).await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
    // The manager is open, so there will be more events.
    assert!(!watcher.is_finished());
    tasks.create_task(async {}).spawn().unwrap();
    tasks.close(None).await;
    assert_eq!(watcher.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_something_else_is_waited_for() {
    let tasks = BackgroundTaskManager::new();
    let other = BackgroundTaskManager::new();
    let mut events = tasks.events();
    let watcher = async move {
        // The stream was found waiting, and then given up.
        while tokio::time::timeout(SECOND, events.next()).await.is_ok() {}
        sleep(2 * SECOND).await;
    };
    let began = Instant::now();
    tasks.create_task(watcher).spawn().unwrap();
    sleep(2 * SECOND).await;
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(began.elapsed(), 3 * SECOND);

    // The events of another manager come whatever happens to the tasks of this one.
    tasks.create_task(count_ends(other.events())).spawn().unwrap();
    assert!(tasks.wait_for_all(Some(SECOND)).await.is_err());
    other.close(None).await;
    tasks.wait_for_all(None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_app_with_a_task_that_watches_the_others_shuts_down() {
    let app = agentflow::graph! { mails -> END; compile { shutdown_timeout: 60s } };
    let watcher = app.task_manager().create_task(count_ends(app.task_manager().events())).spawn().unwrap();
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let began = Instant::now();
    let report = app.aclose().await;
    assert!(report.tasks.is_clean(), "{report}");
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(watcher.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_spawn_that_needs_no_free_slot_does_not_stand_in_line_for_one() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1));
    let first = tasks.create_task(pending::<()>()).key("k", OnDuplicateKey::Replace).spawn().unwrap();
    let mut in_line = Box::pin(tasks.create_task(async {}).name("in line").spawn_wait());
    assert!(in_line.as_mut().now_or_never().is_none());
    let mut behind = Box::pin(tasks.create_task(async {}).name("behind").spawn_wait());
    assert!(behind.as_mut().now_or_never().is_none());

    let named = |on_duplicate| tasks.create_task(pending::<()>()).name("pending").key("k", on_duplicate);
    let skipped = named(OnDuplicateKey::Skip).spawn_wait().now_or_never();
    assert!(skipped.is_none(), "it is of another name");
    drop(first);
    let same = |on_duplicate| {
        let task = tasks.create_task(pending::<()>()).name(tasks.task_info()[0].name().to_owned());
        task.key("k", on_duplicate)
    };
    let skipped = same(OnDuplicateKey::Skip).spawn_wait().now_or_never().unwrap();
    assert_eq!(skipped.map(drop), Err(SpawnError::DuplicateKey));
    let second = same(OnDuplicateKey::Replace).spawn_wait().now_or_never().unwrap().unwrap();
    // Those in the line still get their slots in turn.
    second.cancel();
    in_line.await.unwrap().await.unwrap();
    behind.await.unwrap().await.unwrap();
    assert_eq!((tasks.stats().spawned, tasks.stats().outcomes.cancelled), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_spawn_in_a_closed_manager_does_not_stand_in_line() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1));
    tasks.create_task(pending::<()>()).spawn().unwrap();
    let mut in_line = Box::pin(tasks.create_task(async {}).spawn_wait());
    assert!(in_line.as_mut().now_or_never().is_none());
    let (report, ()) = tokio::join!(tasks.close(Some(SECOND)), async {
        let refused = tasks.create_task(async {}).spawn_wait().now_or_never().unwrap();
        assert_eq!(refused.map(drop), Err(SpawnError::Closed));
        assert_eq!(in_line.await.map(drop), Err(SpawnError::Closed));
    });
    assert_eq!(report.outcomes.cancelled, 1);
}
