//! Graphs as data: the programs that the generator makes, the builder builds and the interpreter runs.
//!
//! Times are milliseconds.

use std::fmt;

use agentflow::State;
use serde::{Deserialize, Serialize};

/// A reducer panics on this value.
pub(super) const POISON: u32 = 1_000;

/// The state of all programs. Each field has another reducer.
#[derive(Clone, Debug, Default, PartialEq, State, Serialize, Deserialize)]
pub(super) struct Trace {
    /// One line for each attempt.
    #[state(append)]
    pub(super) log: Vec<String>,
    /// Parallel nodes that replace the title conflict.
    pub(super) title: String,
    /// Routers decide by the total.
    #[state(with = add)]
    pub(super) total: u32,
}

fn add(total: &mut u32, value: u32) {
    if value == POISON {
        panic_silently("poison");
    }
    *total += value;
}

/// Panics without the hook, which would print thousands of messages.
pub(super) fn panic_silently(message: &str) -> ! {
    std::panic::resume_unwind(Box::new(message.to_owned()))
}

/// A graph with the limits of its run.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) graph: Graph,
    pub(super) run_timeout: Option<u64>,
}

/// A graph, which starts at its first step.
#[derive(Clone, Debug)]
pub(super) struct Graph {
    pub(super) steps: Vec<Step>,
    pub(super) recursion_limit: Option<usize>,
}

/// A step of a graph, or with [`ParallelWork`] of a branch, whose `END` is the join.
#[derive(Clone, Debug)]
pub(super) struct Step<W = Work> {
    pub(super) name: String,
    pub(super) work: W,
    pub(super) options: Options,
    pub(super) on_error: Option<usize>,
    pub(super) next: Next,
    /// `true` if all edges that lead to the step carry a value: the input of the node, or of the first nodes of a group.
    pub(super) takes_input: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Work {
    Node(Access, Script),
    /// A compiled graph as a node.
    Graph(Graph),
    Mapped(Mapped),
    Group(Group),
}

/// Parallel branches; an `each` has one.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) kind: GroupKind,
    pub(super) branches: Vec<Branch>,
}

/// The steps of a branch, which starts at the first one.
pub(super) type Branch = Vec<Step<ParallelWork>>;

#[derive(Clone, Copy, Debug)]
pub(super) enum GroupKind {
    All,
    Any,
    Each(Items),
}

/// The items of an `each`, as a function of the total.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_field_names, reason = "they are the names of the options")]
pub(super) struct Items {
    /// There are fewer items than this.
    pub(super) counts: u32,
    pub(super) offset: u32,
    /// The function panics if it has this number of items to return.
    pub(super) panics_at: Option<u32>,
    pub(super) max_parallel: Option<usize>,
    pub(super) max_items: Option<usize>,
}

impl Items {
    pub(super) fn items(self, state: &Trace) -> Result<Vec<u32>, &'static str> {
        let count = (state.total + self.offset) % self.counts;
        if self.panics_at == Some(count) {
            return Err("no items");
        }
        Ok((0..count).map(|index| state.total + 10 * index).collect())
    }
}

#[derive(Clone, Debug)]
pub(super) enum ParallelWork {
    Node(Script),
    Mapped(Mapped),
    Group(Group),
}

/// A compiled graph with `map_state`.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    pub(super) graph: Graph,
    pub(super) panics: Option<MapPanic>,
}

/// The function of a mapped graph that panics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum MapPanic {
    Into,
    Back,
}

/// The access of a node to the state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Access {
    /// `&mut S`
    InPlace,
    /// `&S`, with an update.
    Reading,
    /// `S`
    Owning,
}

/// The target of an edge; `None` is `END`.
pub(super) type Target = Option<usize>;

#[derive(Clone, Debug)]
pub(super) enum Next {
    Edge(Target),
    Decision(Decision),
}

#[derive(Clone, Debug)]
pub(super) struct Decision {
    /// `true` if the node returns the route, `false` if a router computes it.
    pub(super) is_from_node: bool,
    pub(super) formula: Formula,
    /// The arm with index `i` is for the route `i`. A route without an arm is an error.
    pub(super) arms: Vec<Target>,
}

impl Decision {
    /// Returns whether an arm carries a value.
    pub(super) fn carries<W>(&self, steps: &[Step<W>]) -> bool {
        self.arms.iter().flatten().any(|to| steps[*to].takes_input)
    }
}

/// The route as a function of the total.
#[derive(Clone, Copy, Debug)]
pub(super) struct Formula {
    pub(super) routes: u32,
    pub(super) offset: u32,
    pub(super) panics_at: Option<u32>,
}

/// A route: the arm, and the value that its edge carries if it leads to a step with an input.
#[derive(Clone, Copy)]
pub(super) struct ChosenRoute {
    pub(super) arm: u32,
    pub(super) value: u32,
}

impl PartialEq for ChosenRoute {
    fn eq(&self, other: &Self) -> bool {
        self.arm == other.arm
    }
}

impl fmt::Debug for ChosenRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.arm.fmt(f)
    }
}

impl Formula {
    pub(super) fn route(self, state: &Trace) -> Result<ChosenRoute, &'static str> {
        let arm = (state.total + self.offset) % self.routes;
        if self.panics_at == Some(arm) { Err("lost") } else { Ok(ChosenRoute { arm, value: state.total }) }
    }
}

/// The behaviour of a node: one act per attempt.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) acts: Vec<Act>,
}

impl Script {
    /// The total takes part, so that a node that is visited again may behave differently.
    pub(super) fn act(&self, total: u32, attempt: u32) -> Act {
        self.acts[(total + attempt - 1) as usize % self.acts.len()]
    }
}

/// An attempt: writes custom events, waits, changes the state and ends. A node with access in place changes the state
/// before it waits, except for the title.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act {
    pub(super) events: u32,
    pub(super) wait: u64,
    pub(super) adds: u32,
    pub(super) sets_title: bool,
    /// The reducer of the update panics; of nodes that read the state only.
    pub(super) is_poisoned: bool,
    pub(super) end: ActEnd,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ActEnd {
    Succeeds,
    /// Cancels the run's token, and succeeds.
    Cancels,
    Fails,
    Panics,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) retry: Option<Retry>,
    pub(super) timeout: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) retries: u32,
    pub(super) backoff: Option<u64>,
    pub(super) max_delay: Option<u64>,
    pub(super) max_total: Option<u64>,
    pub(super) when: When,
}

/// The predicate of a retry policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum When {
    Always,
    /// Retries panics only.
    Panics,
    /// The predicate itself panics.
    Faulty,
}

/// The reason for which the run came to a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived<'a> {
    /// The node that failed, and its last attempt.
    pub(super) seen: Option<(&'a str, u32)>,
    pub(super) input: Option<u32>,
}

/// Returns the line that an attempt adds to the log.
pub(super) fn log_line(node: &str, attempt: u32, arrived: Arrived<'_>, steps_left: usize) -> String {
    let mut line = format!("{node}#{attempt}, {steps_left} left");
    if let Some(value) = arrived.input {
        line.push_str(&[", given ", &value.to_string()].concat());
    }
    if let Some((failed, last)) = arrived.seen {
        line.push_str(&[", after ", failed, "#", &last.to_string()].concat());
    }
    line
}

impl Graph {
    /// Gives every step a name of its own.
    pub(super) fn name_steps(&mut self) {
        let mut count = 0;
        for step in &mut self.steps {
            count += 1;
            step.name = step.work.name(count);
            if let Work::Group(group) = &mut step.work {
                group.name_steps(&mut count);
            }
        }
    }

    /// Returns the names of the nodes that are no graphs, including those of nested graphs.
    pub(super) fn node_names(&self) -> Vec<String> {
        let names = self.steps.iter().flat_map(|step| match &step.work {
            Work::Node(..) => vec![step.name.clone()],
            Work::Graph(graph) | Work::Mapped(Mapped { graph, .. }) => graph.node_names(),
            Work::Group(group) => group.node_names(),
        });
        names.collect()
    }
}

impl Work {
    fn name(&mut self, number: usize) -> String {
        let letter = match self {
            Self::Node(..) => 'N',
            Self::Graph(graph) => {
                graph.name_steps();
                'S'
            }
            Self::Mapped(mapped) => {
                mapped.graph.name_steps();
                'M'
            }
            Self::Group(_) => 'G',
        };
        format!("{letter}{number}")
    }
}

impl Group {
    fn name_steps(&mut self, count: &mut usize) {
        for step in self.branches.iter_mut().flatten() {
            *count += 1;
            let letter = match &mut step.work {
                ParallelWork::Node(_) => 'P',
                ParallelWork::Mapped(mapped) => {
                    mapped.graph.name_steps();
                    'M'
                }
                ParallelWork::Group(_) => 'G',
            };
            step.name = format!("{letter}{count}");
            if let ParallelWork::Group(group) = &mut step.work {
                group.name_steps(count);
            }
        }
    }

    fn node_names(&self) -> Vec<String> {
        let names = self.branches.iter().flatten().flat_map(|step| match &step.work {
            ParallelWork::Node(_) => vec![step.name.clone()],
            ParallelWork::Mapped(mapped) => mapped.graph.node_names(),
            ParallelWork::Group(group) => group.node_names(),
        });
        names.collect()
    }
}

/// Makes the wiring of a path valid: removes the steps that no path leads to, and adds a path to the end where there is
/// none.
pub(super) fn repair<W: Clone>(mut steps: Vec<Step<W>>) -> Vec<Step<W>> {
    loop {
        let ends = closure(|found| {
            let leads = |step: &Step<W>| step.targets().any(|to| to.is_none_or(|to| found.contains(&to)));
            (0..steps.len()).find(|step| !found.contains(step) && leads(&steps[*step]))
        });
        let Some(stuck) = (0..steps.len()).find(|step| !ends.contains(step)) else { break };
        match &mut steps[stuck].next {
            Next::Edge(to) => *to = None,
            Next::Decision(decision) => decision.arms[0] = None,
        }
    }
    let mut reached = closure(|found| {
        let from = |to: usize| found.iter().any(|from| steps[*from].targets().any(|next| next == Some(to)));
        (0..steps.len()).find(|step| !found.contains(step) && (*step == 0 || from(*step)))
    });
    reached.sort_unstable();
    let mut kept: Vec<_> = reached.iter().map(|step| steps[*step].clone()).collect();
    for step in &mut kept {
        step.map_targets(|to| reached.binary_search(&to).ok());
    }
    kept
}

/// Collects the steps that `next` finds, until it finds nothing more.
fn closure(next: impl Fn(&[usize]) -> Option<usize>) -> Vec<usize> {
    let mut found = Vec::new();
    while let Some(step) = next(&found) {
        found.push(step);
    }
    found
}

impl<W> Step<W> {
    pub(super) fn new(work: W, options: Options, on_error: Option<usize>, next: Next) -> Self {
        Self { name: String::new(), work, options, on_error, next, takes_input: false }
    }

    fn targets(&self) -> impl Iterator<Item = Target> {
        let arms = match &self.next {
            Next::Edge(to) => vec![*to],
            Next::Decision(decision) => decision.arms.clone(),
        };
        arms.into_iter().chain(self.on_error.map(Some))
    }

    /// Returns whether an edge that carries no value leads to the step.
    pub(super) fn leads_plainly_to(&self, step: usize) -> bool {
        self.on_error == Some(step) || matches!(self.next, Next::Edge(Some(to)) if to == step)
    }

    /// Replaces all targets that are steps; `None` is the end.
    pub(super) fn map_targets(&mut self, map: impl Fn(usize) -> Target) {
        self.on_error = self.on_error.and_then(&map);
        match &mut self.next {
            Next::Edge(to) => *to = to.and_then(&map),
            Next::Decision(decision) => decision.arms.iter_mut().for_each(|to| *to = to.and_then(&map)),
        }
    }
}
