//! Checks of the rollback.

use super::{
    super::{
        NewQuestion, NewTask, ProgressRecord, QuestionId, QuestionStatus, Rest, RunEnd, RunStart, RunStatus,
        StoredTaskFilter, TaskStatus, ThreadStatus,
    },
    check::list_checks,
    harness::{Checked, Handle, Harness, Live, ensure, fenced, json, same, task, thread_id},
};

list_checks![
    a_rollback_takes_back_what_the_run_made,
    a_rollback_gives_back_the_state_of_the_thread,
    a_rollback_opens_the_questions_that_the_run_answered,
    a_rollback_opens_the_questions_that_the_run_dropped,
    a_rollback_deletes_tasks_that_have_not_started_and_cancels_the_others,
    a_rollback_leaves_a_copy_of_the_thread,
    a_rollback_leaves_the_progress_of_earlier_runs,
];

async fn roll_back(handle: &Handle, live: &mut Live) -> Checked {
    let mut commit = live.commit();
    let mut end = RunEnd::new(RunStatus::Cancelled, Rest::Idle);
    end.rolls_back = true;
    commit.end = Some(end);
    handle.commit(live, commit).await?;
    Ok(())
}

async fn a_rollback_takes_back_what_the_run_made(h: &mut Harness<'_>) -> Checked {
    let before = h.a.run_once("t", 1).await?;
    let count = h.a.history("t").await?.len();
    let mut live = h.a.begin("t").await?;
    h.a.step(&mut live, 2).await?;
    h.a.step(&mut live, 3).await?;
    let queued = h.b.queue("t").await?;
    roll_back(&h.a, &mut live).await?;
    ensure(h.b.store.run(live.id).await?.is_none(), "the run is there")?;
    same("the head", h.b.head("t").await?, before.last)?;
    same("the number of checkpoints", h.b.history("t").await?.len(), count)?;
    same("the state", h.b.state("t", None).await?, serde_json::json!({"n": 1}))?;
    fenced("a commit after the rollback", h.a.store.commit(live.commit()).await)?;
    let begun = h.b.start(queued).await?;
    let next = h.b.live(queued, thread_id("t"), begun).await?;
    ensure(next.last > live.last, "the id of a checkpoint is not greater than those that were rolled back")
}

async fn a_rollback_gives_back_the_state_of_the_thread(h: &mut Harness<'_>) -> Checked {
    for (name, rest, status) in
        [("failed", Rest::Failed, ThreadStatus::Failed), ("paused", Rest::Paused, ThreadStatus::Paused)]
    {
        let mut live = h.a.begin(name).await?;
        h.a.end(&mut live, RunStatus::Failed, rest).await?;
        let mut live = h.a.begin(name).await?;
        h.a.step(&mut live, 1).await?;
        roll_back(&h.a, &mut live).await?;
        same(name, h.b.thread_status(name).await?, Some(status))?;
    }
    let mut live = h.a.begin("new").await?;
    roll_back(&h.a, &mut live).await?;
    same("the head of a thread without another run", h.b.head("new").await?, None)?;
    ensure(h.b.history("new").await?.is_empty(), "checkpoints are there")
}

async fn a_rollback_opens_the_questions_that_the_run_answered(h: &mut Harness<'_>) -> Checked {
    for is_closed in [false, true] {
        let (_, question) = h.a.run_until_question("t").await?;
        let start = h.a.answering("t", question, "1").await?;
        let mut live = h.a.begin_with("t", start).await?;
        let mut commit = live.commit_of("{}");
        commit.closes = if is_closed { vec![question] } else { Vec::new() };
        h.a.commit(&mut live, commit).await?;
        let own = ask(&h.a, &mut live).await?;
        roll_back(&h.a, &mut live).await?;
        same("the question", h.b.question_status("t", question).await?, Some(QuestionStatus::Open))?;
        same("a question of the run itself", h.b.question_status("t", own).await?, None)?;
        let start = h.b.answering("t", question, "2").await?;
        let mut again = h.b.begin_with("t", start).await?;
        h.b.end(&mut again, RunStatus::Done, Rest::Idle).await?;
    }
    Ok(())
}

/// Asks a question and goes on.
async fn ask(handle: &Handle, live: &mut Live) -> Checked<QuestionId> {
    let asked = NewQuestion::new(QuestionId::new(), "ask".into(), "2".into(), json("2"));
    let id = asked.id;
    let mut commit = live.commit();
    commit.questions = vec![asked];
    handle.commit(live, commit).await?;
    Ok(id)
}

async fn a_rollback_opens_the_questions_that_the_run_dropped(h: &mut Harness<'_>) -> Checked {
    let (_, at_start) = h.a.run_until_question("t").await?;
    let mut live = h.a.begin("t").await?;
    same("the question", h.b.question_status("t", at_start).await?, Some(QuestionStatus::Dropped))?;
    roll_back(&h.a, &mut live).await?;
    same("the question", h.b.question_status("t", at_start).await?, Some(QuestionStatus::Open))?;

    let mut live = h.a.begin_with("t", RunStart::at(h.a.head("t").await?)).await?;
    let mut commit = live.commit();
    commit.drops = vec![at_start];
    h.a.commit(&mut live, commit).await?;
    roll_back(&h.a, &mut live).await?;
    same("the question", h.b.question_status("t", at_start).await?, Some(QuestionStatus::Open))
}

async fn a_rollback_deletes_tasks_that_have_not_started_and_cancels_the_others(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let of_run = |name: &str| -> NewTask {
        let mut task = task(name);
        task.run = Some(live.id);
        task
    };
    let (waiting, running, other) = (of_run("waits"), of_run("runs"), task("other"));
    let mut commit = live.commit();
    commit.tasks = vec![waiting.clone(), running.clone(), other.clone()];
    h.a.commit(&mut live, commit).await?;
    same("the claimed task", h.b.claim_ids("runs", 1).await?, vec![running.id])?;
    roll_back(&h.a, &mut live).await?;
    let mut filter = StoredTaskFilter::default();
    filter.ids = Some(vec![waiting.id]);
    ensure(h.b.store.tasks(filter).await?.is_empty(), "a task that has not started is there")?;
    let row = h.b.task(running.id).await?;
    same("a task that runs", (row.status, row.cancel), (TaskStatus::Running, true))?;
    same("a task of no run", h.b.task(other.id).await?.status, TaskStatus::Pending)
}

async fn a_rollback_leaves_a_copy_of_the_thread(h: &mut Harness<'_>) -> Checked {
    h.a.run_once("t", 1).await?;
    let mut live = h.a.begin("t").await?;
    let made = h.a.step(&mut live, 2).await?;
    let copy = thread_id("copy");
    h.b.store.copy_thread(&live.thread, &copy).await?;
    let count = h.b.history("copy").await?.len();
    roll_back(&h.a, &mut live).await?;
    same("the head of the copy", h.b.head("copy").await?, Some(made))?;
    same("the checkpoints of the copy", h.b.history("copy").await?.len(), count)?;
    same("its state", h.b.state("copy", None).await?, serde_json::json!({"n": 2}))
}

async fn a_rollback_leaves_the_progress_of_earlier_runs(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let record = |path: &str| vec![ProgressRecord::new("s".into(), path.into(), json("1"))];
    h.a.store.record(live.id, live.epoch, record("a")).await?;
    h.a.end(&mut live, RunStatus::Failed, Rest::Failed).await?;
    let mut resumed = h.a.begin_with("t", RunStart::at(live.last)).await?;
    h.a.store.record(resumed.id, resumed.epoch, record("b")).await?;
    roll_back(&h.a, &mut resumed).await?;
    let records = h.b.store.progress(&live.thread).await?;
    same("the records", records.iter().map(|record| &*record.path).collect(), vec!["a"])
}
