//! [`BuildError`]: every mistake of a hand-built graph, in one go.

use std::{fmt, panic::Location, sync::Arc};

/// The graph cannot run as it is wired; lists **all** that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError {
    pub(crate) problems: Vec<BuildProblem>,
}

impl BuildError {
    /// What is wrong, in the order of the calls that are to be mended. Never empty.
    #[must_use]
    pub fn problems(&self) -> &[BuildProblem] {
        &self.problems
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("the graph cannot be compiled:")?,
            n => write!(f, "the graph cannot be compiled, {n} problems:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for BuildError {}

/// One mistake, and the call that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildProblem {
    /// What is wrong.
    pub kind: BuildProblemKind,
    /// The call to look at.
    pub location: &'static Location<'static>,
}

impl fmt::Display for BuildProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.kind, self.location.file(), self.location.line())
    }
}

/// What can be wrong with a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildProblemKind {
    /// There is no node at all.
    #[error("a graph needs at least one node: `add_node(\"MAIN\", main_node {{}})`")]
    Empty,
    /// A node's name is empty, or has a slash.
    #[error("`{name}` is no name for a node: it has at least one character, and no `/`, which leads into a subgraph")]
    BadName {
        /// The name.
        name: Arc<str>,
    },
    /// Two nodes have one name.
    #[error("two nodes are named `{name}`")]
    DuplicateNode {
        /// The name.
        name: Arc<str>,
    },
    /// An edge or the entry names a node that was not added.
    #[error("there is no node `{name}`{}", did_you_mean(.name, .suggestion.as_ref()))]
    UnknownNode {
        /// The name as it was written.
        name: Arc<str>,
        /// The node that was probably meant.
        suggestion: Option<Arc<str>>,
    },
    /// Nothing says where a run begins.
    #[error("nothing says where the graph starts: `set_entry_point(\"{candidate}\")`")]
    NoEntry {
        /// The node that was added first.
        candidate: Arc<str>,
    },
    /// Two calls say where a run begins.
    #[error("the graph starts at `{first}` already: it cannot start at `{second}` as well")]
    SecondEntry {
        /// The entry that counts.
        first: Arc<str>,
        /// The one too many.
        second: Arc<str>,
    },
    /// The same edge was added twice.
    #[error("duplicate edge `{from} -> {to}`")]
    DuplicateEdge {
        /// Where the edge begins.
        from: Arc<str>,
        /// Where it ends.
        to: Arc<str>,
    },
    /// A node has two ways on.
    #[error("`{from}` has two ways on, `{first}` and `{second}`; a node has one: make them a group or a decision")]
    SecondWayOn {
        /// The node.
        from: Arc<str>,
        /// Where the first edge leads.
        first: Arc<str>,
        /// Where the other leads.
        second: Arc<str>,
    },
    /// No path from the entry leads to the node.
    #[error("node `{node}` can never run: no path leads to it from `{entry}`")]
    Unreachable {
        /// The node.
        node: Arc<str>,
        /// Where the graph starts.
        entry: Arc<str>,
    },
    /// Nothing follows the node.
    #[error("node `{node}` has no way on; end the graph with `add_edge(\"{node}\", END)`")]
    NoWayOn {
        /// The node.
        node: Arc<str>,
    },
    /// A decision has two arms for one route: the second would never be taken.
    #[error("the decision after `{from}` has two arms for `{route}`")]
    DuplicateArm {
        /// The node or group that the decision follows.
        from: Arc<str>,
        /// The route.
        route: Arc<str>,
    },
    /// A group is in a group that is in it.
    #[error("group `{group}` is inside itself")]
    GroupInItself {
        /// The group.
        group: Arc<str>,
    },
    /// A group has no branches, or one without a node.
    #[error("group `{group}` has an empty branch, or none at all")]
    EmptyGroup {
        /// The group.
        group: Arc<str>,
    },
    /// A node in a group may change the state in place.
    #[error("node `{node}` is in group `{group}`, where nodes only read: add it with `add_parallel_node`")]
    NotParallel {
        /// The node.
        node: Arc<str>,
        /// The group.
        group: Arc<str>,
    },
    /// A node was added for a group and is in none.
    #[error("node `{node}` was added with `add_parallel_node` but is in no group; add it with `add_node`")]
    NotInGroup {
        /// The node.
        node: Arc<str>,
    },
    /// A node is in two branches, or twice in one.
    #[error("node `{node}` has two places, one of them in group `{group}`; add it twice, under two names")]
    TwoPlaces {
        /// The node.
        node: Arc<str>,
        /// The group.
        group: Arc<str>,
    },
    /// A node in a group has an edge, a decision or a fallback, or is where one leads.
    #[error("node `{node}` runs in group `{group}`, so it has no edges of its own; what follows the group follows it")]
    EdgeOfBranch {
        /// The node.
        node: Arc<str>,
        /// The group.
        group: Arc<str>,
    },
    /// A group has a node's options.
    #[error("`{group}` is a group: options belong to nodes")]
    OptionsOfGroup {
        /// The group.
        group: Arc<str>,
    },
    /// A loop without a way out.
    #[error("{} for ever: no path leads from there to END", loops(.nodes))]
    EndlessLoop {
        /// The nodes of the loop.
        nodes: Vec<Arc<str>>,
    },
}

fn did_you_mean(name: &str, suggestion: Option<&Arc<str>>) -> String {
    if name == "START" || name == "END" {
        return format!("; did you mean the constant `{name}`, without quotes?");
    }
    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn loops(nodes: &[Arc<str>]) -> String {
    match nodes {
        [node] => format!("node `{node}` loops"),
        nodes => {
            let names: Vec<_> = nodes.iter().map(|node| format!("`{node}`")).collect();
            format!("nodes {} loop", names.join(", "))
        }
    }
}
