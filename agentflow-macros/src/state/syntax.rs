//! Tokens → [`Input`]: the struct and what its `#[state(..)]` attributes say, in order and unjudged.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Data, DeriveInput, Fields, Generics, Path, Token, Type, Visibility};

use crate::errors::Errors;

/// What `#[derive(State)]` stands on.
pub(crate) struct Input {
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) entries: Vec<Entry>,
    pub(crate) fields: Vec<Field>,
}

/// A named field.
pub(crate) struct Field {
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    /// The attributes that its setter carries on.
    pub(crate) carried: Vec<Attribute>,
    pub(crate) entries: Vec<Entry>,
}

/// `key` or `key = path` in a `#[state(..)]`.
pub(crate) struct Entry {
    pub(crate) key: Ident,
    pub(crate) path: Option<Path>,
}

impl Input {
    /// Reads on after a mistake, so that all of them are found. `None` if there is not even a name.
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Option<Self> {
        let input: DeriveInput = syn::parse2(tokens).map_err(|error| errors.push(error)).ok()?;
        let entries = entries(&input.attrs, errors);
        let fields = match input.data {
            Data::Struct(data) => match data.fields {
                Fields::Named(fields) => fields.named.into_iter().filter_map(|f| field(f, errors)).collect(),
                Fields::Unit => Vec::new(),
                Fields::Unnamed(fields) => {
                    errors.spanning(fields, "a state needs named fields: `struct Name { field: Type }`");
                    Vec::new()
                }
            },
            Data::Enum(data) => {
                errors.at(data.enum_token.span, "a state is a struct: put this enum into a field of one");
                Vec::new()
            }
            Data::Union(data) => {
                errors.at(data.union_token.span, "a state is a struct, not a union");
                Vec::new()
            }
        };
        Some(Self { vis: input.vis, ident: input.ident, generics: input.generics, entries, fields })
    }
}

/// `None` for a field without a name, which a struct with named fields doesn't have.
fn field(field: syn::Field, errors: &mut Errors) -> Option<Field> {
    let entries = entries(&field.attrs, errors);
    let carried = |attr: &Attribute| attr.path().is_ident("doc") || attr.path().is_ident("deprecated");
    Some(Field {
        vis: field.vis,
        ident: field.ident?,
        ty: field.ty,
        carried: field.attrs.into_iter().filter(carried).collect(),
        entries,
    })
}

fn entries(attrs: &[Attribute], errors: &mut Errors) -> Vec<Entry> {
    let mut entries = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("state")) {
        let parsed = attr.parse_args_with(|input: ParseStream<'_>| {
            while !input.is_empty() {
                match input.parse() {
                    Ok(entry) => entries.push(entry),
                    Err(error) => {
                        errors.push(error);
                        skip_to_comma(input)?;
                    }
                }
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        });
        if let Err(error) = parsed {
            errors.push(error);
        }
    }
    entries
}

impl Parse for Entry {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        // `crate` is a key too.
        let key = Ident::parse_any(input)?;
        let path = if input.peek(Token![=]) && (key == "append" || key == "messages") {
            return Err(input.error(format!("`{key}` takes no value")));
        } else if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            Some(path(input)?)
        } else if input.is_empty() || input.peek(Token![,]) {
            None
        } else if input.peek(syn::token::Paren) {
            return Err(input.error(format!("expected `{key} = path`")));
        } else {
            return Err(input.error(format!("expected `{key}` or `{key} = path`")));
        };
        Ok(Self { key, path })
    }
}

fn path(input: ParseStream<'_>) -> syn::Result<Path> {
    if let Ok(text) = input.fork().parse::<syn::LitStr>() {
        return Err(input.error(format!("write the path without quotes: `{}`", text.value())));
    }
    if input.peek(Token![|]) {
        let error = input.error("name a function here: a closure cannot stand in an attribute");
        // All of it: it has commas of its own.
        input.parse::<TokenStream>()?;
        return Err(error);
    }
    if input.is_empty() || input.peek(Token![,]) {
        // Not at the end of the input, whose error would begin with "unexpected end of input".
        return Err(syn::Error::new(input.span(), "expected a path to a function after `=`"));
    }
    input.parse()
}

fn skip_to_comma(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}
