//! Type and const parameters, with bounds in both places; states that are generic themselves.
#![deny(warnings)]

use agentflow::{AgentState, NodeError, Provide, RunConfig, State, graph, node};

trait Model: Send + Sync + 'static {
    const NAME: &'static str;
}

struct OpenAi;

impl Model for OpenAi {
    const NAME: &'static str = "openai";
}

#[derive(Clone, Default, State)]
struct Log<T: Default> {
    #[state(append)]
    lines: Vec<T>,
}

#[node]
async fn ask<M: Model>(state: &mut Log<String>) {
    state.lines.push(M::NAME.into());
}

#[node]
async fn repeat<const N: usize, M>(state: &mut Log<String>) -> Result<(), NodeError>
where
    M: Model,
{
    state.lines.extend(std::iter::repeat_n(M::NAME.to_owned(), N));
    Ok(())
}

#[node(DEFAULTED)]
async fn defaulted<T: Clone + Default + Send + Sync + 'static>(state: &Log<T>) -> LogUpdate<T> {
    let _ = state;
    Log::update().lines([T::default()])
}

#[node]
async fn injected<D: AsRef<str> + Send + Sync + 'static>(#[inject] db: &D) {
    assert_eq!(db.as_ref(), "db");
}

#[node]
async fn any_state<S: State>(state: &mut S) {
    let _ = state.clone();
}

struct Services(String);

impl Provide<String> for Services {
    fn provide(&self) -> &String {
        &self.0
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let app = graph! {
        ask::<OpenAi> -> repeat<2, OpenAi> -> DEFAULTED<String> -> injected::<String> -> any_state<Log<String>> -> END;
        compile { services: Services("db".into()) }
    };
    let state = app.invoke(Log::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.lines, ["openai", "openai", "openai", ""]);

    // A handle is a value too.
    let _ = format!("{:?}", ask::<OpenAi>::default());
    let _ = any_state::<AgentState>::default();
}
