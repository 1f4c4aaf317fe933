//! Values on edges: payloads of arms, and the nodes that take them.

use std::sync::atomic::{AtomicU32, Ordering};

use agentflow::{
    CompileOptions, END, NodeError, Route, RunConfig, StateGraph, graph,
    graph::{Arms, BuildProblemKind, NodeContext},
    node,
    run::EventKind,
};

use crate::support::{Trip, events, failure, steps};

#[derive(Debug, Route)]
enum Step {
    Tools(Vec<String>),
    Done,
}

#[node]
async fn model(state: &mut Trip) -> Step {
    state.steps.push("model".into());
    let turn = state.steps.len();
    if turn < 4 { Step::Tools(vec![format!("call{turn}")]) } else { Step::Done }
}

#[node]
async fn tools(state: &mut Trip, input: Vec<String>) {
    state.steps.extend(input);
}

#[node]
async fn borrows(state: &mut Trip, input: &Vec<String>) {
    state.steps.push(format!("{input:?}"));
}

#[tokio::test]
async fn an_arm_carries_its_payload_to_the_node() {
    let app = graph! { model -> match { Step::Tools(calls) => tools(calls) -> model, Step::Done => END } };
    assert_eq!(steps(&app).await, ["model", "call1", "model", "call3", "model"]);
    let app = graph! { model -> match { Step::Tools(calls) => borrows(calls) -> model, Step::Done => END } };
    assert_eq!(steps(&app).await, ["model", r#"["call1"]"#, "model", r#"["call3"]"#, "model"]);
}

#[tokio::test]
async fn an_arm_carries_any_expression_over_its_bindings() {
    #[node]
    async fn number(state: &mut Trip, input: usize) {
        state.steps.push(input.to_string());
    }
    fn router(state: &Trip) -> Option<(usize, &str)> {
        (state.steps.len() < 3).then_some((state.steps.len(), "x"))
    }
    let offset = 10;
    let app = graph! {
        type State = Trip;
        number_of -> match router { Some((length, text)) if length > 0 => number(length + text.len() + offset), Some(_) | None => END };
        node number_of = say;
        number -> END
    };
    assert_eq!(steps(&app).await, ["said", "12"]);
}

#[node]
async fn say(state: &mut Trip) {
    state.steps.push("said".into());
}

#[tokio::test]
async fn a_retried_node_and_a_later_visit_get_the_value_of_their_edge() {
    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
    #[node]
    async fn flaky(state: &mut Trip, input: Vec<String>, attempt: u32) -> Result<(), NodeError> {
        ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        if attempt == 1 {
            return Err("once more".into());
        }
        state.steps.extend(input);
        Ok(())
    }
    let app = graph! {
        node FLAKY = flaky { retry: 1 };
        model -> match { Step::Tools(calls) => FLAKY(calls) -> model, Step::Done => END }
    };
    assert_eq!(steps(&app).await, ["model", "call1", "model", "call3", "model"]);
    assert_eq!(ATTEMPTS.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_group_hands_the_value_to_the_first_node_of_each_branch() {
    #[node]
    async fn left(_state: &Trip, input: &Vec<String>) -> crate::support::TripUpdate {
        Trip::update().steps([format!("left {}", input[0])])
    }
    #[node]
    async fn right(_state: &Trip, input: Vec<String>) -> crate::support::TripUpdate {
        Trip::update().steps([format!("right {}", input[0])])
    }
    #[node]
    async fn ask(_state: &mut Trip) -> Step {
        Step::Tools(vec!["x".into()])
    }
    // A group stands in a statement of its own; an arm leads to a node, whose value the group's nodes cannot see.
    let mut graph = StateGraph::new();
    graph.add_routing_node(
        "ASK",
        ask {},
        Arms::new()
            .carry("Step::Tools", "GROUP", |step| match step {
                Step::Tools(calls) => Ok(calls),
                Step::Done => Err(Step::Done),
            })
            .to("Step::Done", END, |step| matches!(step, Step::Done)),
    );
    graph.add_parallel_node("LEFT", left {}).add_parallel_node("RIGHT", right {});
    graph.add_group("GROUP", [["LEFT"], ["RIGHT"]]).add_edge("GROUP", END).set_entry_point("ASK");
    let app = graph.compile(CompileOptions::new()).unwrap();
    assert_eq!(steps(&app).await, ["left x", "right x"]);
}

#[tokio::test]
async fn the_event_of_a_route_names_the_type_that_its_edge_carries() {
    let app = graph! { model -> match { Step::Tools(calls) => tools(calls) -> model, Step::Done => END } };
    let routes: Vec<_> = events(&app)
        .await
        .into_iter()
        .filter_map(|kind| match kind {
            EventKind::RouteTaken { to, carries, .. } => Some((to, carries)),
            _ => None,
        })
        .collect();
    let carried = ("tools".to_owned(), Some("Vec<String>".to_owned()));
    assert_eq!(routes, [carried.clone(), carried, ("END".to_owned(), None)]);
}

#[tokio::test]
async fn pictures_show_the_type_on_the_edge() {
    let app = graph! { model -> match { Step::Tools(calls) => tools(calls) -> model, Step::Done => END } };
    assert!(app.mermaid().contains("Vec#60;String#62;"), "{}", app.mermaid());
    assert!(app.dot().contains("Step::Tools(calls)\\nVec<String>"), "{}", app.dot());
}

#[tokio::test]
async fn a_panic_in_the_clone_of_an_input_is_the_nodes_failure() {
    #[derive(Debug)]
    struct Bomb;
    impl Clone for Bomb {
        fn clone(&self) -> Self {
            panic!("no copies")
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("no end")
        }
    }
    #[node]
    async fn takes(_state: &Trip, input: Bomb) {
        drop(input);
    }
    let app = graph! {
        type State = Trip;
        say -> match |_: &Trip| 1 { 1 => takes(Bomb) -> END, _ => END }
    };
    let error = failure(&app).await;
    assert_eq!(error.node(), Some("takes"));
    assert!(error.to_string().contains("no copies"), "{error}");
}

#[tokio::test]
async fn steps_left_counts_down_to_the_recursion_limit() {
    #[node]
    async fn count(state: &mut Trip, steps_left: usize) {
        state.steps.push(steps_left.to_string());
    }
    let app = graph! {
        count -> match |state: &Trip| state.steps.len() < 3 { true => count, false => END };
        compile { recursion_limit: 5 }
    };
    assert_eq!(steps(&app).await, ["4", "3", "2"]);
}

#[tokio::test]
async fn a_node_by_hand_takes_an_input() {
    struct Hand;
    impl<C: Send + Sync + 'static> agentflow::graph::Node<Trip, C, Vec<String>> for Hand {
        type Output = ();

        async fn run(&self, cx: NodeContext<'_, Trip, C, Vec<String>>) -> Result<(), NodeError> {
            cx.state.steps.extend(cx.input.iter().cloned());
            Ok(())
        }
    }
    let app = graph! {
        node HAND = (Hand);
        model -> match { Step::Tools(calls) => HAND(calls) -> model, Step::Done => END }
    };
    assert_eq!(steps(&app).await.len(), 5);
}

fn built(wire: impl FnOnce(&mut StateGraph<Trip>)) -> Vec<BuildProblemKind> {
    let mut graph = StateGraph::new();
    graph.add_node("TOOLS", tools {}).add_node("SAY", say {});
    graph.add_edge("TOOLS", END);
    wire(&mut graph);
    let error = graph.compile(CompileOptions::new()).unwrap_err();
    error.problems().iter().map(|problem| problem.kind.clone()).collect()
}

#[test]
fn the_builder_reports_every_edge_that_carries_another_type() {
    let none = |from: &str| BuildProblemKind::NoInput {
        from: from.into(),
        to: "TOOLS".into(),
        taken: "alloc::vec::Vec<alloc::string::String>",
    };
    let plain = built(|graph| {
        graph.set_entry_point("SAY").add_edge("SAY", "TOOLS");
    });
    assert_eq!(plain, [none("SAY")]);
    let entry = built(|graph| {
        graph.set_entry_point("TOOLS").add_edge("SAY", END);
    });
    assert!(entry.contains(&none("START")) || matches!(entry[..], [BuildProblemKind::NoInput { .. }, ..]), "{entry:?}");
    let wrong = built(|graph| {
        graph.set_entry_point("SAY").add_route("SAY", |_: &Trip| 7_usize, Arms::new().carry("n", "TOOLS", Ok));
    });
    assert_eq!(
        wrong,
        [BuildProblemKind::WrongInput {
            from: "SAY".into(),
            to: "TOOLS".into(),
            carried: "usize",
            taken: Some("alloc::vec::Vec<alloc::string::String>"),
        }]
    );
    let unexpected = built(|graph| {
        graph.add_node("AGAIN", say {}).add_edge("AGAIN", END);
        graph.set_entry_point("SAY").add_route(
            "SAY",
            |_: &Trip| vec![String::new()],
            Arms::new()
                .carry("calls", "TOOLS", Err::<Vec<String>, _>)
                .carry("other", "AGAIN", |calls: Vec<String>| Ok(calls.len())),
        );
    });
    assert_eq!(
        unexpected,
        [BuildProblemKind::WrongInput { from: "SAY".into(), to: "AGAIN".into(), carried: "usize", taken: None }]
    );
}

#[tokio::test]
async fn an_input_of_unit_is_no_input() {
    #[node]
    async fn unit(state: &mut Trip, input: ()) {
        let () = input;
        state.steps.push("unit".into());
    }
    let app = graph! { unit -> END };
    assert_eq!(steps(&app).await, ["unit"]);
    let config = RunConfig::new();
    assert!(app.invoke(Trip::default(), config).await.is_ok());
}
