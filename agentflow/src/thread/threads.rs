//! [`Threads`]: all threads of a graph.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Map, Value};

use super::{edit, error::ThreadError, recovery};
use crate::{
    graph::CompiledGraph,
    run::RunId,
    session::patiently,
    state::State,
    store::{
        CancelKind, CancelRequested, Deleted, NewThread, RunFilter, RunRow, ThreadFilter, ThreadId, ThreadPage,
        ThreadRow, ThreadStatus,
    },
};

/// All threads of a graph, made by [`CompiledGraph::threads`].
pub struct Threads<S: State, C = ()> {
    graph: CompiledGraph<S, C>,
}

/// A run that this process drives or has queued.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LiveRun {
    /// The run's id.
    pub id: RunId,
    /// The thread.
    pub thread: ThreadId,
    /// True once it is the run's turn.
    pub is_running: bool,
    /// The time since this process has the run.
    pub age: Duration,
}

impl<S: State + Default, C: Send + Sync + 'static> CompiledGraph<S, C> {
    /// Returns the graph's threads, to list, label and delete them.
    #[must_use]
    pub fn threads(&self) -> Threads<S, C> {
        Threads { graph: self.clone() }
    }

    /// Returns the runs on threads that this process drives or has queued.
    #[must_use]
    pub fn runs(&self) -> Vec<LiveRun> {
        let Some(session) = self.app.open_session() else { return Vec::new() };
        let mut runs: Vec<_> = session
            .live_runs()
            .into_iter()
            .map(|(id, live)| LiveRun {
                id,
                thread: live.thread,
                is_running: live.is_running,
                age: live.since.elapsed(),
            })
            .collect();
        runs.sort_unstable_by_key(|run| run.id);
        runs
    }

    /// Cancels a run on a thread, which this process or another one drives, or which is queued. Returns whether it was
    /// unfinished.
    ///
    /// A run of this process is stopped at once, one of another process when its owner sees the mark, within about a second.
    /// One that no living process drives is ended by this call.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Store`] if the store fails.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the cancel is requested or not.
    pub async fn cancel_run(&self, run: RunId, kind: CancelKind) -> Result<bool, ThreadError> {
        let session = self.app.session().await?;
        let requested = patiently(|| session.store.request_cancel(run, kind)).await?;
        session.cancel(run, kind);
        if let CancelRequested::Marked { is_alive: false, .. } = requested {
            recovery::end_abandoned(&self.app, &session, run).await?;
        }
        Ok(matches!(requested, CancelRequested::Cancelled | CancelRequested::Marked { .. }))
    }
}

impl<S: State + Default, C: Send + Sync + 'static> Threads<S, C> {
    /// Returns a page of the threads of this graph that the filter selects.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Store`] if the store fails.
    pub async fn list(&self, filter: ThreadFilter) -> Result<ThreadPage, ThreadError> {
        let session = self.graph.app.session().await?;
        let mut filter = filter;
        filter.graph = Some(Arc::clone(&self.graph.app.name));
        Ok(patiently(|| session.store.threads(filter.clone())).await?)
    }

    /// Returns one thread, without its state.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Store`] if the store fails.
    pub async fn get(&self, id: &ThreadId) -> Result<Option<ThreadRow>, ThreadError> {
        let session = self.graph.app.session().await?;
        Ok(patiently(|| session.store.thread(id)).await?)
    }

    /// Creates a thread before its first run. Returns the one that exists, if there is one, and whether it was created.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Store`] if the store fails.
    pub async fn create(&self, id: ThreadId, metadata: Map<String, Value>) -> Result<(ThreadRow, bool), ThreadError> {
        let session = self.graph.app.session().await?;
        let mut new = NewThread::new(id, Arc::clone(&self.graph.app.name));
        new.metadata = metadata;
        Ok(patiently(|| session.store.create_thread(new.clone())).await?)
    }

    /// Sets fields of a thread's metadata; a field that is null is removed. Returns the thread, if there is one.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Store`] if the store fails.
    pub async fn patch_metadata(
        &self,
        id: &ThreadId,
        patch: Map<String, Value>,
    ) -> Result<Option<ThreadRow>, ThreadError> {
        let session = self.graph.app.session().await?;
        Ok(patiently(|| session.store.patch_metadata(id, patch.clone())).await?)
    }

    /// Returns the runs of this graph that the filter selects, the newest first.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Store`] if the store fails.
    pub async fn runs(&self, filter: RunFilter) -> Result<Vec<RunRow>, ThreadError> {
        let session = self.graph.app.session().await?;
        let mut filter = filter;
        filter.graph = Some(Arc::clone(&self.graph.app.name));
        Ok(patiently(|| session.store.runs(filter.clone())).await?)
    }

    /// Deletes a thread; see [`Thread::delete`](super::Thread::delete).
    ///
    /// # Errors
    ///
    /// As [`Thread::delete`](super::Thread::delete).
    pub async fn delete(&self, id: &ThreadId) -> Result<bool, ThreadError> {
        let session = self.graph.app.session().await?;
        edit::delete(&session, id).await
    }

    /// Deletes the threads that have not changed for `age` and are idle or have failed, but not those with open questions.
    /// Returns how many were deleted.
    ///
    /// # Errors
    ///
    /// [`ThreadError::Store`] if the store fails. Threads that were deleted before stay deleted.
    pub async fn delete_idle(&self, age: Duration) -> Result<usize, ThreadError> {
        let session = self.graph.app.session().await?;
        let now = patiently(|| session.store.now()).await?;
        let updated_before = Some(now.before(age));
        let filter = ThreadFilter { updated_before, without_questions: true, ..ThreadFilter::default() };
        let mut deleted = 0;
        for thread in self.list(filter).await?.threads {
            // A run that has begun meanwhile is not cancelled.
            if thread.status != ThreadStatus::Busy {
                let outcome = patiently(|| session.store.delete_thread(&thread.id)).await?;
                deleted += usize::from(matches!(outcome, Deleted::Yes));
            }
        }
        Ok(deleted)
    }
}

impl<S: State, C> fmt::Debug for Threads<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("graph", &self.graph).finish()
    }
}
