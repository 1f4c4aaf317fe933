//! Lowering: a graph that passed all checks becomes the [`Plan`] that runs and the [`Outline`] that pictures show.

use std::{collections::HashMap, sync::Arc};

use super::{
    builder::{StateGraph, StepDeclaration, WorkDeclaration},
    error::BuildError,
    outline::{Outline, OutlineBranches, OutlineStep, StepContents},
    plan::{Branch, Group, GroupKind, Plan, Router, Step, Work},
    topology::{Next, StepId},
    validate::{CheckedGraph, CheckedStep, validate},
};
use crate::{carried::InputType, state::State};

/// Checks the graph and lowers it.
pub(super) fn lower<S: State, C, P>(
    graph: StateGraph<S, C, P>,
    has_store: bool,
) -> Result<(Plan<S, C>, Outline), BuildError> {
    let CheckedGraph { entry, steps: checked, inputs, nesting } = validate(&graph, has_store)?;
    let name = graph.name();
    let StateGraph { steps, routes, on_commit, .. } = graph;
    let mut routers: HashMap<Arc<str>, Option<Box<dyn Router<S>>>> =
        routes.into_iter().map(|route| (route.from, route.router)).collect();
    let mut members: HashMap<Arc<str>, Vec<Vec<StepId>>> = HashMap::new();
    // Every loop has an edge back to the same or to an earlier step.
    let leads_back: Vec<bool> = checked
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let next = step.edges.iter().map(|checked| checked.edge.to).chain(step.on_error.map(Next::Step));
            next.into_iter().any(|next| matches!(next, Next::Step(next) if next.index() <= index))
        })
        .collect();
    let may_loop = checked.iter().zip(&leads_back).any(|(step, leads_back)| *leads_back && !step.is_in_branch());
    let lower_step = |((declared, checked), input): ((StepDeclaration<S, C>, CheckedStep), InputType)| {
        let CheckedStep { name, branches, options, on_error, edges, .. } = checked;
        let work = match declared.work {
            WorkDeclaration::Node(node, _) => Work::Node(node),
            WorkDeclaration::Branch(node, _) => Work::Branch(node),
            WorkDeclaration::Group(group) => {
                let branch = |steps: &Vec<StepId>| {
                    let may_loop = steps.iter().any(|step| leads_back[step.index()]);
                    Branch { steps: steps.clone(), may_loop }
                };
                let lowered = branches.iter().map(branch).collect();
                members.insert(name.clone(), branches);
                Work::Group(Group { kind: group.kind, branches: lowered, is_plain: false })
            }
        };
        let asks = work.info().asks.is_some();
        let router = routers.remove(&name).flatten();
        let edges = edges.into_iter().map(|checked| checked.edge).collect();
        Step { name, work, input, options, asks, router, on_error, edges }
    };
    let steps: Vec<_> = steps.into_iter().zip(checked).zip(inputs).map(lower_step).collect();
    let asks = steps.iter().any(|step| step.asks || step.outline().is_some_and(|outline| outline.asks));
    let outlines = steps.iter().map(|step| outline_of(step, members.remove(&step.name)));
    let outline = Outline { name, steps: outlines.collect(), entry, nesting, asks, manager: None, outer_option: None };
    let mut plan = Plan { steps, entry, may_loop, on_commit };
    plan.mark_plain_groups();
    Ok((plan, outline))
}

fn outline_of<S: State, C>(step: &Step<S, C>, branches: Option<Vec<Vec<StepId>>>) -> OutlineStep {
    let contents = match (&step.work, step.outline()) {
        (Work::Group(group), _) => {
            let title = match group.kind {
                GroupKind::All => "parallel",
                GroupKind::Any => "first to succeed",
                GroupKind::Each(_) => "for each item",
            };
            let title = step.options.label.clone().unwrap_or_else(|| title.into());
            StepContents::Branches(OutlineBranches { title, branches: branches.unwrap_or_default() })
        }
        (_, Some(outline)) => StepContents::Graph(outline.clone()),
        _ => StepContents::Nothing,
    };
    let label = step.options.describe(&step.name, step.work.info().starts_tasks);
    OutlineStep {
        name: Arc::clone(&step.name),
        label,
        contents,
        edges: step.edges.clone(),
        on_error: step.on_error,
        input: step.input,
        answer: step.work.info().answer(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{
        AgentState,
        carried::Input,
        error::NodeError,
        graph::{Arms, BuildProblemKind, CompileOptions, END, EachOptions, JOIN},
        node::{Node, NodeContext, ParallelContext, ParallelNode},
        store::{Durable, InMemory, KeepsInput},
    };

    struct Takes;

    impl Node<AgentState, (), String> for Takes {
        type Output = ();

        async fn run(&self, _: NodeContext<'_, AgentState, (), String>) -> Result<(), NodeError> {
            Ok(())
        }
    }

    type Brought = (Option<<AgentState as State>::Update>, ());

    impl ParallelNode<AgentState, (), String> for Takes {
        type Output = ();

        async fn run_parallel(&self, _: ParallelContext<'_, AgentState, (), String>) -> Result<Brought, NodeError> {
            Ok((None, ()))
        }
    }

    fn texts(_: &AgentState) -> Vec<String> {
        Vec::new()
    }

    /// A node with a decision that carries a text to `TAKES` or to both branches of `BOTH`, and then an `each`.
    fn graph<P: KeepsInput<String>>() -> StateGraph<AgentState, (), P> {
        let mut graph = StateGraph::new();
        graph.add_node("TAKES", Takes);
        graph.add_parallel_node("LEFT", Takes);
        graph.add_parallel_node("RIGHT", Takes);
        graph.add_parallel_node("ITEM", Takes);
        graph.add_group("BOTH", [["LEFT"], ["RIGHT"]]);
        graph.add_each("EACH", texts, EachOptions::new(), ["ITEM"]);
        graph.set_entry_point("EACH");
        let arms = Arms::new()
            .carry("a", "TAKES", |text: String| if text.is_empty() { Ok(text) } else { Err(text) })
            .carry("b", "BOTH", Ok::<String, String>);
        graph.add_route("EACH", |_: &AgentState| String::new(), arms);
        graph.add_edge("TAKES", END);
        graph.add_edge("LEFT", JOIN);
        graph.add_edge("BOTH", END);
        graph
    }

    #[test]
    fn every_step_that_takes_an_input_can_write_and_read_it() {
        let (plan, _) = lower(graph::<Durable>(), false).unwrap();
        for step in &plan.steps {
            let codec = step.input.codec.unwrap_or_else(|| panic!("{} has no codec", step.name));
            let json = (codec.encode)(Input::new("a".to_owned()).value().unwrap()).unwrap();
            assert_eq!(json, br#""a""#, "{}", step.name);
        }
        let (plan, _) = lower(graph::<InMemory>(), false).unwrap();
        assert!(plan.steps.iter().all(|step| step.input.codec.is_none() && step.input == plan.steps[0].input));
    }

    #[test]
    fn a_graph_with_a_store_has_a_name() {
        let problems = |graph| lower::<_, _, Durable>(graph, true).map(|_| ()).unwrap_err().problems;
        assert_eq!(problems(graph())[0].kind, BuildProblemKind::StoreWithoutName);
        let mut blank = graph();
        blank.set_name(" ");
        assert_eq!(problems(blank)[0].kind, BuildProblemKind::StoreWithoutName);
        let mut named = graph::<Durable>();
        named.set_name("mail");
        assert_eq!(&*lower(named, true).unwrap().1.name, "mail");
        assert_eq!(graph().compile(CompileOptions::new()).unwrap().name(), "graph");
    }
}
