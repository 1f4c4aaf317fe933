//! [`PathName`], [`NodePath`] and [`NodeName`]: the names of nodes in events and errors.

use std::{
    fmt::Write,
    sync::{Arc, OnceLock},
};

/// The parts that a path adds to the names of its nodes: the subgraphs that it is in, and the index of its item in each
/// `each`.
#[derive(Debug)]
pub(crate) struct PathName {
    /// The name of the subgraph, with those around it.
    subgraph: Option<Arc<str>>,
    /// The path around the item, if that path is one of an item too.
    outer: Option<Arc<PathName>>,
    item: Option<usize>,
}

impl PathName {
    /// Names the path inside the subgraph `path`.
    pub(crate) fn inside(path: Arc<str>) -> Arc<Self> {
        Arc::new(Self { subgraph: Some(path), outer: None, item: None })
    }

    /// Names the path of an item, in the branch of an `each` on the path `outer`.
    pub(crate) fn item(outer: Option<&Arc<Self>>, index: usize) -> Arc<Self> {
        let subgraph = outer.and_then(|outer| outer.subgraph.clone());
        let outer = outer.filter(|outer| outer.item.is_some()).cloned();
        Arc::new(Self { subgraph, outer, item: Some(index) })
    }

    /// Returns the name of a node on the path: `SUBGRAPH/NODE[2][0]`.
    pub(crate) fn of(&self, node: &str) -> String {
        let mut name = self.without_items(node);
        self.write_items(&mut name);
        name
    }

    fn without_items(&self, node: &str) -> String {
        match &self.subgraph {
            Some(subgraph) => format!("{subgraph}/{node}"),
            None => node.to_owned(),
        }
    }

    fn write_items(&self, name: &mut String) {
        if let Some(outer) = &self.outer {
            outer.write_items(name);
        }
        if let Some(item) = self.item {
            // Writing to a `String` cannot fail.
            let _ = write!(name, "[{item}]");
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
    pub(crate) fn format(&self) -> Arc<str> {
        name_on(self.path.as_ref(), &self.node)
    }
}

fn name_on(path: Option<&Arc<PathName>>, node: &Arc<str>) -> Arc<str> {
    path.map_or_else(|| Arc::clone(node), |path| path.of(node).into())
}

/// The name of a node on its path. It is formatted when it is first asked for, which is never in most runs.
#[derive(Debug)]
pub(crate) struct NodePath<'a> {
    node: &'a Arc<str>,
    path: Option<&'a Arc<PathName>>,
    formatted: OnceLock<Arc<str>>,
}

impl<'a> NodePath<'a> {
    #[inline]
    pub(crate) fn new(node: &'a Arc<str>, path: Option<&'a Arc<PathName>>) -> Self {
        Self { node, path, formatted: OnceLock::new() }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        match self.path {
            None => self.node,
            Some(_) => self.formatted.get_or_init(|| name_on(self.path, self.node)),
        }
    }

    /// Returns the name, for longer than the path.
    pub(crate) fn to_owned(&self) -> NodeName {
        NodeName { node: Arc::clone(self.node), path: self.path.cloned() }
    }

    /// Returns the name without the indexes of items, for metrics, whose labels have few values.
    #[cfg(feature = "metrics")]
    pub(crate) fn without_items(&self) -> Arc<str> {
        self.path.map_or_else(|| Arc::clone(self.node), |path| path.without_items(self.node).into())
    }
}
