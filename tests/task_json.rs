//! The JSON of tasks: the names of the fields, and ids as texts. Dashboards depend on them.

use std::{future::pending, time::Duration};

use agentflow::{
    AgentState, BackgroundTaskManager, NodeError, RetryPolicy, RunConfig, RunId, TaskContext, graph, node,
    task::{OnDuplicateKey, TaskEvent, TaskId, TaskManagerOptions, TimeoutKind},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::settle;

const SECOND: Duration = Duration::from_secs(1);

fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn an_id_is_parsed_from_its_text() {
    for text in ["17", "#17"] {
        assert_eq!(text.parse(), Ok(TaskId::from(17)));
    }
    assert_eq!(TaskId::from(u64::MAX).to_string().parse(), Ok(TaskId::from(u64::MAX)));
    for text in ["", "#", "##1", "+1", "-1", "1.0", " 1", "18446744073709551616", "upload"] {
        let error = text.parse::<TaskId>().unwrap_err().to_string();
        assert_eq!(error, format!("`{text}` is not a task id: it must be a number, such as `17` or `#17`"));
    }
    assert_eq!(serde_json::from_value::<TaskId>(to_json(&TaskId::from(17))).unwrap(), TaskId::from(17));
}

#[tokio::test(start_paused = true)]
async fn a_parsed_id_cancels_its_task() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).spawn().unwrap();
    assert!(!tasks.cancel("#2".parse().unwrap()));
    assert!(tasks.cancel("#1".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_live_task_has_all_its_fields() {
    #[node]
    async fn upload(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        let work = |task: TaskContext| async move {
            task.progress(0.5, "sending");
            pending::<()>().await;
        };
        let task = task_manager.create_task_with_context(work).name("s3").timeout(10 * SECOND);
        task.context("user", "ada").context("bytes", 7).key("k", OnDuplicateKey::Queue).spawn()?;
        Ok(())
    }
    let run = RunId::new();
    let app = graph! { upload -> END };
    app.invoke(AgentState::default(), RunConfig::new().with_run_id(run)).await.unwrap();
    sleep(4 * SECOND).await;
    let expected = json!({
        "id": 1, "name": "s3", "state": "running", "attempt": 1, "age": 4.0, "timeout": 10.0, "remaining": 6.0,
        "progress": { "fraction": 0.5, "message": "sending" }, "key": "k",
        "origin": { "run": run, "node": "upload" }, "context": { "user": "ada", "bytes": 7 },
    });
    assert_eq!(to_json(&app.task_manager().task_info()), json!([expected]));
}

#[tokio::test(start_paused = true)]
async fn what_is_absent_is_null() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    tasks.create_task(pending::<()>()).name("first").spawn().unwrap();
    tasks.create_task(pending::<()>()).name("second").spawn().unwrap();
    settle().await;
    let expected = json!({
        "id": 2, "name": "second", "state": "queued", "attempt": 0, "age": 0.0, "timeout": null, "remaining": null,
        "progress": null, "key": null, "origin": null, "context": {},
    });
    assert_eq!(to_json(&tasks.task_info())[1], expected);
}

#[tokio::test(start_paused = true)]
async fn a_finished_task_and_the_counters_have_all_their_fields() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async { Err::<(), _>("no route") }).name("send").context("user", "ada").spawn().unwrap();
    tasks.create_task(pending::<()>()).name("wait").timeout(2 * SECOND).spawn().unwrap();
    tasks.wait_for_all(None).await.unwrap();
    let failed = json!({
        "id": 1, "name": "send", "outcome": "failed", "error": "no route", "limit": null, "attempts": 1, "age": 0.0,
        "progress": null, "timeout": null, "key": null, "origin": null, "context": { "user": "ada" },
    });
    let timed_out = json!({
        "id": 2, "name": "wait", "outcome": "timed_out", "error": null, "limit": "total", "attempts": 1, "age": 2.0,
        "progress": null, "timeout": 2.0, "key": null, "origin": null, "context": {},
    });
    assert_eq!(to_json(&tasks.recently_finished()), json!([failed, timed_out]));
    let outcomes = json!({
        "completed": 0, "failed": 1, "panicked": 0, "timed_out": 1, "cancelled": 0, "aborted": 0, "evicted": 0,
    });
    let stats = json!({
        "spawned": 2, "active": 0, "queued": 0, "delayed": 0, "outcomes": outcomes, "retries": 0, "rejected": 0,
    });
    assert_eq!(to_json(&tasks.stats()), stats);
}

#[tokio::test(start_paused = true)]
async fn the_words_are_those_of_logs_and_metrics() {
    let tasks = BackgroundTaskManager::new();
    tasks.create_task(async { panic!("boom") }).spawn().unwrap();
    tasks.create_task(pending::<()>()).spawn().unwrap();
    tasks.create_task(pending::<()>()).queue_timeout(SECOND).idle_timeout(SECOND).spawn().unwrap();
    sleep(2 * SECOND).await;
    tasks.cancel_all().await;
    for end in tasks.recently_finished() {
        assert_eq!(to_json(&end.outcome()), end.outcome().as_str());
        assert_eq!(to_json(&end.limit()), json!(end.limit().map(TimeoutKind::as_str)));
    }
}

#[tokio::test(start_paused = true)]
async fn reports_have_all_their_fields() {
    #[node]
    async fn stuck(_state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
        task_manager.create_task(pending::<()>()).name("stuck").spawn()?;
        pending::<()>().await;
        Ok(())
    }
    let run = RunId::new();
    let app = graph! { stuck -> END; compile { shutdown_timeout: 5s } };
    let running = tokio::spawn({
        let app = app.clone();
        async move { app.invoke(AgentState::default(), RunConfig::new().with_run_id(run)).await.is_err() }
    });
    settle().await;
    let report = app.aclose().await;
    assert!(running.await.unwrap());
    let unfinished: Vec<_> = report.tasks.unfinished.iter().map(to_json).collect();
    assert_eq!((unfinished.len(), &unfinished[0]["name"]), (1, &json!("stuck")));
    let expected = json!({
        "elapsed": 5.0,
        "runs": { "ended": 0, "unfinished": [run], "kept": [], "still_running": [] },
        "tasks": {
            "elapsed": 5.0, "unfinished": unfinished, "still_running": [], "outcomes": report.tasks.outcomes,
        },
        "nested": [],
        "kept_tasks": [],
    });
    assert_eq!(to_json(&report), expected);

    let tasks = BackgroundTaskManager::new();
    tasks.create_task(pending::<()>()).spawn().unwrap();
    let report = to_json(&tasks.cancel_all().await);
    assert_eq!((&report["ended"][0]["outcome"], &report["still_running"]), (&json!("cancelled"), &json!([])));
}

#[tokio::test(start_paused = true)]
async fn an_event_has_a_type_and_a_task() {
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().event_buffer(5));
    let mut events = tasks.events();
    let work = |attempt| async move {
        TaskContext::current().unwrap().progress(1.0, "");
        if attempt == 1 { Err("busy") } else { Ok(()) }
    };
    let retry = RetryPolicy::new(1).backoff(SECOND);
    tasks.create_retrying_task(work).retry(retry).name("send").spawn().unwrap().await.unwrap();
    tasks.close(None).await;
    let mut found = Vec::new();
    while let Some(event) = events.next().await {
        let json = to_json(&event);
        let mut fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        found.push(format!("{} {}", json["type"].as_str().unwrap(), fields.join(" ")));
        match event {
            TaskEvent::AttemptFailed { task, .. } => {
                let expected = json!({
                    "type": "attempt_failed", "task": task, "attempt": 1, "error": "busy", "retry_in": 1.0,
                });
                assert_eq!(json, expected);
            }
            TaskEvent::Ended(task) => assert_eq!(json, json!({ "type": "ended", "task": task })),
            TaskEvent::Missed(count) => assert_eq!(json, json!({ "type": "missed", "count": count })),
            _ => assert_eq!(json["task"]["name"], "send"),
        }
    }
    let expected = [
        "missed count type",
        "started task type",
        "progress task type",
        "attempt_failed attempt error retry_in task type",
        "progress task type",
        "ended task type",
    ];
    assert_eq!(found, expected);
}
