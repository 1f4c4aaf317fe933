//! [`Plan`]: a graph with all names resolved, as the executor walks it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
};

use super::{NodeOptions, draw::Outline};
use crate::{
    NodeError, State,
    graph::{Node, NodeContext, ParallelContext, ParallelNode},
    node::Place,
};

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the executor walks along.
pub(crate) struct Plan<S: State, C> {
    pub(crate) steps: Vec<Step<S, C>>,
    pub(crate) entry: usize,
}

/// A node or a group, and what follows it.
pub(crate) struct Step<S: State, C> {
    pub(crate) name: Arc<str>,
    pub(crate) work: Work<S, C>,
    pub(crate) options: NodeOptions,
    /// Which of the ways to take; without it, the one that the work says.
    pub(crate) choose: Option<Box<dyn Choose<S>>>,
    /// Where a failure leads, if not to the end of the run.
    pub(crate) on_error: Option<usize>,
    /// One way, or one for each arm of a decision. None in a branch, which goes on to its next step or to the join.
    pub(crate) ways: Vec<Way>,
}

/// A way on from a step.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// The arm's pattern, where the way is one of several.
    pub(crate) label: Option<Arc<str>>,
    /// `None` is END.
    pub(crate) to: Option<usize>,
}

pub(crate) enum Work<S: State, C> {
    /// Changes the state.
    Node(Box<dyn ErasedNode<S, C>>),
    /// A node in a branch: reads the state and gives an update.
    Branch(Box<dyn ErasedParallelNode<S, C>>),
    /// Branches that run side by side, each a sequence of steps.
    Group(Vec<Vec<usize>>),
}

/// Which of a step's ways to take, from the state.
pub(crate) trait Choose<S>: Send + Sync {
    fn choose(&self, state: &S) -> Result<usize, NodeError>;
}

impl<S, F: Fn(&S) -> Result<usize, NodeError> + Send + Sync> Choose<S> for F {
    fn choose(&self, state: &S) -> Result<usize, NodeError> {
        self(state)
    }
}

/// [`Node`] without the parts that keep a trait from being an object: it gives the index of the way to take.
pub(crate) trait ErasedNode<S, C>: Send + Sync {
    fn run<'a>(
        &'a self,
        state: &'a mut S,
        services: &'a C,
        place: &'a Place<'a>,
        is_written: &'a AtomicBool,
    ) -> BoxFuture<'a, Result<usize, NodeError>>;

    /// See [`Node::MUTATES_STATE`].
    fn is_in_place(&self) -> bool;

    /// See [`Node::STARTS_TASKS`].
    fn starts_tasks(&self) -> bool;

    fn outline(&self) -> Option<&Outline>;
}

/// A node with the decision that follows it.
pub(crate) struct Decided<N, F> {
    pub(crate) node: N,
    /// From the state and what the node returned to one of the ways on.
    pub(crate) choose: F,
}

impl<S, C, N, F> ErasedNode<S, C> for Decided<N, F>
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
        place: &'a Place<'a>,
        is_written: &'a AtomicBool,
    ) -> BoxFuture<'a, Result<usize, NodeError>> {
        Box::pin(async move {
            let output = self.node.run(NodeContext::new(state, services, place, is_written)).await?;
            (self.choose)(state, output)
        })
    }

    fn is_in_place(&self) -> bool {
        N::MUTATES_STATE
    }

    fn starts_tasks(&self) -> bool {
        N::STARTS_TASKS
    }

    fn outline(&self) -> Option<&Outline> {
        self.node.outline()
    }
}

/// [`ParallelNode`] as an object: it writes what it brings into `update`.
pub(crate) trait ErasedParallelNode<S, C>: Send + Sync {
    fn run<'a>(
        &'a self,
        state: &'a S,
        services: &'a C,
        place: &'a Place<'a>,
        update: &'a mut Option<S::Update>,
    ) -> BoxFuture<'a, Result<(), NodeError>>
    where
        S: State;

    /// See [`Node::STARTS_TASKS`].
    fn starts_tasks(&self) -> bool;

    fn outline(&self) -> Option<&Outline>;
}

impl<S: State, C: Send + Sync + 'static, N: ParallelNode<S, C>> ErasedParallelNode<S, C> for N {
    fn run<'a>(
        &'a self,
        state: &'a S,
        services: &'a C,
        place: &'a Place<'a>,
        update: &'a mut Option<S::Update>,
    ) -> BoxFuture<'a, Result<(), NodeError>> {
        Box::pin(async move {
            *update = self.run_parallel(ParallelContext::new(state, services, place)).await?;
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
    pub(crate) fn names(&self) -> Vec<&str> {
        self.steps.iter().map(|step| &*step.name).collect()
    }
}

impl<S: State, C> Step<S, C> {
    /// Whether a failed attempt may leave the state half changed.
    pub(crate) fn is_in_place(&self) -> bool {
        match &self.work {
            Work::Node(node) => node.is_in_place(),
            Work::Branch(_) | Work::Group(_) => false,
        }
    }

    /// Whether a decision follows, which may fail when the work is done.
    pub(crate) fn decides(&self) -> bool {
        self.ways.first().is_some_and(|way| way.label.is_some())
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
