//! [`PlainBranch`]: a branch of one node that runs once and has no options, in a run without a reader.
//!
//! Most branches are of this kind. Such a branch is the future of its node with nothing around it, and shares its scope
//! with its siblings.

use std::{
    future::{Future, poll_fn},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::future::BoxFuture;
use tokio::{task::coop::poll_proceed, time::Instant};

use super::{
    branch_log::BranchLog,
    error::{AllFailed, Failure, NodeFailure},
    fork::{Fork, Items, Joined},
    invocation::OnlyAttempt,
    join_all::Waiting,
    metrics::AttemptMeter,
    path_name::NodeOnPath,
    scope::PathScope,
};
use crate::{
    carried::{Input, ItemList},
    error::NodeError,
    graph::plan::{Each, Function, Group, GroupKind, Step},
    panics::catch_panic,
    span::GuardedSpan,
    state::State,
};

/// The number of branches that begin one after the other and share a reading of the clock, which would be a large part of
/// the cost of a branch.
const SHARE_CLOCK: usize = 16;

impl<'r, S: State, C: Send + Sync + 'static> Fork<'r, S, C> {
    /// Runs the branches of a group that are all plain, in a run without a reader.
    pub(super) async fn run_plain(
        self,
        step: &'r Step<S, C>,
        group: &'r Group<S>,
        items: Items,
    ) -> Result<Joined<S>, Box<Failure>> {
        // All branches begin with the same count, and the only node of each is counted here.
        let branch_scope = self.scope.branch();
        let fork = Fork { scope: &branch_scope, ..self };
        let joined = match (&group.kind, items) {
            (GroupKind::Each(each), Some(items)) => fork.run_plain_items(step, group, each, items?).await?,
            (GroupKind::Any, _) => fork.run_plain_any(step, group).await?,
            (GroupKind::All | GroupKind::Each(_), _) => fork.run_plain_all(group).await?,
        };
        self.scope.join([branch_scope.taken()]);
        Ok(joined)
    }

    async fn run_plain_all(self, group: &'r Group<S>) -> Result<Joined<S>, Box<Failure>> {
        let mut logs: Vec<_> = group.branches.iter().map(|_| BranchLog::new()).collect();
        let count = logs.len();
        let running = Branches { count, max_parallel: count, yields: false, start: self.starts(group, &mut logs) };
        match running.run(stop_at_failure).await? {
            ControlFlow::Continue(()) => Ok(Joined::all(logs)),
            ControlFlow::Break(failure) => Err(failure),
        }
    }

    async fn run_plain_any(self, step: &'r Step<S, C>, group: &'r Group<S>) -> Result<Joined<S>, Box<Failure>> {
        let mut logs: Vec<_> = group.branches.iter().map(|_| BranchLog::new()).collect();
        let count = logs.len();
        let running = Branches { count, max_parallel: count, yields: false, start: self.starts(group, &mut logs) };
        let mut failures: Vec<(usize, NodeFailure)> = Vec::new();
        let ended = |(index, result): BranchEnd| match result.map_err(|failure| failure.into_recoverable()) {
            Ok(()) => ControlFlow::Break(Ok(index)),
            Err(Ok(failure)) => {
                failures.push((index, failure));
                ControlFlow::Continue(())
            }
            // A failure that no fallback could receive ends the run and not the branch alone.
            Err(Err(failure)) => ControlFlow::Break(Err(failure)),
        };
        match running.run(ended).await? {
            ControlFlow::Break(winner) => Ok(Joined::first(winner?, logs)),
            ControlFlow::Continue(()) => {
                failures.sort_unstable_by_key(|(index, _)| *index);
                let failures = failures.into_iter().map(|(_, failure)| failure).collect();
                Err(self.scope.failure(&step.name, AllFailed { failures }))
            }
        }
    }

    async fn run_plain_items(
        self,
        step: &'r Step<S, C>,
        group: &'r Group<S>,
        each: &'r Each<S>,
        items: ItemList,
    ) -> Result<Joined<S>, Box<Failure>> {
        let Self { plan, scope, .. } = self;
        let function = group.branches.first().and_then(|branch| plan.function(branch));
        let Some(function) = function.filter(|_| items.len() > 0) else {
            // A visit counts even if no node runs. Otherwise a loop around the group would never end.
            scope.count(&step.name)?;
            return Ok(Joined::all(Vec::new()));
        };
        scope.count_node(scope.node(function.name, Some(0)))?;
        let mut logs: Vec<_> = (0..items.len()).map(|_| BranchLog::new()).collect();
        let count = logs.len();
        let mut items = items.zip(&mut logs);
        let start = |index, now| {
            let (item, log) = items.next()?;
            let signals = scope.check_signals(|| scope.node(function.name, Some(index)).format());
            Some(signals.map(|()| self.plain_branch(function, index, Some(item), log, now)))
        };
        // Items that never wait would otherwise block the thread.
        let running = Branches { count, max_parallel: each.options.max_parallel, yields: true, start };
        match running.run(stop_at_failure).await? {
            ControlFlow::Continue(()) => Ok(Joined::all(logs)),
            ControlFlow::Break(failure) => Err(failure),
        }
    }

    /// Returns the function that starts the branches of a group one after the other.
    fn starts<'f>(
        self,
        group: &'f Group<S>,
        logs: &'f mut [BranchLog<S>],
    ) -> impl FnMut(usize, Instant) -> Option<Result<PlainBranch<'f>, Box<Failure>>> + use<'f, 'r, S, C>
    where
        'r: 'f,
    {
        let mut branches = group.branches.iter().zip(logs);
        move |index, now| {
            let (branch, log) = branches.next()?;
            let function = self.plan.function(branch)?;
            if index == 0
                && let Err(failure) = self.scope.count_node(self.scope.node(function.name, None))
            {
                return Some(Err(failure));
            }
            Some(Ok(self.plain_branch(function, index, None, log, now)))
        }
    }

    /// Makes the branch with this index, or of the item with this index. It does nothing until it is polled.
    #[inline]
    fn plain_branch<'f>(
        &self,
        Function { name, node: function }: Function<'f, S, C>,
        index: usize,
        item: Option<Input>,
        log: &'f mut BranchLog<S>,
        started: Instant,
    ) -> PlainBranch<'f>
    where
        'r: 'f,
    {
        let Self { services, state, scope, arrival, .. } = *self;
        let node = scope.node(name, item.is_some().then_some(index));
        let span = GuardedSpan::new(|| tracing::info_span!("agentflow.node", node = &*node.format(), attempt = 1_u32));
        let future = Some(function.run_only(state, services, OnlyAttempt { scope, node, arrival, item }, log));
        let meter = Some(AttemptMeter::start(scope.run.graph, node));
        PlainBranch { future, span, meter, index, node, scope, started }
    }
}

/// The end of a branch: its index, and its result.
type BranchEnd = (usize, Result<(), Box<Failure>>);

fn stop_at_failure((_, result): BranchEnd) -> ControlFlow<Box<Failure>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(failure) => ControlFlow::Break(failure),
    }
}

/// A branch, until it has ended.
struct PlainBranch<'r> {
    /// `None` when the branch has ended.
    future: Option<BoxFuture<'r, Result<usize, NodeError>>>,
    span: GuardedSpan,
    meter: Option<AttemptMeter<'r>>,
    index: usize,
    node: NodeOnPath<'r>,
    scope: &'r PathScope<'r>,
    started: Instant,
}

impl PlainBranch<'_> {
    /// Drops the node, in its span. A panic in its destructor must not replace its result, or the failure of another one.
    #[inline]
    fn drop_node(&mut self) -> bool {
        let Some(future) = self.future.take() else { return false };
        let _entered = self.span.enter();
        catch_panic(|| drop(future));
        true
    }

    #[cold]
    #[allow(clippy::unnecessary_box_returns, reason = "a failure is passed on in its box")]
    fn failure(&self, source: NodeError) -> Box<Failure> {
        let Self { node, scope, started, .. } = self;
        scope.run.last_node.forget();
        let failure = NodeFailure { node: node.format(), attempt: 1, elapsed: started.elapsed(), source };
        // A node in a branch only reads the state.
        Failure::of_node(failure, true)
    }
}

impl Future for PlainBranch<'_> {
    type Output = BranchEnd;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BranchEnd> {
        let branch = &mut *self;
        let Some(future) = &mut branch.future else { return Poll::Pending };
        // The assertion holds because a node that panicked is never polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let _entered = branch.span.enter();
            future.as_mut().poll(cx)
        }));
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result,
            Err(panic) => Err(NodeError::panicked(panic)),
        };
        branch.drop_node();
        if let Some(meter) = branch.meter.take() {
            meter.ended(result.as_ref().err());
        }
        let result = match result {
            Ok(_) => Ok(()),
            Err(source) => Err(branch.failure(source)),
        };
        Poll::Ready((branch.index, result))
    }
}

/// An interrupt drops the branch, or the end of another one.
impl Drop for PlainBranch<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.drop_node() {
            self.scope.run.last_node.dropped(&self.node.format());
        }
    }
}

/// The branches of a group, which are started in order.
struct Branches<F> {
    count: usize,
    /// The number of branches that run at once.
    max_parallel: usize,
    /// Set if others are to have the thread from time to time even if no branch ever waits.
    yields: bool,
    /// Makes the branch with this index at this time.
    start: F,
}

impl<'r, F: FnMut(usize, Instant) -> Option<Result<PlainBranch<'r>, Box<Failure>>>> Branches<F> {
    /// Runs the branches until all have ended or `ended` breaks. Branches that have not ended are dropped.
    async fn run<B>(self, mut ended: impl FnMut(BranchEnd) -> ControlFlow<B>) -> Result<ControlFlow<B>, Box<Failure>> {
        let Self { count, max_parallel, yields, mut start } = self;
        let mut next = 0;
        let mut waiting = Waiting::new();
        poll_fn(|cx| {
            if let Some(stop) = waiting.poll(cx, &mut ended).break_value() {
                return Poll::Ready(Ok(ControlFlow::Break(stop)));
            }
            let mut now = None;
            while next < count && waiting.len() < max_parallel {
                if yields {
                    ready!(poll_proceed(cx)).made_progress();
                }
                let read = now.filter(|_| next % SHARE_CLOCK != 0).unwrap_or_else(Instant::now);
                now = Some(read);
                let Some(branch) = start(next, read) else { break };
                next += 1;
                let mut branch = branch?;
                match Pin::new(&mut branch).poll(cx) {
                    Poll::Pending => waiting.push(branch, max_parallel.min(count - next)),
                    Poll::Ready(end) => {
                        if let Some(stop) = ended(end).break_value() {
                            return Poll::Ready(Ok(ControlFlow::Break(stop)));
                        }
                    }
                }
            }
            if waiting.len() == 0 { Poll::Ready(Ok(ControlFlow::Continue(()))) } else { Poll::Pending }
        })
        .await
    }
}
