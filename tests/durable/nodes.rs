//! The state and the nodes of the tests.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use agentflow::{Ask, CompiledGraph, NodeError, NodeFailure, Route, State, graph, node, run::StepId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use super::faulty_store::FaultyStore;

#[derive(Clone, Debug, Default, PartialEq, State, Serialize, Deserialize)]
pub(super) struct Case {
    #[state(append)]
    pub(super) lines: Vec<String>,
    pub(super) weight: f64,
}

pub(super) fn line(text: &str) -> CaseUpdate {
    Case::update().lines([text.to_owned()])
}

/// All that is outside of the processes.
pub(super) struct World {
    /// The executions of nodes, by the ids of their steps, which have no run.
    journal: Mutex<Vec<String>>,
    /// The ids of the steps of the gated node.
    steps: Mutex<Vec<String>>,
    pub(super) entered: Notify,
    pub(super) gate: Semaphore,
    pub(super) failures: AtomicUsize,
    /// The commits that the hook has seen.
    pub(super) commits: Mutex<Vec<String>>,
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            journal: Mutex::default(),
            steps: Mutex::default(),
            entered: Notify::new(),
            gate: Semaphore::new(0),
            failures: AtomicUsize::new(0),
            commits: Mutex::default(),
        })
    }

    /// A world whose gate is open.
    pub(super) fn open() -> Arc<Self> {
        let world = Self::new();
        world.gate.add_permits(1_000);
        world
    }

    fn executed(&self, step: &StepId) {
        let step = step.to_string();
        let (run, rest) = step.split_once('/').unwrap();
        self.journal.lock().unwrap().push(rest.to_owned());
        assert!(run.parse::<agentflow::RunId>().is_ok(), "{step}");
        self.steps.lock().unwrap().push(step);
    }

    /// Returns the executions of nodes so far, each as the number of the step and the name of the node.
    pub(super) fn executions(&self) -> Vec<String> {
        self.journal.lock().unwrap().clone()
    }

    /// Returns the ids of the executed steps of a node.
    pub(super) fn steps_of(&self, node: &str) -> Vec<String> {
        let steps = self.steps.lock().unwrap();
        steps.iter().filter(|step| step.ends_with(&format!("/{node}"))).cloned().collect()
    }
}

#[node]
pub(super) async fn first(state: &mut Case, step: &StepId, #[inject] world: &Arc<World>) {
    world.executed(step);
    state.lines.push("first".to_owned());
}

/// A node that waits until the gate is open, which lets one execution pass.
#[node]
pub(super) async fn gated(state: &mut Case, step: &StepId, #[inject] world: &Arc<World>) {
    state.lines.push("gated".to_owned());
    world.executed(step);
    world.entered.notify_one();
    world.gate.acquire().await.unwrap().forget();
}

#[node]
pub(super) async fn second(state: &Case, step: &StepId, #[inject] world: &Arc<World>) -> CaseUpdate {
    world.executed(step);
    line(&format!("second after {}", state.lines.len()))
}

/// first -> gated -> second
pub(super) fn case(store: Arc<FaultyStore>, world: &Arc<World>) -> CompiledGraph<Case, Arc<World>> {
    let commits = Arc::clone(world);
    graph! {
        name = "case";
        first -> gated -> second -> END;
        compile {
            services: Arc::clone(world),
            store: store,
            on_commit: move |commit| commits.commits.lock().unwrap().push(commit.node.to_owned()),
        }
    }
}

/// The lines of a thread on which `case` has run once, with the input `input`.
pub(super) const WHOLE: [&str; 4] = ["input", "first", "gated", "second after 3"];

#[derive(Route)]
pub(super) enum Verdict {
    Good(u32),
    Bad,
}

/// A node that asks, and decides by the answer: zero is bad.
#[node]
pub(super) async fn ask(
    state: &mut Case,
    answer: Option<u32>,
    step: &StepId,
    #[inject] world: &Arc<World>,
) -> Result<Ask<String, Verdict>, NodeError> {
    world.executed(step);
    state.lines.push("asked".to_owned());
    let failures = &world.failures;
    if failures.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        return Err("not yet".into());
    }
    Ok(match answer {
        None => Ask::Question(format!("how many, after {}?", state.lines.len())),
        Some(0) => Ask::Done(Verdict::Bad),
        Some(number) => Ask::Done(Verdict::Good(number)),
    })
}

#[node]
pub(super) async fn take(state: &Case, input: u32, step: &StepId, #[inject] world: &Arc<World>) -> CaseUpdate {
    world.executed(step);
    line(&format!("took {input} after {}", state.lines.len()))
}

/// ask -> take, or ask again
pub(super) fn questions(store: Arc<FaultyStore>, world: &Arc<World>) -> CompiledGraph<Case, Arc<World>> {
    graph! {
        name = "questions";
        ask -> match { Verdict::Good(number) => take(number) -> END, Verdict::Bad => ask };
        compile { services: Arc::clone(world), store: store }
    }
}

#[node]
pub(super) async fn left(_state: &Case, step: &StepId, #[inject] world: &Arc<World>) -> CaseUpdate {
    world.executed(step);
    line("left")
}

#[node]
pub(super) async fn right(_state: &Case, step: &StepId, #[inject] world: &Arc<World>) -> CaseUpdate {
    world.executed(step);
    line("right")
}

#[node]
pub(super) async fn item(_state: &Case, input: u32, step: &StepId, #[inject] world: &Arc<World>) -> CaseUpdate {
    world.executed(step);
    line(&format!("item {input}"))
}

fn items(_: &Case) -> Vec<u32> {
    vec![3, 4, 5]
}

#[node]
pub(super) async fn fails(state: &mut Case, step: &StepId, #[inject] world: &Arc<World>) -> Result<(), NodeError> {
    world.executed(step);
    state.lines.push("half done".to_owned());
    Err("it always fails".into())
}

#[node]
pub(super) async fn repair(state: &mut Case, error: Option<&NodeFailure>, step: &StepId, #[inject] world: &Arc<World>) {
    world.executed(step);
    let error = error.map_or_else(|| "nothing".to_owned(), |error| format!("{}: {}", error.node, error.source));
    state.lines.push(format!("repaired {error}"));
}

/// A router: the loop ends at the second visit.
fn is_twice(state: &Case) -> bool {
    state.lines.iter().filter(|line| *line == "first").count() >= 2
}

/// A graph with all forms: a subgraph with an edge that carries a value, a loop, a fallback, a group and an `each`.
pub(super) fn all_forms(store: Arc<FaultyStore>, world: &Arc<World>) -> CompiledGraph<Case, Arc<World>> {
    graph! {
        name = "all_forms";
        graph INNER {
            first -> second -> match is_twice { true => END, false => first };
        }
        node FAILS = fails { on_error: repair };
        INNER -> FAILS -> END;
        repair -> { left, right } -> each items { item } -> gated -> END;
        compile { services: Arc::clone(world), store: store }
    }
}

/// The lines of a thread on which `all_forms` has run once, with the input `input`.
pub(super) const ALL_FORMS: [&str; 12] = [
    "input",
    "first",
    "second after 2",
    "first",
    "second after 4",
    "repaired FAILS: it always fails",
    "left",
    "right",
    "item 3",
    "item 4",
    "item 5",
    "gated",
];

#[node]
pub(super) async fn pick_left(
    _state: &Case,
    answer: Option<u32>,
    step: &StepId,
    #[inject] world: &Arc<World>,
) -> Ask<String, CaseUpdate> {
    world.executed(step);
    answer.map_or_else(|| Ask::Question("left?".to_owned()), |number| Ask::Done(line(&format!("left {number}"))))
}

#[node]
pub(super) async fn pick_right(
    _state: &Case,
    answer: Option<u32>,
    step: &StepId,
    #[inject] world: &Arc<World>,
) -> Ask<String, CaseUpdate> {
    world.executed(step);
    answer.map_or_else(|| Ask::Question("right?".to_owned()), |number| Ask::Done(line(&format!("right {number}"))))
}

/// A group with two branches that ask, and a node before one of them.
pub(super) fn group_of_questions(store: Arc<FaultyStore>, world: &Arc<World>) -> CompiledGraph<Case, Arc<World>> {
    graph! {
        name = "group_of_questions";
        first -> { pick_left, right -> pick_right } -> second -> END;
        compile { services: Arc::clone(world), store: store }
    }
}
