//! README.md and the guides in docs/ show what is so: rustc's errors as it prints them, the pictures and the code of the
//! examples, and their output.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const README: &str = include_str!("../README.md");

/// The marker in front of a block that shows the output of an example.
const OUTPUT_OF: &str = "<!-- output of ";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// README.md, ARCHITECTURE.md and the guides, by their paths from the root.
fn documents() -> BTreeMap<String, String> {
    let guides = fs::read_dir(root().join("docs")).unwrap();
    let guides = guides.map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()));
    let names = guides.filter(|name| has_extension(name, "md")).chain(["README.md".into(), "ARCHITECTURE.md".into()]);
    names.map(|name| (name.clone(), fs::read_to_string(root().join(name)).unwrap())).collect()
}

/// Returns whether the text has a fenced block with this content.
fn shows(document: &str, language: &str, text: &str) -> bool {
    document.contains(&format!("```{language}\n{}\n```", text.trim_end()))
}

#[test]
fn the_compile_error_is_rustcs_own() {
    let error = include_str!("../ui-tests/readme/fail/route_without_an_arm.stderr");
    assert!(shows(README, "text", error), "README.md does not show the error as it is:\n{error}");
}

#[test]
fn the_picture_is_the_examples() {
    let picture = include_str!("../examples/research_team.mmd");
    let guide = include_str!("../docs/groups.md");
    assert!(shows(guide, "mermaid", picture), "docs/groups.md does not show examples/research_team.mmd:\n{picture}");
}

#[test]
fn the_first_program_is_the_example() {
    let code = include_str!("../examples/00_first_program.rs");
    let (_, code) = code.split_once("\n\n").unwrap();
    assert!(shows(README, "rust", code), "README.md does not show examples/00_first_program.rs as it is");
}

#[test]
fn the_readme_fits_on_200_lines_and_lists_every_example_and_guide() {
    assert!(README.lines().count() <= 200, "{} lines", README.lines().count());
    let examples = fs::read_dir(root().join("examples")).unwrap();
    let examples = examples.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = examples.filter(|name| has_extension(name, "rs")).chain(documents().into_keys());
    let missing: Vec<_> = names.filter(|name| name != "README.md" && !README.contains(name.as_str())).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_guide_is_compiled_as_a_doctest() {
    let doctests = include_str!("../examples/src/lib.rs");
    let rust = documents().into_iter().filter(|(_, text)| text.contains("```rust"));
    let missing: Vec<_> = rust.map(|(name, _)| name).filter(|name| !doctests.contains(name.as_str())).collect();
    assert_eq!(missing, ["README.md"], "README.md shows an example, which is compiled already");
}

/// The first column of each table of docs/observability.md that is code: messages, spans and metrics.
#[test]
fn documented_log_lines_spans_and_metrics_are_in_the_source() {
    let source = source(&root().join("agentflow/src"));
    let guide = include_str!("../docs/observability.md");
    let (lines, _) = guide.split_once("## Without a log").unwrap();
    let mut missing = Vec::new();
    for row in lines.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cell = row.split(" | ").next().unwrap_or_default().trim_matches(['`', ' ']);
        let is_field = !cell.contains([' ', '.', '_']) || cell.contains("`, `");
        if !is_field && !source.contains(&format!("\"{cell}")) {
            missing.push(cell);
        }
    }
    assert_eq!(missing, [""; 0]);
}

fn source(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        text += &if path.is_dir() { source(&path) } else { fs::read_to_string(&path).unwrap() };
    }
    text
}

#[test]
fn links_lead_to_files() {
    let mut broken = Vec::new();
    for (name, text) in documents() {
        let folder = root().join(&name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") && !folder.join(path).exists() {
                broken.push(format!("{name}: {link}"));
            }
        }
    }
    assert_eq!(broken, [""; 0]);
}

#[test]
fn outputs_are_what_the_examples_print() {
    let mut printed = BTreeMap::new();
    for (name, text) in documents() {
        for block in text.split(OUTPUT_OF).skip(1) {
            let (example, rest) = block.split_once(" -->\n```text\n").unwrap();
            let shown = rest.split_once("```").unwrap().0;
            let output = printed.entry(example.to_owned()).or_insert_with(|| run(example));
            assert_eq!(without_times(shown), without_times(output), "{name} shows another output of {example}");
        }
    }
    for (example, output) in printed {
        let code = fs::read_to_string(root().join(format!("examples/{example}.rs"))).unwrap();
        let header: String = code
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .fold(String::new(), |text, line| text + line.strip_prefix(' ').unwrap_or(line) + "\n");
        let (_, shown) = header.split_once(&format!("--example {example}\n")).unwrap();
        let shown = shown.split_once("```").unwrap().0;
        assert_eq!(without_times(shown), without_times(&output), "the header of {example} shows another output");
    }
}

/// Builds the example if that is needed, and returns what it prints.
fn run(example: &str) -> String {
    let args = ["run", "--quiet", "--package", "agentflow-examples", "--example", example];
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Replaces `501.1ms`, `81.1µs` and `0.5s`, which differ from run to run.
fn without_times(text: &str) -> String {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        let (number, after) = number.split_at(number.find(|c| !is_number(c)).unwrap_or(number.len()));
        let unit = ["ns", "µs", "ms", "s"]
            .into_iter()
            .find(|unit| after.strip_prefix(unit).is_some_and(|after| !after.starts_with(char::is_alphanumeric)));
        result += before;
        result += if unit.is_some() { "TIME" } else { number };
        rest = &after[unit.map_or(0, str::len)..];
    }
    result + rest
}
