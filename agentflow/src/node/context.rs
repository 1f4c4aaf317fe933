//! [`NodeContext`] and [`ParallelContext`]: the inputs of a node.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio_util::sync::CancellationToken;

use crate::{
    config::RunConfig,
    error::NodeError,
    question::{Answer, AnswerValue},
    run::{StepId, commit_mark::CommitMark, error::NodeFailure, event_channel::EventWriter, invocation::Invocation},
    run_id::RunId,
    state::State,
    task::BackgroundTaskManager,
};

/// The inputs of a node.
#[derive(Debug)]
pub struct NodeContext<'a, S, C = (), I = ()> {
    /// The run's state, which the node may mutate.
    pub state: &'a mut S,
    /// The value that the edge to this node carries; `()` if it carries none. Every attempt of the node receives the
    /// same value.
    pub input: &'a I,
    /// The configuration of the run.
    pub config: &'a RunConfig,
    /// The app's services.
    pub services: &'a C,
    /// The run's token, for work that the node starts. The node itself is dropped at its current await when the run is
    /// cancelled.
    pub cancel: &'a CancellationToken,
    /// Writes custom events.
    pub events: &'a EventWriter,
    pub(crate) invocation: &'a Invocation<'a>,
    pub(crate) commit: &'a CommitMark,
}

/// The inputs of a node in a group. A node that wraps another one passes on a clone.
#[derive(Debug)]
pub struct ParallelContext<'a, S, C = (), I = ()> {
    /// The state as it was at the fork, with the updates of the branch itself.
    pub state: &'a S,
    /// The value that the edge to this node carries: an item of `each`, or the payload of an arm; `()` if it carries none.
    /// Every attempt of the node receives the same value.
    pub input: &'a I,
    /// The configuration of the run.
    pub config: &'a RunConfig,
    /// The app's services.
    pub services: &'a C,
    /// The run's token, for work that the node starts. The node itself is dropped at its current await when the run is
    /// cancelled.
    pub cancel: &'a CancellationToken,
    /// Writes custom events.
    pub events: &'a EventWriter,
    pub(crate) invocation: &'a Invocation<'a>,
}

macro_rules! invocation_accessors {
    ($Context:ident) => {
        impl<'a, S, C, I> $Context<'a, S, C, I> {
            /// Returns the app's task manager, labelled with this run and node.
            #[must_use]
            pub fn task_manager(&self) -> BackgroundTaskManager {
                let Invocation { scope, path, outbox, .. } = self.invocation;
                scope.task_manager(path.name(), outbox)
            }

            /// Returns the node's name in the graph; inside a subgraph `SUBGRAPH/NODE`.
            #[must_use]
            pub fn node_name(&self) -> &'a str {
                self.invocation.path.name()
            }

            /// Returns the id of the run.
            #[must_use]
            pub fn run_id(&self) -> RunId {
                self.invocation.scope.run.id
            }

            /// Returns the identity of this step, which is the same in every execution of it.
            #[must_use]
            pub fn step(&self) -> StepId {
                self.invocation.scope.step_id(self.invocation.path)
            }

            /// Returns the number of this attempt, from 1.
            #[must_use]
            pub fn attempt(&self) -> u32 {
                self.invocation.attempt
            }

            /// Returns the number of node executions that the recursion limit still allows on this path after this one.
            #[must_use]
            pub fn steps_left(&self) -> usize {
                self.invocation.scope.steps_left()
            }

            /// Returns the failure that led the run here, if it came by another node's `on_error`.
            #[must_use]
            pub fn error(&self) -> Option<&'a NodeFailure> {
                self.invocation.arrival.error()
            }

            /// Returns the answer to the question that the node asked; `None` if it has none. Each call reads it anew from
            /// its JSON.
            ///
            /// # Errors
            ///
            /// If the answer is no `A`. For the type in the node's [`INFO`](crate::graph::Node::INFO), that was checked before the node runs.
            pub fn answer<A: AnswerValue>(&self) -> Result<Option<A>, NodeError> {
                Ok(self.invocation.arrival.answer().map(Answer::read).transpose()?)
            }
        }
    };
}
invocation_accessors!(NodeContext);
invocation_accessors!(ParallelContext);

impl<'a, S, C, I> NodeContext<'a, S, C, I> {
    pub(crate) fn new(
        state: &'a mut S,
        input: &'a I,
        services: &'a C,
        invocation: &'a Invocation<'a>,
        commit: &'a CommitMark,
    ) -> Self {
        let Invocation { scope, events, .. } = invocation;
        let run = scope.run;
        Self { state, input, config: run.config, services, cancel: run.signals.cancel, events, invocation, commit }
    }

    pub(crate) fn replace(self, state: S) {
        self.commit.changes_begin();
        *self.state = state;
    }
}

impl<S, C, I> NodeContext<'_, S, C, I> {
    /// Lends the context, so that a node that wraps another one can run it more than once, or do something afterwards.
    ///
    /// ```
    /// use agentflow::{AgentState, NodeError, RunConfig, State, graph, graph::{Node, NodeContext, NodeInfo}, node};
    ///
    /// /// Runs a node once more if it fails, on the state as the first attempt left it.
    /// struct Twice<N>(N);
    ///
    /// impl<S: State, C: Send + Sync + 'static, N: Node<S, C>> Node<S, C> for Twice<N>
    /// where
    ///     N::Output: Send,
    /// {
    ///     type Output = N::Output;
    ///     const MUTATES_STATE: bool = N::MUTATES_STATE;
    ///     const INFO: NodeInfo = N::INFO;
    ///
    ///     async fn run(&self, mut cx: NodeContext<'_, S, C>) -> Result<N::Output, NodeError> {
    ///         match self.0.run(cx.reborrow()).await {
    ///             Ok(output) => Ok(output),
    ///             // A question is no failure.
    ///             Err(question) if question.is_question() => Err(question),
    ///             Err(_) => self.0.run(cx).await,
    ///         }
    ///     }
    /// }
    ///
    /// #[node]
    /// async fn greet(state: &mut AgentState) -> Result<(), NodeError> {
    ///     let is_first = state.context.is_empty();
    ///     state.context.push(agentflow::Message::assistant("hello"));
    ///     if is_first { Err("nobody listened".into()) } else { Ok(()) }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), agentflow::RunError> {
    /// let app = graph! { node GREET = (Twice(greet {})); GREET -> END };
    /// let state = app.invoke(AgentState::default(), RunConfig::new()).await?;
    /// assert_eq!(state.context.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn reborrow(&mut self) -> NodeContext<'_, S, C, I> {
        let Self { input, config, services, cancel, events, invocation, commit, .. } = *self;
        NodeContext { state: self.state, input, config, services, cancel, events, invocation, commit }
    }
}

// The impl is not derived, because the state and the services need not be `Clone`.
impl<S, C, I> Clone for ParallelContext<'_, S, C, I> {
    fn clone(&self) -> Self {
        let Self { state, input, config, services, cancel, events, invocation } = *self;
        Self { state, input, config, services, cancel, events, invocation }
    }
}

impl<'a, S, C, I> ParallelContext<'a, S, C, I> {
    pub(crate) fn new(state: &'a S, input: &'a I, services: &'a C, invocation: &'a Invocation<'a>) -> Self {
        let Invocation { scope, events, .. } = invocation;
        let run = scope.run;
        Self { state, input, config: run.config, services, cancel: run.signals.cancel, events, invocation }
    }
}

impl<S: State, C, I> NodeContext<'_, S, C, I> {
    /// Merges an update into the state, and reports the changed fields to the run's stream.
    pub fn apply(&mut self, update: S::Update) {
        self.events.record_changes(|| S::changes(&update));
        // The state is copied only here, because most nodes that read it change nothing.
        let before = self.invocation.undoes_updates.then(|| self.state.clone());
        let was_committed = self.commit.is_committed();
        self.commit.changes_begin();
        let Some(before) = before else {
            return self.state.apply(update);
        };
        // A reducer is user code.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.state.apply(update))) {
            *self.state = before;
            if was_committed {
                self.commit.commit();
            }
            resume_unwind(panic);
        }
    }
}
