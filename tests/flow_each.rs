//! `each`: one branch for each item.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agentflow::{
    CompileOptions, END, EachOptions, NodeError, NodeFailure, RunConfig, StateGraph,
    error::{Panicked, TooManyItems},
    graph,
    graph::BuildProblemKind,
    node,
    run::{EventKind, RunErrorKind},
};
use tokio::time::sleep;

use crate::support::{Trip, TripUpdate, events, failure, steps};

fn words(_: &Trip) -> [String; 3] {
    ["a", "bad", "c"].map(String::from)
}

#[node]
async fn look_up(_state: &Trip, input: &String) -> Result<TripUpdate, NodeError> {
    if input == "bad" {
        return Err("no such word".into());
    }
    Ok(Trip::update().steps([format!("found {input}")]))
}

#[node]
async fn say(_state: &Trip, input: &String) -> TripUpdate {
    Trip::update().steps([format!("said {input}")])
}

#[node]
async fn check(state: &Trip) -> TripUpdate {
    Trip::update().steps([format!("checked after {}", state.steps.last().unwrap())])
}

#[node]
async fn skip(_state: &Trip, error: Option<&NodeFailure>) -> TripUpdate {
    Trip::update().steps([format!("skipped {}", error.unwrap().node)])
}

#[node]
async fn last(state: &mut Trip) {
    state.steps.push("last".into());
}

#[tokio::test]
async fn the_branch_runs_for_each_item_and_the_updates_are_merged_in_item_order() {
    #[node]
    async fn slowest_first(_state: &Trip, input: u64) -> TripUpdate {
        sleep(Duration::from_millis(100 - input)).await;
        Trip::update().steps([input.to_string()])
    }
    tokio::time::pause();
    let app = graph! { START -> each |_: &Trip| 1..=5_u64 { slowest_first -> check } -> last -> END };
    let expected: Vec<_> = (1..=5)
        .flat_map(|item| [item.to_string(), format!("checked after {item}")])
        .chain(["last".to_owned()])
        .collect();
    assert_eq!(steps(&app).await, expected);
}

#[tokio::test]
async fn without_items_the_run_goes_on_at_once() {
    let app = graph! { START -> each |_: &Trip| Vec::<String>::new() { say } -> last -> END };
    assert_eq!(steps(&app).await, ["last"]);
}

#[tokio::test]
async fn items_may_be_computed_by_an_iterator_that_borrows_from_the_state() {
    fn lengths(state: &Trip) -> impl Iterator<Item = usize> + '_ {
        state.steps.iter().map(String::len)
    }
    #[node]
    async fn number(_state: &Trip, input: usize) -> TripUpdate {
        Trip::update().steps([input.to_string()])
    }
    let app = graph! { last -> each lengths { number } -> END };
    assert_eq!(steps(&app).await, ["last", "4"]);
}

#[tokio::test]
async fn at_most_max_parallel_items_run_at_once() {
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    #[node]
    async fn busy(_state: &Trip, input: usize) {
        MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        sleep(Duration::from_millis(u64::try_from(input).unwrap())).await;
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
    tokio::time::pause();
    let app = graph! { type State = Trip; START -> each |_: &Trip| 0..20_usize { max_parallel: 3 } { busy } -> END };
    steps(&app).await;
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn ten_thousand_items_run_with_a_bounded_number_at_once() {
    #[node]
    async fn odd(_state: &Trip, input: usize) -> Option1 {
        tokio::task::yield_now().await;
        if input % 2 == 1 { Trip::update().steps([input.to_string()]) } else { Trip::update() }
    }
    type Option1 = TripUpdate;
    let app = graph! { START -> each |_: &Trip| 0..10_000_usize { odd } -> END };
    let ran = steps(&app).await;
    assert_eq!(ran.len(), 5_000);
    assert!(ran.iter().enumerate().all(|(index, step)| *step == (2 * index + 1).to_string()));
}

#[tokio::test]
async fn an_item_that_fails_ends_the_others_and_merges_nothing() {
    let app = graph! { last -> each words { look_up } -> last2 -> END; node last2 = last; };
    let mut error = failure(&app).await;
    assert_eq!(error.node(), Some("look_up[1]"));
    assert_eq!(crate::support::committed(&mut error).steps, ["last"]);
}

#[tokio::test]
async fn an_item_that_recovers_leaves_the_others_alone() {
    let app = graph! {
        node LOOK_UP = look_up { on_error: skip };
        START -> each words { LOOK_UP -> check } -> END
    };
    let expected = ["found a", "checked after found a", "skipped LOOK_UP[1]", "found c", "checked after found c"];
    assert_eq!(steps(&app).await, expected);
}

#[tokio::test]
async fn events_name_the_item() {
    let app = graph! {
        node LOOK_UP = look_up { on_error: skip };
        START -> each words { LOOK_UP } -> END
    };
    let kinds = events(&app).await;
    assert!(kinds.iter().any(|kind| matches!(
        kind,
        EventKind::GroupStarted { nodes, items: Some(3), .. } if nodes == &["LOOK_UP"]
    )));
    let started: Vec<_> = kinds
        .iter()
        .filter_map(|kind| match kind {
            EventKind::NodeStarted { node, .. } => Some(node.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(started, ["LOOK_UP[0]", "LOOK_UP[1]", "skip[1]", "LOOK_UP[2]"]);
    assert!(kinds.iter().any(
        |kind| matches!(kind, EventKind::FallbackTaken { node, to, .. } if node == "LOOK_UP[1]" && to == "skip[1]")
    ));
}

#[tokio::test]
async fn each_nests_in_each_and_in_groups() {
    #[node]
    async fn outer(_state: &Trip, input: usize) -> TripUpdate {
        Trip::update().count(u32::try_from(input).unwrap())
    }
    #[node]
    async fn inner(state: &Trip, input: u32) -> TripUpdate {
        Trip::update().steps([format!("{}.{input}", state.count)])
    }
    #[node]
    async fn reset(_state: &Trip) -> TripUpdate {
        Trip::update()
    }
    let app = graph! {
        START -> { each |_: &Trip| 1..=1_usize { outer -> each |state: &Trip| 0..state.count + 1 { inner } }, reset } -> END
    };
    assert_eq!(steps(&app).await, ["1.0", "1.1"]);
}

#[tokio::test]
async fn the_first_node_of_each_branch_of_a_group_has_the_item() {
    let app = graph! {
        node AGAIN = say;
        START -> each words { { say, AGAIN } -> check } -> END
    };
    let ran = steps(&app).await;
    assert_eq!(ran[..3], ["said a", "said a", "checked after said a"]);
    assert_eq!(ran.len(), 9);
}

#[tokio::test]
async fn two_items_that_replace_one_field_conflict() {
    #[node]
    async fn replace(_state: &Trip, input: u32) -> TripUpdate {
        Trip::update().count(input)
    }
    let app = graph! { START -> each |_: &Trip| [1_u32, 2] { replace } -> END };
    let error = failure(&app).await;
    let RunErrorKind::Conflict { field, nodes, .. } = error.kind() else { panic!("{error}") };
    assert_eq!((*field, nodes.each_ref().map(|node| &**node)), ("count", ["replace[0]", "replace[1]"]));
    // One item alone conflicts with no other, even if it replaces the field twice.
    let app = graph! { node B = twice; START -> each |_: &Trip| [1_u32] { replace -> B } -> END };
    #[node]
    async fn twice(state: &Trip) -> TripUpdate {
        Trip::update().count(state.count * 2)
    }
    assert_eq!(app.invoke(Trip::default(), RunConfig::new()).await.unwrap().count, 2);
}

#[tokio::test]
async fn a_branch_of_each_decides_and_loops() {
    #[node]
    async fn begin(_state: &Trip, input: u32) -> TripUpdate {
        Trip::update().count(input)
    }
    #[node]
    async fn halve(state: &Trip) -> (TripUpdate, bool) {
        (Trip::update().count(state.count / 2).steps([state.count.to_string()]), state.count > 1)
    }
    let app = graph! {
        START -> each |_: &Trip| [5_u32] { begin -> halve -> match { true => halve, false => JOIN } } -> END
    };
    assert_eq!(steps(&app).await, ["5", "2", "1"]);
}

#[tokio::test]
async fn a_function_of_items_that_panics_is_the_failure_of_the_each() {
    fn broken(_: &Trip) -> Vec<String> {
        panic!("no items")
    }
    let app = graph! { START -> each broken { say } -> END };
    let error = failure(&app).await;
    assert_eq!(error.node(), Some("each {say}"));
    assert_eq!(&*error.downcast_ref::<Panicked>().unwrap().message, "no items");
    // An iterator that panics is the same.
    let app = graph! { START -> each |_: &Trip| (0..).map(|n: u8| 2 - n).map(|n| n.to_string()) { say } -> END };
    assert!(failure(&app).await.downcast_ref::<Panicked>().is_some());
}

#[tokio::test]
async fn an_iterator_without_end_is_bounded_by_a_typed_error() {
    let app = graph! { START -> each |_: &Trip| std::iter::repeat(String::new()) { max_items: 100 } { say } -> END };
    let error = failure(&app).await;
    assert_eq!(error.downcast_ref::<TooManyItems>().unwrap().limit, 100);
    let app = graph! { START -> each |_: &Trip| vec![String::new(); 100] { max_items: 100 } { say } -> END };
    assert_eq!(steps(&app).await.len(), 100);
}

#[tokio::test]
async fn an_each_has_a_fallback_of_its_own() {
    #[node]
    async fn recover(state: &mut Trip, error: Option<&NodeFailure>) {
        state.steps.push(format!("instead of {}", error.unwrap().node));
    }
    let app = graph! {
        START -> each words { on_error: recover } { look_up } -> last -> END;
        recover -> END
    };
    assert_eq!(steps(&app).await, ["instead of look_up[1]"]);
    let app = graph! {
        START -> each words { look_up } { on_error: recover } -> last -> END;
        recover -> END
    };
    assert_eq!(steps(&app).await, ["instead of look_up[1]"]);
}

#[tokio::test]
async fn the_longest_item_counts_towards_the_recursion_limit() {
    let app = graph! {
        node C1 = check; node C2 = check;
        START -> each words { say -> C1 -> C2 } -> last -> END;
        compile { recursion_limit: 4 }
    };
    assert_eq!(steps(&app).await.len(), 10);
    let app = graph! {
        node C1 = check; node C2 = check;
        START -> each words { say -> C1 -> C2 } -> last -> END;
        compile { recursion_limit: 3 }
    };
    assert!(matches!(failure(&app).await.kind(), RunErrorKind::RecursionLimit { .. }));
}

#[tokio::test]
async fn an_interrupt_names_the_node_of_an_item() {
    #[node]
    async fn stuck(_state: &Trip, input: &String) {
        let _ = input;
        std::future::pending::<()>().await;
    }
    tokio::time::pause();
    let app = graph! { type State = Trip; START -> each words { stuck } -> END };
    let config = RunConfig::new().with_run_timeout(Duration::from_secs(1));
    let error = app.invoke(Trip::default(), config).await.unwrap_err();
    assert!(error.node().unwrap().starts_with("stuck["), "{error}");
}

#[tokio::test]
async fn dropping_the_run_drops_the_items_once() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    #[node]
    async fn hold(_state: &Trip, input: &Counted) {
        let _ = &input.0;
        std::future::pending::<()>().await;
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dropped);
    let app = graph! {
        type State = Trip;
        START -> each |_: &Trip| [(); 7].map(|()| Counted(Arc::clone(&counted))) { max_parallel: 2 } { hold } -> END
    };
    tokio::time::pause();
    let config = RunConfig::new().with_run_timeout(Duration::from_secs(1));
    app.invoke(Trip::default(), config).await.unwrap_err();
    assert_eq!(dropped.load(Ordering::SeqCst), 7);
}

#[tokio::test]
async fn the_builder_has_the_same_each() {
    let mut graph = StateGraph::new();
    graph.add_parallel_node("SAY", say {}).add_parallel_node("CHECK", check {});
    graph.add_each("WORDS", words, EachOptions::new().max_parallel(1), ["SAY", "CHECK"]);
    graph.set_entry_point("WORDS").add_edge("WORDS", END);
    let app = graph.compile(CompileOptions::new()).unwrap();
    assert_eq!(steps(&app).await.len(), 6);

    let mut graph = StateGraph::new();
    graph.add_parallel_node("SAY", say {}).add_parallel_node("CHECK", check {});
    graph.add_each("WORDS", |_: &Trip| 0..3_u8, EachOptions::new(), ["SAY", "CHECK"]);
    graph.set_entry_point("WORDS").add_edge("WORDS", END);
    let error = graph.compile(CompileOptions::new()).unwrap_err();
    assert!(matches!(&error.problems()[0].kind, BuildProblemKind::WrongInput { carried: "u8", .. }), "{error}");
}

#[tokio::test]
async fn a_loop_around_an_each_without_items_reaches_the_recursion_limit() {
    let mut graph = StateGraph::new();
    graph.add_parallel_node("SAY", say {});
    graph.add_each("NONE", |_: &Trip| Vec::<String>::new(), EachOptions::new(), ["SAY"]).set_entry_point("NONE");
    graph.add_route("NONE", |_: &Trip| true, [(true, "NONE".into()), (false, END.into())]);
    let app = graph.compile(CompileOptions::new()).unwrap();
    assert!(matches!(failure(&app).await.kind(), RunErrorKind::RecursionLimit { .. }));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_items_with_random_waits_are_merged_in_item_order_and_see_no_sibling() {
    /// Waits as long as a hash of the item says.
    #[node]
    async fn shuffled(_state: &Trip, input: u64) -> TripUpdate {
        sleep(Duration::from_millis(input.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54)).await;
        Trip::update().steps([input.to_string()])
    }
    #[node]
    async fn sees_itself(state: &Trip) -> Result<(), NodeError> {
        if state.steps.len() == 1 { Ok(()) } else { Err("a branch sees its sibling".into()) }
    }
    let app = graph! { START -> each |_: &Trip| 0..10_000_u64 { shuffled -> sees_itself } -> END };
    let ran = steps(&app).await;
    assert_eq!(ran, (0..10_000).map(|item| item.to_string()).collect::<Vec<_>>());
}
