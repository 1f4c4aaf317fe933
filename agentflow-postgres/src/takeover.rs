//! Takeovers of runs from owners that are not alive.

use agentflow::{
    RunId,
    store::{
        CheckpointId, POISON_CRASHES, ProgressRecord, RunFailure, RunStatus, StoreError, TakeOver, TakenRun, ThreadId,
        may_resume,
    },
};
use tokio_postgres::Row;

use crate::{
    checkpoints, rows,
    rows::Columns,
    runs::NOTIFY,
    tasks::{CRASHES, crashes_of},
    transaction::{Read, Session, Statement, Transaction},
    value::{Array, args, to_json},
};

/// The runs that can be taken over, without their payloads.
const CANDIDATES: &str = "SELECT r.id, r.thread, r.status, r.started, r.crashes
    FROM agentflow_runs r
    WHERE r.status IN ('queued', 'running') AND r.graph = $1 AND ($2::uuid IS NULL OR r.id = $2) AND NOT r.id = ANY ($3)
        AND (r.status = 'queued' AND r.started OR r.owner NOT IN (SELECT o.id FROM agentflow_owners o WHERE o.expires > (SELECT agentflow_now())))
        AND NOT (r.status = 'queued' AND r.started AND EXISTS (
            SELECT FROM agentflow_runs other WHERE other.thread = r.thread AND other.status = 'running'))
    ORDER BY r.sequence";

struct Candidate {
    id: RunId,
    thread: ThreadId,
    status: RunStatus,
    started: bool,
    crashes: u32,
}

impl Candidate {
    /// Returns the number of crashes after the takeover.
    fn crashes_then(&self) -> u32 {
        self.crashes + u32::from(self.status == RunStatus::Running)
    }
}

fn candidate(operation: &'static str, row: &Row) -> Result<Candidate, StoreError> {
    let columns = Columns::new(operation, row);
    Ok(Candidate {
        id: columns.get("id")?,
        thread: columns.get("thread")?,
        status: columns.get("status")?,
        started: columns.get("started")?,
        crashes: columns.get("crashes")?,
    })
}

pub(crate) async fn take_over(session: Session, request: TakeOver) -> Result<Vec<TakenRun>, StoreError> {
    let operation = session.operation;
    let mut transaction = session.begin();
    // Takeovers count the runs with crashes in the whole store, so they go one after the other.
    transaction.write("SELECT agentflow_lock('take over')", args![]);
    let except = || Array(request.except.clone());
    let candidates = (CANDIDATES, args![&request.graph, request.run, except()]);
    let [candidates, running] = transaction.read([candidates, (CRASHES, args![])]).await?;
    let mut running = crashes_of(operation, &running)?;
    let mut chosen = Vec::new();
    let mut count = 0;
    for row in &candidates {
        let candidate = candidate(operation, row)?;
        let crashes = candidate.crashes_then();
        if crashes < POISON_CRASHES {
            let others = running.iter().filter(|other| **other >= crashes).count();
            if count == request.limit || candidate.started && !may_resume(crashes, others) {
                continue;
            }
            if candidate.started {
                running.push(crashes);
            }
            count += 1;
        }
        chosen.push(candidate);
    }
    // A thread on which another transaction is at work is left for the next pass.
    let threads: Array<&ThreadId> = chosen.iter().map(|run| &run.thread).collect();
    let lock = "SELECT id FROM agentflow_threads WHERE id = ANY ($1) ORDER BY id FOR UPDATE SKIP LOCKED";
    let [locked] = transaction.read([(lock, args![threads])]).await?;
    let locked = locked.iter().map(|row| Columns::new(operation, row).get("id"));
    let locked = locked.collect::<Result<std::collections::BTreeSet<ThreadId>, _>>()?;
    chosen.retain(|run| locked.contains(&run.thread));
    // Until the lock was taken, a run may have changed.
    let still = (CANDIDATES, args![&request.graph, request.run, except()]);
    let [still] = transaction.read([still]).await?;
    let still = still.iter().map(|row| candidate(operation, row)).collect::<Result<Vec<_>, _>>()?;
    let is_same = |run: &Candidate, other: &Candidate| {
        run.id == other.id && run.status == other.status && run.started == other.started && run.crashes == other.crashes
    };
    chosen.retain(|run| still.iter().any(|other| is_same(run, other)));

    for run in &chosen {
        take(&mut transaction, run, &request)?;
    }
    let taken = read_taken(&mut transaction, &chosen).await?;
    if !taken.is_empty() {
        transaction.write(NOTIFY, args![]);
    }
    transaction.commit().await?;
    Ok(taken)
}

fn take(transaction: &mut Transaction, run: &Candidate, request: &TakeOver) -> Result<(), StoreError> {
    let operation = transaction.operation();
    match (run.status, run.started) {
        _ if run.crashes_then() >= POISON_CRASHES => {
            let message = format!("the process died {} times while it drove this run", run.crashes_then());
            let failure = to_json(operation, &RunFailure::new("Poison", message, None))?;
            transaction.write(
                "UPDATE agentflow_runs SET status = 'failed', failure = $2, crashes = $3, updated = agentflow_now()
                    WHERE id = $1",
                args![run.id, failure, run.crashes_then()],
            );
            transaction.write(
                "UPDATE agentflow_threads SET rest = 'failed', updated = agentflow_now() WHERE id = $1",
                args![&run.thread],
            );
        }
        // The dead owner had the run until it renewed its lease for the last time.
        (RunStatus::Running, _) => transaction.write(
            "UPDATE agentflow_runs r SET owner = $2, epoch = epoch + 1, crashes = crashes + 1,
                consumed = consumed + greatest(0, coalesce(
                    (SELECT o.renewed FROM agentflow_owners o WHERE o.id = r.owner) - consumed_at, 0)),
                consumed_at = agentflow_now(), updated = agentflow_now() WHERE id = $1",
            args![run.id, request.owner],
        ),
        (_, true) => transaction.write(
            "UPDATE agentflow_runs SET status = 'running', owner = $2, epoch = epoch + 1,
                consumed_at = agentflow_now(), updated = agentflow_now() WHERE id = $1",
            args![run.id, request.owner],
        ),
        (_, false) => transaction.write(
            "UPDATE agentflow_runs SET owner = $2, epoch = epoch + 1, updated = agentflow_now() WHERE id = $1",
            args![run.id, request.owner],
        ),
    }
    Ok(())
}

async fn read_taken(transaction: &mut Transaction, chosen: &[Candidate]) -> Result<Vec<TakenRun>, StoreError> {
    let operation = transaction.operation();
    let statements = chosen.iter().flat_map(|run| -> [Statement<'_>; 3] {
        [
            ("SELECT * FROM agentflow_runs WHERE id = $1", args![run.id]),
            (
                "SELECT * FROM agentflow_questions WHERE thread = $1
                    AND (status = 'open' OR status = 'answered' AND answered_by = $2) ORDER BY sequence",
                args![&run.thread, run.id],
            ),
            (PROGRESS, args![&run.thread]),
        ]
    });
    let answers = transaction.read_all(statements.collect()).await?;
    let mut taken = Vec::with_capacity(chosen.len());
    for (rows, candidate) in answers.chunks_exact(3).zip(chosen) {
        let [run, questions, progress] = rows else { continue };
        let Some(run) = run.first() else { continue };
        let run = rows::run(operation, run)?;
        let questions = questions.iter().map(|row| rows::question(operation, row)).collect::<Result<_, _>>()?;
        let checkpoint: Option<CheckpointId> = run.last_checkpoint;
        let checkpoint = match checkpoint {
            Some(id) => checkpoints::load(transaction, &candidate.thread, Some(id)).await?,
            None => None,
        };
        taken.push(TakenRun::new(run, checkpoint, questions, progress_of(operation, progress)?));
    }
    Ok(taken)
}

/// Selects the progress of a thread's step, in the order of the paths.
pub(crate) const PROGRESS: &str =
    "SELECT step, path, record FROM agentflow_progress WHERE thread = $1 ORDER BY path, step";

pub(crate) fn progress_of(operation: &'static str, rows: &[Row]) -> Result<Vec<ProgressRecord>, StoreError> {
    let read = |row| {
        let columns = Columns::new(operation, row);
        Ok(ProgressRecord::new(columns.get("step")?, columns.get("path")?, columns.get("record")?))
    };
    rows.iter().map(read).collect()
}
