//! Rows of the tables as the library knows them.

use std::sync::Arc;

use agentflow::store::{
    NewQuestion, NewRun, NewTask, OwnerId, QuestionRow, RunRow, ScheduleRow, StoreError, TaskKey, TaskRow, ThreadRow,
    ThreadStatus,
};
use bytes::Bytes;
use tokio_postgres::Row;

use crate::value::{Decode, field, from_json};

/// Reads the columns of one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'r> {
    operation: &'static str,
    row: &'r Row,
}

impl<'r> Columns<'r> {
    pub(crate) fn new(operation: &'static str, row: &'r Row) -> Self {
        Self { operation, row }
    }

    pub(crate) fn get<T: Decode>(self, column: &str) -> Result<T, StoreError> {
        field(self.operation, self.row, column)
    }

    /// Reads a column of JSON that the store wrote.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(self, column: &str) -> Result<T, StoreError> {
        from_json(self.operation, &self.get::<Bytes>(column)?)
    }
}

/// The columns of a thread `t`.
pub(crate) const THREAD: &str = "t.id, t.graph, t.head, t.rest, t.metadata, t.created, t.updated, EXISTS (
        SELECT FROM agentflow_runs r WHERE r.thread = t.id AND (r.status = 'running' OR r.status = 'queued'
            AND (r.not_before IS NULL OR r.not_before <= agentflow_now()))) AS busy";

pub(crate) fn thread(operation: &'static str, row: &Row) -> Result<ThreadRow, StoreError> {
    let columns = Columns::new(operation, row);
    let mut thread = ThreadRow::new(columns.get("id")?, columns.get("graph")?, columns.get("created")?);
    thread.head = columns.get("head")?;
    thread.status =
        if columns.get("busy")? { ThreadStatus::Busy } else { columns.get::<agentflow::store::Rest>("rest")?.into() };
    thread.metadata = columns.json("metadata")?;
    thread.updated_at = columns.get("updated")?;
    Ok(thread)
}

/// Reads a row with all columns of a run.
pub(crate) fn run(operation: &'static str, row: &Row) -> Result<RunRow, StoreError> {
    let columns = Columns::new(operation, row);
    let mut new = NewRun::new(
        columns.get("id")?,
        columns.get("thread")?,
        columns.get("graph")?,
        columns.get("accepted_by")?,
        columns.get("input")?,
        columns.get("config")?,
    );
    new.metadata = columns.json("metadata")?;
    new.not_before = columns.get("not_before")?;
    let mut run = RunRow::new(new, columns.get("sequence")?, columns.get("created")?);
    run.status = columns.get("status")?;
    run.owner = columns.get("owner")?;
    run.epoch = columns.get("epoch")?;
    run.crashes = columns.get("crashes")?;
    run.cancel = columns.get("cancel")?;
    run.base = columns.get("base")?;
    run.head_before = columns.get("head_before")?;
    run.rest_before = columns.get("rest_before")?;
    run.last_checkpoint = columns.get("last_checkpoint")?;
    run.commit = columns.get("commit_number")?;
    run.steps = columns.get("steps")?;
    run.consumed = columns.get("consumed")?;
    run.failure = columns.get::<Option<Bytes>>("failure")?.map(|json| from_json(operation, &json)).transpose()?;
    run.updated_at = columns.get("updated")?;
    Ok(run)
}

/// Reads a row with all columns of a question.
pub(crate) fn question(operation: &'static str, row: &Row) -> Result<QuestionRow, StoreError> {
    let columns = Columns::new(operation, row);
    let asked =
        NewQuestion::new(columns.get("id")?, columns.get("node")?, columns.get("step")?, columns.get("question")?);
    let mut question =
        QuestionRow::new(asked, columns.get("asked_by")?, columns.get("checkpoint")?, columns.get("created")?);
    question.status = columns.get("status")?;
    question.answered_by = columns.get("answered_by")?;
    question.answer = columns.get("answer")?;
    question.ended_by = columns.get("ended_by")?;
    Ok(question)
}

/// Reads a row with all columns of a task.
pub(crate) fn task(operation: &'static str, row: &Row) -> Result<TaskRow, StoreError> {
    let columns = Columns::new(operation, row);
    let name: Arc<str> = columns.get("name")?;
    let mut new = NewTask::new(columns.get("id")?, name, columns.get("args")?, columns.get("policy")?);
    new.delay = columns.get("delay")?;
    new.due = columns.get("asked_due")?;
    new.priority = columns.get("priority")?;
    new.key = match columns.get::<Option<Arc<str>>>("key")? {
        Some(key) => Some(TaskKey::new(columns.get::<Arc<str>>("key_scope")?, key, columns.get("key_policy")?)),
        None => None,
    };
    new.run = columns.get("run")?;
    new.node = columns.get("node")?;
    new.schedule = columns.get("schedule")?;
    let mut task = TaskRow::new(new, columns.get("created")?);
    task.status = columns.get("status")?;
    task.owner = columns.get::<Option<OwnerId>>("owner")?;
    task.epoch = columns.get("epoch")?;
    task.failed_attempts = columns.get("failed_attempts")?;
    task.crashes = columns.get("crashes")?;
    task.due = columns.get("due")?;
    task.cancel = columns.get("cancel")?;
    task.error = columns.get("error")?;
    task.first_claimed_at = columns.get("first_claimed")?;
    task.consumed = columns.get("consumed")?;
    task.updated_at = columns.get("updated")?;
    Ok(task)
}

/// Reads a row with all columns of a schedule.
pub(crate) fn schedule(operation: &'static str, row: &Row) -> Result<ScheduleRow, StoreError> {
    let columns = Columns::new(operation, row);
    let (name, task): (Arc<str>, Arc<str>) = (columns.get("name")?, columns.get("task")?);
    let mut schedule = ScheduleRow::new(name, task, columns.get("definition")?, columns.get("next_due")?);
    schedule.last_task = columns.get("last_task")?;
    Ok(schedule)
}
