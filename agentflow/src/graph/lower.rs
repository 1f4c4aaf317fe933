//! Lowering: a graph that passed all checks becomes the [`Plan`] that runs and the [`Outline`] that pictures show.

use std::{collections::HashMap, sync::Arc};

use super::{
    builder::{StateGraph, StepDeclaration, WorkDeclaration},
    error::BuildError,
    outline::{Outline, OutlineBranches, OutlineStep, StepContents},
    plan::{Branch, Group, GroupKind, Plan, Router, Step, Work},
    topology::{Next, StepId},
    validate::{CheckedGraph, CheckedStep, validate},
};
use crate::state::State;

/// Checks the graph and lowers it.
pub(super) fn lower<S: State, C>(graph: StateGraph<S, C>) -> Result<(Plan<S, C>, Outline), BuildError> {
    let CheckedGraph { entry, steps: checked, nesting } = validate(&graph)?;
    let StateGraph { name, steps, routes, on_commit, .. } = graph;
    let mut routers: HashMap<Arc<str>, Option<Box<dyn Router<S>>>> =
        routes.into_iter().map(|route| (route.from, route.router)).collect();
    let mut members: HashMap<Arc<str>, Vec<Vec<StepId>>> = HashMap::new();
    // Every loop has an edge back to the same or to an earlier step.
    let leads_back: Vec<bool> = checked
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let next = step.edges.iter().map(|checked| checked.edge.to).chain(step.on_error.map(Next::Step));
            next.into_iter().any(|next| matches!(next, Next::Step(next) if next.index() <= index))
        })
        .collect();
    let may_loop = checked.iter().zip(&leads_back).any(|(step, leads_back)| *leads_back && !step.is_in_branch());
    let lower_step = |(declared, checked): (StepDeclaration<S, C>, CheckedStep)| {
        let CheckedStep { name, branches, options, on_error, edges, .. } = checked;
        let work = match declared.work {
            WorkDeclaration::Node(node, _) => Work::Node(node),
            WorkDeclaration::Branch(node, _) => Work::Branch(node),
            WorkDeclaration::Group(group) => {
                let branch = |steps: &Vec<StepId>| {
                    let may_loop = steps.iter().any(|step| leads_back[step.index()]);
                    Branch { steps: steps.clone(), may_loop }
                };
                let lowered = branches.iter().map(branch).collect();
                members.insert(name.clone(), branches);
                Work::Group(Group { kind: group.kind, branches: lowered })
            }
        };
        let router = routers.remove(&name).flatten();
        let edges = edges.into_iter().map(|checked| checked.edge).collect();
        Step { name, work, options, router, on_error, edges }
    };
    let steps: Vec<_> = steps.into_iter().zip(checked).map(lower_step).collect();
    let outlines = steps.iter().map(|step| outline_of(step, members.remove(&step.name)));
    let outline = Outline { name, steps: outlines.collect(), entry, nesting, manager: None, outer_option: None };
    Ok((Plan { steps, entry, may_loop, on_commit }, outline))
}

fn outline_of<S: State, C>(step: &Step<S, C>, branches: Option<Vec<Vec<StepId>>>) -> OutlineStep {
    let contents = match (&step.work, step.outline()) {
        (Work::Group(group), _) => {
            let title = match group.kind {
                GroupKind::All => "parallel",
                GroupKind::Any => "first to succeed",
                GroupKind::Each(_) => "for each item",
            };
            let title = step.options.label.clone().unwrap_or_else(|| title.into());
            StepContents::Branches(OutlineBranches { title, branches: branches.unwrap_or_default() })
        }
        (_, Some(outline)) => StepContents::Graph(outline.clone()),
        _ => StepContents::Nothing,
    };
    let label = step.options.describe(&step.name, step.starts_tasks());
    OutlineStep { name: Arc::clone(&step.name), label, contents, edges: step.edges.clone(), on_error: step.on_error }
}
