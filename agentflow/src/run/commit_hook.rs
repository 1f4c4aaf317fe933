//! [`CommitHook`]: calls the user's function after each committed step.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::scope::RunContext;
use crate::{
    error::NodeError,
    graph::{
        commit::{Commit, OnCommit},
        plan::{Plan, Step},
    },
    panics::catch_panic,
    state::State,
};

/// The hook of a graph for one walk through it.
pub(super) struct CommitHook<'p, S> {
    hook: Option<&'p OnCommit<S>>,
    /// Set when the hook has panicked, which is logged once.
    has_panicked: bool,
}

impl<'p, S: State> CommitHook<'p, S> {
    pub(super) fn new<C>(plan: &'p Plan<S, C>) -> Self {
        Self { hook: plan.on_commit.as_ref(), has_panicked: false }
    }

    /// Reports that a step is committed. `next` is the step that follows, or `None` at the end.
    #[inline]
    pub(super) fn call<C>(&mut self, step: &Step<S, C>, next: Option<&Step<S, C>>, run: &RunContext<'_>, state: &S) {
        if let Some(hook) = self.hook {
            let next = next.map(|next| &*next.name);
            self.report(hook, Commit { node: &step.name, next, run_id: run.id, config: run.config, state });
        }
    }

    #[inline(never)]
    fn report(&mut self, hook: &OnCommit<S>, commit: Commit<'_, S>) {
        // The hook is user code: its panic must not change the run, whose step has succeeded.
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook(commit))) else { return };
        // The payload is consumed even if nothing is logged, because its destructor may panic too.
        let error = NodeError::panicked(panic);
        if !std::mem::replace(&mut self.has_panicked, true) {
            catch_panic(|| tracing::error!(node = commit.node, %error, "the hook `on_commit` panicked"));
        }
    }
}
