//! Subgraphs: inline ones, compiled ones, and those with another state.

use std::{
    future::pending,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager, CompiledGraph, NodeError, NodeFailure, Provide, RunConfig, RunId, State, graph,
    graph::{Node, NodeContext},
    node,
    run::{EventKind, LastState, RunErrorKind},
};
use tokio::time::Instant;

use crate::support::{OnDrop, Say, Trip, TripUpdate, cancelled_midway, committed, failure, settle, steps};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default, PartialEq, State)]
struct Question {
    text: String,
    #[state(append)]
    path: Vec<String>,
}

/// A node of a graph with another state, `Question`.
struct Ask;

impl<C: Send + Sync + 'static> Node<Question, C> for Ask {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, Question, C>) -> Result<(), NodeError> {
        cx.state.path.push(format!("{} {}", cx.node_name(), cx.state.text));
        Ok(())
    }
}

fn question() -> CompiledGraph<Question> {
    graph! { node ASK = (Ask); ASK -> END }
}

fn to_question(state: &Trip) -> Question {
    Question { text: format!("after {}", state.steps.join(" ")), path: Vec::new() }
}

fn to_update(question: Question) -> TripUpdate {
    Trip::update().steps(question.path)
}

#[tokio::test]
async fn a_graph_inside_another_shares_its_state() {
    let app = graph! {
        node A = (Say);
        node Z = (Say);
        graph SUB {
            node A = (Say);
            node B = (Say);
            A -> B -> END
        }
        A -> SUB -> Z -> END
    };
    assert_eq!(steps(&app).await, ["A", "SUB/A", "SUB/B", "Z"]);
}

#[tokio::test]
async fn a_compiled_graph_is_a_node_and_remains_an_app() {
    let inner = graph! { node A = (Say); node B = (Say); A -> B -> END };
    let app = graph! {
        node FIRST = (inner.clone());
        node SECOND = (inner.clone());
        FIRST -> SECOND -> END
    };
    assert_eq!(steps(&app).await, ["FIRST/A", "FIRST/B", "SECOND/A", "SECOND/B"]);
    assert_eq!(steps(&inner).await, ["A", "B"]);
}

#[tokio::test]
async fn subgraphs_nest() {
    let innermost = graph! { node C = (Say); C -> END };
    let app = graph! {
        node A = (Say);
        graph OUTER {
            node B = (Say);
            node INNER = (innermost);
            graph OTHER {
                node D = (Say);
                D -> END
            }
            B -> INNER -> OTHER -> END
        }
        A -> OUTER -> END
    };
    assert_eq!(steps(&app).await, ["A", "OUTER/B", "OUTER/INNER/C", "OUTER/OTHER/D"]);
}

#[tokio::test]
async fn a_subgraph_may_contain_decisions_loops_and_groups() {
    let app = graph! {
        node A = (Say);
        graph SUB {
            node B = (Say);
            node C = (Say);
            node D = (Say);
            B -> { C, D } -> match |state: &Trip| state.steps.len() > 6 { true => END, false => B }
        }
        A -> SUB -> END
    };
    assert_eq!(steps(&app).await, ["A", "SUB/B", "SUB/C", "SUB/D", "SUB/B", "SUB/C", "SUB/D"]);
}

#[tokio::test]
async fn a_graph_with_another_state_is_a_node_through_its_maps() {
    let app = graph! {
        node A = (Say);
        node SUB = question().map_state(to_question, to_update);
        A -> SUB -> END
    };
    assert_eq!(steps(&app).await, ["A", "SUB/ASK after A"]);
}

#[tokio::test]
async fn a_graph_with_another_state_may_run_in_a_group() {
    let app = graph! {
        node A = (Say);
        node B = (Say);
        node FIRST = question().map_state(to_question, to_update);
        node SECOND = question().map_state(to_question, to_update);
        A -> { FIRST, B -> SECOND } -> END
    };
    assert_eq!(steps(&app).await, ["A", "FIRST/ASK after A", "B", "SECOND/ASK after A B"]);
}

/// Fails with an error of its own type, after it has changed the state.
#[node]
async fn broken(state: &mut Trip) -> Result<(), io::Error> {
    state.count += 1;
    Err(io::Error::other("the disk is full"))
}

#[tokio::test]
async fn an_error_inside_has_its_path_and_its_type() {
    let inner = graph! {
        node A = (Say);
        graph DEEP { broken -> END }
        A -> DEEP -> END
    };
    let app = graph! { node SUB = (inner); SUB -> END };
    let mut error = failure(&app).await;
    assert_eq!(error.node(), Some("SUB/DEEP/broken"));
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().to_string(), "the disk is full");
    assert!(error.to_string().starts_with("node `SUB/DEEP/broken` failed (attempt 1, "), "{error}");
    assert!(matches!(error.take_state(), Some(LastState::Uncommitted(Trip { count: 1, .. }))));
}

#[tokio::test]
async fn the_state_committed_inside_a_subgraph_is_the_last_state() {
    #[node]
    async fn reads(_state: &Trip) -> Result<(), io::Error> {
        Err(io::Error::other("no"))
    }

    #[node]
    async fn breaks(state: &mut Question) -> Result<(), io::Error> {
        state.path.push("lost".into());
        Err(io::Error::other("no"))
    }
    let app = graph! {
        graph SUB {
            node A = (Say);
            A -> reads -> END
        }
        SUB -> END
    };
    let mut error = failure(&app).await;
    assert_eq!(committed(&mut error).steps, ["SUB/A"]);

    // A graph with another state changes the outer state only at its end.
    let inner = graph! { breaks -> END };
    let app = graph! {
        node A = (Say);
        node SUB = inner.map_state(to_question, to_update);
        A -> SUB -> END
    };
    let mut error = failure(&app).await;
    assert_eq!(error.node(), Some("SUB/breaks"));
    assert_eq!(committed(&mut error).steps, ["A"]);
}

#[tokio::test]
async fn a_retried_graph_starts_from_the_state_before_it_and_its_steps_count_once() {
    #[node]
    async fn third_time(state: &mut Trip) -> Result<(), io::Error> {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        state.count += 1;
        match RUNS.fetch_add(1, Ordering::SeqCst) {
            2 => Ok(()),
            _ => Err(io::Error::other("not yet")),
        }
    }

    let inner = graph! { node A = (Say); A -> third_time -> END };
    let app = graph! {
        node FIRST = (Say);
        node SUB = (inner) { retry: 2 };
        node LAST = (Say);
        FIRST -> SUB -> LAST -> END;
        compile { recursion_limit: 5 }
    };
    let state = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!((state.count, state.steps), (1, ["FIRST", "SUB/A", "LAST"].map(String::from).to_vec()));
}

#[tokio::test]
async fn a_fallback_of_a_graph_sees_the_node_in_it_that_failed() {
    #[node]
    async fn recover(state: &mut Trip, error: Option<&NodeFailure>) {
        state.title = error.unwrap().node.to_string();
    }

    let inner = graph! { node A = (Say); A -> broken -> END };
    let app = graph! {
        node SUB = (inner) { on_error: recover };
        SUB -> END;
        recover -> END
    };
    let state = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    let title = "SUB/broken".to_owned();
    assert_eq!(state, Trip { title, ..Trip::default() });
}

#[tokio::test]
async fn the_options_of_an_inner_node_apply_before_those_of_the_subgraph() {
    #[node]
    async fn second_time(state: &mut Trip, attempt: u32) -> Result<(), io::Error> {
        state.count += attempt;
        if attempt < 2 { Err(io::Error::other("not yet")) } else { Ok(()) }
    }

    let app = graph! {
        graph SUB {
            node A = (Say);
            node TWICE = second_time { retry: 1 };
            A -> TWICE -> END
        }
        SUB -> END
    };
    let state = app.invoke(Trip::default(), RunConfig::new()).await.unwrap();
    assert_eq!((state.count, state.steps), (2, vec!["SUB/A".to_owned()]));
}

#[tokio::test]
async fn events_name_inner_nodes_by_their_path() {
    let app = graph! {
        graph SUB {
            node A = (Say);
            A -> match |state: &Trip| state.steps.len() > 1 { true => END, false => A }
        }
        SUB -> END
    };
    let mut run = app.stream(Trip::default(), RunConfig::new());
    let mut told = Vec::new();
    while let Some(event) = run.next().await {
        match event.kind {
            EventKind::NodeStarted { node, .. } => told.push(format!("+{node}")),
            EventKind::NodeEnded { node, .. } => told.push(format!("-{node}")),
            EventKind::RouteTaken { node, route, to, .. } => told.push(format!("{node} {route} {to}")),
            _ => {}
        }
    }
    assert_eq!(
        told,
        ["+SUB", "+SUB/A", "-SUB/A", "SUB/A false SUB/A", "+SUB/A", "-SUB/A", "SUB/A true SUB/END", "-SUB"]
    );
}

/// A node's view of its run.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    run: RunId,
    user: Option<String>,
    task: (RunId, String),
}

struct Tell(Arc<Mutex<Vec<Place>>>);

impl<C: Send + Sync + 'static> Node<Trip, C> for Tell {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, Trip, C>) -> Result<(), NodeError> {
        let tasks: BackgroundTaskManager = cx.task_manager();
        let task = tasks.create_task(pending::<()>()).name("tell").spawn()?;
        let origin = tasks.task_info().into_iter().find(|info| info.id() == task.id());
        let origin = origin.and_then(|info| info.origin().cloned()).ok_or("no origin")?;
        self.0.lock().unwrap().push(Place {
            run: cx.run_id(),
            user: cx.config.user_id().map(str::to_owned),
            task: (origin.run(), origin.node().to_owned()),
        });
        Ok(())
    }
}

#[tokio::test]
async fn a_subgraph_shares_the_run_its_config_and_its_tasks() {
    let told = Arc::default();
    let inner = graph! { node TELL = (Tell(Arc::clone(&told))); TELL -> END };
    let app = graph! {
        node SUB = (inner.clone());
        SUB -> END;
        compile { shutdown_timeout: 0s }
    };
    let run = RunId::new();
    let config = RunConfig::new().with_user_id("ada").with_run_id(run);
    app.invoke(Trip::default(), config).await.unwrap();
    let expected = Place { run, user: Some("ada".into()), task: (run, "SUB/TELL".into()) };
    assert_eq!(*told.lock().unwrap(), [expected]);
    assert_eq!((app.task_manager().task_count(), inner.task_manager().task_count()), (1, 0));
    let _ = app.stop().await;
}

#[derive(Clone)]
struct Name(&'static str);

struct Names(Name);

impl Provide<Name> for Names {
    fn provide(&self) -> &Name {
        &self.0
    }
}

#[node]
async fn who(state: &mut Trip, #[inject] name: &Name) {
    state.steps.push(name.0.to_owned());
}

#[tokio::test]
async fn a_compiled_subgraph_has_its_own_services_and_an_inline_one_the_outer_ones() {
    let inner = graph! { who -> END; compile { services: Names(Name("inner")) } };
    let app = graph! {
        node OTHER = (inner);
        graph SAME { who -> END }
        who -> OTHER -> SAME -> END;
        compile { services: Names(Name("outer")) }
    };
    assert_eq!(steps(&app).await, ["outer", "inner", "outer"]);
}

#[tokio::test(start_paused = true)]
async fn cancellations_and_timeouts_reach_the_inner_node_and_name_it() {
    struct Hang(Arc<AtomicU32>);
    impl Node<Trip> for Hang {
        type Output = ();
        async fn run(&self, _: NodeContext<'_, Trip>) -> Result<(), NodeError> {
            let _guard = OnDrop(|| _ = self.0.fetch_add(1, Ordering::SeqCst));
            pending().await
        }
    }

    let drops = Arc::new(AtomicU32::new(0));

    let inner = graph! { node A = (Say); node HANG = (Hang(drops.clone())); A -> HANG -> END };
    let app = graph! {
        node FIRST = (Say);
        node SUB = (inner);
        FIRST -> SUB -> END;
        compile { shutdown_timeout: 3s }
    };

    let error = cancelled_midway(&app).await;
    assert_eq!(error.node(), Some("SUB/HANG"));

    let began = Instant::now();
    let config = RunConfig::new().with_run_timeout(2 * SECOND);
    let error = app.invoke(Trip::default(), config).await.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::TimedOut { .. }), "{error}");
    assert_eq!((error.node(), began.elapsed()), (Some("SUB/HANG"), 2 * SECOND));

    let run = app.invoke(Trip::default(), RunConfig::new());
    let (ended, report) = tokio::join!(run, async {
        settle().await;
        app.aclose().await
    });
    let error = ended.unwrap_err();
    assert!(matches!(error.kind(), RunErrorKind::ShutDown { .. }), "{error}");
    assert_eq!((error.node(), report.runs.unfinished.len()), (Some("SUB/HANG"), 1));
    assert_eq!(drops.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_panic_inside_is_the_inner_nodes_error() {
    #[node]
    async fn panics(_state: &Trip) {
        panic!("ouch")
    }

    let app = graph! {
        graph SUB { panics -> END }
        SUB -> END
    };
    let error = failure(&app).await;
    assert_eq!(error.node(), Some("SUB/panics"));
    assert!(error.to_string().ends_with("panicked: ouch"), "{error}");
}

#[tokio::test]
async fn a_map_that_panics_is_the_nodes_error() {
    fn lost(_: &Trip) -> Question {
        panic!("no question")
    }

    let app = graph! {
        node A = (Say);
        node SUB = question().map_state(lost, to_update);
        A -> SUB -> END
    };
    let mut error = failure(&app).await;
    assert_eq!(error.node(), Some("SUB"));
    assert_eq!(committed(&mut error).steps, ["A"]);
}
