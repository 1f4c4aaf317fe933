//! Cancelling and closing many idle tasks.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use agentflow::{AgentState, BackgroundTaskManager, CompiledGraph, graph, node, task::TaskManagerOptions};
use tokio::task::{JoinSet, yield_now};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Contest, Scale, Side, row::thousands, runtime, spawn::on_worker};

/// The counter of idle tasks: each task counts itself at its first poll.
#[derive(Clone, Debug, Default)]
pub(crate) struct Idlers(Arc<AtomicU64>);

impl Idlers {
    pub(crate) fn one(&self) -> impl Future<Output = ()> + Send + 'static {
        let waiting = Arc::clone(&self.0);
        async move {
            waiting.fetch_add(1, Ordering::Relaxed);
            pending::<()>().await;
        }
    }

    pub(crate) async fn all_wait(&self, count: u64) {
        while self.0.load(Ordering::Relaxed) < count {
            yield_now().await;
        }
    }
}

/// Creates a manager whose grace period suffices on a busy machine.
fn patient_manager() -> BackgroundTaskManager {
    BackgroundTaskManager::with_options(TaskManagerOptions::new().grace_period(Duration::from_mins(1)))
}

/// Spawns this many tasks, and returns when all of them wait.
async fn idle(manager: &BackgroundTaskManager, tasks: u64) {
    let idlers = Idlers::default();
    for _ in 0..tasks {
        manager.create_task(idlers.one()).name("idle").spawn().expect("the manager is open");
    }
    idlers.all_wait(tasks).await;
}

async fn cancel_all(tasks: u64) -> Duration {
    let manager = patient_manager();
    idle(&manager, tasks).await;
    let began = Instant::now();
    let report = manager.cancel_all().await;
    let elapsed = began.elapsed();
    assert!(report.still_running.is_empty(), "some tasks could not be cancelled in time");
    elapsed
}

async fn close(tasks: u64) -> Duration {
    let manager = patient_manager();
    idle(&manager, tasks).await;
    let began = Instant::now();
    let report = manager.close(Some(Duration::ZERO)).await;
    let elapsed = began.elapsed();
    assert!(report.still_running.is_empty(), "some tasks could not be cancelled in time");
    elapsed
}

#[node]
async fn nothing() {}

fn app() -> CompiledGraph<AgentState> {
    graph! { nothing -> END; compile { shutdown_timeout: 0s, task_manager: patient_manager() } }
}

async fn aclose(tasks: u64) -> Duration {
    let app = app();
    idle(app.task_manager(), tasks).await;
    let began = Instant::now();
    let report = app.aclose().await;
    let elapsed = began.elapsed();
    assert!(report.tasks.still_running.is_empty(), "some tasks could not be cancelled in time");
    elapsed
}

async fn shutdown_set(tasks: u64) -> Duration {
    let idlers = Idlers::default();
    let mut set = JoinSet::new();
    for _ in 0..tasks {
        set.spawn(idlers.one());
    }
    idlers.all_wait(tasks).await;
    let began = Instant::now();
    set.shutdown().await;
    began.elapsed()
}

async fn close_tracker(tasks: u64) -> Duration {
    let idlers = Idlers::default();
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    for _ in 0..tasks {
        tracker.spawn(token.clone().run_until_cancelled_owned(idlers.one()));
    }
    idlers.all_wait(tasks).await;
    let began = Instant::now();
    token.cancel();
    tracker.close();
    tracker.wait().await;
    began.elapsed()
}

/// Returns the contests of cancelling and closing, beside tokio's means for it.
#[must_use]
pub fn contests(scale: Scale) -> Vec<Contest> {
    let tasks = scale.tasks;
    let runtime = Arc::new(runtime::workers(2));
    let set = || (on_worker(&runtime, "JoinSet::shutdown", move || shutdown_set(tasks)), None);
    let tracker = || (on_worker(&runtime, "TaskTracker and a token", move || close_tracker(tasks)), None);
    let contest = |what: &str, ours: Side| Contest {
        name: format!("{what} of {} tasks, 2 workers", thousands(tasks)),
        per: tasks,
        ours,
        floors: vec![set(), tracker()],
    };
    vec![
        contest("cancel_all()", on_worker(&runtime, "manager", move || cancel_all(tasks))),
        contest("close()", on_worker(&runtime, "manager", move || close(tasks))),
        contest("aclose()", on_worker(&runtime, "app", move || aclose(tasks))),
    ]
}
