//! The rules of a graph, one function per rule. `graph!` has the same rules at compile time.

use std::{collections::HashMap, panic::Location, sync::Arc};

use super::{BuildError, Next, Problem, ProblemKind, StateGraph, builder::EdgeDeclaration};

/// What the rules found out on the way: the graph with names resolved.
pub(super) struct Wiring {
    pub(super) next: Vec<Next>,
    pub(super) entry: usize,
}

/// Checks every rule; a rule that needs what another one refused is left out, so that one mistake is one problem.
pub(super) fn validate<S, C>(graph: &StateGraph<S, C>) -> Result<Wiring, BuildError> {
    let mut problems = Problems::default();
    let nodes = Nodes::collect(graph, &mut problems);
    let edges = resolve(graph, &nodes, &mut problems);
    let entry = entry(graph, &nodes, &edges, &mut problems);
    let next = ways_on(&nodes, &edges, &mut problems);

    if let (true, Some(entry)) = (problems.0.is_empty(), entry) {
        no_way_on(&nodes, &next, &mut problems);
        unreachable(&nodes, &next, entry, &mut problems);
        if problems.0.is_empty() {
            endless_loop(&nodes, &next, entry, &mut problems);
        }
    }
    match (problems.0.is_empty(), entry) {
        (true, Some(entry)) => Ok(Wiring {
            // Rule `no_way_on` has seen to it that every node has one.
            next: next.into_iter().map(|next| next.unwrap_or(Next::End)).collect(),
            entry,
        }),
        _ => Err(problems.into_error()),
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, location: &'static Location<'static>, kind: ProblemKind) {
        self.0.push(Problem { kind, location });
    }

    fn into_error(mut self) -> BuildError {
        self.0
            .sort_by_key(|problem| (problem.location.file(), problem.location.line()));
        BuildError { problems: self.0 }
    }
}

/// The nodes by index and by name.
struct Nodes {
    names: Vec<Arc<str>>,
    locations: Vec<&'static Location<'static>>,
    index: HashMap<Arc<str>, usize>,
}

impl Nodes {
    fn collect<S, C>(graph: &StateGraph<S, C>, problems: &mut Problems) -> Self {
        let mut nodes = Self {
            names: Vec::new(),
            locations: Vec::new(),
            index: HashMap::new(),
        };
        if graph.nodes.is_empty() {
            problems.add(graph.created, ProblemKind::Empty);
        }
        for (index, declaration) in graph.nodes.iter().enumerate() {
            let name = &declaration.step.name;
            if nodes.index.contains_key(name) {
                problems.add(
                    declaration.location,
                    ProblemKind::DuplicateNode {
                        name: Arc::clone(name),
                    },
                );
            } else {
                nodes.index.insert(Arc::clone(name), index);
            }
            nodes.names.push(Arc::clone(name));
            nodes.locations.push(declaration.location);
        }
        nodes
    }

    fn find(
        &self,
        name: &Arc<str>,
        location: &'static Location<'static>,
        problems: &mut Problems,
    ) -> Option<usize> {
        let found = self.index.get(name).copied();
        // In a graph without nodes, that it has none is the mistake.
        if found.is_none() && !self.names.is_empty() {
            let suggestion = closest(name, &self.names);
            problems.add(
                location,
                ProblemKind::UnknownNode {
                    name: Arc::clone(name),
                    suggestion,
                },
            );
        }
        found
    }
}

fn closest(name: &str, names: &[Arc<str>]) -> Option<Arc<str>> {
    names
        .iter()
        .map(|known| {
            (
                strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase()),
                known,
            )
        })
        .filter(|(distance, known)| *distance <= known.len().max(name.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| Arc::clone(known))
}

/// An edge whose names are known; `None` is START or END.
struct Edge<'a> {
    from: Option<usize>,
    to: Option<usize>,
    declared: &'a EdgeDeclaration,
}

fn resolve<'a, S, C>(graph: &'a StateGraph<S, C>, nodes: &Nodes, problems: &mut Problems) -> Vec<Edge<'a>> {
    let mut edges = Vec::new();
    for declared in &graph.edges {
        let mut find = |name: &Option<Arc<str>>| match name {
            None => Some(None),
            Some(name) => nodes.find(name, declared.location, problems).map(Some),
        };
        let (from, to) = (find(&declared.from.0), find(&declared.to.0));
        if let (Some(from), Some(to)) = (from, to) {
            edges.push(Edge { from, to, declared });
        }
    }
    edges
}

fn entry<S, C>(
    graph: &StateGraph<S, C>,
    nodes: &Nodes,
    edges: &[Edge<'_>],
    problems: &mut Problems,
) -> Option<usize> {
    let mut entries: Vec<_> = edges.iter().filter(|edge| edge.from.is_none()).collect();
    // `START -> END` is no entry, as there is nothing to run: what is one comes first.
    entries.sort_by_key(|edge| edge.to.is_none());
    let mut entries = entries.into_iter();
    let first = entries.next().and_then(|edge| edge.to);
    if let Some(first) = first {
        for edge in entries {
            let second = edge
                .to
                .map_or_else(|| "END".into(), |second| Arc::clone(&nodes.names[second]));
            let first = Arc::clone(&nodes.names[first]);
            problems.add(edge.declared.location, ProblemKind::SecondEntry { first, second });
        }
    } else if let Some(candidate) = nodes.names.first()
        && !graph
            .edges
            .iter()
            .any(|edge| edge.from.0.is_none() && edge.to.0.is_some())
    {
        problems.add(
            graph.created,
            ProblemKind::NoEntry {
                candidate: Arc::clone(candidate),
            },
        );
    }
    first
}

fn ways_on(nodes: &Nodes, edges: &[Edge<'_>], problems: &mut Problems) -> Vec<Option<Next>> {
    let mut ways: Vec<Option<Next>> = vec![None; nodes.names.len()];
    let name = |next: Next| match next {
        Next::End => "END".into(),
        Next::To(index) => Arc::clone(&nodes.names[index]),
    };
    for edge in edges {
        let Some(from) = edge.from else { continue };
        let next = edge.to.map_or(Next::End, Next::To);
        let (from_name, to) = (Arc::clone(&nodes.names[from]), name(next));
        match ways[from] {
            None => ways[from] = Some(next),
            Some(first) if first == next => {
                problems.add(
                    edge.declared.location,
                    ProblemKind::DuplicateEdge { from: from_name, to },
                );
            }
            Some(first) => problems.add(
                edge.declared.location,
                ProblemKind::SecondWayOn {
                    from: from_name,
                    first: name(first),
                    second: to,
                },
            ),
        }
    }
    ways
}

fn no_way_on(nodes: &Nodes, next: &[Option<Next>], problems: &mut Problems) {
    for (index, next) in next.iter().enumerate() {
        if next.is_none() {
            let node = Arc::clone(&nodes.names[index]);
            problems.add(nodes.locations[index], ProblemKind::NoWayOn { node });
        }
    }
}

fn unreachable(nodes: &Nodes, next: &[Option<Next>], entry: usize, problems: &mut Problems) {
    let reached = reached(next, entry);
    for (index, reached) in reached.iter().enumerate() {
        if !reached {
            let (node, entry) = (Arc::clone(&nodes.names[index]), Arc::clone(&nodes.names[entry]));
            problems.add(nodes.locations[index], ProblemKind::Unreachable { node, entry });
        }
    }
}

fn endless_loop(nodes: &Nodes, next: &[Option<Next>], entry: usize, problems: &mut Problems) {
    let mut path = vec![entry];
    let mut at = entry;
    while let Some(Next::To(to)) = next[at] {
        if let Some(start) = path.iter().position(|node| *node == to) {
            let looping = path[start..]
                .iter()
                .map(|node| Arc::clone(&nodes.names[*node]))
                .collect();
            problems.add(nodes.locations[to], ProblemKind::EndlessLoop { nodes: looping });
            return;
        }
        path.push(to);
        at = to;
    }
}

fn reached(next: &[Option<Next>], entry: usize) -> Vec<bool> {
    let mut reached = vec![false; next.len()];
    let mut at = Some(entry);
    while let Some(index) = at {
        if std::mem::replace(&mut reached[index], true) {
            break;
        }
        at = match next[index] {
            Some(Next::To(to)) => Some(to),
            Some(Next::End) | None => None,
        };
    }
    reached
}
