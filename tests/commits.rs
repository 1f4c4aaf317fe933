//! The hook `on_commit`: which commits it sees, and what it cannot break.

use std::sync::{Arc, Mutex};

use agentflow::{CompileOptions, CompiledGraph, END, RunConfig, RunId, State, StateGraph, graph, graph::Commit, node};
use tracing::Level;

use crate::support::capture;

#[derive(Clone, Debug, Default, PartialEq, State)]
struct Trip {
    stops: u32,
    #[state(append)]
    notes: Vec<String>,
}

#[node]
async fn stop(state: &mut Trip) {
    state.stops += 1;
}

#[node]
async fn note(_state: &Trip) -> TripUpdate {
    Trip::update().notes(["noted"])
}

#[node]
async fn fails(state: &mut Trip) -> Result<(), &'static str> {
    state.stops = 100;
    Err("no road")
}

fn few(state: &Trip) -> bool {
    state.stops < 2
}

/// The commits that a hook has seen: node, next node, stops.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn hook(&self) -> impl Fn(Commit<'_, Trip>) + Send + Sync + use<> {
        let Self(seen) = self.clone();
        move |commit| {
            let Commit { node, next, state, .. } = commit;
            seen.lock().unwrap().push(format!("{node} -> {}: {}", next.unwrap_or("END"), state.stops));
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

async fn invoke(app: &CompiledGraph<Trip>) -> Result<Trip, agentflow::RunError> {
    app.invoke(Trip::default(), RunConfig::new()).await
}

#[tokio::test]
async fn each_committed_step_is_reported_with_the_next_one() {
    let seen = Seen::default();
    let app = graph! {
        node A = stop;
        node B = note;
        node C = note;
        node D = stop;
        A -> { B, C } -> match few { true => A, false => D -> END };
        compile { on_commit: seen.hook() }
    };
    let state = invoke(&app).await.unwrap();
    assert_eq!((state.stops, state.notes.len()), (3, 4));
    let expected = ["A -> {B, C}: 1", "{B, C} -> A: 1", "A -> {B, C}: 2", "{B, C} -> D: 2", "D -> END: 3"];
    assert_eq!(seen.take(), expected);
}

#[tokio::test]
async fn a_closure_knows_the_state_and_the_run() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    // The type of the state follows from the nodes.
    let app = graph! {
        stop -> END;
        compile {
            recursion_limit: 5,
            on_commit: move |commit| {
                let thread = commit.config.thread_id().map(str::to_owned);
                log.lock().unwrap().push((commit.run_id, thread, commit.state.stops + 1));
            },
        }
    };
    let run = RunId::new();
    let config = RunConfig::new().with_run_id(run).with_thread_id("t");
    app.invoke(Trip::default(), config).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [(run, Some("t".to_owned()), 2)]);
}

#[tokio::test]
async fn a_node_that_failed_is_not_committed_and_its_fallback_is() {
    let seen = Seen::default();
    let app = graph! {
        node F = fails { retry: 1, on_error: stop };
        F -> stop -> END;
        compile { on_commit: seen.hook() }
    };
    assert_eq!(invoke(&app).await.unwrap().stops, 1);
    assert_eq!(seen.take(), ["stop -> END: 1"]);

    let app = graph! { stop -> fails -> END; compile { on_commit: seen.hook() } };
    invoke(&app).await.unwrap_err();
    assert_eq!(seen.take(), ["stop -> fails: 1"]);
}

#[tokio::test]
async fn a_nested_graph_calls_its_own_hook_and_is_one_commit_of_the_outer_graph() {
    let (outer, inner) = (Seen::default(), Seen::default());
    let sub = graph! { node A = stop; node B = stop; A -> B -> END; compile { on_commit: inner.hook() } };
    let app = graph! {
        node SUB = (sub);
        graph INLINE { stop -> END }
        SUB -> INLINE -> END;
        compile { on_commit: outer.hook() }
    };
    invoke(&app).await.unwrap();
    assert_eq!(outer.take(), ["SUB -> INLINE: 2", "INLINE -> END: 3"]);
    assert_eq!(inner.take(), ["A -> B: 1", "B -> END: 2"]);
}

#[tokio::test]
async fn the_builder_and_a_stream_call_the_hook_too() {
    let seen = Seen::default();
    let mut graph = StateGraph::<Trip>::new();
    graph.add_node("A", stop {}).set_entry_point("A").add_edge("A", END);
    graph.on_commit(|_| panic!("replaced")).on_commit(seen.hook());
    let app = graph.compile(CompileOptions::new()).unwrap();
    let run = app.stream(Trip::default(), RunConfig::new());
    assert_eq!(run.finish().await.unwrap().stops, 1);
    assert_eq!(seen.take(), ["A -> END: 1"]);
}

#[tokio::test]
async fn a_panic_of_the_hook_changes_no_run_and_is_logged_once() {
    let (log, _guard) = capture();
    let app = graph! {
        node A = stop;
        node B = stop;
        A -> B -> END;
        compile { on_commit: |commit| assert!(commit.state.stops == 0, "the disk is full") }
    };
    for run in 1..=2 {
        assert_eq!(invoke(&app).await.unwrap().stops, 2);
        let lines = log.events("the hook `on_commit` panicked");
        assert_eq!(lines.len(), run, "once for each run");
        assert_eq!((lines[0].level, lines[0].field("node")), (Level::ERROR, "A"));
        assert_eq!(lines[0].field("error"), "panicked: the disk is full");
    }
}

#[tokio::test]
async fn a_payload_of_the_hooks_panic_that_panics_when_dropped_changes_no_run() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the destructor");
        }
    }
    let app = graph! {
        type State = Trip;
        node A = stop;
        node B = stop;
        A -> B -> END;
        compile { on_commit: |_| std::panic::panic_any(Bomb) }
    };
    assert_eq!(invoke(&app).await.unwrap().stops, 2);
}

#[tokio::test]
async fn a_commit_is_printed_without_the_state() {
    let printed = Arc::new(Mutex::new(String::new()));
    let print = Arc::clone(&printed);
    let app = graph! {
        node S = stop;
        S -> END;
        compile { on_commit: move |commit| *print.lock().unwrap() = format!("{commit:?}") }
    };
    invoke(&app).await.unwrap();
    let text = printed.lock().unwrap().clone();
    assert!(text.starts_with("Commit { node: \"S\", next: None, run_id: RunId("), "{text}");
}
