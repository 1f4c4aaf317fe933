//! Graphs as SVG documents.

use std::{collections::BTreeMap, fmt};

use agentflow::{AgentState, CompileOptions, CompiledGraph, END, NodeOptions, StateGraph, graph, node};
use proptest::prelude::*;
use roxmltree::{Document, Node};

#[node]
async fn step(_state: &mut AgentState) {}

#[node]
async fn look(_state: &AgentState) {}

#[node]
async fn recover(_state: &mut AgentState) {}

/// A rectangle in the coordinates of the document.
#[derive(Clone, Copy, Debug)]
struct Rect {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Rect {
    fn contains(self, other: Self) -> bool {
        self.left <= other.left && self.top <= other.top && other.right <= self.right && other.bottom <= self.bottom
    }

    fn overlaps(self, other: Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }
}

#[derive(Debug)]
struct DrawnNode {
    name: String,
    /// The name of the box around it, empty outside of all boxes.
    parent: String,
    rect: Rect,
}

/// The parts of a picture, as a page finds them.
#[derive(Debug)]
struct Picture {
    whole: Rect,
    nodes: Vec<DrawnNode>,
    /// The names of both ends of each edge, and its label.
    edges: Vec<[String; 3]>,
    /// The label or title of each node.
    labels: BTreeMap<String, String>,
}

fn number(element: Node<'_, '_>, attribute: &str) -> f64 {
    element.attribute(attribute).unwrap().parse().unwrap()
}

/// Returns the sum of all translations that apply to the element.
fn origin(element: Node<'_, '_>) -> (f64, f64) {
    element.ancestors().filter_map(|ancestor| ancestor.attribute("transform")).fold((0.0, 0.0), |(x, y), transform| {
        let numbers = transform.strip_prefix("translate(").and_then(|rest| rest.strip_suffix(')')).unwrap();
        let (dx, dy) = numbers.split_once(' ').unwrap();
        (x + dx.parse::<f64>().unwrap(), y + dy.parse::<f64>().unwrap())
    })
}

fn rect_of(element: Node<'_, '_>) -> Rect {
    let rect = element.children().find(|child| child.has_tag_name(TAG_RECT)).unwrap();
    let (left, top) = origin(rect);
    Rect { left, top, right: left + number(rect, "width"), bottom: top + number(rect, "height") }
}

const SVG: &str = "http://www.w3.org/2000/svg";
const TAG_RECT: (&str, &str) = (SVG, "rect");

/// Returns the lines of text directly in the element, joined.
fn text_of(element: Node<'_, '_>) -> String {
    let texts = element.children().filter(|child| child.has_tag_name((SVG, "text")));
    texts.map(|text| text.text().unwrap_or_default().to_owned()).collect()
}

fn read(svg: &str) -> Picture {
    let document = Document::parse(svg).unwrap();
    let root = document.root_element();
    assert!(root.has_tag_name((SVG, "svg")));
    let mut picture = Picture { whole: rect_of(root), nodes: vec![], edges: vec![], labels: BTreeMap::new() };
    for element in root.descendants() {
        if let Some(name) = element.attribute("data-node") {
            let parent = element.ancestors().skip(1).find_map(|ancestor| ancestor.attribute("data-node"));
            picture.nodes.push(DrawnNode {
                name: name.to_owned(),
                parent: parent.unwrap_or_default().to_owned(),
                rect: rect_of(element),
            });
            picture.labels.insert(name.to_owned(), text_of(element));
        }
        if let (Some(from), Some(to)) = (element.attribute("data-from"), element.attribute("data-to")) {
            assert_eq!(element.children().filter(|child| child.has_tag_name((SVG, "path"))).count(), 2);
            picture.edges.push([from.to_owned(), to.to_owned(), text_of(element)]);
        }
    }
    picture
}

impl Picture {
    /// Checks that no box covers another one, and that each is inside the box around it.
    fn check_boxes(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let parent = self.nodes.iter().find(|parent| parent.name == node.parent);
            let around = parent.map_or(self.whole, |parent| parent.rect);
            assert!(around.contains(node.rect), "{node:?} is outside of {around:?}");
            for other in self.nodes[..index].iter().filter(|other| other.parent == node.parent) {
                assert!(!node.rect.overlaps(other.rect), "{node:?} and {other:?}");
            }
        }
    }

    fn names(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| &*node.name).collect()
    }
}

#[test]
fn nodes_and_edges_have_the_names_of_events() {
    let app: CompiledGraph<AgentState> = graph! {
        node A = step { on_error: recover };
        node B = look;
        node C = look { label: "see" };
        graph SUB { node D = step; D -> END }
        A -> { B -> C, E } -> SUB -> match |_: &AgentState| true { true => A, false => END };
        node E = look;
        recover -> END
    };
    let picture = read(&app.svg());
    picture.check_boxes();
    let mut names = picture.names();
    names.sort_unstable();
    let group = "{B, E}";
    assert_eq!(names, ["A", "B", "C", "E", "END", "START", "SUB", "SUB/D", "SUB/END", "SUB/START", "recover", group]);
    let parent = |name: &str| picture.nodes.iter().find(|node| node.name == name).map(|node| &*node.parent);
    assert_eq!([parent("A"), parent("C"), parent("SUB/D")], [Some(""), Some(group), Some("SUB")]);
    assert_eq!(picture.labels["C"], "see");
    let mut edges: Vec<_> = picture.edges.iter().map(|edge| edge.each_ref().map(String::as_str)).collect();
    edges.sort_unstable();
    assert_eq!(
        edges,
        [
            ["A", "recover", "on error"],
            ["A", group, ""],
            ["B", "C", ""],
            ["START", "A", ""],
            ["SUB", "A", "true"],
            ["SUB", "END", "false"],
            ["SUB/D", "SUB/END", ""],
            ["SUB/START", "SUB/D", ""],
            ["recover", "END", ""],
            [group, "SUB", ""],
        ]
    );
}

/// A route whose label in a picture is the text.
#[derive(Clone, PartialEq)]
struct Named(String);

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The edges of a random graph: for each node the targets of its arms, and maybe its fallback. The number of nodes stands
/// for `END`.
#[derive(Clone, Debug)]
struct Shape {
    nodes: Vec<(Vec<usize>, Option<usize>)>,
    /// The nodes that are graphs.
    nested: Vec<(usize, Shape)>,
    label: String,
}

/// Texts with the characters that are hard to write in XML, and any others.
fn text() -> impl Strategy<Value = String> {
    let hard = prop::sample::select(&['<', '>', '&', '"', '\'', ' ', '\n', '\r', '\0', '\u{7f}', '\u{fffe}', ']'][..]);
    prop::collection::vec(prop_oneof![hard, any::<char>(), prop::char::range('a', 'z')], 0..80)
        .prop_map(|characters| characters.into_iter().collect())
}

fn shape(depth: u32) -> BoxedStrategy<Shape> {
    let nodes = (1..10_usize).prop_flat_map(|count| {
        let node = (prop::collection::vec(0..=count, 0..4), prop::option::weighted(0.2, 0..count));
        prop::collection::vec(node, count)
    });
    let nested = if depth == 0 {
        Just(vec![]).boxed()
    } else {
        prop::collection::vec((0..10_usize, shape(depth - 1)), 0..3).boxed()
    };
    (nodes, nested, text()).prop_map(|(nodes, nested, label)| Shape { nodes, nested, label }).boxed()
}

impl Shape {
    /// Builds the graph, and adds the names of its nodes and the ends of its edges.
    fn build(&self, prefix: &str, names: &mut Vec<String>, edges: &mut Vec<[String; 2]>) -> CompiledGraph<AgentState> {
        let mut graph = StateGraph::<AgentState>::new();
        let full = |index: usize| {
            if index == self.nodes.len() { format!("{prefix}END") } else { format!("{prefix}n{index}") }
        };
        names.extend([format!("{prefix}START"), full(self.nodes.len())]);
        edges.push([format!("{prefix}START"), full(0)]);
        graph.set_entry_point("n0");
        for (index, (targets, fallback)) in self.nodes.iter().enumerate() {
            let name = format!("n{index}");
            names.push(full(index));
            match self.nested.iter().find(|(place, _)| *place == index) {
                Some((_, inner)) => {
                    graph.add_node(&*name, inner.build(&format!("{}/", full(index)), names, edges));
                }
                None => {
                    graph.add_node(&*name, step {});
                }
            }
            let mut options = NodeOptions::new().label(&*self.label);
            if let Some(fallback) = fallback.filter(|fallback| *fallback != index) {
                options = options.on_error(format!("n{fallback}"));
                edges.push([full(index), full(fallback)]);
            }
            graph.set_node_options(&*name, options);
            // The first arm leads to the next node, so that all nodes are reached and all paths can end.
            let targets: Vec<_> = [index + 1].iter().chain(targets).copied().collect();
            edges.extend(targets.iter().map(|target| [full(index), full(*target)]));
            let arms = targets.iter().enumerate().map(|(arm, target)| {
                let to = if *target == self.nodes.len() { END.into() } else { format!("n{target}").into() };
                (Named(format!("{arm}{}", self.label)), to)
            });
            graph.add_route(&*name, |_: &AgentState| Named(String::new()), arms);
        }
        graph.compile(CompileOptions::new()).unwrap()
    }
}

/// Returns the text as a picture shows it, without its line breaks.
fn shown(text: &str) -> String {
    let symbol = |character: char| match character {
        '\u{7f}' => '\u{2421}',
        '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        ..' ' => char::from_u32(0x2400 + u32::from(character)).unwrap(),
        _ => character,
    };
    text.chars().filter(|character| !['\n', '\r'].contains(character)).map(symbol).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pictures_of_random_graphs_are_complete(shape in shape(2)) {
        let (mut names, mut edges) = (vec![], vec![]);
        let app = shape.build("", &mut names, &mut edges);
        let svg = app.svg();
        let picture = read(&svg);
        picture.check_boxes();
        let mut drawn = picture.names();
        drawn.sort_unstable();
        names.sort_unstable();
        prop_assert_eq!(drawn, names);
        let mut drawn: Vec<_> = picture.edges.iter().map(|[from, to, _]| [from.clone(), to.clone()]).collect();
        drawn.sort_unstable();
        edges.sort_unstable();
        prop_assert_eq!(drawn, edges);
        prop_assert_eq!(app.svg(), svg, "the picture differs between two calls");
    }

    #[test]
    fn labels_are_shown_as_they_are(label in text()) {
        let shape = Shape { nodes: vec![(vec![0], None)], nested: vec![], label: label.clone() };
        let picture = read(&shape.build("", &mut vec![], &mut vec![]).svg());
        prop_assert_eq!(&picture.labels["n0"], &shown(&label));
        let edge = picture.edges.iter().find(|[from, to, _]| from == to).unwrap();
        prop_assert_eq!(&edge[2], &shown(&format!("1{label}")));
    }

    #[test]
    fn names_are_attributes(name in text()) {
        let name: String = name.chars().filter(|character| !character.is_control() && *character != '/').collect();
        let name = format!("n{}", name.replace(['\u{fffe}', '\u{ffff}'], "<&\" '>"));
        let mut graph = StateGraph::<AgentState>::new();
        graph.set_name(&*name).add_node(&*name, step {}).set_entry_point(&*name).add_edge(&*name, END);
        let picture = read(&graph.compile(CompileOptions::new()).unwrap().svg());
        prop_assert_eq!(picture.names(), ["START", &name, "END"]);
    }
}

#[test]
fn a_graph_of_many_nodes_is_drawn() {
    let nodes = (0..1000).map(|_| (vec![], None)).collect();
    let shape = Shape { nodes, nested: vec![], label: "x".to_owned() };
    let (mut names, mut edges) = (vec![], vec![]);
    let picture = read(&shape.build("", &mut names, &mut edges).svg());
    assert_eq!(picture.nodes.len(), names.len());
    assert_eq!(picture.edges.len(), edges.len());
}
