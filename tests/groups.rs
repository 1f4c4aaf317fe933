//! Groups: parallel branches and their join.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use agentflow::{
    CompileOptions, CompiledGraph, END, NodeError, RunConfig, RunError, START, State, StateGraph,
    error::Panicked,
    graph,
    graph::{ParallelContext, ParallelNode},
    node,
    run::{LastState, RunErrorKind},
};
use proptest::prelude::*;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::support::{OnDrop, Say, Trip, TripUpdate, committed, failure, steps};

const SECOND: Duration = Duration::from_secs(1);

/// Writes its name down after this time.
struct Late(Duration);

impl ParallelNode<Trip> for Late {
    type Output = ();

    async fn run_parallel(&self, cx: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
        sleep(self.0).await;
        Ok((Some(Trip::update().steps([cx.node_name()])), ()))
    }
}

/// Never ends, and sets the flag when it is dropped.
struct Stuck(Arc<AtomicBool>);

impl ParallelNode<Trip> for Stuck {
    type Output = ();

    async fn run_parallel(&self, _: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
        let _guard = OnDrop(|| self.0.store(true, Ordering::SeqCst));
        std::future::pending().await
    }
}

/// Fails after this time.
struct Fails(Duration);

impl ParallelNode<Trip> for Fails {
    type Output = ();

    async fn run_parallel(&self, cx: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
        sleep(self.0).await;
        Err(format!("{} is broken", cx.node_name()).into())
    }
}

/// Replaces the title.
struct Name(&'static str);

impl ParallelNode<Trip> for Name {
    type Output = ();

    async fn run_parallel(&self, cx: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
        let title = format!("{}{}", cx.state.title, self.0);
        Ok((Some(Trip::update().title(title).steps([cx.node_name()])), ()))
    }
}

fn before() -> Trip {
    Trip { steps: vec!["before".into()], ..Trip::default() }
}

#[tokio::test]
async fn the_node_after_branches_of_uneven_length_runs_once() {
    let app = graph! {
        node A = (Say);
        node B = (Say);
        node C = (Say);
        node D = (Say);
        node E = (Say);
        node MEET = (Say);
        A -> { B, C -> D -> E } -> MEET -> END
    };
    assert_eq!(steps(&app).await, ["A", "B", "C", "D", "E", "MEET"]);
}

#[tokio::test]
async fn a_graph_may_start_and_end_with_a_group() {
    let app = graph! {
        node A = (Say);
        node B = (Say);
        START -> { A, B } -> END
    };
    assert_eq!(steps(&app).await, ["A", "B"]);
}

#[tokio::test]
async fn groups_chain_and_nest() {
    let app = graph! {
        node A = (Say);
        node B = (Say);
        node C = (Say);
        node D = (Say);
        node E = (Say);
        node F = (Say);
        node G = (Say);
        node H = (Say);
        START -> { A -> { B, C -> { D, E } } -> F, G } -> { H } -> END
    };
    assert_eq!(steps(&app).await, ["A", "B", "C", "D", "E", "F", "G", "H"]);
}

#[tokio::test(start_paused = true)]
async fn a_loop_runs_its_group_in_each_iteration() {
    let app = graph! {
        node A = (Say);
        node B = (Late(SECOND));
        node C = (Say);
        node MEET = (Say);
        A -> { B, C } -> MEET -> match |state: &Trip| state.steps.len() {
            12.. => END,
            _ => A,
        }
    };
    assert_eq!(steps(&app).await, ["A", "B", "C", "MEET"].repeat(3));
}

#[tokio::test]
async fn an_arm_may_lead_to_a_group() {
    let app = graph! {
        node A = (Say);
        node B = (Say);
        node C = (Say);
        node D = (Say);
        A -> match |state: &Trip| state.steps.len() > 3 {
            true => END,
            false => { B, C } -> D -> A,
        }
    };
    assert_eq!(steps(&app).await, ["A", "B", "C", "D", "A"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_branch_delays_no_node_but_the_join() {
    struct Waits(Arc<Notify>);
    impl ParallelNode<Trip> for Waits {
        type Output = ();

        async fn run_parallel(&self, _: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
            self.0.notified().await;
            Ok((Some(Trip::update().steps(["waited"])), ()))
        }
    }

    struct Tells(Arc<Notify>);
    impl ParallelNode<Trip> for Tells {
        type Output = ();

        async fn run_parallel(&self, _: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
            self.0.notify_one();
            Ok((None, ()))
        }
    }

    // The first branch ends only when the second one is near its end.
    let is_near_end = Arc::new(Notify::new());

    let app = graph! {
        node SLOW = (Waits(is_near_end.clone()));
        node B = (Late(SECOND));
        node C = (Late(SECOND));
        node LAST = (Tells(is_near_end.clone()));
        START -> { SLOW, B -> C -> LAST } -> END
    };
    let steps = timeout(60 * SECOND, steps(&app)).await.unwrap();
    assert_eq!(steps, ["waited", "B", "C"]);
}

#[tokio::test]
async fn a_busy_branch_does_not_starve_the_later_ones() {
    /// Uses up tokio's budget for one poll of a task, until the other branch has been polled.
    struct Greedy(Arc<AtomicBool>);
    impl ParallelNode<Trip> for Greedy {
        type Output = ();

        async fn run_parallel(&self, _: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
            for _ in 0..10_000 {
                if self.0.load(Ordering::SeqCst) {
                    return Ok((None, ()));
                }
                tokio::task::consume_budget().await;
            }
            Err("the other branch starves".into())
        }
    }

    struct Modest(Arc<AtomicBool>);
    impl ParallelNode<Trip> for Modest {
        type Output = ();

        async fn run_parallel(&self, _: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
            tokio::task::consume_budget().await;
            self.0.store(true, Ordering::SeqCst);
            Ok((None, ()))
        }
    }

    let had_its_turn = Arc::new(AtomicBool::new(false));
    let app = graph! {
        type State = Trip;
        node GREEDY = (Greedy(had_its_turn.clone()));
        node MODEST = (Modest(had_its_turn.clone()));
        START -> { GREEDY, MODEST } -> END
    };
    app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
}

/// Builds a group of this many branches of one node each: `0`, `1`, ….
fn wide<N: ParallelNode<Trip, Output = ()>>(branches: usize, node: impl Fn(usize) -> N) -> CompiledGraph<Trip> {
    let mut graph = StateGraph::new();
    for branch in 0..branches {
        graph.add_parallel_node(branch.to_string(), node(branch));
    }
    graph.add_group("ALL", (0..branches).map(|branch| [branch.to_string()]));
    graph.set_entry_point("ALL");
    graph.add_edge("ALL", END);
    graph.compile(CompileOptions::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn many_branches_are_merged_in_written_order() {
    for branches in [1, 31, 32, 33, 100] {
        let app = wide(branches, |branch| Late(SECOND * u32::try_from(branches - branch).unwrap()));
        let began = Instant::now();
        let names: Vec<_> = (0..branches).map(|branch| branch.to_string()).collect();
        assert_eq!(steps(&app).await, names);
        assert_eq!(began.elapsed().as_secs(), branches as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_cancels_many_branches() {
    for branches in [2, 100] {
        let app = wide(branches, |branch| Fails(SECOND * u32::try_from(branches - branch).unwrap()));
        let began = Instant::now();
        assert_eq!(failure(&app).await.node(), Some((branches - 1).to_string().as_str()));
        assert_eq!(began.elapsed(), SECOND);
    }
}

#[tokio::test]
async fn branches_run_in_the_task_of_the_run() {
    #[node]
    async fn before(state: &mut Trip) {
        tokio::task::yield_now().await;
        state.steps.push(tokio::task::id().to_string());
    }

    #[node]
    async fn beside(_state: &Trip) -> TripUpdate {
        tokio::task::yield_now().await;
        Trip::update().steps([tokio::task::id().to_string()])
    }

    let app = graph! {
        node A = beside;
        node B = beside;
        before -> { A, B } -> END
    };
    let run = tokio::spawn(async move { steps(&app).await });
    let id = run.id().to_string();
    assert_eq!(run.await.unwrap(), [id.clone(), id.clone(), id]);
}

#[tokio::test]
async fn fields_that_append_or_merge_do_not_conflict() {
    #[derive(Clone, Default, State)]
    struct Best {
        #[state(with = larger)]
        best: u32,
        #[state(append)]
        seen: Vec<u32>,
    }

    fn larger(old: &mut u32, new: u32) {
        *old = new.max(*old);
    }

    struct Try(u32);
    impl ParallelNode<Best> for Try {
        type Output = ();

        async fn run_parallel(&self, _: ParallelContext<'_, Best>) -> Result<(Option<BestUpdate>, ()), NodeError> {
            Ok((Some(Best::update().best(self.0).seen([self.0])), ()))
        }
    }

    let app = graph! {
        type State = Best;
        node A = (Try(3));
        node B = (Try(7));
        node C = (Try(5));
        START -> { A, B, C } -> END
    };
    let state = app.invoke(Best::default(), RunConfig::new()).await.unwrap();
    assert_eq!((state.best, state.seen), (7, vec![3, 7, 5]));
}

#[tokio::test]
async fn nodes_of_one_branch_may_replace_one_field() {
    let app = graph! {
        node A = (Name("a"));
        node B = (Name("b"));
        node C = (Say);
        START -> { A -> B, C } -> END
    };
    let state = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    // The second node saw the first one's update.
    assert_eq!((state.title.as_str(), state.steps.len()), ("ab", 3));
}

fn conflict_of(error: &RunError) -> (&'static str, [String; 2]) {
    match error.kind() {
        RunErrorKind::Conflict { field, nodes, .. } => (field, nodes.each_ref().map(ToString::to_string)),
        other => panic!("no conflict: {other}"),
    }
}

#[tokio::test]
async fn branches_that_replace_one_field_conflict_and_nothing_is_merged() {
    let app = graph! {
        type State = Trip;
        node FIRST = (Say);
        node A = (Name("a"));
        node B = (Say);
        node C = (Name("c"));
        FIRST -> { A, B -> C } -> END
    };
    let mut error = app.invoke(before(), RunConfig::new()).await.unwrap_err();
    assert_eq!(conflict_of(&error), ("title", ["A".into(), "C".into()]));
    assert_eq!(
        error.to_string(),
        "nodes `A` and `C` run in parallel and both replace `title`; \
         let only one of them replace it, or merge the values with `#[state(append)]` or `#[state(with = ..)]`"
    );
    let state = committed(&mut error);
    assert_eq!((state.title.as_str(), state.steps), ("", vec!["before".to_owned(), "FIRST".into()]));
}

#[tokio::test]
async fn branches_of_an_inner_group_conflict_with_each_other_and_with_outer_ones() {
    let inner = graph! {
        node A = (Name("a"));
        node B = (Name("b"));
        node C = (Say);
        START -> { C -> { A, B }, D } -> END;
        node D = (Say);
    };
    assert_eq!(conflict_of(&failure(&inner).await), ("title", ["A".into(), "B".into()]));

    let outer = graph! {
        node A = (Name("a"));
        node B = (Say);
        node C = (Name("c"));
        START -> { { A, B }, C } -> END
    };
    assert_eq!(conflict_of(&failure(&outer).await), ("title", ["A".into(), "C".into()]));

    // Nodes of two groups in sequence are not in conflict.
    let none = graph! {
        node A = (Name("a"));
        node B = (Name("b"));
        node C = (Name("c"));
        START -> { A -> { B } -> C } -> END
    };
    let state = none.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.title, "abc");
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_cancels_the_other_branches_and_is_reported() {
    let dropped = Arc::new(AtomicBool::new(false));
    let app = graph! {
        type State = Trip;
        node FIRST = (Say);
        node STUCK = (Stuck(dropped.clone()));
        node LATER = (Fails(3 * SECOND));
        node DONE = (Say);
        node SOON = (Fails(2 * SECOND));
        node NEVER = (Say);
        FIRST -> { STUCK, LATER, DONE, SOON -> NEVER } -> END
    };
    let began = Instant::now();
    let mut error = app.invoke(before(), RunConfig::new()).await.unwrap_err();
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!(error.node(), Some("SOON"));
    assert!(error.to_string().ends_with(": SOON is broken"), "{error}");
    assert_eq!(committed(&mut error).steps, ["before", "FIRST"]);
}

#[tokio::test]
async fn a_panic_in_a_branch_is_its_nodes_error() {
    #[node]
    async fn panics(_state: &Trip) -> TripUpdate {
        tokio::task::yield_now().await;
        panic!("ouch")
    }

    let dropped = Arc::new(AtomicBool::new(false));
    let app = graph! {
        type State = Trip;
        node STUCK = (Stuck(dropped.clone()));
        START -> { STUCK, panics } -> END
    };
    let mut error = app.invoke(before(), RunConfig::new()).await.unwrap_err();
    assert_eq!(error.node(), Some("panics"));
    assert_eq!(&*error.downcast_ref::<Panicked>().unwrap().message, "ouch");
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!(committed(&mut error), before());
}

#[tokio::test]
async fn a_panicking_destructor_does_not_replace_the_failure() {
    struct Bomb;
    impl ParallelNode<Trip> for Bomb {
        type Output = ();

        async fn run_parallel(&self, _: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
            let _guard = OnDrop(|| panic!("from the destructor"));
            std::future::pending().await
        }
    }

    let app = graph! {
        type State = Trip;
        node BOMB = (Bomb);
        node FAILS = (Fails(Duration::ZERO));
        START -> { BOMB, FAILS } -> END
    };
    let mut error = app.invoke(before(), RunConfig::new()).await.unwrap_err();
    assert_eq!(error.node(), Some("FAILS"));
    assert_eq!(committed(&mut error), before());

    // Each panics alone, because a second panic during the unwinding of the first aborts the process.
    for branches in [3, 100] {
        let app = wide(branches, |_| Bomb);
        let config = RunConfig::new().with_run_timeout(Duration::from_millis(1));
        let error = app.invoke(before(), config).await.unwrap_err();
        assert!(matches!(error.kind(), RunErrorKind::TimedOut { .. }));
    }
}

#[tokio::test]
async fn a_merge_that_panics_fails_the_run_and_not_the_app() {
    #[derive(Clone, Debug, Default, State)]
    struct Fragile {
        first: u32,
        #[state(with = breaks)]
        glass: u32,
    }

    fn breaks(_old: &mut u32, new: u32) {
        assert!(new < 2, "broken");
    }

    #[node]
    async fn touch(state: &Fragile) -> FragileUpdate {
        Fragile::update().first(1u32).glass(state.glass)
    }

    static RUNS: AtomicU32 = AtomicU32::new(0);
    #[node]
    async fn count(state: &Fragile) -> FragileUpdate {
        RUNS.fetch_add(1, Ordering::SeqCst);
        Fragile::update().first(state.first + 1).glass(state.glass)
    }
    let app = graph! { START -> { touch } -> END };
    let state = |glass| Fragile { first: 0, glass };
    let mut error = app.invoke(state(2), RunConfig::new()).await.unwrap_err();
    assert_eq!(&*error.downcast_ref::<Panicked>().unwrap().message, "broken");
    assert_eq!(error.node(), Some("touch"));
    assert!(matches!(error.take_state::<Fragile>(), Some(LastState::Uncommitted(_))));
    assert!(app.invoke(state(1), RunConfig::new()).await.is_ok());

    // A node outside of a group may run again: a merge that fails halfway is undone first.
    let app = graph! {
        node COUNT = count { retry: 1 };
        COUNT -> END
    };
    let mut error = app.invoke(state(2), RunConfig::new()).await.unwrap_err();
    assert_eq!(RUNS.load(Ordering::SeqCst), 2);
    assert!(matches!(error.take_state::<Fragile>(), Some(LastState::Committed(Fragile { first: 0, .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_in_a_group_drops_all_branches() {
    let dropped = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let [first, second] = dropped.clone();
    let app = graph! {
        type State = Trip;
        node A = (Stuck(first));
        node B = (Stuck(second));
        START -> { A, B } -> END
    };
    let config = RunConfig::new().with_run_timeout(SECOND);
    let mut error = app.invoke(before(), config).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::TimedOut { .. }));
    assert_eq!(error.node(), Some("B"), "the branch that was dropped last");
    assert!(dropped.iter().all(|dropped| dropped.load(Ordering::SeqCst)));
    assert_eq!(committed(&mut error), before());
}

/// A part of a branch.
#[derive(Clone, Debug)]
enum Part {
    /// A node that takes this many milliseconds.
    Node(u64),
    Group(Vec<Vec<Part>>),
}

fn branches() -> impl Strategy<Value = Vec<Vec<Part>>> {
    let node = prop_oneof![Just(0), 1..50u64].prop_map(Part::Node);
    let part = node.prop_recursive(2, 24, 3, |part| {
        prop::collection::vec(prop::collection::vec(part, 1..3), 1..4).prop_map(Part::Group)
    });
    prop::collection::vec(prop::collection::vec(part, 1..4), 1..5)
}

/// The start of each node in milliseconds, and the state that the node saw.
type Seen = BTreeMap<String, (u64, Vec<String>)>;

/// The model: it executes the groups sequentially.
#[derive(Default)]
struct Model {
    seen: Seen,
    nodes: usize,
}

impl Model {
    /// Returns the time of the join and the entries that the group adds.
    fn group(&mut self, branches: &[Vec<Part>], from: u64, view: &[String]) -> (u64, Vec<String>) {
        let mut joined = from;
        let mut brought = Vec::new();
        for branch in branches {
            let (mut now, mut own) = (from, Vec::new());
            for part in branch {
                let view = [view, &own].concat();
                match part {
                    Part::Node(takes) => {
                        let name = format!("N{}", self.nodes);
                        self.nodes += 1;
                        self.seen.insert(name.clone(), (now, view));
                        now += takes;
                        own.push(name);
                    }
                    Part::Group(branches) => {
                        let (then, inner) = self.group(branches, now, &view);
                        now = then;
                        own.extend(inner);
                    }
                }
            }
            joined = joined.max(now);
            brought.extend(own);
        }
        (joined, brought)
    }
}

struct Timed {
    takes: u64,
    began: Instant,
    seen: Arc<Mutex<Seen>>,
}

impl ParallelNode<Trip> for Timed {
    type Output = ();

    async fn run_parallel(&self, cx: ParallelContext<'_, Trip>) -> Result<(Option<TripUpdate>, ()), NodeError> {
        let now = u64::try_from(self.began.elapsed().as_millis())?;
        let seen = (now, cx.state.steps.clone());
        self.seen.lock().unwrap().insert(cx.node_name().to_owned(), seen);
        sleep(Duration::from_millis(self.takes)).await;
        Ok((Some(Trip::update().steps([cx.node_name()])), ()))
    }
}

struct Built {
    graph: StateGraph<Trip>,
    nodes: usize,
    groups: usize,
    seen: Arc<Mutex<Seen>>,
}

impl Built {
    /// Adds the group and returns its name.
    fn group(&mut self, branches: &[Vec<Part>]) -> String {
        let mut added = Vec::new();
        for branch in branches {
            let mut members = Vec::new();
            for part in branch {
                members.push(match part {
                    Part::Node(takes) => {
                        let name = format!("N{}", self.nodes);
                        self.nodes += 1;
                        let seen = Arc::clone(&self.seen);
                        let began = Instant::now();
                        self.graph.add_parallel_node(name.as_str(), Timed { takes: *takes, began, seen });
                        name
                    }
                    Part::Group(branches) => self.group(branches),
                });
            }
            added.push(members);
        }
        let name = format!("G{}", self.groups);
        self.groups += 1;
        self.graph.add_group(name.as_str(), added);
        name
    }

    fn app(branches: &[Vec<Part>]) -> (CompiledGraph<Trip>, Arc<Mutex<Seen>>) {
        let seen = Arc::default();
        let mut built = Self { graph: StateGraph::new(), nodes: 0, groups: 0, seen: Arc::clone(&seen) };
        let group = built.group(branches);
        built.graph.add_edge(START, group.as_str()).add_edge(group, END);
        (built.graph.compile(CompileOptions::new()).unwrap(), seen)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In whatever order nodes end, each sees the state at the fork and its own branch's updates, starts as soon as its
    /// predecessor is done, and is merged in written order.
    #[test]
    fn groups_are_equivalent_to_sequential_execution(branches in branches()) {
        let mut model = Model::default();
        let (joined, brought) = model.group(&branches, 0, &["before".to_owned()]);

        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (state, elapsed, seen) = runtime.block_on(async {
            let (app, seen) = Built::app(&branches);
            let began = Instant::now();
            let state = app.invoke(before(), RunConfig::new()).await.unwrap();
            (state, began.elapsed(), seen)
        });
        prop_assert_eq!(&state.steps[1..], brought);
        prop_assert_eq!(elapsed, Duration::from_millis(joined));
        prop_assert_eq!(&*seen.lock().unwrap(), &model.seen);
    }
}
