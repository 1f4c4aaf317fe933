//! What rustc prints for each mistake; the rules are in README.md.

/// `fail/*.rs` must print what stands beside it in `.stderr`; `pass/*.rs` must compile and run.
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
fn node() {
    check("node");
}

#[test]
fn graph() {
    check("graph");
}

/// What README.md shows; `tests/readme.rs` sees to it that it shows just that.
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
