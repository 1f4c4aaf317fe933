//! Programs as compiled graphs.

use std::{error::Error, time::Duration};

use agentflow::{
    CompileOptions, CompiledGraph, END, NodeOptions, RetryPolicy, StateGraph,
    error::Panicked,
    graph::{BuildError, EdgeTarget, MappedGraph},
};

use super::{
    nodes::{InPlace, Owning, Parallel, Reading, Scripted},
    program::{
        Access, Branches, Decision, Graph, MapPanic, Mapped, Next, Options, ParallelWork, Script, Target, Trace,
        TraceUpdate, When, Work, panic_silently,
    },
};

pub(super) fn compile(graph: &Graph) -> Result<CompiledGraph<Trace>, BuildError> {
    let mut builder = StateGraph::new();
    for step in &graph.steps {
        let Work::Node(access, script) = &step.work else { continue };
        match &step.next {
            Next::Decision(decision) if decision.is_from_node => {
                add_node(&mut builder, *access, script, decision, &step.name, graph);
            }
            _ => {
                let scripted = Scripted::<()>::new(script, None);
                match access {
                    Access::InPlace => builder.add_node(&*step.name, InPlace(scripted)),
                    Access::Reading => builder.add_node(&*step.name, Reading(scripted)),
                    Access::Owning => builder.add_node(&*step.name, Owning(scripted)),
                };
            }
        }
    }
    for step in &graph.steps {
        match &step.work {
            Work::Node(..) => {}
            Work::Graph(inner) => {
                builder.add_node(&*step.name, compile(inner)?);
            }
            Work::Mapped(inner) => {
                builder.add_node(&*step.name, mapped(inner)?);
            }
            Work::Group(branches) => add_group(&mut builder, &step.name, branches)?,
        }
        let on_error = step.on_error.map(|fallback| &*graph.steps[fallback].name);
        set_options(&mut builder, &step.name, &step.options, on_error);
        match &step.next {
            Next::Edge(to) => {
                builder.add_edge(&*step.name, target(graph, *to));
            }
            Next::Decision(decision) if !decision.is_from_node => {
                let formula = decision.formula;
                let router =
                    move |state: &Trace| formula.route(state).unwrap_or_else(|message| panic_silently(message));
                builder.add_route(&*step.name, router, arms(graph, decision));
            }
            Next::Decision(_) => {}
        }
    }
    builder.set_entry_point(&*graph.steps[0].name);
    let options = CompileOptions::new();
    builder.compile(match graph.recursion_limit {
        Some(limit) => options.recursion_limit(limit),
        None => options,
    })
}

fn add_node(
    builder: &mut StateGraph<Trace>,
    access: Access,
    script: &Script,
    decision: &Decision,
    name: &str,
    graph: &Graph,
) {
    let scripted = Scripted::<u32>::new(script, Some(decision.formula));
    let arms = arms(graph, decision);
    match access {
        Access::InPlace => builder.add_routing_node(name, InPlace(scripted), arms),
        Access::Reading => builder.add_routing_node(name, Reading(scripted), arms),
        Access::Owning => builder.add_routing_node(name, Owning(scripted), arms),
    };
}

fn arms(graph: &Graph, decision: &Decision) -> Vec<(u32, EdgeTarget)> {
    (0..).zip(decision.arms.iter().map(|to| target(graph, *to))).collect()
}

fn target(graph: &Graph, to: Target) -> EdgeTarget {
    to.map_or_else(|| END.into(), |to| graph.steps[to].name.as_str().into())
}

type MappedTrace =
    MappedGraph<Trace, (), Box<dyn Fn(&Trace) -> Trace + Send + Sync>, Box<dyn Fn(Trace) -> TraceUpdate + Send + Sync>>;

fn mapped(inner: &Mapped) -> Result<MappedTrace, BuildError> {
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
    Ok(compile(&inner.graph)?.map_state(Box::new(into), Box::new(back)))
}

fn add_group(builder: &mut StateGraph<Trace>, name: &str, branches: &Branches) -> Result<(), BuildError> {
    for member in branches.iter().flatten() {
        match &member.work {
            ParallelWork::Node(script) => {
                builder.add_parallel_node(&*member.name, Parallel(script.clone()));
            }
            ParallelWork::Mapped(inner) => {
                builder.add_parallel_node(&*member.name, mapped(inner)?);
            }
            ParallelWork::Group(branches) => add_group(builder, &member.name, branches)?,
        }
        set_options(builder, &member.name, &member.options, None);
    }
    let names =
        |branch: &Vec<super::program::Member>| branch.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
    builder.add_group(name, branches.iter().map(names));
    Ok(())
}

fn set_options(builder: &mut StateGraph<Trace>, name: &str, given: &Options, on_error: Option<&str>) {
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
        builder.set_node_options(name, options);
    }
}
