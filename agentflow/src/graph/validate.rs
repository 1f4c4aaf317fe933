//! The rules of a graph, one function per rule. `graph!` has the same rules at compile time.

use std::{collections::HashMap, sync::Arc};

use super::{
    BuildError, BuildProblem, BuildProblemKind, StateGraph,
    builder::{Caller, StepDeclaration, WorkDeclaration},
    draw::{Inside, Outline, OutlineStep},
    options::NodeOptions,
    plan::{Choose, Plan, Step, Way, Work},
};
use crate::State;

/// Checks every rule and resolves the names.
///
/// A rule that needs what another one refused is left out, so that one mistake is one problem.
pub(super) fn validate<S: State, C>(graph: StateGraph<S, C>) -> Result<(Plan<S, C>, Outline), BuildError> {
    let mut problems = Problems(Vec::new());
    let names = Names::collect(&graph, &mut problems);
    let groups = groups(&graph, &names, &mut problems);
    let entry = entry(&graph, &names, &mut problems);
    let mut ways = ways_on(&graph, &names, &mut problems);
    let options = options(&graph, &names, &mut problems);
    let members = members(&names, &groups, &mut problems);
    branch_nodes(&graph, &names, &members, &mut problems);
    edges_of_members(&graph, &names, &members, &ways, &mut problems);
    let Some(entry) = entry.filter(|_| problems.0.is_empty()) else {
        return Err(problems.into_error());
    };

    let topology = Topology { names: &names, members: &members, groups: &groups, ways: &ways, options: &options };
    topology.no_way_on(&mut problems);
    topology.unreachable(entry, &mut problems);
    if problems.0.is_empty() {
        topology.endless_loops(entry, &mut problems);
    }
    if !problems.0.is_empty() {
        return Err(problems.into_error());
    }

    let StateGraph { name, steps, routes, .. } = graph;
    let mut routers: HashMap<Arc<str>, Option<Box<dyn Choose<S>>>> =
        routes.into_iter().map(|route| (route.from, route.choose)).collect();
    let outline_of = |step: &Step<S, C>| {
        let inside = match (&step.work, step.outline()) {
            (Work::Group(branches), _) => Inside::Branches(branches.clone()),
            (_, Some(outline)) => Inside::Graph(outline.clone()),
            _ => Inside::Nothing,
        };
        let label = step.options.describe(&step.name, step.starts_tasks());
        OutlineStep { label, inside, ways: step.ways.clone(), on_error: step.on_error }
    };
    let steps: Vec<_> = steps
        .into_iter()
        .zip(groups)
        .zip(options)
        .enumerate()
        .map(|(index, ((step, group), (options, on_error)))| {
            let StepDeclaration { name, work, .. } = step;
            let work = match work {
                WorkDeclaration::Node(node) => Work::Node(node),
                WorkDeclaration::Branch(node) => Work::Branch(node),
                WorkDeclaration::Group(_) => Work::Group(group),
            };
            let choose = routers.remove(&name).flatten();
            let ways = std::mem::take(&mut ways[index]).into_iter().map(|way| way.way).collect();
            Step { name, work, options, choose, on_error, ways }
        })
        .collect();
    let outline = Outline { name, steps: steps.iter().map(outline_of).collect(), entry };
    Ok((Plan { steps, entry }, outline))
}

struct Problems(Vec<BuildProblem>);

impl Problems {
    fn add(&mut self, location: Caller, kind: BuildProblemKind) {
        self.0.push(BuildProblem { kind, location });
    }

    fn into_error(mut self) -> BuildError {
        self.0.sort_by_key(|problem| (problem.location.file(), problem.location.line()));
        BuildError { problems: self.0 }
    }
}

/// The steps by index and by name.
struct Names {
    steps: Vec<Arc<str>>,
    locations: Vec<Caller>,
    index: HashMap<Arc<str>, usize>,
}

impl Names {
    fn collect<S: State, C>(graph: &StateGraph<S, C>, problems: &mut Problems) -> Self {
        let mut names = Self { steps: Vec::new(), locations: Vec::new(), index: HashMap::new() };
        if graph.steps.is_empty() {
            problems.add(graph.created, BuildProblemKind::Empty);
        }
        for (index, StepDeclaration { name, location, .. }) in graph.steps.iter().enumerate() {
            if name.is_empty() || name.contains('/') {
                problems.add(location, BuildProblemKind::BadName { name: Arc::clone(name) });
            }
            if names.index.contains_key(name) {
                problems.add(location, BuildProblemKind::DuplicateNode { name: Arc::clone(name) });
            } else {
                names.index.insert(Arc::clone(name), index);
            }
            names.steps.push(Arc::clone(name));
            names.locations.push(location);
        }
        names
    }

    fn of(&self, step: usize) -> Arc<str> {
        Arc::clone(&self.steps[step])
    }

    /// `None` is END.
    fn of_target(&self, to: Option<usize>) -> Arc<str> {
        to.map_or_else(|| "END".into(), |to| self.of(to))
    }

    fn find(&self, name: &Arc<str>, location: Caller, problems: &mut Problems) -> Option<usize> {
        let found = self.index.get(name).copied();
        // In a graph without nodes, that it has none is the mistake.
        if found.is_none() && !self.steps.is_empty() {
            let suggestion = closest(name, &self.steps);
            problems.add(location, BuildProblemKind::UnknownNode { name: Arc::clone(name), suggestion });
        }
        found
    }

    /// As [`find`](Self::find); `Some(None)` is END.
    #[allow(clippy::option_option, reason = "a name that is unknown, and one that is END")]
    fn find_place(&self, name: Option<&Arc<str>>, location: Caller, problems: &mut Problems) -> Option<Option<usize>> {
        match name {
            None => Some(None),
            Some(name) => self.find(name, location, problems).map(Some),
        }
    }
}

fn closest(name: &str, names: &[Arc<str>]) -> Option<Arc<str>> {
    names
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= known.len().max(name.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| Arc::clone(known))
}

/// The branches of each step that is a group.
fn groups<S: State, C>(graph: &StateGraph<S, C>, names: &Names, problems: &mut Problems) -> Vec<Vec<Vec<usize>>> {
    let mut groups = Vec::new();
    for StepDeclaration { name, work, location } in &graph.steps {
        let WorkDeclaration::Group(branches) = work else {
            groups.push(Vec::new());
            continue;
        };
        if branches.is_empty() || branches.iter().any(Vec::is_empty) {
            problems.add(location, BuildProblemKind::EmptyGroup { group: Arc::clone(name) });
        }
        let branches = branches.iter().map(|branch| {
            branch.iter().filter_map(|member| names.find(member, location, problems)).collect::<Vec<_>>()
        });
        groups.push(branches.collect());
    }
    groups
}

/// The group that each step is in. No step is in two places.
fn members(names: &Names, groups: &[Vec<Vec<usize>>], problems: &mut Problems) -> Vec<Option<usize>> {
    let mut members = vec![None; names.steps.len()];
    for (group, branches) in groups.iter().enumerate() {
        for member in branches.iter().flatten() {
            if members[*member].replace(group).is_some() {
                let (node, group) = (names.of(*member), names.of(group));
                problems.add(names.locations[*member], BuildProblemKind::TwoPlaces { node, group });
            }
        }
    }
    for group in 0..groups.len() {
        // Out of a group that is not inside itself there are at most as many steps as there are groups.
        let around = std::iter::successors(members[group], |group| members[*group]).take(groups.len());
        if around.into_iter().any(|around| around == group) {
            problems.add(names.locations[group], BuildProblemKind::GroupInItself { group: names.of(group) });
        }
    }
    members
}

/// What was added to run in a group does, and nothing else.
fn branch_nodes<S: State, C>(
    graph: &StateGraph<S, C>,
    names: &Names,
    members: &[Option<usize>],
    problems: &mut Problems,
) {
    for (index, StepDeclaration { name, work, location }) in graph.steps.iter().enumerate() {
        let node = Arc::clone(name);
        match (work, members[index]) {
            (WorkDeclaration::Node(_), Some(group)) => {
                problems.add(location, BuildProblemKind::NotParallel { node, group: names.of(group) });
            }
            (WorkDeclaration::Branch(_), None) => problems.add(location, BuildProblemKind::NotInGroup { node }),
            _ => {}
        }
    }
}

/// A step in a group goes on to the next of its branch, or to the join.
fn edges_of_members<S: State, C>(
    graph: &StateGraph<S, C>,
    names: &Names,
    members: &[Option<usize>],
    ways: &[Vec<Edge>],
    problems: &mut Problems,
) {
    let mut report = |step: usize, location: Caller| {
        if let Some(group) = members[step] {
            let (node, group) = (names.of(step), names.of(group));
            problems.add(location, BuildProblemKind::EdgeOfBranch { node, group });
        }
    };
    for (from, edges) in ways.iter().enumerate() {
        for edge in edges {
            report(from, edge.location);
            if let Some(to) = edge.way.to {
                report(to, edge.location);
            }
        }
    }
    for edge in graph.edges.iter().filter(|edge| edge.from.0.is_none()) {
        if let Some(to) = edge.to.0.as_ref().and_then(|to| names.index.get(to)) {
            report(*to, edge.location);
        }
    }
    for declared in graph.options.iter().filter(|declared| declared.options.on_error.is_some()) {
        let to = declared.options.on_error.as_ref();
        for step in [Some(&declared.node), to].into_iter().flatten() {
            if let Some(step) = names.index.get(step) {
                report(*step, declared.location);
            }
        }
    }
}

fn entry<S: State, C>(graph: &StateGraph<S, C>, names: &Names, problems: &mut Problems) -> Option<usize> {
    let mut first: Option<usize> = None;
    let mut is_said = false;
    let mut ends = Vec::new();
    for edge in graph.edges.iter().filter(|edge| edge.from.0.is_none()) {
        // `START -> END` is no entry, there is nothing to run; beside one it is one too many.
        let Some(name) = &edge.to.0 else {
            ends.push(edge.location);
            continue;
        };
        is_said = true;
        match (names.find(name, edge.location, problems), first) {
            (Some(second), Some(first)) => {
                let (first, second) = (names.of(first), names.of(second));
                problems.add(edge.location, BuildProblemKind::SecondEntry { first, second });
            }
            (found, None) => first = found,
            (None, Some(_)) => {}
        }
    }
    if let Some(first) = first {
        for end in ends {
            let (first, second) = (names.of(first), "END".into());
            problems.add(end, BuildProblemKind::SecondEntry { first, second });
        }
    }
    if let (false, Some(candidate)) = (is_said, names.steps.first()) {
        problems.add(graph.created, BuildProblemKind::NoEntry { candidate: Arc::clone(candidate) });
    }
    first
}

/// A way on, and the call that said so.
struct Edge {
    way: Way,
    location: Caller,
}

/// The ways on from each step: one edge, or the arms of one decision.
fn ways_on<S: State, C>(graph: &StateGraph<S, C>, names: &Names, problems: &mut Problems) -> Vec<Vec<Edge>> {
    let mut ways: Vec<Vec<Edge>> = names.steps.iter().map(|_| Vec::new()).collect();
    for edge in &graph.edges {
        // START has no way on: it is the entry, which is another rule's.
        let Some(from) = &edge.from.0 else { continue };
        let from = names.find(from, edge.location, problems);
        let to = names.find_place(edge.to.0.as_ref(), edge.location, problems);
        let (Some(from), Some(to)) = (from, to) else {
            continue;
        };
        match ways[from].first() {
            None => ways[from].push(Edge { way: Way { label: None, to }, location: edge.location }),
            Some(first) => {
                let (from, to, first) = (names.of(from), names.of_target(to), names.of_target(first.way.to));
                let kind = if first == to {
                    BuildProblemKind::DuplicateEdge { from, to }
                } else {
                    BuildProblemKind::SecondWayOn { from, first, second: to }
                };
                problems.add(edge.location, kind);
            }
        }
    }
    for route in &graph.routes {
        let from = names.find(&route.from, route.location, problems);
        for label in &route.duplicates {
            let kind = BuildProblemKind::DuplicateArm { from: Arc::clone(&route.from), route: Arc::clone(label) };
            problems.add(route.location, kind);
        }
        let arms: Vec<_> = route
            .arms
            .iter()
            .filter_map(|(label, to)| {
                let to = names.find_place(to.0.as_ref(), route.location, problems)?;
                Some(Edge { way: Way { label: Some(Arc::clone(label)), to }, location: route.location })
            })
            .collect();
        let Some(from) = from else { continue };
        match ways[from].first() {
            None => ways[from] = arms,
            Some(first) => {
                let (from, first) = (names.of(from), names.of_target(first.way.to));
                problems
                    .add(route.location, BuildProblemKind::SecondWayOn { from, first, second: "a decision".into() });
            }
        }
    }
    ways
}

/// Each step's options, with the step to which a failure leads.
fn options<S: State, C>(
    graph: &StateGraph<S, C>,
    names: &Names,
    problems: &mut Problems,
) -> Vec<(NodeOptions, Option<usize>)> {
    let mut options: Vec<_> = names.steps.iter().map(|_| (NodeOptions::new(), None)).collect();
    for declared in &graph.options {
        let Some(step) = names.find(&declared.node, declared.location, problems) else {
            continue;
        };
        if let WorkDeclaration::Group(_) = graph.steps[step].work {
            problems.add(declared.location, BuildProblemKind::OptionsOfGroup { group: names.of(step) });
        }
        let on_error = declared.options.on_error.as_ref();
        let on_error = on_error.and_then(|on_error| names.find(on_error, declared.location, problems));
        options[step] = (declared.options.clone(), on_error);
    }
    options
}

/// The rules that look at the graph as a whole.
struct Topology<'a> {
    names: &'a Names,
    members: &'a [Option<usize>],
    groups: &'a [Vec<Vec<usize>>],
    ways: &'a [Vec<Edge>],
    options: &'a [(NodeOptions, Option<usize>)],
}

impl Topology<'_> {
    /// The steps that are in no group.
    fn top(&self) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(|step| self.members[*step].is_none())
    }

    /// Where a run may be after a step; the steps of a group belong to it.
    fn next(&self, step: usize) -> impl Iterator<Item = usize> {
        self.ways[step].iter().filter_map(|edge| edge.way.to).chain(self.options[step].1)
    }

    fn no_way_on(&self, problems: &mut Problems) {
        for step in self.top().filter(|step| self.ways[*step].is_empty()) {
            problems.add(self.names.locations[step], BuildProblemKind::NoWayOn { node: self.names.of(step) });
        }
    }

    fn unreachable(&self, entry: usize, problems: &mut Problems) {
        let reached = self.reached_from(entry);
        let is_stray = |step: &usize| self.members[*step].is_none() || self.is_in_ring(*step);
        for step in (0..self.members.len()).filter(|step| !reached[*step] && is_stray(step)) {
            let (node, entry) = (self.names.of(step), self.names.of(entry));
            problems.add(self.names.locations[step], BuildProblemKind::Unreachable { node, entry });
        }
    }

    /// Whether the groups around the step are in each other, and so in none that a path could lead to.
    fn is_in_ring(&self, step: usize) -> bool {
        let outwards = std::iter::successors(Some(step), |step| self.members[*step]);
        outwards.take(self.members.len() + 1).count() > self.members.len()
    }

    /// Reports the loops that nothing leads out of, each once.
    fn endless_loops(&self, entry: usize, problems: &mut Problems) {
        let from_entry = self.reached_from(entry);
        let mut reported = vec![false; self.names.steps.len()];
        for step in self.top().filter(|step| from_entry[*step]) {
            let reached = self.reached_from(step);
            let reaches_end =
                self.top().any(|at| reached[at] && self.ways[at].iter().any(|edge| edge.way.to.is_none()));
            let is_loop = !reaches_end && self.top().filter(|at| reached[*at]).all(|at| self.reached_from(at)[step]);
            if is_loop && !reported[step] {
                let looping: Vec<_> = self.top().filter(|at| reached[*at]).collect();
                for at in &looping {
                    reported[*at] = true;
                }
                let nodes = looping.into_iter().map(|at| self.names.of(at)).collect();
                problems.add(self.names.locations[step], BuildProblemKind::EndlessLoop { nodes });
            }
        }
    }

    /// The steps that a run may come to from `start`, itself included.
    fn reached_from(&self, start: usize) -> Vec<bool> {
        let mut reached = vec![false; self.names.steps.len()];
        let mut open = vec![start];
        while let Some(step) = open.pop() {
            if !std::mem::replace(&mut reached[step], true) {
                open.extend(self.next(step));
                open.extend(self.groups[step].iter().flatten());
            }
        }
        reached
    }
}
