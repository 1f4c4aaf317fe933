//! Chains of steps.

use std::{hint::black_box, sync::Arc, time::Instant};

use agentflow::{CompileOptions, CompiledGraph, END, RunConfig, State, StateGraph, graph, node};
use tokio::runtime::Runtime;

use crate::{Bar, Contest, Side, runtime};

/// The target for the cost of a step over a call by hand, in nanoseconds.
const STEP: f64 = 100.0;

/// The target for the cost of a step with a state a thousand times as large, as a ratio.
const FLAT: f64 = 1.2;

const LOOP_STEPS: u64 = 10_000;

/// A state whose cost to copy grows with its notes.
#[derive(Clone, Debug, Default, State)]
pub(crate) struct Notebook {
    steps: u64,
    #[state(append)]
    notes: Vec<String>,
}

impl Notebook {
    /// Creates a state with this many notes of a kilobyte.
    fn with_notes(count: usize) -> Self {
        Self { steps: 0, notes: vec!["x".repeat(1024); count] }
    }
}

/// Increments a counter, which is about the least that a node can do.
#[node]
async fn step(state: &mut Notebook) {
    state.steps += 1;
}

#[node]
async fn and_back(state: &mut Notebook) {
    state.steps += 1;
}

/// Builds a chain of this many nodes.
pub(crate) fn chain(nodes: u64) -> CompiledGraph<Notebook> {
    let mut graph = StateGraph::new();
    for index in 0..nodes {
        graph.add_node(format!("N{index}"), step {});
        if index > 0 {
            graph.add_edge(format!("N{}", index - 1), format!("N{index}"));
        }
    }
    graph.add_edge(format!("N{}", nodes - 1), END);
    graph.set_entry_point("N0");
    graph.compile(CompileOptions::new()).expect("a chain is a graph")
}

/// Makes the same calls without a graph.
pub(crate) async fn by_hand(state: &mut Notebook, nodes: u64) {
    for _ in 0..nodes {
        step(black_box(&mut *state)).await;
    }
}

fn to_and_fro() -> CompiledGraph<Notebook> {
    graph! {
        step -> and_back -> match is_going_on {
            true => step,
            false => END,
        };
        compile { recursion_limit: usize::try_from(LOOP_STEPS).unwrap_or(usize::MAX) }
    }
}

fn is_going_on(state: &Notebook) -> bool {
    !state.steps.is_multiple_of(LOOP_STEPS)
}

async fn to_and_fro_by_hand(state: &mut Notebook) {
    loop {
        step(black_box(&mut *state)).await;
        and_back(black_box(&mut *state)).await;
        if !is_going_on(state) {
            return;
        }
    }
}

/// Runs the graph on one state again and again.
fn ours(runtime: &Arc<Runtime>, name: &str, app: CompiledGraph<Notebook>, state: Notebook) -> Side {
    let runtime = Arc::clone(runtime);
    let mut state = Some(state);
    Side::new(name, move |iterations| {
        runtime.block_on(async {
            let mut notebook = state.take().unwrap_or_default();
            let began = Instant::now();
            for _ in 0..iterations {
                notebook = app.invoke(notebook, RunConfig::new()).await.expect("its nodes don't fail");
            }
            let elapsed = began.elapsed();
            state = Some(notebook);
            elapsed
        })
    })
}

/// Makes the same calls on one state again and again.
fn floor(runtime: &Arc<Runtime>, mut once: impl AsyncFnMut(&mut Notebook) + 'static) -> Side {
    let runtime = Arc::clone(runtime);
    let mut notebook = Notebook::default();
    Side::new("calls by hand", move |iterations| {
        runtime.block_on(async {
            let began = Instant::now();
            for _ in 0..iterations {
                once(&mut notebook).await;
            }
            began.elapsed()
        })
    })
}

/// Returns the contests of chains and a loop beside calls by hand, and of a large state beside a small one.
#[must_use]
pub fn contests() -> Vec<Contest> {
    let runtime = Arc::new(runtime::current_thread());
    let chains = [10, 100, 1_000].map(|nodes| Contest {
        name: format!("chain of {nodes}"),
        per: nodes,
        ours: ours(&runtime, "graph", chain(nodes), Notebook::default()),
        floors: vec![(floor(&runtime, async move |state| by_hand(state, nodes).await), Some(Bar::Above(STEP)))],
    });
    let single = Contest {
        name: "chain of 1".into(),
        per: 1,
        ours: ours(&runtime, "graph", chain(1), Notebook::default()),
        floors: vec![(floor(&runtime, async |state| by_hand(state, 1).await), None)],
    };
    let to_and_fro = Contest {
        name: "loop of 2, 10k steps".into(),
        per: LOOP_STEPS,
        ours: ours(&runtime, "graph", to_and_fro(), Notebook::default()),
        floors: vec![(floor(&runtime, async |state| to_and_fro_by_hand(state).await), Some(Bar::Above(STEP)))],
    };
    let large_state = Contest {
        name: "chain of 100, state of 1 MB".into(),
        per: 100,
        ours: ours(&runtime, "1 MB", chain(100), Notebook::with_notes(1024)),
        floors: vec![(ours(&runtime, "state of 1 KB", chain(100), Notebook::with_notes(1)), Some(Bar::Times(FLAT)))],
    };
    [single].into_iter().chain(chains).chain([to_and_fro, large_state]).collect()
}

/// Runs a graph once.
pub(crate) fn run_once(runtime: &Runtime, app: &CompiledGraph<Notebook>) {
    runtime.block_on(app.invoke(Notebook::default(), RunConfig::new())).expect("its nodes don't fail");
}
