//! [`Root`]: the path by which generated code reaches the runtime.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

/// `::agentflow`, unless the caller says `crate = path` because it re-exports the runtime.
#[derive(Clone, Default)]
pub(crate) struct Root(pub(crate) Option<syn::Path>);

impl ToTokens for Root {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match &self.0 {
            Some(path) => path.to_tokens(tokens),
            None => tokens.extend(quote!(::agentflow)),
        }
    }
}
