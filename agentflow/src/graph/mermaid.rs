//! Pictures of graphs as [Mermaid](https://mermaid.js.org) flowcharts.

use std::fmt::Write;

use super::{
    outline::{Outline, StepContents},
    picture::{line, visible},
    topology::{Next, StepId},
};

/// Returns the graph as a flowchart.
pub(super) fn flowchart(outline: &Outline) -> String {
    let mut text = String::from("flowchart TD\n");
    Mermaid { text: &mut text }.graph(outline, "n", 1);
    text
}

struct Mermaid<'t> {
    text: &'t mut String,
}

impl Mermaid<'_> {
    fn graph(&mut self, outline: &Outline, prefix: &str, depth: usize) {
        line!(self, depth, "{prefix}_start((START))");
        for step in outline.outside_groups() {
            self.step(outline, step, prefix, depth);
        }
        line!(self, depth, "{prefix}_end((END))");
        line!(self, depth, "{prefix}_start --> {prefix}{}", outline.entry.index());
        let groups = outline.groups();
        for (index, step) in outline.steps.iter().enumerate() {
            for edge in &step.edges {
                let to = match (edge.to, groups[index]) {
                    (Next::Step(to), _) => format!("{prefix}{}", to.index()),
                    (Next::End, None) => format!("{prefix}_end"),
                    (Next::End, Some(group)) if outline.shows_join(group) => format!("{prefix}{}_join", group.index()),
                    (Next::End, Some(_)) => continue,
                };
                match &edge.text() {
                    None => line!(self, depth, "{prefix}{index} --> {to}"),
                    Some(label) => line!(self, depth, "{prefix}{index} -->|{}| {to}", quoted(label)),
                }
            }
            if let Some(to) = step.on_error {
                line!(self, depth, "{prefix}{index} -.->|\"on error\"| {prefix}{}", to.index());
            }
        }
    }

    fn step(&mut self, outline: &Outline, id: StepId, prefix: &str, depth: usize) {
        let (step, index) = (outline.step(id), id.index());
        let label = quoted(&step.label);
        match &step.contents {
            StepContents::Nothing => line!(self, depth, "{prefix}{index}[{label}]"),
            StepContents::Branches(branches) => {
                line!(self, depth, "subgraph {prefix}{index} [{}]", quoted(&branches.title));
                for member in branches.members() {
                    self.step(outline, member, prefix, depth + 1);
                }
                if outline.shows_join(id) {
                    line!(self, depth + 1, "{prefix}{index}_join((JOIN))");
                }
                line!(self, depth, "end");
            }
            StepContents::Graph(inner) => {
                line!(self, depth, "subgraph {prefix}{index} [{label}]");
                self.graph(inner, &format!("{prefix}{index}_"), depth + 1);
                line!(self, depth, "end");
            }
        }
    }
}

/// Returns the text as a quoted label that Mermaid shows as it is.
///
/// Mermaid's lexer finds directives, markup and Markdown inside quotes too, so every character that it could take for
/// one is written as a numeric entity.
fn quoted(text: &str) -> String {
    // The lexer matches `direction LR` anywhere in a line, and trims the ends of a label; entities hide the spaces.
    let is_space_safe = !text.contains("direction") && text.trim() == text;
    let mut label = String::from("\"");
    for character in visible(text) {
        match character {
            '\n' => label.push_str("<br/>"),
            ' ' if is_space_safe => label.push(' '),
            ',' | '.' | '_' | '-' | '(' | ')' => label.push(character),
            _ if character.is_ascii_alphanumeric() => label.push(character),
            _ => push_entity(&mut label, character),
        }
    }
    if text.is_empty() {
        // An empty label is a syntax error, and a space of no width is not.
        push_entity(&mut label, '\u{200b}');
    }
    label.push('"');
    label
}

fn push_entity(label: &mut String, character: char) {
    // Writing to a `String` cannot fail.
    let _ = write!(label, "#{};", u32::from(character));
}
