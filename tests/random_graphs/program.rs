//! Graphs as data: the programs that the generator makes, the builder builds and the interpreter runs.
//!
//! Times are milliseconds.

use agentflow::State;

/// A reducer panics on this value.
pub(super) const POISON: u32 = 1_000;

/// The state of all programs. Each field has another reducer.
#[derive(Clone, Debug, Default, PartialEq, State)]
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

#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) work: Work,
    pub(super) options: Options,
    pub(super) on_error: Option<usize>,
    pub(super) next: Next,
}

#[derive(Clone, Debug)]
pub(super) enum Work {
    Node(Access, Script),
    /// A compiled graph as a node.
    Graph(Graph),
    Mapped(Mapped),
    Group(Branches),
}

pub(super) type Branches = Vec<Vec<Member>>;

/// A step of a branch.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) work: ParallelWork,
    pub(super) options: Options,
}

#[derive(Clone, Debug)]
pub(super) enum ParallelWork {
    Node(Script),
    Mapped(Mapped),
    Group(Branches),
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

/// The route as a function of the total.
#[derive(Clone, Copy, Debug)]
pub(super) struct Formula {
    pub(super) routes: u32,
    pub(super) offset: u32,
    pub(super) panics_at: Option<u32>,
}

impl Formula {
    pub(super) fn route(self, state: &Trace) -> Result<u32, &'static str> {
        let route = (state.total + self.offset) % self.routes;
        if self.panics_at == Some(route) { Err("lost") } else { Ok(route) }
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

/// Returns the line that an attempt adds to the log. `seen` is the failure that led the run to the node.
pub(super) fn log_line(node: &str, attempt: u32, seen: Option<(&str, u32)>) -> String {
    match seen {
        None => format!("{node}#{attempt}"),
        Some((failed, last)) => format!("{node}#{attempt} after {failed}#{last}"),
    }
}

impl Graph {
    /// Gives every step and member a name of its own.
    pub(super) fn name_steps(&mut self) {
        let mut count = 0;
        for step in &mut self.steps {
            let letter = match &mut step.work {
                Work::Node(..) => 'N',
                Work::Graph(graph) => {
                    graph.name_steps();
                    'S'
                }
                Work::Mapped(mapped) => {
                    mapped.graph.name_steps();
                    'M'
                }
                Work::Group(_) => 'G',
            };
            count += 1;
            step.name = format!("{letter}{count}");
            if let Work::Group(branches) = &mut step.work {
                name_members(branches, &mut count);
            }
        }
    }

    /// Returns the names of the nodes that are no graphs, including those of nested graphs.
    pub(super) fn node_names(&self) -> Vec<String> {
        let names = self.steps.iter().flat_map(|step| match &step.work {
            Work::Node(..) => vec![step.name.clone()],
            Work::Graph(graph) | Work::Mapped(Mapped { graph, .. }) => graph.node_names(),
            Work::Group(branches) => member_names(branches),
        });
        names.collect()
    }

    /// Makes the wiring valid: removes the steps that no path leads to, and adds a path to `END` where there is none.
    pub(super) fn repair(mut self) -> Self {
        loop {
            let ends = self.closure(|graph, found| {
                let leads = |step: &Step| step.targets().any(|to| to.is_none_or(|to| found.contains(&to)));
                (0..graph.steps.len()).find(|step| !found.contains(step) && leads(&graph.steps[*step]))
            });
            let Some(stuck) = (0..self.steps.len()).find(|step| !ends.contains(step)) else { break };
            match &mut self.steps[stuck].next {
                Next::Edge(to) => *to = None,
                Next::Decision(decision) => decision.arms[0] = None,
            }
        }
        let mut reached = self.closure(|graph, found| {
            let from = |to: usize| found.iter().any(|from| graph.steps[*from].targets().any(|next| next == Some(to)));
            (0..graph.steps.len()).find(|step| !found.contains(step) && (*step == 0 || from(*step)))
        });
        reached.sort_unstable();
        let place = |to: &mut usize| *to = reached.binary_search(to).unwrap_or_default();
        let mut steps: Vec<_> = reached.iter().map(|step| self.steps[*step].clone()).collect();
        for step in &mut steps {
            step.on_error.iter_mut().for_each(place);
            match &mut step.next {
                Next::Edge(to) => to.iter_mut().for_each(place),
                Next::Decision(decision) => decision.arms.iter_mut().flatten().for_each(place),
            }
        }
        Self { steps, ..self }
    }

    /// Collects what `next` finds, until it finds nothing more.
    fn closure(&self, next: impl Fn(&Self, &[usize]) -> Option<usize>) -> Vec<usize> {
        let mut found = Vec::new();
        while let Some(step) = next(self, &found) {
            found.push(step);
        }
        found
    }
}

impl Step {
    fn targets(&self) -> impl Iterator<Item = Target> {
        let arms = match &self.next {
            Next::Edge(to) => vec![*to],
            Next::Decision(decision) => decision.arms.clone(),
        };
        arms.into_iter().chain(self.on_error.map(Some))
    }
}

fn name_members(branches: &mut Branches, count: &mut usize) {
    for member in branches.iter_mut().flatten() {
        *count += 1;
        let letter = match &mut member.work {
            ParallelWork::Node(_) => 'P',
            ParallelWork::Mapped(mapped) => {
                mapped.graph.name_steps();
                'M'
            }
            ParallelWork::Group(_) => 'G',
        };
        member.name = format!("{letter}{count}");
        if let ParallelWork::Group(branches) = &mut member.work {
            name_members(branches, count);
        }
    }
}

fn member_names(branches: &Branches) -> Vec<String> {
    let names = branches.iter().flatten().flat_map(|member| match &member.work {
        ParallelWork::Node(_) => vec![member.name.clone()],
        ParallelWork::Mapped(mapped) => mapped.graph.node_names(),
        ParallelWork::Group(branches) => member_names(branches),
    });
    names.collect()
}
