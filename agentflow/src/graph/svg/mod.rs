//! Pictures of graphs as SVG documents.
//!
//! The contents of a nested graph or a group are laid out on their own, and their box is then one node of the graph
//! around it. No edge crosses the border of a box, so no layout depends on what is inside its boxes.

mod label;
mod layout;
mod markup;

use self::{
    label::{FONT_SIZE, Label},
    layout::{Layout, Link, Point, Route, Size},
    markup::{escape, number, put},
};
use super::{
    outline::{Outline, OutlineBranches, StepContents},
    topology::{Next, StepId},
};

/// The space between the border of a box and its contents, in pixels.
const MARGIN: f64 = 14.0;
/// The space above and below the label of a node, in pixels.
const LABEL_SPACE: f64 = 5.0;
/// The length of an arrow head, in pixels.
const ARROW: f64 = 9.0;

// The colours of the picture.
const WHITE: &str = "#ffffff";
const TEXT: &str = "#0f172a";
const TITLE: &str = "#475569";
const EDGE: &str = "#64748b";
const FALLBACK: &str = "#dc2626";

/// Returns the graph as a document.
pub(super) fn document(outline: &Outline) -> String {
    let picture = graph(outline, "");
    let size = Size { width: picture.size.width + 2.0 * MARGIN, height: picture.size.height + 2.0 * MARGIN };
    let (width, height) = (number(size.width), number(size.height));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"system-ui, sans-serif\" \
         font-size=\"{FONT_SIZE}\" text-anchor=\"middle\" fill=\"none\" stroke-width=\"1.5\">\n\
         <title>{}</title>\n{}{}</svg>\n",
        escape(&outline.name),
        rectangle(size, &format!("fill=\"{WHITE}\"")),
        moved(MARGIN, MARGIN, "", &picture.content),
    )
}

/// Elements in a rectangle, whose origin is its top left corner.
struct Drawing {
    size: Size,
    content: String,
}

/// A step, `START` or `END`, with its name in the events of a run.
struct Item {
    name: String,
    drawing: Drawing,
}

/// An edge between two items, which are given by their indices.
struct Edge {
    from: usize,
    to: usize,
    label: Option<Label>,
    is_fallback: bool,
}

impl Edge {
    fn new(from: usize, to: usize) -> Self {
        Self { from, to, label: None, is_fallback: false }
    }
}

/// Draws a graph. The names of its nodes begin with the prefix.
fn graph(outline: &Outline, prefix: &str) -> Drawing {
    let mut items = vec![terminal("START", prefix)];
    let mut item_of = vec![0; outline.steps.len()];
    for id in outline.outside_groups() {
        item_of[id.index()] = items.len();
        items.push(step(outline, id, prefix));
    }
    let end = items.len();
    items.push(terminal("END", prefix));

    let mut edges = vec![Edge::new(0, item_of[outline.entry.index()])];
    outline.outside_groups().for_each(|id| add_edges(outline, id, &item_of, Some(end), &mut edges));
    arranged(&items, &edges)
}

/// Adds the edges of a step, and of its fallback. Edges to an end that is not drawn are left out.
fn add_edges(outline: &Outline, id: StepId, item_of: &[usize], end: Option<usize>, edges: &mut Vec<Edge>) {
    let step = outline.step(id);
    let from = item_of[id.index()];
    for edge in &step.edges {
        let to = match edge.to {
            Next::Step(to) => item_of[to.index()],
            Next::End => match end {
                Some(end) => end,
                None => continue,
            },
        };
        edges.push(Edge { label: edge.text().as_deref().map(Label::new), ..Edge::new(from, to) });
    }
    if let Some(to) = step.on_error {
        let label = Some(Label::new("on error"));
        edges.push(Edge { label, is_fallback: true, ..Edge::new(from, item_of[to.index()]) });
    }
}

/// Draws the branches of a group below their first nodes, and the join if a decision leads to it.
fn parallel(outline: &Outline, group: StepId, branches: &OutlineBranches, prefix: &str) -> Drawing {
    let mut items = Vec::new();
    let mut item_of = vec![0; outline.steps.len()];
    for member in branches.members() {
        item_of[member.index()] = items.len();
        items.push(step(outline, member, prefix));
    }
    let join = outline.shows_join(group).then(|| {
        items.push(terminal("JOIN", prefix));
        items.len() - 1
    });
    let mut edges = Vec::new();
    branches.members().for_each(|member| add_edges(outline, member, &item_of, join, &mut edges));
    arranged(&items, &edges)
}

fn step(outline: &Outline, id: StepId, prefix: &str) -> Item {
    let step = outline.step(id);
    let name = format!("{prefix}{}", step.name);
    let label = Label::new(&step.label);
    let drawing = match &step.contents {
        StepContents::Nothing => node(&label),
        StepContents::Branches(branches) => boxed(
            &Label::new(&branches.title),
            &parallel(outline, id, branches, prefix),
            "fill=\"#f8fafc\" stroke=\"#94a3b8\" stroke-dasharray=\"5 4\"",
        ),
        StepContents::Graph(inner) => {
            boxed(&label, &graph(inner, &format!("{name}/")), "fill=\"#eff6ff\" stroke=\"#93c5fd\"")
        }
    };
    Item { name, drawing }
}

fn terminal(name: &str, prefix: &str) -> Item {
    let drawing = labelled(&Label::new(name), WHITE, "rx=\"15\" fill=\"#334155\"");
    Item { name: format!("{prefix}{name}"), drawing }
}

fn node(label: &Label) -> Drawing {
    labelled(label, TEXT, "rx=\"6\" fill=\"#ffffff\" stroke=\"#64748b\"")
}

/// Draws a rectangle with a label in it.
fn labelled(label: &Label, color: &str, attributes: &str) -> Drawing {
    let size = Size { width: label.size.width + 2.0 * MARGIN, height: label.size.height + 2.0 * LABEL_SPACE };
    let mut content = rectangle(size, attributes);
    label.write(&mut content, color, Point { x: size.width / 2.0, y: size.height / 2.0 });
    Drawing { size, content }
}

/// Draws a rectangle with a title above the contents.
fn boxed(title: &Label, contents: &Drawing, attributes: &str) -> Drawing {
    let top = title.size.height + MARGIN;
    let size = Size {
        width: contents.size.width.max(title.size.width) + 2.0 * MARGIN,
        height: top + contents.size.height + MARGIN,
    };
    let mut content = rectangle(size, &format!("rx=\"8\" {attributes}"));
    title.write(&mut content, TITLE, Point { x: size.width / 2.0, y: top / 2.0 });
    content.push_str(&moved((size.width - contents.size.width) / 2.0, top, "", &contents.content));
    Drawing { size, content }
}

/// Draws items and the edges between them, where the layout places them.
fn arranged(items: &[Item], edges: &[Edge]) -> Drawing {
    let sizes: Vec<_> = items.iter().map(|item| item.drawing.size).collect();
    let label_size = |edge: &Edge| edge.label.as_ref().map_or_else(Size::default, |label| label.size);
    let links: Vec<_> =
        edges.iter().map(|edge| Link { from: edge.from, to: edge.to, label: label_size(edge) }).collect();
    let layout = Layout::new(&sizes, &links);

    let mut content = String::new();
    for (edge, route) in edges.iter().zip(&layout.routes) {
        let [from, to] = [edge.from, edge.to].map(|item| escape(&items[item].name));
        put(&mut content, format_args!("<g data-from=\"{from}\" data-to=\"{to}\">\n"));
        arrow(&mut content, route, edge.is_fallback);
        if let Some(label) = &edge.label {
            let Size { width, height } = label.size;
            let background = rectangle(label.size, "rx=\"3\" fill=\"#ffffff\" fill-opacity=\"0.9\"");
            content.push_str(&moved(route.label.x - width / 2.0, route.label.y - height / 2.0, "", &background));
            label.write(&mut content, TEXT, route.label);
        }
        content.push_str("</g>\n");
    }
    // Boxes come last, to cover the edges that pass close to them.
    for (Item { name, drawing }, centre) in items.iter().zip(&layout.boxes) {
        let Size { width, height } = drawing.size;
        let attribute = format!(" data-node=\"{}\"", escape(name));
        content.push_str(&moved(centre.x - width / 2.0, centre.y - height / 2.0, &attribute, &drawing.content));
    }
    Drawing { size: layout.size, content }
}

/// Draws a line with an arrow head at its end.
fn arrow(content: &mut String, route: &Route, is_fallback: bool) {
    let mut curves = route.curves.clone();
    let Some([_, control, end]) = curves.last_mut() else { return };
    let (tip, x, y) = (*end, end.x - control.x, end.y - control.y);
    // The unit vector along the head; the line ends where the head begins.
    let length = x.hypot(y).max(1.0);
    let (x, y) = (x / length, y / length);
    *end = Point { x: tip.x - x * ARROW, y: tip.y - y * ARROW };
    let base = *end;

    let mut path = format!("M{}", pair(route.start));
    for [first, second, end] in curves {
        put(&mut path, format_args!(" C{} {} {}", pair(first), pair(second), pair(end)));
    }
    let (color, dashes) = if is_fallback { (FALLBACK, " stroke-dasharray=\"5 4\"") } else { (EDGE, "") };
    put(content, format_args!("<path d=\"{path}\" stroke=\"{color}\"{dashes}/>\n"));
    let side = |width: f64| pair(Point { x: base.x - y * width, y: base.y + x * width });
    let (left, right) = (side(ARROW / 2.0), side(-ARROW / 2.0));
    put(content, format_args!("<path d=\"M{} L{left} L{right} Z\" fill=\"{color}\"/>\n", pair(tip)));
}

fn rectangle(size: Size, attributes: &str) -> String {
    format!("<rect width=\"{}\" height=\"{}\" {attributes}/>\n", number(size.width), number(size.height))
}

/// Moves elements to a place. The attributes begin with a space.
fn moved(x: f64, y: f64, attributes: &str, content: &str) -> String {
    format!("<g{attributes} transform=\"translate({} {})\">\n{content}</g>\n", number(x), number(y))
}

fn pair(point: Point) -> String {
    format!("{} {}", number(point.x), number(point.y))
}
