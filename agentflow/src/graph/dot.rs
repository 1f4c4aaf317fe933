//! Pictures of graphs as [Graphviz](https://graphviz.org) digraphs.

use std::fmt::Write;

use super::{
    outline::{Outline, StepContents},
    picture::{line, visible},
    topology::{Next, StepId},
};

/// Returns the graph as a digraph.
pub(super) fn digraph(outline: &Outline) -> String {
    let name = quoted(&outline.name);
    let mut text = format!("digraph {name} {{\n    compound=true;\n    node [shape=box, style=rounded];\n");
    Dot { text: &mut text }.graph(outline, "n", 1);
    text.push_str("}\n");
    text
}

struct Dot<'t> {
    text: &'t mut String,
}

impl Dot<'_> {
    fn graph(&mut self, outline: &Outline, prefix: &str, depth: usize) {
        line!(self, depth, "{prefix}_start [label=\"START\", shape=circle];");
        for step in outline.outside_groups() {
            self.step(outline, step, prefix, depth);
        }
        line!(self, depth, "{prefix}_end [label=\"END\", shape=circle];");
        self.edge(&format!("{prefix}_start"), "", outline, Next::Step(outline.entry), prefix, "", depth, None);
        let groups = outline.groups();
        for (id, step) in outline.all_steps() {
            let (tail, cluster) = last_node(outline, id, prefix);
            let tail_attribute = cluster.as_ref().map(|cluster| format!("ltail={cluster}")).unwrap_or_default();
            for edge in &step.edges {
                let label = edge.text().as_deref().map(quoted);
                match &cluster {
                    _ if edge.to == Next::End && groups[id.index()].is_some_and(|group| !outline.shows_join(group)) => {
                    }
                    Some(cluster) if edge.to == Next::Step(id) => {
                        let head = first_node(outline, id, prefix).0;
                        self.loop_edge(&tail, &head, cluster, depth, label);
                    }
                    _ => {
                        let end = match groups[id.index()] {
                            None => format!("{prefix}_end"),
                            Some(group) => format!("{prefix}{}_join", group.index()),
                        };
                        self.edge(&tail, &tail_attribute, outline, edge.to, prefix, &end, depth, label);
                    }
                }
            }
            if let Some(to) = step.on_error {
                let label = Some("\"on error\", style=dashed".to_owned());
                self.edge(&tail, &tail_attribute, outline, Next::Step(to), prefix, "", depth, label);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "an edge has two ends, and each may be a cluster")]
    fn edge(
        &mut self,
        tail: &str,
        tail_attribute: &str,
        outline: &Outline,
        to: Next,
        prefix: &str,
        end: &str,
        depth: usize,
        label: Option<String>,
    ) {
        let (head, cluster) = match to {
            Next::End => (end.to_owned(), None),
            Next::Step(to) => first_node(outline, to, prefix),
        };
        let attributes: Vec<_> = [
            label.map(|label| format!("label={label}")),
            (!tail_attribute.is_empty()).then(|| tail_attribute.to_owned()),
            cluster.map(|cluster| format!("lhead={cluster}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        if attributes.is_empty() {
            line!(self, depth, "{tail} -> {head};");
        } else {
            line!(self, depth, "{tail} -> {head} [{}];", attributes.join(", "));
        }
    }

    /// Draws an edge from a box to itself. It passes through a point outside the box: Graphviz refuses to cut an edge at
    /// the border of a box that both ends are in.
    fn loop_edge(&mut self, tail: &str, head: &str, cluster: &str, depth: usize, label: Option<String>) {
        let label = label.map(|label| format!(", label={label}")).unwrap_or_default();
        line!(self, depth, "{cluster}_loop [shape=point, width=0.01];");
        line!(self, depth, "{tail} -> {cluster}_loop [ltail={cluster}, arrowhead=none{label}];");
        line!(self, depth, "{cluster}_loop -> {head} [lhead={cluster}];");
    }

    fn step(&mut self, outline: &Outline, id: StepId, prefix: &str, depth: usize) {
        let (step, index) = (outline.step(id), id.index());
        let label = quoted(&step.label);
        match &step.contents {
            StepContents::Nothing => line!(self, depth, "{prefix}{index} [label={label}];"),
            StepContents::Branches(branches) => {
                line!(self, depth, "subgraph cluster_{prefix}{index} {{");
                line!(self, depth + 1, "label={}; style=dashed;", quoted(&branches.title));
                for member in branches.members() {
                    self.step(outline, member, prefix, depth + 1);
                }
                if outline.shows_join(id) {
                    line!(self, depth + 1, "{prefix}{index}_join [label=\"JOIN\", shape=circle];");
                }
                line!(self, depth, "}}");
            }
            StepContents::Graph(inner) => {
                line!(self, depth, "subgraph cluster_{prefix}{index} {{");
                line!(self, depth + 1, "label={label};");
                self.graph(inner, &format!("{prefix}{index}_"), depth + 1);
                line!(self, depth, "}}");
            }
        }
    }
}

/// Returns the node at which an edge to the step ends, and the cluster at whose border Graphviz cuts the edge.
///
/// Graphviz draws edges between nodes only: an edge to a box is an edge to a node inside it that ends at the border.
fn first_node(outline: &Outline, step: StepId, prefix: &str) -> (String, Option<String>) {
    boundary_node(outline, step, prefix, "_start", <[StepId]>::first)
}

/// Returns the same for an edge that begins at the step.
fn last_node(outline: &Outline, step: StepId, prefix: &str) -> (String, Option<String>) {
    boundary_node(outline, step, prefix, "_end", <[StepId]>::last)
}

fn boundary_node(
    outline: &Outline,
    step: StepId,
    prefix: &str,
    suffix: &str,
    of_branch: fn(&[StepId]) -> Option<&StepId>,
) -> (String, Option<String>) {
    let index = step.index();
    let cluster = Some(format!("cluster_{prefix}{index}"));
    match &outline.step(step).contents {
        StepContents::Nothing => (format!("{prefix}{index}"), None),
        StepContents::Graph(_) => (format!("{prefix}{index}_{suffix}"), cluster),
        StepContents::Branches(branches) => match branches.branches.first().and_then(|branch| of_branch(branch)) {
            Some(member) => (boundary_node(outline, *member, prefix, suffix, of_branch).0, cluster),
            None => (format!("{prefix}{index}"), None),
        },
    }
}

/// Returns the text as a quoted label that Graphviz shows as it is. It decodes entities inside quotes.
fn quoted(text: &str) -> String {
    let text: String = visible(text).collect();
    let text = text.replace('&', "&amp;").replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{text}\"")
}
