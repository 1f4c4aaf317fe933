//! [`Root`]: the path by which generated code reaches the runtime.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Path, Token, parse::ParseStream};

use crate::errors::Errors;

/// `::agentflow`, unless the caller writes `crate = path` because it re-exports the runtime.
#[derive(Clone, Default)]
pub(crate) struct Root(pub(crate) Option<Path>);

impl Root {
    /// Parses `crate = path`.
    pub(crate) fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        const EXPECTED: &str = "expected a path: `crate = my_crate::agentflow`";
        let keyword = input.parse::<Token![crate]>()?;
        // At the end of the input, `input.error` would put "unexpected end of input" before the text.
        let equals = input.span();
        let equals = input.parse::<Token![=]>().map_err(|_| syn::Error::new(equals, EXPECTED))?;
        let path = input.call(Path::parse_mod_style);
        path.map(|path| Self(Some(path))).map_err(|_| syn::Error::new_spanned(quote!(#keyword #equals), EXPECTED))
    }

    /// Parses `#[NAME(crate = path)]`, the only option of a derived item.
    pub(crate) fn from_attributes(attrs: &[Attribute], name: &str, errors: &mut Errors) -> Self {
        let mut root = Self::default();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident(name)) {
            match attr.parse_args_with(Self::parse) {
                Ok(parsed) => root = parsed,
                Err(error) => errors.push(error),
            }
        }
        root
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
