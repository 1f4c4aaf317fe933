//! Durable tasks, at the store: they are enqueued in batches, claimed, and finished one by one.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use agentflow::store::{Claim, FinishTask, NewTask, OwnerId, Store, StoredTaskId, TaskEnd};
use agentflow_sqlite::SqliteStore;
use bytes::Bytes;
use tokio::{runtime::Builder, task::JoinSet};

use crate::{
    Measured, Scale,
    figure::{Bar, Figure, Unit},
};

/// The tasks that are enqueued at once.
const BATCH: u64 = 500;

/// The tasks that are claimed at once.
const CLAIM: usize = 64;

pub(crate) fn figures(scale: Scale, folder: &Path) -> Measured {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let store = SqliteStore::open(folder.join("tasks.db"))?;
    let tasks = scale.tasks;
    let (enqueued, drained) = runtime.block_on(runtime.spawn(async move {
        let owner = OwnerId::new();
        store.join(owner, Duration::from_mins(5)).await.expect("the owner joins");
        let began = Instant::now();
        for _ in 0..tasks / BATCH {
            let new = |_| {
                NewTask::new(
                    StoredTaskId::new(),
                    "deliver",
                    Bytes::from_static(b"{\"to\":\"ada\"}"),
                    Bytes::from_static(b"{}"),
                )
            };
            store.enqueue((0..BATCH).map(new).collect()).await.expect("the tasks are stored");
        }
        let enqueued = began.elapsed();
        let (began, mut done) = (Instant::now(), 0);
        while done < tasks {
            let claim = Claim::new(owner, vec![("deliver".into(), CLAIM)], CLAIM);
            let claimed = store.claim(claim).await.expect("tasks are claimed").tasks;
            assert!(!claimed.is_empty(), "a task is lost");
            done += claimed.len() as u64;
            let mut ended = JoinSet::new();
            for task in claimed {
                let (id, epoch, store) = (task.task.id, task.epoch, store.clone());
                ended.spawn(async move { store.finish_task(FinishTask::new(id, epoch, TaskEnd::Done)).await });
            }
            while let Some(ended) = ended.join_next().await {
                ended.expect("no panic").expect("the outcome is stored");
            }
        }
        (enqueued, began.elapsed())
    }))?;
    #[allow(clippy::cast_precision_loss, reason = "a figure with 15 digits is exact enough")]
    let rate = |elapsed: Duration| tasks as f64 / elapsed.as_secs_f64();
    Ok(vec![
        Figure::new(format!("{tasks} durable tasks enqueued, in batches of {BATCH}"), Unit::PerSecond, rate(enqueued))
            .bar(Bar::NoLessThan(20_000.0)),
        Figure::new("  claimed and finished, at the store", Unit::PerSecond, rate(drained))
            .bar(Bar::NoLessThan(5_000.0)),
    ])
}
