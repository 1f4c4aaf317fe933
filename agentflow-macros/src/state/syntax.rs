//! Tokens → [`State`]: the struct and the options in its `#[state(..)]` attributes.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Data, DeriveInput, ExprPath, Fields, Generics, Token, Type, Visibility};

use crate::{errors::Errors, root::Root, suggest::closest};

/// The struct, without the parts that have mistakes.
pub(crate) struct State {
    pub(crate) root: Root,
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) fields: Vec<StateField>,
}

/// A named field.
pub(crate) struct StateField {
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    /// The attributes that the setter inherits.
    pub(crate) carried: Vec<Attribute>,
    pub(crate) merge: Merge,
}

/// The rule by which an update changes a field.
pub(crate) enum Merge {
    Replace,
    Append,
    /// Merges messages by their ids.
    Messages,
    With(ExprPath),
}

/// `key` or `key = path` in a `#[state(..)]`.
pub(crate) struct Entry {
    pub(crate) key: Ident,
    pub(crate) path: Option<ExprPath>,
}

impl State {
    /// Parses the item, and continues after a mistake, so that all mistakes are reported. Returns `None` for
    /// tokens that are no struct, enum or union.
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Option<Self> {
        let input: DeriveInput = syn::parse2(tokens).map_err(|error| errors.push(error)).ok()?;
        reject_lifetimes(&input.generics, errors);
        let root = root(entries(&input.attrs, errors), errors);
        let fields = match input.data {
            Data::Struct(data) => match data.fields {
                Fields::Named(fields) => {
                    let named = Named { ident: &input.ident, generics: &input.generics };
                    fields.named.into_iter().filter_map(|f| field(f, &named, errors)).collect()
                }
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
        Some(Self { root, vis: input.vis, ident: input.ident, generics: input.generics, fields })
    }
}

/// Parses a field. Returns `None` if it has no name, which cannot occur in a struct with named fields.
fn field(field: syn::Field, state: &Named<'_>, errors: &mut Errors) -> Option<StateField> {
    let merge = merge(entries(&field.attrs, errors), errors);
    let carried = |attr: &Attribute| attr.path().is_ident("doc") || attr.path().is_ident("deprecated");
    Some(StateField {
        vis: field.vis,
        ident: field.ident?,
        ty: state.in_place_of_self(field.ty),
        carried: field.attrs.into_iter().filter(carried).collect(),
        merge,
    })
}

/// The state's own name. In the update, `Self` would be the update.
struct Named<'a> {
    ident: &'a Ident,
    generics: &'a Generics,
}

impl Named<'_> {
    /// Writes the state's name in place of `Self`.
    fn in_place_of_self(&self, ty: Type) -> Type {
        let tokens = ty.to_token_stream();
        if !mentions_self(tokens.clone()) {
            return ty;
        }
        syn::parse2(self.replaced(tokens)).unwrap_or(ty)
    }

    fn replaced(&self, tokens: TokenStream) -> TokenStream {
        let mut tokens = tokens.into_iter().peekable();
        let mut replaced = TokenStream::new();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "Self" => {
                    let mut ident = self.ident.clone();
                    ident.set_span(word.span());
                    let arguments = self.generics.split_for_impl().1;
                    let is_path = matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
                    replaced.extend(if is_path {
                        quote_spanned!(word.span()=> <#ident #arguments>)
                    } else {
                        quote!(#ident #arguments)
                    });
                }
                TokenTree::Group(group) => {
                    let mut inside = Group::new(group.delimiter(), self.replaced(group.stream()));
                    inside.set_span(group.span());
                    replaced.extend([TokenTree::Group(inside)]);
                }
                token => replaced.extend([token]),
            }
        }
        replaced
    }
}

fn mentions_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == "Self",
        TokenTree::Group(group) => mentions_self(group.stream()),
        _ => false,
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
        // `crate` is a key too, and `Ident::parse` rejects keywords.
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

fn path(input: ParseStream<'_>) -> syn::Result<ExprPath> {
    if let Ok(text) = input.fork().parse::<syn::LitStr>() {
        return Err(input.error(format!("write the path without quotes: `{}`", text.value())));
    }
    if input.peek(Token![|]) {
        let error = input.error("name a function here: a closure cannot stand in an attribute");
        // Skip all remaining tokens, because the closure may contain commas.
        input.parse::<TokenStream>()?;
        return Err(error);
    }
    if input.is_empty() || input.peek(Token![,]) {
        // At the end of the input, `input.error` would put "unexpected end of input" before the text.
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

/// Rejects lifetimes: a run owns its state and moves it from thread to thread.
fn reject_lifetimes(generics: &Generics, errors: &mut Errors) {
    for lifetime in generics.lifetimes() {
        errors.spanning(&lifetime.lifetime, "a state cannot have lifetimes: its fields must own their data");
    }
}

/// Returns true for a reference without a lifetime. rustc reports it, and would report it again for each mention of the
/// type in the full expansion.
pub(crate) fn lacks_lifetime(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if reference.lifetime.is_none())
}

/// Interprets the struct's keys: `crate = path`.
fn root(entries: Vec<Entry>, errors: &mut Errors) -> Root {
    let mut root = None;
    for Entry { key, path } in entries {
        match (key.to_string().as_str(), path) {
            ("crate", Some(_)) if root.is_some() => errors.at(key.span(), "`crate` is given twice"),
            ("crate", Some(ExprPath { qself: None, path, .. })) => root = Some(path),
            ("crate", Some(path)) => errors.spanning(path, "`crate` needs the path of a module: `crate = path`"),
            ("crate", None) => errors.at(key.span(), "`crate` needs a path: `crate = path`"),
            (name @ ("append" | "messages" | "with"), _) => {
                errors.at(key.span(), format!("`{name}` belongs on a field of the state"));
            }
            (name, _) => unknown(&key, name, &["crate"], "the struct takes `crate = path`", errors),
        }
    }
    Root(root)
}

/// Interprets a field's keys: `append`, `messages` or `with = path`.
fn merge(entries: Vec<Entry>, errors: &mut Errors) -> Merge {
    let mut merge = Merge::Replace;
    for Entry { key, path } in entries {
        let next = match (key.to_string().as_str(), path) {
            ("append", _) => Merge::Append,
            ("messages", _) => Merge::Messages,
            ("with", Some(path)) => Merge::With(path),
            ("with", None) => {
                errors.at(key.span(), "`with` needs a function: `with = path`, a `fn(&mut T, T)`");
                continue;
            }
            ("crate", _) => {
                errors.at(key.span(), "`crate` belongs on the struct, not on a field");
                continue;
            }
            (name, _) => {
                let known = "a field takes `append`, `messages` or `with = path`";
                unknown(&key, name, &["append", "messages", "with"], known, errors);
                continue;
            }
        };
        match (&merge, &next) {
            (Merge::Replace, _) => merge = next,
            (Merge::Append, Merge::Append) | (Merge::Messages, Merge::Messages) | (Merge::With(_), Merge::With(_)) => {
                errors.at(key.span(), format!("`{key}` is given twice"));
            }
            _ => errors.at(key.span(), "a field merges in one way: `append`, `messages` or `with`"),
        }
    }
    merge
}

fn unknown(key: &Ident, name: &str, known: &[&str], all: &str, errors: &mut Errors) {
    let guess = closest(name, known).map(|guess| format!("; did you mean `{guess}`?")).unwrap_or_default();
    errors.at(key.span(), format!("unknown key `{name}`{guess} ({all})"));
}
