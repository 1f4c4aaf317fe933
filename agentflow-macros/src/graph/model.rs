//! AST → graph: names become steps, and each step keeps the tokens that its mistakes are reported at.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use proc_macro2::{Ident, Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt;

use super::{
    options::Setting,
    syntax::{Binding, Branches, BranchesKind, Chain, Decision, Graph, Reference, Source, Stage},
    topology::{Next, StepId},
};
use crate::errors::Errors;

#[derive(Default)]
pub(crate) struct Model<'a> {
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) entry: Option<StepId>,
    /// The stage that `START` leads to, if it is written.
    pub(crate) start: Option<&'a Stage>,
    /// The models of the graphs that are written inside this one, by their binding.
    pub(crate) inner: BTreeMap<usize, Model<'a>>,
    /// Mistakes that a misspelt name may have caused, with their tokens. rustc reports them only if all names in the
    /// graph resolve.
    pub(crate) mistakes: Vec<(TokenStream, String)>,
}

/// A node or a group.
pub(crate) struct Step<'a> {
    /// The step's name at run time.
    pub(crate) name: String,
    pub(crate) work: Work<'a>,
    /// The outgoing edges; more than one is a mistake.
    pub(crate) edges: Vec<Edge<'a>>,
    pub(crate) on_error: Option<StepId>,
    /// The branch that contains the step.
    pub(crate) place: Option<Place>,
}

/// A branch of a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) group: StepId,
    pub(crate) branch: usize,
}

pub(crate) enum Work<'a> {
    Node {
        /// The first mention in the graph.
        first_mention: &'a Reference,
        /// The index of the binding, if the graph binds this node.
        binding: Option<usize>,
    },
    Group {
        written: &'a Branches,
        /// The steps of each branch, with its first step in front.
        branches: Vec<Vec<StepId>>,
    },
}

/// The outgoing edge of a step.
pub(crate) enum Edge<'a> {
    Direct {
        to: Next,
        /// The target as it is written.
        at: &'a Stage,
    },
    Routed {
        decision: &'a Decision,
        targets: Vec<Next>,
    },
    /// The end of a branch, which is not written.
    Join,
}

impl Edge<'_> {
    pub(crate) fn targets(&self) -> &[Next] {
        match self {
            Self::Direct { to, .. } => std::slice::from_ref(to),
            Self::Routed { targets, .. } => targets,
            Self::Join => &[Next::End],
        }
    }
}

impl Step<'_> {
    /// Returns the tokens at which mistakes of the step are reported.
    pub(crate) fn written(&self) -> TokenStream {
        match &self.work {
            Work::Node { first_mention, .. } => first_mention.to_token_stream(),
            Work::Group { written, .. } => written.braces.to_token_stream(),
        }
    }

    /// Returns the step's name for messages.
    pub(crate) fn text(&self) -> String {
        match &self.work {
            Work::Node { first_mention, .. } => first_mention.text(),
            Work::Group { .. } => self.name.clone(),
        }
    }
}

impl<'a> Model<'a> {
    pub(crate) fn step(&self, id: StepId) -> &Step<'a> {
        &self.steps[id.index()]
    }

    /// Returns the nodes that receive the value of an edge to this step: the node itself, or the first nodes of a group. The
    /// branch of an `each` receives the items instead.
    pub(crate) fn takers(&self, step: StepId) -> Vec<StepId> {
        match &self.step(step).work {
            Work::Node { .. } => vec![step],
            Work::Group { written: Branches { kind: BranchesKind::Each { .. }, .. }, .. } => Vec::new(),
            Work::Group { branches, .. } => {
                branches.iter().filter_map(|branch| branch.first()).flat_map(|first| self.takers(*first)).collect()
            }
        }
    }

    /// Returns true if a node of this binding is in the graph.
    pub(crate) fn is_added(&self, index: usize) -> bool {
        self.steps.iter().any(|step| matches!(step.work, Work::Node { binding: Some(binding), .. } if binding == index))
    }

    pub(crate) fn has_mistakes(&self) -> bool {
        !self.mistakes.is_empty() || self.inner.values().any(Model::has_mistakes)
    }

    pub(crate) fn build(graph: &'a Graph, errors: &mut Errors) -> Self {
        Self::build_in(graph, &[], errors)
    }

    /// Builds a graph inside others; `around` holds the bindings of those.
    fn build_in(graph: &'a Graph, around: &[&'a Binding], errors: &mut Errors) -> Self {
        if reports_outer_names(graph, around, errors) {
            return Self::default();
        }
        let mut builder = Builder::new(graph, errors);
        for chain in &graph.chains {
            builder.statement(chain);
        }
        builder.fallbacks();
        builder.joins();
        builder.entry();
        builder.report_unused();
        let mut model = builder.model;
        for (index, binding) in graph.bindings.iter().enumerate() {
            if let Source::Graph(inner) = &binding.source {
                let around: Vec<_> = around.iter().copied().chain(&graph.bindings).collect();
                model.inner.insert(index, Self::build_inner(inner, &binding.name, &around, errors));
            }
        }
        model
    }

    fn build_inner(graph: &'a Graph, name: &Ident, around: &[&'a Binding], errors: &mut Errors) -> Self {
        if graph.chains.is_empty() {
            errors
                .at(name.span(), format!("the graph `{name}` needs at least one node: `graph {name} {{ A -> END }}`"));
            return Self::default();
        }
        Self::build_in(graph, around, errors)
    }
}

/// Reports names that an outer graph binds, and returns true if there are any. Such a name would mean the node without
/// the options of its binding.
fn reports_outer_names(graph: &Graph, around: &[&Binding], errors: &mut Errors) -> bool {
    let before = errors.count();
    for mention in graph.mentions.iter().filter(|mention| mention.is_plain && !mention.is_keyword()) {
        let name = &mention.name;
        let is_inside = graph.bindings.iter().any(|binding| binding.name == *name);
        if !is_inside && around.iter().any(|binding| binding.name == *name) {
            let text = format!("`{name}` is bound outside of this graph; bind it inside: `node {name} = ..;`");
            errors.spanning(mention, text);
        }
    }
    errors.count() > before
}

/// The position of a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChainPosition {
    Statement,
    Arm,
    Branch,
}

/// The predecessor of a stage in a chain.
enum Before {
    Nothing,
    Start,
    Step(StepId),
    End,
}

struct Builder<'a, 'e> {
    model: Model<'a>,
    graph: &'a Graph,
    bindings: HashMap<String, Bound<'a>>,
    nodes: HashMap<String, StepId>,
    /// The branch that is being added; `None` outside of all branches.
    place: Option<Place>,
    errors: &'e mut Errors,
}

struct Bound<'a> {
    index: usize,
    name: &'a Ident,
    is_used: bool,
}

impl<'a, 'e> Builder<'a, 'e> {
    fn new(graph: &'a Graph, errors: &'e mut Errors) -> Self {
        let mut bindings: HashMap<String, Bound<'a>> = HashMap::new();
        for (index, binding) in graph.bindings.iter().enumerate() {
            let ident = &binding.name;
            let name = ident.to_string();
            if ["START", "END", "JOIN"].contains(&&*name) {
                errors.at(ident.span(), format!("`{name}` is reserved: give the node another name"));
                continue;
            }
            match bindings.entry(name) {
                Entry::Occupied(first) => {
                    let text = format!("`node {}` is already defined: give this one another name", first.key());
                    errors.at(ident.span(), text);
                }
                Entry::Vacant(entry) => {
                    entry.insert(Bound { index, name: ident, is_used: false });
                }
            }
        }
        Self { model: Model::default(), graph, bindings, nodes: HashMap::new(), place: None, errors }
    }

    /// Adds a chain that is a statement of its own.
    fn statement(&mut self, chain: &'a Chain) {
        let is_first = self.model.steps.is_empty() && self.model.start.is_none();
        match chain.stages.first() {
            Some(Stage::Group(group)) if is_first => {
                let text = "a graph that begins with a group needs an entry point: `START -> { .. }`";
                self.errors.spanning(&group.braces, text);
            }
            _ => {
                self.chain(chain, ChainPosition::Statement);
            }
        }
    }

    /// Adds the chain, and returns its first target.
    fn chain(&mut self, chain: &'a Chain, position: ChainPosition) -> Option<Next> {
        let mut first = None;
        let mut before = Before::Nothing;
        for stage in &chain.stages {
            let is_reserved = |is: fn(&Reference) -> bool| matches!(stage, Stage::Node(reference) if is(reference));
            if matches!(before, Before::End) {
                let end = if self.place.is_some() { "JOIN" } else { "END" };
                self.errors.spanning(stage, format!("nothing can follow `{end}`"));
                return first;
            }
            if is_reserved(Reference::is_start) {
                if position != ChainPosition::Statement || !matches!(before, Before::Nothing) {
                    self.errors.spanning(stage, "`START` can only begin a chain");
                    return first;
                }
                before = Before::Start;
                continue;
            }
            let is_end = is_reserved(Reference::is_end);
            let is_join = is_reserved(Reference::is_join);
            if is_end && self.place.is_some() {
                let text = "a branch does not end the run: write `JOIN` for the end of the branch, and `END` after the group, \
                            `A -> { B, C } -> END`";
                self.errors.spanning(stage, text);
                return first;
            }
            if is_join && self.graph.bindings.iter().any(|binding| binding.name == "JOIN") {
                // The binding is reported.
                return first;
            }
            if is_join && self.place.is_none() {
                self.errors.spanning(stage, "`JOIN` is the end of a branch of a group: a graph ends with `END`");
                return first;
            }
            if position != ChainPosition::Arm && matches!(before, Before::Nothing) && (is_end || is_join) {
                let text = match position {
                    ChainPosition::Branch => "a branch needs a node before `JOIN`: `{ B -> JOIN, C }`, or `{ B, C }`",
                    _ => "a graph needs a node before `END`: `MAIN -> END`",
                };
                self.errors.spanning(stage, text);
                return None;
            }
            let target = if is_end || is_join { Next::End } else { Next::Step(self.step(stage)) };
            first.get_or_insert(target);
            self.link(&before, target, stage);
            before = match target {
                Next::End => Before::End,
                Next::Step(step) => Before::Step(step),
            };
        }
        match (&chain.decision, before) {
            (Some(decision), Before::Step(from)) => self.decision(from, decision),
            (Some(decision), Before::Start) => {
                let text = "a graph starts at a node: `START -> A -> match .. { .. }`";
                self.errors.spanning(&decision.keyword, text);
            }
            (Some(decision), Before::End) => self.errors.spanning(&decision.keyword, "nothing can follow `END`"),
            (None, Before::Start) => {
                self.errors.spanning(&chain.stages[0], "`START` needs a node to start at: `START -> MAIN`");
            }
            // The parser has already reported a decision that follows no node.
            (Some(_), Before::Nothing) | (None, _) => {}
        }
        first
    }

    /// Records that `target` follows `before`.
    fn link(&mut self, before: &Before, target: Next, stage: &'a Stage) {
        match (before, target) {
            (Before::Step(from), to) => self.model.steps[from.index()].edges.push(Edge::Direct { to, at: stage }),
            (Before::Start, Next::Step(entry)) if self.model.start.is_none() => {
                (self.model.start, self.model.entry) = (Some(stage), Some(entry));
            }
            (Before::Start, Next::Step(_)) => {
                let first = self.model.entry.map(|entry| self.model.step(entry).text()).unwrap_or_default();
                self.errors.spanning(stage, format!("the graph starts at `{first}` already"));
            }
            (Before::Start, Next::End) => {
                self.errors.spanning(stage, "a graph needs a node between `START` and `END`: `START -> MAIN -> END`");
            }
            (Before::Nothing | Before::End, _) => {}
        }
    }

    fn decision(&mut self, from: StepId, decision: &'a Decision) {
        if decision.arms.is_empty() {
            let text = "a decision needs arms: `match router { Route::A => A, Route::B => END }`";
            self.errors.spanning(&decision.keyword, text);
        }
        if let (None, Work::Group { .. }) = (&decision.router, &self.model.step(from).work) {
            let text = "a group returns no route to match: name a function of the state, `match router { .. }`";
            self.errors.spanning(&decision.keyword, text);
        }
        let targets = decision.arms.iter().filter_map(|arm| self.chain(&arm.chain, ChainPosition::Arm)).collect();
        self.model.steps[from.index()].edges.push(Edge::Routed { decision, targets });
    }

    fn step(&mut self, stage: &'a Stage) -> StepId {
        match stage {
            Stage::Node(reference) => self.node(reference),
            Stage::Group(group) => self.group(group),
        }
    }

    /// Returns the node of this name, which it adds to the current branch if it is new.
    fn node(&mut self, reference: &'a Reference) -> StepId {
        let text = reference.text();
        if let Some(node) = self.nodes.get(&text).copied() {
            if self.model.step(node).place != self.place {
                self.report_second_use(reference);
            }
            return node;
        }
        let binding = self.bindings.get_mut(&text).filter(|_| reference.is_plain).map(|binding| {
            binding.is_used = true;
            binding.index
        });
        let work = Work::Node { first_mention: reference, binding };
        let node = self.push(reference.name.unraw().to_string(), work);
        self.nodes.insert(text, node);
        node
    }

    fn push(&mut self, name: String, work: Work<'a>) -> StepId {
        let place = self.place;
        self.model.steps.push(Step { name, work, edges: Vec::new(), on_error: None, place });
        let step = StepId::new(self.model.steps.len() - 1);
        if let Some(Place { group, branch }) = place {
            self.members(group, branch).push(step);
        }
        step
    }

    /// Returns the steps of a branch.
    fn members(&mut self, group: StepId, branch: usize) -> &mut Vec<StepId> {
        let Work::Group { branches, .. } = &mut self.model.steps[group.index()].work else {
            unreachable!("a step in a branch names its group");
        };
        &mut branches[branch]
    }

    fn group(&mut self, written: &'a Branches) -> StepId {
        if let (BranchesKind::All | BranchesKind::Any, true) = (&written.kind, written.chains.is_empty()) {
            self.errors.spanning(&written.braces, "a group needs branches: `{ B, C }`");
        }
        if let BranchesKind::All | BranchesKind::Any = written.kind {
            for Setting { key, .. } in written.options.iter().filter(|setting| setting.key != "label") {
                let text = format!(
                    "a group has the options `on_error` and `label`: `{key}` is an option of a node, \
                     `node B = b {{ {key}: .. }};`"
                );
                self.errors.at(key.span(), text);
            }
        }
        let branches = vec![Vec::new(); written.chains.len()];
        let group = self.push(String::new(), Work::Group { written, branches });
        let around = self.place;
        for (branch, chain) in written.chains.iter().enumerate() {
            self.place = Some(Place { group, branch });
            self.chain(chain, ChainPosition::Branch);
        }
        self.place = around;
        let Work::Group { branches, .. } = &self.model.step(group).work else { return group };
        let firsts = branches.iter().filter_map(|branch| branch.first());
        let firsts: Vec<_> = firsts.map(|step| self.model.step(*step).name.as_str()).collect();
        let prefix = match written.kind {
            BranchesKind::All => "",
            BranchesKind::Any => "any ",
            BranchesKind::Each { .. } => "each ",
        };
        self.model.steps[group.index()].name = format!("{prefix}{{{}}}", firsts.join(", "));
        group
    }

    /// Lets the steps of branches that lead nowhere lead to the join.
    fn joins(&mut self) {
        for step in self.model.steps.iter_mut().filter(|step| step.place.is_some() && step.edges.is_empty()) {
            step.edges.push(Edge::Join);
        }
    }

    fn report_second_use(&mut self, reference: &Reference) {
        let text = reference.text();
        self.errors.spanning(
            reference,
            format!(
                "`{text}` is used elsewhere already, and a branch has nodes of its own; give this use its own name: \
                 `node OTHER = {text};`"
            ),
        );
    }

    /// Resolves `on_error: NODE` of the nodes and groups that are in the graph. The fallback of a step in a branch belongs to
    /// the branch.
    fn fallbacks(&mut self) {
        let graph = self.graph;
        let mut index = 0;
        // A fallback that is named only here is a further step.
        while index < self.model.steps.len() {
            let step = StepId::new(index);
            index += 1;
            let fallback = match &self.model.step(step).work {
                Work::Node { binding: Some(binding), .. } => &graph.bindings[*binding].on_error,
                Work::Node { binding: None, .. } => continue,
                Work::Group { written, .. } => &written.on_error,
            };
            let Some(fallback) = fallback else { continue };
            if fallback.is_keyword() {
                self.errors.spanning(
                    fallback,
                    "`on_error` must name a node, which receives the error: `on_error: RECOVER`, and `RECOVER -> END`",
                );
                continue;
            }
            // Outside of branches `check` reports a fallback that leads nowhere.
            self.place = self.model.step(step).place;
            let node = self.node(fallback);
            self.place = None;
            if node == step {
                let name = fallback.text();
                let text =
                    format!("`{name}` cannot be its own fallback: name another node, or run it again with `retry: 3`");
                self.errors.spanning(fallback, text);
                continue;
            }
            self.model.steps[step.index()].on_error = Some(node);
        }
    }

    fn entry(&mut self) {
        if self.model.steps.is_empty() && self.errors.is_empty() {
            self.errors.at(Span::call_site(), "a graph needs at least one node: `graph! { MAIN -> END }`");
        }
        // Without `START` the graph starts at the first node of the first chain.
        if self.model.entry.is_none() && !self.model.steps.is_empty() {
            self.model.entry = Some(StepId::new(0));
        }
    }

    fn report_unused(&mut self) {
        let mut unused: Vec<_> = self.bindings.values().filter(|binding| !binding.is_used).collect();
        unused.sort_by_key(|binding| binding.index);
        for Bound { name, .. } in unused {
            let text = format!("node `{name}` is bound but never used in a chain: write `.. -> {name} -> ..`");
            self.errors.at(name.span(), text);
        }
    }
}
