//! [`Outline`]: the parts of a graph that a picture shows.

use std::sync::Arc;

use super::topology::{Next, StepId};

/// The parts of a graph that a picture shows.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Outline {
    pub(super) name: Arc<str>,
    pub(super) steps: Vec<OutlineStep>,
    pub(super) entry: StepId,
}

#[derive(Clone, Debug)]
pub(super) struct OutlineStep {
    /// The name in the events of a run.
    #[cfg_attr(not(feature = "svg"), expect(dead_code, reason = "other pictures show the label only"))]
    pub(super) name: Arc<str>,
    pub(super) label: String,
    pub(super) inside: Inside,
    pub(super) edges: Vec<Edge>,
    pub(super) on_error: Option<StepId>,
}

/// An outgoing edge of a step.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    /// The pattern of the arm, for an edge of a decision.
    pub(crate) label: Option<Arc<str>>,
    pub(crate) to: Next,
}

/// The contents of a step's box.
#[derive(Clone, Debug)]
pub(super) enum Inside {
    Nothing,
    Branches(Vec<Vec<StepId>>),
    Graph(Outline),
}

impl Outline {
    /// Returns the number of nodes, including those of nested graphs.
    pub(crate) fn nodes(&self) -> usize {
        let of_step = |step: &OutlineStep| match &step.inside {
            Inside::Nothing => 1,
            Inside::Branches(_) => 0,
            Inside::Graph(inner) => 1 + inner.nodes(),
        };
        self.steps.iter().map(of_step).sum()
    }

    pub(super) fn step(&self, step: StepId) -> &OutlineStep {
        &self.steps[step.index()]
    }

    /// Returns all steps with their ids.
    pub(super) fn all_steps(&self) -> impl Iterator<Item = (StepId, &OutlineStep)> {
        self.steps.iter().enumerate().map(|(index, step)| (StepId::new(index), step))
    }

    /// Returns the steps that are in no group.
    pub(super) fn outside_groups(&self) -> impl Iterator<Item = StepId> {
        let mut is_in_group = vec![false; self.steps.len()];
        for step in &self.steps {
            if let Inside::Branches(branches) = &step.inside {
                for member in branches.iter().flatten() {
                    is_in_group[member.index()] = true;
                }
            }
        }
        (0..self.steps.len()).filter(move |step| !is_in_group[*step]).map(StepId::new)
    }
}

/// Returns the characters of a label as a picture shows them: each kind of line break as `\n`, and the
/// other characters that are invalid in SVG as symbols.
pub(super) fn visible(text: &str) -> impl Iterator<Item = char> {
    let mut characters = text.chars().peekable();
    std::iter::from_fn(move || {
        Some(match characters.next()? {
            '\r' => {
                characters.next_if_eq(&'\n');
                '\n'
            }
            '\n' => '\n',
            '\u{7f}' => '\u{2421}',
            '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
            // U+2400 to U+2420 are the symbols of these characters, in the same order.
            control @ ..' ' => char::from_u32(0x2400 + u32::from(control)).unwrap_or(control),
            character => character,
        })
    })
}

/// Writes one indented line. The result is ignored because writing to a `String` cannot fail.
macro_rules! line {
    ($self:ident, $depth:expr, $($text:tt)*) => {{
        for _ in 0..$depth {
            $self.text.push_str("    ");
        }
        let _ = writeln!($self.text, $($text)*);
    }};
}
pub(super) use line;
