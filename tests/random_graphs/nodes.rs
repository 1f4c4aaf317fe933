//! Nodes that do what a script specifies.

use std::{marker::PhantomData, time::Duration};

use agentflow::{
    EventWriter, NodeError, NodeFailure, RunConfig,
    graph::{Node, NodeContext, ParallelContext, ParallelNode},
    node,
};
use tokio::time::sleep;

use super::program::{
    Act, ActEnd, Arrived, ChosenRoute, Formula, POISON, Script, Trace, TraceUpdate, log_line, panic_silently,
};

/// The value that a node returns: nothing, or a route.
pub(super) trait Output: Send + Sync + Sized + 'static {
    fn from_state(formula: Option<Formula>, state: &Trace) -> Self;
}

impl Output for () {
    fn from_state(_: Option<Formula>, _: &Trace) {}
}

impl Output for ChosenRoute {
    fn from_state(formula: Option<Formula>, state: &Trace) -> Self {
        formula.unwrap().route(state).unwrap_or_else(|message| panic_silently(message))
    }
}

/// The input of a node: nothing, or a value.
pub(super) trait Input: Send + Sync + 'static {
    fn value(&self) -> Option<u32>;
}

impl Input for () {
    fn value(&self) -> Option<u32> {
        None
    }
}

impl Input for u32 {
    fn value(&self) -> Option<u32> {
        Some(*self)
    }
}

/// The behaviour of a node, and the formula of its route if it returns one.
#[derive(Clone)]
pub(super) struct Scripted<O> {
    script: Script,
    formula: Option<Formula>,
    output: PhantomData<O>,
}

pub(super) struct InPlace<O>(pub(super) Scripted<O>);

pub(super) struct Reading<O>(pub(super) Scripted<O>);

pub(super) struct Owning<O>(pub(super) Scripted<O>);

impl<O: Output> Scripted<O> {
    pub(super) fn new(script: &Script, formula: Option<Formula>) -> Self {
        Self { script: script.clone(), formula, output: PhantomData }
    }

    fn output(&self, state: &Trace) -> O {
        O::from_state(self.formula, state)
    }
}

impl<O: Output, I: Input> Node<Trace, (), I> for InPlace<O> {
    type Output = O;

    async fn run(&self, cx: NodeContext<'_, Trace, (), I>) -> Result<O, NodeError> {
        let Self(scripted) = self;
        let act = scripted.script.act(cx.state.total, cx.attempt());
        cx.state.log.push(log_line(cx.node_name(), cx.attempt(), arrived(cx.error(), cx.input), cx.steps_left()));
        cx.state.total += act.adds;
        act.wait(cx.events).await;
        if act.sets_title {
            cx.node_name().clone_into(&mut cx.state.title);
        }
        act.end(cx.config)?;
        Ok(scripted.output(cx.state))
    }
}

impl<O: Output, I: Input> Node<Trace, (), I> for Reading<O> {
    type Output = O;

    const MUTATES_STATE: bool = false;

    async fn run(&self, mut cx: NodeContext<'_, Trace, (), I>) -> Result<O, NodeError> {
        let Self(scripted) = self;
        let act = scripted.script.act(cx.state.total, cx.attempt());
        act.wait(cx.events).await;
        act.end(cx.config)?;
        let output = scripted.output(cx.state);
        let line = log_line(cx.node_name(), cx.attempt(), arrived(cx.error(), cx.input), cx.steps_left());
        cx.apply(act.update(line, cx.node_name()));
        Ok(output)
    }
}

impl<O: Output> Node<Trace> for Owning<O> {
    type Output = O;

    const MUTATES_STATE: bool = false;

    async fn run(&self, cx: NodeContext<'_, Trace>) -> Result<O, NodeError> {
        /// Writes the state as a node function with `state: S` does.
        #[node]
        async fn replace(state: Trace) -> Result<Trace, NodeError> {
            let (act, line, name) = CHANGE.with(Clone::clone);
            let mut state = state;
            state.log.push(line);
            state.total += act.adds;
            if act.sets_title {
                state.title = name;
            }
            Ok(state)
        }

        let Self(scripted) = self;
        let act = scripted.script.act(cx.state.total, cx.attempt());
        act.wait(cx.events).await;
        act.end(cx.config)?;
        let output = scripted.output(cx.state);
        let line = log_line(cx.node_name(), cx.attempt(), arrived(cx.error(), cx.input), cx.steps_left());
        CHANGE.scope((act, line, cx.node_name().to_owned()), replace {}.run(cx)).await?;
        Ok(output)
    }
}

tokio::task_local! {
    static CHANGE: (Act, String, String);
}

/// A node of a branch.
pub(super) struct Parallel<O>(pub(super) Scripted<O>);

impl<O: Output, I: Input> ParallelNode<Trace, (), I> for Parallel<O> {
    type Output = O;
    // The node passes its context on to no other one. Groups without a reader therefore take their short way.
    const IS_FUNCTION: bool = true;

    async fn run_parallel(&self, cx: ParallelContext<'_, Trace, (), I>) -> Result<(Option<TraceUpdate>, O), NodeError> {
        let Self(scripted) = self;
        let act = scripted.script.act(cx.state.total, cx.attempt());
        act.wait(cx.events).await;
        act.end(cx.config)?;
        let output = scripted.output(cx.state);
        let line = log_line(cx.node_name(), cx.attempt(), arrived(cx.error(), cx.input), cx.steps_left());
        Ok((Some(act.update(line, cx.node_name())), output))
    }
}

fn arrived<'a>(error: Option<&'a NodeFailure>, input: &impl Input) -> Arrived<'a> {
    Arrived { seen: error.map(|failure| (&*failure.node, failure.attempt)), input: input.value() }
}

impl Act {
    async fn wait(self, events: &EventWriter) {
        for number in 0..self.events {
            events.emit("custom", number).await;
        }
        if self.wait > 0 {
            sleep(Duration::from_millis(self.wait)).await;
        }
    }

    fn end(self, config: &RunConfig) -> Result<(), NodeError> {
        match self.end {
            ActEnd::Succeeds => {}
            ActEnd::Cancels => config.cancellation_token().unwrap().cancel(),
            ActEnd::Fails => return Err("no luck".into()),
            ActEnd::Panics => panic_silently("boom"),
        }
        Ok(())
    }

    fn update(self, line: String, node: &str) -> TraceUpdate {
        let update = Trace::update().log([line]);
        let update = if self.sets_title { update.title(node) } else { update };
        match self.adds {
            _ if self.is_poisoned => update.total(POISON),
            0 => update,
            adds => update.total(adds),
        }
    }
}
