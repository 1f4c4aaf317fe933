//! The history of finished tasks: bounded per name and in total, with failures kept longest.

use std::future::pending;

use agentflow::{
    BackgroundTaskManager, TaskContext,
    task::{FinishedTask, TaskManagerOptions, TaskOutcome},
};

async fn end(tasks: &BackgroundTaskManager, name: impl Into<std::borrow::Cow<'static, str>>, succeeds: bool) {
    let work = async move { if succeeds { Ok(()) } else { Err("no route") } };
    _ = tasks.create_task(work).name(name).spawn().unwrap().await;
}

fn with_history(tasks: usize) -> BackgroundTaskManager {
    BackgroundTaskManager::with_options(TaskManagerOptions::new().history(tasks))
}

fn ids(tasks: &BackgroundTaskManager) -> Vec<u64> {
    tasks.recently_finished().iter().map(|end| end.id().get()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_ends_of_one_name_do_not_push_out_those_of_another() {
    let tasks = BackgroundTaskManager::new();
    end(&tasks, "import", false).await;
    end(&tasks, "export", true).await;
    for _ in 0..1_000 {
        end(&tasks, "mail", true).await;
    }
    let ends = tasks.recently_finished();
    assert_eq!(ends.len(), 2 + 256);
    assert_eq!((ends[0].name(), ends[0].outcome()), ("import", TaskOutcome::Failed));
    assert_eq!((ends[1].name(), ends[1].outcome()), ("export", TaskOutcome::Completed));
}

#[tokio::test(start_paused = true)]
async fn the_successes_of_a_name_are_forgotten_before_its_failures() {
    let tasks = with_history(3);
    for succeeds in [true, false, true, true, true] {
        end(&tasks, "import", succeeds).await;
    }
    assert_eq!(ids(&tasks), [2, 4, 5]);
    for _ in 0..3 {
        end(&tasks, "import", false).await;
    }
    assert_eq!(ids(&tasks), [6, 7, 8], "the oldest of failures alone");
}

#[tokio::test(start_paused = true)]
async fn every_other_outcome_than_completed_is_a_failure() {
    let tasks = with_history(2);
    tasks.create_task(pending::<()>()).name("import").spawn().unwrap().cancel();
    tasks.wait_for_all(None).await.unwrap();
    for _ in 0..5 {
        end(&tasks, "import", true).await;
    }
    assert_eq!(ids(&tasks), [1, 6]);
}

#[tokio::test(start_paused = true)]
async fn the_newest_end_is_in_a_history_of_failures() {
    let tasks = with_history(3);
    for succeeds in [false, false, false, true, true] {
        end(&tasks, "import", succeeds).await;
    }
    assert_eq!(ids(&tasks), [2, 3, 5]);
}

#[tokio::test(start_paused = true)]
async fn the_history_of_all_names_is_bounded_too() {
    let tasks = with_history(2);
    end(&tasks, "import", false).await;
    for number in 0..100 {
        end(&tasks, format!("mail {number}"), true).await;
    }
    let ends = tasks.recently_finished();
    let names: Vec<_> = ends.iter().map(FinishedTask::name).collect();
    assert_eq!((ends.len(), names[0], names[1], names[31]), (32, "import", "mail 69", "mail 99"));

    // Among failures alone the oldest goes.
    for number in 0..40 {
        end(&tasks, format!("import {number}"), false).await;
    }
    assert_eq!(tasks.recently_finished()[0].name(), "import 8");
    end(&tasks, "mail", true).await;
    let ends = tasks.recently_finished();
    assert_eq!((ends.len(), ends[0].name(), ends[31].name()), (32, "import 9", "mail"));
    // A name that was forgotten begins anew.
    end(&tasks, "import", false).await;
    end(&tasks, "import", false).await;
    end(&tasks, "import", false).await;
    assert_eq!(tasks.recently_finished().iter().filter(|end| end.name() == "import").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_finished_task_has_its_last_progress() {
    let tasks = BackgroundTaskManager::new();
    let import = |task: TaskContext| async move {
        task.progress(0.2, "reading");
        task.progress(0.4, "row 4");
        Err::<(), _>("row 5 is no row")
    };
    tasks.create_task_with_context(import).spawn().unwrap().await.unwrap_err();
    let end = tasks.recently_finished().remove(0);
    assert_eq!(end.progress().unwrap().to_string(), "40 % row 4");

    let attempts = |attempt| async move {
        if attempt == 1 {
            TaskContext::current().unwrap().progress(0.9, "first attempt");
        }
        Err::<(), _>("busy")
    };
    tasks.create_retrying_task(attempts).retry(1).spawn().unwrap().await.unwrap_err();
    assert!(tasks.recently_finished()[1].progress().is_none(), "the progress is that of the last attempt");
}
