//! The identity of a step, which is the same in every execution of it.

use std::sync::Mutex;

use agentflow::{
    CompiledGraph, NodeError, RunConfig, RunId, State, graph, node,
    run::StepId,
    store::MemoryStore,
    thread::{Input, Outcome},
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, State, Serialize, Deserialize)]
struct Seen {
    #[state(append)]
    steps: Vec<String>,
}

#[node]
async fn a(state: &mut Seen, step: &StepId) {
    state.steps.push(step.to_string());
}

#[node]
async fn b(step: &StepId, _state: &Seen) -> SeenUpdate {
    Seen::update().steps([step.to_string()])
}

fn names(state: &Seen, run: RunId) -> Vec<String> {
    state.steps.iter().map(|step| step.replace(&run.to_string(), "RUN")).collect()
}

#[tokio::test]
async fn a_step_is_named_by_its_run_its_number_and_its_node() {
    let app = graph! { graph INNER { node X = a; X -> END } a -> INNER -> b -> END };
    let run = RunId::new();
    let state = app.invoke(Seen::default(), RunConfig::new().with_run_id(run)).await.unwrap();
    assert_eq!(names(&state, run), ["RUN/1/a", "RUN/3/INNER/X", "RUN/4/b"]);
}

fn numbers(_: &Seen) -> Vec<u32> {
    vec![10, 20]
}

#[node]
async fn item(input: u32, step: &StepId, _state: &Seen) -> SeenUpdate {
    Seen::update().steps([format!("{input}:{step}")])
}

#[tokio::test]
async fn a_step_in_a_branch_has_the_number_of_the_group_and_the_visit() {
    let app = graph! { a -> each numbers { item -> b } -> END };
    let run = RunId::new();
    let state = app.invoke(Seen::default(), RunConfig::new().with_run_id(run)).await.unwrap();
    assert_eq!(
        names(&state, run),
        ["RUN/1/a", "10:RUN/2/item[0]#1", "RUN/2/b[0]#2", "20:RUN/2/item[1]#1", "RUN/2/b[1]#2"]
    );
}

#[node]
async fn fails(step: &StepId, attempt: u32, #[inject] seen: &Mutex<Vec<String>>) -> Result<(), NodeError> {
    let mut seen = seen.lock().unwrap();
    seen.push(step.to_string());
    if seen.len() < 4 { Err(format!("attempt {attempt}").into()) } else { Ok(()) }
}

#[tokio::test]
async fn retries_and_resumed_runs_have_the_step_of_the_first_execution() {
    let app: CompiledGraph<Seen, Mutex<Vec<String>>> = graph! {
        type State = Seen;
        name = "steps";
        node FAILS = fails { retry: 1 };
        a -> FAILS -> b -> END;
        compile { services: Mutex::default(), store: MemoryStore::new() }
    };
    let thread = app.thread("t");
    let first = RunId::new();
    thread.invoke(Seen::update(), RunConfig::new().with_run_id(first)).await.unwrap_err();
    let second = RunId::new();
    let Outcome::Done(state) = thread.invoke(Input::resume(), RunConfig::new().with_run_id(second)).await.unwrap()
    else {
        panic!("the run did not end");
    };
    assert_eq!(*app.services().lock().unwrap(), vec![format!("{first}/2/FAILS"); 4]);
    assert_eq!(state.steps, [format!("{first}/1/a"), format!("{second}/2/b")]);
}
