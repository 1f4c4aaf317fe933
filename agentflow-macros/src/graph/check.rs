//! The rules of a graph that rustc cannot check. rustc checks names, types, patterns and options.
//!
//! A misspelt name can break the shape of the whole graph. The expansion therefore reports mistakes of shape only where
//! all names resolve.

use std::collections::HashMap;

use proc_macro2::TokenStream;

use super::{
    model::{Edge, Model, Step, Work},
    syntax::Graph,
    topology::{Next, StepEdges, StepId, Violation, violations_of_path},
};
use crate::errors::{Errors, first_of_each_kind};

pub(crate) fn check(model: &mut Model<'_>, errors: &mut Errors) {
    let before = errors.count();
    two_nodes_with_one_name(model, errors);
    second_outgoing_edge(model, errors);
    if errors.count() == before {
        let mistakes = shape(model).into_iter().map(|(tokens, text)| (text, tokens)).collect();
        model.mistakes = first_of_each_kind(mistakes).into_iter().map(|(text, tokens, _)| (tokens, text)).collect();
    }
    for inner in model.inner.values_mut() {
        check(inner, errors);
    }
}

/// A graph with a store has a name, under which the store keeps its threads.
pub(crate) fn name_of_graph(graph: &Graph, errors: &mut Errors) {
    let is_named = graph.name.as_ref().is_some_and(|name| !name.to_string().trim_matches('"').trim().is_empty());
    if let (Some(store), false) = (graph.store(), is_named) {
        let text =
            "a graph with a store has a name, under which the store keeps its threads: write `name = \"support\";`";
        errors.at(store.key.span(), text);
    }
}

/// The number of nodes of a loop that a message names.
const NAMED: usize = 10;

/// The tokens at which a mistake is reported, and its text.
type Mistake = (TokenStream, String);

fn two_nodes_with_one_name(model: &Model<'_>, errors: &mut Errors) {
    let mut seen = HashMap::new();
    for step in &model.steps {
        let this = step.text();
        if let Some(other) = seen.insert(&step.name, this.clone())
            && let Work::Node { first_mention, .. } = step.work
        {
            let name = &step.name;
            errors.spanning(
                first_mention,
                format!("two nodes are named `{name}`: `{other}` and `{this}`; give one another name: `node OTHER = {this};`"),
            );
        }
    }
}

fn second_outgoing_edge(model: &Model<'_>, errors: &mut Errors) {
    for step in &model.steps {
        let Some((first, others)) = step.edges.split_first() else {
            continue;
        };
        for other in others {
            let from = step.text();
            match (first, other) {
                (Edge::Direct { to: one, at: first }, Edge::Direct { to: two, at: second }) if one == two => {
                    let text = format!("duplicate edge `{from} -> {}`", text_of(model, *two));
                    errors.spanning(second, format!("{text} (2/2)"));
                    errors.spanning(first, format!("{text} (1/2)"));
                }
                (Edge::Direct { to: one, .. }, Edge::Direct { to: two, at }) => {
                    let to_end = [one, two].into_iter().any(|to| *to == Next::End);
                    let (one, two) = (text_of(model, *one), text_of(model, *two));
                    let in_parallel = format!("run both in parallel with `{from} -> {{ {one}, {two} }} -> ..`, or ");
                    let in_parallel = if to_end { "" } else { &in_parallel };
                    errors.spanning(
                        at,
                        format!(
                            "`{from}` has two outgoing edges, `{one}` and `{two}`; {in_parallel}choose one with \
                             `{from} -> match .. {{ .. }}`"
                        ),
                    );
                }
                (Edge::Direct { to, .. }, Edge::Routed { decision, .. }) => {
                    let to = text_of(model, *to);
                    let text = format!("`{from}` leads to `{to}` already; make that an arm of this `match`");
                    errors.spanning(&decision.keyword, text);
                }
                (Edge::Routed { .. }, Edge::Routed { decision, .. }) => errors.spanning(
                    &decision.keyword,
                    format!("`{from}` has a decision already; put these arms into that one"),
                ),
                // Only a step without another edge has this one.
                (Edge::Join, _) | (_, Edge::Join) => {}
                (Edge::Routed { .. }, Edge::Direct { at, .. }) => {
                    errors.spanning(at, format!("`{from}` has a decision already; make this an arm of it"));
                }
            }
        }
    }
}

/// Returns the mistakes in the shape of the graph and of its branches.
fn shape(model: &Model<'_>) -> Vec<Mistake> {
    let Some(entry) = model.entry else { return Vec::new() };
    let ids = (0..model.steps.len()).map(StepId::new);
    let main: Vec<_> = ids.filter(|step| model.step(*step).place.is_none()).collect();
    let mut mistakes = shape_of_path(model, entry, &main, "END");
    for step in &model.steps {
        let Work::Group { branches, .. } = &step.work else { continue };
        for branch in branches {
            let Some(first) = branch.first() else { continue };
            mistakes.extend(shape_of_path(model, *first, branch, "JOIN"));
        }
    }
    mistakes
}

/// Returns the mistakes in the shape of one path, which ends at `end`.
fn shape_of_path(model: &Model<'_>, entry: StepId, path: &[StepId], end: &str) -> Vec<Mistake> {
    let first = model.step(entry).text();
    let mistake = |violation| match violation {
        Violation::NoOutgoingEdge(step) => no_outgoing_edge(model.step(step)),
        Violation::Unreachable(step) => unreachable(model.step(step), &first),
        Violation::EndlessLoop(steps) => {
            let steps: Vec<_> = steps.into_iter().map(|step| model.step(step)).collect();
            endless_loop(&steps, end)
        }
    };
    violations_of_path(entry, path, |step| edges_of(model.step(step))).into_iter().map(mistake).collect()
}

fn edges_of(step: &Step<'_>) -> StepEdges {
    let next = step.edges.iter().flat_map(Edge::targets).copied().collect();
    StepEdges { next, on_error: step.on_error }
}

fn no_outgoing_edge(step: &Step<'_>) -> Mistake {
    let text = step.text();
    let text = match step.work {
        Work::Node { .. } => format!("node `{text}` has no outgoing edge; end the graph with `{text} -> END`"),
        Work::Group { .. } => "this group has no outgoing edge; end the graph with `{ .. } -> END`".to_owned(),
    };
    (step.written(), text)
}

fn unreachable(step: &Step<'_>, entry: &str) -> Mistake {
    let text = match step.work {
        Work::Node { .. } => format!("node `{}` can never run: no path leads to it from `{entry}`", step.text()),
        Work::Group { .. } => format!("this group can never run: no path leads to it from `{entry}`"),
    };
    (step.written(), text)
}

fn endless_loop(steps: &[&Step<'_>], end: &str) -> Mistake {
    let names: Vec<_> = steps.iter().map(|step| format!("`{}`", step.text())).collect();
    let (subject, pronoun) = match &names[..] {
        [name] => (format!("node {name} loops"), "it"),
        names if names.len() > NAMED => {
            let others = names.len() - NAMED;
            (format!("nodes {} and {others} others loop", names[..NAMED].join(", ")), "them")
        }
        names => (format!("nodes {} loop", names.join(", ")), "them"),
    };
    let first = steps.first().map(|step| step.written()).unwrap_or_default();
    (first, format!("{subject} forever: no path leads from {pronoun} to `{end}`"))
}

fn text_of(model: &Model<'_>, target: Next) -> String {
    match target {
        Next::Step(step) => model.step(step).text(),
        Next::End => "END".to_owned(),
    }
}
