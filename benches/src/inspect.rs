//! Look-ups among many active tasks.

use std::{
    collections::HashMap,
    future::pending,
    hint::black_box,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use agentflow::BackgroundTaskManager;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;

use crate::{Bar, Contest, Scale, Side, row::thousands, runtime, spawn::TIMEOUT};

/// The target for a list of all active tasks, in nanoseconds.
const LIST: f64 = 1e6;

/// A hand-written registry of tasks.
#[derive(Debug, Default)]
struct Ledger(Mutex<HashMap<u64, Entry>>);

#[derive(Clone, Debug)]
struct Entry {
    name: Arc<str>,
    began: Instant,
    timeout: Duration,
}

/// An entry of the registry's list.
#[derive(Debug)]
#[allow(dead_code, reason = "it is made to be read by others")]
struct Line {
    id: u64,
    name: Arc<str>,
    age: Duration,
    remaining: Duration,
}

impl Ledger {
    fn of(tasks: u64) -> Self {
        let entry = |_| Entry { name: "work".into(), began: Instant::now(), timeout: TIMEOUT };
        Self(Mutex::new((0..tasks).map(|id| (id, entry(id))).collect()))
    }

    /// Returns the tasks, oldest first.
    fn list(&self) -> Vec<Line> {
        let now = Instant::now();
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(id, entry): (&u64, &Entry)| {
            let age = now.duration_since(entry.began);
            Line { id: *id, name: Arc::clone(&entry.name), age, remaining: entry.timeout.saturating_sub(age) }
        };
        let mut lines: Vec<_> = entries.iter().map(line).collect();
        lines.sort_unstable_by_key(|line| line.id);
        lines
    }
}

fn repeated<T>(name: &str, mut look: impl FnMut() -> T + 'static) -> Side {
    Side::new(name, move |iterations| {
        let began = Instant::now();
        for _ in 0..iterations {
            black_box(look());
        }
        began.elapsed()
    })
}

/// Creates a manager with this many active tasks, and the runtime that they run on.
fn busy_manager(tasks: u64) -> (Runtime, BackgroundTaskManager) {
    let runtime = runtime::current_thread();
    let manager = {
        let _here = runtime.enter();
        BackgroundTaskManager::new()
    };
    for _ in 0..tasks {
        manager.create_task(pending::<()>()).name("work").timeout(TIMEOUT).spawn().expect("the manager is open");
    }
    (runtime, manager)
}

fn busy_tracker(tasks: u64) -> (Runtime, TaskTracker) {
    let runtime = runtime::current_thread();
    let tracker = TaskTracker::new();
    for _ in 0..tasks {
        tracker.spawn_on(pending::<()>(), runtime.handle());
    }
    (runtime, tracker)
}

/// Returns the contests of a list and a count, beside a map behind a mutex and a tracker's count.
#[must_use]
pub fn contests(scale: Scale) -> Vec<Contest> {
    let active = scale.active;
    // Each side owns the runtime of its tasks.
    let (list_runtime, list_manager) = busy_manager(active);
    let (count_runtime, count_manager) = busy_manager(active);
    let (tracker_runtime, tracker) = busy_tracker(active);
    let ledger = Ledger::of(active);
    vec![
        Contest {
            name: format!("task_info() of {}", thousands(active)),
            per: 1,
            ours: repeated("manager", move || {
                let _ = &list_runtime;
                list_manager.task_info()
            }),
            floors: vec![(repeated("HashMap in a Mutex", move || ledger.list()), Some(Bar::AtMost(LIST)))],
        },
        Contest {
            name: format!("task_count() of {}", thousands(active)),
            per: 1,
            ours: repeated("manager", move || {
                let _ = &count_runtime;
                count_manager.task_count()
            }),
            floors: vec![(
                repeated("TaskTracker::len", move || {
                    let _ = &tracker_runtime;
                    tracker.len()
                }),
                None,
            )],
        },
    ]
}
