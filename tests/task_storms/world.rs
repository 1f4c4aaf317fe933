//! Carries out a program: the users' steps, and the code of the tasks.

use std::{
    convert::Infallible,
    fmt,
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    thread,
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager, CompiledGraph, NodeError, RetryPolicy, RunConfig, RunId, TaskContext, graph,
    graph::{Node, NodeContext},
    task::{OnDuplicateKey, SpawnError, TaskBuilder, TaskError, TaskHandle, TaskId, TaskInfo, TaskOutcome, TaskState},
};
use futures::{FutureExt, future::BoxFuture, poll};
use tokio::{
    task::unconstrained,
    time::{sleep, timeout},
};

use super::{
    ledger::{Answer, Capture, Inside, Ledger, quiet_panic},
    program::{Act, End, Ending, How, Job, Keep, Kind, NAMES, Program, Step, Target},
};
use crate::support::Trip;

/// The time that a blocking task sleeps for each unit of time, on the real clock.
const BLOCKING_UNIT: Duration = Duration::from_micros(20);

/// After so many units of time a run is dropped.
const LONGEST_RUN: u64 = 500;

/// The error of a task.
#[derive(Debug)]
pub(super) enum Failure {
    Plain,
    Hostile,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("no route"),
            Self::Hostile => quiet_panic("an error was formatted"),
        }
    }
}

impl std::error::Error for Failure {}

type Work = BoxFuture<'static, Result<usize, Failure>>;

/// The data that all users and tasks of a program share. It doesn't own the manager.
#[derive(Debug)]
pub(super) struct World {
    pub(super) ledger: Arc<Ledger>,
    /// The length of a unit of time.
    unit: Duration,
    /// True if the program runs on the paused clock of one thread, and that of its blocking tasks.
    pub(super) is_single_threaded: bool,
    /// True if nothing happens between two statements that don't await.
    pub(super) is_sequential: bool,
    /// The handles that are kept, with their rows.
    handles: Mutex<Vec<(usize, TaskHandle<usize>)>>,
    ids: Mutex<Vec<(usize, TaskId)>>,
    runs: Mutex<Vec<RunId>>,
    ending: Ending,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(program: &Program, unit: Duration, is_single_threaded: bool) -> Arc<Self> {
        Arc::new(Self {
            ledger: Arc::new(Ledger::new(program.limits)),
            unit,
            is_single_threaded,
            is_sequential: is_single_threaded && !program.blocks(),
            handles: Mutex::default(),
            ids: Mutex::default(),
            runs: Mutex::default(),
            ending: program.ending,
        })
    }

    pub(super) fn units(&self, units: u64) -> Duration {
        self.unit * u32::try_from(units).unwrap()
    }

    /// Builds the app that runs graphs with the manager's tasks. It owns the manager, as its other owners do.
    pub(super) fn app(self: &Arc<Self>, tasks: &BackgroundTaskManager) -> CompiledGraph<Trip> {
        let bound = match self.ending {
            Ending::CloseApp(bound) => self.units(bound),
            _ => Duration::from_hours(1),
        };
        graph! {
            type State = Trip;
            node SPAWN = (Spawns(Arc::clone(self)));
            SPAWN -> END;
            compile { shutdown_timeout: bound, task_manager: tasks.clone() }
        }
    }

    /// Takes the result of each kept handle that says it is finished.
    pub(super) fn harvest(&self) {
        let finished: Vec<_> = lock(&self.handles).extract_if(.., |(_, handle)| handle.is_finished()).collect();
        for (row, handle) in finished {
            match handle.now_or_never() {
                Some(result) => self.result(row, result),
                None => self.ledger.violated(format!("row {row} is finished, and its handle is not ready")),
            }
        }
    }

    /// Checks that a handle is ready, if it is kept, now that the end of its task was reported.
    pub(super) fn must_be_finished(&self, id: TaskId) {
        let is_finished =
            lock(&self.handles).iter().find(|(_, handle)| handle.id() == id).is_none_or(|(_, h)| h.is_finished());
        self.ledger.check(is_finished, || format!("the end of task {id} was reported, and its handle is not finished"));
    }

    pub(super) fn unfinished(&self) -> usize {
        lock(&self.handles).len()
    }

    fn result(&self, row: usize, result: Result<usize, TaskError>) {
        self.ledger.row(row, |row| row.result = Some(result.map_err(|error| error.outcome())));
    }

    /// Compares what can be read of the manager.
    pub(super) fn look(&self, tasks: &BackgroundTaskManager, max_running: Option<usize>) {
        let stats = tasks.stats();
        let running = stats.active - stats.delayed - stats.queued;
        let ledger = &self.ledger;
        ledger.check(max_running.is_none_or(|max| running <= max as u64), || format!("{running} run: {stats}"));
        let sum = stats.active + stats.outcomes.total();
        ledger.check(stats.spawned == sum, || format!("counted wrongly: {stats}"));
        let infos = tasks.task_info();
        ledger.check(infos.is_sorted_by_key(TaskInfo::id), || format!("not in order: {infos:?}"));
        for info in &infos {
            let waits = matches!(info.state(), TaskState::Delayed | TaskState::Queued);
            let is_torn = waits && (info.attempt() > 0 || info.progress().is_some());
            ledger.check(!is_torn, || format!("torn: {info:?}"));
        }
        if self.is_sequential {
            let counts = (infos.len() as u64, tasks.task_count() as u64);
            ledger.check(counts == (stats.active, stats.active), || format!("{counts:?} live: {stats}"));
            let ended = tasks.recently_finished().len() as u64;
            ledger.check(ended == stats.outcomes.total(), || format!("{ended} have ended: {stats}"));
        }
        self.harvest();
    }

    fn cancel(&self, tasks: &BackgroundTaskManager, target: Target) {
        fn pick<T: Clone>(from: &Mutex<Vec<T>>, any: usize) -> Option<T> {
            let from = lock(from);
            from.get(any.checked_rem(from.len())?).cloned()
        }
        match target {
            Target::Handle(any) => {
                let handles = lock(&self.handles);
                let handle = any.checked_rem(handles.len()).map(|any| &handles[any]);
                if let Some((row, handle)) = handle {
                    self.ledger.row(*row, |row| row.cancelled = true);
                    handle.cancel();
                }
            }
            Target::Id(any) => {
                if let Some((row, id)) = pick(&self.ids, any) {
                    self.ledger.row(row, |row| row.cancelled = true);
                    tasks.cancel(id);
                }
            }
            Target::Name(name) => {
                self.ledger.cancels().names[name] = true;
                tasks.cancel_named(NAMES[name]);
            }
            Target::Run(any) => {
                if let Some(run) = pick(&self.runs, any) {
                    let live = tasks.tasks_of_run(run).len();
                    let cancelled = tasks.cancel_tasks_of_run(run);
                    let is_same = cancelled == live || !self.is_sequential;
                    self.ledger.check(is_same, || format!("{live} of the run live, {cancelled} were cancelled"));
                }
            }
        }
    }

    async fn cancel_all(&self, tasks: &BackgroundTaskManager) {
        self.ledger.cancels().all = true;
        let report = tasks.cancel_all().await;
        let is_possible = !self.is_sequential
            || report.still_running.iter().all(|info| self.rows_job(info.context()).is_some_and(|job| blocks(&job)));
        self.ledger.check(is_possible, || format!("after cancel_all: {report}"));
    }

    /// The job of the row that a task's context names.
    fn rows_job<'a>(&self, context: impl Iterator<Item = (&'a str, &'a serde_json::Value)>) -> Option<Job> {
        Some(self.ledger.rows()[row_of(context)?].job.clone())
    }

    /// Follows the steps of a user.
    pub(super) async fn user(
        self: Arc<Self>,
        tasks: BackgroundTaskManager,
        app: CompiledGraph<Trip>,
        steps: Vec<Step>,
        max_running: Option<usize>,
    ) {
        for step in steps {
            match step {
                Step::Spawn(job, how) => drop(self.spawn(&tasks, &job, how).await),
                Step::Sleep(time) => sleep(self.units(time)).await,
                Step::Cancel(target) => self.cancel(&tasks, target),
                Step::CancelAll => self.cancel_all(&tasks).await,
                Step::Wait(bound) => drop(tasks.wait_for_all(Some(self.units(bound))).await),
                Step::Await(any, time) => {
                    let kept = {
                        let mut handles = lock(&self.handles);
                        any.checked_rem(handles.len()).map(|any| handles.swap_remove(any))
                    };
                    if let Some((row, mut handle)) = kept {
                        match timeout(self.units(time), &mut handle).await {
                            Ok(result) => self.result(row, result),
                            Err(_) => lock(&self.handles).push((row, handle)),
                        }
                    }
                }
                Step::DropHandle(any) => {
                    let dropped = {
                        let mut handles = lock(&self.handles);
                        let dropped = any.checked_rem(handles.len()).map(|any| handles.swap_remove(any));
                        if let Some((row, _)) = &dropped {
                            self.ledger.row(*row, |row| row.dropped = true);
                        }
                        dropped
                    };
                    drop(dropped);
                }
                Step::Run { jobs, length, dropped_after } => {
                    self.ledger.cancels().runs = true;
                    let id = RunId::new();
                    lock(&self.runs).push(id);
                    let trip = Trip { count: u32::try_from(length).unwrap(), ..Trip::default() };
                    let config = RunConfig::new().with_run_id(id).with_service(Jobs(jobs));
                    let mut run = Box::pin(AssertUnwindSafe(app.invoke(trip, config)).catch_unwind());
                    // A run that waits for its tasks may wait for ever.
                    let ended = timeout(self.units(dropped_after.unwrap_or(LONGEST_RUN)), run.as_mut()).await;
                    let dropped = catch_unwind(AssertUnwindSafe(|| drop(run)));
                    let is_whole = !matches!(ended, Ok(Err(_))) && dropped.is_ok();
                    self.ledger.check(is_whole, || "a run panicked".to_owned());
                }
            }
            self.look(&tasks, max_running);
        }
    }

    /// Checks that the manager is closed.
    pub(super) async fn must_refuse(self: &Arc<Self>, tasks: &BackgroundTaskManager) {
        let row = self.spawn(tasks, &Job::plain(Vec::new()), How::Spawn).await;
        let answer = self.ledger.rows()[row].answer.clone();
        let is_refused = answer == Answer::Refused(SpawnError::Closed);
        self.ledger.check(is_refused, || format!("after the close row {row} is {answer:?}"));
    }

    /// Returns whether a spawn needs no free slot, because it replaces a task or is refused because of it.
    fn needs_no_slot(&self, tasks: &BackgroundTaskManager, job: &Job) -> bool {
        let is_live = |info: &TaskInfo| info.key() == key(job).as_deref() && info.state() != TaskState::Cancelling;
        self.is_sequential
            && matches!(job.key, Some((_, OnDuplicateKey::Replace | OnDuplicateKey::Skip)))
            && tasks.task_info().iter().any(is_live)
    }

    /// Spawns a task, and returns its row.
    pub(super) async fn spawn(self: &Arc<Self>, tasks: &BackgroundTaskManager, job: &Job, how: How) -> usize {
        let row = self.ledger.open(job, self.units(job.delay.unwrap_or(0)));
        let capture = Capture::new(&self.ledger, row);
        let world = Arc::clone(self);
        let job = job.clone();
        match job.kind {
            Kind::Plain => {
                let work = {
                    let job = job.clone();
                    async move {
                        let _capture = capture;
                        let inside = world.ledger.enter(row);
                        world.code(row, job.acts, job.end, inside).await
                    }
                };
                self.launch(tasks, tasks.create_task(work), row, &job, how).await;
            }
            Kind::Context { listens } => {
                let work = {
                    let job = job.clone();
                    move |task: TaskContext| async move {
                        let _capture = capture;
                        let inside = world.ledger.enter(row);
                        let code = Arc::clone(&world).code(row, job.acts, job.end, inside);
                        let Some(reacts_in) = listens else {
                            return code.await;
                        };
                        tokio::select! {
                            biased;
                            () = task.cancelled() => {
                                sleep(world.units(reacts_in)).await;
                                world.ledger.row(row, |row| row.returned = Some(TaskOutcome::Completed));
                                Ok(row)
                            }
                            result = code => result,
                        }
                    }
                };
                self.launch(tasks, tasks.create_task_with_context(work), row, &job, how).await;
            }
            Kind::Blocking => {
                let work = {
                    let job = job.clone();
                    move |task: TaskContext| {
                        let _capture = capture;
                        let _inside = world.ledger.enter(row);
                        world.blocking_code(row, &job, &task)
                    }
                };
                self.launch(tasks, tasks.create_blocking_task(work), row, &job, how).await;
            }
            Kind::Retrying { retries, fails, attempt_timeout, backoff } => {
                let work = {
                    let job = job.clone();
                    move |attempt| {
                        // The closure has a capture, and each attempt has one.
                        let _ = &capture;
                        let (world, job) = (Arc::clone(&world), job.clone());
                        let capture = Capture::new(&world.ledger, row);
                        async move {
                            let _capture = capture;
                            let inside = world.ledger.enter(row);
                            let end = if attempt <= fails { End::Fail } else { job.end };
                            world.code(row, job.acts, end, inside).await
                        }
                    }
                };
                let policy = RetryPolicy::new(retries).backoff(self.units(backoff));
                let mut builder = tasks.create_retrying_task(work).retry(policy);
                if let Some(timeout) = attempt_timeout {
                    builder = builder.attempt_timeout(self.units(timeout));
                }
                self.launch(tasks, builder, row, &job, how).await;
            }
        }
        row
    }

    /// Sets the options of the builder, spawns it, and notes the answer.
    async fn launch<W: Send>(
        &self,
        tasks: &BackgroundTaskManager,
        mut builder: TaskBuilder<'_, usize, W>,
        row: usize,
        job: &Job,
        how: How,
    ) {
        builder = builder.name(NAMES[job.name]).context("row", row as u64).on_run_end(job.on_run_end);
        if let Some((key, (_, on_duplicate))) = key(job).zip(job.key) {
            builder = builder.key(key, on_duplicate);
        }
        if let Some(delay) = job.delay {
            builder = builder.delay(self.units(delay)).on_close(job.on_close);
        }
        if let Some(timeout) = job.timeout {
            builder = builder.timeout(self.units(timeout));
        }
        if let Some(timeout) = job.queue_timeout {
            builder = builder.queue_timeout(self.units(timeout));
        }
        if let Some(timeout) = job.idle_timeout {
            builder = builder.idle_timeout(self.units(timeout));
        }
        if let Some(grace) = job.grace {
            builder = builder.grace_period(self.units(grace));
        }
        if job.cancel_last {
            builder = builder.cancel_last();
        }
        let spawned = match how {
            How::Spawn => Some(builder.spawn()),
            How::Wait(_) | How::PolledOnce => {
                let needs_no_slot = self.needs_no_slot(tasks, job);
                let mut spawn = pin!(builder.spawn_wait());
                match (poll!(unconstrained(spawn.as_mut())), how) {
                    (Poll::Ready(spawned), _) => Some(spawned),
                    (Poll::Pending, how) => {
                        self.ledger.check(!needs_no_slot, || format!("row {row} waits, and needs no slot"));
                        match how {
                            How::Wait(bound) => timeout(self.units(bound), spawn).await.ok(),
                            _ => None,
                        }
                    }
                }
            }
        };
        let answer = match spawned {
            Some(Ok(handle)) => {
                let id = handle.id();
                lock(&self.ids).push((row, id));
                match job.keep {
                    Keep::Handle => lock(&self.handles).push((row, handle)),
                    Keep::AbortOnDrop => lock(&self.handles).push((row, handle.abort_on_drop())),
                    Keep::Nothing => drop(handle),
                }
                Answer::Accepted(id)
            }
            Some(Err(why)) => {
                let is_possible = matches!(how, How::Spawn) || why != SpawnError::Full;
                self.ledger.check(is_possible, || format!("spawn_wait refused row {row} as full"));
                Answer::Refused(why)
            }
            None => Answer::None,
        };
        self.ledger.answered(row, answer);
    }

    /// The code of a task that is a future.
    fn code(self: Arc<Self>, row: usize, acts: Vec<Act>, end: End, inside: Inside) -> Work {
        Box::pin(async move {
            let _inside = inside;
            for act in acts {
                // The context is that of this task, whatever kind of task it is.
                let task = TaskContext::current().expect("this runs in a task");
                match act {
                    Act::Sleep(time) => sleep(self.units(time)).await,
                    Act::Yield => tokio::task::yield_now().await,
                    Act::Progress => task.progress(0.5, "half-way"),
                    Act::Heartbeat => task.heartbeat(),
                    Act::Child(job, how) => drop(self.spawn(task.manager(), &job, how).await),
                    Act::Cancel(target) => self.cancel(task.manager(), target),
                    Act::CancelAll => self.cancel_all(task.manager()).await,
                    Act::Wait(bound) => drop(task.manager().wait_for_all(Some(self.units(bound))).await),
                    Act::Close(bound) => drop(task.manager().close(Some(self.units(bound))).await),
                }
            }
            let returned = match end {
                End::Complete => TaskOutcome::Completed,
                End::Fail | End::FailHostile => TaskOutcome::Failed,
                End::Panic => TaskOutcome::Panicked,
                End::Never => pending().await,
            };
            self.ledger.row(row, |row| row.returned = Some(returned));
            match end {
                End::Fail => Err(Failure::Plain),
                End::FailHostile => Err(Failure::Hostile),
                End::Panic => quiet_panic("boom"),
                End::Complete | End::Never => Ok(row),
            }
        })
    }

    /// The code of a blocking task. It takes real time, and so not much of it.
    fn blocking_code(self: &Arc<Self>, row: usize, job: &Job, task: &TaskContext) -> Result<usize, Failure> {
        for act in &job.acts {
            match act {
                Act::Sleep(time) | Act::Wait(time) => {
                    for _ in (0..*time).take_while(|_| !task.is_cancelled()) {
                        thread::sleep(BLOCKING_UNIT);
                    }
                }
                Act::Yield | Act::CancelAll | Act::Close(_) => thread::yield_now(),
                Act::Progress => task.progress(0.5, "half-way"),
                Act::Heartbeat => task.heartbeat(),
                Act::Child(job, _) => {
                    // A spawn that doesn't wait is ready at once.
                    let _ = self.spawn(task.manager(), job, How::Spawn).now_or_never();
                }
                Act::Cancel(target) => self.cancel(task.manager(), *target),
            }
        }
        let returned = match job.end {
            End::Complete | End::Never => TaskOutcome::Completed,
            End::Fail | End::FailHostile => TaskOutcome::Failed,
            End::Panic => TaskOutcome::Panicked,
        };
        self.ledger.row(row, |row| row.returned = Some(returned));
        match job.end {
            End::Complete | End::Never => Ok(row),
            End::Fail => Err(Failure::Plain),
            End::FailHostile => Err(Failure::Hostile),
            End::Panic => quiet_panic("boom"),
        }
    }
}

/// The key of a task. It is of one name, so that it makes no difference whether a name is the scope of its keys.
fn key(job: &Job) -> Option<String> {
    job.key.map(|(key, _)| format!("{}-{key}", NAMES[job.name]))
}

fn blocks(job: &Job) -> bool {
    matches!(job.kind, Kind::Blocking)
}

/// The row that a task's context names.
pub(super) fn row_of<'a>(mut context: impl Iterator<Item = (&'a str, &'a serde_json::Value)>) -> Option<usize> {
    let row = context.find(|(key, _)| *key == "row")?.1.as_u64()?;
    usize::try_from(row).ok()
}

/// A task that hands out its manager, which owns nothing.
pub(super) async fn observer(tasks: &BackgroundTaskManager) -> BackgroundTaskManager {
    let hand_out = |task: TaskContext| async move { Ok::<_, Infallible>(task.manager().clone()) };
    tasks.create_task_with_context(hand_out).name("observer").spawn().unwrap().await.unwrap()
}

/// The tasks that the node of a run spawns.
struct Jobs(Vec<Job>);

/// A node that spawns the jobs of its run.
struct Spawns(Arc<World>);

impl Node<Trip> for Spawns {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, Trip>) -> Result<(), NodeError> {
        let tasks = cx.task_manager();
        for job in cx.config.service::<Jobs>().into_iter().flat_map(|jobs| &jobs.0) {
            self.0.spawn(&tasks, job, How::Spawn).await;
        }
        sleep(self.0.units(u64::from(cx.state.count))).await;
        Ok(())
    }
}
