//! The rules of a graph, one method per rule. `graph!` enforces the same rules at compile time.

use std::{collections::HashMap, sync::Arc};

use super::{
    builder::{Caller, Endpoint, RouteDeclaration, StateGraph, StepDeclaration, WorkDeclaration},
    error::{BuildError, BuildProblem, BuildProblemKind},
    options::NodeOptions,
    outline::Edge,
    topology::{Next, StepEdges, StepId, Topology, Violation},
};
use crate::{state::State, suggest};

/// The number of graphs and groups that may be inside each other. A level takes up to 20 KiB of stack in a debug build,
/// and the threads of tokio have 2 MiB, most of which is left to the nodes.
pub(crate) const MAX_NESTING: usize = 32;

/// A graph that breaks no rule, with all names resolved.
pub(super) struct CheckedGraph {
    pub(super) entry: StepId,
    pub(super) steps: Vec<CheckedStep>,
    /// The number of graphs and groups that are inside each other in this graph.
    pub(super) nesting: usize,
}

/// A step with its names resolved.
pub(super) struct CheckedStep {
    pub(super) name: Arc<str>,
    /// The call that added the step.
    location: Caller,
    /// The group that the step is in.
    group: Option<StepId>,
    /// The branches of a group; none for a node.
    pub(super) branches: Vec<Vec<StepId>>,
    /// One edge, or the arms of one decision.
    pub(super) edges: Vec<CheckedEdge>,
    /// Set once a decision was added, which may have no arms.
    has_decision: bool,
    pub(super) options: NodeOptions,
    /// The step that runs after a failure.
    pub(super) on_error: Option<StepId>,
}

/// An outgoing edge, with the call that added it.
pub(super) struct CheckedEdge {
    pub(super) edge: Edge,
    location: Caller,
}

/// Checks every rule and resolves the names.
///
/// A rule that depends on what another rule rejected is skipped, so that one mistake is one problem.
pub(super) fn validate<S: State, C>(graph: &StateGraph<S, C>) -> Result<CheckedGraph, BuildError> {
    let mut checker = Checker { graph, steps: Vec::new(), index: HashMap::new(), problems: Vec::new() };
    checker.names();
    checker.groups();
    let entry = checker.entry();
    checker.edges();
    checker.routes();
    checker.options();
    checker.one_group_per_step();
    checker.no_group_in_itself();
    checker.kinds_of_nodes();
    checker.no_edges_into_groups();
    if let Some(entry) = entry.filter(|_| checker.problems.is_empty()) {
        checker.topology(entry);
        checker.outer_options();
        let nesting = checker.nesting();
        if checker.problems.is_empty() {
            return Ok(CheckedGraph { entry, steps: checker.steps, nesting });
        }
    }
    Err(checker.into_error())
}

struct Checker<'g, S, C> {
    graph: &'g StateGraph<S, C>,
    steps: Vec<CheckedStep>,
    index: HashMap<Arc<str>, StepId>,
    problems: Vec<BuildProblem>,
}

impl<S: State, C> Checker<'_, S, C> {
    /// Every graph has a node; every step has a valid name of its own.
    fn names(&mut self) {
        if self.graph.steps.is_empty() {
            self.report(self.graph.created, BuildProblemKind::Empty);
        }
        for (index, StepDeclaration { name, location, .. }) in self.graph.steps.iter().enumerate() {
            if name.trim().is_empty() || name.contains('/') || name.contains(char::is_control) {
                self.report(location, BuildProblemKind::BadName { name: Arc::clone(name) });
            }
            // The events and pictures of a run use these names for its ends.
            if matches!(&**name, "START" | "END") {
                self.report(location, BuildProblemKind::ReservedName { name: Arc::clone(name) });
            }
            if self.index.contains_key(name) {
                self.report(location, BuildProblemKind::DuplicateNode { name: Arc::clone(name) });
            } else {
                self.index.insert(Arc::clone(name), StepId::new(index));
            }
            self.steps.push(CheckedStep {
                name: Arc::clone(name),
                location,
                group: None,
                branches: Vec::new(),
                edges: Vec::new(),
                has_decision: false,
                options: NodeOptions::new(),
                on_error: None,
            });
        }
    }

    /// A group has branches, and each branch has steps that exist.
    fn groups(&mut self) {
        for (index, StepDeclaration { name, work, location }) in self.graph.steps.iter().enumerate() {
            let WorkDeclaration::Group(branches) = work else { continue };
            if branches.is_empty() || branches.iter().any(Vec::is_empty) {
                self.report(location, BuildProblemKind::EmptyGroup { group: Arc::clone(name) });
            }
            for branch in branches {
                let members = branch.iter().filter_map(|member| self.resolve(member, location)).collect();
                self.steps[index].branches.push(members);
            }
        }
    }

    /// A graph has one entry, which exists. Returns it.
    fn entry(&mut self) -> Option<StepId> {
        let mut entry: Option<StepId> = None;
        let mut is_declared = false;
        let mut start_to_end = Vec::new();
        for edge in self.graph.edges.iter().filter(|edge| edge.from.is_start()) {
            // `START -> END` is no entry, because there is nothing to run; beside an entry it is one too many.
            let Endpoint::Step(name) = &edge.to.0 else {
                start_to_end.push(edge.location);
                continue;
            };
            is_declared = true;
            match (self.resolve(name, edge.location), entry) {
                (Some(second), Some(first)) => {
                    let (first, second) = (self.name(first), self.name(second));
                    self.report(edge.location, BuildProblemKind::SecondEntry { first, second });
                }
                (found, None) => entry = found,
                (None, Some(_)) => {}
            }
        }
        if let Some(entry) = entry {
            for location in start_to_end {
                let (first, second) = (self.name(entry), "END".into());
                self.report(location, BuildProblemKind::SecondEntry { first, second });
            }
        }
        if let (false, Some(first)) = (is_declared, self.steps.first()) {
            let candidate = Arc::clone(&first.name);
            self.report(self.graph.created, BuildProblemKind::NoEntry { candidate });
        }
        entry
    }

    /// An edge connects steps that exist; a step has one outgoing edge.
    fn edges(&mut self) {
        for edge in &self.graph.edges {
            // `START` has no outgoing edge: its edge is the entry, which is another rule's.
            let Endpoint::Step(from) = &edge.from.0 else { continue };
            let from = self.resolve(from, edge.location);
            let to = self.resolve_target(&edge.to.0, edge.location);
            let (Some(from), Some(to)) = (from, to) else { continue };
            match self.step(from).edges.first() {
                None => {
                    let edge = CheckedEdge { edge: Edge { label: None, to }, location: edge.location };
                    self.step_mut(from).edges.push(edge);
                }
                Some(first) => {
                    let first = first.edge.to;
                    let (from, second) = (self.name(from), self.target_name(to));
                    // Compared as targets, because a node may have the name of `END`, which is another problem.
                    let kind = if first == to {
                        BuildProblemKind::DuplicateEdge { from, to: second }
                    } else {
                        BuildProblemKind::SecondOutgoingEdge { from, first: self.target_name(first), second }
                    };
                    self.report(edge.location, kind);
                }
            }
        }
    }

    /// The arms of a decision lead to steps that exist, by different routes; a step has one decision, or one edge.
    fn routes(&mut self) {
        for RouteDeclaration { from, arms, duplicates, location, .. } in &self.graph.routes {
            let step = self.resolve(from, location);
            for label in duplicates {
                let kind = BuildProblemKind::DuplicateArm { from: Arc::clone(from), route: Arc::clone(label) };
                self.report(location, kind);
            }
            let mut edges = Vec::with_capacity(arms.len());
            for (label, to) in arms {
                if let Some(to) = self.resolve_target(&to.0, location) {
                    edges.push(CheckedEdge { edge: Edge { label: Some(Arc::clone(label)), to }, location });
                }
            }
            let Some(step) = step else { continue };
            // A decision counts even without arms.
            let is_second = std::mem::replace(&mut self.step_mut(step).has_decision, true);
            let first = self.step(step).edges.first().map(|first| self.target_name(first.edge.to));
            match first.or_else(|| is_second.then(|| "a decision".into())) {
                None => self.step_mut(step).edges = edges,
                Some(first) => {
                    let (from, second) = (self.name(step), "a decision".into());
                    self.report(location, BuildProblemKind::SecondOutgoingEdge { from, first, second });
                }
            }
        }
    }

    /// Options belong to a node that exists, and so does its fallback.
    fn options(&mut self) {
        for declared in &self.graph.options {
            let Some(step) = self.resolve(&declared.node, declared.location) else { continue };
            if let WorkDeclaration::Group(_) = self.graph.steps[step.index()].work {
                let group = self.name(step);
                self.report(declared.location, BuildProblemKind::OptionsOfGroup { group });
            }
            let fallback = declared.options.on_error.as_ref();
            let on_error = fallback.and_then(|fallback| self.resolve(fallback, declared.location));
            if on_error == Some(step) {
                self.report(declared.location, BuildProblemKind::OwnFallback { node: self.name(step) });
            }
            let step = self.step_mut(step);
            step.options = declared.options.clone();
            step.on_error = on_error;
        }
    }

    /// A step is in one branch of one group.
    fn one_group_per_step(&mut self) {
        for group in self.ids() {
            for member in self.step(group).branches.concat() {
                if self.step_mut(member).group.replace(group).is_some() {
                    let (node, group) = (self.name(member), self.name(group));
                    self.report(self.step(member).location, BuildProblemKind::TwoPlaces { node, group });
                }
            }
        }
    }

    fn no_group_in_itself(&mut self) {
        for group in self.ids() {
            let outer = |inner: &StepId| self.step(*inner).group;
            // A group that is not inside itself is in fewer groups than there are steps.
            let mut around = std::iter::successors(self.step(group).group, outer).take(self.steps.len());
            if around.any(|outer| outer == group) {
                let kind = BuildProblemKind::GroupInItself { group: self.name(group) };
                self.report(self.step(group).location, kind);
            }
        }
    }

    /// Parallel nodes run in groups, and only they do.
    fn kinds_of_nodes(&mut self) {
        for (index, StepDeclaration { name, work, location }) in self.graph.steps.iter().enumerate() {
            let node = Arc::clone(name);
            match (work, self.steps[index].group) {
                (WorkDeclaration::Node(_), Some(group)) => {
                    let group = self.name(group);
                    self.report(location, BuildProblemKind::NotParallel { node, group });
                }
                (WorkDeclaration::Branch(_), None) => self.report(location, BuildProblemKind::NotInGroup { node }),
                _ => {}
            }
        }
    }

    /// No edge, decision or fallback leads to or from a step in a group: the next step of its branch or the join
    /// follows it.
    fn no_edges_into_groups(&mut self) {
        let mut ends: Vec<(StepId, Caller)> = Vec::new();
        for from in self.ids() {
            for CheckedEdge { edge, location } in &self.step(from).edges {
                ends.push((from, location));
                if let Next::Step(to) = edge.to {
                    ends.push((to, location));
                }
            }
        }
        let known = |name: &Arc<str>| self.index.get(name).copied();
        for RouteDeclaration { from, arms, location, .. } in &self.graph.routes {
            if arms.is_empty() {
                ends.extend(known(from).map(|from| (from, *location)));
            }
        }
        for edge in self.graph.edges.iter().filter(|edge| edge.from.is_start()) {
            if let Endpoint::Step(to) = &edge.to.0 {
                ends.extend(known(to).map(|to| (to, edge.location)));
            }
        }
        for declared in &self.graph.options {
            if let Some(fallback) = &declared.options.on_error {
                let steps = [&declared.node, fallback].into_iter().filter_map(known);
                ends.extend(steps.map(|step| (step, declared.location)));
            }
        }
        for (step, location) in ends {
            if let Some(group) = self.step(step).group {
                let (node, group) = (self.name(step), self.name(group));
                self.report(location, BuildProblemKind::EdgeOfBranch { node, group });
            }
        }
    }

    /// The rules that concern the graph as a whole.
    fn topology(&mut self, entry: StepId) {
        let steps = self.steps.iter().map(|step| StepEdges {
            is_in_group: step.group.is_some(),
            next: step.edges.iter().map(|checked| checked.edge.to).collect(),
            on_error: step.on_error,
        });
        for violation in (Topology { entry, steps: steps.collect() }).violations() {
            let (step, kind) = match violation {
                Violation::NoOutgoingEdge(step) => (step, BuildProblemKind::NoOutgoingEdge { node: self.name(step) }),
                Violation::Unreachable(step) => {
                    (step, BuildProblemKind::Unreachable { node: self.name(step), entry: self.name(entry) })
                }
                Violation::EndlessLoop(steps) => {
                    let Some(first) = steps.first() else { continue };
                    let nodes = steps.iter().map(|step| self.name(*step)).collect();
                    (*first, BuildProblemKind::EndlessLoop { nodes })
                }
            };
            self.report(self.step(step).location, kind);
        }
    }

    /// A graph that is a node has no options that only the outermost graph obeys.
    fn outer_options(&mut self) {
        for StepDeclaration { name, work, location } in &self.graph.steps {
            if let Some(option) = work.outline().and_then(|outline| outline.outer_option) {
                self.report(location, BuildProblemKind::OuterOption { node: Arc::clone(name), option });
            }
        }
    }

    /// Graphs and groups are inside each other only as deep as a thread's stack allows. Returns how deep they are.
    fn nesting(&mut self) -> usize {
        let mut deepest = 0;
        for (index, StepDeclaration { name, work, location }) in self.graph.steps.iter().enumerate() {
            let outer = |inner: &StepId| self.step(*inner).group;
            let around = std::iter::successors(self.steps[index].group, outer).take(MAX_NESTING + 1).count();
            let inside = match work {
                WorkDeclaration::Group(_) => Some(1),
                work => work.outline().map(|outline| 1 + outline.nesting),
            };
            let levels = around + inside.unwrap_or_default();
            deepest = deepest.max(levels);
            // Of the groups inside a group that is too deep, none is reported.
            if inside.is_some() && levels > MAX_NESTING && around <= MAX_NESTING {
                let kind = BuildProblemKind::TooDeep { node: Arc::clone(name), levels, max: MAX_NESTING };
                self.report(location, kind);
            }
        }
        deepest
    }

    fn ids(&self) -> impl Iterator<Item = StepId> + use<S, C> {
        (0..self.steps.len()).map(StepId::new)
    }

    fn step(&self, step: StepId) -> &CheckedStep {
        &self.steps[step.index()]
    }

    fn step_mut(&mut self, step: StepId) -> &mut CheckedStep {
        &mut self.steps[step.index()]
    }

    fn name(&self, step: StepId) -> Arc<str> {
        Arc::clone(&self.step(step).name)
    }

    fn target_name(&self, target: Next) -> Arc<str> {
        match target {
            Next::Step(step) => self.name(step),
            Next::End => "END".into(),
        }
    }

    /// Returns the step with this name, or reports that there is none.
    fn resolve(&mut self, name: &Arc<str>, location: Caller) -> Option<StepId> {
        let step = self.index.get(name).copied();
        // In a graph without nodes, that fact is the mistake.
        if step.is_none() && !self.steps.is_empty() {
            let known: Vec<_> = self.steps.iter().map(|step| &*step.name).collect();
            let suggestion = suggest::closest(name, &known).map(Arc::from);
            self.report(location, BuildProblemKind::UnknownNode { name: Arc::clone(name), suggestion });
        }
        step
    }

    fn resolve_target(&mut self, target: &Endpoint, location: Caller) -> Option<Next> {
        match target {
            Endpoint::Step(name) => self.resolve(name, location).map(Next::Step),
            Endpoint::Boundary => Some(Next::End),
        }
    }

    fn report(&mut self, location: Caller, kind: BuildProblemKind) {
        self.problems.push(BuildProblem { kind, location });
    }

    fn into_error(mut self) -> BuildError {
        self.problems.sort_by_key(|problem| (problem.location.file(), problem.location.line()));
        BuildError { problems: self.problems }
    }
}
