//! Tests of rustc's output for each mistake; the rules are in README.md.

/// Asserts that rustc's output for each `fail/*.rs` equals its `.stderr`, and that each `pass/*.rs` compiles and runs.
fn check(folder: &str) {
    let cases = trybuild::TestCases::new();
    cases.compile_fail(format!("{folder}/fail/*.rs"));
    cases.pass(format!("{folder}/pass/*.rs"));
}

#[test]
fn state() {
    check("state");
}

#[test]
fn task() {
    check("task");
}

#[test]
fn durable() {
    check("durable");
}

#[test]
fn node() {
    check("node");
}

#[test]
fn graph() {
    check("graph");
}

/// The examples of README.md; `tests/readme.rs` asserts that README.md shows the same output.
#[test]
fn readme() {
    check("readme");
}

#[test]
fn flow() {
    check("flow");
}

#[test]
fn route() {
    check("route");
}

#[test]
fn provide() {
    check("provide");
}

#[test]
fn store() {
    check("store");
}
