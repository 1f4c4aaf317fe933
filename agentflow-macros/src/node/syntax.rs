//! Tokens → [`NodeArgs`] and [`Function`].

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{
    Attribute, FnArg, Ident, Path, Result, Signature, Token, Visibility,
    parse::{Parse, ParseStream, Parser},
};

use crate::{errors::Errors, root::Root};

/// `#[node]`, `#[node(MAIN)]`, `#[node(MAIN, crate = path)]`.
#[derive(Default)]
pub(crate) struct NodeArgs {
    /// The handle's name, where it is not the function's.
    pub(crate) name: Option<Ident>,
    pub(crate) root: Root,
}

impl NodeArgs {
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut args = Self::default();
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                args.argument(input)?;
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            errors.push(error);
        }
        args
    }

    fn argument(&mut self, input: ParseStream<'_>) -> Result<()> {
        if input.peek(Token![crate]) {
            input.parse::<Token![crate]>()?;
            input.parse::<Token![=]>()?;
            self.root = Root(Some(input.call(Path::parse_mod_style)?));
        } else if self.name.is_none() && input.peek(Ident) {
            self.name = Some(input.parse()?);
        } else {
            return Err(input.error("expected the node's name, as in `#[node(MAIN)]`, or `crate = path`"));
        }
        Ok(())
    }
}

/// A function whose body is nobody's business but rustc's.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    vis: Visibility,
    pub(crate) sig: Signature,
    body: TokenStream,
}

impl Function {
    pub(crate) fn parse(item: TokenStream) -> Result<Self> {
        let start = item.clone();
        syn::parse2(item).map_err(|_| {
            syn::Error::new_spanned(
                start,
                "`#[node]` goes on an `async fn`: `#[node] async fn name(..) { .. }`",
            )
        })
    }

    pub(crate) fn vis(&self) -> &Visibility {
        &self.vis
    }

    /// The function as it was written; only `#[inject]`, which rustc doesn't know, is gone.
    ///
    /// That a node must be asynchronous is our rule: clippy is not to blame the user for it.
    pub(crate) fn without_helper_attributes(&self) -> TokenStream {
        let Self {
            attrs,
            vis,
            sig,
            body,
        } = self;
        let mut sig = sig.clone();
        for input in &mut sig.inputs {
            if let FnArg::Typed(parameter) = input {
                parameter.attrs.retain(|attr| !is_inject(attr));
            }
        }
        quote!(#[allow(clippy::unused_async)] #(#attrs)* #vis #sig #body)
    }
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        Ok(Self {
            attrs: input.call(Attribute::parse_outer)?,
            vis: input.parse()?,
            sig: input.parse()?,
            body: input.parse()?,
        })
    }
}

pub(crate) fn is_inject(attr: &Attribute) -> bool {
    attr.path().is_ident("inject")
}

/// Everything that `tokens` covers, as text without the spaces that printing adds.
pub(crate) fn text(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string().replace(' ', "")
}
