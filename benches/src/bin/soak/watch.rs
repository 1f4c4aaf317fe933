//! [`Watcher`]: a thread that reads the manager's numbers all the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use agentflow::{BackgroundTaskManager, task::TaskStats};
use indicatif::ProgressBar;

use crate::ledger;

/// A thread that reads the numbers while other threads spawn and end tasks.
#[derive(Debug)]
pub(crate) struct Watcher {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// The observations of a watcher.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// The number of reads.
    pub(crate) looks: u64,
    /// The highest number of active tasks.
    pub(crate) most_active: u64,
    /// The first numbers that were inconsistent.
    pub(crate) inconsistent: Option<TaskStats>,
}

impl Watcher {
    pub(crate) fn start(tasks: BackgroundTaskManager, progress: ProgressBar) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            while !until.load(Ordering::Relaxed) {
                let stats = tasks.stats();
                seen.looks += 1;
                seen.most_active = seen.most_active.max(stats.active);
                if !ledger::is_consistent(&stats) {
                    seen.inconsistent.get_or_insert(stats);
                }
                progress.set_position(stats.spawned - stats.active);
                thread::sleep(Duration::from_micros(500));
            }
            seen
        });
        Self { is_over, thread }
    }

    pub(crate) fn stop(self) -> Seen {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("a watcher doesn't panic")
    }
}
