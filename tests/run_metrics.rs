//! Metrics of runs and nodes, as the `metrics` facade receives them.

use std::{collections::BTreeMap, future::pending, time::Duration};

use agentflow::{AgentState, Ask, CancellationToken, NodeError, RunConfig, RunError, graph, node};
use tokio::time::sleep;

use crate::{
    support::settle,
    task_metrics::{Broken, lines, record_metrics, recorded},
};

const SECOND: Duration = Duration::from_secs(1);

#[node]
async fn quick(_state: &AgentState) {
    sleep(SECOND).await;
}

#[node]
async fn slow(_state: &AgentState) {
    sleep(3 * SECOND).await;
}

#[node]
async fn stuck(_state: &AgentState) {
    pending::<()>().await;
}

#[node]
async fn fails(_state: &AgentState) -> Result<(), NodeError> {
    Err("no route".into())
}

#[node]
async fn panics(_state: &AgentState) {
    panic!("boom")
}

/// Returns the series of the attempts of nodes.
fn attempts(series: &BTreeMap<String, String>) -> Vec<String> {
    lines(series).into_iter().filter(|line| line.starts_with("agentflow_node_attempts_total")).collect()
}

/// Returns the outcomes of attempts, then those of runs.
fn outcomes(series: &BTreeMap<String, String>) -> Vec<String> {
    let of = |name: &str| name.starts_with("agentflow_runs_ended") || name.starts_with("agentflow_node_attempts");
    let names = series.keys().filter(|name| of(name));
    names.map(|name| name.rsplit_once("outcome=").unwrap().1.trim_end_matches('}').to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_run_and_its_nodes_are_counted_and_measured() {
    let (metrics_seen, _guard) = record_metrics();
    let app = graph! {
        name = "trip";
        graph SUB { slow -> END }
        quick -> SUB -> END;
    };
    let running = tokio::spawn({
        let app = app.clone();
        async move { app.invoke(AgentState::default(), RunConfig::new()).await.map(drop) }
    });
    settle().await;
    assert_eq!(
        lines(&recorded(&metrics_seen)),
        ["agentflow_runs_in_flight{graph=trip} 1", "agentflow_runs_started_total{graph=trip} 1"]
    );
    running.await.unwrap().unwrap();
    assert_eq!(
        lines(&recorded(&metrics_seen)),
        [
            "agentflow_node_attempts_total{graph=trip,node=SUB,outcome=completed} 1",
            "agentflow_node_attempts_total{graph=trip,node=SUB/slow,outcome=completed} 1",
            "agentflow_node_attempts_total{graph=trip,node=quick,outcome=completed} 1",
            "agentflow_node_duration_seconds{graph=trip,node=SUB,outcome=completed} 3",
            "agentflow_node_duration_seconds{graph=trip,node=SUB/slow,outcome=completed} 3",
            "agentflow_node_duration_seconds{graph=trip,node=quick,outcome=completed} 1",
            "agentflow_run_duration_seconds{graph=trip,outcome=completed} 4",
            "agentflow_runs_ended_total{graph=trip,outcome=completed} 1",
            "agentflow_runs_in_flight{graph=trip} -1",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_items_of_an_each_are_one_series() {
    #[node]
    async fn item1(_state: &AgentState, input: usize) {
        sleep(Duration::from_secs(input.try_into().unwrap())).await;
    }
    let (metrics_seen, _guard) = record_metrics();
    let app = graph! {
        name = "trip";
        graph SUB { quick -> END }
        START -> each |_: &AgentState| [1, 2] { item1 -> SUB } -> END
    };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let counter = |node: &str| format!("agentflow_node_attempts_total{{graph=trip,node={node},outcome=completed}} 2");
    assert_eq!(attempts(&recorded(&metrics_seen)), ["SUB", "SUB/quick", "item1"].map(counter));
}

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_node_has_its_outcome() {
    let (metrics_seen, _guard) = record_metrics();
    let app = graph! {
        node FAILS = fails { retry: 2, on_error: PANICS };
        node PANICS = panics { on_error: STUCK };
        node STUCK = stuck { timeout: 1s, on_error: quick };
        FAILS -> PANICS -> STUCK -> quick -> END;
    };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!(
        attempts(&recorded(&metrics_seen)),
        [
            "agentflow_node_attempts_total{graph=graph,node=FAILS,outcome=failed} 3",
            "agentflow_node_attempts_total{graph=graph,node=PANICS,outcome=panicked} 1",
            "agentflow_node_attempts_total{graph=graph,node=STUCK,outcome=timed_out} 1",
            "agentflow_node_attempts_total{graph=graph,node=quick,outcome=completed} 1",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_run_is_a_label() {
    #[node]
    async fn asks(answer: Option<()>) -> Ask<()> {
        answer.map_or(Ask::Question(()), Ask::Done)
    }
    fn turns(_state: &AgentState) -> bool {
        true
    }

    let (metrics_seen, _guard) = record_metrics();
    let ended = |run: Result<AgentState, RunError>| {
        assert!(run.is_err());
        let series = recorded(&metrics_seen);
        assert_eq!(series["agentflow_runs_in_flight{graph=graph}"], "0");
        outcomes(&series)
    };
    let app = graph! { stuck -> END; compile { shutdown_timeout: 1s } };
    let state = AgentState::default;

    let asking = graph! { asks -> END };
    assert_eq!(ended(asking.invoke(state(), RunConfig::new()).await), ["asked", "asked"]);
    let failing = graph! { fails -> END };
    assert_eq!(ended(failing.invoke(state(), RunConfig::new()).await), ["failed", "failed"]);
    let looping = graph! { quick -> match turns { true => quick, false => END }; compile { recursion_limit: 2 } };
    assert_eq!(ended(looping.invoke(state(), RunConfig::new()).await), ["completed", "recursion_limit"]);
    let run = app.invoke(state(), RunConfig::new().with_run_timeout(SECOND)).await;
    assert_eq!(ended(run), ["interrupted", "timed_out"]);

    let token = CancellationToken::new();
    let config = RunConfig::new().with_cancellation_token(token.clone());
    let (run, ()) = tokio::join!(app.invoke(state(), config), async {
        settle().await;
        token.cancel();
    });
    assert_eq!(ended(run), ["interrupted", "cancelled"]);

    tokio::select! {
        biased;
        _ = app.invoke(state(), RunConfig::new()) => panic!("it is stuck"),
        () = settle() => {}
    }
    assert_eq!(outcomes(&recorded(&metrics_seen)), ["interrupted", "dropped"]);

    let (run, _) = tokio::join!(app.invoke(state(), RunConfig::new()), app.aclose());
    assert_eq!(ended(run), ["interrupted", "shut_down"]);
    app.invoke(state(), RunConfig::new()).await.unwrap_err();
    failing.invoke_from("fail", state(), RunConfig::new()).await.unwrap_err();
    assert_eq!(
        lines(&recorded(&metrics_seen)),
        [
            "agentflow_runs_rejected_total{graph=graph,reason=closed} 1",
            "agentflow_runs_rejected_total{graph=graph,reason=unknown_node} 1",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_branches_of_a_group_are_counted_and_a_failure_interrupts_the_others() {
    let (metrics_seen, _guard) = record_metrics();
    let app = graph! { START -> { quick -> fails, stuck } -> END };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
    assert_eq!(
        attempts(&recorded(&metrics_seen)),
        [
            "agentflow_node_attempts_total{graph=graph,node=fails,outcome=failed} 1",
            "agentflow_node_attempts_total{graph=graph,node=quick,outcome=completed} 1",
            "agentflow_node_attempts_total{graph=graph,node=stuck,outcome=interrupted} 1",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_panicking_recorder_changes_no_run() {
    let _guard = metrics::set_default_local_recorder(&Broken);
    let app = graph! { node F = fails { retry: 1, on_error: quick }; F -> quick -> END };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let stopped = graph! { stuck -> END };
    let error = stopped.invoke(AgentState::default(), RunConfig::new().with_run_timeout(SECOND)).await.unwrap_err();
    assert_eq!(error.to_string(), "timed out after 1s at node `stuck`");
    assert!(stopped.invoke_from("none", AgentState::default(), RunConfig::new()).await.is_err());
    assert_eq!(app.aclose().await.runs.still_running, []);
}
