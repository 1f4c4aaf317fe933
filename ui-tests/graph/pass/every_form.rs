//! Each statement of `graph!`, in each form.
#![deny(warnings)]

use std::time::Duration;

use agentflow::{
    AgentState, BackgroundTaskManager, CompiledGraph, Message, NodeError, RunConfig, State, graph,
    graph::{Node, NodeContext}, node,
};

macro_rules! say {
    ($($vis:vis $name:ident)*) => {$(
        #[node]
        $vis async fn $name(state: &mut AgentState) {
            state.context.push(Message::assistant(stringify!($name)));
        }
    )*};
}
say!(a b c node compile name);

mod other {
    use super::{AgentState, Message, node};

    say!(pub(crate) a);

    pub(crate) mod deeper {
        use super::{AgentState, Message, node};

        say!(pub(crate) d);
    }
}

#[node]
async fn log() {}

#[node]
async fn generic<T: Default + Send + Sync + 'static>(state: &mut AgentState) {
    let _ = T::default();
    state.context.push(Message::assistant("generic"));
}

#[derive(Clone)]
struct Say(&'static str);

impl<C: Send + Sync + 'static> Node<AgentState, C> for Say {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, AgentState, C>) -> Result<(), NodeError> {
        cx.state.context.push(Message::assistant(self.0));
        Ok(())
    }
}

impl Say {
    fn hello() -> Self {
        Self("hello")
    }
}

async fn run(app: CompiledGraph<AgentState>) -> String {
    let state = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    let texts: Vec<_> = state.context.iter().map(Message::text).collect();
    texts.join(" ")
}

/// A graph with a name of its own is a function.
fn named(text: &'static str) -> CompiledGraph<AgentState> {
    graph! {
        name = "named";
        node SAY = Say(text);
        SAY -> END
    }
}

fn generic_graph<T: Default + Send + Sync + 'static>() -> CompiledGraph<AgentState> {
    graph! { a -> generic::<T> -> END }
}

fn of_any_state<S: State>() -> CompiledGraph<S> {
    graph! { type State = S; log -> END }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // The delimiters.
    assert_eq!(run(graph! { a -> END }).await, "a");
    assert_eq!(run(graph!(a -> END)).await, "a");
    assert_eq!(run(graph![a -> END]).await, "a");
    assert_eq!(run(graph! {;; a -> END;;}).await, "a");

    // Chains, in one statement or several, in any order.
    assert_eq!(run(graph! { a -> b -> c -> END }).await, "a b c");
    assert_eq!(run(graph! { a -> b; c -> END; b -> c; }).await, "a b c");
    assert_eq!(run(graph! { START -> a -> b -> END }).await, "a b");
    assert_eq!(run(graph! { b -> END; START -> a; a -> b; }).await, "a b");
    assert_eq!(run(graph! { b -> END; START -> a -> b }).await, "a b");

    // Paths, and nodes with the names of keywords.
    assert_eq!(
        run(graph! { self::b -> other::deeper::d -> crate::c -> END }).await,
        "b d c"
    );
    assert_eq!(run(graph! { node -> compile -> name -> END }).await, "node compile name");
    assert_eq!(run(graph! { generic::<u8> -> a -> END }).await, "generic a");
    assert_eq!(run(graph! { generic<Vec<Vec<u8>>> -> END }).await, "generic");
    assert_eq!(run(graph! { generic<u8> -> a; a -> END; START -> generic::<u8> }).await, "generic a");
    assert_eq!(run(generic_graph::<String>()).await, "a generic");

    // Bindings.
    let value = Say("value");
    let app = graph! {
        node FIRST = a;
        node OTHER = other::a;
        node GENERIC = generic::<u8>;
        node CALL = Say::hello();
        node EXPRESSION = Say("expression");
        node VARIABLE = (value.clone());
        node b = b;
        node BLOCK = { let text = "block"; Say(text) };
        FIRST -> OTHER -> GENERIC -> CALL -> EXPRESSION -> VARIABLE -> b -> BLOCK -> END;
    };
    assert_eq!(run(app).await, "a a generic hello expression value b block");
    assert_eq!(value.0, "value");

    // The name of a graph, and its state.
    assert_eq!(named("x").name(), "named");
    assert_eq!(run(named("x")).await, "x");
    assert_eq!(run(of_any_state()).await, "");
    assert_eq!(run(graph! { type State = agentflow::AgentState; log -> a -> END }).await, "a");

    // Compile options.
    let timeout = Duration::from_secs(1);
    let manager = BackgroundTaskManager::new();
    let app = graph! { a -> END; compile { services: String::from("services"), recursion_limit: 50 } };
    assert_eq!(app.services(), "services");
    let _ = graph! { a -> END; compile {} };
    let _ = graph! { compile { shutdown_timeout: 30s, } a -> END };
    let _ = graph! { a -> END; compile { shutdown_timeout: 1.5s }; };
    let _ = graph! { a -> END; compile { shutdown_timeout: 200ms } };
    let _ = graph! { a -> END; compile { shutdown_timeout: 5m } };
    let _ = graph! { a -> END; compile { shutdown_timeout: 1h } };
    let _ = graph! { a -> END; compile { shutdown_timeout: 0s } compile { recursion_limit: 1 } };
    let _ = graph! { a -> END; compile { shutdown_timeout: timeout * 2, task_manager: manager.clone() } };

    // As a part of another expression.
    let app = graph! { a -> END }.clone();
    assert_eq!(run(app).await, "a");
}
