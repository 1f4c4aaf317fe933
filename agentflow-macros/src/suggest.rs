//! Did-you-mean.

/// The one of `known` that `typed` most likely stands for, if any is close enough to be worth a guess.
pub(crate) fn closest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(typed, name), *name))
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
}
