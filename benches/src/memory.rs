//! Bytes of a waiting task, and allocations of steps and tasks.

use std::hint::black_box;

use agentflow::BackgroundTaskManager;
use futures::FutureExt;
use tokio::{runtime::Runtime, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Bar, Row, Unit,
    allocator::counted,
    cancel::Idlers,
    chain, runtime,
    spawn::{Body, TIMEOUT, with_manager, with_tokio, with_tracker},
};

/// The target for the bytes of a waiting task beside its future.
const TASK_BYTES: f64 = 600.0;

/// The target for the allocations of a step: its future.
const STEP_ALLOCATIONS: f64 = 1.0;

/// The number of tasks that a mean is taken of.
const TASKS: u64 = 4_000;

/// Returns the rows of all counts.
#[must_use]
pub fn rows() -> Vec<Row> {
    [task_bytes(), step_allocations(), task_allocations()].into_iter().flatten().collect()
}

/// A future of some size that waits for ever.
async fn sized<const SIZE: usize>(idlers: Idlers) {
    let bytes = [0_u8; SIZE];
    idlers.one().await;
    black_box(&bytes);
}

/// Returns the bytes of a waiting task, spawned with `spawn`, beyond its future.
fn bytes_beyond<const SIZE: usize>(spawn: impl Fn(&Spawners, Idlers)) -> f64 {
    let runtime = runtime::current_thread();
    let idlers = Idlers::default();
    let (allocated, _spawners) = counted(|| {
        runtime.block_on(async {
            let spawners = Spawners::default();
            for _ in 0..TASKS {
                spawn(&spawners, idlers.clone());
            }
            idlers.all_wait(TASKS).await;
            spawners
        })
    });
    mean(allocated.bytes, TASKS) - mean(size_of_val(&sized::<SIZE>(idlers)), 1)
}

/// The managers and trackers that spawn the tasks.
#[derive(Debug, Default)]
struct Spawners {
    manager: BackgroundTaskManager,
    tracker: TaskTracker,
    token: CancellationToken,
}

/// Computes the mean over futures of several sizes, because tokio rounds a task's size up to 128 bytes.
macro_rules! mean_bytes {
    (|$spawners:ident, $future:ident| $spawn:expr) => {{
        macro_rules! of_size {
            ($size:literal) => {
                bytes_beyond::<$size>(|$spawners, idlers| {
                    let $future = sized::<$size>(idlers);
                    drop($spawn);
                })
            };
        }
        let sizes = [
            of_size!(128),
            of_size!(144),
            of_size!(160),
            of_size!(176),
            of_size!(192),
            of_size!(208),
            of_size!(224),
            of_size!(240),
        ];
        sizes.iter().sum::<f64>() / mean(sizes.len(), 1)
    }};
}

fn task_bytes() -> Vec<Row> {
    let row = |with: &str, floor_is: &str, floor, ours| Row {
        what: format!("bytes of a waiting task{with}"),
        floor_is: floor_is.to_owned(),
        unit: Unit::Bytes,
        floor,
        ours,
        bar: Some(Bar::AtMost(TASK_BYTES)),
    };
    vec![
        row(
            "",
            "TaskTracker",
            mean_bytes!(|with, future| with.tracker.spawn(future)),
            mean_bytes!(|with, future| with.manager.create_task(future).name("idle").spawn()),
        ),
        row(
            ", timeout",
            "TaskTracker, timeout",
            mean_bytes!(|with, future| with.tracker.spawn(timeout(TIMEOUT, future))),
            mean_bytes!(|with, future| with.manager.create_task(future).name("idle").timeout(TIMEOUT).spawn()),
        ),
        row(
            ", token",
            "TaskTracker, child token",
            mean_bytes!(|with, future| {
                let token = with.token.child_token();
                // An `async` block would hold the future twice: as a captured value and as the awaited one.
                with.tracker.spawn(future.map(move |()| drop(token)))
            }),
            mean_bytes!(|with, future| {
                let listening = |task| future.map(move |()| drop(task));
                with.manager.create_task_with_context(listening).name("idle").spawn()
            }),
        ),
    ]
}

fn step_allocations() -> Vec<Row> {
    let runtime = runtime::current_thread();
    // Both chains are long enough to yield once, for which tokio allocates a list.
    let (short, long) = (1_000, 2_000);
    let ours = |nodes| {
        let app = chain::chain(nodes);
        chain::run_once(&runtime, &app);
        counted(|| chain::run_once(&runtime, &app)).0.count
    };
    let by_hand = |nodes| counted(|| runtime.block_on(chain::by_hand(&mut chain::Notebook::default(), nodes))).0.count;
    let row = |what: &str, floor, ours, bar| Row {
        what: format!("allocations of {what}"),
        floor_is: "calls by hand".to_owned(),
        unit: Unit::Allocations,
        floor,
        ours,
        bar,
    };
    vec![
        row(
            "a step",
            mean(by_hand(long) - by_hand(short), long - short),
            mean(ours(long) - ours(short), long - short),
            Some(Bar::Above(STEP_ALLOCATIONS)),
        ),
        row("a run of 1 node", mean(by_hand(1), 1), mean(ours(1), 1), None),
    ]
}

/// Returns the allocations per task, after all reused collections have grown to their size.
fn per_task<F: Future<Output = ()>>(runtime: &Runtime, tasks: impl Fn() -> F) -> f64 {
    runtime.block_on(tasks());
    mean(counted(|| runtime.block_on(tasks())).0.count, TASKS)
}

fn task_allocations() -> Vec<Row> {
    let runtime = runtime::current_thread();
    let manager = BackgroundTaskManager::new();
    let ours = |body, bound| per_task(&runtime, || with_manager(manager.clone(), TASKS, body, bound));
    let row = |what: &str, floor_is: &str, floor, ours| Row {
        what: format!("allocations of a task{what}"),
        floor_is: floor_is.to_owned(),
        unit: Unit::Allocations,
        floor,
        ours,
        bar: None,
    };
    let plain = || Body::Ready.run();
    let waits = || timeout(TIMEOUT, Body::Waits.run());
    vec![
        row("", "tokio::spawn", per_task(&runtime, || with_tokio(TASKS, plain)), ours(Body::Ready, None)),
        row("", "TaskTracker", per_task(&runtime, || with_tracker(TASKS, plain)), ours(Body::Ready, None)),
        row(
            ", waiting once, timeout",
            "TaskTracker, timeout",
            per_task(&runtime, || with_tracker(TASKS, waits)),
            ours(Body::Waits, Some(TIMEOUT)),
        ),
    ]
}

/// Divides two numbers.
#[allow(clippy::cast_precision_loss, reason = "numbers of a bench have few digits")]
fn mean(number: impl TryInto<i64>, of: u64) -> f64 {
    number.try_into().unwrap_or_default() as f64 / of as f64
}
