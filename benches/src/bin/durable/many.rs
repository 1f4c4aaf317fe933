//! Many threads at once.

use std::{path::Path, time::Instant};

use agentflow::{CompiledGraph, RunConfig, State, graph, node};
use agentflow_sqlite::SqliteStore;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Builder, task::JoinSet};

use crate::{
    Measured, Scale,
    figure::{Figure, Unit},
};

/// The steps of each thread.
const STEPS: u64 = 10;

#[derive(Clone, Debug, Default, State, Serialize, Deserialize)]
struct Counter {
    text: String,
    left: u64,
}

#[node]
async fn tick(state: &mut Counter) {
    state.left -= 1;
}

fn more(state: &Counter) -> bool {
    state.left > 0
}

fn app(store: SqliteStore) -> CompiledGraph<Counter> {
    graph! { name = "many"; tick -> match more { true => tick, false => END }; compile { store: store } }
}

pub(crate) fn figures(scale: Scale, folder: &Path) -> Measured {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let app = app(SqliteStore::open(folder.join("many.db"))?);
    let elapsed = runtime.block_on(async {
        let began = Instant::now();
        let mut runs = JoinSet::new();
        for number in 0..scale.threads {
            let thread = app.thread(format!("t{number}"));
            runs.spawn(async move {
                let update = Counter::update().text("x".repeat(1_000)).left(STEPS);
                let outcome = thread.invoke(update, RunConfig::new()).await.expect("the run succeeds");
                assert_eq!(outcome.done().expect("it reaches the end").left, 0);
            });
        }
        while let Some(ended) = runs.join_next().await {
            ended.expect("no run panics");
        }
        let elapsed = began.elapsed();
        app.aclose().await;
        elapsed
    });
    let threads = scale.threads;
    #[allow(clippy::cast_precision_loss, reason = "a figure with 15 digits is exact enough")]
    let rate = (threads * STEPS) as f64 / elapsed.as_secs_f64();
    Ok(vec![
        Figure::new(format!("{threads} threads of {STEPS} steps, 2 workers"), Unit::Seconds, elapsed.as_secs_f64()),
        Figure::new("  steps", Unit::PerSecond, rate),
    ])
}
