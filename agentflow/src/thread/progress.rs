//! [`Branches`]: the progress of the branches of a group, as a store holds it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    codec::{self, Values},
    error::ThreadError,
    position::StoredFailure,
};
use crate::{
    carried::{Carried, Input, InputType},
    panics::catch_panic,
    question::Answer,
    run::{RunId, recorder::BranchRecord},
    session::{Session, patiently},
    state::State,
    store::{NewTask, ProgressRecord, StoreError, Stored},
    sync::Mutex,
};

/// The path under which the items of an `each` are recorded.
const ITEMS: &str = "items";

/// The branches of the group at which a run is, with the records of earlier runs.
pub(super) struct Branches<S: State> {
    writer: Arc<Writer>,
    values: Values<S>,
    /// The records of earlier runs, by the path of the branch, until the group ends.
    before: Mutex<HashMap<Arc<str>, Stored>>,
    /// Set if an answer has begun the run.
    pub(super) answers: bool,
    /// The answers that the nodes of the step have not taken yet.
    open_answers: Mutex<Vec<(Arc<str>, Answer)>>,
}

/// Writes records behind the branches. Records of one path are coalesced.
#[derive(Debug)]
struct Writer {
    session: Arc<Session>,
    run: RunId,
    epoch: u64,
    pending: Mutex<BTreeMap<Arc<str>, ProgressRecord>>,
    /// Held while records are written, so that they are written in order.
    writing: tokio::sync::Mutex<()>,
    /// The step whose records are in the store, until a commit deletes them.
    step: Mutex<Option<Arc<str>>>,
}

/// The form of a branch in JSON.
#[derive(Serialize, Deserialize)]
struct BranchJson {
    updates: Vec<(Arc<str>, Box<RawValue>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<StoredFailure>,
    taken: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    spawned: Vec<NewTask>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    asked: Vec<Arc<str>>,
}

impl<S: State> Branches<S> {
    pub(super) fn new(
        session: Arc<Session>,
        run: RunId,
        epoch: u64,
        values: Values<S>,
        before: Vec<ProgressRecord>,
        answers: bool,
        open_answers: Vec<(Arc<str>, Answer)>,
    ) -> Self {
        let step = before.first().map(|record| Arc::clone(&record.step));
        let before = Mutex::new(before.into_iter().map(|record| (record.path, record.record)).collect());
        let writer = Writer {
            session,
            run,
            epoch,
            pending: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            step: Mutex::new(step),
        };
        Self { writer: Arc::new(writer), values, before, answers, open_answers: Mutex::new(open_answers) }
    }

    fn record_of(&self, path: &str) -> Option<Stored> {
        self.before.lock().get(path).cloned()
    }

    pub(super) fn items(&self, input: InputType) -> Result<Option<Vec<Input>>, ThreadError> {
        match self.record_of(ITEMS) {
            None => Ok(None),
            Some(Stored::Shared(items)) => Ok(items.downcast_ref::<Vec<Input>>().cloned()),
            Some(Stored::Json(json)) => {
                let items: Vec<Box<RawValue>> = serde_json::from_slice(&json).map_err(|error| unreadable(&error))?;
                items.iter().map(|item| codec::decode_input(item, input)).collect::<Result<_, _>>().map(Some)
            }
        }
    }

    pub(super) fn record_items(&self, step: Arc<str>, items: &[Input], input: InputType) -> Result<(), ThreadError> {
        let stored = if self.values.are_kept() {
            Stored::Shared(Arc::new(items.to_vec()))
        } else {
            let items = items.iter().map(|item| codec::encode_input(item, input));
            json_of(&items.collect::<Result<Vec<_>, _>>()?)?
        };
        self.writer.push(ProgressRecord::new(step, ITEMS.into(), stored));
        Ok(())
    }

    pub(super) fn branch(
        &self,
        key: &str,
        input: impl Fn(&str) -> InputType,
    ) -> Result<Option<BranchRecord>, ThreadError> {
        match self.record_of(key) {
            None => Ok(None),
            Some(Stored::Shared(record)) => Ok(record.downcast_ref::<KeptRecord>().map(KeptRecord::record)),
            Some(Stored::Json(json)) => {
                let read: BranchJson = serde_json::from_slice(&json).map_err(|error| unreadable(&error))?;
                let BranchJson { updates, next, input: value, error, taken, spawned, asked } = read;
                let update = |(node, update): (Arc<str>, Box<RawValue>)| {
                    let update = self.values.load_update(update.get().as_bytes());
                    let update: Arc<Carried> = Arc::new(update.map_err(|error| super::unreadable(error.to_string()))?);
                    Ok((node, update))
                };
                let updates = updates.into_iter().map(update).collect::<Result<_, ThreadError>>()?;
                let input = match (value, &next) {
                    (Some(value), Some(next)) => Some(codec::decode_input(&value, input(next))?),
                    _ => None,
                };
                let error = error.map(StoredFailure::restore);
                Ok(Some(BranchRecord { updates, next, input, error, taken, spawned, asked }))
            }
        }
    }

    pub(super) fn record_branch(
        &self,
        step: Arc<str>,
        key: &str,
        record: BranchRecord,
        input: Option<InputType>,
    ) -> Result<(), ThreadError> {
        let stored = if self.values.are_kept() {
            Stored::Shared(Arc::new(KeptRecord::of(record)))
        } else {
            let BranchRecord { updates, next, input: value, error, taken, spawned, asked } = record;
            let update = |(node, update): (Arc<str>, Arc<Carried>)| {
                // A group hands over the updates of its own state.
                let update = update.downcast_ref::<S::Update>().ok_or(ThreadError::NotSerializable)?;
                let json = self.values.update_json(update)?.ok_or(ThreadError::NotSerializable)?;
                let json = serde_json::from_slice(&json).map_err(|error| unreadable(&error))?;
                Ok((node, json))
            };
            let updates = updates.into_iter().map(update).collect::<Result<_, ThreadError>>()?;
            let input = match (value, input) {
                (Some(value), Some(input)) => Some(codec::encode_input(&value, input)?),
                _ => None,
            };
            let error = error.as_ref().map(StoredFailure::of);
            json_of(&BranchJson { updates, next, input, error, taken, spawned, asked })?
        };
        self.writer.push(ProgressRecord::new(step, key.into(), stored));
        Ok(())
    }

    pub(super) fn is_answered(&self, node: &str) -> bool {
        self.open_answers.lock().iter().any(|(answered, _)| &**answered == node)
    }

    pub(super) fn take_answer(&self, node: &str) -> Option<Answer> {
        let mut answers = self.open_answers.lock();
        let index = answers.iter().position(|(answered, _)| &**answered == node)?;
        Some(answers.swap_remove(index).1)
    }

    /// Writes what is pending.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        self.writer.flush().await
    }

    /// Ends the group: what is pending is dropped, and a later visit of the group finds no records. Returns the step whose records the commit deletes.
    pub(super) async fn end(&self) -> Option<Arc<str>> {
        let _writing = self.writer.writing.lock().await;
        self.before.lock().clear();
        self.writer.pending.lock().clear();
        self.writer.step.lock().take()
    }
}

impl Writer {
    /// Adds a record, which is written soon.
    fn push(self: &Arc<Self>, record: ProgressRecord) {
        *self.step.lock() = Some(Arc::clone(&record.step));
        let is_first = {
            let mut pending = self.pending.lock();
            let is_first = pending.is_empty();
            pending.insert(Arc::clone(&record.path), record);
            is_first
        };
        if is_first {
            let writer = Arc::clone(self);
            tokio::spawn(async move {
                // What is not written runs again, and the commit of the run tells what is wrong.
                if let Err(error) = writer.flush().await {
                    catch_panic(
                        || tracing::debug!(run = %writer.run, %error, "the progress of a group was not written"),
                    );
                }
            });
        }
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let pending: Vec<_> = std::mem::take(&mut *self.pending.lock()).into_values().collect();
        if pending.is_empty() {
            return Ok(());
        }
        patiently(|| self.session.store.record(self.run, self.epoch, pending.clone())).await
    }
}

/// A branch in a store that keeps values.
struct KeptRecord(BranchRecord);

impl KeptRecord {
    fn of(record: BranchRecord) -> Self {
        Self(record)
    }

    fn record(&self) -> BranchRecord {
        let BranchRecord { updates, next, input, error, taken, spawned, asked } = &self.0;
        BranchRecord {
            updates: updates.clone(),
            next: next.clone(),
            input: input.clone(),
            error: error.as_ref().map(|error| StoredFailure::of(error).restore()),
            taken: *taken,
            spawned: spawned.clone(),
            asked: asked.clone(),
        }
    }
}

fn json_of<T: Serialize>(value: &T) -> Result<Stored, ThreadError> {
    let json = serde_json::to_vec(value);
    json.map(Stored::from).map_err(|error| ThreadError::Unwritable { error: error.to_string() })
}

fn unreadable(error: &serde_json::Error) -> ThreadError {
    super::unreadable(format!("the progress of a group: {error}"))
}
