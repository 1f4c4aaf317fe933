//! [`Root`]: the path by which generated code reaches the runtime.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Path, Token, parse::ParseStream};

/// `::agentflow`, unless the caller writes `crate = path` because it re-exports the runtime.
#[derive(Clone, Default)]
pub(crate) struct Root(pub(crate) Option<Path>);

impl Root {
    /// Parses `crate = path`.
    pub(crate) fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let keyword = input.parse::<Token![crate]>()?;
        let equals = input.parse::<Option<Token![=]>>()?;
        match input.call(Path::parse_mod_style) {
            Ok(path) if equals.is_some() => Ok(Self(Some(path))),
            _ => {
                let text = "expected a path: `crate = my_crate::agentflow`";
                Err(syn::Error::new_spanned(quote!(#keyword #equals), text))
            }
        }
    }
}

impl ToTokens for Root {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match &self.0 {
            Some(path) => path.to_tokens(tokens),
            None => tokens.extend(quote!(::agentflow)),
        }
    }
}
