//! [`Topology`]: the shape of a graph, and the rules that it must follow.
//!
//! `StateGraph` and `graph!` share this file (the macro crate has a symbolic link to it), so that both report the same
//! mistakes. It depends on nothing but `std`.

use std::collections::HashMap;

/// The index of a step (a node or a group) in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepId(usize);

impl StepId {
    pub(crate) fn new(index: usize) -> Self {
        Self(index)
    }

    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// The target of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Step(StepId),
    /// The end of the path: END, or the join of a branch.
    End,
}

/// The edges between the steps of one path: of a graph without its branches, or of one branch. They have no names or code.
struct Topology {
    entry: StepId,
    steps: Vec<StepEdges>,
}

/// The edges of one step.
pub(crate) struct StepEdges {
    /// The targets of the outgoing edges, one for each arm of a decision.
    pub(crate) next: Vec<Next>,
    /// The step that runs after a failure.
    pub(crate) on_error: Option<StepId>,
}

/// A rule that a graph breaks, with the steps that break it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Nothing follows the step.
    NoOutgoingEdge(StepId),
    /// No path leads from the entry to the step.
    Unreachable(StepId),
    /// A run that enters these steps never reaches the end.
    EndlessLoop(Vec<StepId>),
}

/// Checks one path of a graph: the steps outside of all branches, or those of one branch. `edges` returns the edges of a
/// step; those that leave the path are another rule's.
pub(crate) fn violations_of_path(
    entry: StepId,
    path: &[StepId],
    edges: impl Fn(StepId) -> StepEdges,
) -> Vec<Violation> {
    let local: HashMap<usize, StepId> = path.iter().enumerate().map(|(local, step)| (step.0, StepId(local))).collect();
    let to_local = |step: StepId| local.get(&step.0).copied();
    let next_to_local = |next: Next| match next {
        Next::Step(step) => to_local(step).map(Next::Step),
        Next::End => Some(Next::End),
    };
    let steps = path.iter().map(|step| {
        let StepEdges { next, on_error } = edges(*step);
        let next = next.into_iter().filter_map(next_to_local).collect();
        StepEdges { next, on_error: on_error.and_then(to_local) }
    });
    let Some(entry) = to_local(entry) else { return Vec::new() };
    let to_graph = |step: StepId| path[step.0];
    let violations = Topology { entry, steps: steps.collect() }.violations();
    violations
        .into_iter()
        .map(|violation| match violation {
            Violation::NoOutgoingEdge(step) => Violation::NoOutgoingEdge(to_graph(step)),
            Violation::Unreachable(step) => Violation::Unreachable(to_graph(step)),
            Violation::EndlessLoop(steps) => Violation::EndlessLoop(steps.into_iter().map(to_graph).collect()),
        })
        .collect()
}

impl Topology {
    /// Checks all rules. Endless loops are reported only where no other rule is broken, because a missing edge makes
    /// loops that its repair removes.
    fn violations(&self) -> Vec<Violation> {
        let mut violations: Vec<_> = self.without_outgoing_edge().map(Violation::NoOutgoingEdge).collect();
        violations.extend(self.unreachable().into_iter().map(Violation::Unreachable));
        if violations.is_empty() {
            violations.extend(self.endless_loops().into_iter().map(Violation::EndlessLoop));
        }
        violations
    }

    fn without_outgoing_edge(&self) -> impl Iterator<Item = StepId> {
        self.ids().filter(|step| self.edges(*step).next.is_empty())
    }

    /// Returns the unreachable steps that lead to all other unreachable ones: an edge to each of these repairs the graph.
    /// Of several steps that lead to each other, the first one stands for all of them.
    fn unreachable(&self) -> Vec<StepId> {
        let reached = self.reached_from_entry();
        let component = self.components();
        let mut is_led_to = vec![false; self.steps.len()];
        for step in self.ids().filter(|step| !reached[step.0]) {
            for next in self.successors(step).filter(|next| component[next.0] != component[step.0]) {
                is_led_to[component[next.0]] = true;
            }
        }
        // A component is reported once.
        self.ids()
            .filter(|step| !reached[step.0] && !std::mem::replace(&mut is_led_to[component[step.0]], true))
            .collect()
    }

    /// Returns the loops without a path to the end, each once. Steps that lead into a loop are no part of it: no edge
    /// leaves the component of a loop.
    fn endless_loops(&self) -> Vec<Vec<StepId>> {
        let component = self.components();
        let mut is_left = vec![false; self.steps.len()];
        for step in self.ids() {
            let leads_out = self.successors(step).any(|next| component[next.0] != component[step.0]);
            is_left[component[step.0]] |= leads_out || self.edges(step).next.contains(&Next::End);
        }
        let mut loops: Vec<Vec<StepId>> = Vec::new();
        let mut loop_of = vec![None; self.steps.len()];
        for step in self.ids().filter(|step| !is_left[component[step.0]]) {
            let index = *loop_of[component[step.0]].get_or_insert_with(|| {
                loops.push(Vec::new());
                loops.len() - 1
            });
            loops[index].push(step);
        }
        loops
    }

    fn ids(&self) -> impl Iterator<Item = StepId> + use<> {
        (0..self.steps.len()).map(StepId)
    }

    /// Marks the steps that a run may enter.
    fn reached_from_entry(&self) -> Vec<bool> {
        let mut reached = vec![false; self.steps.len()];
        let mut open = vec![self.entry];
        while let Some(step) = open.pop() {
            if !std::mem::replace(&mut reached[step.0], true) {
                open.extend(self.successors(step));
            }
        }
        reached
    }

    /// Returns the strongly connected component of each step: two steps are in one component if each leads to the other.
    ///
    /// Tarjan's algorithm, with a stack of its own in place of the thread's, since a chain may have any length. It takes
    /// time in proportion to the number of edges.
    fn components(&self) -> Vec<usize> {
        const UNVISITED: usize = usize::MAX;
        let count = self.steps.len();
        let (mut component, mut components) = (vec![UNVISITED; count], 0);
        // The order of the first visits, and the earliest visit that a step leads back to.
        let (mut visit, mut lowest, mut visits) = (vec![UNVISITED; count], vec![UNVISITED; count], 0);
        let mut open: Vec<usize> = Vec::new();
        for start in 0..count {
            let mut path: Vec<(usize, usize)> = Vec::new();
            let mut entered = (visit[start] == UNVISITED).then_some(start);
            loop {
                if let Some(step) = entered.take() {
                    (visit[step], lowest[step]) = (visits, visits);
                    visits += 1;
                    open.push(step);
                    path.push((step, 0));
                }
                let Some((step, edge)) = path.last_mut() else { break };
                let step = *step;
                if let Some(next) = self.successors(StepId(step)).nth(*edge) {
                    *edge += 1;
                    if visit[next.0] == UNVISITED {
                        entered = Some(next.0);
                    } else if component[next.0] == UNVISITED {
                        lowest[step] = lowest[step].min(visit[next.0]);
                    }
                    continue;
                }
                path.pop();
                if let Some((before, _)) = path.last() {
                    lowest[*before] = lowest[*before].min(lowest[step]);
                }
                if lowest[step] == visit[step] {
                    while let Some(member) = open.pop() {
                        component[member] = components;
                        if member == step {
                            break;
                        }
                    }
                    components += 1;
                }
            }
        }
        component
    }

    /// Returns the steps that may run after this one, also after its failure.
    fn successors(&self, step: StepId) -> impl Iterator<Item = StepId> {
        let StepEdges { next, on_error, .. } = self.edges(step);
        let next = next.iter().filter_map(|next| match next {
            Next::Step(step) => Some(*step),
            Next::End => None,
        });
        next.chain(*on_error)
    }

    fn edges(&self, step: StepId) -> &StepEdges {
        &self.steps[step.0]
    }
}

#[cfg(test)]
mod tests {
    use super::{Next, StepEdges, StepId, Topology, Violation};

    /// Makes a graph of steps without groups, which starts at step 0; `None` is the end.
    fn graph(steps: &[&[Option<usize>]]) -> Topology {
        let next = |to: &Option<usize>| to.map_or(Next::End, |to| Next::Step(StepId::new(to)));
        let edges = |to: &&[Option<usize>]| StepEdges { next: to.iter().map(next).collect(), on_error: None };
        Topology { entry: StepId::new(0), steps: steps.iter().map(edges).collect() }
    }

    #[test]
    fn only_the_head_of_an_unreachable_chain_is_reported() {
        let graph = graph(&[&[None], &[Some(2)], &[None]]);
        assert_eq!(graph.violations(), [Violation::Unreachable(StepId::new(1))]);
    }

    #[test]
    fn of_unreachable_steps_in_a_circle_the_first_is_reported() {
        let graph = graph(&[&[None], &[Some(2)], &[Some(1), None]]);
        assert_eq!(graph.violations(), [Violation::Unreachable(StepId::new(1))]);
    }

    #[test]
    fn an_endless_loop_is_reported_once_and_without_the_steps_before_it() {
        let graph = graph(&[&[Some(1)], &[Some(2)], &[Some(1)]]);
        assert_eq!(graph.violations(), [Violation::EndlessLoop(vec![StepId::new(1), StepId::new(2)])]);
    }

    #[test]
    fn every_component_of_unreachable_steps_has_one_head() {
        // 1 leads to the circle of 2 and 3; 4 and 5 are a circle of their own.
        let graph = graph(&[&[None], &[Some(2)], &[Some(3)], &[Some(2), None], &[Some(5)], &[Some(4), None]]);
        let heads = [1, 4].map(|step| Violation::Unreachable(StepId::new(step)));
        assert_eq!(graph.violations(), heads);
    }

    /// A rule that searches from each step would take minutes here.
    #[test]
    fn a_long_chain_and_a_long_loop_are_checked_in_linear_time() {
        let chain: Vec<[Option<usize>; 1]> = (1..=200_000).map(|next| [(next < 200_000).then_some(next)]).collect();
        let steps: Vec<&[Option<usize>]> = chain.iter().map(<[_; 1]>::as_slice).collect();
        assert_eq!(graph(&steps).violations(), []);
        let circle: Vec<[Option<usize>; 1]> = (1..=200_000).map(|next| [Some(next % 200_000)]).collect();
        let steps: Vec<&[Option<usize>]> = circle.iter().map(<[_; 1]>::as_slice).collect();
        assert_eq!(graph(&steps).violations(), [Violation::EndlessLoop((0..200_000).map(StepId::new).collect())]);
    }

    #[test]
    fn a_missing_edge_hides_no_other_mistake_but_loops() {
        let graph = graph(&[&[], &[Some(2)], &[Some(1)]]);
        let expected = [Violation::NoOutgoingEdge(StepId::new(0)), Violation::Unreachable(StepId::new(1))];
        assert_eq!(graph.violations(), expected);
    }
}
