//! What rustc prints for each mistake; the rules are in README.md.
