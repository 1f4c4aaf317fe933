//! [`Topology`]: the shape of a graph, and the rules that it must follow.
//!
//! `StateGraph` and `graph!` share this file (the macro crate has a symbolic link to it), so that both report the same
//! mistakes. It depends on nothing but `std`.

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
    End,
}

/// The edges between the steps of a graph, without names or code.
pub(crate) struct Topology {
    pub(crate) entry: StepId,
    pub(crate) steps: Vec<StepEdges>,
}

/// The edges of one step.
pub(crate) struct StepEdges {
    /// A step inside a group has no edges of its own: its group connects it to the rest of the graph.
    pub(crate) is_in_group: bool,
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

impl Topology {
    /// Checks all rules. Endless loops are reported only where no other rule is broken, because a missing edge makes
    /// loops that its repair removes.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut violations: Vec<_> = self.without_outgoing_edge().map(Violation::NoOutgoingEdge).collect();
        violations.extend(self.unreachable().into_iter().map(Violation::Unreachable));
        if violations.is_empty() {
            violations.extend(self.endless_loops().into_iter().map(Violation::EndlessLoop));
        }
        violations
    }

    fn without_outgoing_edge(&self) -> impl Iterator<Item = StepId> {
        self.outside_groups().filter(|step| self.edges(*step).next.is_empty())
    }

    /// Returns the unreachable steps that lead to all other unreachable ones: an edge to each of these repairs the graph.
    fn unreachable(&self) -> Vec<StepId> {
        let mut reached = self.reached_from(self.entry);
        let unreached: Vec<_> = self.outside_groups().filter(|step| !reached[step.0]).collect();
        let reach_of: Vec<_> = unreached.iter().map(|step| (*step, self.reached_from(*step))).collect();
        let mut heads = Vec::new();
        for (step, from_here) in &reach_of {
            let is_led_to = reach_of.iter().any(|(other, from_other)| from_other[step.0] && !from_here[other.0]);
            // Of several unreached steps that lead to each other, the first one stands for all of them.
            if !reached[step.0] && !is_led_to {
                for (reached, from_here) in reached.iter_mut().zip(from_here) {
                    *reached |= from_here;
                }
                heads.push(*step);
            }
        }
        heads
    }

    /// Returns the loops without a path to the end, each once.
    fn endless_loops(&self) -> Vec<Vec<StepId>> {
        let mut loops: Vec<Vec<StepId>> = Vec::new();
        for step in self.outside_groups() {
            let reached = self.reached_from(step);
            let steps: Vec<_> = self.outside_groups().filter(|at| reached[at.0]).collect();
            let reaches_end = steps.iter().any(|at| self.edges(*at).next.contains(&Next::End));
            let is_reported = loops.iter().any(|reported| reported.contains(&step));
            // Steps that lead into a loop are no part of it: every step of a loop leads back to every other one.
            if !reaches_end && !is_reported && steps.iter().all(|at| self.reached_from(*at)[step.0]) {
                loops.push(steps);
            }
        }
        loops
    }

    fn outside_groups(&self) -> impl Iterator<Item = StepId> {
        (0..self.steps.len()).map(StepId).filter(|step| !self.edges(*step).is_in_group)
    }

    /// Marks the steps that a run may enter once it is at `start`, which is one of them.
    fn reached_from(&self, start: StepId) -> Vec<bool> {
        let mut reached = vec![false; self.steps.len()];
        let mut open = vec![start];
        while let Some(step) = open.pop() {
            if !std::mem::replace(&mut reached[step.0], true) {
                let StepEdges { next, on_error, .. } = self.edges(step);
                open.extend(on_error);
                open.extend(next.iter().filter_map(|next| match next {
                    Next::Step(step) => Some(*step),
                    Next::End => None,
                }));
            }
        }
        reached
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
        let edges = |to: &&[Option<usize>]| StepEdges {
            is_in_group: false,
            next: to.iter().map(next).collect(),
            on_error: None,
        };
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
    fn a_missing_edge_hides_no_other_mistake_but_loops() {
        let graph = graph(&[&[], &[Some(2)], &[Some(1)]]);
        let expected = [Violation::NoOutgoingEdge(StepId::new(0)), Violation::Unreachable(StepId::new(1))];
        assert_eq!(graph.violations(), expected);
    }
}
