//! The rules of topology, one function per rule. Names, types, patterns and options are rustc's to check.
//!
//! What is wrong with the graph as a whole may come from a misspelt name, and is said only where all names resolve.

use std::collections::HashMap;

use proc_macro2::TokenStream;

use super::model::{Exit, Model, Step, Target, Work};
use crate::errors::Errors;

pub(crate) fn check(model: &mut Model<'_>, errors: &mut Errors) {
    let before = errors.count();
    two_nodes_with_one_name(model, errors);
    second_way_on(model, errors);
    if errors.count() == before {
        let mut mistakes = no_way_on(model);
        mistakes.extend(unreachable(model));
        if mistakes.is_empty() {
            mistakes = endless_loops(model);
        }
        model.mistakes = mistakes;
    }
    for inner in model.inner.values_mut() {
        check(inner, errors);
    }
}

/// What is wrong, and where.
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

fn second_way_on(model: &Model<'_>, errors: &mut Errors) {
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
                    let side_by_side = format!("run both side by side with `{from} -> {{ {one}, {two} }} -> ..`, or ");
                    let side_by_side = if to_end { "" } else { &side_by_side };
                    errors.spanning(
                        at,
                        format!(
                            "`{from}` has two ways on, `{one}` and `{two}`; {side_by_side}choose one with \
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

fn no_way_on(model: &Model<'_>) -> Vec<Mistake> {
    let ends = top(model).map(|step| &model.steps[step]).filter(|step| step.exits.is_empty());
    let mistake = |step: &Step<'_>| {
        let text = step.text();
        let text = match step.work {
            Work::Node { .. } => format!("node `{text}` has no way on; end the graph with `{text} -> END`"),
            Work::Group { .. } => "nothing follows this group; end the graph with `{ .. } -> END`".to_owned(),
        };
        (step.place(), text)
    };
    ends.map(mistake).collect()
}

/// Of what cannot be reached, only what leads to the rest of it.
fn unreachable(model: &Model<'_>) -> Vec<Mistake> {
    let Some(entry) = model.entry else { return Vec::new() };
    let mut reached = reached_from(model, entry);
    let entry = model.steps[entry].text();
    let mut mistakes = Vec::new();
    for step in top(model) {
        let from_here = reached_from(model, step);
        let leads_here = |other: usize| !from_here[other] && reached_from(model, other)[step];
        if reached[step] || top(model).any(leads_here) {
            continue;
        }
        for (reached, from_here) in reached.iter_mut().zip(from_here) {
            *reached |= from_here;
        }
        let step = &model.steps[step];
        let text = match step.work {
            Work::Node { .. } => format!("node `{}` can never run: no path leads to it from `{entry}`", step.text()),
            Work::Group { .. } => format!("this group can never run: no path leads to it from `{entry}`"),
        };
        mistakes.push((step.place(), text));
    }
    mistakes
}

/// Reports the loops that nothing leads out of, each once.
fn endless_loops(model: &Model<'_>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut reported = vec![false; model.steps.len()];
    for step in top(model) {
        let reached = reached_from(model, step);
        let looping: Vec<_> = top(model).filter(|at| reached[*at]).collect();
        let ends = looping.iter().any(|at| model.steps[*at].targets().any(|target| target == Target::End));
        if ends || reported[step] || !looping.iter().all(|at| reached_from(model, *at)[step]) {
            continue;
        }
        for at in &looping {
            reported[*at] = true;
        }
        let names: Vec<_> = looping.iter().map(|at| format!("`{}`", model.steps[*at].text())).collect();
        let subject = match &names[..] {
            [name] => format!("node {name} loops"),
            names => format!("nodes {} loop", names.join(", ")),
        };
        let text = format!("{subject} for ever: no path leads from there to `END`");
        mistakes.push((model.steps[step].place(), text));
    }
    mistakes
}

fn text_of(model: &Model<'_>, target: Target) -> String {
    match target {
        Target::Step(step) => model.steps[step].text(),
        Target::End => "END".to_owned(),
    }
}

/// The steps that are in no group.
fn top(model: &Model<'_>) -> impl Iterator<Item = usize> {
    (0..model.steps.len()).filter(|step| model.steps[*step].group.is_none())
}

/// The steps that a run may come to from `start`, itself included. The steps of a group are the group's.
fn reached_from(model: &Model<'_>, start: usize) -> Vec<bool> {
    let mut reached = vec![false; model.steps.len()];
    let mut open = vec![start];
    while let Some(step) = open.pop() {
        if !std::mem::replace(&mut reached[step], true) {
            open.extend(model.steps[step].targets().filter_map(|target| match target {
                Target::Step(next) => Some(next),
                Target::End => None,
            }));
            open.extend(model.steps[step].on_error);
        }
    }
    reached
}
