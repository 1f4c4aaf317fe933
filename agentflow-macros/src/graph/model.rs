//! AST → graph: names become steps, and each step keeps the tokens that its mistakes are reported at.

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use proc_macro2::{Ident, Span, TokenStream};
use quote::ToTokens;

use super::{
    syntax::{Binding, Branches, Chain, Decision, Graph, Reference, Source, Stage},
    topology::{Next, StepId},
};
use crate::errors::Errors;

#[derive(Default)]
pub(crate) struct Model<'a> {
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) entry: Option<StepId>,
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
    /// The group that contains the step.
    pub(crate) group: Option<StepId>,
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
}

impl Edge<'_> {
    pub(crate) fn targets(&self) -> &[Next] {
        match self {
            Self::Direct { to, .. } => std::slice::from_ref(to),
            Self::Routed { targets, .. } => targets,
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
    for mention in graph.mentions.iter().filter(|mention| mention.is_plain && !mention.is_start() && !mention.is_end())
    {
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
    /// The stage that `START` leads to.
    start: Option<&'a Stage>,
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
            if name == "START" || name == "END" {
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
        Self { model: Model::default(), graph, bindings, nodes: HashMap::new(), start: None, errors }
    }

    /// Adds a chain that is a statement of its own.
    fn statement(&mut self, chain: &'a Chain) {
        let is_first = self.model.steps.is_empty() && self.start.is_none();
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
                self.errors.spanning(stage, "nothing can follow `END`");
                return first;
            }
            if is_reserved(Reference::is_start) {
                if position == ChainPosition::Arm || !matches!(before, Before::Nothing) {
                    self.errors.spanning(stage, "`START` can only begin a chain");
                    return first;
                }
                before = Before::Start;
                continue;
            }
            if position == ChainPosition::Statement
                && matches!(before, Before::Nothing)
                && is_reserved(Reference::is_end)
            {
                self.errors.spanning(stage, "a graph needs a node before `END`: `MAIN -> END`");
                return None;
            }
            let target = if is_reserved(Reference::is_end) { Next::End } else { Next::Step(self.step(stage)) };
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
            (Before::Start, Next::Step(entry)) if self.start.is_none() => {
                (self.start, self.model.entry) = (Some(stage), Some(entry));
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
            Stage::Node(reference) => {
                let node = self.node(reference);
                if self.model.step(node).group.is_some() {
                    self.report_second_use(reference);
                }
                node
            }
            Stage::Group(group) => self.group(group),
        }
    }

    fn node(&mut self, reference: &'a Reference) -> StepId {
        let text = reference.text();
        if let Some(node) = self.nodes.get(&text) {
            return *node;
        }
        let binding = self.bindings.get_mut(&text).filter(|_| reference.is_plain).map(|binding| {
            binding.is_used = true;
            binding.index
        });
        let work = Work::Node { first_mention: reference, binding };
        let node = self.push(reference.name.to_string(), work);
        self.nodes.insert(text, node);
        node
    }

    fn push(&mut self, name: String, work: Work<'a>) -> StepId {
        self.model.steps.push(Step { name, work, edges: Vec::new(), on_error: None, group: None });
        StepId::new(self.model.steps.len() - 1)
    }

    fn group(&mut self, written: &'a Branches) -> StepId {
        if written.chains.is_empty() {
            self.errors.spanning(&written.braces, "a group needs branches: `{ B, C }`");
        }
        let branches: Vec<Vec<StepId>> = written.chains.iter().map(|chain| self.branch(chain)).collect();
        let firsts = branches.iter().filter_map(|branch| branch.first());
        let firsts: Vec<_> = firsts.map(|step| self.model.step(*step).name.as_str()).collect();
        let name = format!("{{{}}}", firsts.join(", "));
        let members: Vec<_> = branches.iter().flatten().copied().collect();
        let group = self.push(name, Work::Group { written, branches });
        for member in members {
            self.model.steps[member.index()].group = Some(group);
        }
        group
    }

    /// Adds the steps of a branch, which run one after the other. They have no edges: the group has.
    fn branch(&mut self, chain: &'a Chain) -> Vec<StepId> {
        let mut steps = Vec::new();
        for stage in &chain.stages {
            match stage {
                Stage::Node(reference) if reference.is_end() => {
                    let text = "a branch does not end the run: what follows the group joins it, `A -> { B, C } -> END`";
                    self.errors.spanning(reference, text);
                }
                Stage::Node(reference) if reference.is_start() => {
                    self.errors.spanning(reference, "`START` can only begin a chain");
                }
                Stage::Node(reference) => {
                    if self.nodes.contains_key(&reference.text()) {
                        self.report_second_use(reference);
                    }
                    let node = self.node(reference);
                    self.reject_inner_graph(node, reference);
                    steps.push(node);
                }
                Stage::Group(group) => steps.push(self.group(group)),
            }
        }
        if let Some(decision) = &chain.decision {
            let text = "a branch cannot contain a `match`: put it after the group, or in a graph of its own, \
                        `node NAME = app.map_state(into, back);`";
            self.errors.spanning(&decision.keyword, text);
        }
        steps
    }

    /// Reports an inner graph in a branch: it mutates the state, which the branches share.
    fn reject_inner_graph(&mut self, node: StepId, reference: &Reference) {
        if let Work::Node { binding: Some(binding), .. } = self.model.step(node).work
            && let Source::Graph(_) = self.graph.bindings[binding].source
        {
            let text = "a graph written in place shares the state and cannot run in a group; \
                        compile it separately and map its state: `node NAME = app.map_state(into, back);`";
            self.errors.spanning(reference, text);
        }
    }

    fn report_second_use(&mut self, reference: &Reference) {
        let text = reference.text();
        self.errors.spanning(
            reference,
            format!(
                "`{text}` runs in a group and cannot be used a second time; give this use its own name: \
                 `node OTHER = {text};`"
            ),
        );
    }

    /// Resolves `on_error: NODE` of the bindings whose nodes are in the graph.
    fn fallbacks(&mut self) {
        for index in 0..self.model.steps.len() {
            let Work::Node { binding: Some(binding), .. } = self.model.steps[index].work else {
                continue;
            };
            let Some(fallback) = &self.graph.bindings[binding].on_error else {
                continue;
            };
            if self.model.steps[index].group.is_some() {
                let text = "`on_error` cannot lead out of a group: put the group into a graph of its own and set `on_error` there, `node NAME = app { on_error: .. }`";
                self.errors.spanning(fallback, text);
            } else if fallback.is_start() || fallback.is_end() {
                self.errors.spanning(
                    fallback,
                    "`on_error` must name a node, which receives the error: `on_error: RECOVER`, and `RECOVER -> END`",
                );
            } else {
                // If the node is named only here, `check` reports that it has no outgoing edge.
                let node = self.node(fallback);
                if node == StepId::new(index) {
                    let name = fallback.text();
                    let text = format!(
                        "`{name}` cannot be its own fallback: name another node, or run it again with `retry: 3`"
                    );
                    self.errors.spanning(fallback, text);
                    continue;
                }
                if self.model.step(node).group.is_some() {
                    self.report_second_use(fallback);
                }
                self.model.steps[index].on_error = Some(node);
            }
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
