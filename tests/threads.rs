//! Threads: conversations that outlive a run.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use agentflow::{
    CompiledGraph, NodeError, RunConfig, State, graph, node,
    store::{MemoryStore, RunFilter, RunStatus, Store},
    thread::{HistoryFilter, Input, OnBusyThread, Outcome, Source, Thread, ThreadError},
};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

#[derive(Clone, Debug, Default, PartialEq, State, Serialize, Deserialize)]
struct Log {
    #[state(append)]
    lines: Vec<String>,
    last: String,
}

fn line(text: &str) -> LogUpdate {
    Log::update().lines([text.to_owned()])
}

#[node]
async fn first(state: &mut Log) {
    state.lines.push("first".to_owned());
}

#[node]
async fn second(state: &Log) -> LogUpdate {
    Log::update().lines(["second".to_owned()]).last(format!("after {}", state.lines.len()))
}

/// Graphs with the same nodes, over threads in memory and over a store that keeps JSON.
fn chats() -> [CompiledGraph<Log>; 2] {
    [
        graph! { name = "chat"; first -> second -> END },
        graph! { name = "chat"; first -> second -> END; compile { store: MemoryStore::new() } },
    ]
}

fn done<S>(outcome: Outcome<S>) -> S {
    outcome.done().expect("the run reached the end")
}

#[tokio::test]
async fn a_run_goes_on_from_the_state_of_the_one_before() {
    for app in chats() {
        let thread = app.thread("ada");
        done(thread.invoke(line("one"), RunConfig::new()).await.unwrap());
        let state = done(thread.invoke(line("two"), RunConfig::new()).await.unwrap());
        assert_eq!(state.lines, ["one", "first", "second", "two", "first", "second"]);
        assert_eq!(state.last, "after 5");
        assert_eq!(thread.state().await.unwrap().unwrap().values, state);
    }
}

#[tokio::test]
async fn threads_do_not_share_their_states() {
    for app in chats() {
        done(app.thread("a").invoke(line("one"), RunConfig::new()).await.unwrap());
        let state = done(app.thread("b").invoke(line("two"), RunConfig::new()).await.unwrap());
        assert_eq!(state.lines, ["two", "first", "second"]);
        assert!(app.thread("c").state().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn the_history_has_a_checkpoint_before_the_input_one_after_it_and_one_for_each_step() {
    for app in chats() {
        let thread = app.thread("ada");
        done(thread.invoke(line("one"), RunConfig::new()).await.unwrap());
        let history = thread.history(HistoryFilter::default()).await.unwrap();
        let seen: Vec<_> = history
            .iter()
            .rev()
            .map(|state| (state.source, state.step, state.next.join(","), state.values.lines.join(",")))
            .collect();
        assert_eq!(
            seen,
            [
                (Source::Input, -1, "__start__".to_owned(), String::new()),
                (Source::Loop, 0, "first".to_owned(), "one".to_owned()),
                (Source::Loop, 1, "second".to_owned(), "one,first".to_owned()),
                (Source::Loop, 2, String::new(), "one,first,second".to_owned()),
            ]
        );
        let parents: Vec<_> = history.windows(2).map(|pair| pair[0].parent == Some(pair[1].checkpoint)).collect();
        assert_eq!(parents, [true; 3]);
        assert_eq!(thread.at(history[2].checkpoint).await.unwrap().values.lines, ["one"]);
    }
}

#[node]
async fn flaky(state: &mut Log, #[inject] failures: &AtomicUsize) -> Result<(), NodeError> {
    state.lines.push("tried".to_owned());
    if failures.fetch_sub(1, Ordering::SeqCst) > 0 {
        return Err("not yet".into());
    }
    failures.store(0, Ordering::SeqCst);
    Ok(())
}

fn flaky_apps(failures: usize) -> [CompiledGraph<Log, AtomicUsize>; 2] {
    [
        graph! { name = "flaky"; first -> flaky -> second -> END; compile { services: AtomicUsize::new(failures) } },
        graph! {
            name = "flaky";
            first -> flaky -> second -> END;
            compile { services: AtomicUsize::new(failures), store: MemoryStore::new() }
        },
    ]
}

#[tokio::test]
async fn a_failed_run_leaves_the_last_commit_and_resume_goes_on_there() {
    for app in flaky_apps(1) {
        let thread = app.thread("ada");
        let error = thread.invoke(line("one"), RunConfig::new()).await.unwrap_err();
        assert!(matches!(&error, ThreadError::Run(error) if error.node() == Some("flaky")), "{error}");
        let state = thread.state().await.unwrap().unwrap();
        assert_eq!((state.values.lines.join(","), state.next.join(",")), ("one,first".to_owned(), "flaky".to_owned()));

        let state = done(thread.invoke(Input::resume(), RunConfig::new()).await.unwrap());
        assert_eq!(state.lines, ["one", "first", "tried", "second"]);
        let runs = thread.runs(RunFilter::default()).await.unwrap();
        assert_eq!(runs.iter().map(|run| run.status).collect::<Vec<_>>(), [RunStatus::Done, RunStatus::Failed]);
        let failure = runs[1].failure.as_ref().unwrap();
        assert_eq!((&*failure.kind, failure.node.as_deref()), ("Node", Some("flaky")));
        assert!(failure.message.contains("not yet"), "{failure:?}");

        let error = thread.invoke(Input::resume(), RunConfig::new()).await.unwrap_err();
        assert!(matches!(error, ThreadError::NothingToResume), "{error}");
    }
}

struct Gate {
    entered: Notify,
    open: Semaphore,
}

#[node]
async fn gated(_state: &mut Log, #[inject] gate: &Arc<Gate>) {
    gate.entered.notify_one();
    gate.open.acquire().await.unwrap().forget();
}

fn gated_app() -> (CompiledGraph<Log, Arc<Gate>>, Arc<Gate>) {
    let gate = Arc::new(Gate { entered: Notify::new(), open: Semaphore::new(0) });
    let app = graph! {
        name = "gated";
        gated -> second -> END;
        compile { services: Arc::clone(&gate), store: MemoryStore::new() }
    };
    (app, gate)
}

/// Starts a run that stands in its first node.
async fn standing<C: Send + Sync + 'static>(
    thread: &Thread<Log, C>,
    gate: &Gate,
    text: &'static str,
) -> tokio::task::JoinHandle<Result<Outcome<Log>, ThreadError>> {
    let thread = thread.clone();
    let run = tokio::spawn(async move { thread.invoke(line(text), RunConfig::new()).await });
    gate.entered.notified().await;
    run
}

#[tokio::test]
async fn a_busy_thread_refuses_a_run_and_names_the_other_one() {
    let (app, gate) = gated_app();
    let thread = app.thread("ada");
    let run = standing(&thread, &gate, "one").await;
    let error = thread.invoke(line("two"), RunConfig::new()).await.unwrap_err();
    let live = app.runs();
    assert_eq!(live.len(), 1);
    assert!(matches!(error, ThreadError::Busy { run, is_driven: true, .. } if run == live[0].id), "{error}");
    let error = thread.update(line("edit"), None).await.unwrap_err();
    assert!(matches!(error, ThreadError::Busy { .. }), "{error}");
    gate.open.add_permits(1);
    assert_eq!(done(run.await.unwrap().unwrap()).lines, ["one", "second"]);
    assert!(app.runs().is_empty());
}

#[tokio::test]
async fn queued_runs_start_in_the_order_in_which_they_were_accepted() {
    let (app, gate) = gated_app();
    let thread = app.thread("ada");
    let first = standing(&thread, &gate, "one").await;
    let mut queued = Vec::new();
    for text in ["two", "three", "four"] {
        let (thread, before) = (thread.clone(), app.runs().len());
        queued.push(tokio::spawn(async move {
            thread.invoke(line(text), RunConfig::new().on_busy_thread(OnBusyThread::Queue)).await
        }));
        // The next one is accepted later.
        while thread_runs(&app).await <= before {
            tokio::task::yield_now().await;
        }
    }
    gate.open.add_permits(4);
    let _ = first.await.unwrap().unwrap();
    let ended = join_all(queued).await;
    let last = done(ended.into_iter().next_back().unwrap().unwrap().unwrap());
    assert_eq!(last.lines, ["one", "second", "two", "second", "three", "second", "four", "second"]);
}

async fn thread_runs<C: Send + Sync + 'static>(app: &CompiledGraph<Log, C>) -> usize {
    app.thread("ada").runs(RunFilter::default()).await.unwrap().len()
}

#[tokio::test]
async fn cancel_on_busy_ends_the_running_run_and_keeps_its_commits() {
    let (app, gate) = gated_app();
    let thread = app.thread("ada");
    let first = standing(&thread, &gate, "one").await;
    let second = {
        let thread = thread.clone();
        tokio::spawn(
            async move { thread.invoke(line("two"), RunConfig::new().on_busy_thread(OnBusyThread::Cancel)).await },
        )
    };
    let error = first.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("cancelled at node `gated`"), "{error}");
    gate.open.add_permits(1);
    assert_eq!(done(second.await.unwrap().unwrap()).lines, ["one", "two", "second"]);
}

#[tokio::test]
async fn rollback_on_busy_takes_back_all_that_the_running_run_did() {
    let (app, gate) = gated_app();
    let thread = app.thread("ada");
    let first = standing(&thread, &gate, "one").await;
    let second = {
        let thread = thread.clone();
        tokio::spawn(async move {
            thread.invoke(line("two"), RunConfig::new().on_busy_thread(OnBusyThread::Rollback)).await
        })
    };
    first.await.unwrap().unwrap_err();
    gate.open.add_permits(1);
    assert_eq!(done(second.await.unwrap().unwrap()).lines, ["two", "second"]);
    assert_eq!(thread_runs(&app).await, 1);
}

#[tokio::test]
async fn a_run_stops_before_and_after_nodes_and_is_resumed() {
    for app in chats() {
        let thread = app.thread("ada");
        let stops = RunConfig::new().stop_before(["second"]);
        let Outcome::Stopped { next, .. } = thread.invoke(line("one"), stops).await.unwrap() else {
            panic!("the run did not stop");
        };
        assert_eq!(next.join(","), "second");
        assert_eq!(done(thread.invoke(Input::resume(), RunConfig::new()).await.unwrap()).lines.len(), 3);

        let stops = RunConfig::new().stop_after(["*"]);
        assert!(matches!(thread.invoke(line("two"), stops).await.unwrap(), Outcome::Stopped { .. }));
    }
}

#[tokio::test]
async fn a_run_at_an_older_checkpoint_makes_a_branch_and_the_old_one_stays() {
    for app in chats() {
        let thread = app.thread("ada");
        done(thread.invoke(line("one"), RunConfig::new()).await.unwrap());
        let before_second = thread.history(HistoryFilter::default()).await.unwrap()[1].clone();
        assert_eq!(before_second.next.join(","), "second");
        let state = done(
            thread.invoke(Input::update(line("edit")).at(before_second.checkpoint), RunConfig::new()).await.unwrap(),
        );
        assert_eq!(state.lines, ["one", "first", "edit", "first", "second"]);
        let history = thread.history(HistoryFilter::default()).await.unwrap();
        let children = history.iter().filter(|state| state.parent == Some(before_second.checkpoint)).count();
        assert_eq!((history.len(), children), (8, 2));

        let again = done(thread.invoke(Input::resume().at(before_second.checkpoint), RunConfig::new()).await.unwrap());
        assert_eq!(again.lines, ["one", "first", "second"]);
        let history = thread.history(HistoryFilter::default()).await.unwrap();
        assert_eq!(history[1].source, Source::Fork);
    }
}

#[tokio::test]
async fn goto_begins_at_a_node_and_refuses_an_unknown_one() {
    for app in chats() {
        let thread = app.thread("ada");
        let state = done(thread.invoke(Input::goto("second").with_update(line("x")), RunConfig::new()).await.unwrap());
        assert_eq!(state.lines, ["x", "second"]);
        let error = thread.invoke(Input::goto("third"), RunConfig::new()).await.unwrap_err();
        assert!(matches!(&error, ThreadError::WrongNode { node, .. } if &**node == "third"), "{error}");
    }
}

#[tokio::test]
async fn an_edit_makes_a_checkpoint_and_as_node_says_what_runs_next() {
    for app in chats() {
        let thread = app.thread("ada");
        thread.update(line("draft"), Some("first")).await.unwrap();
        let state = thread.state().await.unwrap().unwrap();
        assert_eq!((state.source, state.next.join(",")), (Source::Update, "second".to_owned()));
        assert_eq!(done(thread.invoke(Input::resume(), RunConfig::new()).await.unwrap()).lines, ["draft", "second"]);
    }
}

#[tokio::test]
async fn a_fork_is_a_copy_that_goes_its_own_way() {
    for app in chats() {
        let thread = app.thread("ada");
        done(thread.invoke(line("one"), RunConfig::new()).await.unwrap());
        let copy = thread.fork("bob").await.unwrap();
        assert!(matches!(thread.fork("bob").await, Err(ThreadError::Exists)));
        done(copy.invoke(line("two"), RunConfig::new()).await.unwrap());
        assert_eq!(thread.state().await.unwrap().unwrap().values.lines, ["one", "first", "second"]);
        assert_eq!(copy.state().await.unwrap().unwrap().values.lines.len(), 6);
    }
}

#[tokio::test]
async fn a_deleted_thread_begins_anew() {
    for app in chats() {
        let thread = app.thread("ada");
        done(thread.invoke(line("one"), RunConfig::new()).await.unwrap());
        assert!(thread.delete().await.unwrap());
        assert!(!thread.delete().await.unwrap());
        assert_eq!(done(thread.invoke(line("two"), RunConfig::new()).await.unwrap()).lines, ["two", "first", "second"]);
    }
}

#[tokio::test]
async fn an_ephemeral_thread_is_gone_at_the_end_of_its_run() {
    for app in chats() {
        let thread = app.thread("ada");
        done(thread.invoke(line("one"), RunConfig::new().ephemeral()).await.unwrap());
        assert!(thread.state().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn an_id_that_is_none_is_a_typed_error() {
    let [app, _] = chats();
    for id in [String::new(), "x".repeat(256)] {
        let error = app.thread(&id).invoke(line("one"), RunConfig::new()).await.unwrap_err();
        assert!(matches!(error, ThreadError::InvalidId(_)), "{error}");
    }
    done(app.thread("é".repeat(127)).invoke(line("one"), RunConfig::new()).await.unwrap());
}

#[tokio::test]
async fn the_run_id_is_an_idempotency_key() {
    for app in chats() {
        let thread = app.thread("ada");
        let config = RunConfig::new().with_run_id(agentflow::RunId::new());
        let first = done(thread.invoke(line("one"), config.clone()).await.unwrap());
        let second = done(thread.invoke(line("one"), config).await.unwrap());
        assert_eq!(first, second);
        assert_eq!(thread.state().await.unwrap().unwrap().values.lines.len(), 3);
    }
}

#[tokio::test]
async fn a_dropped_invoke_cancels_the_run_and_the_thread_is_paused() {
    let (app, gate) = gated_app();
    let thread = app.thread("ada");
    let run = standing(&thread, &gate, "one").await;
    run.abort();
    while !app.runs().is_empty() {
        tokio::task::yield_now().await;
    }
    let runs = thread.runs(RunFilter::default()).await.unwrap();
    assert_eq!(runs[0].status, RunStatus::Cancelled);
    gate.open.add_permits(1);
    assert_eq!(done(thread.invoke(Input::resume(), RunConfig::new()).await.unwrap()).lines, ["one", "second"]);
}

#[tokio::test]
async fn a_stream_ends_with_the_outcome() {
    for app in chats() {
        let thread = app.thread("ada");
        let mut run = thread.stream(line("one"), RunConfig::new()).await.unwrap();
        let mut names = Vec::new();
        while let Some(event) = run.next().await {
            names.push(event.kind.name());
        }
        assert_eq!(names.last(), Some(&"run_ended"), "{names:?}");
        assert_eq!(done(run.finish().await.unwrap()).lines.len(), 3);
        app.aclose().await;
        assert!(matches!(thread.stream(line("two"), RunConfig::new()).await, Err(ThreadError::Closed)));
    }
}

#[tokio::test]
async fn a_spawned_run_is_a_task_of_the_app() {
    let (app, gate) = gated_app();
    let handle = app.thread("ada").spawn(line("one"), RunConfig::new()).await.unwrap();
    gate.entered.notified().await;
    let tasks = app.task_manager().task_info();
    assert_eq!(tasks[0].name(), "run");
    gate.open.add_permits(1);
    assert_eq!(done(handle.await.unwrap()).lines, ["one", "second"]);
}

#[tokio::test]
async fn a_store_outlives_the_app_and_a_run_of_a_dead_owner_is_recovered() {
    let store = MemoryStore::new();
    let build = |store: Arc<dyn Store>, gate: &Arc<Gate>| {
        graph! {
            name = "gated";
            first -> gated -> second -> END;
            compile { services: Arc::clone(gate), store: store }
        }
    };
    let gate = Arc::new(Gate { entered: Notify::new(), open: Semaphore::new(0) });
    // This app lives on a runtime of its own, which is gone in the middle of a node.
    let dead = {
        let (store, gate) = (store.clone(), Arc::clone(&gate));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let app = build(Arc::new(store), &gate);
            runtime.block_on(async {
                let run = tokio::spawn({
                    let thread = app.thread("ada");
                    async move { thread.invoke(line("one"), RunConfig::new()).await }
                });
                gate.entered.notified().await;
                drop(run);
            });
            // The owner never leaves the store.
            std::mem::forget(app);
        })
    };
    dead.join().unwrap();
    store.advance(std::time::Duration::from_mins(1));
    let app = build(Arc::new(store), &gate);
    let report = app.recover().await.unwrap();
    assert_eq!((report.taken.len(), report.left.len()), (1, 0), "{report:?}");
    gate.entered.notified().await;
    gate.open.add_permits(1);
    while !app.runs().is_empty() {
        tokio::task::yield_now().await;
    }
    let state = app.thread("ada").state().await.unwrap().unwrap();
    assert_eq!(state.values.lines, ["one", "first", "second"]);
}
