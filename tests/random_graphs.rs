//! Random graphs against a reference interpreter, on the paused clock.
//!
//! Each test runs a few hundred cases. `AGENTFLOW_RANDOM_CASES` sets another number, for a search that takes minutes:
//!
//! ```sh
//! AGENTFLOW_RANDOM_CASES=20000 cargo nextest run -p agentflow-tests random_graphs
//! ```
//!
//! A test prints the smallest program that it finds to fail, as data.

mod build;
mod events;
mod generator;
mod interpreter;
mod nodes;
mod on_threads;
mod program;
mod wiring;

use std::time::Duration;

use agentflow::{CancellationToken, RunConfig, RunError, run::LastState};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use build::compile;
use events::{Lines, end_line, event_line};
use generator::{cancel_instant, graph, program};
use interpreter::{End, Prediction, predict};
use program::{Program, Trace};
use wiring::{broken_rules, build, calls, reported};

fn config() -> ProptestConfig {
    let cases = std::env::var("AGENTFLOW_RANDOM_CASES").map_or(300, |cases| cases.parse().unwrap());
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The result, the events and the duration of a run.
struct Observation {
    result: Result<Trace, RunError>,
    elapsed: u64,
    lines: Lines,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Invoke,
    Stream,
}

/// Runs a program, and cancels the run at an instant.
fn run(program: &Program, form: Form, cancel_at: Option<u64>) -> Observation {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let app = compile(&program.graph).unwrap();
        let token = CancellationToken::new();
        let mut config = RunConfig::new().with_cancellation_token(token.clone());
        if let Some(timeout) = program.run_timeout {
            config = config.with_run_timeout(Duration::from_millis(timeout));
        }
        if let Some(instant) = cancel_at {
            tokio::spawn(async move {
                sleep(Duration::from_millis(instant)).await;
                token.cancel();
            });
        }
        let started = Instant::now();
        let elapsed = || u64::try_from(started.elapsed().as_millis()).unwrap();
        let mut lines = Lines::default();
        let result = match form {
            Form::Invoke => app.invoke(Trace::default(), config).await,
            Form::Stream => {
                let mut stream = app.stream(Trace::default(), config);
                while let Some(event) = stream.next().await {
                    lines.push(elapsed(), event_line(&event.kind));
                }
                stream.finish().await
            }
        };
        Observation { result, elapsed: elapsed(), lines }
    })
}

fn check_result(prediction: &Prediction, observed: Observation) -> Result<(), TestCaseError> {
    prop_assert_eq!(observed.elapsed, prediction.elapsed, "elapsed");
    let (mut error, expected) = match (observed.result, &prediction.end) {
        (Ok(state), End::Reached(expected)) => {
            prop_assert_eq!(&state, expected);
            return Ok(());
        }
        (Err(error), expected @ End::Failed { .. }) => (error, expected),
        (result, expected) => {
            return Err(TestCaseError::fail(format!("the run returned {result:?}, and not {expected:?}")));
        }
    };
    let node = error.node().unwrap_or_default().to_owned();
    let (is_committed, state) = match error.take_state().unwrap() {
        LastState::Committed(state) => (true, state),
        LastState::Uncommitted(state) => (false, state),
    };
    let End::Failed { nodes, .. } = expected else { unreachable!("matched above") };
    let error = end_line(&error.to_string());
    let is_named = nodes.contains(&node);
    prop_assert!(is_named, "the error names {node}, and not one of {nodes:?}: {error}");
    prop_assert_eq!(&End::Failed { error, nodes: nodes.clone(), is_committed, state }, expected);
    Ok(())
}

fn check_lines(prediction: &Prediction, observed: &Lines) -> Result<(), TestCaseError> {
    if !prediction.is_unordered {
        prop_assert_eq!(observed, &prediction.lines);
        return Ok(());
    }
    prop_assert_eq!(observed.sorted(), prediction.lines.sorted());
    for subject in prediction.lines.subjects() {
        prop_assert_eq!(observed.of_subject(subject), prediction.lines.of_subject(subject));
    }
    Ok(())
}

/// Every group that starts is joined or has failed.
fn check_groups(observed: &Lines) -> Result<(), TestCaseError> {
    let closed = observed.count_of("fork joined") + observed.count_of("fork failed");
    prop_assert_eq!(observed.count_of("fork started"), closed);
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_invoked_run_does_what_the_interpreter_does(program in program()) {
        let prediction = predict(&program, None);
        if !prediction.is_undefined {
            check_result(&prediction, run(&program, Form::Invoke, None))?;
        }
    }

    #[test]
    fn a_streamed_run_has_the_events_of_the_interpreter_and_the_result_of_an_invoked_run(program in program()) {
        let prediction = predict(&program, None);
        if !prediction.is_undefined {
            let streamed = run(&program, Form::Stream, None);
            check_lines(&prediction, &streamed.lines)?;
            check_groups(&streamed.lines)?;
            check_result(&prediction, streamed)?;
        }
    }

    #[test]
    fn a_run_that_is_cancelled_at_any_instant_fails_there_or_has_its_whole_result(
        program in program(),
        thousandths in 0..1_100_u64,
    ) {
        let whole = predict(&program, None);
        let instant = cancel_instant(whole.elapsed, thousandths);
        let prediction = predict(&program, Some(instant));
        if !prediction.is_undefined {
            for form in [Form::Invoke, Form::Stream] {
                let observed = run(&program, form, Some(instant));
                if form == Form::Stream {
                    check_lines(&prediction, &observed.lines)?;
                    check_groups(&observed.lines)?;
                }
                let is_whole = observed.result.is_ok();
                check_result(&prediction, observed)?;
                prop_assert!(!is_whole || prediction.end == whole.end);
            }
        }
    }

    #[test]
    fn a_graph_compiles_if_it_breaks_no_rule(calls in calls(graph(1))) {
        let broken = broken_rules(&calls);
        match build(&calls) {
            Ok(_) => prop_assert!(broken.is_empty(), "compiled, and breaks {broken:?}"),
            Err(error) => {
                let reported = reported(&error);
                prop_assert!(reported.is_subset(&broken), "{reported:?} is reported, and not some of {broken:?}");
            }
        }
    }

    #[test]
    fn pictures_of_all_graphs_show_their_nodes(program in program()) {
        let app = compile(&program.graph).unwrap();
        let (mermaid, dot) = (app.mermaid(), app.dot());
        prop_assert!(mermaid.starts_with("flowchart"), "{mermaid}");
        prop_assert!(dot.starts_with("digraph"), "{dot}");
        for name in program.graph.node_names() {
            prop_assert!(mermaid.contains(&name), "{name} is missing:\n{mermaid}");
            prop_assert!(dot.contains(&name), "{name} is missing:\n{dot}");
        }
    }
}
