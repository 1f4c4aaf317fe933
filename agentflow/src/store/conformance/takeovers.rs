//! Checks of the takeover, and of the limits on what was there when a process died.

use std::time::Duration;

use super::{
    super::{
        CancelKind, CancelRequested, POISON_CRASHES, ProgressRecord, QuestionStatus, Rest, RunStart, RunStatus,
        TakeOver, ThreadStatus,
    },
    check::list_checks,
    harness::{Checked, GRAPH, Harness, LEASE, Live, ensure, json, same, task, value},
};
use crate::run_id::RunId;

list_checks![
    a_run_of_a_dead_owner_is_taken_over_with_its_position,
    a_run_of_a_living_owner_is_not_taken_over,
    a_run_is_taken_over_once,
    a_takeover_keeps_to_its_filter_and_limit,
    a_takeover_charges_the_time_until_the_last_renewal,
    a_cancel_outlives_the_owner,
    a_commit_forgets_the_crashes,
    a_run_that_was_there_at_too_many_deaths_is_parked,
    suspects_run_beside_few_others,
];

async fn a_run_of_a_dead_owner_is_taken_over_with_its_position(h: &mut Harness<'_>) -> Checked {
    let (_, question) = h.a.run_until_question("t").await?;
    let mut live = {
        let start: RunStart = h.a.answering("t", question, r#""yes""#).await?;
        h.a.begin_with("t", start).await?
    };
    let head = h.a.step(&mut live, 5).await?;
    let record = vec![ProgressRecord::new("s".into(), "a".into(), json("1"))];
    h.a.store.record(live.id, live.epoch, record).await?;
    h.kill().await?;
    let taken = h.b.take_over().await?;
    same("the number of runs", taken.len(), 1)?;
    let taken = &taken[0];
    let row = &taken.run;
    same("its id, status and owner", (row.run.id, row.status, row.owner), (live.id, RunStatus::Running, h.b.owner))?;
    same("its epoch and crashes", (row.epoch, row.crashes, row.commit), (2, 1, 1))?;
    let checkpoint = taken.checkpoint.as_ref().ok_or("the checkpoint is not there")?;
    same("its checkpoint", (checkpoint.id, value(&checkpoint.values)?), (head, serde_json::json!({"n": 5})))?;
    same("its progress", taken.progress.len(), 1)?;
    let answered = taken.questions.first().ok_or("the answered question is not there")?;
    same("the question", (answered.asked.id, answered.status), (question, QuestionStatus::Answered))?;
    h.b.step(&mut Live::taken(taken), 6).await?;
    Ok(())
}

async fn a_run_of_a_living_owner_is_not_taken_over(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("t").await?;
    ensure(h.b.take_over().await?.is_empty(), "a run of a living owner was taken over")?;
    ensure(h.a.take_over().await?.is_empty(), "an owner's own run was taken over")?;
    h.a.store.leave(h.a.owner).await?;
    let taken = h.b.take_over().await?;
    same("the runs of an owner that left", taken.iter().map(|taken| taken.run.run.id).collect(), vec![live.id])
}

async fn a_run_is_taken_over_once(h: &mut Harness<'_>) -> Checked {
    for n in 0..3 {
        h.a.begin(&format!("t{n}")).await?;
    }
    h.die().await?;
    let (by_a, by_b) = (h.a.take_over().await?, h.b.take_over().await?);
    same("the numbers of runs", (by_a.len(), by_b.len()), (3, 0))
}

async fn a_takeover_keeps_to_its_filter_and_limit(h: &mut Harness<'_>) -> Checked {
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(h.a.begin(&format!("t{n}")).await?.id);
    }
    h.kill().await?;
    let owner = h.b.owner;
    let take = async |request: TakeOver| -> Checked<Vec<RunId>> {
        Ok(h.b.store.take_over(request).await?.into_iter().map(|taken| taken.run.run.id).collect())
    };
    same("those of another graph", take(TakeOver::new("another".into(), owner, 9)).await?, Vec::new())?;
    let mut one = TakeOver::new(GRAPH.into(), owner, 9);
    one.run = Some(ids[2]);
    same("one", take(one).await?, vec![ids[2]])?;
    let mut except = TakeOver::new(GRAPH.into(), owner, 1);
    except.except = vec![ids[0]];
    same("one that is not excepted", take(except).await?, vec![ids[1]])?;
    same("the others", take(TakeOver::new(GRAPH.into(), owner, 9)).await?, vec![ids[0], ids[3]])
}

async fn a_takeover_charges_the_time_until_the_last_renewal(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    let mut commit = live.commit();
    commit.consumed = Duration::from_secs(100);
    h.a.commit(&mut live, commit).await?;
    h.advance(LEASE / 3).await?;
    h.kill().await?;
    let taken = h.b.take_over().await?;
    let consumed = taken.first().ok_or("the run was not taken over")?.run.consumed;
    let charged = consumed.saturating_sub(Duration::from_secs(100));
    let expected = LEASE / 3;
    ensure(
        charged >= expected && charged < expected + LEASE / 3,
        format_args!("the owner lived {expected:?} after the commit, and {charged:?} were charged"),
    )
}

async fn a_cancel_outlives_the_owner(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("t").await?;
    let dead = h.kill().await?;
    let answer = h.b.store.request_cancel(live.id, CancelKind::Cancel).await?;
    same("the answer", answer, CancelRequested::Marked { owner: dead, is_alive: false })?;
    let taken = h.b.take_over().await?;
    let taken = taken.first().ok_or("the run was not taken over")?;
    same("the cancel", taken.run.cancel, Some(CancelKind::Cancel))?;
    h.b.end(&mut Live::taken(taken), RunStatus::Cancelled, Rest::Paused).await?;
    same("its status", h.b.status(live.id).await?, RunStatus::Cancelled)
}

async fn a_commit_forgets_the_crashes(h: &mut Harness<'_>) -> Checked {
    let id = h.a.begin("t").await?.id;
    for _ in 0..3 {
        h.die().await?;
        let taken = h.a.take_over().await?;
        let taken = taken.first().ok_or("the run was not taken over")?;
        same("its crashes", taken.run.crashes, 1)?;
        h.a.step(&mut Live::taken(taken), 1).await?;
        same("its crashes after a commit", h.a.row(id).await?.crashes, 0)?;
    }
    Ok(())
}

async fn a_run_that_was_there_at_too_many_deaths_is_parked(h: &mut Harness<'_>) -> Checked {
    let id = h.a.begin("t").await?.id;
    for crashes in 1..POISON_CRASHES {
        h.die().await?;
        let taken = h.a.take_over().await?;
        let row = &taken.first().ok_or("the run was not taken over")?.run;
        same("its status and crashes", (row.status, row.crashes), (RunStatus::Running, crashes))?;
    }
    h.die().await?;
    let taken = h.a.take_over().await?;
    let row = &taken.first().ok_or("the parked run was not returned")?.run;
    same("its status", row.status, RunStatus::Failed)?;
    let kind = h.b.row(id).await?.failure.map(|failure| failure.kind);
    same("the kind of its failure", kind.as_deref(), Some("Poison"))?;
    same("the thread", h.b.thread_status("t").await?, Some(ThreadStatus::Failed))?;
    ensure(h.a.take_over().await?.is_empty(), "a parked run was taken over")
}

async fn suspects_run_beside_few_others(h: &mut Harness<'_>) -> Checked {
    const COUNT: usize = 20;
    for n in 0..COUNT {
        h.a.begin(&format!("t{n}")).await?;
    }
    let task = task("job");
    h.a.store.enqueue(vec![task]).await?;
    h.a.claim("job", 1).await?;
    // Each round is a death at which all that run are there. They are together at one crash, 16 at two, one at three.
    h.die().await?;
    same("the tasks after one death", h.a.claim("job", 1).await?.tasks.len(), 1)?;
    same("the runs after one death", h.a.take_over().await?.len(), COUNT)?;
    h.die().await?;
    same("the tasks after two deaths", h.a.claim("job", 1).await?.tasks.len(), 1)?;
    let taken = h.a.take_over().await?;
    same("the runs after two deaths, beside the task", taken.len(), 15)?;
    ensure(h.b.take_over().await?.is_empty(), "more were taken over through the other handle")?;
    h.a.end(&mut Live::taken(&taken[0]), RunStatus::Done, Rest::Idle).await?;
    same("the runs after one has ended", h.b.take_over().await?.len(), 1)?;
    h.die().await?;
    let taken = h.a.take_over().await?;
    let of_three = taken.iter().filter(|taken| taken.run.crashes >= 3).count();
    same("the runs with three deaths", of_three, 1)?;
    same("the tasks with three deaths beside it", h.a.claim("job", 1).await?.tasks.len(), 0)
}
