//! Groups on a recorded path: what a branch has done is recorded, and a branch that asks waits for the others.

use std::sync::Arc;

use futures_util::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt},
};
use serde_json::value::RawValue;
use tokio::task::consume_budget;

use super::{
    branch_log::BranchLog,
    error::{Failure, RunErrorKind},
    fork::{BranchProgress, Fork, Items, Joined},
    invocation::Arrival,
    join_all::CatchDrop,
    path_name::NodeName,
    recorder::{BranchRecord, Recorder},
};
use crate::{
    carried::{Carried, Input, InputType},
    graph::{
        plan::{Branch, Group, GroupKind, Step, Work},
        topology::Next,
    },
    state::State,
    store::NewTask,
};

/// The end of a branch.
enum BranchEnded {
    /// The number of node executions, and the durable tasks of the branch's nodes.
    Joined { taken: usize, spawned: Vec<NewTask> },
    /// The questions of the branch; none if an earlier one stays open.
    Asked(Vec<(Arc<str>, Box<RawValue>)>),
}

impl<'r, S: State, C: Send + Sync + 'static> Fork<'r, S, C> {
    /// Runs the branches of a group that is one step of a recorded run. A branch that has ended in an earlier run of the same
    /// step does not run again. A branch that asks cancels nobody: the group asks when all the others have ended.
    pub(super) async fn run_recorded(
        self,
        step: &'r Step<S, C>,
        group: &'r Group<S>,
        items: Items,
        recorder: &'r dyn Recorder,
    ) -> Result<Joined<S>, Box<Failure>> {
        recorder.begin_group(self.scope.group_id(&step.name));
        let (items, max_parallel) = match (&group.kind, items) {
            (GroupKind::Each(each), Some(items)) => {
                let known = recorder.items(step.input).map_err(Failure::committed)?;
                let items = if let Some(items) = known {
                    items
                } else {
                    let items: Vec<Input> = items?.collect();
                    recorder.record_items(&items, step.input).map_err(Failure::committed)?;
                    items
                };
                (Some(items), each.options.max_parallel)
            }
            _ => (None, group.branches.len()),
        };
        let count = items.as_ref().map_or(group.branches.len(), Vec::len);
        if count == 0 {
            // A visit counts even if no node runs. Otherwise a loop around the group would never end.
            self.scope.count(&step.name)?;
            return Ok(Joined::all(Vec::new()));
        }
        let mut logs: Vec<_> = (0..count).map(|_| BranchLog::new()).collect();
        let mut running = FuturesUnordered::new();
        let (mut longest, mut spawned, mut asked, mut is_asked) = (0, Vec::new(), Vec::new(), false);
        let mut ended = |index: usize, ended: BranchEnded| match ended {
            BranchEnded::Joined { taken, spawned: tasks } => {
                longest = longest.max(taken);
                spawned.push((index, tasks));
            }
            BranchEnded::Asked(questions) => {
                is_asked = true;
                asked.extend(questions);
            }
        };
        for (index, log) in logs.iter_mut().enumerate() {
            let (branch, key, item) = match &items {
                None => (&group.branches[index], index.to_string(), None),
                Some(items) => (&group.branches[0], format!("[{index}]"), Some(items[index].clone())),
            };
            let progress = BranchProgress { recorder, key };
            let future = self.recorded_branch(branch, index, item, progress, log);
            running.push(CatchDrop::new(Box::pin(future) as BoxFuture<'_, _>));
            while running.len() >= max_parallel {
                let Some((index, branch)) = running.next().await else { break };
                ended(index, branch?);
            }
            // Items that never wait would otherwise block the thread, and the run would not see that it is to stop.
            consume_budget().await;
        }
        while let Some((index, branch)) = running.next().await {
            ended(index, branch?);
        }
        drop(running);
        if is_asked {
            return Err(Failure::committed(asked_by(asked, &step.name)));
        }
        self.scope.join([longest]);
        spawned.sort_unstable_by_key(|(index, _)| *index);
        self.scope.outbox.extend(spawned.into_iter().flat_map(|(_, tasks)| tasks).collect());
        Ok(Joined::all(logs))
    }

    /// Runs one branch, from where an earlier run has left it.
    async fn recorded_branch(
        self,
        branch: &'r Branch,
        index: usize,
        item: Option<Input>,
        progress: BranchProgress<'r>,
        log: &mut BranchLog<S>,
    ) -> (usize, Result<BranchEnded, Box<Failure>>) {
        let scope = if item.is_some() { self.scope.item(index) } else { self.scope.branch() };
        let of_item;
        let arrival = match item {
            None => self.arrival,
            Some(item) => {
                of_item = Arrival::of_item(self.arrival, item);
                &of_item
            }
        };
        let fork = Fork { scope: &scope, arrival, progress: Some(&progress), ..self };
        (index, fork.resume_branch(branch, log).await)
    }

    async fn resume_branch(self, branch: &Branch, log: &mut BranchLog<S>) -> Result<BranchEnded, Box<Failure>> {
        let Self { plan, scope, progress, .. } = self;
        let before = match progress {
            None => None,
            Some(progress) => {
                let input = |step: &str| {
                    let step = plan.steps.iter().find(|other| &*other.name == step);
                    step.map_or_else(InputType::of::<()>, |step| step.input)
                };
                progress.recorder.branch(&progress.key, &input).map_err(Failure::committed)?
            }
        };
        let mut start = None;
        if let Some(BranchRecord { updates, next, input, error, taken, spawned, asked }) = before {
            let is_answered = |node: &Arc<str>| self.recorder().is_some_and(|recorder| recorder.is_answered(node));
            if !asked.is_empty() && self.recorder().is_some_and(Recorder::answers) && !asked.iter().any(is_answered) {
                // The answer to another question has begun the run.
                return Ok(BranchEnded::Asked(Vec::new()));
            }
            for (node, update) in updates {
                if let Some(update) = update.downcast_ref::<S::Update>() {
                    log.push(Some(NodeName::of(node)), update.clone());
                }
            }
            scope.outbox.extend(spawned);
            scope.skip(taken);
            let Some(next) = next else {
                return Ok(BranchEnded::Joined { taken, spawned: scope.outbox.take() });
            };
            let of_branch = |step: &&crate::graph::topology::StepId| plan.step(**step).name == next;
            let Some(next) = branch.steps.iter().find(of_branch) else {
                let node = scope.path(&next).into_owned();
                return Err(Failure::committed(RunErrorKind::UnknownNode { node, suggestion: None }));
            };
            // The first step has what led the path to the group, if nothing else has led to it since.
            let is_first = branch.steps.first() == Some(next) && input.is_none() && error.is_none() && log.len() == 0;
            let arrival =
                if is_first { Arrival::inherited(self.arrival) } else { Arrival::resumed(error, input, None) };
            start = Some((*next, arrival));
        }
        if start.is_none() {
            self.check_signals(Some(branch))?;
        }
        let ended = match start {
            Some((next, arrival)) => self.rest(next, branch.may_loop, log, arrival).await,
            None => self.branch(branch, log).await,
        };
        match ended {
            Ok(()) => Ok(BranchEnded::Joined { taken: scope.taken(), spawned: scope.outbox.take() }),
            Err(failure) => match failure.kind {
                RunErrorKind::Asked { node, question, others } => {
                    let mut questions = vec![(node, question)];
                    questions.extend(others);
                    Ok(BranchEnded::Asked(questions))
                }
                _ => Err(failure),
            },
        }
    }

    fn recorder(&self) -> Option<&'r dyn Recorder> {
        self.progress.map(|progress| progress.recorder)
    }

    /// Records that a step of the branch has ended, or, with the names of nodes, that it has asked.
    pub(super) fn record_branch(
        &self,
        next: Next,
        arrival: Option<&Arrival<'_>>,
        log: &BranchLog<S>,
        only: &Step<S, C>,
        asked: Vec<Arc<str>>,
    ) -> Result<(), Box<Failure>> {
        // A node that asked runs again, as the same step.
        let is_counted_again = !asked.is_empty() && matches!(only.work, Work::Branch(_));
        let Self { plan, scope, progress, .. } = *self;
        let Some(progress) = progress else { return Ok(()) };
        let only_node = || scope.node(&only.name, None).format();
        let updates = log.iter().map(|entry| {
            let update: Arc<Carried> = Arc::new(entry.update.clone());
            (entry.name(only_node), update)
        });
        let next = match next {
            Next::Step(next) => Some(plan.step(next)),
            Next::End => None,
        };
        let record = BranchRecord {
            updates: updates.collect(),
            input: arrival.and_then(Arrival::own_input).cloned(),
            error: arrival.and_then(Arrival::own_error).map(super::error::NodeFailure::copy),
            taken: scope.taken() - usize::from(is_counted_again),
            spawned: scope.outbox.copy(),
            asked,
            next: next.map(|next| Arc::clone(&next.name)),
        };
        let input_type = next.map(|next| next.input);
        progress.recorder.record_branch(&progress.key, record, input_type).map_err(Failure::committed)
    }
}

/// Returns the end of a run that has asked these questions; with none, questions of earlier runs are open.
fn asked_by(mut asked: Vec<(Arc<str>, Box<RawValue>)>, group: &Arc<str>) -> RunErrorKind {
    if asked.is_empty() {
        return RunErrorKind::StillAsking { node: Arc::clone(group) };
    }
    let (node, question) = asked.remove(0);
    RunErrorKind::Asked { node, question, others: asked }
}
