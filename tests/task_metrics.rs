//! Metrics of tasks, as the `metrics` facade receives them.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager, TaskContext,
    task::{OnDuplicateKey, OnFull, SpawnError, TaskManagerOptions},
};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, LocalRecorderGuard, Metadata, Recorder,
    SharedString, Unit,
};
use tokio::time::sleep;

use crate::support::settle;

const SECOND: Duration = Duration::from_secs(1);

/// The recorded series: each `name{label=value,..}` with its sum, or with each value of a histogram.
#[derive(Clone, Default)]
pub(crate) struct Recorded(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

/// One series.
struct Series(Recorded, String);

impl Series {
    fn add(&self, value: f64) {
        let mut metrics_seen = self.0.0.lock().unwrap();
        metrics_seen.entry(self.1.clone()).or_insert_with(|| vec![0.0])[0] += value;
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.add(f64::from(u32::try_from(value).unwrap()));
    }

    fn absolute(&self, _: u64) {
        panic!("counters count")
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, _: f64) {
        panic!("two managers would overwrite each other")
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.0.0.lock().unwrap().entry(self.1.clone()).or_default().push(value);
    }
}

impl Recorded {
    fn series(&self, key: &Key) -> Arc<Series> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Series(self.clone(), format!("{}{{{}}}", key.name(), labels.join(","))))
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.series(key))
    }
}

/// Records the metrics of this thread until the guard is dropped. The guard borrows the recorder, which is leaked.
pub(crate) fn record_metrics() -> (Recorded, LocalRecorderGuard<'static>) {
    let metrics_seen: &Recorded = Box::leak(Box::default());
    (metrics_seen.clone(), metrics::set_default_local_recorder(metrics_seen))
}

/// Returns the series since the last call.
pub(crate) fn recorded(metrics_seen: &Recorded) -> BTreeMap<String, String> {
    let series = std::mem::take(&mut *metrics_seen.0.lock().unwrap());
    let text = |values: Vec<f64>| values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
    series.into_iter().map(|(series, values)| (series, text(values))).collect()
}

pub(crate) fn lines(series: &BTreeMap<String, String>) -> Vec<String> {
    series.iter().map(|(name, value)| format!("{name} {value}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_task_is_counted_and_measured_from_its_spawn_to_its_end() {
    let (metrics_seen, _guard) = record_metrics();
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    tasks.create_task(sleep(2 * SECOND)).name("send").spawn().unwrap();
    tasks.create_task(async { sleep(SECOND).await }).name("send").spawn().unwrap();
    settle().await;
    assert_eq!(
        lines(&recorded(&metrics_seen)),
        [
            "agentflow_task_queue_wait_seconds{name=send} 0",
            "agentflow_tasks_in_flight{name=send} 2",
            "agentflow_tasks_spawned_total{name=send} 2",
        ]
    );
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(
        lines(&recorded(&metrics_seen)),
        [
            "agentflow_task_duration_seconds{name=send,outcome=completed} 2 3",
            "agentflow_task_queue_wait_seconds{name=send} 2",
            "agentflow_tasks_ended_total{name=send,outcome=completed} 2",
            "agentflow_tasks_in_flight{name=send} -2",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_queue_time_of_a_delayed_task_begins_after_its_delay() {
    let (metrics_seen, _guard) = record_metrics();
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    tasks.create_task(sleep(8 * SECOND)).name("runs").spawn().unwrap();
    tasks.create_task(async {}).name("later").delay(5 * SECOND).spawn().unwrap();
    tasks.wait_for_all(None).await.unwrap();
    let series = recorded(&metrics_seen);
    assert_eq!(series["agentflow_task_queue_wait_seconds{name=later}"], "3");
    assert_eq!(series["agentflow_task_duration_seconds{name=later,outcome=completed}"], "8");
}

#[tokio::test(start_paused = true)]
async fn each_outcome_is_a_label() {
    let (metrics_seen, _guard) = record_metrics();
    let options = TaskManagerOptions::new().max_tasks(1).on_full(OnFull::DropOldest);
    let tasks = BackgroundTaskManager::with_options(options);
    tasks.create_task(async {}).name("t").spawn().unwrap().await.unwrap();
    tasks.create_task(async { Err::<(), _>("no") }).name("t").spawn().unwrap().await.unwrap_err();
    tasks.create_task(async { panic!("boom") }).name("t").spawn().unwrap().await.unwrap_err();
    tasks.create_task(pending::<()>()).name("t").timeout(Duration::ZERO).spawn().unwrap().await.unwrap_err();
    let aborted = tasks.create_task(pending::<()>()).name("t").spawn().unwrap();
    drop(aborted.abort_on_drop());
    settle().await;
    let evicted = tasks.create_task(pending::<()>()).name("t").spawn().unwrap();
    let cancelled = tasks.create_task(pending::<()>()).name("t").spawn().unwrap();
    evicted.await.unwrap_err();
    cancelled.cancel();
    cancelled.await.unwrap_err();
    let series = recorded(&metrics_seen);
    for outcome in ["completed", "failed", "panicked", "timed_out", "aborted", "evicted", "cancelled"] {
        assert_eq!(series[&format!("agentflow_tasks_ended_total{{name=t,outcome={outcome}}}")], "1");
        assert_eq!(series[&format!("agentflow_task_duration_seconds{{name=t,outcome={outcome}}}")], "0");
    }
    assert_eq!(series["agentflow_tasks_in_flight{name=t}"], "0");
    assert_eq!(series["agentflow_tasks_spawned_total{name=t}"], "7");
}

#[tokio::test(start_paused = true)]
async fn a_refused_spawn_is_counted_with_its_reason() {
    let (metrics_seen, _guard) = record_metrics();
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1));
    tasks.create_task(pending::<()>()).name("t").key("k", OnDuplicateKey::Skip).spawn().unwrap();
    let busy = tasks.create_task(async {}).name("t").key("k", OnDuplicateKey::Skip).spawn().unwrap_err();
    let full = tasks.create_task(async {}).name("t").spawn().unwrap_err();
    tasks.close(Some(Duration::ZERO)).await;
    let closed = tasks.create_task(async {}).name("t").spawn().unwrap_err();
    assert_eq!([busy, full, closed], [SpawnError::DuplicateKey, SpawnError::Full, SpawnError::Closed]);
    let series = recorded(&metrics_seen);
    for reason in ["duplicate_key", "full", "closed"] {
        assert_eq!(series[&format!("agentflow_tasks_rejected_total{{name=t,reason={reason}}}")], "1");
    }
    assert_eq!(series["agentflow_tasks_spawned_total{name=t}"], "1");
}

#[test]
fn a_spawn_without_a_runtime_is_counted_too() {
    let (metrics_seen, _guard) = record_metrics();
    BackgroundTaskManager::new().create_task(async {}).name("t").spawn().unwrap_err();
    assert_eq!(lines(&recorded(&metrics_seen)), ["agentflow_tasks_rejected_total{name=t,reason=no_runtime} 1"]);
}

#[test]
fn a_spawn_on_a_runtime_that_has_shut_down_is_counted_as_refused_only() {
    let (metrics_seen, _guard) = record_metrics();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tasks = runtime.block_on(async { BackgroundTaskManager::new() });
    drop(runtime);
    tasks.create_task(async {}).name("t").spawn().unwrap_err();
    assert_eq!(lines(&recorded(&metrics_seen)), ["agentflow_tasks_rejected_total{name=t,reason=closed} 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_spawn_that_waits_for_room_is_not_counted_as_refused() {
    let (metrics_seen, _guard) = record_metrics();
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1));
    tasks.create_task(sleep(SECOND)).name("t").spawn().unwrap();
    tasks.create_task(async {}).name("t").spawn_wait().await.unwrap().await.unwrap();
    let series = recorded(&metrics_seen);
    assert!(series.keys().all(|name| !name.contains("rejected")), "{series:?}");
    assert_eq!(series["agentflow_tasks_spawned_total{name=t}"], "2");
}

#[tokio::test(start_paused = true)]
async fn attempts_beyond_the_first_are_counted_when_they_begin() {
    let (metrics_seen, _guard) = record_metrics();
    let tasks = BackgroundTaskManager::new();
    let attempt = |number| async move { if number < 3 { Err("no") } else { Ok(()) } };
    let policy = agentflow::RetryPolicy::new(5).backoff(SECOND);
    tasks.create_retrying_task(attempt).name("t").retry(policy).spawn().unwrap();
    settle().await;
    assert!(!recorded(&metrics_seen).contains_key("agentflow_task_retries_total{name=t}"), "it pauses");
    tasks.wait_for_all(None).await.unwrap();
    assert_eq!(recorded(&metrics_seen)["agentflow_task_retries_total{name=t}"], "2");
    assert_eq!(tasks.stats().retries, 2);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_never_started_has_no_queue_time() {
    let (metrics_seen, _guard) = record_metrics();
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_running(1));
    tasks.create_task(pending::<()>()).name("runs").spawn().unwrap();
    let queued = tasks.create_task(async {}).name("queued").queue_timeout(SECOND).spawn().unwrap();
    queued.await.unwrap_err();
    let series = recorded(&metrics_seen);
    assert!(!series.contains_key("agentflow_task_queue_wait_seconds{name=queued}"), "{series:?}");
    assert_eq!(series["agentflow_task_duration_seconds{name=queued,outcome=timed_out}"], "1");
}

#[tokio::test(start_paused = true)]
async fn names_beyond_the_first_256_share_a_label() {
    let (metrics_seen, _guard) = record_metrics();
    let tasks = BackgroundTaskManager::new();
    for round in 0..2 {
        for number in 0..300 {
            tasks.create_task(async {}).name(format!("task {number}")).spawn().unwrap();
        }
        tasks.wait_for_all(None).await.unwrap();
        let series = recorded(&metrics_seen);
        let spawned: Vec<_> =
            series.iter().filter(|(name, _)| name.starts_with("agentflow_tasks_spawned_total")).collect();
        assert_eq!(spawned.len(), 257, "round {round}");
        assert_eq!(series["agentflow_tasks_spawned_total{name=other}"], "44");
        assert_eq!(series["agentflow_tasks_spawned_total{name=task 255}"], "1");
        assert_eq!(series["agentflow_tasks_in_flight{name=other}"], "0");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_name_of_a_task_is_a_label() {
    let (metrics_seen, _guard) = record_metrics();
    let tasks = BackgroundTaskManager::new();
    let builder = tasks.create_task_with_context(|task: TaskContext| async move { task.progress(0.5, "secret") });
    builder.name("t").context("user", "ada").key("user-7", OnDuplicateKey::Queue).spawn().unwrap().await.unwrap();
    for name in recorded(&metrics_seen).keys() {
        assert!(name.ends_with("{name=t}") || name.ends_with("{name=t,outcome=completed}"), "{name}");
    }
}

/// Panics at each call.
pub(crate) struct Broken;

impl Recorder for Broken {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        panic!("no room for {key}")
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("no room for {key}")
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("no room for {key}")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_recorder_does_not_affect_ends_and_waits() {
    let _guard = metrics::set_default_local_recorder(&Broken);
    let tasks = BackgroundTaskManager::with_options(TaskManagerOptions::new().max_tasks(1));
    let attempt = |number| async move { if number == 1 { Err("no") } else { Ok(()) } };
    tasks.create_retrying_task(attempt).retry(1).spawn().unwrap();
    assert_eq!(tasks.create_task(async {}).spawn().unwrap_err(), SpawnError::Full);
    tasks.create_task(async {}).spawn_wait().await.unwrap();
    tasks.wait_for_all(None).await.unwrap();
    let stats = tasks.stats();
    assert_eq!((stats.outcomes.completed, stats.rejected, stats.retries, stats.active), (2, 1, 1, 0));
}
