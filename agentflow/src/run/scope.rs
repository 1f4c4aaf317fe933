//! [`RunContext`] and [`PathScope`]: the data that the nodes of a run, and the nodes of one path in it, share.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::{BoxFuture, join_all};

use super::{
    error::{Failure, NodeFailure, RunErrorKind},
    event::EventKind,
    event_channel::{EventWriter, Sink},
    interrupt::StopSignals,
    last_node::LastNode,
    path_name::{NodeOnPath, NodePath, PathName},
    recorder::{Recorder, ResumeSlot},
    step_id::StepId,
};
use crate::{
    carried::Slot,
    config::RunConfig,
    error::NodeError,
    run_id::RunId,
    store::{NewTask, StoredTaskId},
    sync::Mutex,
    task::{AttemptOutbox, BackgroundTaskManager, RunTasks, SpawnError},
};

/// The data that all nodes of a run share.
#[derive(Debug)]
pub(crate) struct RunContext<'a> {
    pub(crate) id: RunId,
    /// The name of the run's graph.
    pub(crate) graph: &'a Arc<str>,
    pub(crate) config: &'a RunConfig,
    pub(crate) signals: StopSignals<'a>,
    pub(crate) manager: &'a BackgroundTaskManager,
    pub(crate) sink: &'a Sink,
    /// The number of node executions that a path may have.
    pub(crate) recursion_limit: usize,
    pub(crate) last_node: LastNode,
    /// Created when a node first asks for the manager.
    pub(crate) tasks: &'a OnceLock<Arc<RunTasks>>,
    /// Records the steps of a run on a thread.
    pub(crate) recorder: Option<&'a dyn Recorder>,
    /// The step at which the run goes on, if it does not begin at the start.
    pub(crate) resume: Option<&'a ResumeSlot>,
    /// The durable tasks that are being stored, in a run that is not recorded.
    pub(crate) storing: Storing,
}

/// The data that the nodes on one path of a run share. A run is one path; each branch of a group is a path of its own.
#[derive(Debug)]
pub(crate) struct PathScope<'a> {
    pub(crate) run: &'a RunContext<'a>,
    /// The name of the path, unless it is one of the run's own graph.
    name: Option<Arc<PathName>>,
    /// True on the path of a branch.
    is_branch: bool,
    /// The value on its way to the next step of the path.
    pub(crate) slot: Slot,
    /// The durable tasks of the nodes that have succeeded on the path, which are stored with the next commit.
    pub(crate) outbox: PathOutbox,
    /// The writer of the node that is this subgraph.
    outer: EventWriter,
    /// The task manager of the path's nodes.
    manager: &'a BackgroundTaskManager,
    /// Records the steps of the path, unless they are a part of one step: those of a branch, and of a graph with another
    /// state.
    recorder: Option<&'a dyn Recorder>,
    /// The number of node executions of the run before the path was derived.
    steps_before: usize,
    /// The number of the step that the path is a part of, in a branch.
    fork_number: Option<usize>,
    /// The recursion limit that holds on this path.
    limit: Limit,
    /// The number of node executions that the path had left when it was derived.
    steps_at_start: usize,
    /// The number of node executions that the path may still have.
    ///
    /// All accesses are relaxed: only the path itself, which is one future, reads and writes the counter; moving the
    /// future to another thread synchronizes. It is atomic only because the scope is shared by reference.
    steps_left: AtomicUsize,
}

/// A recursion limit, and the nested graph that it belongs to; `None` for the graph of the run.
#[derive(Clone, Debug)]
struct Limit {
    steps: usize,
    graph: Option<Arc<str>>,
}

impl<'a> PathScope<'a> {
    /// Creates the scope for the path on which a run begins.
    pub(crate) fn new(run: &'a RunContext<'a>) -> Self {
        let limit = Limit { steps: run.recursion_limit, graph: None };
        let steps_before = run.resume.map_or(0, |resume| resume.steps);
        let steps = run.recursion_limit.saturating_sub(steps_before);
        Self {
            run,
            name: None,
            is_branch: false,
            slot: Slot::default(),
            outbox: PathOutbox::default(),
            outer: EventWriter::default(),
            manager: run.manager,
            recorder: run.recorder,
            steps_before,
            fork_number: None,
            limit,
            steps_at_start: steps,
            steps_left: AtomicUsize::new(steps),
        }
    }

    /// Creates the scope of a branch, which counts its own steps.
    pub(crate) fn branch(&self) -> Self {
        self.branch_named(self.name.clone())
    }

    /// Creates the scope of the branch of an item, which counts its own steps.
    pub(crate) fn item(&self, index: usize) -> Self {
        self.branch_named(Some(Arc::new(PathName::Item { outer: self.name.clone(), index })))
    }

    fn branch_named(&self, name: Option<Arc<PathName>>) -> Self {
        let derived = self.derive(name, &self.outer, self.manager, self.limit.clone(), self.steps_left());
        let fork_number = Some(self.fork_number.unwrap_or_else(|| self.steps() + 1));
        Self { is_branch: true, recorder: None, fork_number, ..derived }
    }

    /// Creates the scope for the nodes inside the subgraph `path`, which may have a recursion limit of its own. The
    /// smaller of this limit and of what the path has left holds. The subgraph may have a task manager of its own, too.
    pub(crate) fn inside<'b>(
        &self,
        path: &NodePath<'_>,
        writer: &EventWriter,
        own_limit: Option<usize>,
        own_manager: Option<&'b BackgroundTaskManager>,
    ) -> PathScope<'b>
    where
        'a: 'b,
    {
        let name = Arc::new(PathName::Inside(path.to_owned()));
        let manager = own_manager.unwrap_or(self.manager);
        let left = self.steps_left();
        let (limit, steps) = match own_limit {
            Some(steps) if steps < left => (Limit { steps, graph: Some(Arc::clone(path.name())) }, steps),
            _ => (self.limit.clone(), left),
        };
        self.derive(Some(name), writer, manager, limit, steps)
    }

    fn derive<'b>(
        &self,
        name: Option<Arc<PathName>>,
        outer: &EventWriter,
        manager: &'b BackgroundTaskManager,
        limit: Limit,
        steps: usize,
    ) -> PathScope<'b>
    where
        'a: 'b,
    {
        PathScope {
            run: self.run,
            name,
            is_branch: false,
            slot: Slot::default(),
            outbox: PathOutbox::default(),
            outer: outer.clone(),
            manager,
            recorder: self.recorder,
            steps_before: self.steps(),
            fork_number: self.fork_number,
            limit,
            steps_at_start: steps,
            steps_left: AtomicUsize::new(steps),
        }
    }

    /// Returns the number of node executions on this path since it was derived.
    pub(crate) fn taken(&self) -> usize {
        self.steps_at_start - self.steps_left()
    }

    /// Returns the number of node executions of the run up to here.
    pub(crate) fn steps(&self) -> usize {
        self.steps_before + self.taken()
    }

    /// Returns the identity of a group, which is the next step of the path.
    pub(super) fn group_id(&self, group: &Arc<str>) -> StepId {
        let next = self.steps() as u64 + 1;
        let (run, number) = self.run.resume.and_then(ResumeSlot::origin).unwrap_or((self.run.id, next));
        StepId::new(run, number, self.path(group).into_owned(), 0)
    }

    /// Returns the identity of the step in which the node `path` runs.
    pub(crate) fn step_id(&self, path: &NodePath<'_>) -> StepId {
        let Self { run, fork_number, .. } = *self;
        let number = fork_number.unwrap_or_else(|| self.steps()) as u64;
        let (first_run, number) = run.resume.and_then(ResumeSlot::origin).unwrap_or((run.id, number));
        // The visits of a node inside one step have the same number.
        let is_part = fork_number.is_some() || self.recorder.is_some() != run.recorder.is_some();
        let name = if is_part { format!("{}#{}", path.name(), self.taken()).into() } else { Arc::clone(path.name()) };
        StepId::new(first_run, number, name, run.recorder.map_or(0, Recorder::epoch))
    }

    /// Counts the node executions of an earlier run of the same branch.
    pub(super) fn skip(&self, taken: usize) {
        self.steps_left.store(self.steps_left().saturating_sub(taken), Ordering::Relaxed);
    }

    /// Returns what records the steps of the path.
    #[inline]
    pub(super) fn recorder(&self) -> Option<&'a dyn Recorder> {
        self.recorder
    }

    /// Makes the steps of the path parts of one step, which are not recorded.
    pub(crate) fn unrecorded(self) -> Self {
        Self { recorder: None, ..self }
    }

    /// Returns whether the path is in a graph or a branch.
    pub(super) fn is_nested(&self) -> bool {
        self.name.is_some() || self.is_branch
    }

    /// Returns the names of the graphs that the path is in, the outermost first.
    pub(super) fn graphs(&self) -> Vec<Arc<str>> {
        self.name.as_ref().map_or_else(Vec::new, |name| name.graphs())
    }

    /// Continues the count of the longest of the paths that were derived from this one.
    pub(crate) fn join(&self, taken: impl IntoIterator<Item = usize>) {
        let taken = taken.into_iter().max().unwrap_or_default();
        let left = self.steps_left().saturating_sub(taken);
        self.steps_left.store(left, Ordering::Relaxed);
    }

    /// Returns the number of node executions that the path may still have.
    #[inline]
    pub(crate) fn steps_left(&self) -> usize {
        self.steps_left.load(Ordering::Relaxed)
    }

    /// Returns the name of a node of this path: prefixed with the names of the subgraphs that it is in, and followed by
    /// the index of its item in each `each` that it is in.
    #[inline]
    pub(crate) fn path<'n>(&self, node: &'n Arc<str>) -> Cow<'n, Arc<str>> {
        match &self.name {
            None => Cow::Borrowed(node),
            Some(name) => Cow::Owned(name.of(node).into()),
        }
    }

    /// Returns the name of the end of this path.
    pub(crate) fn end(&self) -> String {
        let end = if self.is_branch { "JOIN" } else { "END" };
        self.name.as_ref().map_or_else(|| end.to_owned(), |name| name.of(end))
    }

    /// Counts an execution of the node, unless the run is to stop before it. Returns the node's name on this path.
    #[inline]
    pub(crate) fn enter<'n>(&'n self, node: &'n Arc<str>) -> Result<NodePath<'n>, Box<Failure>> {
        self.check_signals(|| self.path(node).into_owned())?;
        self.count(node)
    }

    /// Counts an execution of the node. Returns the node's name on this path.
    #[inline]
    pub(crate) fn count<'n>(&'n self, node: &'n Arc<str>) -> Result<NodePath<'n>, Box<Failure>> {
        let node = self.node(node, None);
        self.count_node(node)?;
        Ok(NodePath::new(node))
    }

    /// Counts an execution of the node, as [`count`](Self::count) does.
    #[inline]
    pub(super) fn count_node(&self, node: NodeOnPath<'_>) -> Result<(), Box<Failure>> {
        let Some(left) = self.steps_left().checked_sub(1) else {
            return Err(Failure::committed(RunErrorKind::RecursionLimit {
                limit: self.limit.steps,
                graph: self.limit.graph.clone(),
                // The walk that contains the loop adds the nodes of the loop.
                nodes: Vec::new(),
                node: node.format(),
            }));
        };
        self.steps_left.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the node on this path, or on that of an item of an `each` on this path.
    #[inline]
    pub(super) fn node<'n>(&'n self, node: &'n Arc<str>, item: Option<usize>) -> NodeOnPath<'n> {
        NodeOnPath::new(node, self.name.as_ref(), item)
    }

    /// Fails if the run is to stop before the node `path`.
    #[inline]
    pub(crate) fn check_signals(&self, path: impl FnOnce() -> Arc<str>) -> Result<(), Box<Failure>> {
        match self.run.signals.check() {
            None => Ok(()),
            Some(interrupt) => Err(Failure::committed(interrupt.at(path()))),
        }
    }

    /// Returns the failure of a group itself, whose name this is: of its decision, of its items, or of all branches.
    #[allow(clippy::unnecessary_box_returns, reason = "a failure is passed on in its box")]
    pub(super) fn failure(&self, group: &Arc<str>, source: impl Into<NodeError>) -> Box<Failure> {
        Failure::committed(RunErrorKind::Node(NodeFailure::new(self.path(group).into_owned(), source)))
    }

    /// Writes an event at the start of a step, and returns a future that waits until the reader has caught up.
    #[inline]
    pub(super) fn emit<'e, K: FnOnce() -> EventKind>(&'e self, kind: K) -> impl Future<Output = ()> + use<'e, 'a, K> {
        self.run.sink.emit(&self.outer, kind)
    }

    /// Returns the writer for an attempt of the node `path`.
    pub(super) fn writer(&self, path: &NodePath<'_>) -> EventWriter {
        self.run.sink.writer(|| Arc::clone(path.name()), &self.outer)
    }

    /// Hands the durable tasks of the path to the app, because the steps that spawned them are committed. The end of the run
    /// waits until they are stored.
    #[inline]
    pub(crate) fn commit_outbox(&self) {
        let spawned = self.outbox.take();
        if let (false, Some(sink)) = (spawned.is_empty(), self.run.manager.durable_sink()) {
            self.run.storing.push(sink.store(spawned));
        }
    }

    /// Returns the path's task manager, labelled with this run and the node `path`. Durable tasks go to the outbox of the
    /// node's attempt.
    pub(crate) fn task_manager(&self, path: &Arc<str>, outbox: &AttemptOutbox) -> BackgroundTaskManager {
        let tasks = Arc::clone(self.run.tasks.get_or_init(Arc::default));
        let manager = self.manager.labelled(self.run.id, Arc::clone(path), self.run.sink.observer(), tasks);
        match self.run.manager.durable_sink() {
            None => manager,
            Some(after) => manager.with_outbox(outbox.open(after)),
        }
    }
}

/// Durable tasks of committed steps that are being stored.
#[derive(Default)]
pub(crate) struct Storing(OnceLock<Mutex<Vec<StoredTasks>>>);

/// A future that waits until durable tasks are stored.
type StoredTasks = BoxFuture<'static, Result<Vec<StoredTaskId>, SpawnError>>;

impl Storing {
    fn push(&self, stored: StoredTasks) {
        self.0.get_or_init(Mutex::default).lock().push(stored);
    }

    /// Waits until all of them are stored. Without durable tasks there is nothing to wait for.
    ///
    /// # Errors
    ///
    /// The first error, when each of them is stored or has failed.
    pub(crate) async fn wait(&self) -> Result<(), SpawnError> {
        let Some(storing) = self.0.get() else { return Ok(()) };
        let storing = std::mem::take(&mut *storing.lock());
        join_all(storing).await.into_iter().try_for_each(|stored| stored.map(drop))
    }
}

impl fmt::Debug for Storing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storing").finish_non_exhaustive()
    }
}

/// The durable tasks of a path, in the order in which its nodes succeeded. It is made for the first of them, so that a path
/// without durable tasks pays for one check.
#[derive(Debug, Default)]
pub(crate) struct PathOutbox(OnceLock<Mutex<Vec<NewTask>>>);

impl PathOutbox {
    /// Adds the tasks of a node that has succeeded, or of a path inside this one.
    #[inline]
    pub(crate) fn extend(&self, tasks: Vec<NewTask>) {
        if !tasks.is_empty() {
            self.0.get_or_init(Mutex::default).lock().extend(tasks);
        }
    }

    /// Returns the number of tasks, for a later [`truncate`](Self::truncate).
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.get().map_or(0, |tasks| tasks.lock().len())
    }

    /// Drops the tasks that were added since there were `len`, because the step that spawned them has failed.
    pub(crate) fn truncate(&self, len: usize) {
        if let Some(tasks) = self.0.get() {
            tasks.lock().truncate(len);
        }
    }

    /// Returns copies of all tasks.
    pub(crate) fn copy(&self) -> Vec<NewTask> {
        self.0.get().map(|tasks| tasks.lock().clone()).unwrap_or_default()
    }

    /// Takes all tasks.
    #[inline]
    pub(crate) fn take(&self) -> Vec<NewTask> {
        self.0.get().map(|tasks| std::mem::take(&mut *tasks.lock())).unwrap_or_default()
    }
}
