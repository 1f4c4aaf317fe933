//! Isolation: runs and apps share nothing but their compiled graph.

use std::{future::pending, sync::Arc, time::Duration};

use agentflow::{
    AgentState, BackgroundTaskManager, CompiledGraph, Message, NodeError, RunConfig, graph, node, run::RunErrorKind,
};
use futures::future::join_all;
use tokio::{sync::Barrier, time::Instant};

use crate::steps::{Counter, sleeps, step};

#[node]
async fn linger(task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    task_manager.create_task(pending::<()>()).name("linger").spawn()?;
    Ok(())
}

fn lingering() -> CompiledGraph<AgentState> {
    graph! { type State = AgentState; linger -> END }
}

#[tokio::test(start_paused = true)]
async fn two_apps_have_two_managers() {
    let (one, other) = (lingering(), lingering());
    one.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!((one.task_manager().task_count(), other.task_manager().task_count()), (1, 0));

    other.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    drop(one.stop().await);
    assert_eq!((one.task_manager().task_count(), other.task_manager().task_count()), (0, 1));
    let refused = one.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
    assert!(matches!(refused.kind(), RunErrorKind::Closed));
    other.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    drop(other.stop().await);
}

#[tokio::test]
async fn a_clone_is_the_same_app() {
    let app = lingering();
    let clone = app.clone();
    clone.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    assert_eq!(app.task_manager().task_count(), 1);
    drop(clone.stop().await);
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
}

/// Builds a graph whose node adds the run's user, waits until all runs have arrived, and adds the user again.
fn choir(size: usize) -> CompiledGraph<AgentState> {
    #[node]
    async fn sing(state: &mut AgentState, config: &RunConfig) -> Result<(), NodeError> {
        let user = config.user_id().ok_or("for nobody")?;
        state.context.push(Message::assistant(user));
        Ok(())
    }
    let barrier = Arc::new(Barrier::new(size));
    graph! {
        node MEET = (step(move |_| {
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                Ok(())
            }
        }));
        node AGAIN = sing;
        sing -> MEET -> AGAIN -> END
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_runs_at_once_each_have_their_own_state() {
    const RUNS: usize = 200;
    let app = choir(RUNS);
    let runs = (0..RUNS).map(|user| {
        let app = app.clone();
        tokio::spawn(async move {
            let config = RunConfig::new().with_user_id(user.to_string());
            app.invoke(AgentState::default(), config).await.unwrap()
        })
    });
    for (user, run) in join_all(runs).await.into_iter().enumerate() {
        let said: Vec<_> = run.unwrap().context.iter().map(Message::text).collect();
        assert_eq!(said, [user.to_string(), user.to_string()]);
    }
}

#[tokio::test(start_paused = true)]
async fn runs_do_not_wait_for_each_other() {
    let app = graph! {
        type State = AgentState;
        node SLOW = (sleeps(Duration::from_secs(2)));
        SLOW -> END
    };
    let began = Instant::now();
    let runs = (0..50).map(|_| app.invoke(AgentState::default(), RunConfig::new()));
    for run in join_all(runs).await {
        run.unwrap();
    }
    assert_eq!(began.elapsed(), Duration::from_secs(2));
}

#[tokio::test]
async fn a_failed_or_dropped_run_does_not_affect_others() {
    let app = choir(2);
    let invoke = |user: &str| app.invoke(AgentState::default(), RunConfig::new().with_user_id(user));
    let mut ada = Box::pin(invoke("ada"));
    assert!(futures::poll!(ada.as_mut()).is_pending());

    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap_err();
    let mut dropped = Box::pin(app.invoke(AgentState::default(), RunConfig::new().with_run_timeout(Duration::ZERO)));
    assert!(futures::poll!(dropped.as_mut()).is_ready());
    drop(dropped);

    let (ada, bob) = tokio::join!(ada, invoke("bob"));
    assert_eq!(ada.unwrap().context[1].text(), "ada");
    assert_eq!(bob.unwrap().context[1].text(), "bob");
}

#[tokio::test]
async fn an_app_without_runs_drops_its_nodes_with_its_last_clone() {
    let dropped = Counter::default();
    let guard = dropped.on_drop();
    let app: CompiledGraph<AgentState> = graph! {
        node HOLD = (step(move |_| {
            let _held = &guard;
            async { Ok(()) }
        }));
        HOLD -> END
    };
    app.invoke(AgentState::default(), RunConfig::new()).await.unwrap();
    drop(app.clone());
    assert_eq!(dropped.get(), 0);
    drop(app);
    assert_eq!(dropped.get(), 1);
}

#[test]
fn an_app_can_be_shared_by_threads_and_its_runs_sent_between_them() {
    fn shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn sendable<T: Send>(_: &T) {}

    let app = lingering();
    shareable(&app);
    sendable(&app.invoke(AgentState::default(), RunConfig::new()));
    sendable(&app.aclose());
    sendable(&app.stop());
}
