//! A team that plans, researches in parallel, writes, and reviews until the reviewer is satisfied.
//!
//! It shows a state with a derive, a group and its join, retries and timeouts, a loop, the live events of a run, and
//! the picture of the graph, which is kept in `research_team.mmd`:
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 07_research_team -- --mermaid > examples/research_team.mmd
//! ```
//!
//! Without the flag it prints the picture and then runs the graph:
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 07_research_team
//! flowchart TD
//!     ...
//! PLAN starts
//! PLAN is done
//! in parallel: WEB, ARCHIVE, EXPERT
//! WEB starts
//! ARCHIVE starts
//! ARCHIVE failed: the archive answered 503
//! ARCHIVE starts again, attempt 2
//! EXPERT starts
//! EXPERT is done
//! WEB is done
//! ARCHIVE failed: timed out after 200ms
//! ARCHIVE starts again, attempt 3
//! ARCHIVE is done
//! joined, new: notes
//! ...
//! REVIEW: Verdict::Redo, on to WRITE
//! ...
//! REVIEW: Verdict::Ok, on to END
//! => owls live on every continent but one (web); owls eat mice (archive); where they live, what they eat depends on the owl (expert)
//! ```

use std::time::Duration;

use agentflow::{CompiledGraph, RunConfig, State, graph, node, run::EventKind};
use tokio::time::sleep;

/// The state of the team. Researchers add notes in parallel, so notes are appended; other fields have one author.
#[derive(Clone, Default, State)]
struct Report {
    topic: String,
    questions: Vec<String>,
    #[state(append)]
    notes: Vec<String>,
    draft: String,
    remarks: Vec<String>,
}

enum Verdict {
    Ok,
    Redo,
}

#[derive(Debug, thiserror::Error)]
#[error("the archive answered 503")]
struct Unavailable;

#[node(PLAN)]
async fn plan(state: &mut Report) {
    state.questions = vec!["where they live".to_owned(), "what they eat".to_owned()];
}

#[node(WEB)]
async fn search_web(state: &Report) -> ReportUpdate {
    sleep(Duration::from_millis(100)).await;
    Report::update().notes([format!("{} live on every continent but one (web)", state.topic)])
}

/// Fails in the first attempt and hangs in the second.
#[node]
async fn search_archive(state: &Report, attempt: u32) -> Result<ReportUpdate, Unavailable> {
    match attempt {
        1 => return Err(Unavailable),
        2 => sleep(Duration::from_hours(1)).await,
        _ => {}
    }
    Ok(Report::update().notes([format!("{} eat mice (archive)", state.topic)]))
}

#[node(EXPERT)]
async fn ask_expert(state: &Report) -> ReportUpdate {
    sleep(Duration::from_millis(50)).await;
    let questions = state.questions.join(", ");
    Report::update().notes([format!("{questions} depends on the owl (expert)")])
}

#[node(WRITE)]
async fn write(state: &mut Report) {
    let separator = if state.remarks.is_empty() { " and " } else { "; " };
    state.draft = state.notes.join(separator);
}

#[node(REVIEW)]
async fn review(state: &mut Report) {
    state.remarks.clear();
    if state.draft.contains(" and ") {
        state.remarks.push("one long sentence".to_owned());
    }
}

fn verdict(report: &Report) -> Verdict {
    if report.remarks.is_empty() { Verdict::Ok } else { Verdict::Redo }
}

fn research_team() -> CompiledGraph<Report> {
    graph! {
        name = "research team";
        node ARCHIVE = search_archive { retry: 3, timeout: 200ms };

        PLAN -> { WEB, ARCHIVE, EXPERT } -> WRITE -> REVIEW -> match verdict {
            Verdict::Ok => END,
            Verdict::Redo => WRITE,
        }
    }
}

/// Formats an event as a line of the log, or returns `None` for an event that the log omits.
fn line(event: EventKind) -> Option<String> {
    Some(match event {
        EventKind::NodeStarted { node, attempt: 1, .. } => format!("{node} starts"),
        EventKind::NodeStarted { node, attempt, .. } => format!("{node} starts again, attempt {attempt}"),
        EventKind::NodeEnded { node, .. } => format!("{node} is done"),
        EventKind::NodeFailed { node, error, .. } => format!("{node} failed: {error}"),
        EventKind::GroupStarted { nodes, .. } => format!("in parallel: {}", nodes.join(", ")),
        EventKind::GroupJoined { fields, .. } => format!("joined, new: {}", fields.join(", ")),
        EventKind::RouteTaken { node, route, to, .. } => format!("{node}: {route}, on to {to}"),
        _ => return None,
    })
}

#[tokio::main]
async fn main() -> Result<(), agentflow::RunError> {
    let team = research_team();
    print!("{}", team.mermaid());
    if std::env::args().any(|argument| argument == "--mermaid") {
        return Ok(());
    }

    let report = Report { topic: "owls".to_owned(), ..Report::default() };
    let mut run = team.stream(report, RunConfig::new());
    while let Some(event) = run.next().await {
        if let Some(line) = line(event.kind) {
            println!("{line}");
        }
    }
    println!("=> {}", run.finish().await?.draft);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_picture_is_current() {
        assert_eq!(super::research_team().mermaid(), include_str!("research_team.mmd"));
    }
}
