//! Groups: branches side by side in the run's own task, and the join that merges what they bring.

use std::{mem::take, sync::Arc};

use super::{
    Failure, RunErrorKind,
    attempt::{Parallel, attempts},
    events::{EventKind, text_of},
    join::join,
    scope::Scope,
};
use crate::{
    State,
    graph::{BoxFuture, Plan, Step, Work},
};

/// Where a node of a group puts what it brings to the join. A group has one for each of its nodes, those of the groups
/// in it too, in the order in which they are written.
struct Slot<'a, S: State> {
    node: &'a Arc<str>,
    update: Option<S::Update>,
}

/// Runs the branches and merges their updates into the state, in the order in which the branches are written.
///
/// Nothing is merged unless all branches succeed and agree.
pub(super) async fn group<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    branches: &[Vec<usize>],
    services: &C,
    scope: &Scope<'_>,
    state: &mut S,
) -> Result<(), Box<Failure>> {
    let mut slots = Vec::with_capacity(branches.len());
    add_slots(plan, branches, &mut slots);
    fork(plan, branches, services, scope, state, &mut slots).await?;
    let fields = fields(scope, &slots);
    for update in slots.into_iter().filter_map(|slot| slot.update) {
        state.apply(update);
    }
    joined(plan, branches, scope, fields).await;
    Ok(())
}

fn add_slots<'a, S: State, C>(plan: &'a Plan<S, C>, branches: &'a [Vec<usize>], slots: &mut Vec<Slot<'a, S>>) {
    for step in branches.iter().flatten().map(|step| &plan.steps[*step]) {
        match &step.work {
            Work::Group(branches) => add_slots(plan, branches, slots),
            Work::Node(_) | Work::Branch(_) => slots.push(Slot { node: &step.name, update: None }),
        }
    }
}

/// How many slots these steps have.
fn slots_of<S: State, C>(plan: &Plan<S, C>, steps: &[usize]) -> usize {
    let slots = steps.iter().map(|step| match &plan.steps[*step].work {
        Work::Group(branches) => branches.iter().map(|steps| slots_of(plan, steps)).sum(),
        Work::Node(_) | Work::Branch(_) => 1,
    });
    slots.sum()
}

/// The fields that the updates change, where somebody reads.
fn fields<S: State>(scope: &Scope<'_>, slots: &[Slot<'_, S>]) -> Vec<String> {
    let mut fields = Vec::new();
    for update in slots.iter().filter_map(|slot| slot.update.as_ref()) {
        scope.run.sink.note(&mut fields, || S::changes(update));
    }
    fields
}

async fn joined<S: State, C>(plan: &Plan<S, C>, branches: &[Vec<usize>], scope: &Scope<'_>, fields: Vec<String>) {
    scope.run.sink.emit(|| EventKind::GroupJoined { nodes: names(plan, branches, scope), fields }).await;
}

/// Runs the branches on the state as it is; what they bring is in the slots then.
async fn fork<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    branches: &[Vec<usize>],
    services: &C,
    scope: &Scope<'_>,
    state: &S,
    slots: &mut [Slot<'_, S>],
) -> Result<(), Box<Failure>> {
    scope.run.sink.emit(|| EventKind::GroupStarted { nodes: names(plan, branches, scope) }).await;
    let ended = side_by_side(plan, branches, services, scope, state, slots).await;
    if let Err(failure) = &ended {
        let failed = || EventKind::GroupFailed { nodes: names(plan, branches, scope), error: text_of(&failure.kind) };
        scope.run.sink.emit(failed).await;
    }
    ended
}

async fn side_by_side<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    branches: &[Vec<usize>],
    services: &C,
    scope: &Scope<'_>,
    state: &S,
    slots: &mut [Slot<'_, S>],
) -> Result<(), Box<Failure>> {
    if let Some(first) = slots.first() {
        scope.check(|| scope.path(first.node).into_owned())?;
    }
    let scopes: Vec<_> = branches.iter().map(|_| scope.branch()).collect();
    let mut left = &mut *slots;
    let mut running = Vec::with_capacity(branches.len());
    for (steps, scope) in branches.iter().zip(&scopes) {
        let (own, others) = take(&mut left).split_at_mut(slots_of(plan, steps));
        left = others;
        running.push(branch(plan, steps, services, scope, state, own));
    }
    join(running).await?;
    scope.join(&scopes);
    agree(plan, branches, scope, slots)
}

/// Runs one branch; it sees the state as it was at the fork with its own updates.
///
/// A future that names its type, because a branch may hold a group and so contain itself.
fn branch<'r, S: State, C: Send + Sync + 'static>(
    plan: &'r Plan<S, C>,
    steps: &'r [usize],
    services: &'r C,
    scope: &'r Scope<'_>,
    state: &'r S,
    slots: &'r mut [Slot<'_, S>],
) -> BoxFuture<'r, Result<(), Box<Failure>>> {
    match steps {
        // The usual branch, which needs a smaller future.
        [step] => Box::pin(run_step(plan, &plan.steps[*step], services, scope, state, slots, true)),
        _ => Box::pin(run_steps(plan, steps, services, scope, state, slots)),
    }
}

async fn run_steps<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    steps: &[usize],
    services: &C,
    scope: &Scope<'_>,
    state: &S,
    mut slots: &mut [Slot<'_, S>],
) -> Result<(), Box<Failure>> {
    // Copied when a later step is to see an earlier one's update, not before.
    let mut own: Option<S> = None;
    for (position, index) in steps.iter().enumerate() {
        let (brought, left) = take(&mut slots).split_at_mut(slots_of(plan, &[*index]));
        slots = left;
        let view = own.as_ref().unwrap_or(state);
        run_step(plan, &plan.steps[*index], services, scope, view, brought, position == 0).await?;
        if !slots.is_empty() {
            for update in brought.iter().filter_map(|slot| slot.update.as_ref()) {
                own.get_or_insert_with(|| state.clone()).apply(update.clone());
            }
        }
    }
    Ok(())
}

/// Runs one step of a branch; what it brings is in the slots then.
async fn run_step<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    step: &Step<S, C>,
    services: &C,
    scope: &Scope<'_>,
    state: &S,
    slots: &mut [Slot<'_, S>],
    is_first: bool,
) -> Result<(), Box<Failure>> {
    match &step.work {
        Work::Branch(node) => {
            // Branches begin together: whether they may has been asked once.
            let path = if is_first { scope.count(&step.name)? } else { scope.enter(&step.name)? };
            if let [Slot { update, .. }] = slots {
                let mut node = Parallel { node: &**node, state, services, update };
                attempts(&mut node, &path, &step.options, scope, None).await?;
            }
        }
        // In a box, or the future of each node would be as large as that of a group.
        Work::Group(branches) => {
            Box::pin(fork(plan, branches, services, scope, state, slots)).await?;
            joined(plan, branches, scope, fields(scope, slots)).await;
        }
        // A branch is made of steps that read; the graph is not compiled otherwise.
        Work::Node(_) => {}
    }
    Ok(())
}

/// Two branches that replace one field cannot both be right.
fn agree<S: State, C>(
    plan: &Plan<S, C>,
    branches: &[Vec<usize>],
    scope: &Scope<'_>,
    mut slots: &[Slot<'_, S>],
) -> Result<(), Box<Failure>> {
    // No longer than the state has fields: the second branch that replaces one is an error.
    let mut replaced: Vec<(&'static str, usize, &Arc<str>)> = Vec::with_capacity(slots.len());
    for (branch, steps) in branches.iter().enumerate() {
        let (own, others) = slots.split_at(slots_of(plan, steps));
        slots = others;
        for Slot { node, update } in own {
            let changes = update.as_ref().map_or_else(Vec::new, S::changes);
            for change in changes.iter().filter(|change| change.replaces) {
                match replaced.iter_mut().find(|(field, ..)| *field == change.field) {
                    None => replaced.push((change.field, branch, node)),
                    Some((_, other, last)) if *other == branch => *last = node,
                    Some((field, _, first)) => {
                        let nodes = [*first, node].map(|node| scope.path(node).into_owned());
                        return Err(Failure::committed(RunErrorKind::Conflict { field, nodes }));
                    }
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
