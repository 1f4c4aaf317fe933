//! The default store, which has limits and keeps the user's values.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::store::{
    CheckpointId, NewCheckpoint, NewQuestion, NewRun, NewValues, OnBusyThread, Rest, RunEnd, RunStatus, Source, Stored,
};

/// The seconds that a lease lasts.
const LEASE: Duration = Duration::from_secs(30);

fn thread(name: &str) -> ThreadId {
    name.parse().expect("the name is short")
}

fn shared(value: impl Send + Sync + 'static) -> Stored {
    Stored::Shared(Arc::new(value))
}

fn checkpoint(values: NewValues) -> NewCheckpoint {
    NewCheckpoint::new(Source::Loop, values, Vec::new(), shared(()))
}

/// Begins a run at the head of a thread, whose first checkpoint has this state.
async fn begin(store: &MemoryStore, name: &str, state: Stored) -> (RunId, CheckpointId) {
    let id = RunId::new();
    let run = NewRun::new(id, thread(name), "graph".into(), OwnerId::new(), shared(()), shared(()));
    let head = store.thread(&thread(name)).await.expect("it reads").and_then(|thread| thread.head);
    let mut start = RunStart::at(head);
    start.checkpoints = vec![checkpoint(NewValues::Snapshot(state))];
    match store.begin_run(BeginRun::new(run, OnBusyThread::Reject, start)).await {
        Ok(Begun::Running(started)) => (id, started.checkpoints[0]),
        other => panic!("{other:?}"),
    }
}

async fn run_to_end(store: &MemoryStore, name: &str, state: Stored, questions: Vec<NewQuestion>) {
    let (run, parent) = begin(store, name, state).await;
    let mut commit = Commit::new(run, 1, 1, Some(parent));
    let rest = if questions.is_empty() { Rest::Idle } else { Rest::Paused };
    commit.questions = questions;
    commit.end = Some(RunEnd::new(RunStatus::Done, rest));
    store.commit(commit).await.expect("the run is live");
}

fn small(of_thread: usize, threads: usize) -> MemoryStore {
    MemoryStore::with(true, Some(Limits::new(of_thread, threads)))
}

#[tokio::test(start_paused = true)]
async fn the_oldest_checkpoints_of_a_thread_go_and_the_newest_stay() {
    let store = small(3, 10);
    for number in 0..5 {
        run_to_end(&store, "a", shared(number), Vec::new()).await;
    }
    let history = store.history(&thread("a"), HistoryFilter::default()).await.expect("it reads");
    let states = history.iter().map(|row| match &row.values {
        Stored::Shared(value) => *value.downcast_ref::<i32>().expect("a number"),
        Stored::Json(_) => panic!("JSON"),
    });
    assert_eq!(states.collect::<Vec<_>>(), [4, 3, 2]);
    assert_eq!(history[2].parent, None);
    assert_eq!(store.runs(RunFilter::default()).await.expect("it reads").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_of_an_open_question_stays() {
    let store = small(2, 10);
    let question = NewQuestion::new(super::super::QuestionId::new(), "ask".into(), "1".into(), shared("?"));
    run_to_end(&store, "a", shared(0), vec![question]).await;
    for number in 1..5 {
        run_to_end(&store, "a", shared(number), Vec::new()).await;
    }
    let history = store.history(&thread("a"), HistoryFilter::default()).await.expect("it reads");
    assert_eq!(history.iter().map(|row| row.step).collect::<Vec<_>>(), [3, -1]);
}

#[tokio::test(start_paused = true)]
async fn the_threads_that_have_been_idle_for_longest_go_but_not_those_with_a_question_or_a_run() {
    let store = small(3, 4);
    begin(&store, "runs", shared(0)).await;
    let question = NewQuestion::new(super::super::QuestionId::new(), "ask".into(), "1".into(), shared("?"));
    run_to_end(&store, "asks", shared(0), vec![question]).await;
    for name in ["a", "b", "c", "d"] {
        run_to_end(&store, name, shared(0), Vec::new()).await;
    }
    let page = store.threads(ThreadFilter::default()).await.expect("it reads");
    let names: Vec<&str> = page.threads.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(names, ["d", "c", "asks", "runs"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_of_threads_that_may_not_go_grows() {
    let store = small(3, 2);
    for name in ["a", "b", "c", "d"] {
        begin(&store, name, shared(0)).await;
    }
    assert_eq!(store.threads(ThreadFilter::default()).await.expect("it reads").total, 4);
}

/// A value whose destructor uses the store and panics.
struct Reentrant {
    store: MemoryStore,
    drops: Arc<AtomicUsize>,
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        self.store.advance(LEASE);
        // Nothing is read on the strength of the number but itself.
        self.drops.fetch_add(1, Ordering::Relaxed);
        panic!("the destructor of a value");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_is_dropped_when_the_lock_is_free_and_its_panic_is_swallowed() {
    let (store, drops) = (small(3, 10), Arc::new(AtomicUsize::new(0)));
    let value = || shared(Reentrant { store: store.clone(), drops: drops.clone() });
    run_to_end(&store, "a", value(), Vec::new()).await;
    run_to_end(&store, "a", value(), Vec::new()).await;
    assert_eq!(store.delete_thread(&thread("a")).await.expect("it deletes"), Deleted::Yes);
    assert_eq!(drops.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_wakes_nobody() {
    let store = MemoryStore::new();
    begin(&store, "a", shared(0)).await;
    let since = store.changes(0, LEASE).await.expect("it waits");
    let run = NewRun::new(RunId::new(), thread("a"), "graph".into(), OwnerId::new(), shared(()), shared(()));
    let refused = store.begin_run(BeginRun::new(run, OnBusyThread::Reject, RunStart::at(None))).await;
    assert!(matches!(refused, Ok(Begun::Busy { is_driven: false, .. })), "{refused:?}");
    assert_eq!(store.changes(since, LEASE).await.expect("it waits"), since);
}
