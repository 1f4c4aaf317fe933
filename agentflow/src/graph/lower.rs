//! Lowering: a graph that passed all checks becomes the [`Plan`] that runs and the [`Outline`] that pictures show.

use std::{collections::HashMap, sync::Arc};

use super::{
    builder::{StateGraph, StepDeclaration, WorkDeclaration},
    error::BuildError,
    outline::{Inside, Outline, OutlineStep},
    plan::{Plan, Router, Step, Work},
    topology::Next,
    validate::{CheckedGraph, CheckedStep, validate},
};
use crate::state::State;

/// Checks the graph and lowers it.
pub(super) fn lower<S: State, C>(graph: StateGraph<S, C>) -> Result<(Plan<S, C>, Outline), BuildError> {
    let CheckedGraph { entry, steps: checked, nesting } = validate(&graph)?;
    let StateGraph { name, steps, routes, on_commit, .. } = graph;
    let mut routers: HashMap<Arc<str>, Option<Box<dyn Router<S>>>> =
        routes.into_iter().map(|route| (route.from, route.router)).collect();
    let lower_step = |(declared, checked): (StepDeclaration<S, C>, CheckedStep)| {
        let CheckedStep { name, branches, options, on_error, edges, .. } = checked;
        let work = match declared.work {
            WorkDeclaration::Node(node) => Work::Node(node),
            WorkDeclaration::Branch(node) => Work::Branch(node),
            WorkDeclaration::Group(_) => Work::Group(branches),
        };
        let router = routers.remove(&name).flatten();
        let edges = edges.into_iter().map(|checked| checked.edge).collect();
        Step { name, work, options, router, on_error, edges }
    };
    let steps: Vec<_> = steps.into_iter().zip(checked).map(lower_step).collect();
    let outline = Outline {
        name,
        steps: steps.iter().map(outline_of).collect(),
        entry,
        nesting,
        manager: None,
        outer_option: None,
    };
    let leads_back = |(index, step): (usize, &Step<S, C>)| {
        let next = step.edges.iter().map(|edge| edge.to).chain(step.on_error.map(Next::Step));
        next.into_iter().any(|next| matches!(next, Next::Step(next) if next.index() <= index))
    };
    let may_loop = steps.iter().enumerate().any(leads_back);
    Ok((Plan { steps, entry, may_loop, on_commit }, outline))
}

fn outline_of<S: State, C>(step: &Step<S, C>) -> OutlineStep {
    let inside = match (&step.work, step.outline()) {
        (Work::Group(branches), _) => Inside::Branches(branches.clone()),
        (_, Some(outline)) => Inside::Graph(outline.clone()),
        _ => Inside::Nothing,
    };
    let label = step.options.describe(&step.name, step.starts_tasks());
    OutlineStep { name: Arc::clone(&step.name), label, inside, edges: step.edges.clone(), on_error: step.on_error }
}
