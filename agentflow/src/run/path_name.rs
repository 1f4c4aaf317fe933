//! [`PathName`], [`NodeOnPath`], [`NodePath`] and [`NodeName`]: the names of nodes in events and errors.

use std::{
    fmt::Write,
    sync::{Arc, OnceLock},
};

/// The part that a path adds to the names of its nodes.
#[derive(Debug)]
pub(crate) enum PathName {
    /// The path is inside this node, which is a graph.
    Inside(NodeName),
    /// The path runs for an item of an `each`, on the path `outer`.
    Item { outer: Option<Arc<PathName>>, index: usize },
}

impl PathName {
    /// Returns the name of a node on the path: `SUBGRAPH/NODE[2][0]`. Without items it is `SUBGRAPH/NODE`.
    fn format(&self, node: &str, has_items: bool) -> String {
        let mut name = String::new();
        self.write_prefix(&mut name, has_items);
        name.push_str(node);
        if has_items {
            self.write_items(&mut name);
        }
        name
    }

    /// Returns the name of a node or an end on the path.
    pub(crate) fn of(&self, node: &str) -> String {
        self.format(node, true)
    }

    /// Returns the names of the graphs that the path is in, the outermost first.
    pub(crate) fn graphs(&self) -> Vec<Arc<str>> {
        match self {
            Self::Inside(NodeName { node, path }) => {
                let mut graphs = path.as_ref().map_or_else(Vec::new, |path| path.graphs());
                graphs.push(Arc::clone(node));
                graphs
            }
            Self::Item { outer, .. } => outer.as_ref().map_or_else(Vec::new, |outer| outer.graphs()),
        }
    }

    fn write_prefix(&self, name: &mut String, has_items: bool) {
        match self {
            Self::Inside(NodeName { node, path }) => {
                match path {
                    Some(path) => name.push_str(&path.format(node, has_items)),
                    None => name.push_str(node),
                }
                name.push('/');
            }
            Self::Item { outer: Some(outer), .. } => outer.write_prefix(name, has_items),
            Self::Item { outer: None, .. } => {}
        }
    }

    fn write_items(&self, name: &mut String) {
        if let Self::Item { outer, index } = self {
            if let Some(outer) = outer {
                outer.write_items(name);
            }
            // Writing to a `String` cannot fail.
            let _ = write!(name, "[{index}]");
        }
    }
}

/// The name of a node on its path, for longer than the path. It is formatted when it is asked for.
#[derive(Debug)]
pub(crate) struct NodeName {
    node: Arc<str>,
    path: Option<Arc<PathName>>,
}

impl NodeName {
    /// Creates a name that was formatted before.
    pub(crate) fn of(formatted: Arc<str>) -> Self {
        Self { node: formatted, path: None }
    }

    pub(crate) fn format(&self) -> Arc<str> {
        self.path.as_ref().map_or_else(|| Arc::clone(&self.node), |path| path.of(&self.node).into())
    }
}

/// A node on its path, of which names are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeOnPath<'a> {
    node: &'a Arc<str>,
    path: Option<&'a Arc<PathName>>,
    /// The index of the item for which the node runs, if the path is that of the group around it.
    item: Option<usize>,
}

impl<'a> NodeOnPath<'a> {
    #[inline]
    pub(crate) fn new(node: &'a Arc<str>, path: Option<&'a Arc<PathName>>, item: Option<usize>) -> Self {
        Self { node, path, item }
    }

    pub(crate) fn format(self) -> Arc<str> {
        self.to_owned().format()
    }

    /// Returns the name, for longer than the path.
    pub(crate) fn to_owned(self) -> NodeName {
        let outer = self.path.cloned();
        let path = match self.item {
            None => outer,
            Some(index) => Some(Arc::new(PathName::Item { outer, index })),
        };
        NodeName { node: Arc::clone(self.node), path }
    }

    /// Returns the name without the indexes of items, for metrics, whose labels have few values.
    #[cfg(feature = "metrics")]
    pub(crate) fn without_items(self) -> Arc<str> {
        self.path.map_or_else(|| Arc::clone(self.node), |path| path.format(self.node, false).into())
    }
}

/// The name of a node on its path. It is formatted when it is first asked for, which is never in most runs.
#[derive(Debug)]
pub(crate) struct NodePath<'a> {
    node: NodeOnPath<'a>,
    formatted: OnceLock<Arc<str>>,
}

impl<'a> NodePath<'a> {
    #[inline]
    pub(crate) fn new(node: NodeOnPath<'a>) -> Self {
        Self { node, formatted: OnceLock::new() }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        match self.node {
            NodeOnPath { node, path: None, item: None } => node,
            node => self.formatted.get_or_init(|| node.format()),
        }
    }

    pub(crate) fn node(&self) -> NodeOnPath<'a> {
        self.node
    }

    /// Returns the name, for longer than the path.
    pub(crate) fn to_owned(&self) -> NodeName {
        self.node.to_owned()
    }
}
