//! `any`: the first branch to succeed wins.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use agentflow::{
    CompileOptions, END, EachOptions, NodeError, NodeFailure, RunConfig, StateGraph,
    error::AttemptTimedOut,
    graph, node,
    run::{AllFailed, EventKind, RunErrorKind},
};
use tokio::time::sleep;

use crate::support::{Trip, TripUpdate, committed, events, failure, steps};

#[node]
async fn fast(_state: &Trip) -> TripUpdate {
    sleep(Duration::from_secs(1)).await;
    Trip::update().steps(["fast"]).count(1_u32)
}

#[node]
async fn slow(_state: &Trip) -> TripUpdate {
    sleep(Duration::from_secs(2)).await;
    Trip::update().steps(["slow"]).count(2_u32)
}

#[node]
async fn broken(_state: &Trip) -> Result<TripUpdate, NodeError> {
    Err("broken".into())
}

#[node]
async fn last(state: &mut Trip) {
    state.steps.push("last".into());
}

#[tokio::test(start_paused = true)]
async fn the_first_branch_that_succeeds_wins() {
    let app = graph! { START -> any { slow, fast } -> last -> END };
    assert_eq!(steps(&app).await, ["fast", "last"]);
    // A branch that fails first does not win.
    let app = graph! { START -> any { broken, slow } -> last -> END };
    assert_eq!(steps(&app).await, ["slow", "last"]);
}

#[tokio::test]
async fn of_branches_that_are_ready_at_once_the_first_written_wins() {
    #[node]
    async fn first(_state: &Trip) -> TripUpdate {
        Trip::update().steps(["first"])
    }
    #[node]
    async fn second(_state: &Trip) -> TripUpdate {
        Trip::update().steps(["second"])
    }
    let app = graph! { START -> any { first, second } -> END };
    assert_eq!(steps(&app).await, ["first"]);
    let app = graph! { START -> any { second, first } -> END };
    assert_eq!(steps(&app).await, ["second"]);
}

#[tokio::test(start_paused = true)]
async fn the_losers_are_dropped_before_the_winner_is_merged() {
    static DROPPED: AtomicBool = AtomicBool::new(false);
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            DROPPED.store(true, Ordering::SeqCst);
        }
    }
    #[node]
    async fn hangs(_state: &Trip) {
        let _guard = Guard;
        std::future::pending::<()>().await;
    }
    #[node]
    async fn looks(state: &mut Trip) {
        state.steps.push(DROPPED.load(Ordering::SeqCst).to_string());
    }
    let app = graph! { START -> any { hangs, fast } -> looks -> END };
    assert_eq!(steps(&app).await, ["fast", "true"]);
}

#[tokio::test]
async fn if_all_fail_the_error_has_every_cause() {
    #[node]
    async fn down(_state: &Trip) -> Result<(), std::io::Error> {
        Err(std::io::Error::other("down"))
    }
    let app = graph! { last -> any { broken, down } -> END };
    let mut error = failure(&app).await;
    assert_eq!(error.node(), Some("any {broken, down}"));
    let AllFailed { failures, .. } = error.downcast_ref().unwrap();
    assert_eq!(failures.iter().map(|failure| &*failure.node).collect::<Vec<_>>(), ["broken", "down"]);
    assert!(failures[1].source.downcast_ref::<std::io::Error>().is_some());
    let text = error.to_string();
    assert!(text.contains("broken") && text.contains("down"), "{text}");
    assert_eq!(committed(&mut error).steps, ["last"]);
}

#[tokio::test(start_paused = true)]
async fn timeouts_make_it_a_race_with_a_deadline() {
    #[node]
    async fn recover(state: &mut Trip, error: Option<&NodeFailure>) {
        let AllFailed { failures, .. } = error.unwrap().source.downcast_ref().unwrap();
        assert!(failures.iter().all(|failure| failure.source.downcast_ref::<AttemptTimedOut>().is_some()));
        state.steps.push("recovered".into());
    }
    let app = graph! {
        node FAST = fast { timeout: 100ms };
        node SLOW = slow { timeout: 200ms };
        START -> any { FAST, SLOW } { on_error: recover } -> last -> END;
        recover -> last
    };
    assert_eq!(steps(&app).await, ["recovered", "last"]);
    let app = graph! {
        node FAST = fast { timeout: 100ms };
        node SLOW = slow { timeout: 3s };
        START -> any { FAST, SLOW } -> last -> END
    };
    assert_eq!(steps(&app).await, ["slow", "last"]);
}

#[tokio::test(start_paused = true)]
async fn branches_of_any_replace_the_same_field_without_a_conflict() {
    let app = graph! { START -> any { fast -> AGAIN, slow } -> END; node AGAIN = again; };
    #[node]
    async fn again(state: &Trip) -> TripUpdate {
        Trip::update().count(state.count + 10)
    }
    let state = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!((state.count, state.steps), (11, vec!["fast".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn the_event_of_the_join_names_the_winner() {
    let app = graph! { START -> any { slow, fast } -> END };
    let joined = events(&app).await.into_iter().find_map(|kind| match kind {
        EventKind::GroupJoined { winner, fields, .. } => Some((winner, fields)),
        _ => None,
    });
    assert_eq!(joined, Some((Some("fast".to_owned()), vec!["steps".to_owned(), "count".to_owned()])));
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_in_a_branch_ends_the_run_and_not_the_branch() {
    #[node]
    async fn hangs(_state: &Trip) {
        std::future::pending::<()>().await;
    }
    let app = graph! { type State = Trip; START -> any { hangs, OTHER } -> END; node OTHER = hangs; };
    let config = RunConfig::new().with_run_timeout(Duration::from_secs(1));
    let error = app.invoke(Trip::default(), config).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::TimedOut { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn any_nests_and_the_builder_has_the_same() {
    let app = graph! { START -> { any { slow, fast }, last_parallel } -> END };
    #[node]
    async fn last_parallel(_state: &Trip) -> TripUpdate {
        Trip::update().steps(["beside"])
    }
    assert_eq!(steps(&app).await, ["fast", "beside"]);

    let mut graph = StateGraph::new();
    graph.add_parallel_node("SLOW", slow {}).add_parallel_node("FAST", fast {});
    graph.add_any("RACE", [["SLOW"], ["FAST"]]).set_entry_point("RACE").add_edge("RACE", END);
    let app = graph.compile(CompileOptions::new()).unwrap();
    assert_eq!(steps(&app).await, ["fast"]);
}

#[tokio::test(start_paused = true)]
async fn no_update_of_a_loser_is_merged() {
    #[node]
    async fn begin(_state: &Trip) -> TripUpdate {
        Trip::update().steps(["began"])
    }
    for (first, second) in (0..50_u64).map(|turn| (turn * 7 % 10 * 100, turn % 10 * 100 + 50)) {
        let mut graph = StateGraph::new();
        for (name, wait) in [("A", first), ("B", second)] {
            graph.add_parallel_node(format!("BEGIN_{name}"), begin {}).add_parallel_node(name, waits_for {});
            graph.add_each(format!("EACH_{name}"), move |_: &Trip| [wait], EachOptions::new(), [name]);
        }
        graph
            .add_any("RACE", [["BEGIN_A", "EACH_A"], ["BEGIN_B", "EACH_B"]])
            .set_entry_point("RACE")
            .add_edge("RACE", END);
        let app = graph.compile(CompileOptions::new()).unwrap();
        assert_eq!(steps(&app).await, ["began".to_owned(), first.min(second).to_string()]);
    }

    #[node]
    async fn waits_for(_state: &Trip, input: u64) -> TripUpdate {
        sleep(Duration::from_millis(input)).await;
        Trip::update().steps([input.to_string()])
    }
}
