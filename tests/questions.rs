//! Questions: a node that asks ends its run, commits nothing, and runs again with the answer.

use agentflow::{
    Ask, CompileOptions, CompiledGraph, END, NodeError, NodeOptions, Route, RunConfig, RunError, State, StateGraph,
    graph,
    graph::{BuildProblemKind, Node, NodeContext, NodeInfo, ParallelContext, ParallelNode},
    node,
    question::{Approval, ApprovalRequest},
    run::{EventKind, LastState, RunErrorKind},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use tracing::Level;

use crate::support::capture;

#[derive(Clone, Debug, Default, PartialEq, State)]
struct Mail {
    draft: String,
    #[state(append)]
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Review {
    draft: String,
}

/// The answer need not be `Clone`, though a node that is retried gets it several times.
#[derive(Deserialize)]
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
async fn send(state: &mut Mail) {
    state.notes.push("sent".to_owned());
}

#[node]
async fn review(state: &mut Mail, answer: Option<Verdict>) -> Ask<Review, Next> {
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

fn mail() -> CompiledGraph<Mail> {
    graph! {
        node REVIEW = review;
        write -> REVIEW -> match { Next::Send => send -> END, Next::Rewrite => write }
    }
}

/// Returns the node that asked, its question and the state that the run left.
#[track_caller]
fn asked(mut error: RunError) -> (String, serde_json::Value, Mail) {
    let RunErrorKind::Asked { node, question, .. } = error.kind() else { panic!("no question: {error}") };
    let (node, question) = (node.to_string(), serde_json::from_str(question.get()).unwrap());
    let Some(LastState::Committed(state)) = error.take_state() else { panic!("the state is not committed") };
    (node, question, state)
}

/// Returns the events of a run, and its end.
async fn events_of(app: &CompiledGraph<Mail>, state: Mail) -> (Vec<EventKind>, Result<Mail, RunError>) {
    let mut run = app.stream(state, RunConfig::new());
    let mut events = Vec::new();
    while let Some(event) = run.next().await {
        events.push(event.kind);
    }
    (events, run.finish().await)
}

#[tokio::test]
async fn a_question_ends_the_run_with_the_state_as_it_was_before_the_node() {
    let error = mail().invoke(Mail::default(), RunConfig::new()).await.unwrap_err();
    assert_eq!(error.node(), Some("REVIEW"));
    assert_eq!(
        error.to_string(),
        "node `REVIEW` asked a question, which needs a thread to be answered in: `app.thread(id)`"
    );
    let (node, question, state) = asked(error);
    assert_eq!((node.as_str(), question), ("REVIEW", json!({ "draft": "x" })));
    assert_eq!(state, Mail { draft: "x".to_owned(), notes: vec![] });
}

#[tokio::test]
async fn a_node_runs_again_with_its_answer_which_no_other_node_gets() {
    let app = mail();
    let rewrite = r#"{ "Rewrite": { "why": "too short" } }"#;
    let error = app.__answer("REVIEW", rewrite, Mail::default(), RunConfig::new()).await.unwrap_err();
    // The second visit of the node has no answer.
    let (_, question, state) = asked(*error.downcast().unwrap());
    assert_eq!(question, json!({ "draft": "x" }));
    assert_eq!(state.notes, ["reviewed", "too short"]);

    let state = app.__answer("REVIEW", r#""Send""#, state, RunConfig::new()).await.unwrap();
    assert_eq!(state.notes, ["reviewed", "too short", "reviewed", "sent"]);
}

#[tokio::test]
async fn an_answer_of_another_type_is_refused_before_the_node_runs() {
    let error = mail().__answer("REVIEW", r#""Sent""#, Mail::default(), RunConfig::new()).await.unwrap_err();
    assert!(error.to_string().contains("unknown variant `Sent`"), "{error}");
}

#[tokio::test]
async fn a_question_is_neither_retried_nor_recovered_and_no_failure() {
    #[node]
    async fn recover(state: &mut Mail) {
        state.notes.push("recovered".to_owned());
    }
    let app = graph! {
        node ASK = review { retry: 3, on_error: RECOVER };
        node RECOVER = recover;
        ASK -> match { Next::Send => END, Next::Rewrite => END };
        RECOVER -> END
    };
    let (log, guard) = capture();
    let (events, ended) = events_of(&app, Mail::default()).await;
    drop(guard);
    let (_, _, state) = asked(ended.unwrap_err());
    assert_eq!(state, Mail::default());
    let names: Vec<_> = events.iter().map(EventKind::name).collect();
    assert_eq!(names, ["run_started", "node_started", "node_asked", "run_ended"]);
    let EventKind::NodeAsked { node, attempt, inside, question, .. } = &events[2] else { panic!("{:?}", events[2]) };
    assert_eq!((node.as_str(), *attempt, inside), ("ASK", 1, &None));
    assert_eq!(question, &json!({ "draft": "" }));
    let line = log.event("run ended with a question");
    assert_eq!(line.level, Level::DEBUG);
    assert!(log.events("attempt failed").is_empty() && log.events("run failed").is_empty());
}

#[tokio::test]
async fn each_attempt_has_the_answer() {
    #[node]
    async fn flaky(state: &mut Mail, answer: Option<Verdict>, attempt: u32) -> Result<Ask<&'static str>, NodeError> {
        match answer {
            None => return Ok(Ask::Question("why?")),
            Some(_) if attempt < 3 => return Err("again".into()),
            Some(Verdict::Rewrite { why }) => state.notes.push(why),
            Some(Verdict::Send) => {}
        }
        Ok(Ask::Done(()))
    }
    let app = graph! { node IT = flaky { retry: 3 }; IT -> END };
    let rewrite = r#"{ "Rewrite": { "why": "so" } }"#;
    let state = app.__answer("IT", rewrite, Mail::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.notes, ["so"]);
}

#[tokio::test]
async fn a_node_in_every_form_may_ask() {
    #[node]
    async fn in_place(state: &mut Mail, answer: Option<String>) -> Ask<()> {
        state.draft.push('1');
        let Some(text) = answer else { return Ask::Question(()) };
        state.notes.push(text);
        Ask::Done(())
    }
    #[node]
    async fn reads(_state: &Mail, answer: Option<String>) -> Result<Ask<u8, MailUpdate>, NodeError> {
        Ok(answer.map_or(Ask::Question(1), |text| Ask::Done(Mail::update().notes([text]))))
    }
    #[node]
    async fn owns(mut state: Mail, answer: Option<String>) -> Ask<u8, Mail> {
        let Some(text) = answer else { return Ask::Question(2) };
        state.notes.push(text);
        Ask::Done(state)
    }
    #[node]
    async fn decides(_state: &Mail, answer: Option<bool>) -> Ask<u8, (MailUpdate, bool)> {
        answer.map_or(Ask::Question(3), |yes| Ask::Done((Mail::update().notes(["decided"]), yes)))
    }
    #[node]
    async fn stateless(answer: Option<Vec<u8>>) -> Ask<u8> {
        answer.map_or(Ask::Question(4), |_| Ask::Done(()))
    }
    #[node]
    async fn generic<A: DeserializeOwned + Send + Sync + ToString>(
        state: &mut Mail,
        answer: Option<A>,
    ) -> Ask<&'static str> {
        let Some(answer) = answer else { return Ask::Question("generic") };
        state.notes.push(answer.to_string());
        Ask::Done(())
    }
    let app = graph! {
        node GENERIC = generic::<i32>;
        in_place -> reads -> owns -> decides -> match { true => stateless -> GENERIC -> END, false => END }
    };
    let answers = [
        ("in_place", json!("a"), json!(1)),
        ("reads", json!("b"), json!(2)),
        ("owns", json!("c"), json!(3)),
        ("decides", json!(true), json!(4)),
        ("stateless", json!([5]), json!("generic")),
    ];
    let (_, question, mut state) = asked(app.invoke(Mail::default(), RunConfig::new()).await.unwrap_err());
    assert_eq!((question, &state), (json!(null), &Mail::default()));
    for (node, answer, next) in answers {
        let error = app.__answer(node, &answer.to_string(), state, RunConfig::new()).await.unwrap_err();
        let (_, question, left) = asked(*error.downcast().unwrap());
        assert_eq!(question, next, "after {node}");
        state = left;
    }
    let state = app.__answer("GENERIC", "-7", state, RunConfig::new()).await.unwrap();
    assert_eq!(state.notes, ["a", "b", "c", "decided", "-7"]);
}

#[tokio::test]
async fn a_question_in_a_subgraph_keeps_what_its_nodes_committed() {
    let app = graph! {
        graph SUB { write -> review -> match { Next::Send => END, Next::Rewrite => END } }
        SUB -> END
    };
    let (events, ended) = events_of(&app, Mail::default()).await;
    let (node, _, state) = asked(ended.unwrap_err());
    assert_eq!((node.as_str(), state.draft.as_str(), state.notes.len()), ("SUB/review", "x", 0));
    let asked: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            EventKind::NodeAsked { node, inside, .. } => Some((node.as_str(), inside.as_deref())),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [("SUB/review", None), ("SUB", Some("SUB/review"))]);
    assert!(!events.iter().any(|event| matches!(event, EventKind::NodeFailed { .. })));
}

#[node]
async fn ask_in_branch(_state: &Mail, answer: Option<String>) -> Ask<&'static str, MailUpdate> {
    answer.map_or(Ask::Question("which?"), |text| Ask::Done(Mail::update().notes([text])))
}

#[node]
async fn note(_state: &Mail) -> MailUpdate {
    Mail::update().notes(["noted"])
}

#[tokio::test]
async fn a_question_in_a_branch_ends_the_run_and_merges_nothing() {
    let app = graph! { START -> { note, ask_in_branch } -> END };
    let (events, ended) = events_of(&app, Mail::default()).await;
    let (node, question, state) = asked(ended.unwrap_err());
    assert_eq!((node.as_str(), question), ("ask_in_branch", json!("which?")));
    assert_eq!(state, Mail::default());
    assert!(events.iter().any(|event| matches!(event, EventKind::NodeAsked { .. })));
}

/// A node that is written by hand, with or without the statement that it asks.
struct ByHand<const SAYS_SO: bool>;

impl<C: Send + Sync + 'static, const SAYS_SO: bool> Node<Mail, C> for ByHand<SAYS_SO> {
    type Output = ();
    const INFO: NodeInfo = if SAYS_SO { NodeInfo::new().asks::<&str, String>() } else { NodeInfo::new() };

    async fn run(&self, cx: NodeContext<'_, Mail, C>) -> Result<(), NodeError> {
        cx.state.draft.push('h');
        let asked = cx.answer::<String>()?.map_or(Ask::Question("who?"), Ask::Done);
        cx.state.notes.push(asked.into_result()?);
        Ok(())
    }
}

impl<C: Send + Sync + 'static> ParallelNode<Mail, C> for ByHand<true> {
    type Output = ();
    const INFO: NodeInfo = NodeInfo::new().asks::<&str, String>();

    async fn run_parallel(&self, _: ParallelContext<'_, Mail, C>) -> Result<(Option<MailUpdate>, ()), NodeError> {
        Ask::Question("who?").into_result()
    }
}

#[tokio::test]
async fn a_node_written_by_hand_asks() {
    let app: CompiledGraph<Mail> = graph! { node IT = (ByHand::<true>); IT -> END };
    let (_, question, state) = asked(app.invoke(Mail::default(), RunConfig::new()).await.unwrap_err());
    assert_eq!((question, &state), (json!("who?"), &Mail::default()));
    let state = app.__answer("IT", r#""ada""#, state, RunConfig::new()).await.unwrap();
    assert_eq!((state.draft.as_str(), &state.notes[..]), ("h", &["ada".to_owned()][..]));
}

#[tokio::test]
async fn a_question_of_a_node_that_does_not_say_that_it_asks_is_a_failure() {
    let app: CompiledGraph<Mail> = graph! { node IT = (ByHand::<false>); IT -> END };
    let error = app.invoke(Mail::default(), RunConfig::new()).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Node(_)));
    assert!(error.to_string().contains("const INFO: NodeInfo = N::INFO;"), "{error}");
}

/// Runs a node again after a failure.
struct Twice<N>(N);

impl<C: Send + Sync + 'static, N: Node<Mail, C>> Node<Mail, C> for Twice<N>
where
    N::Output: Send,
{
    type Output = N::Output;
    const INFO: NodeInfo = N::INFO;

    async fn run(&self, mut cx: NodeContext<'_, Mail, C>) -> Result<N::Output, NodeError> {
        match self.0.run(cx.reborrow()).await {
            Err(error) if !error.is_question() => self.0.run(cx).await,
            ended => ended,
        }
    }
}

#[tokio::test]
async fn a_node_that_wraps_another_one_passes_its_question_and_its_answer_on() {
    let app: CompiledGraph<Mail> = graph! { node IT = (Twice(ByHand::<true>)); IT -> END };
    let (_, _, state) = asked(app.invoke(Mail::default(), RunConfig::new()).await.unwrap_err());
    assert_eq!(state, Mail::default());
    let state = app.__answer("IT", r#""ada""#, state, RunConfig::new()).await.unwrap();
    assert_eq!(state.notes, ["ada"]);
}

#[tokio::test]
async fn a_question_that_cannot_be_written_as_json_is_a_failure() {
    #[node]
    async fn odd(_state: &Mail, answer: Option<()>) -> Ask<f64> {
        answer.map_or(Ask::Question(f64::NAN), Ask::Done)
    }
    let error = graph! { odd -> END }.invoke(Mail::default(), RunConfig::new()).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::Node(_)));
    assert!(error.to_string().contains("`f64` cannot be written as JSON: the number is not finite"), "{error}");
}

#[test]
fn a_node_in_a_branch_of_any_cannot_ask() {
    let build = |fill: &dyn Fn(&mut StateGraph<Mail>)| {
        let mut graph: StateGraph<Mail> = StateGraph::new();
        fill(&mut graph);
        graph.add_parallel_node("NOTE", note {});
        graph.set_entry_point("ANY");
        graph.add_edge("ANY", END);
        let error = graph.compile(CompileOptions::new()).unwrap_err();
        error.problems().iter().map(|problem| problem.kind.clone()).collect::<Vec<_>>()
    };
    let problem = |node: &str| vec![BuildProblemKind::QuestionInAny { node: node.into(), group: "ANY".into() }];
    let plain = build(&|graph| {
        graph.add_parallel_node("ASK", ask_in_branch {});
        graph.add_any("ANY", [["NOTE"], ["ASK"]]);
    });
    assert_eq!(
        plain[0].to_string(),
        "node `ASK` asks a question, and `ANY` goes on with the first branch that succeeds: ask before it, or after it"
    );
    assert_eq!(plain, problem("ASK"));
    let in_a_group_in_it = build(&|graph| {
        graph.add_parallel_node("ASK", ByHand::<true>);
        graph.add_parallel_node("OTHER", note {});
        graph.add_group("GROUP", [["OTHER"], ["ASK"]]);
        graph.add_any("ANY", [["NOTE"], ["GROUP"]]);
    });
    assert_eq!(in_a_group_in_it, problem("ASK"));
    let in_a_graph = build(&|graph| {
        let inner = mail().map_state(Mail::clone, |_| Mail::update());
        graph.add_parallel_node("SUB", inner);
        graph.set_node_options("SUB", NodeOptions::new().label("a graph"));
        graph.add_any("ANY", [["NOTE"], ["SUB"]]);
    });
    assert_eq!(in_a_graph, problem("SUB"));
}

#[derive(Serialize, schemars::JsonSchema)]
struct Described {
    text: String,
    #[serde(skip_serializing)]
    #[allow(dead_code, reason = "the schema leaves it out")]
    hidden: u8,
}

#[derive(Deserialize, schemars::JsonSchema)]
enum Choice {
    Yes,
    No,
}

#[test]
fn the_types_of_a_question_and_its_answer_have_schemas_if_they_can() {
    #[node]
    async fn described(answer: Option<Choice>) -> Ask<Described> {
        match answer {
            None => Ask::Question(Described { text: String::new(), hidden: 0 }),
            Some(Choice::Yes | Choice::No) => Ask::Done(()),
        }
    }
    let info = <described as Node<Mail>>::INFO;
    let question = info.question().unwrap().schema().unwrap();
    assert_eq!(question["properties"], json!({ "text": { "type": "string" } }));
    let answer = info.answer().unwrap().schema().unwrap();
    assert_eq!((&answer["title"], &answer["enum"]), (&json!("Choice"), &json!(["Yes", "No"])));
    let in_a_group = <described as ParallelNode<Mail>>::INFO;
    assert_eq!(in_a_group.answer().unwrap().schema(), Some(answer));

    let without = <review as Node<Mail>>::INFO;
    assert!(without.question().unwrap().schema().is_none() && without.answer().unwrap().schema().is_none());
    assert!(without.answer().unwrap().name().ends_with("Verdict"));
    assert!(<send as Node<Mail>>::INFO.answer().is_none());

    let by_hand = NodeInfo::new().asks_with_schemas::<ApprovalRequest, Approval>();
    let approval = by_hand.answer().unwrap().schema().unwrap();
    assert_eq!(approval["required"], json!(["decisions"]));
}
