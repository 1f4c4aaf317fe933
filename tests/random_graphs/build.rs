//! Programs as compiled graphs.

use std::{error::Error, time::Duration};

use agentflow::{
    CompileOptions, CompiledGraph, END, EachOptions, JOIN, NodeOptions, RetryPolicy, StateGraph,
    error::Panicked,
    graph::{Arms, BuildError, EdgeTarget, MappedGraph},
    store::{Keeps, KeepsInput},
};

use super::{
    nodes::{InPlace, Input, Owning, Parallel, Reading, Scripted},
    program::{
        Access, ChosenRoute, Decision, Graph, Group, GroupKind, MapPanic, Mapped, Next, Options, ParallelWork, Script,
        Step, Target, Trace, TraceUpdate, When, Work, panic_silently,
    },
};

/// The ways in which the graphs keep their threads.
pub(super) trait Kept: Keeps<Trace> + KeepsInput<()> + KeepsInput<u32> {}

impl<P: Keeps<Trace> + KeepsInput<()> + KeepsInput<u32>> Kept for P {}

pub(super) fn compile(graph: &Graph) -> Result<CompiledGraph<Trace>, BuildError> {
    compile_with(graph, &CompileOptions::new)
}

/// Compiles a graph and those inside it, all of them with the same options but for the limits.
pub(super) fn compile_with<P: Kept>(
    graph: &Graph,
    options: &dyn Fn() -> CompileOptions<(), P>,
) -> Result<CompiledGraph<Trace>, BuildError> {
    let mut builder = StateGraph::new();
    builder.set_name("random");
    for step in &graph.steps {
        match &step.work {
            Work::Node(access, script) if step.takes_input => {
                add_node::<u32, P>(&mut builder, *access, script, step, &graph.steps);
            }
            Work::Node(access, script) => add_node::<(), P>(&mut builder, *access, script, step, &graph.steps),
            Work::Graph(inner) => {
                builder.add_node::<()>(&*step.name, compile_with(inner, options)?);
            }
            Work::Mapped(inner) => {
                builder.add_node::<()>(&*step.name, mapped(inner, options)?);
            }
            Work::Group(group) => add_group(&mut builder, &step.name, group, options)?,
        }
        if let Next::Edge(to) = step.next {
            builder.add_edge(&*step.name, target(&graph.steps, to, END));
        }
        add_router(&mut builder, step, &graph.steps, END);
        set_options(&mut builder, step, &graph.steps);
    }
    builder.set_entry_point(&*graph.steps[0].name);
    let options = options();
    builder.compile(match graph.recursion_limit {
        Some(limit) => options.recursion_limit(limit),
        None => options,
    })
}

fn add_node<I, P>(builder: &mut StateGraph<Trace, (), P>, access: Access, script: &Script, step: &Step, steps: &[Step])
where
    I: Input,
    P: Kept + KeepsInput<I>,
{
    let name = &*step.name;
    match &step.next {
        Next::Decision(decision) if decision.is_from_node => {
            let scripted = Scripted::<ChosenRoute>::new(script, Some(decision.formula));
            let arms = arms(steps, decision, END);
            match access {
                Access::InPlace => builder.add_routing_node::<_, I>(name, InPlace(scripted), arms),
                Access::Reading => builder.add_routing_node::<_, I>(name, Reading(scripted), arms),
                Access::Owning => builder.add_routing_node(name, Owning(scripted), arms),
            };
        }
        _ => {
            let scripted = Scripted::<()>::new(script, None);
            match access {
                Access::InPlace => builder.add_node::<I>(name, InPlace(scripted)),
                Access::Reading => builder.add_node::<I>(name, Reading(scripted)),
                Access::Owning => builder.add_node::<()>(name, Owning(scripted)),
            };
        }
    }
}

fn add_router<W, E: Into<EdgeTarget> + Copy, P: Kept>(
    builder: &mut StateGraph<Trace, (), P>,
    step: &Step<W>,
    steps: &[Step<W>],
    end: E,
) {
    if let Next::Decision(decision) = &step.next
        && !decision.is_from_node
    {
        let formula = decision.formula;
        let router = move |state: &Trace| formula.route(state).unwrap_or_else(|message| panic_silently(message));
        builder.add_route(&*step.name, router, arms(steps, decision, end));
    }
}

fn arms<W, E: Into<EdgeTarget> + Copy>(steps: &[Step<W>], decision: &Decision, end: E) -> Arms<ChosenRoute> {
    let arms = (0..).zip(&decision.arms).map(|(arm, to)| (ChosenRoute { arm, value: 0 }, *to));
    if !decision.carries(steps) {
        return arms.map(|(route, to)| (route, target(steps, to, end))).collect::<Vec<_>>().into();
    }
    arms.fold(Arms::new(), |arms, (route, to)| {
        let (label, place) = (route.arm.to_string(), target(steps, to, end));
        if to.is_some_and(|to| steps[to].takes_input) {
            arms.carry(
                label,
                place,
                move |taken: ChosenRoute| if taken == route { Ok(taken.value) } else { Err(taken) },
            )
        } else {
            arms.to(label, place, move |taken| *taken == route)
        }
    })
}

fn target<W>(steps: &[Step<W>], to: Target, end: impl Into<EdgeTarget>) -> EdgeTarget {
    to.map_or_else(|| end.into(), |to| steps[to].name.as_str().into())
}

type MappedTrace =
    MappedGraph<Trace, (), Box<dyn Fn(&Trace) -> Trace + Send + Sync>, Box<dyn Fn(Trace) -> TraceUpdate + Send + Sync>>;

fn mapped<P: Kept>(inner: &Mapped, options: &dyn Fn() -> CompileOptions<(), P>) -> Result<MappedTrace, BuildError> {
    let panics = inner.panics;
    let into = move |outer: &Trace| {
        if panics == Some(MapPanic::Into) {
            panic_silently("into");
        }
        Trace { total: outer.total, ..Trace::default() }
    };
    let back = move |inner: Trace| {
        if panics == Some(MapPanic::Back) {
            panic_silently("back");
        }
        Trace::update().total(u32::try_from(inner.log.len()).unwrap()).log(inner.log)
    };
    Ok(compile_with(&inner.graph, options)?.map_state(Box::new(into), Box::new(back)))
}

fn add_group<P: Kept>(
    builder: &mut StateGraph<Trace, (), P>,
    name: &str,
    group: &Group,
    options: &dyn Fn() -> CompileOptions<(), P>,
) -> Result<(), BuildError> {
    for branch in &group.branches {
        for (index, step) in branch.iter().enumerate() {
            match &step.work {
                ParallelWork::Node(script) if step.takes_input => {
                    add_parallel_node::<u32, P>(builder, script, step, branch);
                }
                ParallelWork::Node(script) => add_parallel_node::<(), P>(builder, script, step, branch),
                ParallelWork::Mapped(inner) => {
                    builder.add_parallel_node::<()>(&*step.name, mapped(inner, options)?);
                }
                ParallelWork::Group(group) => add_group(builder, &step.name, group, options)?,
            }
            // A step leads to the next one, and the last one to the join, if nothing else is specified.
            if let Next::Edge(to) = step.next
                && to != Some(index + 1).filter(|next| *next < branch.len())
            {
                builder.add_edge(&*step.name, target(branch, to, JOIN));
            }
            add_router(builder, step, branch, JOIN);
            set_options(builder, step, branch);
        }
    }
    let names = |branch: &Vec<Step<_>>| branch.iter().map(|step| step.name.clone()).collect::<Vec<_>>();
    match group.kind {
        GroupKind::All => builder.add_group(name, group.branches.iter().map(names)),
        GroupKind::Any => builder.add_any(name, group.branches.iter().map(names)),
        GroupKind::Each(items) => {
            let mut options = EachOptions::new();
            if let Some(max) = items.max_parallel {
                options = options.max_parallel(max);
            }
            if let Some(max) = items.max_items {
                options = options.max_items(max);
            }
            let items = move |state: &Trace| items.items(state).unwrap_or_else(|message| panic_silently(message));
            builder.add_each(name, items, options, names(&group.branches[0]))
        }
    };
    Ok(())
}

fn add_parallel_node<I: Input, P: Kept + KeepsInput<I>>(
    builder: &mut StateGraph<Trace, (), P>,
    script: &Script,
    step: &Step<ParallelWork>,
    branch: &[Step<ParallelWork>],
) {
    match &step.next {
        Next::Decision(decision) if decision.is_from_node => {
            let node = Parallel(Scripted::<ChosenRoute>::new(script, Some(decision.formula)));
            builder.add_parallel_routing_node::<_, I>(&*step.name, node, arms(branch, decision, JOIN));
        }
        _ => {
            builder.add_parallel_node::<I>(&*step.name, Parallel(Scripted::<()>::new(script, None)));
        }
    }
}

fn set_options<W, P: Kept>(builder: &mut StateGraph<Trace, (), P>, step: &Step<W>, steps: &[Step<W>]) {
    let given: &Options = &step.options;
    let on_error = step.on_error.map(|fallback| &*steps[fallback].name);
    let mut options = NodeOptions::new();
    if let Some(retry) = given.retry {
        let mut policy = RetryPolicy::new(retry.retries);
        if let Some(first) = retry.backoff {
            policy = policy.backoff(Duration::from_millis(first));
        }
        if let Some(max) = retry.max_delay {
            policy = policy.max_delay(Duration::from_millis(max));
        }
        if let Some(total) = retry.max_total {
            policy = policy.max_total(Duration::from_millis(total));
        }
        policy = match retry.when {
            When::Always => policy,
            When::Panics => policy.when(<dyn Error>::is::<Panicked>),
            When::Faulty => policy.when(|_| panic_silently("faulty")),
        };
        options = options.retry(policy);
    }
    if let Some(timeout) = given.timeout {
        options = options.timeout(Duration::from_millis(timeout));
    }
    if let Some(fallback) = on_error {
        options = options.on_error(fallback);
    }
    if given.retry.is_some() || given.timeout.is_some() || on_error.is_some() {
        builder.set_node_options(&*step.name, options);
    }
}
