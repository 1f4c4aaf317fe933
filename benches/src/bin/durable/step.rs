//! The cost of a step, beside the store's own commit.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use agentflow::{
    CompiledGraph, RunConfig, RunId, State, graph, node,
    store::{
        BeginRun, Begun, CheckpointId, Commit, MemoryStore, NewCheckpoint, NewRun, NewValues, OnBusyThread, OwnerId,
        RunStart, Source, Store, Stored, delta,
    },
};
use agentflow_benches::measure::median;
use agentflow_sqlite::SqliteStore;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Measured, Scale,
    figure::{Bar, Figure, Unit},
};

/// A state whose JSON has about 1 KiB.
#[derive(Clone, Debug, Default, State, Serialize, Deserialize)]
struct Counter {
    text: String,
    left: u64,
}

impl Counter {
    fn start(steps: u64) -> CounterUpdate {
        Self::update().text("x".repeat(1_000)).left(steps)
    }
}

/// The moments at which steps began.
#[derive(Clone, Debug, Default)]
struct Ticks(Arc<Mutex<Vec<Instant>>>);

impl Ticks {
    fn tick(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    /// Returns the median of the times between two moments, in microseconds. Other work on the machine interrupts some steps,
    /// and not most of them.
    fn median(&self) -> f64 {
        let moments = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        median(moments.windows(2).map(|pair| each(pair[1] - pair[0], 1)).collect())
    }
}

#[node]
async fn tick(state: &mut Counter, #[inject] ticks: &Ticks) {
    ticks.tick();
    state.left -= 1;
}

#[node]
async fn tock(state: &mut Counter, #[inject] ticks: &Ticks) {
    ticks.tick();
    state.left -= 1;
}

fn more(state: &Counter) -> bool {
    state.left > 0
}

fn plain(ticks: Ticks) -> CompiledGraph<Counter, Ticks> {
    graph! {
        name = "step";
        tick -> tock -> match more { true => tick, false => END };
        compile { services: ticks, recursion_limit: usize::MAX }
    }
}

fn stored<T: Store>(store: T, ticks: Ticks) -> CompiledGraph<Counter, Ticks> {
    graph! {
        name = "step";
        tick -> tock -> match more { true => tick, false => END };
        compile { store: store, services: ticks, recursion_limit: usize::MAX }
    }
}

pub(crate) fn figures(scale: Scale, folder: &Path) -> Measured {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (store, ticks) = (SqliteStore::open(folder.join("step.db"))?, Ticks::default());
    let on_sqlite = stored(store.clone(), ticks.clone());
    let as_json = stored(MemoryStore::new(), ticks.clone());
    let in_memory = plain(ticks.clone());
    let commits = Commits { store, owner: OwnerId::new() };
    let mut samples: [Vec<f64>; 5] = Default::default();
    for sample in 0..scale.samples {
        let name = format!("t{sample}");
        // The sides take turns, so that other load on the machine disturbs them alike.
        commits.send(&runtime, &ticks, scale.steps, &name);
        samples[0].push(ticks.median());
        thread(&runtime, &on_sqlite, scale.steps, &name);
        samples[1].push(ticks.median());
        invoke(&runtime, &in_memory, scale.steps);
        samples[2].push(ticks.median());
        thread(&runtime, &in_memory, scale.steps, &name);
        samples[3].push(ticks.median());
        thread(&runtime, &as_json, scale.steps, &name);
        samples[4].push(ticks.median());
    }
    let [commit, sqlite, invoke, memory, json] = samples.map(median);
    for app in [on_sqlite, in_memory, as_json] {
        runtime.block_on(app.aclose());
    }
    Ok(vec![
        Figure::new("step, SQLite, state of 1 KiB", Unit::Microseconds, sqlite)
            .beside(commit, "the store's commit")
            .bar(Bar::Above(30.0)),
        Figure::new("step, thread in memory, state of 1 KiB", Unit::Microseconds, memory)
            .beside(invoke, "plain invoke"),
        Figure::new("step, `MemoryStore`, state of 1 KiB", Unit::Microseconds, json).beside(invoke, "plain invoke"),
    ])
}

/// Returns the microseconds of one of so many.
#[allow(clippy::cast_precision_loss, reason = "a figure with 15 digits is exact enough")]
pub(crate) fn each(elapsed: Duration, count: u64) -> f64 {
    elapsed.as_secs_f64() * 1e6 / count as f64
}

fn thread(runtime: &Runtime, app: &CompiledGraph<Counter, Ticks>, steps: u64, name: &str) {
    let outcome = runtime.block_on(app.thread(name).invoke(Counter::start(steps), RunConfig::new()));
    let state = outcome.expect("the run succeeds").done().expect("it reaches the end");
    assert_eq!(state.left, 0);
}

fn invoke(runtime: &Runtime, app: &CompiledGraph<Counter, Ticks>, steps: u64) {
    let state = Counter { text: "x".repeat(1_000), left: steps };
    let state = runtime.block_on(app.invoke(state, RunConfig::new())).expect("the run succeeds");
    assert_eq!(state.left, 0);
}

/// The commits of such a run, sent to the store directly: the same SQL through the same thread.
struct Commits {
    store: SqliteStore,
    owner: OwnerId,
}

impl Commits {
    fn send(&self, runtime: &Runtime, ticks: &Ticks, steps: u64, name: &str) {
        let (store, owner, ticks) = (self.store.clone(), self.owner, ticks.clone());
        let run = RunId::new();
        let state =
            |left| serde_json::to_vec(&Counter { text: "x".repeat(1_000), left }).expect("a state is JSON").into();
        let states: Vec<Bytes> = (0..=steps).rev().map(state).collect();
        let values = values_of(&states);
        let thread = format!("raw-{name}").parse().expect("it is the id of a thread");
        // A task drives a run, and so does one here.
        let sent = runtime.spawn(async move {
            // It may have joined for the sample before.
            let _ = store.join(owner, Duration::from_mins(5)).await;
            let mut start = RunStart::at(None);
            start.checkpoints.push(checkpoint(run, 0, NewValues::Snapshot(Stored::Json(states[0].clone()))));
            let json = || Stored::from(b"{}".to_vec());
            let new = NewRun::new(run, thread, "raw".into(), owner, json(), json());
            let begun = store.begin_run(BeginRun::new(new, OnBusyThread::Reject, start)).await.expect("the run begins");
            let Begun::Running(started) = begun else { panic!("the run has not begun") };
            let mut parent: Option<CheckpointId> = started.checkpoints.last().copied();
            for (number, values) in (1..).zip(values) {
                let mut commit = Commit::new(run, 1, number, parent);
                commit.steps = number;
                commit.checkpoint = Some(checkpoint(run, number, values));
                ticks.tick();
                parent = store.commit(commit).await.expect("the store commits").checkpoint;
            }
        });
        runtime.block_on(sent).expect("the commits succeed");
    }
}

/// Returns what the runtime would write: the difference to the state before, and the whole state where the differences outweigh 4 KiB.
fn values_of(states: &[Bytes]) -> Vec<NewValues> {
    let mut length = 0;
    let pairs = states.windows(2);
    pairs
        .map(|pair| {
            let delta = delta::difference(&pair[0], &pair[1]).expect("both are JSON").expect("they differ");
            length += delta.len();
            if length > 4 * 1024 {
                length = 0;
                return NewValues::Snapshot(Stored::Json(pair[1].clone()));
            }
            NewValues::Delta(delta.into())
        })
        .collect()
}

fn checkpoint(run: RunId, number: u64, values: NewValues) -> NewCheckpoint {
    let node = if number.is_multiple_of(2) { "tick" } else { "tock" };
    let position = format!(r#"{{"path":["{node}"],"origin":["{run}",{}]}}"#, number + 1);
    NewCheckpoint::new(Source::Loop, values, vec![node.into()], Stored::from(position.into_bytes()))
}
