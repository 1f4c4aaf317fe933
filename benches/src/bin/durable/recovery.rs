//! The recovery of many interrupted runs.

use std::{
    future::pending,
    path::Path,
    time::{Duration, Instant},
};

use agentflow::{
    CompiledGraph, RunConfig, State, graph, node,
    store::{RunFilter, RunStatus},
};
use agentflow_sqlite::SqliteStore;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Builder, task::JoinSet, time::sleep};

use crate::{
    Measured, Scale,
    figure::{Bar, Figure, Unit},
};

#[derive(Clone, Debug, Default, State, Serialize, Deserialize)]
struct Case {
    text: String,
    steps: u64,
}

/// Tells the node in the middle if it is cut off.
#[derive(Clone, Copy, Debug)]
struct IsCutOff(bool);

#[node]
async fn first(state: &mut Case) {
    state.steps += 1;
}

#[node]
async fn middle(state: &mut Case, #[inject] is_cut_off: &IsCutOff) {
    if is_cut_off.0 {
        pending::<()>().await;
    }
    state.steps += 1;
}

#[node]
async fn last(state: &mut Case) {
    state.steps += 1;
}

fn app(path: &Path, is_cut_off: bool) -> CompiledGraph<Case, IsCutOff> {
    let store = SqliteStore::open(path).expect("the file can be opened");
    graph! {
        name = "case";
        first -> middle -> last -> END;
        compile { store: store, services: IsCutOff(is_cut_off) }
    }
}

async fn count(app: &CompiledGraph<Case, IsCutOff>, status: RunStatus) -> usize {
    let mut filter = RunFilter::default();
    filter.status = Some(status);
    app.threads().runs(filter).await.expect("the runs can be listed").len()
}

pub(crate) fn figures(scale: Scale, folder: &Path) -> Measured {
    let path = folder.join("recovery.db");
    let runs = scale.interrupted;
    // The runtime is shut down with all that runs on it, as if the process were killed.
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(interrupt(&path, runs));
    runtime.shutdown_timeout(Duration::from_secs(10));

    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (taken, elapsed, done, failed) = runtime.block_on(async {
        let app = app(&path, false);
        let began = Instant::now();
        let report = app.recover().await.expect("the runs are taken over");
        let taken = began.elapsed();
        assert!(report.left.is_empty(), "runs were left: {:?}", report.left.first());
        assert_eq!(report.taken.len() as u64, runs);
        while !app.runs().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        let elapsed = began.elapsed();
        let counts = (count(&app, RunStatus::Done).await, count(&app, RunStatus::Failed).await);
        app.aclose().await;
        (taken, elapsed, counts.0, counts.1)
    });
    assert_eq!((done as u64, failed), (runs, 0), "a run was not brought to its end");
    Ok(vec![
        Figure::new(format!("recovery of {runs} interrupted runs, taken over"), Unit::Seconds, taken.as_secs_f64()),
        Figure::new("  and brought to their ends, 2 steps each", Unit::Seconds, elapsed.as_secs_f64()),
        #[allow(clippy::cast_precision_loss, reason = "a count is small")]
        Figure::new("  parked", Unit::Count, failed as f64).bar(Bar::AtMost(0.0)),
    ])
}

/// Begins runs, and returns when each stands in its second node.
async fn interrupt(path: &Path, runs: u64) {
    let app = app(path, true);
    let mut begun = JoinSet::new();
    for number in 0..runs {
        let thread = app.thread(format!("case-{number}"));
        begun.spawn(async move {
            let update = Case::update().text("x".repeat(1_000));
            drop(thread.spawn(update, RunConfig::new()).await.expect("the run is accepted"));
        });
    }
    while let Some(accepted) = begun.join_next().await {
        accepted.expect("no run is refused");
    }
    // Each run has committed its first step before it stands in its second node.
    loop {
        let mut filter = RunFilter::default();
        filter.status = Some(RunStatus::Running);
        let rows = app.threads().runs(filter).await.expect("the runs can be listed");
        if rows.iter().filter(|row| row.steps == 1).count() as u64 == runs {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}
