//! [`EdgeSource`] and [`EdgeTarget`]: the ends of an edge, and the places [`START`], [`END`] and [`JOIN`].

use std::sync::Arc;

/// The place where every run begins: `add_edge(START, "MAIN")` is the same as `set_entry_point("MAIN")`.
///
/// In `graph!` it is a keyword and needs no import.
#[derive(Clone, Copy, Debug)]
pub struct START;

/// The place where a run ends: `add_edge("MAIN", END)`.
///
/// In `graph!` it is a keyword and needs no import.
#[derive(Clone, Copy, Debug)]
pub struct END;

/// The end of a branch of a group: `add_edge("CHECK", JOIN)`. The step after the group runs once, when its branches have
/// ended.
///
/// In `graph!` it is a keyword and needs no import.
#[derive(Clone, Copy, Debug)]
pub struct JOIN;

/// The source of an edge: the name of a node or group, or [`START`].
#[derive(Clone, Debug)]
pub struct EdgeSource(pub(super) Endpoint);

/// The target of an edge: the name of a node or group, [`END`], or in a branch [`JOIN`].
#[derive(Clone, Debug)]
pub struct EdgeTarget(pub(super) Endpoint);

/// One end of an edge.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    Step(Arc<str>),
    /// [`START`] for a source, [`END`] for a target.
    Boundary,
    /// [`JOIN`].
    Join,
    /// The end of the path, for `graph!`, which has checked it.
    End,
}

impl EdgeSource {
    pub(super) fn is_start(&self) -> bool {
        matches!(self.0, Endpoint::Boundary)
    }
}

impl EdgeTarget {
    pub(crate) fn end() -> Self {
        Self(Endpoint::End)
    }
}

macro_rules! endpoint {
    ($End:ident, $Boundary:ident) => {
        impl From<&str> for $End {
            fn from(name: &str) -> Self {
                Self(Endpoint::Step(name.into()))
            }
        }
        impl From<String> for $End {
            fn from(name: String) -> Self {
                Self(Endpoint::Step(name.into()))
            }
        }
        impl From<$Boundary> for $End {
            fn from(_: $Boundary) -> Self {
                Self(Endpoint::Boundary)
            }
        }
    };
}
endpoint!(EdgeSource, START);
endpoint!(EdgeTarget, END);

impl From<JOIN> for EdgeTarget {
    fn from(_: JOIN) -> Self {
        Self(Endpoint::Join)
    }
}
