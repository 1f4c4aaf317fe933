//! [`Scope`]: what all nodes of a run have in common, as far as they are on one path.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::SetOnce, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Failure, RunErrorKind, events::Sink};
use crate::{BackgroundTaskManager, config::RunConfig, run_id::RunId, task::RunTasks};

/// What all nodes of a run have in common.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    pub(crate) id: RunId,
    pub(crate) config: &'a RunConfig,
    pub(crate) signals: Signals<'a>,
    pub(crate) manager: &'a BackgroundTaskManager,
    pub(crate) sink: &'a Sink,
    /// How many node runs a path may have.
    pub(crate) limit: usize,
    pub(crate) trail: Trail,
    /// Made when a node is first given the manager.
    pub(crate) tasks: &'a OnceLock<Arc<RunTasks>>,
}

/// What the nodes on one path of a run have in common.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) run: &'a Common<'a>,
    /// The subgraph that the path is in, if it is in one.
    subgraph: Option<Arc<str>>,
    /// How many node runs the path may still have.
    steps_left: AtomicUsize,
}

/// What a run remembers of its way, for its errors. Most runs remember nothing.
#[derive(Debug)]
pub(crate) struct Trail {
    /// As many node runs before the limit the way is written down: enough for once round a loop.
    length: usize,
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    visited: Vec<Arc<str>>,
    /// The node inside a subgraph that ran last.
    inner: Option<Arc<str>>,
}

impl Trail {
    /// For a graph with so many nodes.
    pub(crate) fn new(nodes: usize) -> Self {
        Self { length: nodes.min(32), steps: Mutex::default() }
    }

    /// The nodes since the last visit of `node`, or those that were gone through again and again before it; none where
    /// nothing was.
    fn loop_to(&self, node: &Arc<str>) -> Vec<Arc<str>> {
        let steps = self.lock();
        let last = steps.visited.iter().rposition(|visited| visited == node);
        let round = &steps.visited[last.unwrap_or(0)..];
        let mut nodes: Vec<Arc<str>> = Vec::new();
        for visited in round {
            if !nodes.contains(visited) {
                nodes.push(Arc::clone(visited));
            }
        }
        if last.is_none() && nodes.len() == round.len() {
            nodes.clear();
        }
        nodes
    }

    /// The node that the run is at, where `node` is the one of the outermost graph.
    pub(crate) fn innermost(&self, node: Arc<str>) -> Arc<str> {
        let is_inside = |inner: &Arc<str>| inner.strip_prefix(&*node).is_some_and(|rest| rest.starts_with('/'));
        self.lock().inner.clone().filter(is_inside).unwrap_or(node)
    }

    /// Two lists of names are whole after every statement: a panic elsewhere doesn't spoil them.
    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What can end a run from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signals<'a> {
    /// The run's own token.
    pub(crate) cancel: &'a CancellationToken,
    /// The app's, for runs that a shutdown doesn't wait for any more.
    pub(crate) unfinished: &'a SetOnce<()>,
    pub(crate) timeout: Option<Timeout>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeout {
    pub(crate) limit: Duration,
    /// `None` where the limit lies beyond what the clock can name: then it never comes.
    pub(crate) deadline: Option<Instant>,
}

/// Who ended the run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Interrupt {
    Cancelled,
    ShutDown,
    TimedOut { limit: Duration },
}

impl Interrupt {
    pub(crate) fn at(self, node: Arc<str>) -> RunErrorKind {
        match self {
            Self::Cancelled => RunErrorKind::Cancelled { node },
            Self::ShutDown => RunErrorKind::ShutDown { node },
            Self::TimedOut { limit } => RunErrorKind::TimedOut { limit, node },
        }
    }
}

impl Signals<'_> {
    /// Whether the run is to end before its next node.
    #[inline]
    fn check(&self) -> Option<Interrupt> {
        if self.cancel.is_cancelled() {
            return Some(Interrupt::Cancelled);
        }
        if self.unfinished.initialized() {
            return Some(Interrupt::ShutDown);
        }
        let Timeout { limit, deadline } = self.timeout?;
        (deadline? <= Instant::now()).then_some(Interrupt::TimedOut { limit })
    }
}

impl<'a> Scope<'a> {
    /// For the path on which a run begins.
    pub(crate) fn new(run: &'a Common<'a>) -> Self {
        Self { run, subgraph: None, steps_left: AtomicUsize::new(run.limit) }
    }

    /// The same for a branch, whose steps are counted on their own.
    pub(crate) fn branch(&self) -> Self {
        self.derived(self.subgraph.clone())
    }

    /// The same for the nodes inside the node `path`.
    pub(crate) fn inside(&self, path: Arc<str>) -> Self {
        self.derived(Some(path))
    }

    fn derived(&self, subgraph: Option<Arc<str>>) -> Self {
        Self { run: self.run, subgraph, steps_left: AtomicUsize::new(self.steps_left.load(Ordering::Relaxed)) }
    }

    /// Goes on where those that came from this path have come to: the longest of them counts.
    pub(crate) fn join<'b>(&self, others: impl IntoIterator<Item = &'b Scope<'b>>) {
        let left = others.into_iter().map(|other| other.steps_left.load(Ordering::Relaxed)).min();
        if let Some(left) = left {
            self.steps_left.store(left, Ordering::Relaxed);
        }
    }

    /// The name of a node of this path, with the names of the subgraphs around it.
    #[inline]
    pub(crate) fn path<'n>(&self, node: &'n Arc<str>) -> Cow<'n, Arc<str>> {
        match &self.subgraph {
            None => Cow::Borrowed(node),
            Some(subgraph) => Cow::Owned(format!("{subgraph}/{node}").into()),
        }
    }

    /// What `END` is called on this path.
    pub(crate) fn end(&self) -> String {
        self.subgraph.as_ref().map_or_else(|| "END".to_owned(), |subgraph| format!("{subgraph}/END"))
    }

    /// Counts a node run in, unless the run is to end before it; gives the node's name on this path.
    #[inline]
    pub(crate) fn enter<'n>(&self, node: &'n Arc<str>) -> Result<Cow<'n, Arc<str>>, Box<Failure>> {
        self.check(|| self.path(node).into_owned())?;
        self.count(node)
    }

    /// Counts a node run in; gives the node's name on this path.
    #[inline]
    pub(crate) fn count<'n>(&self, node: &'n Arc<str>) -> Result<Cow<'n, Arc<str>>, Box<Failure>> {
        let path = self.path(node);
        // Only the path itself counts here, so nobody comes between the two.
        let Some(left) = self.steps_left.load(Ordering::Relaxed).checked_sub(1) else {
            return Err(Failure::committed(RunErrorKind::RecursionLimit {
                limit: self.run.limit,
                nodes: self.run.trail.loop_to(&path),
                node: path.into_owned(),
            }));
        };
        self.steps_left.store(left, Ordering::Relaxed);
        if left < self.run.trail.length {
            self.run.trail.lock().visited.push(Arc::clone(&path));
        }
        if self.subgraph.is_some() {
            self.run.trail.lock().inner = Some(Arc::clone(&path));
        }
        Ok(path)
    }

    /// Fails if the run is to end before the node `path` is run.
    #[inline]
    pub(crate) fn check(&self, path: impl FnOnce() -> Arc<str>) -> Result<(), Box<Failure>> {
        match self.run.signals.check() {
            None => Ok(()),
            Some(interrupt) => Err(Failure::committed(interrupt.at(path()))),
        }
    }

    pub(crate) fn task_manager(&self, path: &Arc<str>) -> BackgroundTaskManager {
        let tasks = Arc::clone(self.run.tasks.get_or_init(Arc::default));
        self.run.manager.labelled(self.run.id, Arc::clone(path), self.run.sink.watch(), Some(tasks))
    }
}
