//! [`Outline`]: the parts of a graph that pictures and the graph around it see.

use std::sync::Arc;

use super::topology::{Next, StepId};
use crate::{carried::InputType, task::BackgroundTaskManager};

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
