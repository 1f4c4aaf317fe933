//! [`Errors`]: every mistake of one macro call, so that all are reported in one go.

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

    /// Returns one `compile_error!` item per mistake, in the order in which they were added.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.list.iter().map(syn::Error::to_compile_error).collect()
    }
}
