//! Each parameter alone, all at once, and in any order; a `_` before a name is ignored.
#![deny(warnings)]

use agentflow::{
    AgentState, BackgroundTaskManager, CancellationToken, EventWriter, NodeError, Provide, RunConfig, graph, node,
};

struct Database(&'static str);

struct Mail(&'static str);

struct Services {
    db: Database,
    mail: Mail,
}

impl Provide<Database> for Services {
    fn provide(&self) -> &Database {
        &self.db
    }
}

impl Provide<Mail> for Services {
    fn provide(&self) -> &Mail {
        &self.mail
    }
}

type Manager = BackgroundTaskManager;

#[node]
async fn nothing() {}

#[node]
async fn only_config(config: &RunConfig) {
    assert_eq!(config.user_id(), Some("ada"));
}

#[node]
async fn only_tasks(task_manager: &Manager) {
    assert_eq!(task_manager.task_count(), 0);
}

#[node]
async fn only_events(events: &EventWriter) {
    events.emit("progress", 1).await;
}

#[node]
async fn only_cancel(cancel: &CancellationToken) {
    assert!(!cancel.is_cancelled());
}

#[node]
async fn only_service(#[inject] db: &Database) {
    assert_eq!(db.0, "db");
}

#[node]
async fn only_state(mut state: &mut AgentState) {
    let other = &mut AgentState::default();
    std::mem::swap(&mut state, &mut &mut *other);
}

#[node]
#[allow(clippy::too_many_arguments)]
async fn all(
    cancel: &CancellationToken,
    #[inject] db: &Database,
    config: &agentflow::RunConfig,
    state: &AgentState,
    #[inject] mail: &Mail,
    events: &EventWriter,
    task_manager: &BackgroundTaskManager,
) -> Result<(), NodeError> {
    assert!(state.context.is_empty() && !cancel.is_cancelled());
    assert_eq!((db.0, mail.0, config.user_id()), ("db", "mail", Some("ada")));
    events.emit("done", task_manager.task_count()).await;
    Ok(())
}

#[node]
async fn unused(
    _state: &mut AgentState,
    _config: &RunConfig,
    _task_manager: &BackgroundTaskManager,
    _events: &EventWriter,
    _cancel: &CancellationToken,
    #[inject] _db: &Database,
) {
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let services = Services { db: Database("db"), mail: Mail("mail") };
    let app = graph! {
        nothing -> only_config -> only_tasks -> only_events -> only_cancel -> only_service -> only_state
            -> all -> unused -> END;
        compile { services: services }
    };
    app.invoke(AgentState::default(), RunConfig::new().with_user_id("ada")).await.unwrap();
}
