//! Graphs as nodes of other graphs.

use std::fmt;

use futures_util::future::BoxFuture;

use super::{
    app::App,
    builder::StateGraph,
    compiled::CompiledGraph,
    error::BuildError,
    lower::lower,
    outline::Outline,
    plan::{ErasedParallelNode, Plan},
};
use crate::{
    error::NodeError,
    node::{Node, NodeContext, NodeInfo, ParallelContext, ParallelNode},
    run::{
        branch_log::BranchLog,
        commit_mark::CommitMark,
        executor::walk,
        group::run_inner_branch,
        invocation::{Arrival, Invocation},
    },
    state::State,
    task::BackgroundTaskManager,
};

/// A graph written inside another one. It shares the state and the services of the outer graph.
pub struct Subgraph<S: State, C> {
    plan: Plan<S, C>,
    outline: Outline,
}

impl<S: State, C> Subgraph<S, C> {
    /// Checks the graph and makes it a node of another one.
    pub(crate) fn new<P>(graph: StateGraph<S, C, P>) -> Result<Self, BuildError> {
        let (plan, outline) = lower(graph, false)?;
        Ok(Self { plan, outline })
    }
}

impl<S: State, C: Send + Sync + 'static> Node<S, C> for Subgraph<S, C> {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, S, C>) -> Result<(), NodeError> {
        run_inside(&self.plan, Own::default(), cx.services, cx.state, cx.commit, cx.invocation).await
    }

    fn outline(&self) -> Option<&Outline> {
        Some(&self.outline)
    }
}

/// A graph written inside a branch of another one. Its nodes read the state, and their updates are those of the branch.
pub struct ParallelSubgraph<S: State, C>(Subgraph<S, C>);

impl<S: State, C> ParallelSubgraph<S, C> {
    /// Checks the graph and makes it a node of a branch.
    pub(crate) fn new<P>(graph: StateGraph<S, C, P>) -> Result<Self, BuildError> {
        Subgraph::new(graph).map(Self)
    }
}

impl<S: State, C: Send + Sync + 'static> ErasedParallelNode<S, C> for ParallelSubgraph<S, C> {
    fn run<'a>(
        &'a self,
        state: &'a S,
        services: &'a C,
        invocation: &'a Invocation<'a>,
        log: &'a mut BranchLog<S>,
    ) -> BoxFuture<'a, Result<usize, NodeError>> {
        Box::pin(async move {
            let scope = invocation.scope.inside(invocation.path, &invocation.events, None, None);
            let ended = run_inner_branch(&self.0.plan, services, &scope, state, log, invocation.arrival).await;
            ended.map_err(|failure| *failure)?;
            invocation.scope.join([scope.taken()]);
            invocation.adopt(scope.outbox.take());
            Ok(0)
        })
    }

    fn info(&self) -> NodeInfo {
        NodeInfo::new()
    }

    fn outline(&self) -> Option<&Outline> {
        Some(&self.0.outline)
    }
}

impl<S: State, C> fmt::Debug for ParallelSubgraph<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ParallelSubgraph").field(&self.0).finish()
    }
}

impl<S: State, C> fmt::Debug for Subgraph<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subgraph").field("nodes", &self.plan.names()).finish_non_exhaustive()
    }
}

/// A compiled graph is a node of every graph with the same state. It keeps its own services, recursion limit and, if it was
/// compiled with one, task manager; the run, with its id, configuration, cancellation and shutdown, is that of the outer
/// graph. A graph that was compiled with a `shutdown_timeout` is no node, because the outer one's holds. A shutdown of the
/// inner app by itself does not keep it from being a node; if it has a task manager of its own, that is closed then.
impl<S, C, D> Node<S, C> for CompiledGraph<S, D>
where
    S: State,
    C: Send + Sync + 'static,
    D: Send + Sync + 'static,
{
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, S, C>) -> Result<(), NodeError> {
        self.run_as_node(cx.state, cx.commit, cx.invocation).await
    }

    fn outline(&self) -> Option<&Outline> {
        Some(&self.app.outline)
    }
}

impl<S: State, D: Send + Sync + 'static> CompiledGraph<S, D> {
    /// Runs the graph as a node of another one.
    pub(super) async fn run_as_node(
        &self,
        state: &mut S,
        commit: &CommitMark,
        invocation: &Invocation<'_>,
    ) -> Result<(), NodeError> {
        run_inside(&self.app.plan, Own::of(&self.app), &self.app.services, state, commit, invocation).await
    }
}

/// A compiled graph as a node of graphs with another state, made by [`CompiledGraph::map_state`].
pub struct MappedGraph<T: State, D, I, B> {
    graph: CompiledGraph<T, D>,
    into: I,
    back: B,
}

impl<S: State, C: Send + Sync + 'static> CompiledGraph<S, C> {
    /// Turns this graph into a node of graphs with another state: `into` makes its state from theirs, and `back` makes an
    /// update of theirs from the state in which it ended.
    ///
    /// ```
    /// use agentflow::{AgentState, Message, RunConfig, State, graph, node};
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Question {
    ///     text: String,
    ///     answer: String,
    /// }
    ///
    /// #[node]
    /// async fn answer(state: &mut Question) {
    ///     state.answer = state.text.to_uppercase();
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), agentflow::RunError> {
    /// let expert = graph! { answer -> END };
    /// let app = graph! {
    ///     node EXPERT = expert.map_state(
    ///         |state: &AgentState| Question { text: state.context[0].text(), ..Question::default() },
    ///         |question| AgentState::update().context([Message::assistant(question.answer)]),
    ///     );
    ///     EXPERT -> END
    /// };
    /// let state = app.invoke(AgentState::from_user("why?"), RunConfig::new()).await?;
    /// assert_eq!(state.context[1].text(), "WHY?");
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_state<O, I, B>(self, into: I, back: B) -> MappedGraph<S, C, I, B>
    where
        O: State,
        I: Fn(&O) -> S + Send + Sync + 'static,
        B: Fn(S) -> O::Update + Send + Sync + 'static,
    {
        MappedGraph { graph: self, into, back }
    }
}

impl<S, C, T, D, I, B> Node<S, C> for MappedGraph<T, D, I, B>
where
    S: State,
    C: Send + Sync + 'static,
    T: State,
    D: Send + Sync + 'static,
    I: Fn(&S) -> T + Send + Sync + 'static,
    B: Fn(T) -> S::Update + Send + Sync + 'static,
{
    type Output = ();
    /// The outer state is written once, after the inner graph has ended.
    const MUTATES_STATE: bool = false;

    async fn run(&self, mut cx: NodeContext<'_, S, C>) -> Result<(), NodeError> {
        let update = self.run_mapped((self.into)(cx.state), cx.invocation).await?;
        cx.apply((self.back)(update));
        Ok(())
    }

    fn outline(&self) -> Option<&Outline> {
        Some(&self.graph.app.outline)
    }
}

// The attribute keeps this type out of rustc's list of parallel nodes, where another type is none.
#[diagnostic::do_not_recommend]
impl<S, C, T, D, I, B> ParallelNode<S, C> for MappedGraph<T, D, I, B>
where
    S: State,
    C: Send + Sync + 'static,
    T: State,
    D: Send + Sync + 'static,
    I: Fn(&S) -> T + Send + Sync + 'static,
    B: Fn(T) -> S::Update + Send + Sync + 'static,
{
    type Output = ();

    async fn run_parallel(&self, cx: ParallelContext<'_, S, C>) -> Result<(Option<S::Update>, ()), NodeError> {
        let inner = self.run_mapped((self.into)(cx.state), cx.invocation).await?;
        Ok((Some((self.back)(inner)), ()))
    }

    fn outline(&self) -> Option<&Outline> {
        Some(&self.graph.app.outline)
    }
}

impl<T: State, D: Send + Sync + 'static, I, B> MappedGraph<T, D, I, B> {
    async fn run_mapped(&self, mut state: T, invocation: &Invocation<'_>) -> Result<T, NodeError> {
        let app = &self.graph.app;
        let own = Own { has_another_state: true, ..Own::of(app) };
        run_inside(&app.plan, own, &app.services, &mut state, &CommitMark::new(), invocation).await?;
        Ok(state)
    }
}

impl<T: State, D, I, B> fmt::Debug for MappedGraph<T, D, I, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedGraph").field("graph", &self.graph).finish_non_exhaustive()
    }
}

/// The options of a graph that hold inside another one.
#[derive(Default)]
struct Own<'a> {
    recursion_limit: Option<usize>,
    manager: Option<&'a BackgroundTaskManager>,
    /// The steps of a graph with another state are a part of one step of the graph around it.
    has_another_state: bool,
}

impl<'a> Own<'a> {
    fn of<S: State, C>(app: &'a App<S, C>) -> Self {
        Self { recursion_limit: app.own_limit, manager: app.own_manager(), has_another_state: false }
    }
}

/// Walks the inner graph as a part of the outer run, with its own recursion limit and task manager if it has them.
async fn run_inside<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    own: Own<'_>,
    services: &C,
    state: &mut S,
    commit: &CommitMark,
    invocation: &Invocation<'_>,
) -> Result<(), NodeError> {
    let scope = invocation.scope.inside(invocation.path, &invocation.events, own.recursion_limit, own.manager);
    let scope = if own.has_another_state { scope.unrecorded() } else { scope };
    walk(plan, services, &scope, state, commit, None, Arrival::inherited(invocation.arrival))
        .await
        .map_err(|failure| *failure)?;
    // Only a successful attempt counts towards the recursion limit: the attempt after a failed one starts anew.
    invocation.scope.join([scope.taken()]);
    invocation.adopt(scope.outbox.take());
    Ok(())
}
