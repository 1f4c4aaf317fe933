//! Background tasks from their spawn to their end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agentflow::BackgroundTaskManager;
use tokio::{
    runtime::Runtime,
    task::{JoinSet, yield_now},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{Bar, Contest, Scale, Side, row::thousands, runtime};

/// The target for the cost of a task, as a ratio to a tracked tokio task with a timeout.
const TASK: f64 = 1.5;

/// A timeout that never fires.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The work of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// It completes at its first poll.
    Ready,
    /// It waits once, so that its timer, if it has one, is registered.
    Waits,
}

impl Body {
    pub(crate) async fn run(self) {
        if self == Self::Waits {
            yield_now().await;
        }
    }
}

pub(crate) async fn with_tokio<F>(tasks: u64, make: impl Fn() -> F)
where
    F: Future<Output: Send> + Send + 'static,
{
    let handles: Vec<_> = (0..tasks).map(|_| tokio::spawn(make())).collect();
    for handle in handles {
        handle.await.expect("it doesn't panic");
    }
}

pub(crate) async fn with_tracker<F>(tasks: u64, make: impl Fn() -> F)
where
    F: Future<Output: Send> + Send + 'static,
{
    let tracker = TaskTracker::new();
    for _ in 0..tasks {
        tracker.spawn(make());
    }
    tracker.close();
    tracker.wait().await;
}

pub(crate) async fn with_set<F>(tasks: u64, make: impl Fn() -> F)
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut set = JoinSet::new();
    for _ in 0..tasks {
        set.spawn(make());
    }
    while let Some(ended) = set.join_next().await {
        ended.expect("it doesn't panic");
    }
}

pub(crate) async fn with_manager(manager: BackgroundTaskManager, tasks: u64, body: Body, timeout: Option<Duration>) {
    for _ in 0..tasks {
        let task = manager.create_task(body.run()).name("work");
        let task = match timeout {
            Some(timeout) => task.timeout(timeout),
            None => task,
        };
        task.spawn().expect("the manager is open");
    }
    manager.wait_for_all(None).await.expect("there is no bound");
}

/// Runs `work` on a worker thread, where nodes and request handlers spawn their tasks.
pub(crate) fn on_worker<F>(runtime: &Arc<Runtime>, name: &str, work: impl Fn() -> F + 'static) -> Side
where
    F: Future<Output = Duration> + Send + 'static,
{
    let runtime = Arc::clone(runtime);
    Side::new(name, move |iterations| {
        (0..iterations).map(|_| runtime.block_on(runtime.spawn(work())).expect("it doesn't panic")).sum()
    })
}

async fn timed(work: impl Future<Output = ()>) -> Duration {
    let began = Instant::now();
    work.await;
    began.elapsed()
}

fn contest(workers: usize, tasks: u64, body: Body, bound: Option<Duration>) -> Contest {
    let runtime = Arc::new(runtime::workers(workers));
    let manager = BackgroundTaskManager::new();
    let ours = on_worker(&runtime, "manager", move || timed(with_manager(manager.clone(), tasks, body, bound)));
    let bar = Some(Bar::Times(TASK));
    let floors = match bound {
        None => vec![
            (on_worker(&runtime, "tokio::spawn", move || timed(with_tokio(tasks, move || body.run()))), None),
            (on_worker(&runtime, "TaskTracker", move || timed(with_tracker(tasks, move || body.run()))), None),
            (on_worker(&runtime, "JoinSet", move || timed(with_set(tasks, move || body.run()))), None),
        ],
        Some(bound) => {
            let make = move || timeout(bound, body.run());
            vec![
                (on_worker(&runtime, "tokio::spawn, timeout", move || timed(with_tokio(tasks, make))), None),
                (on_worker(&runtime, "TaskTracker, timeout", move || timed(with_tracker(tasks, make))), bar),
                (on_worker(&runtime, "JoinSet, timeout", move || timed(with_set(tasks, make))), None),
            ]
        }
    };
    let waits = match body {
        Body::Ready => "",
        Body::Waits => ", waiting once",
    };
    let limit = bound.map_or("", |_| ", timeout");
    let plural = if workers == 1 { "" } else { "s" };
    Contest {
        name: format!("{} tasks{waits}{limit}, {workers} worker{plural}", thousands(tasks)),
        per: tasks,
        ours,
        floors,
    }
}

/// Returns the contests of tasks beside tokio's ways to spawn them.
#[must_use]
pub fn contests(scale: Scale) -> Vec<Contest> {
    let bodies = [(Body::Ready, None), (Body::Ready, Some(TIMEOUT)), (Body::Waits, Some(TIMEOUT))];
    bodies
        .into_iter()
        .flat_map(|(body, bound)| [1, 2].map(|workers| contest(workers, scale.tasks, body, bound)))
        .collect()
}
