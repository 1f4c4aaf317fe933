//! Groups on threads: finished branches do not run again, and questions of branches wait for the others.

use std::{collections::BTreeMap, sync::Mutex};

use agentflow::{
    Ask, CompiledGraph, NodeError, RunConfig, State, graph, node,
    store::{MemoryStore, QuestionStatus, Store},
    thread::{Input, Outcome, Question, ThreadError},
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, State, Serialize, Deserialize)]
struct Notes {
    #[state(append)]
    lines: Vec<String>,
    title: String,
}

fn note(text: impl Into<String>) -> NotesUpdate {
    Notes::update().lines([text.into()])
}

/// The number of executions of each node, and the nodes that still fail.
#[derive(Debug, Default)]
struct Counts {
    runs: Mutex<BTreeMap<String, usize>>,
    failing: Mutex<Vec<String>>,
}

impl Counts {
    fn failing(nodes: &[&str]) -> Self {
        let failing = nodes.iter().map(|node| (*node).to_owned()).collect();
        Self { failing: Mutex::new(failing), ..Self::default() }
    }

    /// Counts an execution. Fails once for each node that is to fail.
    fn run(&self, node: &str) -> Result<(), NodeError> {
        *self.runs.lock().unwrap().entry(node.to_owned()).or_default() += 1;
        let mut failing = self.failing.lock().unwrap();
        match failing.iter().position(|failing| failing == node) {
            Some(index) => {
                failing.remove(index);
                Err(format!("{node} fails").into())
            }
            None => Ok(()),
        }
    }

    fn all(&self) -> Vec<(String, usize)> {
        self.runs.lock().unwrap().clone().into_iter().collect()
    }
}

fn counted(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
    expected.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect()
}

#[node]
async fn a(_state: &Notes, #[inject] counts: &Counts) -> Result<NotesUpdate, NodeError> {
    counts.run("a")?;
    Ok(note("a"))
}

#[node]
async fn b(state: &Notes, #[inject] counts: &Counts) -> Result<NotesUpdate, NodeError> {
    counts.run("b")?;
    Ok(note(format!("b after {}", state.lines.len())))
}

#[node]
async fn c(_state: &Notes, #[inject] counts: &Counts) -> Result<NotesUpdate, NodeError> {
    counts.run("c")?;
    Ok(note("c"))
}

#[node]
async fn confirm(
    _state: &Notes,
    answer: Option<bool>,
    #[inject] counts: &Counts,
) -> Result<Ask<String, NotesUpdate>, NodeError> {
    counts.run("confirm")?;
    Ok(match answer {
        None => Ask::Question("sure?".to_owned()),
        Some(sure) => Ask::Done(note(format!("sure: {sure}"))),
    })
}

#[node]
async fn pick(
    _state: &Notes,
    answer: Option<u32>,
    #[inject] counts: &Counts,
) -> Result<Ask<String, NotesUpdate>, NodeError> {
    counts.run("pick")?;
    Ok(match answer {
        None => Ask::Question("which?".to_owned()),
        Some(number) => Ask::Done(note(format!("picked {number}"))),
    })
}

#[node]
async fn joined(state: &mut Notes, #[inject] counts: &Counts) -> Result<(), NodeError> {
    counts.run("joined")?;
    state.lines.push("joined".to_owned());
    Ok(())
}

/// Builds the graph over threads in memory, and over a store that keeps JSON.
macro_rules! on_both {
    ($counts:expr, $($graph:tt)*) => {{
        let both: [CompiledGraph<Notes, Counts>; 2] = [
            graph! { name = "notes"; $($graph)*; compile { services: $counts } },
            graph! { name = "notes"; $($graph)*; compile { services: $counts, store: MemoryStore::new() } },
        ];
        both
    }};
}

fn asked(outcome: Outcome<Notes>) -> Vec<Question> {
    match outcome {
        Outcome::Waiting(questions) => questions,
        other => panic!("the run does not wait: {other:?}"),
    }
}

fn question<'q>(questions: &'q [Question], node: &str) -> &'q Question {
    questions.iter().find(|question| question.node() == node).unwrap()
}

#[tokio::test]
async fn a_branch_that_asks_lets_the_others_end_and_the_answer_runs_only_that_branch() {
    for app in on_both!(Counts::default(), START -> { a, confirm, c -> b } -> joined -> END) {
        let thread = app.thread("t");
        let questions = asked(thread.invoke(Notes::update(), RunConfig::new()).await.unwrap());
        assert_eq!((questions.len(), questions[0].node()), (1, "confirm"));
        assert!(thread.state().await.unwrap().unwrap().values.lines.is_empty(), "nothing is merged before the join");

        let notes = thread.answer(questions[0].id(), &true).await.unwrap().done().unwrap();
        assert_eq!(notes.lines, ["a", "sure: true", "c", "b after 1", "joined"]);
        assert_eq!(app.services().all(), counted(&[("a", 1), ("b", 1), ("c", 1), ("confirm", 2), ("joined", 1)]));
    }
}

#[tokio::test]
async fn several_questions_are_open_and_the_join_comes_after_the_last_answer() {
    for app in on_both!(Counts::default(), START -> { confirm, a, pick } -> joined -> END) {
        let thread = app.thread("t");
        let questions = asked(thread.invoke(Notes::update(), RunConfig::new()).await.unwrap());
        assert_eq!(questions.len(), 2);
        let left = asked(thread.answer(question(&questions, "pick").id(), &7).await.unwrap());
        assert_eq!((left.len(), left[0].id()), (1, question(&questions, "confirm").id()), "the other one stays open");
        assert_eq!(app.services().all(), counted(&[("a", 1), ("confirm", 1), ("pick", 2)]));

        let error = thread.answer(question(&questions, "pick").id(), &8).await.unwrap_err();
        assert!(matches!(error, ThreadError::AlreadyAnswered { .. }), "{error}");
        let notes = thread.answer(left[0].id(), &false).await.unwrap().done().unwrap();
        assert_eq!(notes.lines, ["sure: false", "a", "picked 7", "joined"]);
        assert_eq!(app.services().all(), counted(&[("a", 1), ("confirm", 2), ("joined", 1), ("pick", 2)]));
    }
}

#[tokio::test]
async fn both_questions_are_answered_at_once() {
    for app in on_both!(Counts::default(), START -> { confirm, pick } -> joined -> END) {
        let thread = app.thread("t");
        let questions = asked(thread.invoke(Notes::update(), RunConfig::new()).await.unwrap());
        let answers = Input::answers([
            (question(&questions, "pick").id(), 1.into()),
            (question(&questions, "confirm").id(), true.into()),
        ]);
        let notes = thread.invoke(answers, RunConfig::new()).await.unwrap().done().unwrap();
        assert_eq!(notes.lines, ["sure: true", "picked 1", "joined"]);
    }
}

#[tokio::test]
async fn resume_after_a_failure_runs_only_what_had_not_ended() {
    for app in on_both!(Counts::failing(&["b"]), START -> { a, c -> b } -> joined -> END) {
        let thread = app.thread("t");
        let error = thread.invoke(Notes::update(), RunConfig::new()).await.unwrap_err();
        assert!(error.to_string().contains("b fails"), "{error}");
        let notes = thread.invoke(Input::resume(), RunConfig::new()).await.unwrap().done().unwrap();
        assert_eq!(notes.lines, ["a", "c", "b after 1", "joined"]);
        assert_eq!(app.services().all(), counted(&[("a", 1), ("b", 2), ("c", 1), ("joined", 1)]));
    }
}

fn numbers(_: &Notes) -> Vec<u32> {
    vec![10, 20, 30]
}

#[node]
async fn square(input: u32, _state: &Notes, #[inject] counts: &Counts) -> Result<NotesUpdate, NodeError> {
    counts.run(&input.to_string())?;
    Ok(note((input * input).to_string()))
}

#[tokio::test]
async fn an_item_that_failed_is_the_only_one_that_runs_again() {
    for app in on_both!(Counts::failing(&["30"]), START -> each numbers { square } -> joined -> END) {
        let thread = app.thread("t");
        let error = thread.invoke(Notes::update(), RunConfig::new()).await.unwrap_err();
        assert!(error.to_string().contains("square[2]"), "{error}");
        let notes = thread.invoke(Input::resume(), RunConfig::new()).await.unwrap().done().unwrap();
        assert_eq!(notes.lines, ["100", "400", "900", "joined"]);
        assert_eq!(app.services().all(), counted(&[("10", 1), ("20", 1), ("30", 2), ("joined", 1)]));
    }
}

#[node]
async fn check(input: u32, _state: &Notes, answer: Option<bool>) -> Ask<u32, NotesUpdate> {
    match answer {
        None if input == 20 => Ask::Question(input),
        answer => Ask::Done(note(format!("{input}: {answer:?}"))),
    }
}

#[tokio::test]
async fn an_item_asks_by_its_index() {
    for app in on_both!(Counts::default(), START -> each numbers { check } -> joined -> END) {
        let thread = app.thread("t");
        let questions = asked(thread.invoke(Notes::update(), RunConfig::new()).await.unwrap());
        assert_eq!((questions.len(), questions[0].node()), (1, "check[1]"));
        let notes = thread.answer(questions[0].id(), &true).await.unwrap().done().unwrap();
        assert_eq!(notes.lines, ["10: None", "20: Some(true)", "30: None", "joined"]);
    }
}

#[tokio::test]
async fn a_nested_group_asks_and_gets_its_answer() {
    for app in on_both!(Counts::default(), START -> { a, c -> { confirm, b } } -> joined -> END) {
        let thread = app.thread("t");
        let questions = asked(thread.invoke(Notes::update(), RunConfig::new()).await.unwrap());
        let notes = thread.answer(questions[0].id(), &true).await.unwrap().done().unwrap();
        assert_eq!(notes.lines, ["a", "c", "sure: true", "b after 1", "joined"]);
        let runs = app.services().all();
        assert!(runs.contains(&("a".to_owned(), 1)) && runs.contains(&("c".to_owned(), 1)), "{runs:?}");
    }
}

#[node]
async fn title_a(_state: &Notes, #[inject] counts: &Counts) -> Result<NotesUpdate, NodeError> {
    counts.run("title_a")?;
    Ok(Notes::update().title("a"))
}

#[node]
async fn title_b(_state: &Notes, #[inject] counts: &Counts) -> Result<NotesUpdate, NodeError> {
    counts.run("title_b")?;
    Ok(Notes::update().title("b"))
}

#[tokio::test]
async fn a_conflict_at_the_join_discards_what_the_branches_have_done() {
    for app in on_both!(Counts::default(), START -> { title_a, title_b } -> joined -> END) {
        let thread = app.thread("t");
        for runs in 1..3 {
            let input = if runs == 1 { Input::update(Notes::update()) } else { Input::resume() };
            let error = thread.invoke(input, RunConfig::new()).await.unwrap_err();
            assert!(error.to_string().contains("both replace `title`"), "{error}");
            assert_eq!(app.services().all(), counted(&[("title_a", runs), ("title_b", runs)]));
        }
    }
}

#[tokio::test]
async fn all_answered_questions_are_closed_at_the_join() {
    let store = MemoryStore::new();
    let app: CompiledGraph<Notes, Counts> = graph! {
        name = "notes";
        START -> { confirm, pick } -> joined -> END;
        compile { services: Counts::default(), store: store.clone() }
    };
    let thread = app.thread("t");
    let questions = asked(thread.invoke(Notes::update(), RunConfig::new()).await.unwrap());
    let _ = thread.answer(question(&questions, "pick").id(), &7).await.unwrap();
    let _ = thread.answer(question(&questions, "confirm").id(), &true).await.unwrap();
    let rows = store.questions(&"t".parse().unwrap(), None).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.status).collect::<Vec<_>>(), [QuestionStatus::Closed; 2]);
}

#[tokio::test]
async fn a_group_of_a_changed_graph_starts_again() {
    let store = MemoryStore::new();
    let first: CompiledGraph<Notes, Counts> = graph! {
        name = "notes";
        START -> { a, confirm } -> joined -> END;
        compile { services: Counts::default(), store: store.clone() }
    };
    let questions = asked(first.thread("t").invoke(Notes::update(), RunConfig::new()).await.unwrap());
    first.aclose().await;
    let second: CompiledGraph<Notes, Counts> = graph! {
        name = "notes";
        START -> { a -> c, confirm } -> joined -> END;
        compile { services: Counts::default(), store: store.clone() }
    };
    let notes = second.thread("t").answer(questions[0].id(), &true).await.unwrap().done().unwrap();
    assert_eq!(notes.lines, ["a", "c", "sure: true", "joined"]);
    assert_eq!(second.services().all(), counted(&[("a", 1), ("c", 1), ("confirm", 1), ("joined", 1)]));
}
