//! Calls of the builder as data, with mistakes in them, and a plain check of the rules.

use std::collections::BTreeSet;

use agentflow::{
    CompileOptions, CompiledGraph, END, NodeError, NodeOptions, START, StateGraph,
    graph::{BuildError, EdgeTarget, Node, NodeContext, ParallelContext, ParallelNode},
};
use proptest::{prelude::*, sample::select};

use super::program::{Decision, Graph, Group, Next, ParallelWork, Target, Trace, TraceUpdate, Work};

/// The name of a step.
pub(super) type Name = String;

/// A call of the builder. The target `None` is `END`.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Node(Name),
    RoutingNode(Name, Vec<(u32, Option<Name>)>),
    ParallelNode(Name),
    Group(Name, Vec<Vec<Name>>),
    Entry(Option<Name>),
    Edge(Name, Option<Name>),
    Route(Name, Vec<(u32, Option<Name>)>),
    OnError(Name, Name),
}

/// A change of one call.
#[derive(Clone, Debug)]
enum Mistake {
    Remove,
    Repeat,
    /// Replaces one of the names in the call.
    Rename {
        position: usize,
        name: Rename,
    },
    /// Renames a step in all calls.
    RenameStep(&'static str),
    /// Makes a node parallel, or a parallel one a plain one.
    ChangeKind,
    /// Adds a decision without arms after a step.
    AddDecision,
    RemoveArms,
    RepeatArm,
    EmptyGroup,
}

#[derive(Clone, Debug)]
enum Rename {
    Step(usize),
    End,
    Text(&'static str),
}

struct Empty;

impl Node<Trace> for Empty {
    type Output = ();

    async fn run(&self, _: NodeContext<'_, Trace>) -> Result<(), NodeError> {
        Ok(())
    }
}

struct Zero;

impl Node<Trace> for Zero {
    type Output = u32;

    async fn run(&self, _: NodeContext<'_, Trace>) -> Result<u32, NodeError> {
        Ok(0)
    }
}

impl ParallelNode<Trace> for Empty {
    type Output = ();

    async fn run_parallel(&self, _: ParallelContext<'_, Trace>) -> Result<(Option<TraceUpdate>, ()), NodeError> {
        Ok((None, ()))
    }
}

/// Makes calls from a graph that compiles, with up to three mistakes in them.
pub(super) fn calls(graph: impl Strategy<Value = Graph>) -> impl Strategy<Value = Vec<Call>> {
    let name = prop_oneof![
        8 => any::<usize>().prop_map(Rename::Step),
        2 => Just(Rename::End),
        1 => select(vec!["", "A/B", "NOWHERE", "END", "START", " ", "A\0"]).prop_map(Rename::Text),
    ];
    let mistake = prop_oneof![
        2 => Just(Mistake::Remove),
        1 => Just(Mistake::Repeat),
        4 => (any::<usize>(), name).prop_map(|(position, name)| Mistake::Rename { position, name }),
        1 => select(vec!["", "A/B", "END", "START", " ", "A\0"]).prop_map(Mistake::RenameStep),
        1 => Just(Mistake::ChangeKind),
        1 => Just(Mistake::AddDecision),
        1 => Just(Mistake::RemoveArms),
        1 => Just(Mistake::RepeatArm),
        1 => Just(Mistake::EmptyGroup),
    ];
    (graph, prop::collection::vec((any::<usize>(), mistake), 0..4)).prop_map(|(mut graph, mistakes)| {
        graph.name_steps();
        let mut calls = calls_of(&graph);
        for (place, mistake) in mistakes {
            mistake.make(&mut calls, place);
        }
        calls
    })
}

fn calls_of(graph: &Graph) -> Vec<Call> {
    let name = |to: Target| to.map(|to| graph.steps[to].name.clone());
    let arms = |decision: &Decision| (0..).zip(decision.arms.iter().map(|to| name(*to))).collect::<Vec<_>>();
    let mut calls = vec![Call::Entry(name(Some(0)))];
    for step in &graph.steps {
        let from = step.name.clone();
        match (&step.work, &step.next) {
            (Work::Group(group), _) => add_group(&from, group, &mut calls),
            (Work::Node(..), Next::Decision(decision)) if decision.is_from_node => {
                calls.push(Call::RoutingNode(from.clone(), arms(decision)));
            }
            _ => calls.push(Call::Node(from.clone())),
        }
        match &step.next {
            Next::Edge(to) => calls.push(Call::Edge(from.clone(), name(*to))),
            Next::Decision(decision) if decision.is_from_node => {}
            Next::Decision(decision) => calls.push(Call::Route(from.clone(), arms(decision))),
        }
        if let Some(fallback) = name(step.on_error) {
            calls.push(Call::OnError(from, fallback));
        }
    }
    calls
}

/// Adds a group whose branches are chains.
fn add_group(name: &str, group: &Group, calls: &mut Vec<Call>) {
    let names = group.branches.iter().map(|branch| branch.iter().map(|step| step.name.clone()).collect());
    calls.push(Call::Group(name.to_owned(), names.collect()));
    for step in group.branches.iter().flatten() {
        match &step.work {
            ParallelWork::Group(group) => add_group(&step.name, group, calls),
            _ => calls.push(Call::ParallelNode(step.name.clone())),
        }
    }
}

/// A name in a call.
enum Place<'a> {
    Step(&'a mut Name),
    Target(&'a mut Option<Name>),
}

impl Call {
    /// Returns the name of the step that the call adds.
    fn step(&self) -> Option<&Name> {
        match self {
            Self::Node(name) | Self::RoutingNode(name, _) | Self::ParallelNode(name) | Self::Group(name, _) => {
                Some(name)
            }
            Self::Entry(_) | Self::Edge(..) | Self::Route(..) | Self::OnError(..) => None,
        }
    }

    fn names(&mut self) -> Vec<Place<'_>> {
        match self {
            Self::Node(name) | Self::ParallelNode(name) => vec![Place::Step(name)],
            Self::RoutingNode(name, arms) | Self::Route(name, arms) => {
                let arms = arms.iter_mut().map(|(_, to)| Place::Target(to));
                std::iter::once(Place::Step(name)).chain(arms).collect()
            }
            Self::Group(name, branches) => {
                let members = branches.iter_mut().flatten().map(Place::Step);
                std::iter::once(Place::Step(name)).chain(members).collect()
            }
            Self::Entry(to) => vec![Place::Target(to)],
            Self::Edge(from, to) => vec![Place::Step(from), Place::Target(to)],
            Self::OnError(node, fallback) => vec![Place::Step(node), Place::Step(fallback)],
        }
    }

    fn arms(&mut self) -> Option<&mut Vec<(u32, Option<Name>)>> {
        match self {
            Self::RoutingNode(_, arms) | Self::Route(_, arms) => Some(arms),
            _ => None,
        }
    }
}

impl Mistake {
    /// Changes the first call at or after the place that can have the mistake.
    fn make(&self, calls: &mut Vec<Call>, place: usize) {
        if calls.is_empty() {
            return;
        }
        let steps: Vec<_> = calls.iter().filter_map(Call::step).cloned().collect();
        let place = place % calls.len();
        match self {
            Self::Remove => {
                calls.remove(place);
                return;
            }
            Self::Repeat => {
                calls.push(calls[place].clone());
                return;
            }
            Self::AddDecision => {
                calls.extend(steps.get(place % steps.len().max(1)).map(|step| Call::Route(step.clone(), Vec::new())));
                return;
            }
            Self::RenameStep(text) => {
                let old = steps.get(place % steps.len().max(1)).cloned();
                for name in calls.iter_mut().flat_map(Call::names) {
                    match name {
                        Place::Step(name) if Some(&*name) == old.as_ref() => (*text).clone_into(name),
                        Place::Target(name) if *name == old => *name = name.as_ref().map(|_| (*text).to_owned()),
                        _ => {}
                    }
                }
                return;
            }
            _ => {}
        }
        let (before, after) = calls.split_at_mut(place);
        for call in after.iter_mut().chain(before) {
            if self.change(call, &steps) {
                return;
            }
        }
    }

    /// Returns `false` if the call cannot have the mistake.
    fn change(&self, call: &mut Call, steps: &[Name]) -> bool {
        match self {
            Self::Remove | Self::Repeat | Self::RenameStep(_) | Self::AddDecision => {}
            Self::Rename { position, name } => {
                let name = match name {
                    Rename::Step(step) => steps.get(step % steps.len().max(1)).cloned(),
                    Rename::End => None,
                    Rename::Text(text) => Some((*text).to_owned()),
                };
                let mut names = call.names();
                let position = position % names.len();
                match (&mut names[position], name) {
                    (Place::Step(old), Some(name)) => **old = name,
                    (Place::Step(_), None) => return false,
                    (Place::Target(old), name) => **old = name,
                }
            }
            Self::ChangeKind => {
                *call = match call {
                    Call::Node(name) => Call::ParallelNode(name.clone()),
                    Call::ParallelNode(name) => Call::Node(name.clone()),
                    _ => return false,
                }
            }
            Self::RemoveArms => match call.arms() {
                Some(arms) => arms.clear(),
                None => return false,
            },
            Self::RepeatArm => match call.arms() {
                Some(arms) => arms.extend(arms.first().cloned()),
                None => return false,
            },
            Self::EmptyGroup => match call {
                Call::Group(_, branches) if branches.len() > 1 => branches[0].clear(),
                Call::Group(_, branches) => branches.clear(),
                _ => return false,
            },
        }
        true
    }
}

/// Calls the builder.
pub(super) fn build(calls: &[Call]) -> Result<CompiledGraph<Trace>, BuildError> {
    let target = |to: &Option<Name>| to.as_ref().map_or_else(|| END.into(), |to| EdgeTarget::from(to.as_str()));
    let targets =
        |arms: &[(u32, Option<Name>)]| arms.iter().map(|(route, to)| (*route, target(to))).collect::<Vec<_>>();
    let mut graph = StateGraph::new();
    for call in calls {
        match call {
            Call::Node(name) => graph.add_node(name.as_str(), Empty),
            Call::RoutingNode(name, arms) => graph.add_routing_node(name.as_str(), Zero, targets(arms)),
            Call::ParallelNode(name) => graph.add_parallel_node(name.as_str(), Empty),
            Call::Group(name, branches) => graph.add_group(name.as_str(), branches.clone()),
            Call::Entry(to) => graph.add_edge(START, target(to)),
            Call::Edge(from, to) => graph.add_edge(from.as_str(), target(to)),
            Call::Route(from, arms) => graph.add_route(from.as_str(), |_| 0, targets(arms)),
            Call::OnError(node, fallback) => {
                graph.set_node_options(node.as_str(), NodeOptions::new().on_error(fallback.as_str()))
            }
        };
    }
    graph.compile(CompileOptions::new())
}

/// The rules that a build error names, by the names of its problems.
pub(super) fn reported(error: &BuildError) -> BTreeSet<String> {
    let kinds = error.problems().iter().map(|problem| format!("{:?}", problem.kind));
    kinds.map(|kind| kind.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// An edge, or the arms of a decision, after a step.
enum Outgoing<'c> {
    Edge(Option<&'c Name>),
    Decision(&'c [(u32, Option<Name>)]),
}

/// The calls, with a look at them for each rule.
struct Rules<'c> {
    calls: &'c [Call],
    steps: Vec<&'c Call>,
    broken: BTreeSet<String>,
}

/// Returns the rules that the calls break, by the names of the problems.
///
/// A rule may depend on what breaks another one. A build error therefore names some of them, and at least one.
pub(super) fn broken_rules(calls: &[Call]) -> BTreeSet<String> {
    let steps = calls.iter().filter(|call| call.step().is_some()).collect();
    let mut rules = Rules { calls, steps, broken: BTreeSet::new() };
    rules.names();
    rules.entries();
    rules.outgoing_edges();
    rules.groups();
    rules.paths();
    rules.broken
}

impl<'c> Rules<'c> {
    fn broken_if(&mut self, rule: &str, is_broken: bool) {
        if is_broken {
            self.broken.insert(rule.to_owned());
        }
    }

    fn names_of_steps(&self) -> impl Iterator<Item = &'c Name> {
        self.steps.iter().filter_map(|call| call.step())
    }

    /// The first step with the name.
    fn find(&self, name: &str) -> Option<usize> {
        self.names_of_steps().position(|step| step == name)
    }

    fn names(&mut self) {
        let names: Vec<_> = self.names_of_steps().collect();
        let is_bad = |name: &str| name.trim().is_empty() || name.contains('/') || name.contains('\0');
        self.broken_if("Empty", names.is_empty());
        self.broken_if("BadName", names.iter().any(|name| is_bad(name)));
        self.broken_if("ReservedName", names.iter().any(|name| matches!(name.as_str(), "START" | "END" | "JOIN")));
        self.broken_if("DuplicateNode", names.iter().collect::<BTreeSet<_>>().len() < names.len());
        let mut calls = self.calls.to_vec();
        let used = calls.iter_mut().flat_map(Call::names).filter_map(|place| match place {
            Place::Step(name) => Some(name.clone()),
            Place::Target(name) => name.clone(),
        });
        let is_unknown = used.collect::<Vec<_>>().iter().any(|name| !names.contains(&name));
        self.broken_if("UnknownNode", is_unknown);
    }

    fn entries(&mut self) {
        let entries: Vec<_> = self.calls.iter().filter(|call| matches!(call, Call::Entry(_))).collect();
        let has_entry = entries.iter().any(|call| matches!(call, Call::Entry(Some(_))));
        self.broken_if("NoEntry", !has_entry);
        self.broken_if("SecondEntry", has_entry && entries.len() > 1);
    }

    fn outgoing(&self, step: usize) -> Vec<Outgoing<'c>> {
        let belongs = |name: &Name| self.find(name) == Some(step);
        let outgoing = self.calls.iter().filter_map(|call| match call {
            Call::Edge(from, to) if belongs(from) => Some(Outgoing::Edge(to.as_ref())),
            Call::Route(from, arms) | Call::RoutingNode(from, arms) if belongs(from) => Some(Outgoing::Decision(arms)),
            _ => None,
        });
        outgoing.collect()
    }

    fn targets(&self, step: usize) -> Vec<Option<&'c Name>> {
        let targets = self.outgoing(step).into_iter().flat_map(|outgoing| match outgoing {
            Outgoing::Edge(to) => vec![to],
            Outgoing::Decision(arms) => arms.iter().map(|(_, to)| to.as_ref()).collect(),
        });
        targets.collect()
    }

    fn outgoing_edges(&mut self) {
        for step in 0..self.steps.len() {
            let outgoing = self.outgoing(step);
            for (index, second) in outgoing.iter().enumerate() {
                for first in &outgoing[..index] {
                    let is_same =
                        matches!((first, second), (Outgoing::Edge(first), Outgoing::Edge(second)) if first == second);
                    self.broken_if(if is_same { "DuplicateEdge" } else { "SecondOutgoingEdge" }, true);
                }
            }
        }
        for call in self.calls {
            if let Call::RoutingNode(_, arms) | Call::Route(_, arms) = call {
                let routes: BTreeSet<_> = arms.iter().map(|(route, _)| route).collect();
                self.broken_if("DuplicateArm", routes.len() < arms.len());
            }
        }
    }

    /// The steps in a group, as often as they are named there.
    fn members(&self, group: usize) -> Vec<usize> {
        match self.steps[group] {
            Call::Group(_, branches) => branches.iter().flatten().filter_map(|name| self.find(name)).collect(),
            _ => Vec::new(),
        }
    }

    fn all_members(&self) -> Vec<usize> {
        (0..self.steps.len()).flat_map(|group| self.members(group)).collect()
    }

    /// The branch that each step is in, if it is in one: the group, and the number of the branch. A fallback that no
    /// branch lists is in the branch of the step that names it.
    fn places(&self) -> Vec<Option<(usize, usize)>> {
        let mut places = vec![None; self.steps.len()];
        for (group, step) in self.steps.iter().enumerate() {
            let Call::Group(_, branches) = step else { continue };
            for (branch, listed) in branches.iter().enumerate() {
                for member in listed.iter().filter_map(|name| self.find(name)) {
                    places[member].get_or_insert((group, branch));
                }
            }
        }
        while let Some((fallback, place)) = (0..self.steps.len()).find_map(|step| {
            let (place, fallback) = (places[step]?, self.fallback(step)?);
            let is_free = places[fallback].is_none() && place.0 != fallback;
            let is_parallel = matches!(self.steps[fallback], Call::ParallelNode(_) | Call::Group(..));
            (is_free && is_parallel).then_some((fallback, place))
        }) {
            places[fallback] = Some(place);
        }
        places
    }

    /// The last options of a node replace the earlier ones.
    fn fallback(&self, step: usize) -> Option<usize> {
        let fallbacks = self.calls.iter().filter_map(|call| match call {
            Call::OnError(node, fallback) if self.find(node) == Some(step) => Some(fallback),
            _ => None,
        });
        fallbacks.last().and_then(|fallback| self.find(fallback))
    }

    fn groups(&mut self) {
        let members = self.all_members();
        let places = self.places();
        let mut broken = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            if members.iter().filter(|member| **member == index).count() > 1 {
                broken.push("TwoPlaces");
            }
            match step {
                Call::Node(_) | Call::RoutingNode(..) if places[index].is_some() => broken.push("NotParallel"),
                Call::ParallelNode(_) if places[index].is_none() => broken.push("NotInGroup"),
                Call::Group(_, branches) if branches.is_empty() || branches.iter().any(Vec::is_empty) => {
                    broken.push("EmptyGroup");
                }
                _ => {}
            }
            let inside = closure(self.members(index), |step| self.members(step));
            if inside.contains(&index) {
                broken.push("GroupInItself");
            }
        }
        let place = |name: &Name| self.find(name).map(|step| places[step]);
        for call in self.calls {
            let (from, targets): (Option<&Name>, Vec<Option<&Name>>) = match call {
                Call::Entry(to) => (None, vec![to.as_ref()]),
                Call::Edge(from, to) => (Some(from), vec![to.as_ref()]),
                Call::Route(from, arms) | Call::RoutingNode(from, arms) => {
                    (Some(from), arms.iter().map(|(_, to)| to.as_ref()).collect())
                }
                Call::OnError(node, fallback) => (Some(node), vec![Some(fallback)]),
                Call::Node(_) | Call::ParallelNode(_) | Call::Group(..) => continue,
            };
            let from_place = from.map_or(Some(None), place);
            for to in targets {
                // END is outside of all branches.
                let to_place = to.map_or(Some(None), place);
                if matches!((from_place, to_place), (Some(from), Some(to)) if from != to) {
                    broken.push("EdgeOfBranch");
                }
            }
            if let Call::OnError(node, fallback) = call
                && node == fallback
            {
                broken.push("OwnFallback");
            }
        }
        self.broken.extend(broken.into_iter().map(str::to_owned));
    }

    /// The targets of a step on its path; `None` is its end. In a branch, a step without edges leads to the next one.
    fn targets_on_path(&self, step: usize, place: Option<(usize, usize)>) -> Vec<Option<usize>> {
        let Some((group, branch)) = place.filter(|_| self.outgoing(step).is_empty()) else {
            return self.targets(step).into_iter().map(|to| to.and_then(|to| self.find(to))).collect();
        };
        let Call::Group(_, branches) = self.steps[group] else { return Vec::new() };
        let listed: Vec<_> = branches[branch].iter().filter_map(|name| self.find(name)).collect();
        let next = listed.iter().position(|member| *member == step).and_then(|position| listed.get(position + 1));
        vec![next.copied()]
    }

    fn paths(&mut self) {
        let places = self.places();
        let mut paths: Vec<(Vec<usize>, Option<(usize, usize)>)> = Vec::new();
        let entries = self.calls.iter().filter_map(|call| match call {
            Call::Entry(Some(name)) => self.find(name),
            _ => None,
        });
        paths.push((entries.collect(), None));
        for (group, step) in self.steps.iter().enumerate() {
            let Call::Group(_, branches) = step else { continue };
            for (branch, listed) in branches.iter().enumerate() {
                let first = listed.iter().find_map(|name| self.find(name));
                paths.push((first.into_iter().collect(), Some((group, branch))));
            }
        }
        for (entries, place) in paths {
            let targets = |step: usize| self.targets_on_path(step, place);
            let next = |step: usize| {
                let next = targets(step).into_iter().flatten().chain(self.fallback(step));
                next.filter(|next| places[*next] == place).collect::<Vec<_>>()
            };
            let reached = closure(entries, next);
            let mut broken = Vec::new();
            for step in (0..self.steps.len()).filter(|step| places[*step] == place) {
                let following = closure(vec![step], next);
                let ends = following.iter().any(|step| targets(*step).contains(&None));
                broken.extend(targets(step).is_empty().then_some("NoOutgoingEdge"));
                broken.extend((!reached.contains(&step)).then_some("Unreachable"));
                broken.extend((!ends).then_some("EndlessLoop"));
            }
            self.broken.extend(broken.into_iter().map(str::to_owned));
        }
    }
}

/// Collects the steps that lead from some steps to others.
fn closure(mut found: Vec<usize>, next: impl Fn(usize) -> Vec<usize>) -> BTreeSet<usize> {
    let mut closure = BTreeSet::new();
    while let Some(step) = found.pop() {
        if closure.insert(step) {
            found.extend(next(step));
        }
    }
    closure
}
