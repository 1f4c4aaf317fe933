//! Groups: parallel branches in the run's own task, and the join that merges their updates.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::Poll,
};

use futures_util::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt},
};
use tokio::task::consume_budget;

use super::{
    attempts::{ParallelAttempt, routed, run_attempts},
    branch_log::{BranchLog, Entry},
    commit_mark::CommitMark,
    error::{AllFailed, Failure, RunErrorKind},
    event::EventKind,
    fork::{Fork, Items, Joined, check_conflicts, guarded, only_node},
    invocation::Arrival,
    join_all::{CatchDrop, first_success, join_all},
    loops::LoopTrace,
    path_name::{NodeName, NodePath},
    scope::PathScope,
    transition::{fall_back, follow},
};
use crate::{
    carried::{Input, ItemList},
    error::{NodeError, TooManyItems},
    graph::{
        plan::{Branch, Each, ErasedParallelNode, Group, GroupKind, Plan, Step, Work},
        topology::{Next, StepId},
    },
    panics::text_of,
    state::State,
    store::NewTask,
};

/// The end of one item of an `each`.
struct ItemEnded {
    index: usize,
    /// The number of node executions.
    taken: usize,
    /// The durable tasks of the item's nodes.
    spawned: Vec<NewTask>,
}

/// The items of an `each` that have ended.
#[derive(Default)]
struct ItemsEnded {
    /// The number of node executions of the longest one.
    longest: usize,
    /// The durable tasks of the items that have spawned some.
    spawned: Vec<(usize, Vec<NewTask>)>,
}

impl ItemsEnded {
    fn add(&mut self, item: ItemEnded) {
        self.longest = self.longest.max(item.taken);
        if !item.spawned.is_empty() {
            self.spawned.push((item.index, item.spawned));
        }
    }

    /// Returns the durable tasks in the order of the items.
    fn spawned(mut self) -> Vec<NewTask> {
        self.spawned.sort_unstable_by_key(|(index, _)| *index);
        self.spawned.into_iter().flat_map(|(_, tasks)| tasks).collect()
    }
}

/// Runs the branches and merges their updates into the state, in the order in which the branches are written.
///
/// Nothing is merged unless the group succeeds and no two branches replace the same field.
#[allow(clippy::too_many_arguments, reason = "a step is given all that its path has")]
pub(super) async fn run_group<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    step: &Step<S, C>,
    group: &Group<S>,
    services: &C,
    scope: &PathScope<'_>,
    state: &mut S,
    commit: &CommitMark,
    arrival: &Arrival<'_>,
) -> Result<(), Box<Failure>> {
    let fork = Fork { plan, services, scope, state: &*state, arrival, progress: None };
    let items = fork.items(step, group);
    let (open, started) = OpenGroup::start(plan, group, scope, &items);
    started.await;
    let Joined { mut logs, winner } = match fork.run(step, group, items).await {
        Ok(joined) => joined,
        Err(failure) => return Err(open.failed(failure)),
    };
    let fields = changed_fields(scope, &logs);
    for (branch, log) in logs.iter_mut().enumerate() {
        while let Some(Entry { node, update }) = log.pop() {
            let only_node = || only_node(plan, group, scope, winner.unwrap_or(branch)).format();
            let name = || node.as_ref().map_or_else(only_node, NodeName::format);
            if let Err(mut failure) = guarded(name, || state.apply(update)) {
                // Some of the updates may be merged, and half of this one.
                failure.is_committed = false;
                commit.changes_begin();
                if let Some(recorder) = scope.recorder() {
                    recorder.discard_branches();
                }
                return Err(open.failed(failure));
            }
        }
    }
    open.joined(fields, winner);
    Ok(())
}

impl<'r, S: State, C: Send + Sync + 'static> Fork<'r, S, C> {
    /// Runs the branches of a group. The caller merges the updates.
    async fn run(self, step: &'r Step<S, C>, group: &'r Group<S>, items: Items) -> Result<Joined<S>, Box<Failure>> {
        self.check_signals(group.branches.first())?;
        let joined = match (&group.kind, items) {
            // An `any` keeps no progress: it starts again.
            (GroupKind::All | GroupKind::Each(_), items) if self.scope.recorder().is_some() => {
                Box::pin(self.run_on_a_thread(step, group, items)).await?
            }
            // A reader learns of every node on its own.
            (_, items) if group.is_plain && !self.scope.run.sink.has_reader() => {
                self.run_plain(step, group, items).await?
            }
            // Boxed, or the future of every group would be as large, and fewer of them would fit on the stack.
            (GroupKind::Each(each), Some(items)) => Box::pin(self.run_each(step, group, each, items)).await?,
            (GroupKind::Any, _) => self.run_any(step, group).await?,
            (GroupKind::All | GroupKind::Each(_), _) => self.run_all(group).await?,
        };
        let Self { plan, scope, .. } = self;
        check_conflicts(&joined.logs, |branch| only_node(plan, group, scope, branch).format())?;
        Ok(joined)
    }

    async fn run_on_a_thread(
        self,
        step: &'r Step<S, C>,
        group: &'r Group<S>,
        items: Items,
    ) -> Result<Joined<S>, Box<Failure>> {
        let Some(recorder) = self.scope.recorder() else { return Ok(Joined::all(Vec::new())) };
        let joined = self.run_recorded(step, group, items, recorder).await?;
        let Self { plan, scope, .. } = self;
        if let Err(conflict) = check_conflicts(&joined.logs, |branch| only_node(plan, group, scope, branch).format()) {
            recorder.discard_branches();
            return Err(conflict);
        }
        Ok(joined)
    }

    async fn run_all(self, group: &'r Group<S>) -> Result<Joined<S>, Box<Failure>> {
        let Self { scope, .. } = self;
        let scopes: Vec<_> = group.branches.iter().map(|_| scope.branch()).collect();
        let mut logs: Vec<_> = group.branches.iter().map(|_| BranchLog::new()).collect();
        let running = self.branches(group, &scopes, &mut logs);
        join_all(running).await?;
        scope.join(scopes.iter().map(PathScope::taken));
        for branch in &scopes {
            scope.outbox.extend(branch.outbox.take());
        }
        Ok(Joined::all(logs))
    }

    async fn run_any(self, step: &'r Step<S, C>, group: &'r Group<S>) -> Result<Joined<S>, Box<Failure>> {
        let Self { scope, .. } = self;
        let scopes: Vec<_> = group.branches.iter().map(|_| scope.branch()).collect();
        let mut logs: Vec<_> = group.branches.iter().map(|_| BranchLog::new()).collect();
        let running = self.branches(group, &scopes, &mut logs);
        // A failure that no fallback could receive, such as an interrupt, ends the run and not the branch alone.
        match first_success(running, |failure: Box<Failure>| failure.into_recoverable()).await? {
            Ok(winner) => {
                scope.join(scopes.get(winner).map(PathScope::taken));
                scopes.get(winner).into_iter().for_each(|branch| scope.outbox.extend(branch.outbox.take()));
                Ok(Joined::first(winner, logs))
            }
            Err(failures) => Err(scope.failure(&step.name, AllFailed { failures })),
        }
    }

    /// Computes the items, if the group is an `each`.
    fn items(&self, step: &Step<S, C>, group: &Group<S>) -> Items {
        let GroupKind::Each(each) = &group.kind else { return None };
        let limit = each.options.max_items;
        let source = match catch_unwind(AssertUnwindSafe(|| each.items.items(self.state, limit))) {
            Ok(Some(items)) => return Some(Ok(items)),
            Ok(None) => NodeError::from(TooManyItems { limit }),
            Err(panic) => NodeError::panicked(panic),
        };
        Some(Err(self.scope.failure(&step.name, source)))
    }

    /// Runs the branch for each item. A branch takes memory only while it runs; its updates are kept until the join.
    async fn run_each(
        self,
        step: &'r Step<S, C>,
        group: &'r Group<S>,
        each: &'r Each<S>,
        items: Result<ItemList, Box<Failure>>,
    ) -> Result<Joined<S>, Box<Failure>> {
        let items = items?;
        let Some(branch) = group.branches.first().filter(|_| items.len() > 0) else {
            // A visit counts even if no node runs. Otherwise a loop around the group would never end.
            self.scope.count(&step.name)?;
            return Ok(Joined::all(Vec::new()));
        };
        let mut logs: Vec<_> = (0..items.len()).map(|_| BranchLog::new()).collect();
        let mut running = FuturesUnordered::new();
        let mut ended = ItemsEnded::default();
        for (index, (item, log)) in items.zip(&mut logs).enumerate() {
            let mut future = CatchDrop::new(Box::pin(self.item(branch, index, item, log)) as BoxFuture<'_, _>);
            // An item that is ready at once needs no place among those that wait.
            match poll_fn(|cx| Poll::Ready(Pin::new(&mut future).poll(cx))).await {
                Poll::Ready(item) => ended.add(item?),
                Poll::Pending => running.push(future),
            }
            while running.len() >= each.options.max_parallel {
                let Some(item) = running.next().await else { break };
                ended.add(item?);
            }
            // Items that never wait would otherwise block the thread, and the run would not see that it is to stop.
            consume_budget().await;
        }
        while let Some(item) = running.next().await {
            ended.add(item?);
        }
        drop(running);
        self.scope.join([ended.longest]);
        self.scope.outbox.extend(ended.spawned());
        Ok(Joined::all(logs))
    }

    /// Runs the branch of one item.
    async fn item(
        self,
        branch: &'r Branch,
        index: usize,
        item: Input,
        log: &mut BranchLog<S>,
    ) -> Result<ItemEnded, Box<Failure>> {
        let scope = self.scope.item(index);
        let arrival = Arrival::of_item(self.arrival, item);
        let fork = Fork { scope: &scope, arrival: &arrival, ..self };
        fork.check_signals(Some(branch))?;
        let first = branch.steps.first().map(|first| self.plan.step(*first));
        match first.map(|step| (step, &step.work)) {
            // The future of a branch with one node, the usual one, needs no further box.
            Some((step, Work::Branch(node))) if step.is_last() => fork.run_only(step, &**node, log).await?,
            _ => fork.branch(branch, log).await?,
        }
        Ok(ItemEnded { index, taken: scope.taken(), spawned: scope.outbox.take() })
    }

    /// Fails if the run is to stop before the first node of the branch.
    pub(super) fn check_signals(&self, branch: Option<&Branch>) -> Result<(), Box<Failure>> {
        let Self { plan, scope, .. } = self;
        let Some(first) = branch.and_then(|branch| branch.steps.first()) else { return Ok(()) };
        scope.check_signals(|| scope.path(&plan.first_node(plan.step(*first)).name).into_owned())
    }

    /// Runs every branch once, each in the scope and with the log of its place in the lists.
    fn branches<'f>(
        self,
        group: &'f Group<S>,
        scopes: &'f [PathScope<'f>],
        logs: &'f mut [BranchLog<S>],
    ) -> Vec<BoxFuture<'f, Result<(), Box<Failure>>>>
    where
        'r: 'f,
    {
        let branches = group.branches.iter().zip(scopes).zip(logs);
        branches.map(|((branch, scope), log)| Fork { scope, ..self }.branch(branch, log)).collect()
    }

    /// Runs one branch, which sees the state as it was at the fork with its own updates.
    pub(super) fn branch<'f>(
        self,
        branch: &'f Branch,
        log: &'f mut BranchLog<S>,
    ) -> BoxFuture<'f, Result<(), Box<Failure>>>
    where
        'r: 'f,
    {
        match branch.steps.first() {
            Some(first) => self.path(*first, branch.may_loop, log),
            // A graph with an empty branch does not compile.
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }

    /// Runs the path that begins at a step and ends at the join.
    ///
    /// The return type is named, because a branch may contain a group and so this future itself.
    fn path<'f>(
        self,
        entry: StepId,
        may_loop: bool,
        log: &'f mut BranchLog<S>,
    ) -> BoxFuture<'f, Result<(), Box<Failure>>>
    where
        'r: 'f,
    {
        let step = self.plan.step(entry);
        match &step.work {
            // The future of a branch with one node, the usual one, is smaller.
            Work::Branch(node) if step.is_last() => Box::pin(self.run_only(step, &**node, log)),
            _ => Box::pin(self.walk(entry, may_loop, log, None)),
        }
    }

    /// Runs the rest of a path, from the step at which an earlier run has left it.
    pub(super) fn rest<'f>(
        self,
        next: StepId,
        may_loop: bool,
        log: &'f mut BranchLog<S>,
        arrival: Arrival<'r>,
    ) -> BoxFuture<'f, Result<(), Box<Failure>>>
    where
        'r: 'f,
    {
        Box::pin(self.walk(next, may_loop, log, Some(arrival)))
    }

    async fn run_only(
        self,
        step: &'r Step<S, C>,
        node: &'r dyn ErasedParallelNode<S, C>,
        log: &mut BranchLog<S>,
    ) -> Result<(), Box<Failure>> {
        // The signals were checked once for the first steps of all branches, which begin together.
        let path = self.scope.count(&step.name)?;
        let answered = self.answered(step, &path);
        let arrival = answered.as_ref().unwrap_or(self.arrival);
        let mut node = self.attempt(step, node, log);
        let ended = run_attempts(&mut node, &path, &step.options, self.scope, arrival).await;
        drop(node);
        self.record_end(step, log, ended.map(drop))
    }

    /// Returns the arrival at a node that asked, with the answer to its question.
    fn answered(&self, step: &Step<S, C>, path: &NodePath<'_>) -> Option<Arrival<'r>> {
        let recorder = self.scope.run.recorder.filter(|_| step.asks)?;
        recorder.take_answer(path.name()).map(|answer| Arrival::answered(self.arrival, answer))
    }

    /// Records the end of the only step of a branch.
    fn record_end(
        &self,
        step: &Step<S, C>,
        log: &BranchLog<S>,
        ended: Result<(), Box<Failure>>,
    ) -> Result<(), Box<Failure>> {
        if self.progress.is_none() {
            return ended;
        }
        match ended {
            Ok(()) => self.record_branch(Next::End, None, log, step, Vec::new()),
            Err(failure) => self.record_question(step, None, log, failure),
        }
    }

    /// Records that the step has asked, if the failure says so. Returns the failure.
    fn record_question(
        &self,
        step: &Step<S, C>,
        arrival: Option<&Arrival<'_>>,
        log: &BranchLog<S>,
        failure: Box<Failure>,
    ) -> Result<(), Box<Failure>> {
        if let (Some(_), RunErrorKind::Asked { node, others, .. }) = (self.progress, &failure.kind) {
            let asked = std::iter::once(node).chain(others.iter().map(|(node, _)| node)).cloned().collect();
            let at = self.plan.steps.iter().position(|other| std::ptr::eq(other, step)).map(StepId::new);
            if let Some(at) = at {
                self.record_branch(Next::Step(at), arrival, log, step, asked)?;
            }
        }
        Err(failure)
    }

    fn attempt<'n>(
        self,
        step: &'n Step<S, C>,
        node: &'n dyn ErasedParallelNode<S, C>,
        log: &'n mut BranchLog<S>,
    ) -> ParallelAttempt<'n, S, C>
    where
        'r: 'n,
    {
        let Self { state, services, .. } = self;
        let before = log.len();
        ParallelAttempt { node, state, services, router: step.router.as_deref(), log, before, after: None }
    }

    /// Walks a branch from its first step to the join.
    ///
    /// A branch that goes on from an earlier run begins at another step, with the arrival there and a log of what it has done.
    async fn walk(
        self,
        entry: StepId,
        may_loop: bool,
        log: &mut BranchLog<S>,
        resumed: Option<Arrival<'r>>,
    ) -> Result<(), Box<Failure>> {
        let Self { plan, scope, .. } = self;
        let mut at = entry;
        // The state is copied only when a later step must see the update of an earlier one.
        let mut own: Option<S> = None;
        let mut is_first = resumed.is_none();
        if !is_first {
            self.apply(plan.step(at), &mut own, log.iter())?;
        }
        let mut arrival = resumed.unwrap_or_else(|| Arrival::inherited(self.arrival));
        let mut trace = LoopTrace::new(plan, may_loop);
        loop {
            let step = plan.step(at);
            let (before, spawned) = (log.len(), scope.outbox.len());
            let fork = Fork { state: own.as_ref().unwrap_or(self.state), arrival: &arrival, ..self };
            let ended = match fork.run_step(step, log, is_first).await {
                Ok((edge, after)) => {
                    let next = follow(plan, step, edge, scope, &mut arrival);
                    let to = match next {
                        Next::Step(to) => to,
                        Next::End => return self.record_branch(Next::End, None, log, step, Vec::new()),
                    };
                    let seen = match after {
                        Some(after) => {
                            own = Some(after);
                            Ok(())
                        }
                        None => self.apply(step, &mut own, log.iter().skip(before)),
                    };
                    seen.map(|()| to)
                }
                Err(failure) => Err(failure),
            };
            let to = match ended {
                Ok(to) => to,
                Err(failure) if matches!(failure.kind, RunErrorKind::Asked { .. }) => {
                    return self.record_question(step, Some(&arrival), log, failure);
                }
                Err(failure) => {
                    let (fallback, failure) = fall_back(plan, step, failure, &trace, scope)?;
                    log.truncate(before);
                    scope.outbox.truncate(spawned);
                    arrival = Arrival::by_error(failure);
                    fallback
                }
            };
            is_first = false;
            trace.visit(at);
            at = to;
            self.record_branch(Next::Step(to), Some(&arrival), log, step, Vec::new())?;
            // The branch yields from time to time, as the walk outside of branches does.
            consume_budget().await;
        }
    }

    /// Applies the updates of a step, which the next step of the branch sees. The state is left as it was if a reducer
    /// panics, provided that a fallback needs it.
    fn apply<'e>(
        self,
        step: &Step<S, C>,
        own: &mut Option<S>,
        mut updates: impl Iterator<Item = &'e Entry<S>>,
    ) -> Result<(), Box<Failure>>
    where
        S: 'e,
    {
        let mut after = if step.on_error.is_some() { own.clone() } else { own.take() };
        updates.try_for_each(|entry| {
            guarded(
                || entry.name(|| self.scope.node(&step.name, None).format()),
                || {
                    after.get_or_insert_with(|| self.state.clone()).apply(entry.update.clone());
                },
            )
        })?;
        *own = after;
        Ok(())
    }

    /// Runs one step of a branch, which adds its updates to the log. Returns the index of its outgoing edge, and the state
    /// with the updates if the decision was taken from it.
    async fn run_step(
        self,
        step: &'r Step<S, C>,
        log: &mut BranchLog<S>,
        is_first: bool,
    ) -> Result<(usize, Option<S>), Box<Failure>> {
        let Self { plan, scope, state, arrival, .. } = self;
        match &step.work {
            Work::Branch(node) => {
                let path = if is_first { scope.count(&step.name)? } else { scope.enter(&step.name)? };
                let answered = self.answered(step, &path);
                let arrival = answered.as_ref().unwrap_or(arrival);
                let mut node = self.attempt(step, &**node, log);
                let edge = run_attempts(&mut node, &path, &step.options, scope, arrival).await?;
                Ok((edge, node.after.take()))
            }
            // The future of a group is boxed, or that of every node would be as large.
            Work::Group(group) => {
                let before = log.len();
                let items = self.items(step, group);
                let (open, started) = OpenGroup::start(plan, group, scope, &items);
                started.await;
                let Joined { logs, winner } =
                    match Box::pin(Fork { progress: None, ..self }.run(step, group, items)).await {
                        Ok(joined) => joined,
                        Err(failure) => return Err(open.failed(failure)),
                    };
                // The updates are merged at the outermost join.
                open.joined(changed_fields(scope, &logs), winner);
                for (branch, nested) in logs.into_iter().enumerate() {
                    log.append(nested, || only_node(plan, group, scope, winner.unwrap_or(branch)).to_owned());
                }
                let Some(router) = step.router.as_deref() else { return Ok((0, None)) };
                let after = with_updates(step, scope, state, log, before)?;
                let edge = routed(router, &after, &scope.slot).map_err(|source| scope.failure(&step.name, source))?;
                Ok((edge, Some(after)))
            }
            // A graph with such a node in a branch does not compile.
            Work::Node(_) => Ok((0, None)),
        }
    }
}

/// Runs the branch of a graph that is a node in a branch of another one.
pub(crate) async fn run_inner_branch<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    services: &C,
    scope: &PathScope<'_>,
    state: &S,
    log: &mut BranchLog<S>,
    arrival: &Arrival<'_>,
) -> Result<(), Box<Failure>> {
    Fork { plan, services, scope, state, arrival, progress: None }.path(plan.entry, plan.may_loop, log).await
}

/// Returns the state with the updates of the log from `before` on. A panic of its `Clone` is an error of the group.
fn with_updates<S: State, C>(
    group: &Step<S, C>,
    scope: &PathScope<'_>,
    state: &S,
    log: &BranchLog<S>,
    before: usize,
) -> Result<S, Box<Failure>> {
    let mut after = catch_unwind(AssertUnwindSafe(|| state.clone()))
        .map_err(|panic| scope.failure(&group.name, NodeError::panicked(panic)))?;
    for entry in log.iter().skip(before) {
        guarded(|| entry.name(|| scope.node(&group.name, None).format()), || after.apply(entry.update.clone()))?;
    }
    Ok(after)
}

/// Returns the fields that the updates change, if the run has a reader.
fn changed_fields<S: State>(scope: &PathScope<'_>, logs: &[BranchLog<S>]) -> Vec<String> {
    let mut fields = Vec::new();
    if !scope.run.sink.has_reader() {
        return fields;
    }
    for entry in logs.iter().flat_map(BranchLog::iter) {
        scope.run.sink.record_changes(&mut fields, || S::changes(&entry.update));
    }
    fields
}

/// A group that was reported to have started. It is reported to have joined or failed, at the latest when an interrupt, a
/// timeout around the group or the failure of a branch around it drops it.
struct OpenGroup<'r, S: State, C> {
    plan: &'r Plan<S, C>,
    group: &'r Group<S>,
    scope: &'r PathScope<'r>,
    is_open: bool,
}

impl<'r, S: State, C> OpenGroup<'r, S, C> {
    /// Writes the first event, and returns a future that waits until the reader has caught up. The group is open even while
    /// it waits.
    #[inline]
    fn start(
        plan: &'r Plan<S, C>,
        group: &'r Group<S>,
        scope: &'r PathScope<'r>,
        items: &Items,
    ) -> (Self, impl Future<Output = ()> + use<'r, S, C>) {
        let items = items.as_ref().map(|items| items.as_ref().map_or(0, ItemList::len));
        let started = scope.emit(move || EventKind::GroupStarted { nodes: first_nodes(plan, group, scope), items });
        (Self { plan, group, scope, is_open: true }, started)
    }

    fn joined(self, fields: Vec<String>, winner: Option<usize>) {
        self.close(|nodes| {
            let winner = winner.and_then(|winner| nodes.get(winner).cloned());
            EventKind::GroupJoined { nodes, fields, winner }
        });
    }

    #[allow(clippy::unnecessary_box_returns, reason = "a failure is passed on in its box")]
    fn failed(self, failure: Box<Failure>) -> Box<Failure> {
        self.close(|nodes| EventKind::GroupFailed { nodes, error: text_of(&failure.kind) });
        failure
    }

    fn close(mut self, kind: impl FnOnce(Vec<String>) -> EventKind) {
        self.is_open = false;
        self.push(kind);
    }

    fn push(&self, kind: impl FnOnce(Vec<String>) -> EventKind) {
        let Self { plan, group, scope, .. } = *self;
        scope.run.sink.push(|| kind(first_nodes(plan, group, scope)));
    }
}

impl<S: State, C> Drop for OpenGroup<'_, S, C> {
    #[inline]
    fn drop(&mut self) {
        if self.is_open {
            self.push(|nodes| EventKind::GroupFailed {
                nodes,
                error: "dropped before its branches had ended".to_owned(),
            });
        }
    }
}

/// Returns the name of the first node of each branch.
fn first_nodes<S: State, C>(plan: &Plan<S, C>, group: &Group<S>, scope: &PathScope<'_>) -> Vec<String> {
    let firsts = group.branches.iter().filter_map(|branch| branch.steps.first());
    firsts.map(|first| scope.path(&plan.step(*first).name).to_string()).collect()
}
