//! The check of what is in the store at the end.

use std::{collections::BTreeMap, path::Path};

use agentflow::{
    store::{RunFilter, RunRow, RunStatus, ThreadFilter},
    thread::ThreadStatus,
};

use crate::{
    Failed,
    graph::{self, Log},
    ledger::{Ledger, Notes},
    store::StoreKind,
};

/// The counts of a run of this program.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    notes: Notes,
    runs: usize,
    steps: usize,
    accepted: usize,
    /// Inputs that the store had accepted when the child died, before the child learned of it.
    unacknowledged: usize,
    /// Accepted inputs that are not in the state, and steps of inputs that are not.
    lost: usize,
    /// Inputs and steps that are in the state more than once.
    doubled: usize,
    /// Runs that are unfinished or have failed, and threads that wait.
    stuck: usize,
    pub(crate) mistakes: Vec<String>,
}

impl Verdict {
    /// Returns the rows of the table. Another kind of work, such as durable tasks, adds its own.
    pub(crate) fn rows(&self) -> Vec<(&'static str, u64)> {
        let executions: u64 = self.notes.executions.values().sum();
        let again = executions - self.notes.executions.len() as u64;
        vec![
            ("runs taken over", self.notes.recovered),
            ("runs", self.runs as u64),
            ("inputs accepted", (self.accepted + self.unacknowledged) as u64),
            ("  before the child learned of it", self.unacknowledged as u64),
            ("answers acknowledged", self.notes.answered),
            ("steps in the states", self.steps as u64),
            ("nodes executed", executions),
            ("  again, after a kill", again),
            ("lost", self.lost as u64),
            ("doubled", self.doubled as u64),
            ("stuck", self.stuck as u64),
        ]
    }

    /// Compares the state of a thread with the inputs that were sent to it.
    fn compare(&mut self, thread: &str, state: &Log) {
        let counts = |entries: &[String]| {
            entries.iter().fold(BTreeMap::<String, usize>::new(), |mut counts, entry| {
                *counts.entry(entry.clone()).or_default() += 1;
                counts
            })
        };
        let (inputs, marks) = (counts(&state.inputs), counts(&state.marks));
        let mut due: Vec<String> = Vec::new();
        let sent = self.notes.inputs.iter().filter(|(_, sent)| sent.thread == thread);
        let sent: Vec<_> = sent.map(|(input, sent)| (input.clone(), sent.is_accepted)).collect();
        for (input, is_accepted) in sent {
            let is_there = inputs.contains_key(&input);
            match (is_accepted, is_there) {
                (true, _) => self.accepted += 1,
                (false, true) => self.unacknowledged += 1,
                (false, false) => continue,
            }
            if !is_there {
                self.lose(format!("{thread}: input {input} was accepted, and is not in the state"));
            }
            due.extend(graph::steps_of(&input));
        }
        for mark in &due {
            if !marks.contains_key(mark) {
                self.lose(format!("{thread}: step {mark} is not in the state"));
            }
        }
        for (entry, count) in inputs.iter().chain(&marks).filter(|(_, count)| **count > 1) {
            self.doubled += 1;
            self.mistakes.push(format!("{thread}: {entry} is in the state {count} times"));
        }
        self.steps += state.marks.len();
        if state.steps != state.marks.len() as u64 {
            self.lose(format!("{thread}: {} steps were counted, and {} noted", state.steps, state.marks.len()));
        }
        if due.len() < marks.len() {
            self.mistakes.push(format!("{thread}: there are steps of inputs that nobody sent"));
        }
        // The inputs of a thread are worked on one after the other, each from its first node to its last.
        let in_order: Vec<_> = state.inputs.iter().flat_map(|input| graph::steps_of(input)).collect();
        if self.mistakes.is_empty() && in_order != state.marks {
            self.mistakes.push(format!("{thread}: the steps are not in the order of the inputs"));
        }
    }

    fn lose(&mut self, mistake: String) {
        self.lost += 1;
        self.mistakes.push(mistake);
    }

    fn count_run(&mut self, run: &RunRow) {
        self.runs += 1;
        if !matches!(run.status, RunStatus::Done | RunStatus::Waiting) {
            self.stuck += 1;
            self.mistakes
                .push(format!("run {} of {} is {:?}: {:?}", run.run.id, run.run.thread, run.status, run.failure));
        }
    }
}

/// Checks what is in the store.
pub(crate) async fn check(kind: StoreKind, folder: &Path, ledger: &Ledger) -> Result<Verdict, Failed> {
    let mut verdict = Verdict { notes: ledger.notes()?, ..Verdict::default() };
    let app = graph::app(kind, folder, ledger.clone())?;
    for run in app.threads().runs(RunFilter::default()).await? {
        verdict.count_run(&run);
    }
    let mut states: BTreeMap<String, Log> = BTreeMap::new();
    for row in app.threads().list(ThreadFilter::default()).await?.threads {
        if row.status != ThreadStatus::Idle {
            verdict.stuck += 1;
            verdict.mistakes.push(format!("thread {} is {:?}", row.id, row.status));
        }
        if let Some(state) = app.thread(row.id.as_str()).state().await? {
            states.insert(row.id.as_str().to_owned(), state.values);
        }
    }
    // An input may have been accepted on a thread that is not there.
    for sent in verdict.notes.inputs.values() {
        states.entry(sent.thread.clone()).or_default();
    }
    for (thread, state) in &states {
        verdict.compare(thread, state);
    }
    app.aclose().await;
    Ok(verdict)
}
