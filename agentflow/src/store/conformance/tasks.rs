//! Checks of durable tasks.

use std::time::Duration;

use super::{
    super::{
        Claim, Enqueued, FinishTask, KeyPolicy, NewTask, POISON_CRASHES, ReleaseTask, StoredTaskFilter, StoredTaskId,
        TaskChanged, TaskEnd, TaskKey, TaskRetention, TaskStatus,
    },
    check::list_checks,
    harness::{Checked, Handle, Harness, LEASE, bytes, ensure, fenced, same, task},
};
use crate::run_id::RunId;

list_checks![
    a_task_is_made_once,
    a_task_is_claimed_when_it_is_due,
    a_task_is_claimed_once,
    a_claim_keeps_to_names_and_room,
    a_claim_takes_the_highest_priority_or_the_oldest,
    a_claim_knows_the_next_due_time,
    a_task_ends_once,
    a_failed_attempt_is_repeated_after_its_delay,
    a_released_task_is_claimed_again,
    a_task_of_a_dead_owner_is_claimed_again,
    a_late_outcome_changes_nothing,
    a_task_that_was_there_at_too_many_deaths_is_parked,
    a_key_can_skip_a_new_task,
    a_key_can_replace_a_pending_task,
    a_key_can_replace_a_running_task,
    a_key_can_queue_tasks,
    a_key_counts_unfinished_tasks_of_one_name_and_scope,
    a_pending_task_is_cancelled,
    a_running_task_is_asked_to_stop,
    a_cancelled_task_is_not_tried_again,
    a_failed_task_is_retried_by_hand,
    only_ended_tasks_are_deleted,
    tasks_are_listed_newest_first,
    the_oldest_ended_tasks_go_first,
];

async fn make(handle: &Handle, task: &NewTask) -> Checked<Enqueued> {
    let mut made = handle.store.enqueue(vec![task.clone()]).await?;
    ensure(made.len() == 1, "one task has one answer")?;
    Ok(made.remove(0))
}

async fn end(handle: &Handle, id: StoredTaskId, end: TaskEnd) -> Checked {
    let epoch = handle.task(id).await?.epoch;
    Ok(handle.store.finish_task(FinishTask::new(id, epoch, end)).await?)
}

fn keyed(name: &str, key: &str, policy: KeyPolicy) -> NewTask {
    let mut task = task(name);
    task.key = Some(TaskKey::new(name, key, policy));
    task
}

fn failed(error: &str) -> TaskEnd {
    TaskEnd::Failed { error: error.to_owned() }
}

async fn a_task_is_made_once(h: &mut Harness<'_>) -> Checked {
    let new = [task("job"), task("job")];
    let made = h.a.store.enqueue(new.to_vec()).await?;
    same("the answers", made, new.iter().map(|task| Enqueued::Made(task.id)).collect())?;
    same("a repetition", make(&h.b, &new[0]).await?, Enqueued::Known(new[0].id))?;
    same("the number of tasks", h.b.store.tasks(StoredTaskFilter::default()).await?.len(), 2)?;
    let row = h.b.task(new[0].id).await?;
    same("its state", (row.status, row.epoch, row.owner, row.failed_attempts), (TaskStatus::Pending, 0, None, 0))?;
    ensure(row.first_claimed_at.is_none(), "a task that was never claimed has a time of its claim")?;
    same("its arguments", row.task.args, new[0].args.clone())
}

async fn a_task_is_claimed_when_it_is_due(h: &mut Harness<'_>) -> Checked {
    let (mut delayed, mut timed) = (task("delayed"), task("timed"));
    delayed.delay = Duration::from_mins(1);
    timed.due = Some(h.a.store.now().await?.after(Duration::from_mins(2)));
    h.a.store.enqueue(vec![delayed.clone(), timed.clone()]).await?;
    for (seconds, expected) in [(0, [false, false]), (61, [true, false]), (60, [false, true])] {
        h.advance(Duration::from_secs(seconds)).await?;
        for (task, is_due) in [&delayed, &timed].into_iter().zip(expected) {
            let claimed = h.b.claim_ids(&task.name, 1).await?;
            same(&task.name, claimed, if is_due { vec![task.id] } else { Vec::new() })?;
        }
    }
    Ok(())
}

async fn a_task_is_claimed_once(h: &mut Harness<'_>) -> Checked {
    let new = task("job");
    make(&h.a, &new).await?;
    let claimed = h.a.claim("job", 5).await?.tasks;
    let row = claimed.first().ok_or("a due task was not claimed")?;
    same("its state", (row.status, row.epoch, row.owner), (TaskStatus::Running, 1, Some(h.a.owner)))?;
    ensure(row.first_claimed_at.is_some(), "a claimed task has no time of its claim")?;
    for handle in [&h.a, &h.b] {
        same("a second claim", handle.claim_ids("job", 5).await?, Vec::new())?;
    }
    Ok(())
}

async fn a_claim_keeps_to_names_and_room(h: &mut Harness<'_>) -> Checked {
    let names = ["x", "x", "x", "y", "z"];
    h.a.store.enqueue(names.map(task).into()).await?;
    let claim = Claim::new(h.a.owner, vec![("x".into(), 2), ("y".into(), 5), ("none".into(), 5)], 9);
    let claimed = h.a.store.claim(claim).await?;
    let mut got: Vec<&str> = claimed.tasks.iter().map(|row| &*row.task.name).collect();
    got.sort_unstable();
    same("the names", got, vec!["x", "x", "y"])?;
    let claim = Claim::new(h.b.owner, vec![("x".into(), 5), ("z".into(), 5)], 1);
    same("the limit", h.b.store.claim(claim).await?.tasks.len(), 1)
}

async fn a_claim_takes_the_highest_priority_or_the_oldest(h: &mut Harness<'_>) -> Checked {
    let mut ids = Vec::new();
    for priority in [0, -5, 7, 7] {
        let mut new = task("job");
        new.priority = priority;
        ids.push(new.id);
        make(&h.a, &new).await?;
        h.advance(Duration::from_secs(1)).await?;
    }
    let mut oldest = Claim::new(h.a.owner, vec![("job".into(), 1)], 1);
    oldest.oldest_first = true;
    let claimed = h.a.store.claim(oldest.clone()).await?;
    same("the oldest", claimed.tasks.iter().map(|row| row.task.id).collect(), vec![ids[0]])?;
    same("the highest, then the earlier", h.b.claim_ids("job", 1).await?, vec![ids[2]])?;
    let claimed = h.a.store.claim(oldest).await?;
    same("the oldest that is left", claimed.tasks.iter().map(|row| row.task.id).collect(), vec![ids[1]])?;
    same("the last", h.b.claim_ids("job", 9).await?, vec![ids[3]])
}

async fn a_claim_knows_the_next_due_time(h: &mut Harness<'_>) -> Checked {
    same("of no tasks", h.a.claim("job", 1).await?.next_due, None)?;
    let mut later = task("job");
    later.due = Some(h.a.store.now().await?.after(Duration::from_mins(1)));
    let mut other = task("other");
    other.due = Some(h.a.store.now().await?.after(Duration::from_secs(10)));
    h.a.store.enqueue(vec![task("job"), later.clone(), other]).await?;
    let claimed = h.a.claim("job", 5).await?;
    same("the number of tasks", claimed.tasks.len(), 1)?;
    same("the time", claimed.next_due, later.due)
}

async fn a_task_ends_once(h: &mut Harness<'_>) -> Checked {
    for (name, outcome, status, error, attempts) in [
        ("done", TaskEnd::Done, TaskStatus::Done, None, 0),
        ("failed", failed("no"), TaskStatus::Failed, Some("no"), 1),
        ("cancelled", TaskEnd::Cancelled, TaskStatus::Cancelled, None, 0),
    ] {
        let new = task(name);
        make(&h.a, &new).await?;
        let early = FinishTask::new(new.id, 0, TaskEnd::Done);
        fenced("the end of a pending task", h.a.store.finish_task(early).await)?;
        h.a.claim(name, 1).await?;
        let mut finish = FinishTask::new(new.id, 1, outcome);
        finish.consumed = Duration::from_secs(2);
        h.a.store.finish_task(finish.clone()).await?;
        for other in [finish.end, TaskEnd::Done, failed("late"), TaskEnd::Cancelled] {
            let again = FinishTask::new(new.id, 1, other);
            fenced("a second end", h.a.store.finish_task(again).await)?;
        }
        fenced("a release after the end", h.a.store.release_task(ReleaseTask::new(new.id, 1)).await)?;
        let row = h.b.task(new.id).await?;
        same("its outcome", (row.status, row.error.as_deref(), row.failed_attempts), (status, error, attempts))?;
        same("its owner and time", (row.owner, row.consumed), (None, Duration::from_secs(2)))?;
        same("a claim after the end", h.b.claim_ids(name, 1).await?, Vec::new())?;
        if status != TaskStatus::Failed {
            same("a retry", h.b.store.retry_task(new.id).await?, TaskChanged::No(status))?;
        }
        same("a cancel", h.b.store.cancel_task(new.id).await?, TaskChanged::No(status))?;
    }
    Ok(())
}

async fn a_failed_attempt_is_repeated_after_its_delay(h: &mut Harness<'_>) -> Checked {
    let new = task("job");
    make(&h.a, &new).await?;
    h.a.claim("job", 1).await?;
    end(&h.a, new.id, TaskEnd::Retry { error: "busy".to_owned(), delay: Duration::from_mins(1) }).await?;
    let row = h.b.task(new.id).await?;
    same("its state", (row.status, row.failed_attempts, row.error.as_deref()), (TaskStatus::Pending, 1, Some("busy")))?;
    same("an early claim", h.b.claim_ids("job", 1).await?, Vec::new())?;
    h.advance(Duration::from_secs(61)).await?;
    let claimed = h.b.claim("job", 1).await?.tasks;
    let again = claimed.first().ok_or("the task was not claimed again")?;
    same("its epoch", again.epoch, 2)?;
    same("the time of its first claim", again.first_claimed_at, row.first_claimed_at)
}

async fn a_released_task_is_claimed_again(h: &mut Harness<'_>) -> Checked {
    let new = task("job");
    make(&h.a, &new).await?;
    h.a.claim("job", 1).await?;
    let mut release = ReleaseTask::new(new.id, 1);
    (release.delay, release.consumed) = (Duration::from_mins(1), Duration::from_secs(5));
    h.a.store.release_task(release.clone()).await?;
    fenced("a second release", h.a.store.release_task(release).await)?;
    let row = h.b.task(new.id).await?;
    same("its state", (row.status, row.failed_attempts, row.crashes), (TaskStatus::Pending, 0, 0))?;
    same("its owner and time", (row.owner, row.consumed), (None, Duration::from_secs(5)))?;
    same("an early claim", h.b.claim_ids("job", 1).await?, Vec::new())?;
    h.advance(Duration::from_secs(61)).await?;
    same("a claim", h.b.claim_ids("job", 1).await?, vec![new.id])
}

async fn a_task_of_a_dead_owner_is_claimed_again(h: &mut Harness<'_>) -> Checked {
    let new = task("job");
    make(&h.a, &new).await?;
    h.a.claim("job", 1).await?;
    h.advance(LEASE / 3).await?;
    h.kill().await?;
    let claimed = h.b.claim("job", 1).await?.tasks;
    let row = claimed.first().ok_or("the task was not claimed again")?;
    same("its state", (row.epoch, row.crashes, row.failed_attempts, row.owner), (2, 1, 0, Some(h.b.owner)))?;
    ensure(
        row.consumed >= LEASE / 3 && row.consumed < LEASE * 2 / 3,
        format_args!("the owner lived {:?} after the claim, and {:?} were charged", LEASE / 3, row.consumed),
    )?;
    end(&h.b, new.id, TaskEnd::Retry { error: "no".to_owned(), delay: Duration::ZERO }).await?;
    same("its crashes after an attempt that ended", h.b.task(new.id).await?.crashes, 0)
}

async fn a_late_outcome_changes_nothing(h: &mut Harness<'_>) -> Checked {
    let new = task("job");
    make(&h.a, &new).await?;
    h.a.claim("job", 1).await?;
    h.die().await?;
    let late = |end| FinishTask::new(new.id, 1, end);
    same("the claim by the new owner", h.b.claim_ids("job", 1).await?, vec![new.id])?;
    fenced("an outcome after the takeover", h.a.store.finish_task(late(failed("late"))).await)?;
    same("its status", h.b.task(new.id).await?.status, TaskStatus::Running)?;
    end(&h.b, new.id, TaskEnd::Done).await?;
    fenced("an outcome after the other one", h.a.store.finish_task(late(failed("late"))).await)?;
    fenced("a release after it", h.a.store.release_task(ReleaseTask::new(new.id, 1)).await)?;
    h.die().await?;
    same("a claim after the outcome", h.a.claim_ids("job", 1).await?, Vec::new())?;
    let row = h.b.task(new.id).await?;
    same("its outcome", (row.status, row.error), (TaskStatus::Done, None))
}

async fn a_task_that_was_there_at_too_many_deaths_is_parked(h: &mut Harness<'_>) -> Checked {
    let new = task("job");
    make(&h.a, &new).await?;
    h.a.claim("job", 1).await?;
    for crashes in 1..POISON_CRASHES {
        h.die().await?;
        let claimed = h.a.claim("job", 1).await?.tasks;
        same("its crashes", claimed.first().map(|row| row.crashes), Some(crashes))?;
    }
    h.die().await?;
    let claimed = h.a.claim("job", 1).await?;
    same("the claimed and the parked ones", (claimed.tasks.len(), claimed.parked), (0, vec![new.id]))?;
    let row = h.b.task(new.id).await?;
    ensure(row.status == TaskStatus::Failed && row.error.is_some(), "the parked task has not failed")?;
    same("a retry by hand", h.b.store.retry_task(new.id).await?, TaskChanged::Yes)?;
    same("a claim after it", h.a.claim_ids("job", 1).await?, vec![new.id])
}

async fn a_key_can_skip_a_new_task(h: &mut Harness<'_>) -> Checked {
    let first = keyed("job", "k", KeyPolicy::Skip);
    same("the first", make(&h.a, &first).await?, Enqueued::Made(first.id))?;
    let skipped = Enqueued::Skipped(first.id);
    same("beside a pending one", make(&h.b, &keyed("job", "k", KeyPolicy::Skip)).await?, skipped.clone())?;
    h.a.claim("job", 1).await?;
    same("beside a running one", make(&h.b, &keyed("job", "k", KeyPolicy::Skip)).await?, skipped.clone())?;
    end(&h.a, first.id, TaskEnd::Retry { error: "no".to_owned(), delay: LEASE }).await?;
    same("beside one that backs off", make(&h.b, &keyed("job", "k", KeyPolicy::Skip)).await?, skipped)?;
    same("the number of tasks", h.b.store.tasks(StoredTaskFilter::default()).await?.len(), 1)?;
    h.advance(LEASE / 2).await?;
    h.advance(LEASE * 2 / 3).await?;
    h.a.claim("job", 1).await?;
    end(&h.a, first.id, TaskEnd::Done).await?;
    let next = keyed("job", "k", KeyPolicy::Skip);
    same("after the end", make(&h.b, &next).await?, Enqueued::Made(next.id))
}

async fn a_key_can_replace_a_pending_task(h: &mut Harness<'_>) -> Checked {
    let mut first = keyed("job", "k", KeyPolicy::Replace);
    first.delay = Duration::from_mins(10);
    make(&h.a, &first).await?;
    let mut second = keyed("job", "k", KeyPolicy::Replace);
    (second.args, second.priority) = (bytes(r#"{"to":"bob"}"#), 3);
    same("the answer", make(&h.b, &second).await?, Enqueued::Replaced(first.id))?;
    same("the number of tasks", h.b.store.tasks(StoredTaskFilter::default()).await?.len(), 1)?;
    let claimed = h.a.claim("job", 5).await?.tasks;
    let row = claimed.first().ok_or("the task has not got the new due time")?;
    same(
        "its id, arguments and priority",
        (row.task.id, &row.task.args, row.task.priority),
        (first.id, &second.args, 3),
    )
}

async fn a_key_can_replace_a_running_task(h: &mut Harness<'_>) -> Checked {
    let first = keyed("job", "k", KeyPolicy::Replace);
    make(&h.a, &first).await?;
    h.a.claim("job", 1).await?;
    let second = keyed("job", "k", KeyPolicy::Replace);
    same("the answer", make(&h.b, &second).await?, Enqueued::Made(second.id))?;
    let row = h.b.task(first.id).await?;
    same("the running one", (row.status, row.cancel), (TaskStatus::Running, true))?;
    same("a claim before its end", h.b.claim_ids("job", 5).await?, Vec::new())?;
    let third = keyed("job", "k", KeyPolicy::Replace);
    same("a third one", make(&h.a, &third).await?, Enqueued::Replaced(second.id))?;
    end(&h.a, first.id, TaskEnd::Cancelled).await?;
    same("a claim after its end", h.b.claim_ids("job", 5).await?, vec![second.id])
}

async fn a_key_can_queue_tasks(h: &mut Harness<'_>) -> Checked {
    let tasks = [(); 3].map(|()| keyed("job", "k", KeyPolicy::Queue));
    let made = h.a.store.enqueue(tasks.to_vec()).await?;
    same("the answers", made, tasks.iter().map(|task| Enqueued::Made(task.id)).collect())?;
    for task in &tasks {
        same("the claimed one", h.a.claim_ids("job", 5).await?, vec![task.id])?;
        let claimed = h.b.claim("job", 5).await?;
        same("a claim beside it", (claimed.tasks.len(), claimed.next_due), (0, None))?;
        end(&h.a, task.id, TaskEnd::Retry { error: "no".to_owned(), delay: Duration::from_secs(1) }).await?;
        same("a claim while it backs off", h.b.claim_ids("job", 5).await?, Vec::new())?;
        h.advance(Duration::from_secs(2)).await?;
        same("the same one again", h.a.claim_ids("job", 5).await?, vec![task.id])?;
        end(&h.a, task.id, TaskEnd::Done).await?;
    }
    Ok(())
}

async fn a_key_counts_unfinished_tasks_of_one_name_and_scope(h: &mut Harness<'_>) -> Checked {
    let first = keyed("job", "k", KeyPolicy::Skip);
    make(&h.a, &first).await?;
    let mut in_scope = task("job");
    in_scope.key = Some(TaskKey::new("scope", "k", KeyPolicy::Skip));
    for other in [keyed("other", "k", KeyPolicy::Skip), keyed("job", "l", KeyPolicy::Skip), in_scope, task("job")] {
        same("another key", make(&h.b, &other).await?, Enqueued::Made(other.id))?;
    }
    same("all are claimed", h.b.claim_ids("job", 9).await?.len(), 4)
}

async fn a_pending_task_is_cancelled(h: &mut Harness<'_>) -> Checked {
    let new = task("job");
    make(&h.a, &new).await?;
    same("the answer", h.b.store.cancel_task(new.id).await?, TaskChanged::Yes)?;
    same("its status", h.a.task(new.id).await?.status, TaskStatus::Cancelled)?;
    same("a claim", h.a.claim_ids("job", 1).await?, Vec::new())?;
    same("a second cancel", h.b.store.cancel_task(new.id).await?, TaskChanged::No(TaskStatus::Cancelled))?;
    same("one that is not there", h.b.store.cancel_task(StoredTaskId::new()).await?, TaskChanged::NotFound)
}

async fn a_running_task_is_asked_to_stop(h: &mut Harness<'_>) -> Checked {
    let new = task("job");
    make(&h.a, &new).await?;
    h.a.claim("job", 1).await?;
    same("the answer", h.b.store.cancel_task(new.id).await?, TaskChanged::Marked(h.a.owner))?;
    let row = h.a.task(new.id).await?;
    same("its state", (row.status, row.cancel), (TaskStatus::Running, true))?;
    end(&h.a, new.id, TaskEnd::Done).await?;
    same("an end before the stop", h.b.task(new.id).await?.status, TaskStatus::Done)?;

    let (at_once, claimed) = (task("once"), task("claimed"));
    h.a.store.enqueue(vec![at_once.clone(), claimed.clone()]).await?;
    h.a.claim("once", 1).await?;
    h.a.claim("claimed", 1).await?;
    h.b.store.cancel_task(claimed.id).await?;
    h.kill().await?;
    same("one of a dead owner", h.b.store.cancel_task(at_once.id).await?, TaskChanged::Yes)?;
    same("its status", h.b.task(at_once.id).await?.status, TaskStatus::Cancelled)?;
    same("a claim of a cancelled one", h.b.claim_ids("claimed", 1).await?, Vec::new())?;
    same("its status", h.b.task(claimed.id).await?.status, TaskStatus::Cancelled)
}

async fn a_cancelled_task_is_not_tried_again(h: &mut Harness<'_>) -> Checked {
    let (retried, released) = (task("retried"), task("released"));
    h.a.store.enqueue(vec![retried.clone(), released.clone()]).await?;
    for new in [&retried, &released] {
        h.a.claim(&new.name, 1).await?;
        h.b.store.cancel_task(new.id).await?;
    }
    end(&h.a, retried.id, TaskEnd::Retry { error: "no".to_owned(), delay: Duration::ZERO }).await?;
    h.a.store.release_task(ReleaseTask::new(released.id, 1)).await?;
    for new in [&retried, &released] {
        same(&new.name, h.b.task(new.id).await?.status, TaskStatus::Cancelled)?;
    }
    Ok(())
}

async fn a_failed_task_is_retried_by_hand(h: &mut Harness<'_>) -> Checked {
    let new = task("job");
    make(&h.a, &new).await?;
    same("a pending one", h.b.store.retry_task(new.id).await?, TaskChanged::No(TaskStatus::Pending))?;
    h.a.claim("job", 1).await?;
    same("a running one", h.b.store.retry_task(new.id).await?, TaskChanged::No(TaskStatus::Running))?;
    end(&h.a, new.id, failed("no")).await?;
    same("a failed one", h.b.store.retry_task(new.id).await?, TaskChanged::Yes)?;
    let row = h.a.task(new.id).await?;
    same("its state", (row.status, row.failed_attempts), (TaskStatus::Pending, 0))?;
    ensure(row.first_claimed_at.is_none() && row.consumed == Duration::ZERO, "its budget has not started over")?;
    let claimed = h.b.claim("job", 1).await?.tasks;
    same("its epoch", claimed.first().map(|row| row.epoch), Some(2))?;
    same("one that is not there", h.b.store.retry_task(StoredTaskId::new()).await?, TaskChanged::NotFound)
}

async fn only_ended_tasks_are_deleted(h: &mut Harness<'_>) -> Checked {
    let new = task("job");
    make(&h.a, &new).await?;
    same("a pending one", h.b.store.delete_task(new.id).await?, TaskChanged::No(TaskStatus::Pending))?;
    h.a.claim("job", 1).await?;
    same("a running one", h.b.store.delete_task(new.id).await?, TaskChanged::No(TaskStatus::Running))?;
    end(&h.a, new.id, TaskEnd::Done).await?;
    same("one that has ended", h.b.store.delete_task(new.id).await?, TaskChanged::Yes)?;
    same("a deleted one", h.b.store.delete_task(new.id).await?, TaskChanged::NotFound)?;
    ensure(h.a.store.tasks(StoredTaskFilter::default()).await?.is_empty(), "the task is there")
}

async fn tasks_are_listed_newest_first(h: &mut Harness<'_>) -> Checked {
    let run = RunId::new();
    let mut tasks = [task("x"), task("y"), keyed("x", "k", KeyPolicy::Queue), task("x")];
    tasks[3].run = Some(run);
    tasks[3].node = Some("node".into());
    h.a.store.enqueue(tasks.to_vec()).await?;
    h.a.claim("y", 1).await?;
    let ids = tasks.each_ref().map(|task| task.id);
    let with = |change: &dyn Fn(&mut StoredTaskFilter)| {
        let mut filter = StoredTaskFilter::default();
        change(&mut filter);
        filter
    };
    for (filter, expected) in [
        (with(&|_| ()), vec![3, 2, 1, 0]),
        (with(&|filter| filter.name = Some("x".into())), vec![3, 2, 0]),
        (with(&|filter| (filter.offset, filter.limit) = (1, Some(2))), vec![2, 1]),
        (with(&|filter| filter.status = Some(TaskStatus::Running)), vec![1]),
        (with(&|filter| filter.owner = Some(h.a.owner)), vec![1]),
        (with(&|filter| filter.owner = Some(h.b.owner)), vec![]),
        (with(&|filter| filter.key = Some("k".into())), vec![2]),
        (with(&|filter| filter.run = Some(run)), vec![3]),
        (with(&|filter| filter.ids = Some(vec![ids[0], ids[2]])), vec![2, 0]),
        (with(&|filter| filter.ids = Some(Vec::new())), vec![]),
    ] {
        let rows = h.b.store.tasks(filter.clone()).await?;
        let got: Vec<_> = rows.iter().map(|row| row.task.id).collect();
        same(&format!("{filter:?}"), got, expected.into_iter().map(|n: usize| ids[n]).collect())?;
    }
    Ok(())
}

async fn the_oldest_ended_tasks_go_first(h: &mut Harness<'_>) -> Checked {
    let mut ids = Vec::new();
    for (name, outcome) in [
        ("x", TaskEnd::Done),
        ("x", TaskEnd::Cancelled),
        ("x", TaskEnd::Done),
        ("x", failed("1")),
        ("x", failed("2")),
        ("y", TaskEnd::Done),
    ] {
        let new = task(name);
        ids.push(new.id);
        make(&h.a, &new).await?;
        h.a.claim(name, 1).await?;
        end(&h.a, new.id, outcome).await?;
        h.advance(Duration::from_secs(1)).await?;
    }
    let pending = task("x");
    make(&h.a, &pending).await?;
    let mut retention = TaskRetention::default();
    (retention.ended, retention.failed) = (1, 1);
    same("the number of deleted ones", h.b.store.retain_tasks(retention).await?, 3)?;
    let rows = h.a.store.tasks(StoredTaskFilter::default()).await?;
    let expected = vec![pending.id, ids[5], ids[4], ids[2]];
    same("those that are left", rows.iter().map(|row| row.task.id).collect(), expected)
}
