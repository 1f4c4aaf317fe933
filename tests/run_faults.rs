//! Faults at the borders of a run's parts: fallbacks that are graphs or groups, interrupts between the last node and the
//! end, policies and reducers that panic, limits of nested graphs, and loops of any length.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use agentflow::{
    CancellationToken, CompileOptions, CompiledGraph, END, EventWriter, NodeError, NodeFailure, NodeOptions,
    RetryPolicy, RunConfig, State, StateGraph, graph,
    graph::{Node, NodeContext},
    node,
    run::{EventKind, LastState, RunErrorKind},
};
use tokio::{sync::mpsc, time::sleep};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default, PartialEq, State)]
struct Log {
    #[state(append)]
    lines: Vec<String>,
    count: u32,
}

#[node]
async fn fails(_state: &mut Log) -> Result<(), NodeError> {
    Err("no luck".into())
}

#[node]
async fn recover(state: &mut Log, error: Option<&NodeFailure>) {
    state.lines.push(format!("recover: {}", error.map_or("none".to_owned(), |error| error.node.to_string())));
}

#[node]
async fn note(_state: &Log, error: Option<&NodeFailure>) -> LogUpdate {
    Log::update().lines([format!("note: {}", error.map_or("none".to_owned(), |error| error.node.to_string()))])
}

mod fallbacks {
    use super::*;

    #[tokio::test]
    async fn a_graph_written_in_place_sees_the_failure_in_its_first_node() {
        let app = graph! {
            node F = fails { on_error: REPAIR };
            graph REPAIR { node AGAIN = recover; recover -> AGAIN -> END }
            F -> END;
            REPAIR -> END
        };
        let state = app.invoke(Log::default(), RunConfig::new()).await.unwrap();
        assert_eq!(state.lines, ["recover: F", "recover: none"]);
    }

    #[tokio::test]
    async fn a_compiled_and_a_mapped_graph_see_the_failure() {
        let inner = || graph! { recover -> END };
        let mapped = inner().map_state(Log::clone, |inner: Log| Log::update().lines(inner.lines));
        let app = graph! {
            node F = fails { on_error: COMPILED };
            node COMPILED = inner();
            node G = fails { on_error: MAPPED };
            node MAPPED = (mapped);
            F -> END;
            COMPILED -> G -> END;
            MAPPED -> END
        };
        let state = app.invoke(Log::default(), RunConfig::new()).await.unwrap();
        assert_eq!(state.lines, ["recover: F", "recover: F", "recover: G"]);
    }

    #[tokio::test]
    async fn the_first_node_of_each_branch_of_a_group_sees_the_failure() {
        let mut graph = StateGraph::<Log>::new();
        graph.add_node("F", fails {}).set_entry_point("F").add_edge("F", END);
        for name in ["A", "B", "C"] {
            graph.add_parallel_node(name, note {});
        }
        graph.add_group("GROUP", [vec!["A", "B"], vec!["C"]]).add_edge("GROUP", END);
        graph.set_node_options("F", NodeOptions::new().on_error("GROUP"));
        let app = graph.compile(CompileOptions::new()).unwrap();
        let state = app.invoke(Log::default(), RunConfig::new()).await.unwrap();
        assert_eq!(state.lines, ["note: F", "note: none", "note: F"]);
    }

    #[tokio::test]
    async fn a_retry_policy_that_panics_keeps_the_error_and_the_fallback() {
        let policy = || RetryPolicy::new(2).when(|_| panic!("in the policy"));
        let app = graph! {
            node F = fails { retry: policy(), on_error: recover };
            F -> END;
            recover -> END
        };
        let state = app.invoke(Log::default(), RunConfig::new()).await.unwrap();
        assert_eq!(state.lines, ["recover: F"]);

        let app = graph! { node F = fails { retry: policy() }; F -> END };
        let error = app.invoke(Log::default(), RunConfig::new()).await.unwrap_err();
        assert!(error.to_string().ends_with("no luck"), "{error}");
    }
}

mod ends {
    use super::*;

    /// A last node that uses up the budget of its tokio task and is cancelled in its last poll.
    #[tokio::test]
    async fn a_run_whose_last_node_succeeded_is_not_cancelled_whatever_its_budget() {
        for messages in [1, 63, 64, 126, 127, 128, 129, 255, 256, 257] {
            let token = CancellationToken::new();
            let cancel = token.clone();
            let (sender, receiver) = mpsc::unbounded_channel();
            for message in 0..messages {
                sender.send(message).unwrap();
            }
            let inbox = Arc::new(tokio::sync::Mutex::new(receiver));
            let last = move |messages: u32| {
                let (inbox, cancel) = (Arc::clone(&inbox), cancel.clone());
                async move {
                    for _ in 0..messages {
                        inbox.lock().await.recv().await;
                    }
                    cancel.cancel();
                }
            };
            let app = graph! { node LAST = (Last(Box::new(move || Box::pin(last(messages))))); LAST -> END };
            let config = RunConfig::new().with_cancellation_token(token);
            let run = tokio::spawn(async move { app.invoke(Log::default(), config).await });
            assert!(run.await.unwrap().is_ok(), "after {messages} messages");
        }
    }

    type Work = Box<dyn Fn() -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

    struct Last(Work);

    impl<C: Send + Sync + 'static> agentflow::graph::Node<Log, C> for Last {
        type Output = ();

        async fn run(&self, _cx: agentflow::graph::NodeContext<'_, Log, C>) -> Result<(), NodeError> {
            (self.0)().await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_whose_last_node_succeeded_is_not_cancelled_by_a_slow_reader() {
        #[node]
        async fn speak(state: &mut Log, events: &EventWriter, config: &agentflow::RunConfig) -> Result<(), NodeError> {
            for token in 0..state.count {
                events.emit("token", token).await;
            }
            config.cancellation_token().ok_or("no token")?.cancel();
            Ok(())
        }
        for count in 55..70 {
            let app = graph! { speak -> END };
            let config = RunConfig::new().with_cancellation_token(CancellationToken::new());
            let mut run = app.stream(Log { count, ..Log::default() }, config);
            let mut last = None;
            while let Some(event) = run.next().await {
                sleep(SECOND).await;
                last = Some(event.kind);
            }
            assert!(matches!(last, Some(EventKind::RunEnded { .. })), "{last:?}");
            let ended = run.finish().await;
            // Above the capacity the node itself waits for the reader, and is cancelled there or succeeds.
            assert!(ended.is_ok(), "{count} events: {ended:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_cut_in_a_backoff_or_in_an_attempt_has_its_state_restored() {
        #[node]
        async fn one_more(state: &mut Log) {
            state.count += 1;
        }
        #[node]
        async fn half(state: &mut Log, attempt: u32) -> Result<(), NodeError> {
            state.count += 10;
            if attempt == 1 {
                return Err("again".into());
            }
            sleep(100 * SECOND).await;
            Ok(())
        }
        let app = graph! {
            node HALF = half { retry: RetryPolicy::new(2).backoff(30 * SECOND) };
            one_more -> HALF -> END
        };
        for seconds in [1, 15, 40, 90] {
            let config = RunConfig::new().with_run_timeout(seconds * SECOND);
            let mut error = app.invoke(Log::default(), config).await.unwrap_err();
            let one = Log { count: 1, ..Log::default() };
            assert_eq!(error.take_state(), Some(LastState::Committed(one)), "after {seconds} s");
            assert_eq!(error.node(), Some("HALF"));
        }
    }

    #[node]
    async fn add(state: &mut Log) {
        state.count += 1;
    }

    #[node]
    async fn reads(_state: &Log) {
        sleep(100 * SECOND).await;
    }

    #[node]
    async fn halves(state: &mut Log) {
        state.count += 10;
        sleep(100 * SECOND).await;
    }

    async fn cut_after_a_second(app: CompiledGraph<Log>) -> LastState<Log> {
        let config = RunConfig::new().with_run_timeout(SECOND);
        app.invoke(Log::default(), config).await.unwrap_err().take_state().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_cut_inside_a_nested_graph_knows_what_its_nodes_committed() {
        let one = Log { count: 1, ..Log::default() };
        let inner = || graph! { add -> reads -> END };
        for app in [
            graph! { graph INNER { add -> reads -> END } INNER -> END },
            graph! { node INNER = inner(); INNER -> END },
            graph! { graph OUTER { node INNER = inner(); INNER -> END } OUTER -> END },
            graph! { node INNER = inner().erase(); INNER -> END },
        ] {
            assert_eq!(cut_after_a_second(app).await, LastState::Committed(one.clone()));
        }
        let half = graph! { graph INNER { add -> halves -> END } INNER -> END };
        assert_eq!(cut_after_a_second(half).await, LastState::Uncommitted(Log { count: 11, ..Log::default() }));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_of_a_graph_that_times_out_leaves_what_its_nodes_committed() {
        let app = graph! { node N = (graph! { add -> reads -> END }) { timeout: 1s }; N -> END };
        let mut error = app.invoke(Log::default(), RunConfig::new()).await.unwrap_err();
        assert_eq!(error.node(), Some("N"));
        assert_eq!(error.take_state(), Some(LastState::Committed(Log { count: 1, ..Log::default() })));
    }

    /// A node that changes the state and runs a graph commits neither until it is done.
    #[tokio::test(start_paused = true)]
    async fn a_node_around_a_graph_commits_the_changes_of_both() {
        struct Around(CompiledGraph<Log>);
        impl Node<Log> for Around {
            type Output = ();
            async fn run(&self, cx: NodeContext<'_, Log>) -> Result<(), NodeError> {
                cx.state.count += 100;
                self.0.run(cx).await
            }
        }
        let app = graph! { node AROUND = Around(graph! { add -> reads -> END }); AROUND -> END };
        assert_eq!(cut_after_a_second(app).await, LastState::Uncommitted(Log { count: 101, ..Log::default() }));
    }

    #[tokio::test(start_paused = true)]
    async fn the_total_time_of_retries_counts_from_the_start_of_the_first_attempt() {
        #[node]
        async fn slow(_state: &Log) -> Result<(), NodeError> {
            sleep(3 * SECOND).await;
            Err("no luck".into())
        }
        let policy = || RetryPolicy::new(9).max_total(5 * SECOND);
        let app = graph! { node SLOW = slow { retry: policy() }; SLOW -> END };
        let error = app.invoke(Log::default(), RunConfig::new()).await.unwrap_err();
        // Attempts begin after 0 s and 3 s, and none after 6 s.
        assert_eq!(error.to_string(), "node `SLOW` failed (attempt 2, after 3.0s): no luck");
    }
}

mod groups {
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, State)]
    struct Fragile {
        #[state(with = breaks)]
        glass: u32,
    }

    fn breaks(_old: &mut u32, _new: u32) {
        panic!("broken");
    }

    #[node]
    async fn push(_state: &Fragile) -> FragileUpdate {
        Fragile::update().glass(1_u32)
    }

    #[node]
    async fn look(_state: &Fragile) {}

    #[tokio::test]
    async fn every_group_that_started_is_closed_by_an_event() {
        let merge = graph! { node OTHER = look; START -> { OTHER, push } -> END };
        let in_a_branch = graph! { node OTHER = look; node AFTER = look; START -> { push -> AFTER, OTHER } -> END };
        for app in [merge, in_a_branch] {
            let mut run = app.stream(Fragile::default(), RunConfig::new());
            let mut open = 0;
            while let Some(event) = run.next().await {
                match event.kind {
                    EventKind::GroupStarted { .. } => open += 1,
                    EventKind::GroupJoined { .. } | EventKind::GroupFailed { .. } => open -= 1,
                    _ => {}
                }
            }
            assert_eq!(open, 0);
            let error = run.finish().await.unwrap_err();
            assert_eq!(error.node(), Some("push"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_is_dropped_is_closed_after_the_groups_in_it() {
        #[node]
        async fn waits(_state: &Log) {
            sleep(100 * SECOND).await;
        }
        #[node]
        async fn late(_state: &Log) -> Result<(), NodeError> {
            sleep(SECOND).await;
            Err("no luck".into())
        }
        let interrupted = graph! { node W = waits; START -> { note, { W, reads_nothing } } -> END };
        let timed_out = graph! {
            node SUB = (graph! { node W = waits; START -> { note, { W, reads_nothing } } -> END }) { timeout: 1s };
            SUB -> END
        };
        let failed = graph! { node W = waits; START -> { late, { note, { W, reads_nothing } } } -> END };
        for (app, groups) in [(interrupted, 2), (timed_out, 2), (failed, 3)] {
            let mut run = app.stream(Log::default(), RunConfig::new().with_run_timeout(2 * SECOND));
            let (mut open, mut closed) = (Vec::new(), 0);
            while let Some(event) = run.next().await {
                match event.kind {
                    EventKind::GroupStarted { nodes, .. } => open.push(nodes),
                    EventKind::GroupFailed { nodes, .. } => {
                        assert_eq!(open.pop(), Some(nodes));
                        closed += 1;
                    }
                    EventKind::GroupJoined { nodes, .. } => panic!("{nodes:?} joined"),
                    _ => {}
                }
            }
            assert_eq!((open.len(), closed), (0, groups));
        }
    }

    #[node]
    async fn reads_nothing() {}

    /// An update is undone if a reducer panics, wherever the node may run again or has a fallback.
    #[tokio::test]
    async fn an_update_whose_reducer_panics_is_undone_where_the_run_goes_on() {
        #[derive(Clone, Debug, Default, PartialEq, State)]
        struct Cracked {
            #[state(append)]
            lines: Vec<String>,
            #[state(with = breaks_at_two)]
            glass: u32,
        }
        fn breaks_at_two(old: &mut u32, new: u32) {
            assert_ne!(new, 2, "broken");
            *old += new;
        }
        #[node]
        async fn update(_state: &Cracked, attempt: u32) -> CrackedUpdate {
            Cracked::update().lines(["updated".to_owned()]).glass(3 - attempt)
        }
        #[node]
        async fn breaks(_state: &Cracked) -> CrackedUpdate {
            Cracked::update().lines(["half".to_owned()]).glass(2_u32)
        }
        #[node]
        async fn mends(state: &mut Cracked) {
            state.lines.push("mended".to_owned());
        }
        let retried = graph! { node U = update { retry: 1 }; U -> END };
        let state = retried.invoke(Cracked::default(), RunConfig::new()).await.unwrap();
        assert_eq!(state, Cracked { lines: vec!["updated".to_owned()], glass: 1 });
        let recovered = graph! { node B = breaks { on_error: mends }; B -> mends -> END };
        let state = recovered.invoke(Cracked::default(), RunConfig::new()).await.unwrap();
        assert_eq!(state.lines, ["mended"]);
        let given_up = graph! { node B = breaks { retry: 1 }; B -> END };
        let mut error = given_up.invoke(Cracked::default(), RunConfig::new()).await.unwrap_err();
        assert_eq!(error.take_state(), Some(LastState::Committed(Cracked::default())));
        let alone = graph! { node B = breaks; B -> END };
        let mut error = alone.invoke(Cracked::default(), RunConfig::new()).await.unwrap_err();
        let half = Cracked { lines: vec!["half".to_owned()], glass: 0 };
        assert_eq!(error.take_state(), Some(LastState::Uncommitted(half)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupt_in_a_group_names_a_node_of_a_branch() {
        #[node]
        async fn waits(_state: &Log) {
            sleep(100 * SECOND).await;
        }
        let inner = graph! { node DEEP = waits; DEEP -> END };
        let app = graph! {
            node M = note;
            node S = (inner.map_state(Log::clone, |_: Log| Log::update()));
            START -> { M, S } -> END
        };
        let config = RunConfig::new().with_run_timeout(SECOND);
        let error = app.invoke(Log::default(), config).await.unwrap_err();
        assert_eq!(error.to_string(), "timed out after 1s at node `S/DEEP`");
    }
}

mod limits {
    use super::*;

    #[node]
    async fn step(state: &mut Log) {
        state.count += 1;
    }

    async fn limit_of(app: &CompiledGraph<Log>) -> (usize, Option<String>, String, Vec<String>) {
        let error = app.invoke(Log::default(), RunConfig::new()).await.unwrap_err();
        let RunErrorKind::RecursionLimit { limit, graph, node, nodes, .. } = error.kind() else { panic!("{error}") };
        let nodes = nodes.iter().map(ToString::to_string).collect();
        (*limit, graph.as_deref().map(str::to_owned), node.to_string(), nodes)
    }

    #[tokio::test]
    async fn a_loop_of_any_length_is_named() {
        for length in [1_usize, 2, 32, 33, 100] {
            let mut graph = StateGraph::<Log>::new();
            let name = |index: usize| format!("N{index}");
            for index in 0..length {
                graph.add_node(name(index), step {});
            }
            for index in 1..length {
                graph.add_edge(name(index - 1), name(index));
            }
            graph.set_entry_point("N0");
            let arms = [(true, "N0".into()), (false, END.into())];
            graph.add_route(name(length - 1), |state: &Log| state.count < u32::MAX, arms);
            let app = graph.compile(CompileOptions::new().recursion_limit(3 * length + 1)).unwrap();
            let (_, _, _, mut nodes) = limit_of(&app).await;
            nodes.sort_unstable();
            let mut all: Vec<_> = (0..length).map(name).collect();
            all.sort_unstable();
            assert_eq!(nodes, all);
        }
    }

    #[tokio::test]
    async fn attempts_of_a_graph_are_no_loop_and_nodes_behind_a_loop_are_not_named() {
        fn inner() -> CompiledGraph<Log> {
            graph! { node FLAKY = flaky; FLAKY -> END }
        }
        static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
        #[node]
        async fn flaky(_state: &mut Log) -> Result<(), NodeError> {
            if ATTEMPTS.fetch_add(1, Ordering::Relaxed) < 3 { Err("again".into()) } else { Ok(()) }
        }
        let app = graph! {
            node SUB = inner() { retry: RetryPolicy::new(5).backoff(Duration::ZERO) };
            node A = step;
            node B = step;
            node C = step;
            SUB -> A -> B -> C -> END;
            compile { recursion_limit: 4 }
        };
        assert_eq!(limit_of(&app).await, (4, None, "C".into(), vec![]));

        let app = graph! {
            node INC = step;
            node A = step;
            node B = step;
            node D = step;
            node E = step;
            INC -> A -> match |state: &Log| state.count >= 4 { true => B -> D -> E -> END, false => INC };
            compile { recursion_limit: 6 }
        };
        assert_eq!(limit_of(&app).await, (6, None, "E".into(), vec!["INC".into(), "A".into()]));
    }

    #[tokio::test]
    async fn the_limit_of_a_nested_graph_holds_in_each_visit() {
        fn specialist(turns: u32) -> CompiledGraph<Log> {
            graph! {
                node TURN = step;
                TURN -> match move |state: &Log| !state.count.is_multiple_of(turns) { true => TURN, false => END };
                compile { recursion_limit: 5 }
            }
        }
        let team = |turns| {
            graph! {
                node SUB = specialist(turns);
                node AGAIN = specialist(turns);
                SUB -> AGAIN -> END;
                compile { recursion_limit: 50 }
            }
        };
        // Five turns in each of two visits.
        assert_eq!(team(5).invoke(Log::default(), RunConfig::new()).await.unwrap().count, 10);
        let (limit, graph, node, nodes) = limit_of(&team(6)).await;
        assert_eq!((limit, graph.as_deref(), node.as_str()), (5, Some("SUB"), "SUB/TURN"));
        assert_eq!(nodes, ["SUB/TURN"]);
        // The outer limit is the smaller one.
        let outer = graph! { node SUB = specialist(1000); SUB -> END; compile { recursion_limit: 3 } };
        assert_eq!(limit_of(&outer).await.0, 3);
    }
}

#[tokio::test]
async fn a_panic_in_an_error_text_keeps_the_fallback() {
    #[derive(Debug)]
    struct Rude;
    impl std::fmt::Display for Rude {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("in the text")
        }
    }
    impl std::error::Error for Rude {}

    static SEEN: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    #[node]
    async fn rude(_state: &mut Log, attempt: u32) -> Result<(), Rude> {
        SEEN.lock().unwrap().push(attempt);
        Err(Rude)
    }
    let app = graph! { node R = rude { retry: RetryPolicy::new(1).backoff(Duration::ZERO), on_error: recover }; R -> END; recover -> END };
    let state = app.invoke(Log::default(), RunConfig::new()).await.unwrap();
    assert_eq!((state.lines, SEEN.lock().unwrap().clone()), (vec!["recover: R".to_owned()], vec![1, 2]));
}

mod subscribers {
    use futures::poll;

    use super::*;
    use crate::{
        support::{OnDrop, capture},
        task_reports_agree::PanicsIn,
    };

    #[node]
    async fn flaky(_state: &mut Log, attempt: u32) -> Result<(), NodeError> {
        if attempt == 1 { Err("no luck".into()) } else { Ok(()) }
    }

    #[node]
    async fn waits(_state: &Log) {
        sleep(3 * SECOND).await;
    }

    fn app() -> CompiledGraph<Log> {
        graph! {
            node FLAKY = flaky { retry: 1 };
            node BROKEN = fails { on_error: NOTES };
            graph INNER { START -> { note, waits } -> END }
            graph NOTES { recover -> END }
            FLAKY -> INNER -> BROKEN -> NOTES -> END
        }
    }

    /// Returns the ends of runs of all kinds, and the events of those that are streamed.
    async fn ends() -> Vec<String> {
        let mut ends = Vec::new();
        let endless = RunConfig::new;
        for config in [endless, || RunConfig::new().with_run_timeout(2 * SECOND)] {
            let app = app();
            ends.push(format!("{:?}", app.invoke(Log::default(), config()).await.map_err(|error| error.to_string())));
            let mut stream = app.stream(Log::default(), config());
            while let Some(event) = stream.next().await {
                ends.push(event.kind.name().to_owned());
            }
            ends.push(format!("{:?}", stream.finish().await.map_err(|error| error.to_string())));
            drop(app.aclose().await);
            let refused = app.invoke(Log::default(), config()).await;
            ends.push(refused.unwrap_err().to_string());
        }
        ends
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_panics_changes_no_run() {
        let expected = {
            let (_log, _guard) = capture();
            ends().await
        };
        for call in PanicsIn::CALLS.into_iter().chain(["every call"]) {
            let _guard = PanicsIn::set(call);
            assert_eq!(ends().await, expected, "panics in {call}");
        }
    }

    /// A future that is leaked while its memory is freed leaves its waiters in their lists.
    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_dropped_drops_its_nodes_whatever_the_subscriber_does() {
        #[node]
        async fn held(_state: &mut Log, #[inject] dropped: &Arc<AtomicU32>) {
            let _held = OnDrop(|| {
                dropped.fetch_add(1, Ordering::Relaxed);
            });
            std::future::pending::<()>().await;
        }
        for call in PanicsIn::CALLS.into_iter().chain(["every call"]) {
            let _guard = PanicsIn::set(call);
            let dropped = Arc::new(AtomicU32::new(0));
            let app = graph! { held -> END; compile { services: Arc::clone(&dropped) } };
            let mut run = Box::pin(app.invoke(Log::default(), RunConfig::new()));
            assert!(poll!(run.as_mut()).is_pending());
            drop(run);
            assert_eq!(dropped.load(Ordering::Relaxed), 1, "panics in {call}");
        }
    }
}
