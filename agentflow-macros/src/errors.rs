//! [`Errors`]: every mistake of one macro call, so that all are reported in one go.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;

/// Collects mistakes; [`Errors::into_tokens`] turns them into `compile_error!`s.
///
/// A stage runs only while `is_empty()`: one mistake must not surface again as another one's consequence.
#[must_use = "errors that are dropped are mistakes that nobody hears of"]
#[derive(Debug, Default)]
pub(crate) struct Errors {
    now: Vec<syn::Error>,
    /// Mistakes that may be the consequence of a misspelt name, with their places: rustc is to say them only where all
    /// names resolve.
    later: Vec<(TokenStream, String)>,
}

impl Errors {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A mistake at one place.
    pub(crate) fn at(&mut self, span: Span, message: impl std::fmt::Display) {
        self.now.push(syn::Error::new(span, message));
    }

    /// A mistake in everything that `tokens` covers.
    pub(crate) fn spanning(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.now.push(syn::Error::new_spanned(tokens, message));
    }

    /// A mistake in everything that `tokens` covers, to be said only where all names resolve.
    pub(crate) fn later(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.later.push((tokens.to_token_stream(), message.to_string()));
    }

    /// Takes what is to be said only where all names resolve.
    pub(crate) fn take_later(&mut self) -> Vec<(TokenStream, String)> {
        std::mem::take(&mut self.later)
    }

    /// A mistake that syn found.
    pub(crate) fn push(&mut self, error: syn::Error) {
        self.now.push(error);
    }

    pub(crate) fn count(&self) -> usize {
        self.now.len() + self.later.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// One `compile_error!` item per mistake, in the order in which they were found.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.now.iter().map(syn::Error::to_compile_error).collect()
    }
}
