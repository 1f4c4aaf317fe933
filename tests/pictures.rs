//! Pictures of graphs. `.ci/pictures` reads hostile labels back with the real parsers.

use std::{env, fs, path::Path};

use agentflow::{BackgroundTaskManager, CompiledGraph, NodeFailure, Route, graph, node, task::SpawnError};

use crate::support::{Say, Trip};

#[derive(Route)]
enum Step {
    Wait { turns: u32 },
    Name(&'static str),
    Done,
}

#[node]
async fn decide(state: &Trip) -> Step {
    match state.count {
        0 => Step::Done,
        turns @ 1..=9 => Step::Wait { turns },
        _ => Step::Name("b"),
    }
}

#[node]
async fn recover(state: &mut Trip, error: Option<&NodeFailure>) {
    state.title = error.map(ToString::to_string).unwrap_or_default();
}

fn chain() -> CompiledGraph<Trip> {
    graph! { name = "trip"; node A = (Say); node B = (Say); A -> B -> END }
}

fn decisions() -> CompiledGraph<Trip> {
    graph! {
        node A = (Say);
        A -> match |state: &Trip| state.count { 0 | 1 => decide, n if n > 9 => A, _ => END };
        decide -> match {
            Step::Wait { turns: 1..=3 } => A,
            Step::Name("<\"b\"> & #c") => A,
            Step::Wait { .. } | Step::Name(_) | Step::Done => END,
        }
    }
}

fn groups() -> CompiledGraph<Trip> {
    graph! {
        node A = (Say);
        node B = (Say);
        node C = (Say);
        node D = (Say);
        node E = (Say);
        A -> { B -> C, { D, E } -> F } -> match |_: &Trip| true { true => A, false => END };
        node F = (Say);
    }
}

fn subgraphs() -> CompiledGraph<Trip> {
    graph! {
        node A = (Say);
        node OTHER = chain();
        graph SUB {
            node B = (Say);
            B -> END
        }
        A -> SUB -> OTHER -> A2 -> END;
        node A2 = (Say);
    }
}

fn options() -> CompiledGraph<Trip> {
    graph! {
        node A = (Say) { retry: 3, timeout: 1.5s, on_error: recover };
        node B = (Say) { label: "say \"<b>\"\nagain" };
        A -> B -> END;
        recover -> B
    }
}

/// Compares pictures with files, which a viewer can display. `PICTURES=overwrite` writes the files: look at the new
/// pictures before you commit them.
fn check(picture: &str, file: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if env::var_os("PICTURES").is_some_and(|value| value == "overwrite") {
        fs::write(&file, picture).unwrap();
    }
    assert_eq!(picture, fs::read_to_string(file).unwrap());
}

macro_rules! pictures {
    ($($graph:ident)*) => {$(
        #[test]
        fn $graph() {
            let app = super::$graph();
            super::check(&app.mermaid(), concat!("pictures/", stringify!($graph), ".mmd"));
            super::check(&app.dot(), concat!("pictures/", stringify!($graph), ".dot"));
            super::check(&app.svg(), concat!("pictures/", stringify!($graph), ".svg"));
        }
    )*};
}

mod shows {
    pictures! { chain decisions groups subgraphs options }
}

#[test]
fn labels_are_escaped() {
    let app: CompiledGraph<Trip> = graph! {
        node A = (Say) { label: "\"a\" <b> &lt; #c; \\ \n end" };
        A -> END
    };
    let mermaid = app.mermaid();
    let label = "#34;a#34; #60;b#62; #38;lt#59; #35;c#59; #92; <br/> end";
    assert!(mermaid.contains(&format!("n0[\"{label}\"]")), "{mermaid}");
    let dot = app.dot();
    assert!(dot.contains(r#"n0 [label="\"a\" <b> &amp;lt; #c; \\ \n end"];"#), "{dot}");
}

#[test]
fn empty_labels_and_control_characters_are_visible() {
    let app: CompiledGraph<Trip> = graph! {
        node A = (Say) { label: "" };
        node B = (Say) { label: "a\r\nb\u{0}direction LR" };
        A -> B -> END
    };
    let mermaid = app.mermaid();
    assert!(mermaid.contains("n0[\"#8203;\"]"), "{mermaid}");
    assert!(mermaid.contains("n1[\"a<br/>b#9216;direction#32;LR\"]"), "{mermaid}");
    assert!(app.dot().contains("n1 [label=\"a\\nb\u{2400}direction LR\"]"), "{}", app.dot());
}

#[test]
fn a_box_that_leads_to_itself_has_an_edge_outside_of_it() {
    let again = |state: &Trip| state.count > 0;
    let app: CompiledGraph<Trip> = graph! {
        node A = (Say);
        graph SUB { node B = (Say); B -> END }
        A -> SUB -> match again { true => SUB, false => END };
    };
    let dot = app.dot();
    assert!(dot.contains("n1__end -> cluster_n1_loop [ltail=cluster_n1, arrowhead=none, label=\"true\"];"), "{dot}");
    assert!(dot.contains("cluster_n1_loop -> n1__start [lhead=cluster_n1];"), "{dot}");
}

#[test]
fn a_graph_in_a_branch_is_shown_inside_the_group() {
    let inner = chain();
    let app: CompiledGraph<Trip> = graph! {
        node A = (Say);
        node SUB = inner.map_state(Trip::clone, |state: Trip| Trip::update().steps(state.steps));
        START -> { SUB -> A } -> END
    };
    let dot = app.dot();
    assert!(dot.contains("\n    n1__end -> n2 [ltail=cluster_n1];\n"), "{dot}");
    assert!(dot.contains("\n    n_start -> n1__start [lhead=cluster_n0];\n"), "{dot}");
    assert!(app.mermaid().contains("\n    n1 --> n2\n"), "{}", app.mermaid());
}

#[test]
fn nodes_that_start_tasks_are_marked() {
    #[node]
    async fn notify(task_manager: &BackgroundTaskManager) -> Result<(), SpawnError> {
        task_manager.create_task(async {}).spawn().map(drop)
    }
    let app: CompiledGraph<Trip> =
        graph! { node LATER = notify; START -> { notify, LATER } -> LAST -> END; node LAST = notify };
    let mermaid = app.mermaid();
    assert_eq!(mermaid.matches("<br/>starts tasks").count(), 3, "{mermaid}");
}
