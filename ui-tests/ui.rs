//! What rustc prints for each mistake: one mistake per file, and the file is named after it.

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
