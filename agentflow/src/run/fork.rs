//! [`Fork`] and [`Joined`]: the beginning and the end of a group.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    branch_log::BranchLog,
    error::{Failure, NodeFailure, RunErrorKind},
    invocation::Arrival,
    path_name::NodeOnPath,
    recorder::Recorder,
    scope::PathScope,
};
use crate::{
    carried::ItemList,
    error::NodeError,
    graph::plan::{Group, GroupKind, Plan},
    state::State,
};

/// The progress of one branch of a group that is recorded.
pub(super) struct BranchProgress<'r> {
    pub(super) recorder: &'r dyn Recorder,
    /// The name of the branch in its group: its index, or that of its item in brackets.
    pub(super) key: String,
}

/// The position in a run at which branches start: they all read `state`, and none writes it.
pub(super) struct Fork<'r, S: State, C> {
    pub(super) plan: &'r Plan<S, C>,
    pub(super) services: &'r C,
    pub(super) scope: &'r PathScope<'r>,
    pub(super) state: &'r S,
    /// The failure or the value that the path brought to the group, for the first node of each branch.
    pub(super) arrival: &'r Arrival<'r>,
    /// The progress of the branch, on a path that is a branch of a recorded group.
    pub(super) progress: Option<&'r BranchProgress<'r>>,
}

impl<S: State, C> Clone for Fork<'_, S, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: State, C> Copy for Fork<'_, S, C> {}

/// The items of an `each`, or the error of the function that computes them; `None` for other groups.
pub(super) type Items = Option<Result<ItemList, Box<Failure>>>;

/// The updates of a group's branches, in the order in which they are merged.
pub(super) struct Joined<S: State> {
    pub(super) logs: Vec<BranchLog<S>>,
    /// The branch that succeeded first, for an `any`.
    pub(super) winner: Option<usize>,
}

impl<S: State> Joined<S> {
    /// Creates the updates of all branches of a group.
    pub(super) fn all(logs: Vec<BranchLog<S>>) -> Self {
        Self { logs, winner: None }
    }

    /// Creates the updates of the branch that succeeded first.
    pub(super) fn first(winner: usize, mut logs: Vec<BranchLog<S>>) -> Self {
        logs.swap(0, winner);
        logs.truncate(1);
        Self { logs, winner: Some(winner) }
    }
}

/// Returns the only node of a branch of the group: of the branch with this index, or of the item with this index.
pub(super) fn only_node<'p, S: State, C>(
    plan: &'p Plan<S, C>,
    group: &'p Group<S>,
    scope: &'p PathScope<'_>,
    index: usize,
) -> NodeOnPath<'p> {
    let (branch, item) = match group.kind {
        GroupKind::Each(_) => (0, Some(index)),
        GroupKind::All | GroupKind::Any => (index, None),
    };
    scope.node(&plan.step(group.branches[branch].steps[0]).name, item)
}

/// Calls code of the state, such as a reducer; its panic becomes the error of the node whose update it works on.
#[inline]
pub(super) fn guarded<T>(node: impl FnOnce() -> Arc<str>, code: impl FnOnce() -> T) -> Result<T, Box<Failure>> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let failure = NodeFailure::new(node(), NodeError::panicked(panic));
        Failure::committed(RunErrorKind::Node(failure))
    })
}

/// Fails if two branches replace the same field, because one of the values would be lost. `name` returns the name of the
/// only node of a branch.
pub(super) fn check_conflicts<S: State>(
    logs: &[BranchLog<S>],
    name: impl Fn(usize) -> Arc<str>,
) -> Result<(), Box<Failure>> {
    if logs.len() < 2 {
        return Ok(());
    }
    let mut replaced = 0;
    for (branch, log) in logs.iter().enumerate() {
        let mut of_branch = 0;
        for entry in log.iter() {
            of_branch |= guarded(|| entry.name(|| name(branch)), || S::replaced(&entry.update))?;
        }
        if replaced & of_branch != 0 {
            return find_conflict(logs, name);
        }
        replaced |= of_branch;
    }
    Ok(())
}

/// Fails if two branches replace the same field. The bits of the updates have shown that it is possible.
#[cold]
fn find_conflict<S: State>(logs: &[BranchLog<S>], name: impl Fn(usize) -> Arc<str>) -> Result<(), Box<Failure>> {
    // A linear search suffices: the list is no longer than the state has fields, because a second branch that replaces
    // one of them is an error.
    let mut replaced: Vec<(&'static str, usize, Arc<str>)> = Vec::new();
    for (branch, log) in logs.iter().enumerate() {
        for entry in log.iter() {
            let node = || entry.name(|| name(branch));
            let changes = guarded(node, || S::changes(&entry.update))?;
            for field in changes.iter().filter(|change| change.replaces).map(|change| change.field) {
                match replaced.iter_mut().find(|(known, ..)| *known == field) {
                    None => replaced.push((field, branch, node())),
                    Some((_, other, last)) if *other == branch => *last = node(),
                    Some((_, _, first)) => {
                        let nodes = [Arc::clone(first), node()];
                        return Err(Failure::committed(RunErrorKind::Conflict { field, nodes }));
                    }
                }
            }
        }
    }
    Ok(())
}
