//! Groups: branches side by side in the run's own task, and the join that merges what they bring.

use std::{collections::HashMap, sync::Arc};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::{
    Failure, RunErrorKind,
    attempt::{Parallel, attempts},
    events::{EventKind, text_of},
    scope::Scope,
};
use crate::{
    State,
    error::quietly,
    graph::{BoxFuture, Plan, Work},
};

/// What a node of a branch brings to the join.
struct Brought<S: State> {
    node: Arc<str>,
    update: S::Update,
}

type Branch<S> = Result<Vec<Brought<S>>, Box<Failure>>;

/// Runs the branches and merges their updates into the state, in the order in which the branches are written.
///
/// Nothing is merged unless all branches succeed and agree.
pub(super) async fn group<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    branches: &[Vec<usize>],
    context: &C,
    scope: &Scope<'_>,
    state: &mut S,
) -> Result<(), Box<Failure>> {
    let brought = fork(plan, branches, context, scope, state).await?;
    let fields = fields(scope, &brought);
    for Brought { update, .. } in brought {
        state.apply(update);
    }
    joined(plan, branches, scope, fields).await;
    Ok(())
}

/// The fields that the updates change, where somebody reads.
fn fields<S: State>(scope: &Scope<'_>, brought: &[Brought<S>]) -> Vec<String> {
    let mut fields = Vec::new();
    for Brought { update, .. } in brought {
        scope.sink.note(&mut fields, || S::changes(update));
    }
    fields
}

async fn joined<S: State, C>(plan: &Plan<S, C>, branches: &[Vec<usize>], scope: &Scope<'_>, fields: Vec<String>) {
    scope.sink.emit(|| EventKind::GroupJoined { nodes: names(plan, branches, scope), fields }).await;
}

/// Runs the branches on the state as it is and gives what they bring, in written order.
async fn fork<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    branches: &[Vec<usize>],
    context: &C,
    scope: &Scope<'_>,
    state: &S,
) -> Branch<S> {
    scope.sink.emit(|| EventKind::GroupStarted { nodes: names(plan, branches, scope) }).await;
    let brought = side_by_side(plan, branches, context, scope, state).await;
    if let Err(failure) = &brought {
        let failed = || EventKind::GroupFailed { nodes: names(plan, branches, scope), error: text_of(&failure.kind) };
        scope.sink.emit(failed).await;
    }
    brought
}

async fn side_by_side<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    branches: &[Vec<usize>],
    context: &C,
    scope: &Scope<'_>,
    state: &S,
) -> Branch<S> {
    let scopes: Vec<_> = branches.iter().map(|_| scope.branch()).collect();
    let mut running: FuturesUnordered<_> = branches
        .iter()
        .zip(&scopes)
        .enumerate()
        .map(|(index, (steps, scope))| async move { (index, branch(plan, steps, context, scope, state).await) })
        .collect();
    let mut brought: Vec<Vec<Brought<S>>> = branches.iter().map(|_| Vec::new()).collect();
    while let Some((index, ended)) = running.next().await {
        match ended {
            Ok(updates) => brought[index] = updates,
            Err(failure) => {
                // The siblings end here, each at its await; a destructor that panics takes nothing from the failure.
                quietly(|| drop(running));
                return Err(failure);
            }
        }
    }
    drop(running);
    scope.join(&scopes);
    agree(&brought)?;
    Ok(brought.into_iter().flatten().collect())
}

/// Runs one branch; it sees the state as it was at the fork with its own updates.
///
/// A future that names its type, because a branch may hold a group and so contain itself.
fn branch<'a, S: State, C: Send + Sync + 'static>(
    plan: &'a Plan<S, C>,
    steps: &'a [usize],
    context: &'a C,
    scope: &'a Scope<'_>,
    state: &'a S,
) -> BoxFuture<'a, Branch<S>> {
    Box::pin(async move {
        let mut all: Vec<Brought<S>> = Vec::new();
        // Copied when a later step is to see an earlier one's update, not before.
        let mut own: Option<S> = None;
        for (position, index) in steps.iter().enumerate() {
            let step = &plan.steps[*index];
            let view = own.as_ref().unwrap_or(state);
            let brought = match &step.work {
                Work::Branch(node) => {
                    let path = scope.enter(&step.name)?;
                    let mut node = Parallel { node: &**node, state: view, context };
                    let update = attempts(&mut node, &path, &step.options, scope, None).await?;
                    update.map(|update| Brought { node: path.into_owned(), update }).into_iter().collect()
                }
                Work::Group(branches) => {
                    let brought = fork(plan, branches, context, scope, view).await?;
                    joined(plan, branches, scope, fields(scope, &brought)).await;
                    brought
                }
                // A branch is made of steps that read; the graph is not compiled otherwise.
                Work::Node(_) => Vec::new(),
            };
            if position + 1 < steps.len() && !brought.is_empty() {
                let own = own.get_or_insert_with(|| state.clone());
                for Brought { update, .. } in &brought {
                    own.apply(update.clone());
                }
            }
            all.extend(brought);
        }
        Ok(all)
    })
}

/// Two branches that replace one field cannot both be right.
fn agree<S: State>(branches: &[Vec<Brought<S>>]) -> Result<(), Box<Failure>> {
    let mut replaced: HashMap<&'static str, (usize, &Arc<str>)> = HashMap::new();
    for (branch, brought) in branches.iter().enumerate() {
        for Brought { node, update } in brought {
            for change in S::changes(update).into_iter().filter(|change| change.replaces) {
                match replaced.insert(change.field, (branch, node)) {
                    Some((other, first)) if other != branch => {
                        let nodes = [Arc::clone(first), Arc::clone(node)];
                        return Err(Failure::committed(RunErrorKind::Conflict { field: change.field, nodes }));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// The first node of each branch.
fn names<S: State, C>(plan: &Plan<S, C>, branches: &[Vec<usize>], scope: &Scope<'_>) -> Vec<String> {
    let firsts = branches.iter().filter_map(|steps| steps.first());
    firsts.map(|first| scope.path(&plan.steps[*first].name).to_string()).collect()
}
