//! [`Plan`]: a checked graph, in the form that the executor walks.

use std::{marker::PhantomData, sync::Arc};

use futures_util::future::BoxFuture;

use super::{
    commit::OnCommit,
    options::{EachOptions, NodeOptions},
    outline::{Edge, Outline},
    topology::{Next, StepId},
};
use crate::{
    carried::{InputType, ItemList, Slot, input_of},
    error::NodeError,
    node::{Node, NodeContext, NodeInfo, ParallelContext, ParallelNode},
    question::{AskedQuestion, UndeclaredQuestion},
    run::{
        branch_log::BranchLog,
        commit_mark::CommitMark,
        invocation::{Arrival, Invocation, OnlyAttempt},
        path_name::NodePath,
    },
    state::State,
};

/// A checked graph, with all names resolved.
pub(crate) struct Plan<S: State, C> {
    pub(crate) steps: Vec<Step<S, C>>,
    pub(crate) entry: StepId,
    /// Set if a walk may visit a step outside of all branches twice.
    pub(crate) may_loop: bool,
    /// Called after each committed step.
    pub(crate) on_commit: Option<OnCommit<S>>,
}

/// A node or a group, with its outgoing edges.
pub(crate) struct Step<S: State, C> {
    pub(crate) name: Arc<str>,
    pub(crate) work: Work<S, C>,
    /// The type of the value that an edge carries to the step. The type of the items, for `each`.
    pub(crate) input: InputType,
    pub(crate) options: NodeOptions,
    /// Set if the node asks questions, which commit nothing of it.
    pub(crate) asks: bool,
    /// Chooses the outgoing edge from the state; without a router, the work itself returns the index of the edge.
    pub(crate) router: Option<Box<dyn Router<S>>>,
    /// The step that runs after a failure; without one, a failure ends the run.
    pub(crate) on_error: Option<StepId>,
    /// One edge, or one for each arm of a decision. On a step in a branch, END is the join.
    pub(crate) edges: Vec<Edge>,
}

/// The work of a step.
pub(crate) enum Work<S: State, C> {
    /// A node that changes the state.
    Node(Box<dyn ErasedNode<S, C>>),
    /// A node in a branch, which reads the state and returns an update.
    Branch(Box<dyn ErasedParallelNode<S, C>>),
    /// Branches, which are steps of the plan themselves.
    Group(Group<S>),
}

/// Parallel branches. Their steps are steps of the plan.
pub(crate) struct Group<S> {
    pub(crate) kind: GroupKind<S>,
    /// The branches; `each` has one.
    pub(crate) branches: Vec<Branch>,
    /// Set if each branch is one plain step: a function that runs once, without options that change how it runs.
    pub(crate) is_plain: bool,
}

/// A branch of a group.
pub(crate) struct Branch {
    /// The steps of the branch, with the first one in front.
    pub(crate) steps: Vec<StepId>,
    /// Set if a walk through the branch may visit a step twice.
    pub(crate) may_loop: bool,
}

/// A node of a branch that is a function, with its name.
pub(crate) struct Function<'p, S: State, C> {
    pub(crate) name: &'p Arc<str>,
    pub(crate) node: &'p dyn ErasedFunction<S, C>,
}

/// The number of branches of a group that must succeed, and the number of times that they run.
pub(crate) enum GroupKind<S> {
    /// All branches run, and all of them must succeed.
    All,
    /// All branches run until the first has succeeded.
    Any,
    /// The branch runs once for each item.
    Each(Each<S>),
}

/// The items of an `each`, and its limits.
pub(crate) struct Each<S> {
    pub(crate) items: Box<dyn Items<S>>,
    pub(crate) options: EachOptions,
}

/// Computes the items of an `each` from the state: at most `limit` of them, and `None` if there are more.
pub(crate) trait Items<S>: Send + Sync {
    fn items(&self, state: &S, limit: usize) -> Option<ItemList>;
}

impl<S, F: Fn(&S, usize) -> Option<ItemList> + Send + Sync> Items<S> for F {
    fn items(&self, state: &S, limit: usize) -> Option<ItemList> {
        self(state, limit)
    }
}

/// Chooses one of a step's outgoing edges, by index, from the state. The value that the edge carries goes into the slot.
pub(crate) trait Router<S>: Send + Sync {
    fn route(&self, state: &S, slot: &Slot) -> Result<usize, NodeError>;
}

impl<S, F: Fn(&S, &Slot) -> Result<usize, NodeError> + Send + Sync> Router<S> for F {
    fn route(&self, state: &S, slot: &Slot) -> Result<usize, NodeError> {
        self(state, slot)
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

    /// Returns [`Node::INFO`].
    fn info(&self) -> NodeInfo;

    fn outline(&self) -> Option<&Outline>;
}

/// A node with the function that turns its output into the index of an outgoing edge.
pub(crate) struct RoutedNode<N, F, I> {
    node: N,
    route: F,
    input: PhantomData<fn() -> I>,
}

impl<N, F, I> RoutedNode<N, F, I> {
    pub(crate) fn new(node: N, route: F) -> Self {
        Self { node, route, input: PhantomData }
    }
}

/// The checks of a graph exclude this error.
fn no_input() -> NodeError {
    NodeError::from("bug in agentflow: the node's input has another type than the edge's value")
}

/// Replaces a question of a node that does not say that it asks: its answer could not be read. A question from inside of a
/// graph has another form and is left as it is.
fn declared(error: NodeError, info: NodeInfo) -> NodeError {
    let is_undeclared = info.asks.is_none() && error.downcast_ref::<AskedQuestion>().is_some();
    if is_undeclared { UndeclaredQuestion.into() } else { error }
}

impl<S, C, N, F, I> ErasedNode<S, C> for RoutedNode<N, F, I>
where
    S: Send + Sync + 'static,
    C: Send + Sync + 'static,
    I: Send + Sync + 'static,
    N: Node<S, C, I>,
    F: Fn(&S, N::Output, &Slot) -> Result<usize, NodeError> + Send + Sync,
{
    fn run<'a>(
        &'a self,
        state: &'a mut S,
        services: &'a C,
        invocation: &'a Invocation<'a>,
        commit: &'a CommitMark,
    ) -> BoxFuture<'a, Result<usize, NodeError>> {
        Box::pin(async move {
            let input = input_of(invocation.arrival.input()).ok_or_else(no_input)?;
            // A graph commits the changes of its own nodes. What another node does inside it is committed with the node.
            let inner = CommitMark::new();
            let commit = if N::MUTATES_STATE && self.node.outline().is_none() {
                commit.changes_begin();
                &inner
            } else {
                commit
            };
            let output = self.node.run(NodeContext::new(state, input, services, invocation, commit)).await;
            let output = output.map_err(|error| declared(error, N::INFO))?;
            (self.route)(state, output, &invocation.scope.slot)
        })
    }

    fn mutates_state(&self) -> bool {
        N::MUTATES_STATE
    }

    fn info(&self) -> NodeInfo {
        N::INFO
    }

    fn outline(&self) -> Option<&Outline> {
        self.node.outline()
    }
}

/// An object-safe form of [`ParallelNode`] that adds its updates to the log of its branch and returns the index of the
/// outgoing edge.
pub(crate) trait ErasedParallelNode<S, C>: Send + Sync {
    fn run<'a>(
        &'a self,
        state: &'a S,
        services: &'a C,
        invocation: &'a Invocation<'a>,
        log: &'a mut BranchLog<S>,
    ) -> BoxFuture<'a, Result<usize, NodeError>>
    where
        S: State;

    /// Returns the node, if [`ParallelNode::IS_FUNCTION`] holds for it.
    fn as_function(&self) -> Option<&dyn ErasedFunction<S, C>>
    where
        S: State,
    {
        None
    }

    /// Returns [`ParallelNode::INFO`].
    fn info(&self) -> NodeInfo;

    fn outline(&self) -> Option<&Outline>;
}

/// An object-safe form of a [`ParallelNode`] that is a function.
pub(crate) trait ErasedFunction<S: State, C>: Send + Sync {
    /// Runs the node for the only time on its path. Its update is added to the log without a name.
    fn run_only<'a>(
        &'a self,
        state: &'a S,
        services: &'a C,
        attempt: OnlyAttempt<'a>,
        log: &'a mut BranchLog<S>,
    ) -> BoxFuture<'a, Result<usize, NodeError>>;
}

impl<S, C, N, F, I> ErasedParallelNode<S, C> for RoutedNode<N, F, I>
where
    S: State,
    C: Send + Sync + 'static,
    I: Send + Sync + 'static,
    N: ParallelNode<S, C, I>,
    F: Fn(&S, N::Output, &Slot) -> Result<usize, NodeError> + Send + Sync,
{
    fn run<'a>(
        &'a self,
        state: &'a S,
        services: &'a C,
        invocation: &'a Invocation<'a>,
        log: &'a mut BranchLog<S>,
    ) -> BoxFuture<'a, Result<usize, NodeError>> {
        self.run_parallel(state, services, ParallelCall::Lent(invocation), log)
    }

    fn as_function(&self) -> Option<&dyn ErasedFunction<S, C>> {
        if N::IS_FUNCTION { Some(self) } else { None }
    }

    fn info(&self) -> NodeInfo {
        N::INFO
    }

    fn outline(&self) -> Option<&Outline> {
        self.node.outline()
    }
}

impl<S, C, N, F, I> ErasedFunction<S, C> for RoutedNode<N, F, I>
where
    S: State,
    C: Send + Sync + 'static,
    I: Send + Sync + 'static,
    N: ParallelNode<S, C, I>,
    F: Fn(&S, N::Output, &Slot) -> Result<usize, NodeError> + Send + Sync,
{
    fn run_only<'a>(
        &'a self,
        state: &'a S,
        services: &'a C,
        attempt: OnlyAttempt<'a>,
        log: &'a mut BranchLog<S>,
    ) -> BoxFuture<'a, Result<usize, NodeError>> {
        self.run_parallel(state, services, ParallelCall::Only(attempt), log)
    }
}

/// The call of a node in a branch.
enum ParallelCall<'a> {
    /// One of the attempts of the node, with its invocation.
    Lent(&'a Invocation<'a>),
    /// The only attempt. The future of the node holds its invocation.
    Only(OnlyAttempt<'a>),
}

impl<N, F, I> RoutedNode<N, F, I> {
    /// Runs the node once, with the function that chooses the edge after it. Both kinds of calls share one future, or the
    /// code of each node would be compiled twice.
    fn run_parallel<'a, S, C>(
        &'a self,
        state: &'a S,
        services: &'a C,
        call: ParallelCall<'a>,
        log: &'a mut BranchLog<S>,
    ) -> BoxFuture<'a, Result<usize, NodeError>>
    where
        S: State,
        C: Send + Sync + 'static,
        I: Send + Sync + 'static,
        N: ParallelNode<S, C, I>,
        F: Fn(&S, N::Output, &Slot) -> Result<usize, NodeError> + Send + Sync,
    {
        Box::pin(async move {
            let (of_item, path, own);
            let (invocation, is_only) = match call {
                ParallelCall::Lent(invocation) => (invocation, false),
                ParallelCall::Only(OnlyAttempt { scope, node, arrival, item }) => {
                    let arrival = match item {
                        None => arrival,
                        Some(item) => {
                            of_item = Arrival::of_item(arrival, item);
                            &of_item
                        }
                    };
                    path = NodePath::new(node);
                    own = Invocation::only(scope, &path, arrival);
                    (&own, true)
                }
            };
            let input = input_of(invocation.arrival.input()).ok_or_else(no_input)?;
            let ended = self.node.run_parallel(ParallelContext::new(state, input, services, invocation)).await;
            let (update, output) = ended.map_err(|error| declared(error, N::INFO))?;
            let edge = (self.route)(state, output, &invocation.scope.slot)?;
            if let Some(update) = update {
                log.push((!is_only).then(|| invocation.path.to_owned()), update);
            }
            Ok(edge)
        })
    }
}

impl<S: State, C> Plan<S, C> {
    #[inline]
    pub(crate) fn step(&self, step: StepId) -> &Step<S, C> {
        &self.steps[step.index()]
    }

    /// Returns whether the branch is one plain step: a function that runs once, without options that change how it runs,
    /// and leads to the join.
    fn is_plain(&self, branch: &Branch) -> bool {
        let [step] = branch.steps[..] else { return false };
        let step = self.step(step);
        let NodeOptions { retry, timeout, .. } = &step.options;
        let has_options = retry.is_some() || timeout.is_some() || step.router.is_some() || step.asks;
        // What a node spawns durably goes through the scope of its own branch.
        let is_other = has_options || step.work.info().starts_tasks || !step.is_last();
        !is_other && self.function(branch).is_some()
    }

    /// Returns the first node of the branch, if it is a function.
    #[inline]
    pub(crate) fn function<'p>(&'p self, branch: &'p Branch) -> Option<Function<'p, S, C>> {
        let Step { name, work: Work::Branch(node), .. } = self.step(*branch.steps.first()?) else { return None };
        Some(Function { name, node: node.as_function()? })
    }

    /// Returns the first node that runs in a step.
    pub(crate) fn first_node<'p>(&'p self, step: &'p Step<S, C>) -> &'p Step<S, C> {
        match &step.work {
            Work::Group(group) => match group.branches.first().and_then(|branch| branch.steps.first()) {
                Some(first) => self.first_node(self.step(*first)),
                None => step,
            },
            Work::Node(_) | Work::Branch(_) => step,
        }
    }

    /// Finds out which groups have plain branches only, so that no run has to.
    pub(super) fn mark_plain_groups(&mut self) {
        for index in 0..self.steps.len() {
            let is_plain = match &self.steps[index].work {
                Work::Group(group) => group.branches.iter().all(|branch| self.is_plain(branch)),
                Work::Node(_) | Work::Branch(_) => false,
            };
            if let Work::Group(group) = &mut self.steps[index].work {
                group.is_plain = is_plain;
            }
        }
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.steps.iter().map(|step| &*step.name).collect()
    }
}

impl<S: State, C> Clone for Function<'_, S, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: State, C> Copy for Function<'_, S, C> {}

impl<S: State, C> Work<S, C> {
    /// Returns the properties of the node.
    pub(crate) fn info(&self) -> NodeInfo {
        match self {
            Self::Node(node) => node.info(),
            Self::Branch(node) => node.info(),
            Self::Group(_) => NodeInfo::new(),
        }
    }
}

impl<S: State, C> Step<S, C> {
    /// Returns whether a decision follows, which may fail after the work has succeeded.
    pub(crate) fn has_decision(&self) -> bool {
        self.edges.first().is_some_and(|edge| edge.label.is_some())
    }

    pub(crate) fn outline(&self) -> Option<&Outline> {
        match &self.work {
            Work::Node(node) => node.outline(),
            Work::Branch(node) => node.outline(),
            Work::Group(_) => None,
        }
    }

    /// Returns whether the end of the path follows the step, whatever its outcome: no decision, and no fallback.
    pub(crate) fn is_last(&self) -> bool {
        self.on_error.is_none() && matches!(&self.edges[..], [Edge { label: None, to: Next::End, .. }])
    }
}
