//! The rules of a graph, one method per rule. `graph!` enforces the same rules at compile time.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    arms::ArmDeclaration,
    builder::{
        Caller, GroupDeclaration, RouteDeclaration, StateGraph, StepDeclaration, TaskDeclaration, WorkDeclaration,
    },
    endpoint::Endpoint,
    error::{BuildError, BuildProblem, BuildProblemKind},
    options::NodeOptions,
    outline::Edge,
    plan::GroupKind,
    topology::{Next, StepEdges, StepId, Violation, violations_of_path},
};
use crate::{carried::InputType, state::State, suggest};

/// The number of graphs and groups that may be inside each other. A level takes up to 20 KiB of stack in a debug build,
/// and the threads of tokio have 2 MiB, most of which is left to the nodes.
pub(crate) const MAX_NESTING: usize = 32;

/// A graph that breaks no rule, with all names resolved.
pub(super) struct CheckedGraph {
    pub(super) entry: StepId,
    pub(super) steps: Vec<CheckedStep>,
    /// The type of the value that an edge carries to each step, or of the items of an `each`.
    pub(super) inputs: Vec<InputType>,
    /// The number of graphs and groups that are inside each other in this graph.
    pub(super) nesting: usize,
}

/// A step with its names resolved.
pub(super) struct CheckedStep {
    pub(super) name: Arc<str>,
    /// The call that added the step.
    location: Caller,
    /// The branch that the step is in.
    place: Option<Place>,
    /// The branches of a group, each with its first step in front; none for a node.
    pub(super) branches: Vec<Vec<StepId>>,
    /// One edge, or the arms of one decision.
    pub(super) edges: Vec<CheckedEdge>,
    /// Set once a decision was added, which may have no arms.
    has_decision: bool,
    pub(super) options: NodeOptions,
    /// The step that runs after a failure.
    pub(super) on_error: Option<StepId>,
}

impl CheckedStep {
    pub(super) fn is_in_branch(&self) -> bool {
        self.place.is_some()
    }
}

/// A branch of a group.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    group: StepId,
    branch: usize,
}

/// An outgoing edge, with the call that added it.
pub(super) struct CheckedEdge {
    pub(super) edge: Edge,
    location: Caller,
}

/// Checks every rule and resolves the names.
///
/// A rule that depends on what another rule rejected is skipped, so that one mistake is one problem.
pub(super) fn validate<S: State, C, P>(
    graph: &StateGraph<S, C, P>,
    has_store: bool,
) -> Result<CheckedGraph, BuildError> {
    let mut checker = Checker { graph, steps: Vec::new(), index: HashMap::new(), problems: Vec::new() };
    checker.names();
    checker.name_of_graph(has_store);
    checker.groups();
    checker.one_place_per_step();
    checker.no_group_in_itself();
    checker.fallbacks_of_branches();
    let entry = checker.entry();
    checker.edges();
    checker.routes();
    checker.options();
    checker.edges_of_branches();
    checker.kinds_of_nodes();
    checker.tasks();
    checker.edges_stay_on_their_path();
    if checker.problems.is_empty() {
        checker.inputs();
    }
    if let Some(entry) = entry.filter(|_| checker.problems.is_empty()) {
        checker.topology(entry);
        checker.outer_options();
        checker.questions();
        let nesting = checker.nesting();
        if checker.problems.is_empty() {
            let inputs = checker.ids().map(|step| checker.input(step)).collect();
            return Ok(CheckedGraph { entry, steps: checker.steps, inputs, nesting });
        }
    }
    Err(checker.into_error())
}

struct Checker<'g, S, C, P> {
    graph: &'g StateGraph<S, C, P>,
    steps: Vec<CheckedStep>,
    index: HashMap<Arc<str>, StepId>,
    problems: Vec<BuildProblem>,
}

impl<S: State, C, P> Checker<'_, S, C, P> {
    /// A graph with a store has a name.
    fn name_of_graph(&mut self, has_store: bool) {
        let is_named = self.graph.name.as_ref().is_some_and(|name| !name.trim().is_empty());
        if has_store && !is_named {
            self.report(self.graph.created, BuildProblemKind::StoreWithoutName);
        }
    }

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
            if matches!(&**name, "START" | "END" | "JOIN") {
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
                place: None,
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
            let WorkDeclaration::Group(group) = work else { continue };
            let branches = &group.branches;
            if branches.is_empty() || branches.iter().any(Vec::is_empty) {
                self.report(location, BuildProblemKind::EmptyGroup { group: Arc::clone(name) });
            }
            for branch in branches {
                let members = branch.iter().filter_map(|member| self.resolve(member, location)).collect();
                self.steps[index].branches.push(members);
            }
        }
    }

    /// Every durable task has a name of its own, and those that nodes spawn are registered.
    fn tasks(&mut self) {
        let mut names = HashSet::new();
        for TaskDeclaration { task, location } in &self.graph.tasks {
            if !names.insert(task.name()) {
                self.report(location, BuildProblemKind::DuplicateTask { name: task.name().into() });
            }
        }
        for StepDeclaration { name, work, location } in &self.graph.steps {
            for task in work.durable_tasks().iter().filter(|task| !names.contains(*task)) {
                let (node, task) = (Arc::clone(name), Arc::from(*task));
                self.report(location, BuildProblemKind::UnregisteredTask { node, task });
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
            let to = self.resolve_target(from, &edge.to.0, edge.location);
            let (Some(from), Some(to)) = (from, to) else { continue };
            match self.step(from).edges.first() {
                None => {
                    let edge = CheckedEdge { edge: Edge { label: None, to, carries: None }, location: edge.location };
                    self.step_mut(from).edges.push(edge);
                }
                Some(first) => {
                    let first = first.edge.to;
                    let (from, second) = (self.name(from), self.target_name(to));
                    // The targets are compared, because a node may have the name of `END`, which is another problem.
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
            for ArmDeclaration { label, to, carries } in arms {
                if let Some(to) = self.resolve_target(step, &to.0, location) {
                    let edge = Edge { label: Some(Arc::clone(label)), to, carries: *carries };
                    edges.push(CheckedEdge { edge, location });
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
            let has_attempts = declared.options.retry.is_some() || declared.options.timeout.is_some();
            if let (WorkDeclaration::Group(_), true) = (&self.graph.steps[step.index()].work, has_attempts) {
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
    fn one_place_per_step(&mut self) {
        for group in self.ids() {
            for (branch, members) in self.step(group).branches.clone().into_iter().enumerate() {
                for member in members {
                    self.put(member, Place { group, branch });
                }
            }
        }
    }

    /// Records that the step is in the branch, unless it is in one already.
    fn put(&mut self, step: StepId, place: Place) {
        if self.step(step).place.is_some() {
            let (node, group) = (self.name(step), self.name(place.group));
            self.report(self.step(step).location, BuildProblemKind::TwoPlaces { node, group });
        } else {
            self.step_mut(step).place = Some(place);
        }
    }

    fn no_group_in_itself(&mut self) {
        for group in self.ids() {
            let outer = |inner: &StepId| self.group_around(*inner);
            // A group that is not inside itself is in fewer groups than there are steps.
            let mut around = std::iter::successors(outer(&group), outer).take(self.steps.len());
            if around.any(|outer| outer == group) {
                let kind = BuildProblemKind::GroupInItself { group: self.name(group) };
                self.report(self.step(group).location, kind);
            }
        }
    }

    /// The fallback of a step in a branch belongs to the branch, if no branch names it.
    fn fallbacks_of_branches(&mut self) {
        let graph = self.graph;
        let fallbacks: HashMap<usize, StepId> =
            self.fallbacks().map(|(step, fallback, _)| (step.index(), fallback)).collect();
        let mut open: Vec<_> = self.ids().filter(|step| self.step(*step).place.is_some()).collect();
        while let Some(step) = open.pop() {
            let (Some(place), Some(fallback)) = (self.step(step).place, fallbacks.get(&step.index())) else { continue };
            let is_node = matches!(graph.steps[fallback.index()].work, WorkDeclaration::Node(..));
            if self.step(*fallback).place.is_none() && !is_node && *fallback != place.group {
                self.step_mut(*fallback).place = Some(place);
                self.step_mut(place.group).branches[place.branch].push(*fallback);
                open.push(*fallback);
            }
        }
    }

    /// In a branch, a step without edges leads to the next step of its list, and the last one to the join.
    fn edges_of_branches(&mut self) {
        let graph = self.graph;
        for group in self.ids() {
            let WorkDeclaration::Group(declared) = &graph.steps[group.index()].work else { continue };
            for (branch, listed) in declared.branches.iter().enumerate() {
                let members = self.step(group).branches[branch].clone();
                for (position, member) in members.iter().enumerate() {
                    let CheckedStep { edges, has_decision, location, .. } = self.step(*member);
                    if edges.is_empty() && !has_decision {
                        // A node that another branch lists first is in that one, which is reported already.
                        let is_next = |next: &&StepId| {
                            position + 1 < listed.len() && self.step(**next).place == self.step(*member).place
                        };
                        let next = members.get(position + 1).filter(is_next);
                        let to = next.map_or(Next::End, |next| Next::Step(*next));
                        let edge = Edge { label: None, to, carries: None };
                        let edge = CheckedEdge { edge, location };
                        self.step_mut(*member).edges.push(edge);
                    }
                }
            }
        }
    }

    /// Parallel nodes run in groups, and only they do.
    fn kinds_of_nodes(&mut self) {
        for (index, StepDeclaration { name, work, location }) in self.graph.steps.iter().enumerate() {
            let node = Arc::clone(name);
            match (work, self.steps[index].place) {
                (WorkDeclaration::Node(..), Some(place)) => {
                    let group = self.name(place.group);
                    self.report(location, BuildProblemKind::NotParallel { node, group });
                }
                (WorkDeclaration::Branch(..), None) if !self.graph.is_in_branch => {
                    self.report(location, BuildProblemKind::NotInGroup { node });
                }
                _ => {}
            }
        }
    }

    /// An edge, a decision or a fallback leads from a step to steps of the same branch.
    fn edges_stay_on_their_path(&mut self) {
        let mut crossing: Vec<(Place, StepId, Caller)> = Vec::new();
        let mut check = |from: Option<Place>, source: StepId, to: StepId, location: Caller| {
            let place = self.step(to).place;
            if place != from {
                let node = if place.is_some() { to } else { source };
                crossing.extend(place.or(from).map(|place| (place, node, location)));
            }
        };
        for from in self.ids() {
            let place = self.step(from).place;
            for CheckedEdge { edge, location } in &self.step(from).edges {
                if let Next::Step(to) = edge.to {
                    check(place, from, to, location);
                }
            }
        }
        for (entry, location) in self.entries() {
            check(None, entry, entry, location);
        }
        for (step, fallback, location) in self.fallbacks() {
            check(self.step(step).place, step, fallback, location);
        }
        for (place, node, location) in crossing {
            let (node, group) = (self.name(node), self.name(place.group));
            self.report(location, BuildProblemKind::EdgeOfBranch { node, group });
        }
    }

    /// An edge carries what the node that it leads to takes.
    fn inputs(&mut self) {
        let mut problems = Vec::new();
        let mut check = |from: Arc<str>, to: StepId, carried: Option<InputType>, location: Caller| {
            let carried = carried.filter(|carried| !carried.is_none());
            for (node, taken) in self.takers(to) {
                let to = self.name(node);
                let from = Arc::clone(&from);
                let kind = match carried {
                    Some(carried) if carried != taken => BuildProblemKind::WrongInput {
                        from,
                        to,
                        carried: carried.name,
                        taken: (!taken.is_none()).then_some(taken.name),
                    },
                    None if !taken.is_none() => BuildProblemKind::NoInput { from, to, taken: taken.name },
                    _ => continue,
                };
                problems.push((location, kind));
            }
        };
        for step in self.ids() {
            for CheckedEdge { edge, location } in &self.step(step).edges {
                if let Next::Step(to) = edge.to {
                    check(self.name(step), to, edge.carries, location);
                }
            }
            if let WorkDeclaration::Group(group) = &self.graph.steps[step.index()].work
                && group.items.is_some()
            {
                for first in self.step(step).branches.iter().filter_map(|branch| branch.first()) {
                    check(self.name(step), *first, group.items, self.step(step).location);
                }
            }
        }
        for (step, fallback, location) in self.fallbacks() {
            check(self.name(step), fallback, None, location);
        }
        for (entry, location) in self.entries() {
            check("START".into(), entry, None, location);
        }
        for (location, kind) in problems {
            self.report(location, kind);
        }
    }

    /// Returns the nodes that receive the value of an edge to this step, with the types of their inputs: the node itself,
    /// or the first nodes of a group. The branch of an `each` receives the items instead.
    fn takers(&self, step: StepId) -> Vec<(StepId, InputType)> {
        let mut takers = Vec::new();
        // The list takes the place of the thread's stack, which is too small for groups that are inside each other too deep.
        let mut open = vec![step];
        while let Some(step) = open.pop() {
            match &self.graph.steps[step.index()].work {
                WorkDeclaration::Node(_, input) | WorkDeclaration::Branch(_, input) => takers.push((step, *input)),
                WorkDeclaration::Group(group) if group.items.is_some() => takers.push((step, InputType::of::<()>())),
                WorkDeclaration::Group(_) => {
                    open.extend(self.step(step).branches.iter().rev().filter_map(|branch| branch.first()));
                }
            }
        }
        takers
    }

    /// Returns the type of the value that an edge carries to this step, or of the items of an `each`.
    fn input(&self, step: StepId) -> InputType {
        match &self.graph.steps[step.index()].work {
            WorkDeclaration::Group(GroupDeclaration { items: Some(items), .. }) => *items,
            _ => self.takers(step).first().map_or(InputType::of::<()>(), |(_, input)| *input),
        }
    }

    /// The rules that concern a path as a whole.
    fn topology(&mut self, entry: StepId) {
        let main = self.ids().filter(|step| self.step(*step).place.is_none()).collect();
        let mut paths: Vec<(StepId, Vec<StepId>, &'static str)> = vec![(entry, main, "END")];
        let branches = self.steps.iter().flat_map(|step| &step.branches);
        paths.extend(branches.filter_map(|branch| Some((*branch.first()?, branch.clone(), "JOIN"))));
        for (entry, path, end) in paths {
            let edges = |step: StepId| {
                let CheckedStep { edges, on_error, .. } = self.step(step);
                StepEdges { next: edges.iter().map(|checked| checked.edge.to).collect(), on_error: *on_error }
            };
            for violation in violations_of_path(entry, &path, edges) {
                let (step, kind) = match violation {
                    Violation::NoOutgoingEdge(step) => {
                        (step, BuildProblemKind::NoOutgoingEdge { node: self.name(step), end })
                    }
                    Violation::Unreachable(step) => {
                        (step, BuildProblemKind::Unreachable { node: self.name(step), entry: self.name(entry) })
                    }
                    Violation::EndlessLoop(steps) => {
                        let Some(first) = steps.first() else { continue };
                        let nodes = steps.iter().map(|step| self.name(*step)).collect();
                        (*first, BuildProblemKind::EndlessLoop { nodes, end })
                    }
                };
                self.report(self.step(step).location, kind);
            }
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

    /// No node in a branch of an `any` asks questions.
    fn questions(&mut self) {
        let graph = self.graph;
        for (index, StepDeclaration { work, location, .. }) in graph.steps.iter().enumerate() {
            let (node, outer) = (StepId::new(index), |inner: &StepId| self.group_around(*inner));
            let is_any = |group: &StepId| match &graph.steps[group.index()].work {
                WorkDeclaration::Group(group) => matches!(group.kind, GroupKind::Any),
                WorkDeclaration::Node(..) | WorkDeclaration::Branch(..) => false,
            };
            let any = std::iter::successors(outer(&node), outer).find(is_any);
            if let Some(any) = any.filter(|_| work.asks()) {
                let (node, group) = (self.name(node), self.name(any));
                self.report(location, BuildProblemKind::QuestionInAny { node, group });
            }
        }
    }

    /// Graphs and groups are inside each other only as deep as a thread's stack allows. Returns how deep they are.
    fn nesting(&mut self) -> usize {
        let mut deepest = 0;
        for (index, StepDeclaration { name, work, location }) in self.graph.steps.iter().enumerate() {
            let outer = |inner: &StepId| self.group_around(*inner);
            let around = std::iter::successors(outer(&StepId::new(index)), outer).take(MAX_NESTING + 1).count();
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

    fn ids(&self) -> impl Iterator<Item = StepId> + use<S, C, P> {
        (0..self.steps.len()).map(StepId::new)
    }

    fn step(&self, step: StepId) -> &CheckedStep {
        &self.steps[step.index()]
    }

    fn step_mut(&mut self, step: StepId) -> &mut CheckedStep {
        &mut self.steps[step.index()]
    }

    /// Returns the group that the step is in.
    fn group_around(&self, step: StepId) -> Option<StepId> {
        self.step(step).place.map(|place| place.group)
    }

    /// Returns the steps that edges from `START` lead to, with the calls that added these edges. Names that no step has are
    /// left out: another rule reports them.
    fn entries(&self) -> impl Iterator<Item = (StepId, Caller)> {
        self.graph.edges.iter().filter(|edge| edge.from.is_start()).filter_map(|edge| match &edge.to.0 {
            Endpoint::Step(name) => Some((self.find(name)?, edge.location)),
            _ => None,
        })
    }

    /// Returns the steps that have a fallback, with the fallback and the call that set it. Names that no step has are left
    /// out: another rule reports them.
    fn fallbacks(&self) -> impl Iterator<Item = (StepId, StepId, Caller)> {
        self.graph.options.iter().filter_map(|declared| {
            let fallback = self.find(declared.options.on_error.as_ref()?)?;
            Some((self.find(&declared.node)?, fallback, declared.location))
        })
    }

    /// Returns the step with this name.
    fn find(&self, name: &Arc<str>) -> Option<StepId> {
        self.index.get(name).copied()
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
        let step = self.find(name);
        // In a graph without nodes, that fact is the mistake.
        if step.is_none() && !self.steps.is_empty() {
            let known: Vec<_> = self.steps.iter().map(|step| &*step.name).collect();
            let suggestion = suggest::closest(name, &known).map(Arc::from);
            self.report(location, BuildProblemKind::UnknownNode { name: Arc::clone(name), suggestion });
        }
        step
    }

    /// Returns the target of an edge from this step, or reports that there is none. A branch ends at the join, and the
    /// path outside of all branches at END.
    fn resolve_target(&mut self, from: Option<StepId>, target: &Endpoint, location: Caller) -> Option<Next> {
        let place = from.and_then(|from| self.step(from).place);
        let problem = match (target, from, place) {
            (Endpoint::Step(name), ..) => return self.resolve(name, location).map(Next::Step),
            (Endpoint::Boundary, Some(from), Some(place)) => {
                BuildProblemKind::EdgeOfBranch { node: self.name(from), group: self.name(place.group) }
            }
            (Endpoint::Join, Some(from), None) => BuildProblemKind::JoinOutsideGroup { node: self.name(from) },
            (Endpoint::Boundary | Endpoint::Join | Endpoint::End, ..) => return Some(Next::End),
        };
        self.report(location, problem);
        None
    }

    fn report(&mut self, location: Caller, kind: BuildProblemKind) {
        self.problems.push(BuildProblem { kind, location });
    }

    fn into_error(mut self) -> BuildError {
        self.problems.sort_by_key(|problem| (problem.location.file(), problem.location.line()));
        BuildError { problems: self.problems }
    }
}
