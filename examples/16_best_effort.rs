//! A research team that continues with what it has: each question is researched in a branch of its own, and a branch that
//! fails leaves a gap in the report instead of ending the run.
//!
//! `on_error` names a node of the same branch. The failure of one question therefore neither cancels the others nor
//! reaches the graph around them: "write with what was found" is one option and one node.
//!
//! The original is the orchestrator with workers of <https://docs.langchain.com/oss/python/langgraph/workflows-agents>.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 16_best_effort
//!     4 items, 2 at once
//!     SEARCH[0] is done
//!     CITE[0] is done
//!     SEARCH[1] failed: the archive answered 503
//!     SEARCH[1] failed: the archive answered 503
//!     SEARCH[1] is given up, on to GAP[1]
//!     GAP[1] is done
//!     SEARCH[3] is done
//!     CITE[3] is done
//!     SEARCH[2] failed: timed out after 200ms
//!     SEARCH[2] failed: timed out after 200ms
//!     SEARCH[2] is given up, on to GAP[2]
//!     GAP[2] is done
//!
//! owls: they live on every continent but one; they live for ten years
//! sources: an atlas; a study of age
//! not found: SEARCH[1]: the archive answered 503
//! not found: SEARCH[2]: timed out after 200ms
//! ```

use std::time::Duration;

use agentflow::{NodeError, NodeFailure, RetryPolicy, RunConfig, State, graph, node, run::EventKind};
use tokio::time::sleep;

#[derive(Clone, Debug, Default, State)]
struct Report {
    topic: String,
    questions: Vec<String>,
    #[state(append)]
    findings: Vec<String>,
    #[state(append)]
    sources: Vec<String>,
    #[state(append)]
    gaps: Vec<String>,
    text: String,
}

fn questions(report: &Report) -> Vec<String> {
    report.questions.clone()
}

#[node(PLAN)]
async fn plan(state: &mut Report) {
    let questions = ["where do they live", "what do they eat", "what do they think", "how old do they get"];
    state.questions = questions.map(str::to_owned).to_vec();
}

#[node]
async fn search_archive(_state: &Report, input: &String) -> Result<ReportUpdate, NodeError> {
    let (milliseconds, found) = match input.as_str() {
        "where do they live" => (20, Ok("they live on every continent but one")),
        "how old do they get" => (30, Ok("they live for ten years")),
        "what do they eat" => (40, Err("the archive answered 503")),
        _ => (3_600_000, Err("the archive never answers")),
    };
    sleep(Duration::from_millis(milliseconds)).await;
    Ok(Report::update().findings([found?]))
}

/// Sees the state as it was before the branches, with the update of its own branch: one finding.
#[node(CITE)]
async fn cite(state: &Report) -> ReportUpdate {
    let source = |finding: &String| if finding.contains("years") { "a study of age" } else { "an atlas" };
    Report::update().sources(state.findings.iter().map(source))
}

/// Records that the branch of a question found nothing.
#[node(GAP)]
async fn note_gap(_state: &Report, error: Option<&NodeFailure>) -> ReportUpdate {
    Report::update().gaps(error.map(|failure| format!("{}: {}", failure.node, failure.source)))
}

#[node(WRITE)]
async fn write(state: &mut Report) {
    state.text = format!("{}: {}", state.topic, state.findings.join("; "));
}

// The clock is paused, so that the output is the same on every machine.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), agentflow::RunError> {
    let app = graph! {
        node SEARCH = search_archive {
            retry: RetryPolicy::new(1).backoff(Duration::from_millis(10)),
            timeout: 200ms,
            on_error: GAP,
        };
        PLAN -> each questions { max_parallel: 2 } { SEARCH -> CITE } -> WRITE -> END
    };

    let report = Report { topic: "owls".to_owned(), ..Report::default() };
    let mut run = app.stream(report, RunConfig::new());
    while let Some(event) = run.next().await {
        match event.kind {
            EventKind::GroupStarted { items: Some(items), .. } => println!("    {items} items, 2 at once"),
            EventKind::NodeEnded { node, .. } if node.ends_with(']') => println!("    {node} is done"),
            EventKind::NodeFailed { node, error, .. } => println!("    {node} failed: {error}"),
            EventKind::FallbackTaken { node, to, .. } => println!("    {node} is given up, on to {to}"),
            _ => {}
        }
    }
    let report = run.finish().await?;
    println!("\n{}", report.text);
    println!("sources: {}", report.sources.join("; "));
    report.gaps.iter().for_each(|gap| println!("not found: {gap}"));
    Ok(())
}
