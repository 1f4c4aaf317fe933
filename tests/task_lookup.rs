//! Finding tasks by id, by name, by run and by key.

use std::{future::pending, time::Duration};

use agentflow::{
    AgentState, BackgroundTaskManager, NodeError, RunConfig, RunId, TaskContext, graph, node,
    task::{FinishedTask, SpawnError, TaskId, TaskInfo, TaskOutcome},
};
use futures::future::BoxFuture;
use tokio::{sync::oneshot, time::sleep};

use crate::support::settle;

fn ids(tasks: &[TaskInfo]) -> Vec<TaskId> {
    tasks.iter().map(TaskInfo::id).collect()
}

fn spawn(tasks: &BackgroundTaskManager, name: &'static str) -> TaskId {
    tasks.create_task(pending::<()>()).name(name).spawn().unwrap().id()
}

#[tokio::test(start_paused = true)]
async fn each_of_many_tasks_is_found_by_its_id() {
    let tasks = BackgroundTaskManager::new();
    let mut spawned: Vec<_> = (0..1_000).map(|_| spawn(&tasks, "poll")).collect();
    // From both ends and from the middle, so that the tasks that are left lie apart.
    for step in 0..1_000 {
        let id = spawned.remove([0, spawned.len() / 2, spawned.len() - 1][step % 3]);
        assert!(tasks.cancel(id));
        settle().await;
        assert!(!tasks.cancel(id), "{id} has ended");
        if step % 50 == 0 {
            assert_eq!(ids(&tasks.task_info()), spawned);
            spawned.push(spawn(&tasks, "poll"));
        }
    }
    assert_eq!(tasks.stats().outcomes.cancelled, 1_000);
    assert_eq!(ids(&tasks.task_info()), spawned);
}

#[tokio::test(start_paused = true)]
async fn tasks_are_found_by_name_whenever_they_were_spawned() {
    let tasks = BackgroundTaskManager::new();
    assert_eq!(tasks.cancel_named("mail"), 0, "there is none yet");
    let uploads = [spawn(&tasks, "upload"), spawn(&tasks, "upload")];
    for round in 0..3 {
        let names = ["mail", "mail", "index"];
        for name in names {
            spawn(&tasks, name);
        }
        tasks.create_task(pending::<()>()).name("mail".to_owned()).spawn().unwrap();
        assert_eq!(tasks.cancel_named("mail"), 3, "round {round}");
        settle().await;
        assert_eq!(tasks.cancel_named("mail"), 0, "they have ended");
        assert_eq!(tasks.cancel_named("index"), 1, "round {round}");
        settle().await;
    }
    assert_eq!(ids(&tasks.task_info()), uploads);
}

#[node]
async fn spawns(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    for _ in 0..3 {
        let parent = |task: TaskContext| async move {
            task.manager().create_task(pending::<()>()).name("child").spawn()?;
            pending::<Result<(), SpawnError>>().await
        };
        task_manager.create_task_with_context(parent).name("parent").spawn()?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_tasks_of_many_runs_are_found_by_their_run() {
    let app = graph! { spawns -> END };
    let tasks = app.task_manager();
    spawn(tasks, "of no run");
    let runs: Vec<_> = (0..50).map(|_| RunId::new()).collect();
    for run in &runs {
        app.invoke(AgentState::default(), RunConfig::new().with_run_id(*run)).await.unwrap();
    }
    settle().await;
    for run in &runs {
        let of_run = tasks.tasks_of_run(*run);
        assert_eq!(of_run.len(), 6, "with the children");
        assert!(of_run.iter().all(|task| task.origin().unwrap().run() == *run));
        assert!(of_run.is_sorted_by_key(TaskInfo::id));
    }
    for (left, run) in runs.iter().enumerate().rev() {
        assert_eq!(tasks.cancel_tasks_of_run(*run), 6);
        // The grace period of the parents.
        sleep(Duration::from_secs(2)).await;
        assert_eq!(tasks.tasks_of_run(*run).len(), 0);
        assert_eq!(tasks.task_count(), 6 * left + 1);
    }
    assert_eq!(tasks.cancel_tasks_of_run(RunId::new()), 0);
    assert_eq!(tasks.task_info()[0].name(), "of no run");
}

/// A task that awaits its child, which awaits its own, and so on; the last one waits for `go`.
fn nest(
    task: TaskContext,
    depth: usize,
    go: oneshot::Receiver<BackgroundTaskManager>,
) -> BoxFuture<'static, anyhow::Result<usize>> {
    Box::pin(async move {
        if depth > 0 {
            let child = move |task| nest(task, depth - 1, go);
            return Ok(1 + task.manager().create_task_with_context(child).spawn()?.await?);
        }
        let manager = go.await?;
        // All others are its ancestors.
        manager.wait_for_all(None).await?;
        let report = manager.cancel_all().await;
        assert_eq!(report.ended.len(), 0);
        Ok(1)
    })
}

#[tokio::test(start_paused = true)]
async fn six_thousand_nested_tasks_are_all_ancestors_of_the_last_one() {
    let tasks = BackgroundTaskManager::new();
    let (go, going) = oneshot::channel();
    let outermost = tasks.create_task_with_context(move |task| nest(task, 6_000, going)).spawn().unwrap();
    while tasks.task_count() < 6_001 {
        tokio::task::yield_now().await;
    }
    go.send(tasks.clone()).unwrap();
    assert_eq!(outermost.await.unwrap(), 6_001);
    assert_eq!(tasks.stats().outcomes.completed, 6_001);
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_nested_tasks_ends_in_any_order() {
    for cancelled in [|depth: u64| depth, |depth| 3_000 - depth, |depth| (depth * 1_117) % 3_001] {
        let tasks = BackgroundTaskManager::new();
        let (_go, going) = oneshot::channel();
        tasks.create_task_with_context(move |task| nest(task, 3_000, going)).spawn().unwrap();
        while tasks.task_count() < 3_001 {
            tokio::task::yield_now().await;
        }
        let all = ids(&tasks.task_info());
        for depth in 0..=3_000 {
            tasks.cancel(all[usize::try_from(cancelled(depth)).unwrap()]);
        }
        tasks.wait_for_all(None).await.unwrap();
        let is_over = |end: &FinishedTask| matches!(end.outcome(), TaskOutcome::Aborted | TaskOutcome::Failed);
        assert!(tasks.recently_finished().iter().all(is_over), "{:?}", tasks.stats());
    }
}
