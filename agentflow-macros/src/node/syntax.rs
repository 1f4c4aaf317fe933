//! Tokens → [`NodeArgs`] and [`Function`].

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::{
    Attribute, Ident, Result, Signature, Token, Visibility,
    parse::{Parse, ParseStream, Parser},
};

use crate::{errors::Errors, printing::parenthesized, root::Root};

/// `#[node]`, `#[node(MAIN)]`, `#[node(MAIN, crate = path)]`.
#[derive(Default)]
pub(crate) struct NodeArgs {
    /// The handle's name, unless it is the function's.
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
            self.root = input.call(Root::parse)?;
        } else if self.name.is_none() && input.peek(Ident) && !input.peek2(Token![=]) {
            self.name = Some(input.parse()?);
        } else {
            return Err(input.error("expected the node's name, as in `#[node(MAIN)]`, or `crate = path`"));
        }
        Ok(())
    }
}

/// A function; rustc alone checks its body.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) body: TokenStream,
}

impl Function {
    /// Parses the item of the attribute `#[name]`.
    pub(crate) fn parse(name: &str, item: TokenStream) -> Result<Self> {
        let start = item.clone();
        syn::parse2(item).map_err(|_| {
            let text = format!("`#[{name}]` goes on an `async fn`: `#[{name}] async fn name(..) {{ .. }}`");
            syn::Error::new_spanned(start, text)
        })
    }

    pub(crate) fn vis(&self) -> &Visibility {
        &self.vis
    }
}

/// Removes `#[inject]`, which rustc does not know, and keeps all other tokens of the function. syn would not print them
/// in the user's order.
pub(crate) fn without_helper_attributes(item: TokenStream) -> TokenStream {
    let mut is_signature = false;
    item.into_iter()
        .map(|token| match token {
            TokenTree::Group(group) if is_signature && group.delimiter() == Delimiter::Parenthesis => {
                without_inject(group).into()
            }
            token => {
                is_signature |= matches!(&token, TokenTree::Ident(ident) if ident == "fn");
                token
            }
        })
        .collect()
}

fn without_inject(parameters: Group) -> Group {
    let list: Vec<TokenTree> = parameters.stream().into_iter().collect();
    let is_attribute = |at: usize| {
        matches!(&list[at..], [TokenTree::Punct(hash), TokenTree::Group(attribute), ..]
            if hash.as_char() == '#' && is_inject_attribute(attribute))
    };
    if !(0..list.len()).any(is_attribute) {
        return parameters;
    }
    let kept = (0..list.len()).filter(|at| !is_attribute(*at) && !at.checked_sub(1).is_some_and(is_attribute));
    parenthesized(parameters.span(), kept.map(|at| list[at].clone()).collect::<TokenStream>())
}

/// Returns true for the brackets of `#[inject]`, also with a value, which is a mistake.
fn is_inject_attribute(attribute: &Group) -> bool {
    let mut tokens = attribute.stream().into_iter();
    let is_name = matches!(tokens.next(), Some(TokenTree::Ident(name)) if name == "inject");
    is_name && !matches!(tokens.next(), Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
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
