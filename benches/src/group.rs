//! Parallel branches and their join.

use std::{hint::black_box, sync::Arc, time::Instant};

use agentflow::{CompileOptions, CompiledGraph, END, RunConfig, State, StateGraph, graph::ParallelNode, node};
use futures::future::join_all;
use tokio::{runtime::Runtime, task::yield_now};

use crate::{Bar, Contest, Side, runtime};

/// The target for the cost of a small group, as a ratio to the same group by hand.
const SMALL_GROUP: f64 = 3.0;

/// A state that sums up the branches' updates.
#[derive(Clone, Debug, Default, State)]
struct Tally {
    #[state(with = add)]
    total: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "a state's reducer")]
fn add(total: &mut u64, more: u64) {
    *total = total.wrapping_add(more);
}

/// A branch that completes at its first poll.
#[node]
async fn ready(state: &Tally) -> TallyUpdate {
    Tally::update().total(black_box(state.total) & 1)
}

/// A branch that waits once, as for IO.
#[node]
async fn waiting(state: &Tally) -> TallyUpdate {
    yield_now().await;
    Tally::update().total(black_box(state.total) & 1)
}

/// Builds a chain of groups, in which the cost of the run itself hardly counts.
fn groups<N: ParallelNode<Tally, Output = ()>>(
    groups: u64,
    branches: usize,
    branch: impl Fn() -> N,
) -> CompiledGraph<Tally> {
    let mut graph = StateGraph::new();
    for group in 0..groups {
        let names: Vec<_> = (0..branches).map(|index| format!("G{group}N{index}")).collect();
        for name in &names {
            graph.add_parallel_node(name.clone(), branch());
        }
        graph.add_group(format!("G{group}"), names.into_iter().map(|name| [name]));
        if group > 0 {
            graph.add_edge(format!("G{}", group - 1), format!("G{group}"));
        }
    }
    graph.add_edge(format!("G{}", groups - 1), END);
    graph.set_entry_point("G0");
    graph.compile(CompileOptions::new()).expect("groups in a row are a graph")
}

/// `tokio::join!` of five, and the merge.
macro_rules! join_five {
    ($branch:ident) => {
        async |state: &mut Tally| {
            let view = black_box(&*state);
            let (a, b, c, d, e) =
                tokio::join!($branch(view), $branch(view), $branch(view), $branch(view), $branch(view));
            for update in [a, b, c, d, e] {
                state.apply(update);
            }
        }
    };
}

/// `join_all` of a hundred, and the merge.
macro_rules! join_hundred {
    ($branch:ident) => {
        async |state: &mut Tally| {
            let view = black_box(&*state);
            for update in join_all((0..100).map(|_| $branch(view))).await {
                state.apply(update);
            }
        }
    };
}

fn ours(runtime: &Arc<Runtime>, app: CompiledGraph<Tally>) -> Side {
    let runtime = Arc::clone(runtime);
    Side::new("graph", move |iterations| {
        runtime.block_on(async {
            let began = Instant::now();
            for _ in 0..iterations {
                black_box(app.invoke(Tally::default(), RunConfig::new()).await.expect("its nodes don't fail"));
            }
            began.elapsed()
        })
    })
}

fn floor(runtime: &Arc<Runtime>, name: &str, groups: u64, group: impl AsyncFn(&mut Tally) + 'static) -> Side {
    let runtime = Arc::clone(runtime);
    Side::new(name, move |iterations| {
        runtime.block_on(async {
            let mut state = Tally::default();
            let began = Instant::now();
            for _ in 0..iterations * groups {
                group(&mut state).await;
            }
            black_box(&state);
            began.elapsed()
        })
    })
}

/// Returns the contests of groups beside the means of tokio and futures to wait for several futures.
#[must_use]
pub fn contests() -> Vec<Contest> {
    let runtime = Arc::new(runtime::current_thread());
    let small = |kind: &str, app, floor| Contest {
        name: format!("group of 5, {kind}"),
        per: 100,
        ours: ours(&runtime, app),
        floors: vec![(floor, Some(Bar::Times(SMALL_GROUP)))],
    };
    let large = |kind: &str, app, floor| Contest {
        name: format!("group of 100, {kind}"),
        per: 10,
        ours: ours(&runtime, app),
        floors: vec![(floor, None)],
    };
    vec![
        small("waiting once", groups(100, 5, || waiting {}), floor(&runtime, "join!", 100, join_five!(waiting))),
        small("ready at once", groups(100, 5, || ready {}), floor(&runtime, "join!", 100, join_five!(ready))),
        large("waiting once", groups(10, 100, || waiting {}), floor(&runtime, "join_all", 10, join_hundred!(waiting))),
        large("ready at once", groups(10, 100, || ready {}), floor(&runtime, "join_all", 10, join_hundred!(ready))),
    ]
}
