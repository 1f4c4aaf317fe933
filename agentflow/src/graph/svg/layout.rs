//! [`Layout`]: the places of boxes, and the routes of the edges between them.

use std::collections::HashMap;

use dugong::{
    EdgeLabel, GraphLabel, NodeLabel, WorkControl, WorkError,
    graphlib::{Graph, GraphOptions},
};

use crate::panics::catch_panic;

// The distances are in pixels.
const NODE_GAP: f64 = 32.0;
const EDGE_GAP: f64 = 16.0;
const RANK_GAP: f64 = 60.0;
/// The distance between a corner of a box and the edges at it.
const PORT_INSET: f64 = 12.0;
/// The length of the straight part of an edge at a border, with its arrow head.
const STUB: f64 = 10.0;

/// The limit of the work for one layout, in units of the layout crate. Graphs of some thousand nodes stay below it.
const MAX_WORK: usize = 10_000_000;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) width: f64,
    pub(super) height: f64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
}

/// An edge between two boxes, which are given by their indices.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The size of its label, zero without one.
    pub(super) label: Size,
}

#[derive(Debug)]
pub(super) struct Layout {
    pub(super) size: Size,
    /// The centre of each box.
    pub(super) boxes: Vec<Point>,
    /// The route of each link.
    pub(super) routes: Vec<Route>,
}

/// A line from the border of a box to the border of a box.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) start: Point,
    /// Cubic Bézier curves, each with its two control points and its end. There is at least one.
    pub(super) curves: Vec<[Point; 3]>,
    /// The centre of the label.
    pub(super) label: Point,
}

impl Route {
    /// Goes through points that lie above each other, straight down or up at each of them.
    fn vertical(start: Point, through: impl IntoIterator<Item = Point>, label: Point) -> Self {
        let mut from = start;
        let curve = |to: Point| {
            let middle = f64::midpoint(from.y, to.y);
            let curve = [Point { y: middle, ..from }, Point { y: middle, ..to }, to];
            let is_long = (to.y - from.y).abs() > f64::EPSILON;
            from = to;
            is_long.then_some(curve)
        };
        Self { start, curves: through.into_iter().filter_map(curve).collect(), label }
    }

    /// Goes from the right side of a box to the right side of a box, around a lane on the right of both.
    fn around(start: Point, lane: f64, end: Point) -> Self {
        let label = Point { x: lane, y: f64::midpoint(start.y, end.y) };
        let [before, after] = [start, end].map(|side| Point { x: lane, ..side });
        Self { start, curves: vec![[before, before, label], [after, after, end]], label }
    }

    fn points_mut(&mut self) -> impl Iterator<Item = &mut Point> {
        [&mut self.start, &mut self.label].into_iter().chain(self.curves.as_flattened_mut())
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        [&self.start, &self.label].into_iter().chain(self.curves.as_flattened())
    }
}

impl Layout {
    pub(super) fn new(boxes: &[Size], links: &[Link]) -> Self {
        let mut layout = None;
        // The layout crate is young, and its panic must not become one of the caller.
        catch_panic(|| layout = layered(boxes, links, MAX_WORK));
        layout.unwrap_or_else(|| column(boxes, links)).cropped(boxes, links)
    }

    /// Moves everything so that it begins at the origin, and sets the size.
    fn cropped(mut self, boxes: &[Size], links: &[Link]) -> Self {
        let mut min = Point { x: f64::INFINITY, y: f64::INFINITY };
        let mut max = Point { x: f64::NEG_INFINITY, y: f64::NEG_INFINITY };
        let mut include = |centre: Point, size: Size| {
            min = Point { x: min.x.min(centre.x - size.width / 2.0), y: min.y.min(centre.y - size.height / 2.0) };
            max = Point { x: max.x.max(centre.x + size.width / 2.0), y: max.y.max(centre.y + size.height / 2.0) };
        };
        for (centre, size) in self.boxes.iter().zip(boxes) {
            include(*centre, *size);
        }
        for (route, link) in self.routes.iter().zip(links) {
            include(route.label, link.label);
            route.points().for_each(|point| include(*point, Size::default()));
        }
        for point in self.boxes.iter_mut().chain(self.routes.iter_mut().flat_map(Route::points_mut)) {
            *point = Point { x: point.x - min.x, y: point.y - min.y };
        }
        self.size = Size { width: max.x - min.x, height: max.y - min.y };
        self
    }
}

/// Puts the boxes in ranks, so that most edges lead down. Returns `None` if that fails or takes more work.
fn layered(boxes: &[Size], links: &[Link], max_work: usize) -> Option<Layout> {
    let mut graph = Graph::new(GraphOptions { multigraph: true, compound: false, directed: true });
    graph.set_graph(GraphLabel { nodesep: NODE_GAP, edgesep: EDGE_GAP, ranksep: RANK_GAP, ..GraphLabel::default() });
    let id = |index: usize| format!("box{index}");
    for (index, Size { width, height }) in boxes.iter().copied().enumerate() {
        graph.set_node(id(index), NodeLabel { width, height, ..NodeLabel::default() });
    }
    for (index, Link { from, to, label: Size { width, height } }) in links.iter().enumerate() {
        let label = EdgeLabel { width: *width, height: *height, weight: 1.0, ..EdgeLabel::default() };
        graph.set_edge_named(id(*from), id(*to), Some(index.to_string()), Some(label));
    }
    dugong::layout_controlled(&mut graph, &mut Budget(max_work)).ok()?;

    let point = |x: f64, y: f64| (x.is_finite() && y.is_finite()).then_some(Point { x, y });
    let place = |index| graph.node(&id(index)).and_then(|node| point(node.x?, node.y?));
    let places: Vec<_> = (0..boxes.len()).map(place).collect::<Option<_>>()?;
    // All boxes of a rank have their centre at the same height.
    let mut rank_heights: HashMap<u64, f64> = HashMap::new();
    for (place, size) in places.iter().zip(boxes) {
        let height = rank_heights.entry(place.y.to_bits()).or_default();
        *height = height.max(size.height);
    }
    let route = |(index, link): (usize, &Link)| {
        let edge = graph.edge(&id(link.from), &id(link.to), Some(&index.to_string()))?;
        let points: Vec<_> = edge.points.iter().map(|at| point(at.x, at.y)).collect::<Option<_>>()?;
        // The crate ends an edge at the nearest point of the border; only the points between the boxes are of use.
        let [_, between @ .., _] = &points[..] else { return None };
        let (first, last) = (between.first()?, between.last()?);
        let [from, to] = [link.from, link.to].map(|index| (places[index], boxes[index]));
        if link.from == link.to {
            return Some(Route::around(side(from, -0.25), point(edge.x?, 0.0)?.x, side(to, 0.25)));
        }
        let down = (to.0.y - from.0.y).signum();
        let port = |(centre, size): (Point, Size), next: &Point, direction: f64| {
            let reach = (size.width / 2.0 - PORT_INSET).max(0.0);
            let x = next.x.clamp(centre.x - reach, centre.x + reach);
            let at_distance = |height: f64| Point { x, y: centre.y + direction * height / 2.0 };
            // An edge turns to a side when it has passed all boxes of the rank.
            let turn = rank_heights[&centre.y.to_bits()].max(size.height + 2.0 * STUB);
            (at_distance(size.height), at_distance(turn))
        };
        let (start, first_turn) = port(from, first, down);
        let (end, last_turn) = port(to, last, -down);
        let label = if link.label.height > 0.0 { point(edge.x?, edge.y?)? } else { start };
        // An edge also passes all of its label before it turns.
        let half = down * link.label.height / 2.0;
        let passed = between.iter().flat_map(|at| {
            let turns = if (at.y - label.y).abs() < 1.0 { [-half, half] } else { [0.0, 0.0] };
            turns.map(|distance| Point { y: at.y + distance, ..*at })
        });
        let through = [first_turn].into_iter().chain(passed).chain([last_turn, end]);
        Some(Route::vertical(start, through, label))
    };
    let routes = links.iter().enumerate().map(route).collect::<Option<_>>()?;
    Some(Layout { size: Size::default(), boxes: places, routes })
}

/// The work that is left for a layout.
struct Budget(usize);

impl WorkControl for Budget {
    fn charge(&mut self, units: usize) -> Result<(), WorkError> {
        self.0 = self.0.checked_sub(units).ok_or(WorkError::Interrupted)?;
        Ok(())
    }
}

/// Puts the boxes below each other. An edge to the next box leads down, and each other one has a lane on the right.
fn column(boxes: &[Size], links: &[Link]) -> Layout {
    let mut bottom = 0.0;
    let mut places = Vec::with_capacity(boxes.len());
    for Size { height, .. } in boxes {
        places.push(Point { x: 0.0, y: bottom + height / 2.0 });
        bottom += height + RANK_GAP;
    }
    let mut right = boxes.iter().map(|size| size.width / 2.0).fold(0.0, f64::max);
    let route = |link: &Link| {
        let [from, to] = [link.from, link.to].map(|index| (places[index], boxes[index]));
        let half = link.label.width / 2.0;
        if link.to == link.from + 1 && half == 0.0 {
            let start = Point { y: from.0.y + from.1.height / 2.0, ..from.0 };
            return Route::vertical(start, [Point { y: to.0.y - to.1.height / 2.0, ..to.0 }], start);
        }
        let lane = right + EDGE_GAP + half;
        right = lane + half;
        Route::around(side(from, 0.25), lane, side(to, -0.25))
    };
    let routes = links.iter().map(route).collect();
    Layout { size: Size::default(), boxes: places, routes }
}

/// Returns a point of the right side of a box: the fraction of its height below the middle.
fn side((centre, size): (Point, Size), fraction: f64) -> Point {
    Point { x: centre.x + size.width / 2.0, y: centre.y + size.height * fraction }
}

#[cfg(test)]
mod tests {
    use super::{Layout, Link, MAX_WORK, Size, column, layered};

    fn boxes(count: usize) -> Vec<Size> {
        let widths = [40.0, 90.0, 300.0].into_iter().cycle();
        widths.take(count).map(|width| Size { width, height: 36.0 }).collect()
    }

    /// Edges from each box to the first, to itself and to the next.
    fn links(count: usize) -> Vec<Link> {
        let label = Size { width: 50.0, height: 26.0 };
        let plain = (1..count).map(|to| Link { from: to - 1, to, label: Size::default() });
        let labelled = (0..count).flat_map(|from| [0, from].map(|to| Link { from, to, label }));
        plain.chain(labelled).collect()
    }

    fn check(layout: &Layout, boxes: &[Size], links: &[Link]) {
        assert_eq!(layout.boxes.len(), boxes.len());
        assert_eq!(layout.routes.len(), links.len());
        let placed: Vec<_> = layout.boxes.iter().zip(boxes).collect();
        for (index, (centre, size)) in placed.iter().enumerate() {
            for (other, other_size) in &placed[..index] {
                let beside = (centre.x - other.x).abs() >= f64::midpoint(size.width, other_size.width);
                let below = (centre.y - other.y).abs() >= f64::midpoint(size.height, other_size.height);
                assert!(beside || below, "{centre:?} and {other:?}");
            }
        }
        for route in &layout.routes {
            assert!(!route.curves.is_empty());
            for point in route.points() {
                assert!((0.0..=layout.size.width).contains(&point.x), "{point:?}");
                assert!((0.0..=layout.size.height).contains(&point.y), "{point:?}");
            }
        }
    }

    #[test]
    fn layers_and_columns_place_all_boxes_and_routes() {
        for count in 1..12 {
            let (boxes, links) = (boxes(count), links(count));
            for layout in [layered(&boxes, &links, MAX_WORK).expect("it has a layout"), column(&boxes, &links)] {
                check(&layout.cropped(&boxes, &links), &boxes, &links);
            }
        }
    }

    #[test]
    fn a_layout_that_takes_too_much_work_is_refused() {
        let (boxes, links) = (boxes(5), links(5));
        assert!(layered(&boxes, &links, 100).is_none());
    }
}
