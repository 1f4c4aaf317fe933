//! AST → graph: names resolved to nodes, with the places where they stand.

use std::collections::{HashMap, hash_map::Entry};

use proc_macro2::{Ident, Span, TokenStream};
use quote::ToTokens;

use super::syntax::{Graph, Reference, Source};
use crate::errors::Errors;

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) entry: Option<usize>,
}

pub(crate) struct Node {
    /// What the node is called at run time.
    pub(crate) name: String,
    /// Where it was first named.
    pub(crate) first_mention: Reference,
    /// Which binding it comes from, where it is bound in the graph.
    pub(crate) binding: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Node(usize),
    End,
}

pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: Target,
    /// The target as it is written.
    pub(crate) at: Reference,
}

impl Model {
    pub(crate) fn build(graph: &Graph, errors: &mut Errors) -> Self {
        let mut model = Self::default();
        let mut names = Names::new(graph, errors);
        let mut start: Option<&Reference> = None;
        for chain in &graph.chains {
            let mut stages = chain.stages.iter();
            let mut before: Option<(usize, &Reference)> = None;
            let mut starts = false;
            let mut ended = false;
            if let Some(first) = chain.stages.first()
                && first.is_start()
            {
                stages.next();
                starts = true;
            }
            for stage in stages {
                if ended {
                    errors.spanning(stage, "nothing can follow `END`");
                    break;
                }
                if stage.is_start() {
                    errors.spanning(stage, "`START` can only begin a chain");
                    break;
                }
                if stage.is_end() {
                    ended = true;
                    let Some((from, _)) = before else {
                        errors.spanning(stage, "a graph needs a node before `END`: `MAIN -> END`");
                        break;
                    };
                    model.edges.push(Edge {
                        from,
                        to: Target::End,
                        at: stage.clone(),
                    });
                    continue;
                }
                let node = model.node(stage, &mut names);
                if let Some((from, _)) = before {
                    model.edges.push(Edge {
                        from,
                        to: Target::Node(node),
                        at: stage.clone(),
                    });
                } else if starts {
                    match start {
                        None => (model.entry, start) = (Some(node), Some(stage)),
                        Some(first) => errors.spanning(
                            stage,
                            format!("the graph starts at `{first}` already", first = first.text()),
                        ),
                    }
                }
                before = Some((node, stage));
            }
            if starts && before.is_none() && !ended {
                errors.spanning(
                    &chain.stages[0],
                    "`START` needs a node to start at: `START -> MAIN`",
                );
            }
        }
        if model.nodes.is_empty() && errors.is_empty() {
            errors.at(
                Span::call_site(),
                "a graph needs at least one node: `graph! { MAIN -> END }`",
            );
        }
        // Without `START` the graph starts at the first node of the first chain.
        if model.entry.is_none() && !model.nodes.is_empty() {
            model.entry = Some(0);
        }
        names.report_unused(errors);
        model
    }

    fn node(&mut self, reference: &Reference, names: &mut Names) -> usize {
        let text = reference.text();
        if let Some(node) = names.nodes.get(&text) {
            return *node;
        }
        let binding = names
            .bindings
            .get_mut(&text)
            .filter(|_| reference.is_plain)
            .map(|binding| {
                binding.is_used = true;
                binding.index
            });
        let index = self.nodes.len();
        self.nodes.push(Node {
            name: reference.name.to_string(),
            first_mention: reference.clone(),
            binding,
        });
        names.nodes.insert(text, index);
        index
    }
}

/// What the graph's names stand for.
struct Names {
    bindings: HashMap<String, Bound>,
    nodes: HashMap<String, usize>,
}

struct Bound {
    index: usize,
    name: Ident,
    is_used: bool,
}

impl Names {
    fn new(graph: &Graph, errors: &mut Errors) -> Self {
        let mut bindings: HashMap<String, Bound> = HashMap::new();
        for (index, binding) in graph.bindings.iter().enumerate() {
            let name = binding.name.to_string();
            if name == "START" || name == "END" {
                errors.at(
                    binding.name.span(),
                    format!("`{name}` is reserved: give the node another name"),
                );
                continue;
            }
            match bindings.entry(name) {
                Entry::Occupied(first) => errors.at(
                    binding.name.span(),
                    format!(
                        "`node {}` is there already: give this one another name",
                        first.key()
                    ),
                ),
                Entry::Vacant(place) => {
                    place.insert(Bound {
                        index,
                        name: binding.name.clone(),
                        is_used: false,
                    });
                }
            }
        }
        Self {
            bindings,
            nodes: HashMap::new(),
        }
    }

    fn report_unused(self, errors: &mut Errors) {
        let mut unused: Vec<_> = self
            .bindings
            .into_values()
            .filter(|binding| !binding.is_used)
            .collect();
        unused.sort_by_key(|binding| binding.index);
        for Bound { name, .. } in unused {
            errors.at(
                name.span(),
                format!("node `{name}` is bound but no chain goes through it: write `.. -> {name} -> ..`"),
            );
        }
    }
}

impl Node {
    /// What stands for the node's type in the expansion: what the binding names, or the reference itself.
    pub(crate) fn handle(&self, graph: &Graph) -> Option<TokenStream> {
        match self.binding.map(|index| &graph.bindings[index].source) {
            Some(Source::Value(_)) => None,
            // The alias is what is written, so that the editor goes to the binding.
            Some(Source::Handle(_)) | None => Some(self.first_mention.to_token_stream()),
        }
    }
}
