//! Each form of a decision.
#![deny(warnings)]

use agentflow::{CompiledGraph, NodeError, Route, RunConfig, State, graph, node};

#[derive(Clone, Default, State)]
struct Log {
    #[state(append)]
    said: Vec<String>,
    count: usize,
}

macro_rules! nodes {
    ($($name:ident)*) => {$(
        #[node]
        async fn $name(state: &mut Log) {
            state.said.push(stringify!($name).to_owned());
            state.count += 1;
        }
    )*};
}
nodes!(a b c d);

#[node]
async fn generic<T: Default + Send + Sync + 'static>(state: &mut Log) {
    let _ = T::default();
    state.said.push("generic".to_owned());
    state.count += 1;
}

#[derive(Clone, Copy, Debug, PartialEq, Route)]
enum Step {
    Tools,
    Done,
}

/// A route with data.
#[derive(Route)]
enum Answer {
    Text(String),
    Call { name: &'static str, times: usize },
    Nothing,
}

fn next(state: &Log) -> Step {
    if state.count < 3 { Step::Tools } else { Step::Done }
}

fn count(state: &Log) -> usize {
    state.count
}

fn pair(state: &Log) -> (bool, usize) {
    (state.count % 2 == 0, state.count)
}

fn last(state: &Log) -> Option<&str> {
    state.said.last().map(String::as_str)
}

impl Log {
    fn is_full(&self) -> bool {
        self.count >= 2
    }
}

mod routers {
    pub(crate) fn nested<T: Default + Into<usize>>(state: &super::Log) -> bool {
        state.count > T::default().into()
    }
}

#[node]
async fn decide(state: &Log) -> Step {
    next(state)
}

#[node]
async fn decide_in_place(state: &mut Log) -> Result<Step, NodeError> {
    state.count += 1;
    Ok(next(state))
}

#[node]
async fn decide_and_update(state: &Log) -> (LogUpdate, bool) {
    (Log::update().count(state.count + 1), state.count > 1)
}

#[node]
async fn decide_owning(state: Log) -> Result<(Log, Answer), NodeError> {
    let answer = match state.count {
        0 => Answer::Text("hello".to_owned()),
        1 | 2 => Answer::Call { name: "tool", times: state.count },
        _ => Answer::Nothing,
    };
    Ok((Log { count: state.count + 1, ..state }, answer))
}

#[node]
async fn decide_without_state() -> bool {
    true
}

async fn run(app: CompiledGraph<Log>) -> String {
    app.invoke(Log::default(), RunConfig::new()).await.unwrap().said.join(" ")
}

fn generic_app<T: Default + Send + Sync + 'static>() -> CompiledGraph<Log> {
    graph! { generic::<T> -> match next { Step::Tools => generic::<T>, Step::Done => a -> END } }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // A function of the state: a loop, chains in the arms, trailing commas or none.
    assert_eq!(run(graph! { a -> match next { Step::Tools => a, Step::Done => END } }).await, "a a a");
    assert_eq!(
        run(graph! {
            a -> match next {
                Step::Tools => b -> a,
                Step::Done => c -> d -> END,
            };
        })
        .await,
        "a b a c d"
    );
    assert_eq!(
        run(graph! { START -> a -> match next { Step::Tools => b, Step::Done => END, }; b -> END }).await,
        "a b"
    );
    assert_eq!(run(graph! { a -> b -> match Log::is_full { true => END, false => a } }).await, "a b");
    assert_eq!(run(graph! { a -> match routers::nested::<u8> { true => END, false => a } }).await, "a");

    // Rust's patterns and guards, and variables of the function around the graph.
    let limit = 2;
    let names = vec!["b".to_owned()];
    assert_eq!(run(graph! { a -> match count { 0..3 => a, _ => END } }).await, "a a a");
    assert_eq!(run(graph! { a -> match count { n if n > limit => END, 1 | 2 => a, _ => b -> END } }).await, "a a a");
    assert_eq!(
        run(graph! { a -> match pair { (true, n) if n > limit => END, (false, 0) => END, (..) => a } }).await,
        "a a a a"
    );
    assert_eq!(run(graph! { a -> match last { Some(name) if names.iter().any(|n| n == name) => END, Some(_) | None => b } ; b -> match last { Some("b") => END, _ => a } }).await, "a b");
    let most = 2;
    assert_eq!(
        run(graph! { a -> match (move |state: &Log| state.count < most) { true => a, false => END } }).await,
        "a a"
    );
    assert_eq!(run(graph! { a -> match |state: &Log| state.count < most { true => a, false => END } }).await, "a a");
    let router: fn(&Log) -> Step = next;
    assert_eq!(run(graph! { a -> match router { Step::Tools => a, Step::Done => END } }).await, "a a a");

    // Decisions in arms, groups in arms, generics in arms.
    assert_eq!(
        run(graph! {
            a -> match next {
                Step::Tools => b -> match Log::is_full { true => c -> END, false => a },
                Step::Done => END,
            }
        })
        .await,
        "a b c"
    );
    assert_eq!(run(generic_app::<u8>()).await, "generic generic generic a");

    // The value that the node returned.
    assert_eq!(run(graph! { decide -> match { Step::Tools => a -> decide, Step::Done => b -> END } }).await, "a a a b");
    assert_eq!(run(graph! { decide_in_place -> match { Step::Tools => decide_in_place, _ => a -> END } }).await, "a");
    assert_eq!(run(graph! { decide_and_update -> match { true => END, false => a -> decide_and_update } }).await, "a");
    assert_eq!(
        run(graph! { type State = Log; decide_without_state -> match { true => END, false => decide_without_state } })
            .await,
        ""
    );
    let app = graph! {
        decide_owning -> match {
            Answer::Text(text) if text.is_empty() => END,
            Answer::Text(_) => a -> decide_owning,
            Answer::Call { name: "tool", times } if times > limit => b -> END,
            Answer::Call { .. } => c -> decide_owning,
            Answer::Nothing => d -> END,
        }
    };
    assert_eq!(run(app).await, "a c d");
    // A bound node, by its type or as a value.
    let app = graph! {
        node FIRST = decide;
        node SECOND = (decide {});
        FIRST -> match { Step::Tools => a -> FIRST, Step::Done => SECOND };
        SECOND -> match { Step::Tools => END, Step::Done => b -> END };
    };
    assert_eq!(run(app).await, "a a a b");

    // Two decisions may have the same arms.
    let app = graph! {
        a -> match next { Step::Tools => b, Step::Done => END };
        b -> match next { Step::Tools => a, Step::Done => END };
    };
    assert_eq!(run(app).await, "a b a");
}
