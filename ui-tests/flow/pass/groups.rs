//! Each form of a group.
#![deny(warnings)]

use std::marker::PhantomData;

use agentflow::{CompiledGraph, NodeError, RunConfig, State, graph, graph::{ParallelContext, ParallelNode}, node};

#[derive(Clone, Default, State)]
struct Log {
    #[state(append)]
    said: Vec<&'static str>,
}

macro_rules! branches {
    ($($name:ident)*) => {$(
        #[node]
        async fn $name(_state: &Log) -> LogUpdate {
            Log::update().said([stringify!($name)])
        }
    )*};
}
branches!(a b c d e f);

/// Does not use the state, so it can run in a branch and outside of groups.
#[node]
async fn log() {}

#[node]
async fn fallible(state: &Log) -> Result<LogUpdate, NodeError> {
    Ok(Log::update().said([if state.said.is_empty() { "nothing" } else { "fallible" }]))
}

#[node]
async fn in_place(state: &mut Log) {
    state.said.push("in_place");
}

#[node]
async fn generic<T: Default + Send + Sync + 'static>(_state: &Log) -> LogUpdate {
    let _ = T::default();
    Log::update().said(["generic"])
}

struct Tool<T>(&'static str, PhantomData<fn() -> T>);

impl<T: 'static, C: Send + Sync + 'static> ParallelNode<Log, C> for Tool<T> {
    type Output = ();

    async fn run_parallel(&self, _: ParallelContext<'_, Log, C>) -> Result<(Option<LogUpdate>, ()), NodeError> {
        Ok((Some(Log::update().said([self.0])), ()))
    }
}

fn is_long(state: &Log) -> bool {
    state.said.len() > 3
}

async fn run(app: CompiledGraph<Log>) -> String {
    app.invoke(Log::default(), RunConfig::new()).await.unwrap().said.join(" ")
}

fn generic_app<T: Default + Send + Sync + 'static>() -> CompiledGraph<Log> {
    graph! { a -> { generic::<T>, b -> log } -> END }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // The updates come in the order in which the branches are written.
    assert_eq!(run(graph! { a -> { b, c } -> d -> END }).await, "a b c d");
    assert_eq!(run(graph! { a -> { b -> c, d } -> END }).await, "a b c d");
    assert_eq!(run(graph! { a -> { b -> c, d, } -> e; e -> END }).await, "a b c d e");
    assert_eq!(run(graph! { START -> { a, b } -> END }).await, "a b");
    assert_eq!(run(graph! { START -> { a } -> END; }).await, "a");

    assert_eq!(run(graph! { in_place -> { fallible, log } -> a -> END }).await, "in_place fallible a");

    // One group after another, in another, and in a branch.
    assert_eq!(run(graph! { START -> { a, b } -> { c, d } -> END }).await, "a b c d");
    assert_eq!(run(graph! { a -> { b, { c, d } -> e } -> f -> END }).await, "a b c d e f");
    assert_eq!(run(graph! { a -> { b -> { c, d } -> e, f } -> END }).await, "a b c d e f");
    assert_eq!(run(graph! { a -> { { b, { c } }, d } -> END }).await, "a b c d");

    // Generics, paths and values.
    assert_eq!(run(generic_app::<u8>()).await, "a generic b");
    let name = "tool";
    let app = graph! {
        node TOOL = Tool::<u8>(name, PhantomData);
        node B = self::b { timeout: 1s, retry: 1 };
        node GENERIC = generic::<u8>;
        a -> { TOOL -> B, crate::c, GENERIC -> log } -> END
    };
    assert_eq!(run(app).await, "a tool b c generic");

    // With decisions: after a group, and in an arm.
    assert_eq!(run(graph! { a -> { b, c } -> match is_long { true => END, false => d -> a } }).await, "a b c d a b c");
    assert_eq!(
        run(graph! {
            a -> match is_long {
                true => { b, c -> d } -> END,
                false => { e, f } -> in_place -> a,
            }
        })
        .await,
        "a e f in_place a b c d"
    );
}
