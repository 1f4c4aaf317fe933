//! Suggestions for misspelt names. The macro crate has a symbolic link to this file.

/// Returns the name in `known` that is closest to `typed`, if it is close enough to be a likely typo. Case is ignored.
pub(crate) fn closest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&typed, &name.to_lowercase()), *name))
        .filter(|(distance, name)| *distance <= name.len().max(typed.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn a_typo_is_close_and_another_word_is_not() {
        let known = ["state", "config", "task_manager"];
        assert_eq!(closest("confg", &known), Some("config"));
        assert_eq!(closest("taskmanager", &known), Some("task_manager"));
        assert_eq!(closest("database", &known), None);
    }

    #[test]
    fn case_makes_no_difference() {
        assert_eq!(closest("Config", &["config"]), Some("config"));
        assert_eq!(closest("mian", &["MAIN"]), Some("MAIN"));
    }
}
