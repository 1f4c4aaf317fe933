//! The rules of topology, one function per rule. Names, types and options are rustc's to check.

use std::collections::HashMap;

use super::model::{Model, Target};
use crate::errors::Errors;

pub(crate) fn check(model: &Model, errors: &mut Errors) {
    two_nodes_with_one_name(model, errors);
    duplicate_edge(model, errors);
    second_way_on(model, errors);
    if !errors.is_empty() {
        return;
    }
    no_way_on(model, errors);
    unreachable(model, errors);
    if errors.is_empty() {
        endless_loop(model, errors);
    }
}

fn two_nodes_with_one_name(model: &Model, errors: &mut Errors) {
    let mut seen = HashMap::new();
    for node in &model.nodes {
        let this = node.first_mention.text();
        if let Some(other) = seen.insert(&node.name, this.clone()) {
            let name = &node.name;
            errors.spanning(
                &node.first_mention,
                format!("two nodes are named `{name}`: `{other}` and `{this}`; give one another name: `node OTHER = {this};`"),
            );
        }
    }
}

fn duplicate_edge(model: &Model, errors: &mut Errors) {
    for (index, edge) in model.edges.iter().enumerate() {
        let is_same = |other: &&_| {
            let other: &&super::model::Edge = other;
            other.from == edge.from && other.to == edge.to
        };
        if let Some(first) = model.edges[..index].iter().find(is_same) {
            let text = format!(
                "duplicate edge `{} -> {}`",
                model.nodes[edge.from].name,
                edge.at.text()
            );
            errors.spanning(&edge.at, format!("{text} (2/2)"));
            errors.spanning(&first.at, format!("{text} (1/2)"));
        }
    }
}

fn second_way_on(model: &Model, errors: &mut Errors) {
    for (index, edge) in model.edges.iter().enumerate() {
        if let Some(first) = model.edges[..index].iter().find(|other| other.from == edge.from)
            && first.to != edge.to
        {
            let (from, one, two) = (&model.nodes[edge.from].name, first.at.text(), edge.at.text());
            errors.spanning(
                &edge.at,
                format!("`{from}` has two ways on, `{one}` and `{two}`; a node has one"),
            );
        }
    }
}

fn no_way_on(model: &Model, errors: &mut Errors) {
    for (index, node) in model.nodes.iter().enumerate() {
        if way_on(model, index).is_none() {
            let name = node.first_mention.text();
            errors.spanning(
                &node.first_mention,
                format!("node `{name}` has no way on; end the graph with `{name} -> END`"),
            );
        }
    }
}

fn unreachable(model: &Model, errors: &mut Errors) {
    let Some(entry) = model.entry else { return };
    let path = path_from(model, entry);
    for (index, node) in model.nodes.iter().enumerate() {
        if !path.contains(&index) {
            let (name, entry) = (node.first_mention.text(), model.nodes[entry].first_mention.text());
            errors.spanning(
                &node.first_mention,
                format!("node `{name}` can never run: no path leads to it from `{entry}`"),
            );
        }
    }
}

fn endless_loop(model: &Model, errors: &mut Errors) {
    let Some(entry) = model.entry else { return };
    let path = path_from(model, entry);
    let Some(Target::Node(back)) = path.last().and_then(|last| way_on(model, *last)) else {
        return;
    };
    let looping = &path[path.iter().position(|node| *node == back).unwrap_or(0)..];
    let names: Vec<_> = looping
        .iter()
        .map(|node| format!("`{}`", model.nodes[*node].name))
        .collect();
    let subject = match &names[..] {
        [name] => format!("node {name} loops"),
        names => format!("nodes {} loop", names.join(", ")),
    };
    errors.spanning(
        &model.nodes[back].first_mention,
        format!("{subject} for ever: no path leads from there to `END`"),
    );
}

fn way_on(model: &Model, node: usize) -> Option<Target> {
    model
        .edges
        .iter()
        .find(|edge| edge.from == node)
        .map(|edge| edge.to)
}

/// The nodes that run from `entry` on, each once.
fn path_from(model: &Model, entry: usize) -> Vec<usize> {
    let mut path = Vec::new();
    let mut at = Some(entry);
    while let Some(node) = at.filter(|node| !path.contains(node)) {
        path.push(node);
        at = match way_on(model, node) {
            Some(Target::Node(next)) => Some(next),
            Some(Target::End) | None => None,
        };
    }
    path
}
