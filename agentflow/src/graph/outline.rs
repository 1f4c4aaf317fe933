//! [`Outline`]: the parts of a graph that pictures and the graph around it see.

use std::sync::Arc;

use super::topology::{Next, StepId};
use crate::{carried::InputType, question::AnswerType, task::BackgroundTaskManager};

/// The parts of a graph that pictures and the graph around it see.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Outline {
    pub(super) name: Arc<str>,
    pub(super) steps: Vec<OutlineStep>,
    pub(super) entry: StepId,
    /// The number of graphs and groups that are inside each other in this graph.
    pub(super) nesting: usize,
    /// Set if a node of the graph asks questions.
    pub(super) asks: bool,
    /// The task manager that the graph was compiled with, if it has one of its own.
    pub(super) manager: Option<BackgroundTaskManager>,
    /// An option that the graph was compiled with, and that has no effect where the graph is a node.
    pub(super) outer_option: Option<&'static str>,
}

/// A task manager of a graph that is a node.
#[derive(Clone, Debug)]
pub(crate) struct NestedManager {
    /// The path of the node.
    pub(crate) node: Arc<str>,
    pub(crate) manager: BackgroundTaskManager,
}

#[derive(Clone, Debug)]
pub(super) struct OutlineStep {
    /// The name in the events of a run.
    pub(super) name: Arc<str>,
    pub(super) label: String,
    pub(super) contents: StepContents,
    pub(super) edges: Vec<Edge>,
    pub(super) on_error: Option<StepId>,
    /// The type of the value that the step receives.
    pub(super) input: InputType,
    /// The type of the answer that the node takes, if it asks.
    pub(super) answer: Option<AnswerType>,
}

/// An outgoing edge of a step.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    /// The pattern of the arm, for an edge of a decision.
    pub(crate) label: Option<Arc<str>>,
    pub(crate) to: Next,
    /// The type of the value that the edge carries, if it carries one.
    pub(crate) carries: Option<InputType>,
}

impl Edge {
    /// Returns the text beside the edge: its arm, and below it the type of the value that it carries.
    pub(super) fn text(&self) -> Option<String> {
        let label = self.label.as_deref()?;
        Some(match self.carries {
            None => label.to_owned(),
            Some(carried) => format!("{label}\n{}", carried.short_name()),
        })
    }
}

/// The contents of a step's box.
#[derive(Clone, Debug)]
pub(super) enum StepContents {
    Nothing,
    Branches(OutlineBranches),
    Graph(Outline),
}

/// The branches of a group.
#[derive(Clone, Debug)]
pub(super) struct OutlineBranches {
    /// The title of the box.
    pub(super) title: Arc<str>,
    /// The steps of each branch; the branch begins at the first one.
    pub(super) branches: Vec<Vec<StepId>>,
}

impl OutlineBranches {
    /// Returns the steps of all branches.
    pub(super) fn members(&self) -> impl Iterator<Item = StepId> {
        self.branches.iter().flatten().copied()
    }
}

impl Outline {
    /// Returns the number of nodes, including those of nested graphs.
    pub(crate) fn nodes(&self) -> usize {
        let of_step = |step: &OutlineStep| match &step.contents {
            StepContents::Nothing => 1,
            StepContents::Branches(_) => 0,
            StepContents::Graph(inner) => 1 + inner.nodes(),
        };
        self.steps.iter().map(of_step).sum()
    }

    /// Adds the managers of the graphs inside this one, which is at the path `around`, each manager once.
    pub(super) fn collect_managers(&self, around: &str, own: &BackgroundTaskManager, found: &mut Vec<NestedManager>) {
        for step in &self.steps {
            let StepContents::Graph(inner) = &step.contents else { continue };
            let node = if around.is_empty() { step.name.to_string() } else { format!("{around}/{}", step.name) };
            if let Some(manager) = &inner.manager
                && !manager.is_same(own)
                && !found.iter().any(|other| manager.is_same(&other.manager))
            {
                found.push(NestedManager { node: node.as_str().into(), manager: manager.clone() });
            }
            inner.collect_managers(&node, own, found);
        }
    }

    /// Returns the step at a path of names: of the graphs that it is in, and its own. Without such a step, or if it is in a
    /// group, returns what is wrong.
    pub(super) fn find(&self, path: &[Arc<str>]) -> Result<(&Self, StepId), String> {
        let found = self.find_anywhere(path)?;
        let (mut within, mut path) = (self, path);
        while let [name, inner @ ..] = path {
            let (id, step) = within.named(name)?;
            if within.groups()[id.index()].is_some() {
                return Err(format!("node `{name}` is inside a group"));
            }
            let StepContents::Graph(next) = &step.contents else { break };
            (within, path) = (next, inner);
        }
        Ok(found)
    }

    /// Returns the step at a path of names, which may be in groups.
    pub(super) fn find_anywhere(&self, path: &[Arc<str>]) -> Result<(&Self, StepId), String> {
        let [name, inner @ ..] = path else { return Err("the position has no name".to_owned()) };
        let (id, step) = self.named(name)?;
        match (&step.contents, inner) {
            (_, []) => Ok((self, id)),
            (StepContents::Graph(graph), inner) => graph.find_anywhere(inner),
            (StepContents::Nothing | StepContents::Branches(_), _) => Err(format!("node `{name}` is not a graph")),
        }
    }

    fn named(&self, name: &Arc<str>) -> Result<(StepId, &OutlineStep), String> {
        let found = self.all_steps().find(|(_, step)| step.name == *name);
        found.ok_or_else(|| format!("the graph `{}` has no node `{name}`", self.name))
    }

    /// Returns a hash of the names, the edges and the groups of the graph and of those inside it. It is the same in every
    /// process and with every version of the compiler, because checkpoints have it.
    pub(super) fn hash(&self) -> u64 {
        let mut hash = StableHash::new();
        self.add_to(&mut hash);
        hash.0
    }

    fn add_to(&self, hash: &mut StableHash) {
        hash.add_number(self.steps.len());
        hash.add_number(self.entry.index());
        for step in &self.steps {
            hash.add(step.name.as_bytes());
            hash.add_number(step.on_error.map_or(usize::MAX, StepId::index));
            hash.add_number(step.edges.len());
            for edge in &step.edges {
                hash.add(edge.label.as_deref().unwrap_or_default().as_bytes());
                hash.add_number(match edge.to {
                    Next::Step(next) => next.index(),
                    Next::End => usize::MAX,
                });
            }
            match &step.contents {
                StepContents::Nothing => hash.add(b"node"),
                StepContents::Branches(OutlineBranches { branches, .. }) => {
                    hash.add(b"branches");
                    hash.add_number(branches.len());
                    for branch in branches {
                        hash.add_number(branch.len());
                    }
                }
                StepContents::Graph(graph) => {
                    hash.add(b"graph");
                    graph.add_to(hash);
                }
            }
        }
    }

    /// Returns the names of the nodes that run first in a step: its own, or those of its branches.
    pub(super) fn first_nodes(&self, step: StepId) -> Vec<Arc<str>> {
        match &self.step(step).contents {
            StepContents::Branches(branches) => {
                let firsts = branches.branches.iter().filter_map(|branch| branch.first());
                firsts.flat_map(|first| self.first_nodes(*first)).collect()
            }
            StepContents::Nothing | StepContents::Graph(_) => vec![Arc::clone(&self.step(step).name)],
        }
    }

    pub(super) fn step(&self, step: StepId) -> &OutlineStep {
        &self.steps[step.index()]
    }

    /// Returns all steps with their ids.
    pub(super) fn all_steps(&self) -> impl Iterator<Item = (StepId, &OutlineStep)> {
        self.steps.iter().enumerate().map(|(index, step)| (StepId::new(index), step))
    }

    /// Returns the steps that are in no group.
    pub(super) fn outside_groups(&self) -> impl Iterator<Item = StepId> {
        let groups = self.groups();
        self.all_steps().map(|(step, _)| step).filter(move |step| groups[step.index()].is_none())
    }

    /// Returns whether a picture shows the join of the group: an arm of a decision leads to it. Otherwise the border of the
    /// group's box shows the ends of the branches.
    pub(super) fn shows_join(&self, group: StepId) -> bool {
        let StepContents::Branches(branches) = &self.step(group).contents else { return false };
        let leads_to_join = |edge: &Edge| edge.label.is_some() && edge.to == Next::End;
        branches.members().any(|step| self.step(step).edges.iter().any(leads_to_join))
    }

    /// Returns the group that each step is in.
    pub(super) fn groups(&self) -> Vec<Option<StepId>> {
        let mut groups = vec![None; self.steps.len()];
        for (group, step) in self.all_steps() {
            if let StepContents::Branches(branches) = &step.contents {
                branches.members().for_each(|member| groups[member.index()] = Some(group));
            }
        }
        groups
    }
}

/// The hash FNV-1a, which unlike those of std never changes.
struct StableHash(u64);

impl StableHash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        // The length keeps the ends of two texts apart.
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn add_number(&mut self, number: usize) {
        self.add(&(number as u64).to_le_bytes());
    }
}
