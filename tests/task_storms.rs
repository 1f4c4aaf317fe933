//! Storms of tasks: random programs over all options of the manager and of its tasks, followed by a check of every
//! invariant.
//!
//! A program has one or more users, which spawn tasks of each kind in each way, cancel them in each way, drop handles
//! and futures, run graphs, and wait; its tasks spawn and cancel others, panic in their code and in their destructors,
//! and return errors that can't be formatted. A subscriber of `tracing` panics at times, and readers of events are fast,
//! slow and late. In the end the manager is closed in one of several ways, while the other users go on. The storms run
//! on the paused clock of a single thread, where programs shrink, and on four threads and the real clock, where nothing
//! that is checked depends on how long anything takes.
//!
//! A storm has no model: it doesn't know what has to happen, only what can't. The other random tests complement it:
//! `task_model` knows when each of some single tasks ends and how, `task_queue_model` knows who waits, runs and makes
//! room for whom. The program `soak` of `benches` is about numbers: a million tasks, each of one kind, and no memory
//! that grows.
//!
//! `STORMS=50 cargo nextest run -p agentflow-tests storm` runs fifty times as many programs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager,
    task::{CloseReport, FinishedTask, OutcomeCounts, TaskEventStream, TaskManagerOptions, TaskOutcome},
};
use futures::{FutureExt, future::join_all};
use proptest::prelude::*;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::{Dispatch, dispatcher};

use self::{
    checks::Known,
    observers::{Reading, Recorder, read},
    program::{Act, Ending, How, Job, LIMITED, Limits, MAX_GRACE, NAMES, Program, Step, program},
    world::{World, observer, row_of},
};
use crate::support::settle;

mod checks;
mod ledger;
mod observers;
mod program;
mod world;

// What the storms find in the task manager and is known. Each constant turns the check on, once it holds.

/// Events of different tasks come in the order in which they became true.
const EVENTS_IN_TRUE_ORDER: bool = true;

/// The time that a program on the real clock may take before the test fails rather than hangs.
const STUCK: Duration = Duration::from_mins(2);

fn cases(few: u32) -> ProptestConfig {
    let times = std::env::var("STORMS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    ProptestConfig {
        cases: few * times,
        failure_persistence: None,
        max_shrink_iters: 4_000,
        // A minute, in milliseconds: programs that get stuck take long.
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(192))]

    #[test]
    fn a_storm_on_the_paused_clock_leaves_every_report_true(program in program(2, 14)) {
        storm(&program, true);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn a_storm_on_four_threads_leaves_every_report_true(program in program(4, 14)) {
        storm(&program, false);
    }
}

fn options(limits: Limits, world: &World) -> TaskManagerOptions {
    let mut options = TaskManagerOptions::new()
        .history(1 << 20)
        .event_buffer(limits.event_buffer)
        .grace_period(world.units(limits.grace))
        .on_full(limits.on_full);
    if let Some(max) = limits.max_tasks {
        options = options.max_tasks(max);
    }
    if let Some(max) = limits.max_running {
        options = options.max_running(max);
    }
    if let Some(max) = limits.max_limited {
        options = options.max_running_named(NAMES[LIMITED], max);
    }
    if let Some(timeout) = limits.queue_timeout {
        options = options.queue_timeout(world.units(timeout));
    }
    options
}

/// Runs the program and checks what is known of it afterwards.
fn storm(program: &Program, is_single_threaded: bool) {
    let recorder = Recorder::new(program.panics_every);
    let dispatch = Dispatch::new(recorder.clone());
    let runtime = runtime(is_single_threaded, &dispatch);
    let unit = Duration::from_micros(if is_single_threaded { 1_000 } else { 100 });
    let world = World::new(program, unit, is_single_threaded);
    let (observer, readings) = dispatcher::with_default(&dispatch, || {
        // On the paused clock no time passes until then unless all wait for ever.
        let limit = if is_single_threaded { Duration::from_secs(1 << 20) } else { STUCK };
        let played = runtime.block_on(async { timeout(limit, play(program, &world)).await });
        let Ok(played) = played else {
            runtime.shutdown_background();
            panic!("stuck: {:#?}", world.ledger);
        };
        finish(played, &world, runtime)
    });
    let rows = std::mem::take(&mut *world.ledger.rows());
    let cancels = *world.ledger.cancels();
    let known = Known { program, rows, cancels, manager: &observer, lines: recorder.lines(), readings };
    let faults = [world.ledger.violations(), known.faults()].concat();
    assert!(faults.is_empty(), "{faults:#?}");
}

fn runtime(is_single_threaded: bool, dispatch: &Dispatch) -> Runtime {
    let mut builder = if is_single_threaded { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let dispatch = dispatch.clone();
    // The runtime's threads log to the recorder for as long as they live.
    builder.on_thread_start(move || std::mem::forget(dispatcher::set_default(&dispatch)));
    if is_single_threaded {
        builder.start_paused(true);
    } else {
        builder.worker_threads(4);
    }
    builder.enable_time().build().unwrap()
}

/// The objects that are left after the last step.
struct Played {
    observer: BackgroundTaskManager,
    /// Owns the manager, if that is to see the end of its runtime.
    owner: Option<BackgroundTaskManager>,
    readers: Vec<JoinHandle<Reading>>,
    /// A stream that was not read yet.
    late: TaskEventStream,
    /// A thread that looks at the manager all the time.
    looker: Option<Looker>,
}

/// A thread that looks at a manager until this is dropped.
struct Looker {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Looker {
    fn new(world: &Arc<World>, tasks: &BackgroundTaskManager, max_running: Option<usize>) -> Self {
        let (world, tasks, is_over) = (Arc::clone(world), tasks.clone(), Arc::new(AtomicBool::new(false)));
        let its = Arc::clone(&is_over);
        let look = move || {
            // Relaxed: nothing else is handed over by it.
            while !its.load(Ordering::Relaxed) {
                world.look(&tasks, max_running);
                thread::yield_now();
            }
        };
        Self { is_over, thread: Some(thread::spawn(look)) }
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("a look at the manager panicked");
        }
    }
}

async fn play(program: &Program, world: &Arc<World>) -> Played {
    let limits = program.limits;
    let tasks = BackgroundTaskManager::with_options(options(limits, world));
    let observer = observer(&tasks).await;
    let reader = |pause| tokio::spawn(read(Arc::clone(world), tasks.events(), pause));
    let readers = vec![reader(None), reader(Some(world.units(7)))];
    let late = tasks.events();
    // On one thread the users look, so that a program is the same each time.
    let looker = (!world.is_single_threaded).then(|| Looker::new(world, &observer, limits.max_running));
    let app = world.app(&tasks);
    let user = |steps: &Vec<Step>| {
        tokio::spawn(Arc::clone(world).user(tasks.clone(), app.clone(), steps.clone(), limits.max_running))
    };
    let mut users: Vec<_> = program.users.iter().map(user).collect();
    users.remove(0).await.unwrap();

    world.ledger.cancels().closing = true;
    let before = observer.stats().outcomes;
    let mut closing = Closing { world, tasks: &observer, before: Some(before) };
    match program.ending {
        Ending::Close(bound) => closing.close(bound).await,
        Ending::CloseTwice { first, second, dropped_after } => {
            let first = async {
                match dropped_after {
                    Some(time) => drop(timeout(world.units(time), closing.close(first)).await),
                    None => closing.close(first).await,
                }
            };
            tokio::join!(first, closing.close(second));
        }
        Ending::CloseInTask(bound) => {
            closing.before = None;
            world.spawn(&tasks, &Job::plain(vec![Act::Close(bound)]), How::Spawn).await;
            settle().await;
            closing.close(bound).await;
        }
        Ending::CloseApp(bound) => {
            let began = Instant::now();
            closing.check(&app.aclose().await.tasks, bound, began);
        }
        Ending::StopApp => {
            let began = Instant::now();
            closing.check(&app.stop().await.tasks, 0, began);
        }
        // The other users own the manager too: its tasks are cancelled when the last of them is done.
        Ending::DropManager => {}
        Ending::ShutDownRuntime => return Played { observer, owner: Some(tasks), readers, late, looker },
    }
    drop((tasks, app));
    for user in join_all(users).await {
        user.unwrap();
    }
    // What blocks its thread may go on.
    observer.wait_for_all(None).await.unwrap();
    world.must_refuse(&observer).await;
    Played { observer, owner: None, readers, late, looker }
}

/// A close that is about to begin.
struct Closing<'a> {
    world: &'a Arc<World>,
    tasks: &'a BackgroundTaskManager,
    /// The ends before it, if they are known.
    before: Option<OutcomeCounts>,
}

impl Closing<'_> {
    async fn close(&self, bound: u64) {
        let began = Instant::now();
        let report = self.tasks.close(Some(self.world.units(bound))).await;
        self.check(&report, bound, began);
        self.world.must_refuse(self.tasks).await;
    }

    /// Checks the report as of the moment when it is given.
    fn check(&self, report: &CloseReport, bound: u64, began: Instant) {
        let Self { world, tasks, before } = self;
        let ledger = &world.ledger;
        let is_cut_off = |outcome| matches!(outcome, TaskOutcome::Cancelled | TaskOutcome::Aborted);
        ledger.check(report.unfinished.iter().all(|end| is_cut_off(end.outcome())), || format!("cut off: {report}"));
        let ended: BTreeMap<_, _> = tasks.recently_finished().iter().map(|end| (end.id(), end.outcome())).collect();
        let is_known = |end: &FinishedTask| ended.get(&end.id()) == Some(&end.outcome());
        ledger.check(report.unfinished.iter().all(is_known), || format!("not in the records: {report}"));
        if !world.is_single_threaded {
            return;
        }
        // Twice, for the tasks that are cancelled last.
        let most = world.units(bound) + 2 * (world.units(MAX_GRACE) + Duration::from_millis(100));
        let elapsed = began.elapsed();
        ledger.check(elapsed <= most, || format!("the close took {elapsed:?}, which is more than {most:?}"));
        if !world.is_sequential {
            return;
        }
        let now = before.map_or(report.outcomes, |before| tasks.stats().outcomes - before);
        ledger.check(report.outcomes == now, || format!("{now:?} have ended: {report:?}"));
        let rows = ledger.rows();
        for info in &report.still_running {
            let is_possible = row_of(info.context())
                .is_some_and(|row| rows[row].is_blocking() || matches!(rows[row].job.acts[..], [Act::Close(_)]));
            ledger.check(is_possible, || format!("still runs: {info}"));
        }
        for (number, row) in rows.iter().enumerate() {
            let lives = report.still_running.iter().any(|info| Some(info.id()) == row.id());
            let has_gone = row.id().is_none() || row.captures == 0 || lives;
            ledger.check(has_gone, || format!("row {number} lives after the close: {row:?}"));
        }
    }
}

/// Shuts the runtime down and reads what was not read yet.
fn finish(played: Played, world: &Arc<World>, runtime: Runtime) -> (BackgroundTaskManager, Vec<Reading>) {
    let Played { observer, owner, readers, mut late, looker } = played;
    let mut readings = Vec::new();
    if owner.is_none() {
        let read = runtime.block_on(async { timeout(STUCK, join_all(readers)).await.expect("a stream has no end") });
        readings.extend(read.into_iter().map(Result::unwrap));
    }
    drop(runtime);
    if let Some(owner) = owner {
        world.must_refuse(&owner).now_or_never().expect("a spawn doesn't wait");
    }
    drop(looker);
    world.harvest();
    let unfinished = world.unfinished();
    world.ledger.check(unfinished == 0, || format!("{unfinished} handles are not finished"));
    let mut reading = Reading::default();
    reading.drain(&mut late);
    readings.push(reading);
    (observer, readings)
}
