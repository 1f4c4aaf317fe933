//! Groups: parallel branches in the run's own task, and the join that merges their updates.

use std::{
    mem::take,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures_util::future::BoxFuture;

use super::{
    attempts::{ParallelAttempt, run_attempts},
    error::{Failure, NodeFailure, RunErrorKind},
    event::EventKind,
    join_all::join_all,
    scope::PathScope,
};
use crate::{
    error::{NodeError, text_of},
    graph::{
        plan::{Plan, Step, Work},
        topology::StepId,
    },
    state::State,
};

/// The place for the update of one node of a group. A group has one slot for each of its nodes, including those of nested
/// groups, in written order.
struct Slot<'a, S: State> {
    node: &'a Arc<str>,
    update: Option<S::Update>,
}

/// The position in a run at which branches start: they all read `state`, and none writes it.
struct Fork<'r, S: State, C> {
    plan: &'r Plan<S, C>,
    services: &'r C,
    scope: &'r PathScope<'r>,
    state: &'r S,
    /// The failure that led the run to the group, for the first node of each branch.
    error: Option<&'r NodeFailure>,
}

impl<S: State, C> Clone for Fork<'_, S, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: State, C> Copy for Fork<'_, S, C> {}

/// Runs the branches and merges their updates into the state, in the order in which the branches are written.
///
/// Nothing is merged unless all branches succeed and no two of them replace the same field.
pub(super) async fn run_group<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    branches: &[Vec<StepId>],
    services: &C,
    scope: &PathScope<'_>,
    state: &mut S,
    error: Option<&NodeFailure>,
) -> Result<(), Box<Failure>> {
    let mut slots = Vec::with_capacity(branches.len());
    add_slots(plan, branches, &mut slots);
    Fork { plan, services, scope, state: &*state, error }.run(branches, &mut slots).await?;
    let fields = changed_fields(scope, &slots);
    for Slot { node, update } in slots {
        let Some(update) = update else { continue };
        if let Err(mut failure) = guarded(scope, node, || state.apply(update)) {
            // The state may contain some of the updates, and a part of this one.
            failure.is_committed = false;
            emit_failed(plan, branches, scope, &failure);
            return Err(failure);
        }
    }
    emit_joined(plan, branches, scope, fields);
    Ok(())
}

/// Calls code of the state, such as a reducer; its panic becomes the error of the node whose update it works on.
fn guarded<T>(scope: &PathScope<'_>, node: &Arc<str>, code: impl FnOnce() -> T) -> Result<T, Box<Failure>> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let failure = NodeFailure::new(scope.path(node).into_owned(), NodeError::panicked(panic));
        Failure::committed(RunErrorKind::Node(failure))
    })
}

impl<'r, S: State, C: Send + Sync + 'static> Fork<'r, S, C> {
    /// Runs the branches, which put their updates into the slots.
    async fn run(self, branches: &'r [Vec<StepId>], slots: &mut [Slot<'_, S>]) -> Result<(), Box<Failure>> {
        let Self { plan, scope, .. } = self;
        let sink = scope.run.sink;
        sink.emit(|| EventKind::GroupStarted { nodes: first_nodes(plan, branches, scope) }).await;
        let ended = self.run_parallel(branches, slots).await;
        if let Err(failure) = &ended {
            emit_failed(plan, branches, scope, failure);
        }
        ended
    }

    async fn run_parallel(self, branches: &'r [Vec<StepId>], slots: &mut [Slot<'_, S>]) -> Result<(), Box<Failure>> {
        let Self { plan, scope, .. } = self;
        if let Some(first) = slots.first() {
            scope.check_signals(|| scope.path(first.node).into_owned())?;
        }
        let scopes: Vec<_> = branches.iter().map(|_| scope.branch()).collect();
        let mut left = &mut *slots;
        let mut running = Vec::with_capacity(branches.len());
        for (steps, scope) in branches.iter().zip(&scopes) {
            let (own, others) = take(&mut left).split_at_mut(slot_count(plan, steps));
            left = others;
            running.push(Fork { scope, ..self }.branch(steps, own));
        }
        join_all(running).await?;
        scope.join(&scopes);
        check_conflicts(plan, branches, scope, slots)
    }

    /// Runs one branch, which sees the state as it was at the fork with its own updates.
    ///
    /// The return type is named, because a branch may contain a group and so this future itself.
    fn branch<'f>(self, steps: &'f [StepId], slots: &'f mut [Slot<'_, S>]) -> BoxFuture<'f, Result<(), Box<Failure>>>
    where
        'r: 'f,
    {
        match steps {
            // Most branches have one step, and this future is smaller than that of `run_steps`.
            [step] => Box::pin(self.run_step(self.plan.step(*step), slots, true)),
            _ => Box::pin(self.run_steps(steps, slots)),
        }
    }

    async fn run_steps(self, steps: &[StepId], mut slots: &mut [Slot<'_, S>]) -> Result<(), Box<Failure>> {
        // The state is copied only when a later step must see the update of an earlier one.
        let mut own: Option<S> = None;
        for (position, step) in steps.iter().enumerate() {
            let (written, left) = take(&mut slots).split_at_mut(slot_count(self.plan, &[*step]));
            slots = left;
            let error = self.error.filter(|_| position == 0);
            let fork = Fork { state: own.as_ref().unwrap_or(self.state), error, ..self };
            fork.run_step(self.plan.step(*step), written, position == 0).await?;
            if !slots.is_empty() {
                for Slot { node, update } in &*written {
                    let Some(update) = update else { continue };
                    guarded(self.scope, node, || {
                        own.get_or_insert_with(|| self.state.clone()).apply(update.clone());
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Runs one step of a branch, which puts its update into the slots.
    async fn run_step(self, step: &Step<S, C>, slots: &mut [Slot<'_, S>], is_first: bool) -> Result<(), Box<Failure>> {
        let Self { plan, services, scope, state, error } = self;
        match &step.work {
            Work::Branch(node) => {
                // The signals were checked once for the first steps of all branches, which begin together.
                let path = if is_first { scope.count(&step.name)? } else { scope.enter(&step.name)? };
                if let [Slot { update, .. }] = slots {
                    let mut node = ParallelAttempt { node: &**node, state, services, update };
                    run_attempts(&mut node, &path, &step.options, scope, error).await?;
                }
            }
            // The future is boxed, or the future of every node would be as large as that of a group.
            Work::Group(branches) => {
                Box::pin(self.run(branches, slots)).await?;
                emit_joined(plan, branches, scope, changed_fields(scope, slots));
            }
            // A graph with such a node in a branch does not compile.
            Work::Node(_) => {}
        }
        Ok(())
    }
}

fn add_slots<'a, S: State, C>(plan: &'a Plan<S, C>, branches: &[Vec<StepId>], slots: &mut Vec<Slot<'a, S>>) {
    for step in branches.iter().flatten().map(|step| plan.step(*step)) {
        match &step.work {
            Work::Group(branches) => add_slots(plan, branches, slots),
            Work::Node(_) | Work::Branch(_) => slots.push(Slot { node: &step.name, update: None }),
        }
    }
}

/// Returns the number of slots of these steps.
fn slot_count<S: State, C>(plan: &Plan<S, C>, steps: &[StepId]) -> usize {
    let slots = steps.iter().map(|step| match &plan.step(*step).work {
        Work::Group(branches) => branches.iter().map(|steps| slot_count(plan, steps)).sum(),
        Work::Node(_) | Work::Branch(_) => 1,
    });
    slots.sum()
}

/// Returns the fields that the updates change, if the run has a reader.
fn changed_fields<S: State>(scope: &PathScope<'_>, slots: &[Slot<'_, S>]) -> Vec<String> {
    let mut fields = Vec::new();
    for update in slots.iter().filter_map(|slot| slot.update.as_ref()) {
        scope.run.sink.record_changes(&mut fields, || S::changes(update));
    }
    fields
}

fn emit_failed<S: State, C>(plan: &Plan<S, C>, branches: &[Vec<StepId>], scope: &PathScope<'_>, failure: &Failure) {
    let nodes = || first_nodes(plan, branches, scope);
    scope.run.sink.push(|| EventKind::GroupFailed { nodes: nodes(), error: text_of(&failure.kind) });
}

fn emit_joined<S: State, C>(plan: &Plan<S, C>, branches: &[Vec<StepId>], scope: &PathScope<'_>, fields: Vec<String>) {
    scope.run.sink.push(|| EventKind::GroupJoined { nodes: first_nodes(plan, branches, scope), fields });
}

/// Fails if two branches replace the same field, because one of the values would be lost.
fn check_conflicts<S: State, C>(
    plan: &Plan<S, C>,
    branches: &[Vec<StepId>],
    scope: &PathScope<'_>,
    mut slots: &[Slot<'_, S>],
) -> Result<(), Box<Failure>> {
    // A linear search suffices: the list is no longer than the state has fields, because a second branch that replaces
    // one of them is an error.
    let mut replaced: Vec<(&'static str, usize, &Arc<str>)> = Vec::with_capacity(slots.len());
    for (branch, steps) in branches.iter().enumerate() {
        let (own, others) = slots.split_at(slot_count(plan, steps));
        slots = others;
        for Slot { node, update } in own {
            let changes = guarded(scope, node, || update.as_ref().map_or_else(Vec::new, S::changes))?;
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

/// Returns the name of the first node of each branch.
fn first_nodes<S: State, C>(plan: &Plan<S, C>, branches: &[Vec<StepId>], scope: &PathScope<'_>) -> Vec<String> {
    let firsts = branches.iter().filter_map(|steps| steps.first());
    firsts.map(|first| scope.path(&plan.step(*first).name).to_string()).collect()
}
