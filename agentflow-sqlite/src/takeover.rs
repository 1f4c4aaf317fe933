//! The takeover of runs from owners that are not alive.

use std::time::Duration;

use agentflow::store::{OwnerId, POISON_CRASHES, Rest, RunFailure, RunStatus, TakeOver, TakenRun};
use rusqlite::params;

use crate::{
    checkpoints,
    failure::Failure,
    owners,
    runs::{self, Run, read_run, select_runs},
    suspects::Suspects,
    threads,
    transaction::Transaction,
    value::{Sql, get, integer},
};

/// The way in which a run changes hands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The run was running when its owner died.
    Dead,
    /// The run was released, and goes on.
    Released,
    /// The run waits in the queue for its start.
    Queued,
}

pub(crate) fn take_over(tx: &Transaction<'_>, request: &TakeOver) -> Result<Vec<TakenRun>, Failure> {
    let mut suspects = Suspects::of(tx)?;
    let mut taken = Vec::new();
    let mut count = 0;
    for run in candidates(tx, request)? {
        let Some(change) = change_of(tx, &run)? else { continue };
        let crashes = run.crashes + u32::from(change == Change::Dead);
        if crashes >= POISON_CRASHES {
            park(tx, &run, crashes)?;
        } else {
            if count == request.limit || (change != Change::Queued && !suspects.may_resume(crashes)) {
                continue;
            }
            hand_over(tx, &run, change, crashes, request.owner)?;
            if change != Change::Queued {
                suspects.add(crashes);
            }
            count += 1;
        }
        taken.extend(taken_run(tx, &run)?);
    }
    if !taken.is_empty() {
        tx.notify();
    }
    Ok(taken)
}

/// Returns the runs that no living owner drives, the first accepted first.
fn candidates(tx: &Transaction<'_>, request: &TakeOver) -> Result<Vec<Run>, Failure> {
    let owners = tx.all("SELECT DISTINCT owner FROM runs WHERE status IN ('queued', 'running')", [], |row| {
        Ok(get::<OwnerId>(row, "owner")?)
    })?;
    let mut found = tx.all(
        select_runs!("graph = ?1 AND is_released = 1 AND status IN ('queued', 'running')"),
        [&*request.graph],
        read_run,
    )?;
    for owner in owners {
        if !tx.is_alive(owner)? {
            let of_owner = tx.all(
                select_runs!("owner = ?1 AND graph = ?2 AND status IN ('queued', 'running') AND is_released = 0"),
                params![Sql(owner), &*request.graph],
                read_run,
            )?;
            found.extend(of_owner);
        }
    }
    found.retain(|run| request.run.is_none_or(|only| only == run.id) && !request.except.contains(&run.id));
    found.sort_unstable_by_key(|run| run.sequence);
    Ok(found)
}

/// Returns the way in which a run changes hands, or `None` if a released run has to wait for another one.
fn change_of(tx: &Transaction<'_>, run: &Run) -> Result<Option<Change>, Failure> {
    Ok(match (run.status, run.is_released) {
        (RunStatus::Running, _) => Some(Change::Dead),
        (_, false) => Some(Change::Queued),
        (_, true) => {
            let first = runs::first_due(tx, run.thread)?;
            first.is_none_or(|first| first.id == run.id).then_some(Change::Released)
        }
    })
}

fn hand_over(tx: &Transaction<'_>, run: &Run, change: Change, crashes: u32, owner: OwnerId) -> Result<(), Failure> {
    let charged = if change == Change::Dead { charge(tx, run)? } else { Duration::ZERO };
    let status = if change == Change::Queued { RunStatus::Queued } else { RunStatus::Running };
    tx.execute(
        "UPDATE runs SET owner = ?2, epoch = ?3, crashes = ?4, status = ?5, is_released = 0, consumed = consumed + ?6,
             charged_at = ?7, updated_at = ?7
         WHERE sequence = ?1",
        params![run.sequence, Sql(owner), integer(run.epoch + 1), crashes, Sql(status), Sql(charged), Sql(tx.now)],
    )?;
    Ok(())
}

/// Returns the time for which the dead owner of a run has lived since its last commit.
fn charge(tx: &Transaction<'_>, run: &Run) -> Result<Duration, Failure> {
    let since =
        tx.one("SELECT charged_at FROM runs WHERE sequence = ?1", [run.sequence], |row| Ok(get(row, "charged_at")?))?;
    since.map_or(Ok(Duration::ZERO), |since| owners::charge(tx, run.owner, since))
}

/// Ends a run that has been there at too many deaths of a process.
fn park(tx: &Transaction<'_>, run: &Run, crashes: u32) -> Result<(), Failure> {
    let message = format!("the process died {crashes} times while it drove this run");
    tx.execute(
        "UPDATE runs SET status = 'failed', crashes = ?2, failure = ?3, updated_at = ?4 WHERE sequence = ?1",
        params![run.sequence, crashes, serde_json::to_string(&RunFailure::new("Poison", message, None))?, Sql(tx.now)],
    )?;
    threads::set_rest(tx, run.thread, Rest::Failed)
}

fn taken_run(tx: &Transaction<'_>, run: &Run) -> Result<Option<TakenRun>, Failure> {
    let Some(row) = runs::by_id(tx, run.id)? else { return Ok(None) };
    let checkpoint = row.last_checkpoint.map_or(Ok(None), |id| checkpoints::by_id(tx, run.thread, id))?;
    let questions = threads::questions_of_run(tx, run.thread, run.id)?;
    let progress = threads::progress_of_key(tx, run.thread)?;
    Ok(Some(TakenRun::new(row, checkpoint, questions, progress)))
}
