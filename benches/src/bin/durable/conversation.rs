//! A conversation that grows, and the bytes that its steps keep in the file.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use agentflow::{CompiledGraph, RunConfig, State, graph, node};
use agentflow_sqlite::SqliteStore;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Measured, Scale,
    figure::{Bar, Figure, Unit},
    step::each,
};

#[derive(Clone, Debug, Default, State, Serialize, Deserialize)]
struct Chat {
    #[state(append)]
    messages: Vec<String>,
    /// The number of messages at which the run ends.
    until: u64,
}

/// A function that compiles a graph with a store.
type App = fn(SqliteStore) -> CompiledGraph<Chat>;

fn message() -> String {
    "m".repeat(200)
}

#[node]
async fn in_place(state: &mut Chat) {
    state.messages.push(message());
}

#[node]
async fn by_update(_state: &Chat) -> ChatUpdate {
    Chat::update().messages([message()])
}

fn more(state: &Chat) -> bool {
    (state.messages.len() as u64) < state.until
}

fn in_place_app(store: SqliteStore) -> CompiledGraph<Chat> {
    graph! {
        name = "chat";
        in_place -> match more { true => in_place, false => END };
        compile { store: store, recursion_limit: usize::MAX }
    }
}

fn by_update_app(store: SqliteStore) -> CompiledGraph<Chat> {
    graph! {
        name = "chat";
        by_update -> match more { true => by_update, false => END };
        compile { store: store, recursion_limit: usize::MAX }
    }
}

pub(crate) fn figures(scale: Scale, folder: &Path) -> Measured {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut figures = Vec::new();
    let apps = [("updates", by_update_app as App), ("`&mut S`", in_place_app)];
    for (name, app) in apps {
        let path = folder.join(format!("chat-{}.db", figures.len()));
        let Grown { times, bytes } = grow(&runtime, app, &path, scale.messages);
        let [half, messages] = [scale.messages / 2, scale.messages];
        figures.push(
            Figure::new(format!("bytes kept of a step, {name}, {half} to {messages} messages"), Unit::Bytes, bytes[1])
                .beside(bytes[0], "the first half")
                .bar(Bar::AtMost(1_000.0)),
        );
        figures.push(
            Figure::new(format!("time of a step, {name}, the last tenth to {messages}"), Unit::Microseconds, times[1])
                .beside(times[0], "the first tenth"),
        );
    }
    Ok(figures)
}

struct Grown {
    /// The times of a step in the first and in the last tenth.
    times: [f64; 2],
    /// The bytes that a step adds to the file in the first and in the second half.
    bytes: [f64; 2],
}

/// Lets a conversation grow in ten runs, each by a process of its own as far as the store can tell.
fn grow(runtime: &Runtime, app: App, path: &Path, messages: u64) -> Grown {
    let (tenth, mut times, mut sizes) = (messages / 10, Vec::new(), vec![0]);
    for run in 1..=10 {
        let store = SqliteStore::open(path).expect("the file can be opened");
        let app = app(store.clone());
        let elapsed: Duration = runtime.block_on(async {
            let began = Instant::now();
            let outcome = app.thread("ada").invoke(Chat::update().until(run * tenth), RunConfig::new()).await;
            let elapsed = began.elapsed();
            let state = outcome.expect("the run succeeds").done().expect("it reaches the end");
            assert_eq!(state.messages.len() as u64, run * tenth);
            app.aclose().await;
            // The log is truncated at the close, so that the size of the file is that of its contents.
            agentflow::store::Store::close(&store).await.expect("the store is closed");
            elapsed
        });
        times.push(each(elapsed, tenth));
        sizes.push(fs::metadata(path).expect("the file exists").len());
    }
    let half = 5 * tenth;
    #[allow(clippy::cast_precision_loss, reason = "a figure with 15 digits is exact enough")]
    let per_step = |from: u64, to: u64| (to - from) as f64 / half as f64;
    Grown { times: [times[0], times[9]], bytes: [per_step(sizes[0], sizes[5]), per_step(sizes[5], sizes[10])] }
}
