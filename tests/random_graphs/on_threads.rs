//! Random graphs on durable threads: a run whose process dies at random operations of its store, and is recovered each time,
//! ends as one whose process does not die.

use agentflow::{
    CompileOptions, RunConfig, RunId,
    store::{RunFilter, RunStatus},
};
use proptest::prelude::*;

use super::{
    build::compile_with,
    config,
    generator::{program, without_cancels},
    interpreter::{End, predict},
    program::{ActEnd, Graph, Group, Mapped, Next, Options, ParallelWork, Program, Script, Step, Trace, Work, repair},
};
use crate::durable::{
    faulty_store::{Faults, When},
    process::Process,
    stores::Memory,
};

/// The end of a run on a thread, as the store has it.
#[derive(Debug, PartialEq)]
struct Ended {
    status: RunStatus,
    /// The kind of the failure, and its node, unless one of several branches may be the first to exceed the limit.
    failure: Option<(String, Option<String>)>,
    state: Trace,
    next: Vec<String>,
    steps: u64,
}

/// Runs a graph once, in a process for each of the deaths, and in a last one. A process dies at the operation with this number,
/// if it lives for so long.
fn run(graph: &Graph, deaths: &[(usize, When)]) -> Ended {
    let stores = Memory::default();
    let config = RunConfig::new().with_run_id(RunId::new());
    for death in deaths.iter().map(Some).chain([None]) {
        let process = Process::start_paused(&stores);
        if let Some((operation, when)) = death {
            process.store().plan(Faults::death(*when).after(*operation));
        }
        let app = compile_with(graph, &|| CompileOptions::new().store(process.store())).unwrap();
        let thread = app.thread("a");
        let ended = process.run_until_death(async {
            let _ = app.recover().await.unwrap();
            // A repetition of the run waits for its end.
            drop(thread.invoke(Trace::update(), config.clone()).await);
            let state = thread.state().await.unwrap().unwrap();
            let run = thread.runs(RunFilter::default()).await.unwrap().remove(0);
            assert!(run.status.has_ended(), "{run:?}");
            Ended {
                status: run.status,
                failure: run.failure.map(|failure| {
                    let node = failure.node.filter(|_| &*failure.kind != "RecursionLimit");
                    (failure.kind.to_string(), node.map(|node| node.to_string()))
                }),
                state: state.values,
                next: state.next.iter().map(ToString::to_string).collect(),
                steps: run.steps,
            }
        });
        if let Some(ended) = ended {
            return ended;
        }
    }
    unreachable!("the last process does not die")
}

/// Removes what a run does not keep of a subgraph that it is inside: the attempts, the time and the state of before, to which a
/// failure goes back, and the count of the subgraph's own limit.
fn with_plain_subgraphs(mut graph: Graph) -> Graph {
    for step in &mut graph.steps {
        match &mut step.work {
            Work::Graph(inner) => {
                step.options = Options::default();
                step.on_error = None;
                *inner = with_plain_subgraphs(Graph { recursion_limit: None, ..inner.clone() });
            }
            Work::Group(group) => never_fails(group),
            Work::Node(..) | Work::Mapped(_) => {}
        }
    }
    // A fallback may be left that no step leads to.
    graph.steps = repair(graph.steps);
    graph
}

/// Lets the nodes of a group succeed. The branches of a group that is run again go on from where each of them was, so that
/// another one may be the first to fail.
fn never_fails(group: &mut Group) {
    for step in group.branches.iter_mut().flatten() {
        succeeds(step);
        match &mut step.work {
            ParallelWork::Node(script) => succeed(script),
            ParallelWork::Mapped(mapped) => graph_succeeds(mapped),
            ParallelWork::Group(group) => never_fails(group),
        }
    }
}

fn graph_succeeds(mapped: &mut Mapped) {
    mapped.panics = None;
    mapped.graph.recursion_limit = None;
    for step in &mut mapped.graph.steps {
        succeeds(step);
        match &mut step.work {
            Work::Node(_, script) => succeed(script),
            Work::Graph(inner) => {
                let mut whole = Mapped { graph: inner.clone(), panics: None };
                graph_succeeds(&mut whole);
                *inner = whole.graph;
            }
            Work::Mapped(inner) => graph_succeeds(inner),
            Work::Group(group) => never_fails(group),
        }
    }
}

fn succeeds<W>(step: &mut Step<W>) {
    step.options = Options::default();
    if let Next::Decision(decision) = &mut step.next {
        decision.formula.panics_at = None;
        decision.arms.resize(decision.formula.routes as usize, None);
    }
}

fn succeed(script: &mut Script) {
    for act in &mut script.acts {
        act.end = ActEnd::Succeeds;
        act.is_poisoned = false;
    }
}

/// Four deaths at most: a fifth one in a row would park the run.
fn deaths() -> impl Strategy<Value = Vec<(usize, When)>> {
    let when = any::<bool>().prop_map(|before| if before { When::Before } else { When::After });
    prop::collection::vec((0..28_usize, when), 1..=4)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_run_ends_as_if_its_processes_had_not_died(program in program(), deaths in deaths()) {
        // A cancel by a node of a run is a cancel of the process that it runs in. Without one, and without a timeout, the end does
        // not depend on when the processes die.
        let program = Program { graph: with_plain_subgraphs(without_cancels(program.graph)), run_timeout: None };
        let prediction = predict(&program, None);
        if !prediction.is_undefined {
            let whole = run(&program.graph, &[]);
            match &prediction.end {
                End::Reached(state) => {
                    prop_assert_eq!((whole.status, &whole.state), (RunStatus::Done, state));
                }
                End::Failed { .. } => prop_assert_eq!(whole.status, RunStatus::Failed),
            }
            prop_assert_eq!(run(&program.graph, &deaths), whole);
        }
    }
}
