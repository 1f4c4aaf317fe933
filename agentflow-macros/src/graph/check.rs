//! The rules of a graph that rustc cannot check; it checks names, types, patterns and options.
//!
//! A misspelt name can break the shape of the whole graph. The expansion therefore reports mistakes of shape only where
//! all names resolve.

use std::collections::HashMap;

use proc_macro2::TokenStream;

use super::{
    model::{Exit, Model, Step, Target, Work},
    topology::{Next, StepEdges, StepId, Topology, Violation},
};
use crate::errors::Errors;

pub(crate) fn check(model: &mut Model<'_>, errors: &mut Errors) {
    let before = errors.count();
    two_nodes_with_one_name(model, errors);
    second_outgoing_edge(model, errors);
    if errors.count() == before {
        model.mistakes = shape(model);
    }
    for inner in model.inner.values_mut() {
        check(inner, errors);
    }
}

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
        let Some((first, others)) = step.exits.split_first() else {
            continue;
        };
        for other in others {
            let from = step.text();
            match (first, other) {
                (Exit::Edge { to: one, at: first }, Exit::Edge { to: two, at: second }) if one == two => {
                    let text = format!("duplicate edge `{from} -> {}`", text_of(model, *two));
                    errors.spanning(second, format!("{text} (2/2)"));
                    errors.spanning(first, format!("{text} (1/2)"));
                }
                (Exit::Edge { to: one, .. }, Exit::Edge { to: two, at }) => {
                    let to_end = [one, two].into_iter().any(|to| *to == Target::End);
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
                (Exit::Edge { to, .. }, Exit::Decision { decision, .. }) => {
                    let to = text_of(model, *to);
                    let text = format!("`{from}` leads to `{to}` already; make that an arm of this `match`");
                    errors.spanning(&decision.keyword, text);
                }
                (Exit::Decision { .. }, Exit::Decision { decision, .. }) => errors.spanning(
                    &decision.keyword,
                    format!("`{from}` has a decision already; put these arms into that one"),
                ),
                (Exit::Decision { .. }, Exit::Edge { at, .. }) => {
                    errors.spanning(at, format!("`{from}` has a decision already; make this an arm of it"));
                }
            }
        }
    }
}

/// Returns what is wrong with the graph's shape, with the texts for it.
fn shape(model: &Model<'_>) -> Vec<Mistake> {
    let Some(entry) = model.entry else { return Vec::new() };
    let topology = Topology { entry: StepId::new(entry), steps: model.steps.iter().map(edges_of).collect() };
    let entry = model.steps[entry].text();
    let mistake = |violation| match violation {
        Violation::NoOutgoingEdge(step) => no_outgoing_edge(&model.steps[step.index()]),
        Violation::Unreachable(step) => unreachable(&model.steps[step.index()], &entry),
        Violation::EndlessLoop(steps) => {
            let steps: Vec<_> = steps.into_iter().map(|step| &model.steps[step.index()]).collect();
            endless_loop(&steps)
        }
    };
    topology.violations().into_iter().map(mistake).collect()
}

fn edges_of(step: &Step<'_>) -> StepEdges {
    let next = step.targets().map(|target| match target {
        Target::Step(step) => Next::Step(StepId::new(step)),
        Target::End => Next::End,
    });
    StepEdges { is_in_group: step.group.is_some(), next: next.collect(), on_error: step.on_error.map(StepId::new) }
}

fn no_outgoing_edge(step: &Step<'_>) -> Mistake {
    let text = step.text();
    let text = match step.work {
        Work::Node { .. } => format!("node `{text}` has no outgoing edge; end the graph with `{text} -> END`"),
        Work::Group { .. } => "nothing follows this group; end the graph with `{ .. } -> END`".to_owned(),
    };
    (step.place(), text)
}

fn unreachable(step: &Step<'_>, entry: &str) -> Mistake {
    let text = match step.work {
        Work::Node { .. } => format!("node `{}` can never run: no path leads to it from `{entry}`", step.text()),
        Work::Group { .. } => format!("this group can never run: no path leads to it from `{entry}`"),
    };
    (step.place(), text)
}

fn endless_loop(steps: &[&Step<'_>]) -> Mistake {
    let names: Vec<_> = steps.iter().map(|step| format!("`{}`", step.text())).collect();
    let (subject, pronoun) = match &names[..] {
        [name] => (format!("node {name} loops"), "it"),
        names => (format!("nodes {} loop", names.join(", ")), "them"),
    };
    let place = steps.first().map(|step| step.place()).unwrap_or_default();
    (place, format!("{subject} forever: no path leads from {pronoun} to `END`"))
}

fn text_of(model: &Model<'_>, target: Target) -> String {
    match target {
        Target::Step(step) => model.steps[step].text(),
        Target::End => "END".to_owned(),
    }
}
