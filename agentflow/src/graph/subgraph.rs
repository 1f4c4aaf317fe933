//! Graphs as nodes of graphs.

use std::fmt;

use super::{CompiledGraph, draw::Outline, plan::Plan};
use crate::{
    NodeError, State,
    graph::{Node, NodeContext, ParallelContext, ParallelNode},
    node::Place,
    run::{Progress, walk},
};

/// A part of a graph, written inside it: it shares the state and the context of the graph around it.
pub struct Subgraph<S: State, C> {
    pub(super) plan: Plan<S, C>,
    pub(super) outline: Outline,
}

impl<S: State, C: Send + Sync + 'static> Node<S, C> for Subgraph<S, C> {
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, S, C>) -> Result<(), NodeError> {
        run_inside(&self.plan, cx.services, cx.state, cx.place).await
    }

    fn outline(&self) -> Option<&Outline> {
        Some(&self.outline)
    }
}

impl<S: State, C> fmt::Debug for Subgraph<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subgraph").field("nodes", &self.plan.names()).finish_non_exhaustive()
    }
}

/// A compiled graph is a node of every graph with its state. It keeps its own context; the run, with its id, its
/// configuration, limits, cancellation and task manager, is that of the graph around it.
impl<S, C, D> Node<S, C> for CompiledGraph<S, D>
where
    S: State,
    C: Send + Sync + 'static,
    D: Send + Sync + 'static,
{
    type Output = ();

    async fn run(&self, cx: NodeContext<'_, S, C>) -> Result<(), NodeError> {
        self.run_as_node(cx.state, cx.place).await
    }

    fn outline(&self) -> Option<&Outline> {
        Some(&self.app.outline)
    }
}

impl<S: State, D: Send + Sync + 'static> CompiledGraph<S, D> {
    pub(super) async fn run_as_node(&self, state: &mut S, place: &Place<'_>) -> Result<(), NodeError> {
        run_inside(&self.app.plan, &self.app.services, state, place).await
    }
}

/// A compiled graph as a node of graphs with another state: what [`CompiledGraph::map_state`] makes.
pub struct MappedGraph<T: State, D, I, B> {
    pub(super) graph: CompiledGraph<T, D>,
    pub(super) into: I,
    pub(super) back: B,
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
    /// The state is written when the graph is done.
    const MUTATES_STATE: bool = false;

    async fn run(&self, mut cx: NodeContext<'_, S, C>) -> Result<(), NodeError> {
        let update = self.run_mapped((self.into)(cx.state), cx.place).await?;
        cx.apply((self.back)(update));
        Ok(())
    }

    fn outline(&self) -> Option<&Outline> {
        Some(&self.graph.app.outline)
    }
}

// Where something else is no node for a group, this one is not what rustc is to list.
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
    async fn run_parallel(&self, cx: ParallelContext<'_, S, C>) -> Result<Option<S::Update>, NodeError> {
        let inner = self.run_mapped((self.into)(cx.state), cx.place).await?;
        Ok(Some((self.back)(inner)))
    }

    fn outline(&self) -> Option<&Outline> {
        Some(&self.graph.app.outline)
    }
}

impl<T: State, D: Send + Sync + 'static, I, B> MappedGraph<T, D, I, B> {
    async fn run_mapped(&self, mut state: T, place: &Place<'_>) -> Result<T, NodeError> {
        let app = &self.graph.app;
        run_inside(&app.plan, &app.services, &mut state, place).await?;
        Ok(state)
    }
}

impl<T: State, D, I, B> fmt::Debug for MappedGraph<T, D, I, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedGraph").field("graph", &self.graph).finish_non_exhaustive()
    }
}

/// Walks the inner graph as a part of the run that the node is in.
async fn run_inside<S: State, C: Send + Sync + 'static>(
    plan: &Plan<S, C>,
    services: &C,
    state: &mut S,
    place: &Place<'_>,
) -> Result<(), NodeError> {
    let scope = place.scope.inside(place.path.clone());
    walk(plan, services, &scope, state, &Progress::new(plan.entry)).await.map_err(|failure| *failure)?;
    // A failed attempt is no part of the path: the next one starts where this one did.
    place.scope.join([&scope]);
    Ok(())
}
