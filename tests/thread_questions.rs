//! Questions on threads: a question ends the run, and the answer begins another one.

use agentflow::{
    Ask, CompiledGraph, NodeError, Route, RunConfig, State, graph, node,
    store::{CancelKind, MemoryStore, QuestionStatus, RunFilter, RunStatus, Store, ThreadStatus},
    thread::{Input, Outcome, Question, QuestionId, Thread, ThreadError},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Clone, Debug, Default, PartialEq, State, Serialize, Deserialize)]
struct Mail {
    draft: String,
    #[state(append)]
    notes: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Review {
    draft: String,
}

#[derive(Serialize, Deserialize)]
enum Verdict {
    Send,
    Rewrite { why: String },
}

#[derive(Route)]
enum Next {
    Send,
    Rewrite,
}

#[node]
async fn write(state: &mut Mail) {
    state.draft.push('x');
}

#[node]
async fn review(state: &mut Mail, answer: Option<Verdict>) -> Ask<Review, Next> {
    // A question commits nothing of its node.
    state.notes.push("reviewed".to_owned());
    match answer {
        None => Ask::Question(Review { draft: state.draft.clone() }),
        Some(Verdict::Send) => Ask::Done(Next::Send),
        Some(Verdict::Rewrite { why }) => {
            state.notes.push(why);
            Ask::Done(Next::Rewrite)
        }
    }
}

#[node]
async fn send(state: &mut Mail) {
    state.notes.push("sent".to_owned());
}

fn mail_on(store: MemoryStore) -> CompiledGraph<Mail> {
    graph! {
        name = "mail";
        write -> review -> match { Next::Send => send -> END, Next::Rewrite => write };
        compile { store: store }
    }
}

fn mails() -> [CompiledGraph<Mail>; 2] {
    [
        graph! {
            name = "mail";
            write -> review -> match { Next::Send => send -> END, Next::Rewrite => write };
        },
        mail_on(MemoryStore::new()),
    ]
}

fn asked<S: std::fmt::Debug>(outcome: Outcome<S>) -> Vec<Question> {
    match outcome {
        Outcome::Waiting(questions) => questions,
        other => panic!("the run did not ask: {other:?}"),
    }
}

async fn start<C: Send + Sync + 'static>(thread: &Thread<Mail, C>) -> QuestionId {
    let questions = asked(thread.invoke(Mail::update(), RunConfig::new()).await.unwrap());
    assert_eq!(questions.len(), 1);
    assert_eq!(questions[0].node(), "review");
    questions[0].id()
}

#[tokio::test]
async fn a_question_ends_the_run_and_the_answer_begins_another_one() {
    for app in mails() {
        let thread = app.thread("case-17");
        let first = start(&thread).await;
        let state = thread.state().await.unwrap().unwrap();
        assert_eq!(state.values, Mail { draft: "x".to_owned(), notes: Vec::new() });
        assert_eq!(state.next.join(","), "review");
        assert_eq!(state.questions[0].decode::<Review>().unwrap(), Review { draft: "x".to_owned() });
        assert!(app.runs().is_empty());

        let rewrite = Verdict::Rewrite { why: "too short".to_owned() };
        let second = asked(thread.answer(first, &rewrite).await.unwrap());
        assert_ne!(second[0].id(), first);
        assert_eq!(second[0].decode::<Review>().unwrap().draft, "xx");

        let mail = thread.answer(second[0].id(), &Verdict::Send).await.unwrap().done().unwrap();
        assert_eq!(mail.notes, ["reviewed", "too short", "reviewed", "sent"]);
        let statuses: Vec<_> = thread.runs(RunFilter::default()).await.unwrap().iter().map(|run| run.status).collect();
        assert_eq!(statuses, [RunStatus::Done, RunStatus::Waiting, RunStatus::Waiting]);
    }
}

#[tokio::test]
async fn a_wrong_answer_changes_nothing_and_says_what_was_expected() {
    for app in mails() {
        let thread = app.thread("case-17");
        let question = start(&thread).await;
        let error = thread.answer_json(question, json!("Sent")).await.unwrap_err();
        let ThreadError::WrongAnswer { node, expected, error, .. } = &error else { panic!("{error}") };
        assert_eq!((&**node, expected.ends_with("Verdict")), ("review", true));
        assert!(error.contains("Sent"), "{error}");
        assert_eq!(thread.questions().await.unwrap()[0].id(), question);
        assert!(thread.answer(question, &Verdict::Send).await.unwrap().done().is_some());
    }
}

#[tokio::test]
async fn a_question_is_answered_once() {
    for app in mails() {
        let thread = app.thread("case-17");
        let question = start(&thread).await;
        let _ = thread.answer(question, &Verdict::Send).await.unwrap();
        let error = thread.answer(question, &Verdict::Send).await.unwrap_err();
        assert!(matches!(error, ThreadError::AlreadyAnswered { question: named, .. } if named == question), "{error}");
        let error = thread.answer(QuestionId::new(), &Verdict::Send).await.unwrap_err();
        assert!(matches!(error, ThreadError::NoSuchQuestion { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_new_input_drops_the_question() {
    for app in mails() {
        let thread = app.thread("case-17");
        let question = start(&thread).await;
        let again = asked(thread.invoke(Mail::update().draft("y"), RunConfig::new()).await.unwrap());
        assert_eq!(again[0].decode::<Review>().unwrap().draft, "yx");
        let error = thread.answer(question, &Verdict::Send).await.unwrap_err();
        assert!(matches!(error, ThreadError::NoSuchQuestion { .. }), "{error}");
    }
}

#[tokio::test]
async fn resume_lets_the_node_ask_anew() {
    for app in mails() {
        let thread = app.thread("case-17");
        let question = start(&thread).await;
        let again = asked(thread.invoke(Input::resume(), RunConfig::new()).await.unwrap());
        assert_eq!(again.len(), 1, "the new question replaces the former one");
        assert_ne!(again[0].id(), question);
        assert!(thread.answer(again[0].id(), &Verdict::Send).await.unwrap().done().is_some());
    }
}

#[tokio::test]
async fn another_app_on_the_same_store_answers() {
    let store = MemoryStore::new();
    let asking = mail_on(store.clone());
    let question = start(&asking.thread("case-17")).await;
    asking.aclose().await;
    let answering = mail_on(store.clone());
    let waiting = store.thread(&"case-17".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(waiting.status, ThreadStatus::Paused);
    let mail = answering.thread("case-17").answer(question, &Verdict::Send).await.unwrap().done().unwrap();
    assert_eq!(mail.notes, ["reviewed", "sent"]);
    let rows = store.questions(&"case-17".parse().unwrap(), None).await.unwrap();
    assert_eq!(rows[0].status, QuestionStatus::Closed);
}

#[node]
async fn picky(state: &mut Mail, answer: Option<u32>) -> Result<Ask<String>, NodeError> {
    match answer {
        None => Ok(Ask::Question("how many?".to_owned())),
        Some(0) if state.draft.is_empty() => Err("zero is too few".into()),
        Some(number) => {
            state.notes.push(number.to_string());
            Ok(Ask::Done(()))
        }
    }
}

#[tokio::test]
async fn an_answer_stays_with_a_node_that_fails_until_it_succeeds() {
    let store = MemoryStore::new();
    let app = graph! { name = "picky"; picky -> END; compile { store: store } };
    let thread = app.thread("a");
    let question = asked(thread.invoke(Mail::update(), RunConfig::new()).await.unwrap())[0].id();
    let error = thread.answer(question, &0).await.unwrap_err();
    assert!(error.to_string().contains("zero is too few"), "{error}");
    // The edit makes the node succeed with the same answer.
    thread.update(Mail::update().draft("d"), None).await.unwrap();
    let mail = thread.invoke(Input::resume(), RunConfig::new()).await.unwrap().done().unwrap();
    assert_eq!(mail.notes, ["0"]);
}

#[tokio::test]
async fn a_waiting_thread_holds_nothing_and_cancel_finds_no_run() {
    let [app, _] = mails();
    let thread = app.thread("case-17");
    start(&thread).await;
    let run = thread.runs(RunFilter::default()).await.unwrap()[0].run.id;
    assert!(!app.cancel_run(run, CancelKind::Cancel).await.unwrap());
    assert!(app.runs().is_empty());
    let report = app.aclose().await;
    assert_eq!((report.runs.ended, report.runs.kept.len()), (0, 0));
}
