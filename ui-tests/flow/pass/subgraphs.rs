//! Graphs inside graphs, written in place or compiled separately.
#![deny(warnings)]

use agentflow::{CompiledGraph, Provide, RunConfig, State, graph, node};

#[derive(Clone, Default, State)]
struct Log {
    #[state(append)]
    said: Vec<&'static str>,
}

macro_rules! nodes {
    ($($name:ident)*) => {$(
        #[node]
        async fn $name(state: &mut Log) {
            state.said.push(stringify!($name));
        }
    )*};
}
nodes!(a b c d);

#[node]
async fn read(_state: &Log) -> LogUpdate {
    Log::update().said(["read"])
}

#[node]
async fn count(state: &mut Log, #[inject] name: &&'static str) {
    state.said.push(name);
}

#[derive(Clone, Default, State)]
struct Draft {
    words: usize,
}

#[node]
async fn write(state: &mut Draft) {
    state.words += 3;
}

struct Services(&'static str);

impl Provide<&'static str> for Services {
    fn provide(&self) -> &&'static str {
        &self.0
    }
}

fn is_short(state: &Log) -> bool {
    state.said.len() < 3
}

fn research() -> CompiledGraph<Log> {
    graph! { name = "research"; c -> d -> END }
}

fn draft() -> CompiledGraph<Draft> {
    graph! { write -> END }
}

async fn run<C: Send + Sync + 'static>(app: CompiledGraph<Log, C>) -> String {
    app.invoke(Log::default(), RunConfig::new()).await.unwrap().said.join(" ")
}

fn generic<S: State>() -> CompiledGraph<S> {
    #[node]
    async fn nothing() {}
    graph! {
        type State = S;
        graph INNER { nothing -> END }
        nothing -> INNER -> END
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // In place: before or behind its use, with names of its own, a `;` behind it or none.
    assert_eq!(run(graph! { graph INNER { b -> c -> END } a -> INNER -> d -> END }).await, "a b c d");
    assert_eq!(run(graph! { a -> INNER -> END; graph INNER { START -> b; b -> END }; }).await, "a b");
    assert_eq!(run(graph! { graph INNER { a -> END } a -> INNER -> END }).await, "a a");
    let app = graph! {
        graph OUTER {
            node A = a { retry: 1 };
            graph INNER { b -> match is_short { true => c -> b, false => END } }
            A -> INNER -> END;
        }
        graph OTHER { START -> { read } -> END }
        OUTER -> OTHER -> match is_short { true => OUTER, false => d -> END }
    };
    assert_eq!(run(app).await, "a b c b read d");
    assert_eq!(run(generic::<Log>()).await, "");

    // It has the context of the graph around it.
    let app = graph! {
        graph INNER { count -> END }
        a -> INNER -> END;
        compile { services: Services("counted") }
    };
    assert_eq!(run(app).await, "a counted");

    // A value: with the same state, or another one.
    let app = graph! { node RESEARCH = research(); a -> RESEARCH -> b -> END };
    assert_eq!(run(app).await, "a c d b");
    let built = research();
    let app = graph! { node RESEARCH = (built) { timeout: 5s, label: "look it up" }; RESEARCH -> END };
    assert_eq!(run(app).await, "c d");
    let mapped = || {
        draft().map_state(
            |log: &Log| Draft { words: log.said.len() },
            |draft| Log::update().said([if draft.words == 4 { "four" } else { "other" }]),
        )
    };
    assert_eq!(run(graph! { node DRAFT = mapped(); a -> DRAFT -> END }).await, "a four");
    assert_eq!(run(graph! { node DRAFT = mapped(); a -> { DRAFT, read } -> END }).await, "a four read");
}
