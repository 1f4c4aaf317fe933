//! Nodes made of closures, and the counter that they share with a test.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agentflow::{
    BackgroundTaskManager, CancellationToken, NodeError, State,
    graph::{Node, NodeContext},
};

use crate::support::OnDrop;

/// The arguments of a [`step`].
pub(crate) struct Given {
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: BackgroundTaskManager,
}

/// Makes a node of a closure, which can hold the test's channels.
pub(crate) fn step<F, R>(body: F) -> Step<F>
where
    F: Fn(Given) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), NodeError>> + Send,
{
    Step(body)
}

/// Makes a node that takes this time.
pub(crate) fn sleeps<S: State, C: Send + Sync + 'static>(time: Duration) -> impl Node<S, C, Output = ()> {
    step(move |_| async move {
        tokio::time::sleep(time).await;
        Ok(())
    })
}

pub(crate) struct Step<F>(F);

impl<S, C, F, R> Node<S, C> for Step<F>
where
    S: State,
    C: Send + Sync + 'static,
    F: Fn(Given) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), NodeError>> + Send,
{
    type Output = ();
    const MUTATES_STATE: bool = false;

    async fn run(&self, cx: NodeContext<'_, S, C>) -> Result<(), NodeError> {
        let given = Given { cancel: cx.cancel.clone(), tasks: cx.task_manager() };
        (self.0)(given).await
    }
}

/// A counter shared by a test and its nodes.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns a guard that counts when it is dropped.
    pub(crate) fn on_drop(&self) -> OnDrop<impl FnMut() + Send + Sync + use<>> {
        let counter = self.clone();
        OnDrop(move || counter.add())
    }
}
