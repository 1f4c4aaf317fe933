//! What rustc prints for each mistake; the rules are in README.md.

#[test]
fn task() {
    trybuild::TestCases::new().compile_fail("task/fail/*.rs");
}
