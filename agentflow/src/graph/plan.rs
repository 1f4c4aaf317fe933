//! [`Plan`]: a checked graph, in the form that the executor walks.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{
    commit::OnCommit,
    options::NodeOptions,
    outline::{Edge, Outline},
    topology::StepId,
};
use crate::{
    error::NodeError,
    node::{Node, NodeContext, ParallelContext, ParallelNode},
    run::{executor::CommitMark, invocation::Invocation},
    state::State,
};

/// A checked graph, with all names resolved.
pub(crate) struct Plan<S: State, C> {
    pub(crate) steps: Vec<Step<S, C>>,
    pub(crate) entry: StepId,
    /// Set if a walk may visit a step twice. Every loop has an edge back to the same or to an earlier step.
    pub(crate) may_loop: bool,
    /// Called after each committed step.
    pub(crate) on_commit: Option<OnCommit<S>>,
}

/// A node or a group, with its outgoing edges.
pub(crate) struct Step<S: State, C> {
    pub(crate) name: Arc<str>,
    pub(crate) work: Work<S, C>,
    pub(crate) options: NodeOptions,
    /// Chooses the outgoing edge from the state; without a router, the work itself returns the index of the edge.
    pub(crate) router: Option<Box<dyn Router<S>>>,
    /// The step that runs after a failure; without one, a failure ends the run.
    pub(crate) on_error: Option<StepId>,
    /// One edge, or one for each arm of a decision. A step in a branch has none: the next step of the branch or the join
    /// follows it.
    pub(crate) edges: Vec<Edge>,
}

pub(crate) enum Work<S: State, C> {
    /// A node that changes the state.
    Node(Box<dyn ErasedNode<S, C>>),
    /// A node in a branch, which reads the state and returns an update.
    Branch(Box<dyn ErasedParallelNode<S, C>>),
    /// Parallel branches, each a sequence of steps.
    Group(Vec<Vec<StepId>>),
}

/// Chooses one of a step's outgoing edges, by index, from the state.
pub(crate) trait Router<S>: Send + Sync {
    fn route(&self, state: &S) -> Result<usize, NodeError>;
}

impl<S, F: Fn(&S) -> Result<usize, NodeError> + Send + Sync> Router<S> for F {
    fn route(&self, state: &S) -> Result<usize, NodeError> {
        self(state)
    }
}

/// An object-safe form of [`Node`] that returns the index of the outgoing edge.
pub(crate) trait ErasedNode<S, C>: Send + Sync {
    fn run<'a>(
        &'a self,
        state: &'a mut S,
        services: &'a C,
        invocation: &'a Invocation<'a>,
        commit: &'a CommitMark,
    ) -> BoxFuture<'a, Result<usize, NodeError>>;

    /// Returns [`Node::MUTATES_STATE`].
    fn mutates_state(&self) -> bool;

    /// Returns [`Node::STARTS_TASKS`].
    fn starts_tasks(&self) -> bool;

    fn outline(&self) -> Option<&Outline>;
}

/// A node with the function that turns its output into the index of an outgoing edge.
pub(crate) struct RoutedNode<N, F> {
    pub(crate) node: N,
    pub(crate) route: F,
}

impl<S, C, N, F> ErasedNode<S, C> for RoutedNode<N, F>
where
    S: Send + Sync + 'static,
    C: Send + Sync + 'static,
    N: Node<S, C>,
    F: Fn(&S, N::Output) -> Result<usize, NodeError> + Send + Sync,
{
    fn run<'a>(
        &'a self,
        state: &'a mut S,
        services: &'a C,
        invocation: &'a Invocation<'a>,
        commit: &'a CommitMark,
    ) -> BoxFuture<'a, Result<usize, NodeError>> {
        Box::pin(async move {
            // A graph commits the changes of its own nodes. What another node does inside it is committed with the node.
            let inner = CommitMark::new();
            let commit = if N::MUTATES_STATE && self.node.outline().is_none() {
                commit.changes_begin();
                &inner
            } else {
                commit
            };
            let output = self.node.run(NodeContext::new(state, services, invocation, commit)).await?;
            (self.route)(state, output)
        })
    }

    fn mutates_state(&self) -> bool {
        N::MUTATES_STATE
    }

    fn starts_tasks(&self) -> bool {
        N::STARTS_TASKS
    }

    fn outline(&self) -> Option<&Outline> {
        self.node.outline()
    }
}

/// An object-safe form of [`ParallelNode`] that writes its update into `update`.
pub(crate) trait ErasedParallelNode<S, C>: Send + Sync {
    fn run<'a>(
        &'a self,
        state: &'a S,
        services: &'a C,
        invocation: &'a Invocation<'a>,
        update: &'a mut Option<S::Update>,
    ) -> BoxFuture<'a, Result<(), NodeError>>
    where
        S: State;

    /// Returns [`ParallelNode::STARTS_TASKS`].
    fn starts_tasks(&self) -> bool;

    fn outline(&self) -> Option<&Outline>;
}

impl<S: State, C: Send + Sync + 'static, N: ParallelNode<S, C>> ErasedParallelNode<S, C> for N {
    fn run<'a>(
        &'a self,
        state: &'a S,
        services: &'a C,
        invocation: &'a Invocation<'a>,
        update: &'a mut Option<S::Update>,
    ) -> BoxFuture<'a, Result<(), NodeError>> {
        Box::pin(async move {
            *update = self.run_parallel(ParallelContext::new(state, services, invocation)).await?;
            Ok(())
        })
    }

    fn starts_tasks(&self) -> bool {
        N::STARTS_TASKS
    }

    fn outline(&self) -> Option<&Outline> {
        ParallelNode::outline(self)
    }
}

impl<S: State, C> Plan<S, C> {
    #[inline]
    pub(crate) fn step(&self, step: StepId) -> &Step<S, C> {
        &self.steps[step.index()]
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.steps.iter().map(|step| &*step.name).collect()
    }
}

impl<S: State, C> Step<S, C> {
    /// Returns whether a decision follows, which may fail after the work has succeeded.
    pub(crate) fn has_decision(&self) -> bool {
        self.edges.first().is_some_and(|edge| edge.label.is_some())
    }

    pub(crate) fn starts_tasks(&self) -> bool {
        match &self.work {
            Work::Node(node) => node.starts_tasks(),
            Work::Branch(node) => node.starts_tasks(),
            Work::Group(_) => false,
        }
    }

    pub(crate) fn outline(&self) -> Option<&Outline> {
        match &self.work {
            Work::Node(node) => node.outline(),
            Work::Branch(node) => node.outline(),
            Work::Group(_) => None,
        }
    }
}
