//! README.md shows what is so: rustc's errors as it prints them, and the picture that the example draws.

const README: &str = include_str!("../README.md");

/// Whether README.md has the text in a fenced block of its own.
fn shows(language: &str, text: &str) -> bool {
    README.contains(&format!("```{language}\n{}\n```", text.trim_end()))
}

#[test]
fn the_compile_errors_are_rustcs_own() {
    for (mistake, error) in [
        ("route_without_an_arm", include_str!("../ui-tests/readme/fail/route_without_an_arm.stderr")),
        (
            "node_that_changes_the_state_in_a_group",
            include_str!("../ui-tests/readme/fail/node_that_changes_the_state_in_a_group.stderr"),
        ),
        ("misspelt_parameter", include_str!("../ui-tests/readme/fail/misspelt_parameter.stderr")),
    ] {
        assert!(shows("text", error), "README.md does not show the error of `{mistake}` as it is:\n{error}");
    }
}

#[test]
fn the_picture_is_the_examples() {
    let picture = include_str!("../examples/research_team.mmd");
    assert!(shows("mermaid", picture), "README.md does not show examples/research_team.mmd as it is:\n{picture}");
}

#[test]
fn the_whole_service_is_the_example() {
    let code = include_str!("../examples/10_ticket_triage.rs");
    let (_, code) = code.split_once("\n\n").unwrap();
    assert!(shows("rust", code), "README.md does not show examples/10_ticket_triage.rs as it is");
}

#[test]
fn every_example_is_listed() {
    let examples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).unwrap();
    let names = examples.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let missing: Vec<_> =
        names.filter(|name| name.strip_suffix(".rs").is_some() && !README.contains(name.as_str())).collect();
    assert_eq!(missing, [""; 0]);
}
