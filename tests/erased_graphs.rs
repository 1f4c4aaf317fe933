//! Graphs whose services are erased: one collection holds apps of different services, with their limits and names.

use agentflow::{AgentState, Message, NodeError, RunConfig, graph, graph::ErasedGraph, node};

struct Greeting(&'static str);

#[node]
async fn greet(state: &mut AgentState, #[inject] greeting: &Greeting) {
    state.context.push(Message::assistant(greeting.0));
}

#[node]
async fn count(state: &mut AgentState) -> bool {
    state.context.push(Message::assistant("again"));
    state.context.len() < 20
}

#[node]
async fn spawn(task_manager: &agentflow::BackgroundTaskManager) -> Result<(), NodeError> {
    task_manager.create_task(async {}).name("work").spawn()?;
    Ok(())
}

fn apps() -> Vec<ErasedGraph<AgentState>> {
    vec![
        graph! { name = "greeter"; greet -> END; compile { services: Greeting("hello") } }.erase(),
        graph! {
            name = "counter";
            count -> match { true => count, false => END };
            compile { recursion_limit: 5 }
        }
        .erase(),
        graph! { name = "spawner"; type State = AgentState; spawn -> END }.erase(),
    ]
}

#[tokio::test(start_paused = true)]
async fn erased_graphs_keep_their_names_services_and_limits() {
    let apps = apps();
    assert_eq!(apps.iter().map(ErasedGraph::name).collect::<Vec<_>>(), ["greeter", "counter", "spawner"]);
    let state = apps[0].invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.context[0].text(), "hello");
    let error = apps[1].invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
    assert!(error.to_string().contains("recursion limit of 5"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_erased_graph_is_the_same_app() {
    let app = graph! { type State = AgentState; spawn -> END };
    let erased = app.clone().erase();
    erased.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!(app.task_manager().stats().spawned, 1);
    assert_eq!(erased.aclose().await.tasks.outcomes.completed, 1);
    assert!(app.invoke(AgentState::default(), RunConfig::new()).await.is_err());
    assert_eq!((erased.mermaid(), erased.dot()), (app.mermaid(), app.dot()));
}

#[tokio::test(start_paused = true)]
async fn the_events_of_an_erased_graph_have_the_names_of_its_nodes() {
    let apps = apps();
    let mut run = apps[0].stream(AgentState::default(), RunConfig::new());
    let mut nodes = Vec::new();
    while let Some(event) = run.next().await {
        if let agentflow::run::EventKind::NodeStarted { node, .. } = event.kind {
            nodes.push(node);
        }
    }
    assert_eq!(nodes, ["greet"]);
}

#[tokio::test(start_paused = true)]
async fn an_erased_graph_is_a_node() {
    let greeter = apps().remove(0);
    let app = graph! { type State = AgentState; node GREETER = (greeter); GREETER -> END };
    let state = app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!(state.context[0].text(), "hello");
}
