//! [`Outline`]: what a graph looks like, and its pictures as Mermaid and Graphviz text.

use std::{fmt::Write, sync::Arc};

/// What a graph looks like.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Outline {
    pub(super) name: Arc<str>,
    pub(super) steps: Vec<OutlineStep>,
    pub(super) entry: usize,
}

#[derive(Clone, Debug)]
pub(super) struct OutlineStep {
    pub(super) label: String,
    pub(super) inside: Inside,
    pub(super) ways: Vec<super::plan::Way>,
    pub(super) on_error: Option<usize>,
}

/// What is in a step's box.
#[derive(Clone, Debug)]
pub(super) enum Inside {
    Nothing,
    Branches(Vec<Vec<usize>>),
    Graph(Outline),
}

impl Outline {
    /// How many nodes the graph has, those of the graphs in it too.
    pub(crate) fn nodes(&self) -> usize {
        let of_step = |step: &OutlineStep| match &step.inside {
            Inside::Nothing => 1,
            Inside::Branches(_) => 0,
            Inside::Graph(inner) => 1 + inner.nodes(),
        };
        self.steps.iter().map(of_step).sum()
    }

    /// A Mermaid flowchart.
    pub(super) fn mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        Mermaid { text: &mut text }.graph(self, "n", 1);
        text
    }

    /// A Graphviz digraph.
    pub(super) fn dot(&self) -> String {
        let mut text =
            format!("digraph {} {{\n    compound=true;\n    node [shape=box, style=rounded];\n", quoted(&self.name));
        Dot { text: &mut text }.graph(self, "n", 1);
        text.push_str("}\n");
        text
    }

    /// The steps that are in no group.
    fn top(&self) -> impl Iterator<Item = usize> {
        let mut inner = vec![false; self.steps.len()];
        for step in &self.steps {
            if let Inside::Branches(branches) = &step.inside {
                for member in branches.iter().flatten() {
                    inner[*member] = true;
                }
            }
        }
        (0..self.steps.len()).filter(move |step| !inner[*step])
    }
}

/// Writing to a `String` cannot fail, so its results are passed over.
macro_rules! line {
    ($self:ident, $depth:expr, $($text:tt)*) => {{
        for _ in 0..$depth {
            $self.text.push_str("    ");
        }
        let _ = writeln!($self.text, $($text)*);
    }};
}

struct Mermaid<'t> {
    text: &'t mut String,
}

impl Mermaid<'_> {
    fn graph(&mut self, outline: &Outline, prefix: &str, depth: usize) {
        line!(self, depth, "{prefix}_start((START))");
        for step in outline.top() {
            self.step(outline, step, prefix, depth);
        }
        line!(self, depth, "{prefix}_end((END))");
        line!(self, depth, "{prefix}_start --> {prefix}{}", outline.entry);
        for (index, step) in outline.steps.iter().enumerate() {
            for way in &step.ways {
                let to = way.to.map_or_else(|| format!("{prefix}_end"), |to| format!("{prefix}{to}"));
                match &way.label {
                    None => line!(self, depth, "{prefix}{index} --> {to}"),
                    Some(label) => line!(self, depth, "{prefix}{index} -->|{}| {to}", mermaid_quoted(label)),
                }
            }
            if let Some(to) = step.on_error {
                line!(self, depth, "{prefix}{index} -.->|\"on error\"| {prefix}{to}");
            }
        }
    }

    fn step(&mut self, outline: &Outline, index: usize, prefix: &str, depth: usize) {
        let step = &outline.steps[index];
        let label = mermaid_quoted(&step.label);
        match &step.inside {
            Inside::Nothing => line!(self, depth, "{prefix}{index}[{label}]"),
            Inside::Branches(branches) => {
                line!(self, depth, "subgraph {prefix}{index} [\"side by side\"]");
                for member in branches.iter().flatten() {
                    self.step(outline, *member, prefix, depth + 1);
                }
                for branch in branches {
                    for pair in branch.windows(2) {
                        line!(self, depth + 1, "{prefix}{} --> {prefix}{}", pair[0], pair[1]);
                    }
                }
                line!(self, depth, "end");
            }
            Inside::Graph(inner) => {
                line!(self, depth, "subgraph {prefix}{index} [{label}]");
                self.graph(inner, &format!("{prefix}{index}_"), depth + 1);
                line!(self, depth, "end");
            }
        }
    }
}

struct Dot<'t> {
    text: &'t mut String,
}

impl Dot<'_> {
    fn graph(&mut self, outline: &Outline, prefix: &str, depth: usize) {
        line!(self, depth, "{prefix}_start [label=\"START\", shape=circle];");
        for step in outline.top() {
            self.step(outline, step, prefix, depth);
        }
        line!(self, depth, "{prefix}_end [label=\"END\", shape=circle];");
        self.edge(&format!("{prefix}_start"), "", outline, Some(outline.entry), prefix, depth, None);
        for (index, step) in outline.steps.iter().enumerate() {
            let (tail, cluster) = outline.last_of(index, prefix);
            let tail_attribute = cluster.map(|cluster| format!("ltail={cluster}")).unwrap_or_default();
            for way in &step.ways {
                self.edge(&tail, &tail_attribute, outline, way.to, prefix, depth, way.label.as_deref().map(quoted));
            }
            if step.on_error.is_some() {
                let label = Some("\"on error\", style=dashed".to_owned());
                self.edge(&tail, &tail_attribute, outline, step.on_error, prefix, depth, label);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "an edge has two ends, and each may be a cluster")]
    fn edge(
        &mut self,
        tail: &str,
        tail_attribute: &str,
        outline: &Outline,
        to: Option<usize>,
        prefix: &str,
        depth: usize,
        label: Option<String>,
    ) {
        let (head, cluster) = match to {
            None => (format!("{prefix}_end"), None),
            Some(to) => outline.first_of(to, prefix),
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

    fn step(&mut self, outline: &Outline, index: usize, prefix: &str, depth: usize) {
        let step = &outline.steps[index];
        let label = quoted(&step.label);
        match &step.inside {
            Inside::Nothing => line!(self, depth, "{prefix}{index} [label={label}];"),
            Inside::Branches(branches) => {
                line!(self, depth, "subgraph cluster_{prefix}{index} {{");
                line!(self, depth + 1, "label=\"side by side\"; style=dashed;");
                for member in branches.iter().flatten() {
                    self.step(outline, *member, prefix, depth + 1);
                }
                for branch in branches {
                    for pair in branch.windows(2) {
                        let (tail, cluster) = outline.last_of(pair[0], prefix);
                        let tail_attribute = cluster.map(|cluster| format!("ltail={cluster}")).unwrap_or_default();
                        let to = Some(pair[1]);
                        self.edge(&tail, &tail_attribute, outline, to, prefix, depth + 1, None);
                    }
                }
                line!(self, depth, "}}");
            }
            Inside::Graph(inner) => {
                line!(self, depth, "subgraph cluster_{prefix}{index} {{");
                line!(self, depth + 1, "label={label};");
                self.graph(inner, &format!("{prefix}{index}_"), depth + 1);
                line!(self, depth, "}}");
            }
        }
    }
}

/// Graphviz draws edges between nodes only: one to a box is one to a node in it, cut off at the box.
impl Outline {
    fn first_of(&self, step: usize, prefix: &str) -> (String, Option<String>) {
        self.end_of(step, prefix, "_start", <[usize]>::first)
    }

    fn last_of(&self, step: usize, prefix: &str) -> (String, Option<String>) {
        self.end_of(step, prefix, "_end", <[usize]>::last)
    }

    fn end_of(
        &self,
        step: usize,
        prefix: &str,
        end: &str,
        of_branch: fn(&[usize]) -> Option<&usize>,
    ) -> (String, Option<String>) {
        let cluster = Some(format!("cluster_{prefix}{step}"));
        match &self.steps[step].inside {
            Inside::Nothing => (format!("{prefix}{step}"), None),
            Inside::Graph(_) => (format!("{prefix}{step}_{end}"), cluster),
            Inside::Branches(branches) => match branches.first().and_then(|branch| of_branch(branch)) {
                Some(member) => (self.end_of(*member, prefix, end, of_branch).0, cluster),
                None => (format!("{prefix}{step}"), None),
            },
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn mermaid_quoted(text: &str) -> String {
    // `#` and `&` first: what follows writes them.
    let text = text
        .replace('#', "#35;")
        .replace('&', "#amp;")
        .replace('"', "#quot;")
        .replace('<', "#lt;")
        .replace('>', "#gt;")
        .replace('\n', "<br/>");
    format!("\"{text}\"")
}
