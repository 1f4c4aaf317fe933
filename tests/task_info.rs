//! Information about live and finished tasks.

use std::{future::pending, time::Duration};

use agentflow::{
    BackgroundTaskManager, CancellationToken, TaskContext,
    task::{OnDuplicateKey, SpawnError, TaskHandle, TaskInfo, TaskOutcome, TaskState},
};
use serde_json::json;
use tokio::time::sleep;

use crate::support::settle;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn info_contains_all_settings_of_a_task_and_its_age() {
    let tasks = BackgroundTaskManager::new();
    let builder = tasks.create_task(pending::<()>()).name("upload").timeout(10 * SECOND);
    let _handle = builder.context("user", "ada").context("bytes", 7).context("user", "bob").spawn().unwrap();
    sleep(4 * SECOND).await;
    let info = tasks.task_info().remove(0);
    assert_eq!((info.id().get(), info.name(), info.age()), (1, "upload", 4 * SECOND));
    assert_eq!((info.timeout(), info.remaining()), (Some(10 * SECOND), Some(6 * SECOND)));
    let context: Vec<_> = info.context().collect();
    assert_eq!(context, [("user", &json!("bob")), ("bytes", &json!(7))]);
    assert_eq!((info.origin(), info.state()), (None, TaskState::Running));
    assert_eq!(info.to_string(), r#"upload #1 (for 4.0s) {"user":"bob","bytes":7}"#);
}

#[tokio::test(start_paused = true)]
async fn info_is_a_snapshot_oldest_first() {
    let tasks = BackgroundTaskManager::new();
    for name in ["a", "b", "c"] {
        tasks.create_task(pending::<()>()).name(name).spawn().unwrap();
    }
    let quick = tasks.create_task(async {}).spawn().unwrap();
    quick.await.unwrap();
    // The slab entry of the quick task is reused.
    tasks.create_task(pending::<()>()).name("d").spawn().unwrap();
    let before = tasks.task_info();
    tasks.cancel_all().await;
    let names: Vec<_> = before.iter().map(TaskInfo::name).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!(before[3].id().get(), 5, "ids are not used again");
}

#[tokio::test(start_paused = true)]
async fn a_finished_task_reports_its_outcome() {
    let tasks = BackgroundTaskManager::new();
    let work = async {
        sleep(2 * SECOND).await;
        Err::<(), _>("no route")
    };
    let builder = tasks.create_task(work).name("send").timeout(5 * SECOND).context("user", "ada");
    builder.spawn().unwrap().await.unwrap_err();
    let end = tasks.recently_finished().remove(0);
    assert_eq!((end.id().get(), end.name(), end.age()), (1, "send", 2 * SECOND));
    assert_eq!((end.outcome(), end.error()), (TaskOutcome::Failed, Some("no route")));
    assert_eq!(end.timeout(), Some(5 * SECOND));
    assert_eq!(end.context().collect::<Vec<_>>(), [("user", &json!("ada"))]);
    assert_eq!(end.to_string(), r#"send #1 (failed after 2.0s) {"user":"ada"}"#);
}

#[tokio::test(start_paused = true)]
async fn a_live_and_a_finished_task_report_their_key() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async {}).key("user-7", OnDuplicateKey::Skip).spawn().unwrap();
    assert_eq!(tasks.task_info()[0].key(), Some("user-7"));
    tasks.wait_for_all(None).await.unwrap();
    tasks.create_task(async {}).spawn().unwrap().await.unwrap();
    let ends = tasks.recently_finished();
    assert_eq!((ends[0].key(), ends[1].key()), (Some("user-7"), None));
    assert!(format!("{:?}", ends[0]).contains(r#"key: Some("user-7")"#), "{:?}", ends[0]);
}

#[tokio::test(start_paused = true)]
async fn stats_read_like_a_sentence() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async {}).spawn().unwrap();
    tasks.create_task(async { panic!("boom") }).spawn().unwrap();
    tasks.create_task(pending::<()>()).timeout(Duration::ZERO).spawn().unwrap();
    tasks.create_task(pending::<()>()).spawn().unwrap();
    settle().await;
    let line = "4 spawned: 1 active, 1 completed, 1 panicked, 1 timed out";
    assert_eq!(tasks.stats().to_string(), line);
}

#[tokio::test(start_paused = true)]
async fn stats_mention_retries_and_refused_spawns_only_if_there_were_any() {
    let tasks = BackgroundTaskManager::new();
    let second = |attempt| async move { if attempt < 2 { Err("busy") } else { Ok(()) } };
    tasks.create_retrying_task(second).retry(3).spawn().unwrap().await.unwrap();
    assert_eq!(tasks.stats().to_string(), "1 spawned: 0 active, 1 completed; 1 retry");
    tasks.create_retrying_task(|_| async { Err::<(), _>("gone") }).retry(2).spawn().unwrap().await.unwrap_err();
    tasks.close(None).await;
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Closed);
    let line = "2 spawned: 0 active, 1 completed, 1 failed; 3 retries; 1 rejected";
    assert_eq!(tasks.stats().to_string(), line);
}

#[tokio::test(start_paused = true)]
async fn the_context_of_a_task_has_the_id_of_its_info() {
    let tasks = BackgroundTaskManager::new();
    let work = |task: TaskContext| async move {
        let mine = task.manager().task_info().remove(0);
        assert_eq!((mine.id(), mine.name()), (task.id(), "me"));
    };
    tasks.create_task_with_context(work).name("me").spawn().unwrap().await.unwrap();
}

#[test]
fn public_types_are_send_and_sync() {
    fn shared<T: Send + Sync + std::fmt::Debug>() {}
    shared::<BackgroundTaskManager>();
    shared::<TaskContext>();
    shared::<TaskHandle<Vec<u8>>>();
    shared::<TaskInfo>();
    shared::<CancellationToken>();
    assert!(format!("{:?}", BackgroundTaskManager::default()).contains("Open"));
}
