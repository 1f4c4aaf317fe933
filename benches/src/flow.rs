//! `each` and `any`.

use std::{hint::black_box, io, sync::Arc, time::Instant};

use agentflow::{CompileOptions, CompiledGraph, END, RunConfig, State, StateGraph, graph, node};
use futures::{
    StreamExt, TryFutureExt,
    future::{BoxFuture, select_ok},
    stream,
};
use tokio::{runtime::Runtime, task::yield_now};

use crate::{Bar, Contest, Side, runtime};

/// The target for both, as a ratio to the same by hand.
const BAR: f64 = 2.0;
/// The number of items of an `each`.
const ITEMS: u64 = 100;
/// The number of items that run at once.
const PARALLEL: usize = 16;

#[derive(Clone, Debug, Default, State)]
struct Tally {
    #[state(with = add)]
    total: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "a state's reducer")]
fn add(total: &mut u64, more: u64) {
    *total = total.wrapping_add(more);
}

fn items(_: &Tally) -> std::ops::Range<u64> {
    0..black_box(ITEMS)
}

#[node]
async fn ready(_state: &Tally, input: u64) -> TallyUpdate {
    Tally::update().total(black_box(input))
}

#[node]
async fn waiting(_state: &Tally, input: u64) -> TallyUpdate {
    yield_now().await;
    Tally::update().total(black_box(input))
}

#[node]
async fn answers(_state: &Tally) -> TallyUpdate {
    yield_now().await;
    Tally::update().total(1)
}

#[node]
async fn hangs(_state: &Tally) -> TallyUpdate {
    std::future::pending().await
}

#[node]
async fn fails(_state: &Tally) -> Result<TallyUpdate, io::Error> {
    Err(io::ErrorKind::Other.into())
}

fn side(runtime: &Arc<Runtime>, name: &str, mut once: impl FnMut() -> BoxFuture<'static, Tally> + 'static) -> Side {
    let runtime = Arc::clone(runtime);
    Side::new(name, move |iterations| {
        runtime.block_on(async {
            let began = Instant::now();
            for _ in 0..iterations {
                black_box(once().await);
            }
            began.elapsed()
        })
    })
}

/// One side is the graph, the other is the stream of futures that a node would write by hand.
macro_rules! each {
    ($runtime:ident, $kind:literal, $node:ident) => {{
        let app = graph! { START -> each items { max_parallel: PARALLEL } { $node } -> END };
        let ours = side(&$runtime, "graph", move || {
            let app = app.clone();
            Box::pin(async move { app.invoke(Tally::default(), RunConfig::new()).await.expect("its nodes don't fail") })
        });
        let floor = side(&$runtime, "buffered", || {
            Box::pin(async {
                let mut state = Tally::default();
                let view = black_box(&state);
                let futures = items(view).map(|item| $node(view, item));
                let updates: Vec<_> = stream::iter(futures).buffered(PARALLEL).collect().await;
                for update in updates {
                    state.apply(update);
                }
                state
            })
        });
        Contest {
            name: format!("each of {ITEMS}, {}", $kind),
            per: ITEMS,
            ours,
            floors: vec![(floor, Some(Bar::Times(BAR)))],
        }
    }};
}

/// Builds a chain of `any` groups, in which the cost of the run itself hardly counts.
fn anys(groups: u64) -> CompiledGraph<Tally> {
    let mut graph = StateGraph::new();
    for group in 0..groups {
        let names = ["fails", "hangs", "answers"].map(|name| format!("{name} {group}"));
        graph.add_parallel_node(names[0].clone(), fails {});
        graph.add_parallel_node(names[1].clone(), hangs {});
        graph.add_parallel_node(names[2].clone(), answers {});
        graph.add_any(format!("any {group}"), names.map(|name| [name]));
        if group > 0 {
            graph.add_edge(format!("any {}", group - 1), format!("any {group}"));
        }
    }
    graph.add_edge(format!("any {}", groups - 1), END);
    graph.set_entry_point("any 0");
    graph.compile(CompileOptions::new()).expect("groups in a row are a graph")
}

/// One side is a run through this many `any` groups, the other is as many calls of `select_ok`.
fn any(runtime: &Arc<Runtime>, name: &str, groups: u64, bar: Option<Bar>) -> Contest {
    let app = anys(groups);
    let ours = side(runtime, "graph", move || {
        let app = app.clone();
        Box::pin(async move { app.invoke(Tally::default(), RunConfig::new()).await.expect("one node answers") })
    });
    let floor = side(runtime, "select_ok", move || {
        Box::pin(async move {
            let mut state = Tally::default();
            for _ in 0..groups {
                let view = black_box(&state);
                let branches: [BoxFuture<'_, io::Result<TallyUpdate>>; 3] = [
                    Box::pin(fails(view)),
                    Box::pin(async { Ok(hangs(view).await) }),
                    Box::pin(async { Ok(answers(view).await) }),
                ];
                let (update, _) = select_ok(branches).map_err(|error| error.kind()).await.expect("one branch answers");
                state.apply(update);
            }
            state
        })
    });
    Contest { name: name.to_owned(), per: groups, ours, floors: vec![(floor, bar)] }
}

/// Returns the contests beside the means of futures.
#[must_use]
pub fn contests() -> Vec<Contest> {
    let runtime = Arc::new(runtime::current_thread());
    vec![
        each!(runtime, "ready at once", ready),
        each!(runtime, "waiting once", waiting),
        any(&runtime, "any of 3", 100, Some(Bar::Times(BAR))),
        any(&runtime, "run with one any of 3", 1, None),
    ]
}
