//! [`Errors`]: every mistake of one macro call, so that all are reported in one go.

use std::collections::HashMap;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;

/// Collects mistakes; [`Errors::into_tokens`] turns them into `compile_error!`s.
///
/// A stage runs only if `is_empty()` returns true, so that no mistake is reported again in the form of its
/// consequences.
#[must_use = "dropped errors are never reported"]
#[derive(Debug, Default)]
pub(crate) struct Errors {
    list: Vec<syn::Error>,
}

impl Errors {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a mistake at a span.
    pub(crate) fn at(&mut self, span: Span, message: impl std::fmt::Display) {
        self.list.push(syn::Error::new(span, message));
    }

    /// Adds a mistake at all of the tokens.
    pub(crate) fn spanning(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.list.push(syn::Error::new_spanned(tokens, message));
    }

    /// Adds an error of syn.
    pub(crate) fn push(&mut self, error: syn::Error) {
        self.list.push(error);
    }

    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Returns one `compile_error!` item per mistake, in the order in which they were added. Of more than ten mistakes
    /// of one kind, the last one stands for the rest.
    pub(crate) fn into_tokens(self) -> TokenStream {
        let mistakes = self.list.into_iter().map(|error| (error.to_string(), error)).collect();
        let tokens = first_of_each_kind(mistakes).into_iter().map(|(text, error, is_last)| {
            if is_last { syn::Error::new(error.span(), text).to_compile_error() } else { error.to_compile_error() }
        });
        tokens.collect()
    }
}

/// The number of mistakes of one kind that are reported.
const REPORTED: usize = 10;

/// Returns the first mistakes of each kind. The text of the last one counts the others, and its flag is true. Texts that
/// differ only in what is between backticks are of one kind.
pub(crate) fn first_of_each_kind<T>(mistakes: Vec<(String, T)>) -> Vec<(String, T, bool)> {
    let kind_of = |text: &str| text.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (text, _) in &mistakes {
        *counts.entry(kind_of(text)).or_default() += 1;
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    let reported = mistakes.into_iter().filter_map(|(mut text, mistake)| {
        let kind = kind_of(&text);
        let count = counts.get(&kind).copied().unwrap_or_default();
        let index = seen.entry(kind).or_default();
        *index += 1;
        let is_last = *index == REPORTED && count > REPORTED;
        if is_last {
            text = format!("{text} (and {} more like this)", count - REPORTED);
        }
        (*index <= REPORTED).then_some((text, mistake, is_last))
    });
    reported.collect()
}

#[cfg(test)]
mod tests {
    use super::first_of_each_kind;

    #[test]
    fn ten_mistakes_of_one_kind_are_reported_and_the_rest_is_counted() {
        let mut mistakes: Vec<_> = (0..25).map(|node| (format!("`n{node}` can never run"), ())).collect();
        mistakes.push(("another kind".to_owned(), ()));
        let reported = first_of_each_kind(mistakes);
        assert_eq!(reported.len(), 11);
        assert_eq!(reported[8], ("`n8` can never run".to_owned(), (), false));
        assert_eq!(reported[9], ("`n9` can never run (and 15 more like this)".to_owned(), (), true));
        assert_eq!(reported[10], ("another kind".to_owned(), (), false));
    }
}
