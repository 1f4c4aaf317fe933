//! Nodes: their parameters, their results, and the effect of these on the run's state.

use std::{convert::Infallible, marker::PhantomData, sync::Mutex};

use agentflow::{
    BackgroundTaskManager, CancellationToken, CompileOptions, CompiledGraph, END, EventWriter, NodeError, Provide,
    RunConfig, State, StateGraph, graph,
    graph::{Node, NodeContext, ParallelContext, ParallelNode},
    node,
    run::{EventKind, LastState},
};

#[derive(Clone, Debug, Default, PartialEq, State)]
struct Report {
    title: String,
    pages: u32,
    #[state(append)]
    notes: Vec<String>,
}

impl Report {
    fn titled(title: &str) -> Self {
        Self { title: title.to_owned(), ..Self::default() }
    }
}

/// Runs one node on a state with a title and one note.
async fn run<N: Node<Report, (), Output = ()>>(node: N) -> Result<Report, agentflow::RunError> {
    let app = graph! { node IT = (node); IT -> END };
    let state = Report { notes: vec!["first".to_owned()], ..Report::titled("Owls") };
    app.invoke(state, RunConfig::new()).await
}

#[tokio::test]
async fn a_node_changes_the_state_in_place() {
    #[node]
    async fn plain(state: &mut Report) {
        state.pages += 1;
    }
    #[node]
    async fn fallible(state: &mut Report) -> Result<(), Infallible> {
        state.pages += 10;
        Ok(())
    }
    assert_eq!(run(plain {}).await.unwrap().pages, 1);
    assert_eq!(run(fallible {}).await.unwrap().pages, 10);
}

#[tokio::test]
async fn a_node_reads_the_state_and_leaves_it_as_it_is() {
    #[node]
    async fn plain(state: &Report) {
        assert_eq!(state.title, "Owls");
    }
    #[node]
    async fn fallible(state: &Report) -> Result<(), NodeError> {
        Err(state.title.as_str())?
    }
    assert_eq!(run(plain {}).await.unwrap().title, "Owls");
    assert!(run(fallible {}).await.unwrap_err().to_string().ends_with("Owls"));
}

#[tokio::test]
async fn an_update_is_merged_field_by_field() {
    #[node]
    async fn plain(state: &Report) -> ReportUpdate {
        Report::update().pages(7).notes([state.title.clone()])
    }
    #[node]
    async fn fallible(state: &Report) -> Result<ReportUpdate, std::num::ParseIntError> {
        Ok(Report::update().title(state.title.to_uppercase()).pages("8".parse()?))
    }
    let state = run(plain {}).await.unwrap();
    assert_eq!((state.title.as_str(), state.pages), ("Owls", 7));
    assert_eq!(state.notes, ["first", "Owls"]);
    let state = run(fallible {}).await.unwrap();
    assert_eq!((state.title.as_str(), state.pages), ("OWLS", 8));
    assert_eq!(state.notes, ["first"]);
}

#[tokio::test]
async fn a_node_takes_the_state_and_returns_the_new_one() {
    #[node]
    async fn plain(mut state: Report) -> Report {
        state.notes.push("second".to_owned());
        state
    }
    #[node]
    async fn fallible(state: Report) -> Result<Report, NodeError> {
        Ok(Report { pages: 3, ..state })
    }
    assert_eq!(run(plain {}).await.unwrap().notes, ["first", "second"]);
    let state = run(fallible {}).await.unwrap();
    assert_eq!((state.title.as_str(), state.pages), ("Owls", 3));
}

#[tokio::test]
async fn a_node_without_state_runs_on_every_state() {
    #[derive(Clone, Debug, Default, State)]
    struct Other {}

    #[node]
    async fn audit(config: &RunConfig) -> Result<(), String> {
        Err(format!("audited {}", config.user_id().unwrap_or("nobody")))
    }
    let error = run(audit {}).await.unwrap_err();
    assert!(error.to_string().ends_with("audited nobody"), "{error}");

    let app = graph! { type State = Other; audit -> END };
    let ada = RunConfig::new().with_user_id("ada");
    let error = app.invoke(Other::default(), ada).await.unwrap_err();
    assert!(error.to_string().ends_with("audited ada"), "{error}");
}

trait Mailer: Send + Sync {
    fn send(&self, text: &str);
}

#[derive(Default)]
struct Outbox(Mutex<Vec<String>>);

impl Mailer for Outbox {
    fn send(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

struct Limits {
    pages: u32,
}

struct Services {
    limits: Limits,
    outbox: Outbox,
}

impl Services {
    fn new() -> Self {
        Self { limits: Limits { pages: 5 }, outbox: Outbox::default() }
    }
}

impl Provide<Limits> for Services {
    fn provide(&self) -> &Limits {
        &self.limits
    }
}

impl Provide<dyn Mailer> for Services {
    fn provide(&self) -> &(dyn Mailer + 'static) {
        &self.outbox
    }
}

#[tokio::test]
async fn services_are_injected_by_their_type() {
    #[node]
    async fn send(state: &mut Report, #[inject] mailer: &dyn Mailer, #[inject] allowed: &Limits) {
        state.pages = allowed.pages;
        mailer.send(&state.title);
    }
    let app = graph! { send -> END; compile { services: Services::new() } };
    let state = app.invoke(Report::titled("Owls"), RunConfig::new()).await.unwrap();
    assert_eq!(state.pages, 5);
    assert_eq!(*app.services().outbox.0.lock().unwrap(), ["Owls"]);
}

#[tokio::test]
async fn all_parameters_are_accepted_in_any_order() {
    #[node]
    #[allow(clippy::too_many_arguments)]
    async fn all(
        cancel: &CancellationToken,
        #[inject] limits: &Limits,
        events: &EventWriter,
        task_manager: &BackgroundTaskManager,
        config: &RunConfig,
        state: &mut Report,
    ) -> Result<(), NodeError> {
        events.emit("progress", limits.pages).await;
        assert!(!cancel.is_cancelled());
        task_manager.create_task(async {}).name("all").spawn()?;
        state.title = config.user_id().unwrap_or_default().to_owned();
        Ok(())
    }
    let app = graph! { all -> END; compile { services: Services::new() } };
    let ada = RunConfig::new().with_user_id("ada");
    let state = app.invoke(Report::default(), ada).await.unwrap();
    assert_eq!(state.title, "ada");
    assert_eq!(app.task_manager().task_info()[0].name(), "all");
}

#[tokio::test]
async fn a_leading_underscore_does_not_change_a_parameter() {
    #[node]
    async fn idle(_state: &Report, _config: &RunConfig, _cancel: &CancellationToken) {}
    assert_eq!(run(idle {}).await.unwrap().title, "Owls");
}

#[tokio::test]
async fn the_config_of_a_node_has_the_runs_id() {
    #[node]
    async fn note(state: &mut Report, config: &RunConfig) -> Result<(), NodeError> {
        let run = config.run_id().ok_or("a run without an id")?;
        state.notes.push(run.to_string());
        Ok(())
    }
    let (one, other) = (run(note {}).await.unwrap(), run(note {}).await.unwrap());
    assert_ne!(one.notes[1], other.notes[1]);
}

#[tokio::test]
async fn a_hand_written_node_has_its_own_values() {
    struct Add {
        pages: u32,
    }
    impl<C: Send + Sync + 'static> Node<Report, C> for Add {
        type Output = ();
        async fn run(&self, cx: NodeContext<'_, Report, C>) -> Result<(), NodeError> {
            cx.state.pages += self.pages;
            cx.state.notes.push(cx.node_name().to_owned());
            Ok(())
        }
    }
    let app = graph! {
        node FEW = (Add { pages: 2 });
        node MANY = (Add { pages: 40 });
        FEW -> MANY -> END
    };
    let state = app.invoke(Report::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.pages, 42);
    assert_eq!(state.notes, ["FEW", "MANY"]);
}

#[tokio::test]
async fn a_generic_node_is_named_with_its_arguments() {
    trait Model: Send + Sync + 'static {
        const NAME: &'static str;
    }
    struct Large<T>(PhantomData<T>);
    impl<T: Send + Sync + 'static> Model for Large<T> {
        const NAME: &'static str = "large";
    }

    #[node]
    async fn ask<M: Model, const PAGES: u32>(state: &mut Report) {
        state.notes.push(M::NAME.to_owned());
        state.pages += PAGES;
    }
    let app = graph! {
        node AGAIN = ask::<Large<Vec<u8>>, 10>;
        ask::<Large<u8>, 1> -> AGAIN -> END
    };
    let state = app.invoke(Report::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.notes, ["large", "large"]);
    assert_eq!(state.pages, 11);
}

#[tokio::test]
async fn one_function_can_be_several_nodes() {
    #[node]
    async fn count(state: &mut Report) {
        state.pages += 1;
    }
    let app = graph! { node AGAIN = count; count -> AGAIN -> END };
    let state = app.invoke(Report::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.pages, 2);
}

mod elsewhere {
    use super::{Report, node};

    #[node(RENAMED)]
    pub(super) async fn function(state: &mut Report) {
        state.pages += 1;
    }

    #[node]
    pub(super) async fn shared_name(state: &mut Report) {
        state.pages += 10;
    }
}

#[tokio::test]
async fn one_import_brings_the_function_and_the_node() {
    use elsewhere::shared_name;
    let mut report = Report::default();
    shared_name(&mut report).await;
    assert_eq!(report.pages, 10);

    let app = graph! { shared_name -> elsewhere::RENAMED -> END };
    let state = app.invoke(report, RunConfig::new()).await.unwrap();
    assert_eq!(state.pages, 21);
}

#[tokio::test]
async fn the_function_is_still_a_function() {
    let mut report = Report::default();
    elsewhere::function(&mut report).await;
    assert_eq!(report.pages, 1);
}

#[tokio::test]
async fn the_builder_takes_handles_and_values() {
    let mut graph = StateGraph::new();
    graph
        .add_node("A", elsewhere::RENAMED)
        .add_node("B", elsewhere::shared_name {})
        .add_edge("A", "B")
        .add_edge("B", END)
        .set_entry_point("A");
    let app: CompiledGraph<Report> = graph.compile(CompileOptions::new()).unwrap();
    assert_eq!(app.invoke(Report::default(), RunConfig::new()).await.unwrap().pages, 11);
}

#[tokio::test]
async fn a_failed_by_value_node_does_not_change_the_state() {
    #[node]
    async fn owns(mut state: Report) -> Result<Report, &'static str> {
        state.title.clear();
        if state.title.is_empty() { Err("no title") } else { Ok(state) }
    }
    let mut error = run(owns {}).await.unwrap_err();
    let Some(LastState::Committed(state)) = error.take_state::<Report>() else {
        panic!("the state was not touched");
    };
    assert_eq!(state.title, "Owls");
}

/// Runs a node until it has succeeded twice or failed twice; returns the last output.
struct Again<N>(N);

impl<S: State, C: Send + Sync + 'static, N: Node<S, C>> Node<S, C> for Again<N>
where
    N::Output: Send,
{
    type Output = N::Output;
    const MUTATES_STATE: bool = N::MUTATES_STATE;

    async fn run(&self, mut cx: NodeContext<'_, S, C>) -> Result<N::Output, NodeError> {
        _ = self.0.run(cx.reborrow()).await;
        let output = self.0.run(cx.reborrow()).await;
        // Still usable: this is what a wrapper needs that does something afterwards.
        cx.events.emit("ran_again", cx.node_name()).await;
        output
    }
}

impl<S: State, N: ParallelNode<S>> ParallelNode<S> for Again<N> {
    type Output = N::Output;

    async fn run_parallel(&self, cx: ParallelContext<'_, S>) -> Result<(Option<S::Update>, N::Output), NodeError> {
        self.0.run_parallel(cx.clone()).await?;
        self.0.run_parallel(cx).await
    }
}

#[tokio::test]
async fn a_node_that_wraps_another_one_runs_it_more_than_once() {
    #[node]
    async fn in_place(state: &mut Report) {
        state.pages += 1;
    }
    #[node]
    async fn by_value(state: Report) -> Report {
        Report { pages: state.pages + 1, ..state }
    }
    #[node]
    async fn by_update(state: &Report) -> ReportUpdate {
        Report::update().pages(state.pages + 1)
    }
    #[node]
    async fn routes(state: &mut Report) -> bool {
        state.pages += 1;
        state.pages > 10
    }
    #[node]
    async fn counts(state: &Report, events: &EventWriter) -> ReportUpdate {
        events.emit("counted", state.pages).await;
        Report::update().notes(["counted".to_owned()])
    }
    assert_eq!(run(Again(in_place {})).await.unwrap().pages, 2);
    assert_eq!(run(Again(by_value {})).await.unwrap().pages, 2);
    assert_eq!(run(Again(by_update {})).await.unwrap().pages, 2);
    let app = graph! { node IT = (Again(routes {})); IT -> match { true => END, false => IT } };
    assert_eq!(app.invoke(Report::default(), RunConfig::new()).await.unwrap().pages, 12);

    let app = graph! { node IT = (Again(counts {})); START -> { IT, by_update } -> END };
    let mut run = app.stream(Report::default(), RunConfig::new());
    let mut counted = 0;
    while let Some(event) = futures::StreamExt::next(&mut run).await {
        counted += u32::from(matches!(&event.kind, EventKind::Custom { name, .. } if name == "counted"));
    }
    assert_eq!(counted, 2);
}

#[tokio::test]
async fn a_panicked_by_value_node_does_not_change_the_state() {
    #[node]
    async fn owns(mut state: Report) -> Report {
        state.title.clear();
        assert!(!state.title.is_empty(), "no title");
        state
    }
    let mut error = run(owns {}).await.unwrap_err();
    let Some(LastState::Committed(state)) = error.take_state::<Report>() else {
        panic!("the state was not touched");
    };
    assert_eq!(state.title, "Owls");
}

#[tokio::test]
async fn a_failing_node_that_reads_the_state_leaves_it_committed() {
    #[node]
    async fn reads(state: &Report) -> Result<ReportUpdate, String> {
        Err(format!("{} are asleep", state.title))
    }
    let mut error = run(reads {}).await.unwrap_err();
    assert!(matches!(error.take_state(), Some(LastState::Committed(Report { pages: 0, .. }))));
}

#[tokio::test]
async fn the_changes_of_earlier_nodes_survive_a_later_failure() {
    #[node]
    async fn owns(state: Report) -> Result<Report, String> {
        Err(state.title)
    }
    let app = graph! { elsewhere::RENAMED -> elsewhere::shared_name -> owns -> END };
    let mut error = app.invoke(Report::default(), RunConfig::new()).await.unwrap_err();
    assert!(matches!(error.take_state(), Some(LastState::Committed(Report { pages: 11, .. }))));
}
