//! [`BuildError`]: all problems of a graph that was built call by call.

use std::{fmt, panic::Location, sync::Arc};

/// The error of [`StateGraph::compile`](super::StateGraph::compile): lists **every** problem of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError {
    pub(crate) problems: Vec<BuildProblem>,
}

impl BuildError {
    /// Returns the problems, in the order of the calls that caused them. The list is never empty.
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

/// A problem of a graph, with the call that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildProblem {
    /// The problem.
    pub kind: BuildProblemKind,
    /// The call that caused it.
    pub location: &'static Location<'static>,
}

impl fmt::Display for BuildProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.kind, self.location.file(), self.location.line())
    }
}

/// A kind of problem of a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildProblemKind {
    /// The graph has no nodes.
    #[error("a graph needs at least one node: `add_node(\"MAIN\", main_node {{}})`")]
    Empty,
    /// A graph with a store has no name.
    #[error(
        "a graph with a store has a name, under which the store keeps its threads; set one with `set_name(\"support\")`"
    )]
    StoreWithoutName,
    /// A node's name is blank, has a control character, or contains a slash.
    #[error(
        "`{name}` is not a valid node name: a name has at least one character and no `/`, which separates a subgraph from its nodes", name = name.escape_debug()
    )]
    BadName {
        /// The name.
        name: Arc<str>,
    },
    /// A node has the name of [`START`](super::START), [`END`](super::END) or [`JOIN`](super::JOIN).
    #[error("`{name}` is reserved: give the node another name")]
    ReservedName {
        /// The name.
        name: Arc<str>,
    },
    /// Two nodes have the same name.
    #[error("two nodes are named `{name}`")]
    DuplicateNode {
        /// The name.
        name: Arc<str>,
    },
    /// A name refers to a node that was not added.
    #[error("there is no node `{name}`{}", did_you_mean(.name, .suggestion.as_ref()))]
    UnknownNode {
        /// The name as it was written.
        name: Arc<str>,
        /// The node with the closest name, if there is a close one.
        suggestion: Option<Arc<str>>,
    },
    /// The graph has no entry.
    #[error("the graph has no entry point; set one with `set_entry_point(\"{candidate}\")`")]
    NoEntry {
        /// The node that was added first.
        candidate: Arc<str>,
    },
    /// The graph has two entries.
    #[error("the graph starts at `{first}` already; it cannot start at `{second}` as well")]
    SecondEntry {
        /// The entry that was set first.
        first: Arc<str>,
        /// The other one.
        second: Arc<str>,
    },
    /// The same edge was added twice.
    #[error("duplicate edge `{from} -> {to}`")]
    DuplicateEdge {
        /// The source of the edge.
        from: Arc<str>,
        /// Its target.
        to: Arc<str>,
    },
    /// A node has two outgoing edges.
    #[error(
        "`{from}` has two outgoing edges, `{first}` and `{second}`; a node has one: make them a group or a decision"
    )]
    SecondOutgoingEdge {
        /// The node.
        from: Arc<str>,
        /// The target of the first edge.
        first: Arc<str>,
        /// The target of the other edge.
        second: Arc<str>,
    },
    /// No path leads from the entry to the node. Of a chain of unreachable nodes only the first is reported.
    #[error("node `{node}` can never run: no path leads to it from `{entry}`")]
    Unreachable {
        /// The node.
        node: Arc<str>,
        /// The entry of the graph.
        entry: Arc<str>,
    },
    /// Nothing follows the node.
    #[error("node `{node}` has no outgoing edge; end the graph with `add_edge(\"{node}\", {end})`")]
    NoOutgoingEdge {
        /// The node.
        node: Arc<str>,
        /// The end of the path that the node is on: `END`, or `JOIN` in a branch.
        end: &'static str,
    },
    /// A decision has two arms with the same route, so the second is never taken.
    #[error("the decision after `{from}` has two arms for `{route}`")]
    DuplicateArm {
        /// The node or group before the decision.
        from: Arc<str>,
        /// The route.
        route: Arc<str>,
    },
    /// A node is its own fallback.
    #[error("`{node}` cannot be its own fallback: name another node in `on_error`, or run it again with `retry`")]
    OwnFallback {
        /// The node.
        node: Arc<str>,
    },
    /// A group contains itself, directly or through other groups.
    #[error("group `{group}` is inside itself")]
    GroupInItself {
        /// The group.
        group: Arc<str>,
    },
    /// A group has no branches, or a branch without nodes.
    #[error("group `{group}` has no branches, or an empty one")]
    EmptyGroup {
        /// The group.
        group: Arc<str>,
    },
    /// A node in a group may mutate the state.
    #[error("node `{node}` is in group `{group}`, where nodes only read the state; add it with `add_parallel_node`")]
    NotParallel {
        /// The node.
        node: Arc<str>,
        /// The group.
        group: Arc<str>,
    },
    /// A parallel node is in no group.
    #[error("node `{node}` was added with `add_parallel_node` but is in no group; add it with `add_node`")]
    NotInGroup {
        /// The node.
        node: Arc<str>,
    },
    /// A node is in two branches, or twice in one branch.
    #[error("node `{node}` is used twice, once in group `{group}`; add it a second time under another name")]
    TwoPlaces {
        /// The node.
        node: Arc<str>,
        /// The group.
        group: Arc<str>,
    },
    /// An edge, a decision or a fallback leads into a branch of a group or out of it.
    #[error(
        "node `{node}` runs in a branch of group `{group}`, so edges connect it with nodes of the same branch and with `JOIN` \
         only; add other edges to the group"
    )]
    EdgeOfBranch {
        /// The node in the branch.
        node: Arc<str>,
        /// The group.
        group: Arc<str>,
    },
    /// An edge leads to [`JOIN`](super::JOIN) from a node that is in no group.
    #[error(
        "`JOIN` is the end of a branch, and `{node}` is in no group; end the graph with `add_edge(\"{node}\", END)`"
    )]
    JoinOutsideGroup {
        /// The node.
        node: Arc<str>,
    },
    /// A node is a compiled graph with an option that has no effect inside another graph.
    #[error(
        "node `{node}` was compiled with `{option}`, which has no effect inside another graph: compile it without, and set the option of the outer graph"
    )]
    OuterOption {
        /// The node.
        node: Arc<str>,
        /// The name of the option.
        option: &'static str,
    },
    /// A node in a branch of an `any` asks a question, which would end the run while another branch may still win.
    #[error(
        "node `{node}` asks a question, and `{group}` goes on with the first branch that succeeds: ask before it, or after it"
    )]
    QuestionInAny {
        /// The node, or the graph that contains it.
        node: Arc<str>,
        /// The `any`.
        group: Arc<str>,
    },
    /// More graphs and groups are inside each other than a thread's stack may hold.
    #[error(
        "graphs and groups are {levels} deep at `{node}`, and at most {max} fit on a thread's stack; let a node spawn a task that invokes the inner graph"
    )]
    TooDeep {
        /// The node or group.
        node: Arc<str>,
        /// The number of graphs and groups that are inside each other there.
        levels: usize,
        /// The maximum.
        max: usize,
    },
    /// A retry or a timeout was set for a group.
    #[error("`{group}` is a group: it has `on_error` and `label`, and its nodes have the other options")]
    OptionsOfGroup {
        /// The group.
        group: Arc<str>,
    },
    /// Two durable tasks have the same name.
    #[error("two durable tasks are named `{name}`: give one of them another name, `#[task(name = \"..\")]`")]
    DuplicateTask {
        /// The name.
        name: Arc<str>,
    },
    /// A node spawns a durable task that the graph does not register.
    #[error(
        "node `{node}` spawns the durable task `{task}`, which the graph does not register: add it with `add_task`, or in `graph!` with `tasks {{ .. }}`"
    )]
    UnregisteredTask {
        /// The node.
        node: Arc<str>,
        /// The name of the task.
        task: Arc<str>,
    },
    /// A loop has no path to [`END`](super::END), or to the end of its branch.
    #[error("{}", endless_loop(.nodes, .end))]
    EndlessLoop {
        /// The nodes of the loop.
        nodes: Vec<Arc<str>>,
        /// The end of the path that they are on: `END`, or `JOIN` in a branch.
        end: &'static str,
    },
    /// An edge carries a value, and the node that it leads to takes another one, or none.
    #[error("the edge from `{from}` to `{to}` carries `{carried}`, and the node takes {}", input(*.taken))]
    WrongInput {
        /// The source of the edge.
        from: Arc<str>,
        /// The node.
        to: Arc<str>,
        /// The type of the value.
        carried: &'static str,
        /// The type of the node's input; `None` if it takes none.
        taken: Option<&'static str>,
    },
    /// A node takes an input, and an edge that leads to it carries no value.
    #[error("node `{to}` takes `{taken}` as input, and the edge from `{from}` carries nothing")]
    NoInput {
        /// The source of the edge, or `START`.
        from: Arc<str>,
        /// The node.
        to: Arc<str>,
        /// The type of the node's input.
        taken: &'static str,
    },
}

fn did_you_mean(name: &str, suggestion: Option<&Arc<str>>) -> String {
    if matches!(name, "START" | "END" | "JOIN") {
        return format!("; did you mean the constant `{name}`, without quotes?");
    }
    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn input(taken: Option<&'static str>) -> String {
    taken.map_or_else(|| "no input".to_owned(), |taken| format!("`{taken}`"))
}

fn endless_loop(nodes: &[Arc<str>], end: &str) -> String {
    let names: Vec<_> = nodes.iter().map(|node| format!("`{node}`")).collect();
    let (subject, pronoun) = match &names[..] {
        [name] => (format!("node {name} loops"), "it"),
        names => (format!("nodes {} loop", names.join(", ")), "them"),
    };
    format!("{subject} forever: no path leads from {pronoun} to `{end}`")
}
