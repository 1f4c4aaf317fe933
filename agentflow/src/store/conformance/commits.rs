//! Checks of commits and progress.

use std::time::Duration;

use super::{
    super::{
        CheckpointId, Commit, NewQuestion, NewValues, ProgressRecord, QuestionId, QuestionStatus, Rest, RunEnd,
        RunStatus, Source, StoredTaskFilter, TaskStatus,
    },
    check::list_checks,
    harness::{Checked, Harness, Live, bytes, checkpoint, ensure, fenced, json, same, task, thread_id, value},
};
use crate::run_id::RunId;

list_checks![
    a_commit_writes_all_of_a_step,
    a_repeated_commit_changes_nothing,
    a_commit_of_a_former_epoch_is_fenced,
    a_commit_that_follows_another_checkpoint_is_refused,
    a_refused_commit_writes_nothing,
    a_late_commit_does_not_make_a_deleted_thread_anew,
    a_commit_can_delete_the_thread,
    progress_is_replaced_by_step_and_path,
    progress_is_cleared_by_its_step,
    progress_of_a_former_epoch_is_fenced,
];

async fn a_commit_writes_all_of_a_step(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let before = live.last;
    let spawned = task("mail");
    let asked = NewQuestion::new(QuestionId::new(), "ask".into(), "1".into(), json("[1]"));
    let mut commit = live.commit_of(r#"{"set":{"n":7}}"#);
    if let Some(checkpoint) = &mut commit.checkpoint {
        checkpoint.writes = Some(bytes(r#"{"node":{"n":7}}"#));
        (checkpoint.state_version, checkpoint.graph_hash) = (3, u64::MAX);
    }
    commit.tasks = vec![spawned.clone()];
    commit.questions = vec![asked.clone()];
    commit.progress = vec![ProgressRecord::new("2".into(), "b".into(), json("{}"))];
    (commit.steps, commit.consumed) = (4, Duration::from_millis(1_500));
    commit.end = Some(RunEnd::new(RunStatus::Waiting, Rest::Paused));
    let committed = h.a.commit(&mut live, commit).await?;
    ensure(committed.checkpoint > before, "the id of a checkpoint is not greater than that of its parent")?;

    let head = h.b.store.load(&live.thread, None).await?.ok_or("the head is not there")?;
    same("the head", Some(head.id), committed.checkpoint)?;
    same("its parent, step and run", (head.parent, head.step, head.run), (before, 0, Some(live.id)))?;
    same("its state", value(&head.values)?, serde_json::json!({"n": 7}))?;
    same("its position", value(&head.position)?, serde_json::json!({"at": "node"}))?;
    same("its version and hash", (head.state_version, head.graph_hash), (3, u64::MAX))?;
    same("its source", head.source, Source::Loop)?;
    same("its next nodes", head.next.iter().map(|name| &**name).collect::<Vec<_>>(), vec!["node"])?;
    ensure(head.writes.is_some(), "the writes of the step are not there")?;

    let row = h.b.row(live.id).await?;
    same("its commit, steps and time", (row.commit, row.steps, row.consumed), (1, 4, Duration::from_millis(1_500)))?;
    same("its status", row.status, RunStatus::Waiting)?;
    let stored = h.b.task(spawned.id).await?;
    same("the task", (stored.status, &*stored.task.name), (TaskStatus::Pending, "mail"))?;
    let questions = h.b.store.questions(&live.thread, Some(QuestionStatus::Open)).await?;
    same("the questions", questions.iter().map(|row| row.asked.id).collect(), vec![asked.id])?;
    same("the question", value(&questions[0].asked.question)?, serde_json::json!([1]))?;
    same("the asker and the head", (questions[0].asked_by, questions[0].checkpoint), (live.id, Some(head.id)))?;
    same("the number of progress records", h.b.store.progress(&live.thread).await?.len(), 1)
}

async fn a_repeated_commit_changes_nothing(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let mut commit = live.commit_of(r#"{"set":{"n":1}}"#);
    commit.tasks = vec![task("mail")];
    let first = h.a.commit(&mut live, commit.clone()).await?;
    let mut last = live.commit_of(r#"{"set":{"n":2}}"#);
    last.end = Some(RunEnd::new(RunStatus::Done, Rest::Idle));
    for repeated in [&commit, &last, &last, &commit] {
        let before = h.b.history("t").await?.len();
        let tasks = h.b.store.tasks(StoredTaskFilter::default()).await?.len();
        let is_new = repeated.number == 2 && h.b.status(live.id).await? == RunStatus::Running;
        let committed = h.a.store.commit(repeated.clone()).await?;
        let row = h.b.row(live.id).await?;
        same("the checkpoint of a repeated commit", committed.checkpoint, row.last_checkpoint)?;
        same("the number of checkpoints", h.b.history("t").await?.len(), before + usize::from(is_new))?;
        same("the number of tasks", h.b.store.tasks(StoredTaskFilter::default()).await?.len(), tasks)?;
    }
    ensure(h.b.head("t").await? > first.checkpoint, "the last commit is not there")?;
    same("its status", h.b.status(live.id).await?, RunStatus::Done)
}

async fn a_commit_of_a_former_epoch_is_fenced(h: &mut Harness<'_>) -> Checked {
    let mut former = h.a.begin("t").await?;
    h.a.step(&mut former, 1).await?;
    h.die().await?;
    let taken = h.b.take_over().await?;
    let mut live = Live::taken(taken.first().ok_or("the run of a dead owner was not taken over")?);
    fenced("the next commit of the former owner", h.a.store.commit(former.commit_of("{}")).await)?;
    same("the head", h.b.head("t").await?, former.last)?;
    let made = h.b.step(&mut live, 2).await?;
    // The new owner has used the number already; the commit of the former one is no repetition of it.
    fenced("a commit with a number in use", h.a.store.commit(former.commit_of("{}")).await)?;
    let mut end = former.commit();
    end.end = Some(RunEnd::new(RunStatus::Failed, Rest::Failed));
    fenced("an end by the former owner", h.a.store.commit(end).await)?;
    same("the head", h.b.head("t").await?, Some(made))?;
    same("its status", h.b.status(live.id).await?, RunStatus::Running)?;
    let released = h.a.store.release_run(former.id, former.epoch, Duration::ZERO).await;
    fenced("a release by the former owner", released)?;
    let mut future = live.commit();
    future.epoch += 1;
    fenced("a commit of an epoch to come", h.a.store.commit(future).await)
}

async fn a_commit_that_follows_another_checkpoint_is_refused(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let first = live.last;
    let head = h.a.step(&mut live, 1).await?;
    for parent in [first, None, Some(CheckpointId::new())] {
        let mut commit = live.commit_of("{}");
        commit.parent = parent;
        ensure(h.a.store.commit(commit).await.is_err(), format_args!("a commit after {parent:?} was accepted"))?;
    }
    same("the head", h.a.head("t").await?, Some(head))
}

async fn a_refused_commit_writes_nothing(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let head = h.a.step(&mut live, 1).await?;
    let mut commit = live.commit();
    commit.parent = Some(CheckpointId::new());
    commit.checkpoint = Some(checkpoint(Source::Loop, NewValues::Same));
    commit.tasks = vec![task("mail")];
    commit.questions = vec![NewQuestion::new(QuestionId::new(), "ask".into(), "1".into(), json("1"))];
    commit.progress = vec![ProgressRecord::new("1".into(), "b".into(), json("1"))];
    commit.end = Some(RunEnd::new(RunStatus::Done, Rest::Idle));
    let mut foreign = commit.clone();
    foreign.parent = live.last;
    foreign.epoch += 7;
    for commit in [commit, foreign] {
        ensure(h.a.store.commit(commit).await.is_err(), "a wrong commit was accepted")?;
        same("the head", h.b.head("t").await?, Some(head))?;
        same("its status", h.b.status(live.id).await?, RunStatus::Running)?;
        ensure(h.b.store.tasks(StoredTaskFilter::default()).await?.is_empty(), "a refused commit made a task")?;
        ensure(h.b.store.questions(&live.thread, None).await?.is_empty(), "a refused commit asked a question")?;
        ensure(h.b.store.progress(&live.thread).await?.is_empty(), "a refused commit wrote progress")?;
    }
    h.a.step(&mut live, 2).await?;
    Ok(())
}

async fn a_late_commit_does_not_make_a_deleted_thread_anew(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("t").await?;
    h.die().await?;
    h.b.store.delete_thread(&live.thread).await?;
    fenced("a commit to a deleted thread", h.a.store.commit(live.commit_of("{}")).await)?;
    let record = vec![ProgressRecord::new("1".into(), "b".into(), json("1"))];
    fenced("progress of a deleted thread", h.a.store.record(live.id, live.epoch, record).await)?;
    ensure(h.b.store.thread(&live.thread).await?.is_none(), "the thread is there again")?;
    let unknown = Commit::new(RunId::new(), 1, 1, None);
    fenced("a commit of an unknown run", h.a.store.commit(unknown).await)
}

async fn a_commit_can_delete_the_thread(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    h.a.step(&mut live, 1).await?;
    let mut commit = live.commit_of("{}");
    let mut end = RunEnd::new(RunStatus::Done, Rest::Idle);
    end.deletes_thread = true;
    commit.end = Some(end);
    commit.tasks = vec![task("mail")];
    let spawned = commit.tasks[0].id;
    h.a.store.commit(commit).await?;
    ensure(h.b.store.thread(&live.thread).await?.is_none(), "the thread is there")?;
    ensure(h.b.store.run(live.id).await?.is_none(), "the run is there")?;
    ensure(h.b.history("t").await?.is_empty(), "checkpoints are there")?;
    same("the task of the last step", h.b.task(spawned).await?.status, TaskStatus::Pending)
}

async fn progress_is_replaced_by_step_and_path(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("t").await?;
    let record = |step: &str, path: &str, n: u8| ProgressRecord::new(step.into(), path.into(), json(&n.to_string()));
    h.a.store.record(live.id, live.epoch, vec![record("s", "b", 1), record("s", "a", 2)]).await?;
    h.a.store.record(live.id, live.epoch, vec![record("s", "b", 3), record("s", "c", 4)]).await?;
    let records = h.b.store.progress(&live.thread).await?;
    let mut got = Vec::new();
    for record in &records {
        got.push((&*record.path, value(&record.record)?));
    }
    same("the records", got, vec![("a", 2.into()), ("b", 3.into()), ("c", 4.into())])?;
    ensure(h.b.store.progress(&thread_id("none")).await?.is_empty(), "a thread that is not there has progress")
}

async fn progress_is_cleared_by_its_step(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let record = |step: &str, path: &str| ProgressRecord::new(step.into(), path.into(), json("1"));
    h.a.store.record(live.id, live.epoch, vec![record("s", "a"), record("s", "b"), record("other", "a")]).await?;
    let mut commit = live.commit_of("{}");
    commit.clears = Some("s".into());
    commit.progress = vec![record("new", "c")];
    h.a.commit(&mut live, commit).await?;
    let records = h.b.store.progress(&live.thread).await?;
    let steps: Vec<&str> = records.iter().map(|record| &*record.step).collect();
    same("the steps of the records", steps, vec!["other", "new"])?;
    h.a.end(&mut live, RunStatus::Failed, Rest::Failed).await?;
    same("the records after a failure", h.b.store.progress(&live.thread).await?.len(), 2)?;
    h.a.begin("t").await?;
    ensure(h.b.store.progress(&live.thread).await?.is_empty(), "progress outlives a new input")
}

async fn progress_of_a_former_epoch_is_fenced(h: &mut Harness<'_>) -> Checked {
    let former = h.a.begin("t").await?;
    h.die().await?;
    h.b.take_over().await?;
    let record = vec![ProgressRecord::new("s".into(), "a".into(), json("1"))];
    fenced("progress of a former owner", h.a.store.record(former.id, former.epoch, record).await)?;
    ensure(h.b.store.progress(&former.thread).await?.is_empty(), "the record is there")
}
