//! Tokens → [`State`]: the struct and the options in its `#[state(..)]` attributes.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Data, DeriveInput, ExprPath, Fields, Generics, LitInt, Token, Type, Visibility};

use super::serde::{JsonNames, Rules};
use crate::{errors::Errors, root::Root, suggest::closest};

/// The struct, without the parts that have mistakes.
pub(crate) struct State {
    pub(crate) root: Root,
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) fields: Vec<StateField>,
    /// The version of the form in which a store keeps the state.
    pub(crate) version: Option<LitInt>,
    /// The function that makes this version of an older one.
    pub(crate) migrate: Option<ExprPath>,
    /// False for a state that no store keeps, whose updates need not be written as JSON.
    pub(crate) is_stored: bool,
}

/// A named field.
pub(crate) struct StateField {
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    /// The attributes that the setter inherits.
    pub(crate) carried: Vec<Attribute>,
    pub(crate) merge: Merge,
    pub(crate) json: JsonNames,
}

/// The rule by which an update changes a field.
pub(crate) enum Merge {
    Replace,
    Append,
    /// Merges messages by their ids.
    Messages,
    With(ExprPath),
}

/// `key`, `key = path` or `key = 2` in a `#[state(..)]`.
pub(crate) struct Entry {
    pub(crate) key: Ident,
    pub(crate) path: Option<ExprPath>,
    pub(crate) number: Option<LitInt>,
}

impl State {
    /// Parses the item, and continues after a mistake, so that all mistakes are reported. Returns `None` for
    /// tokens that are no struct, enum or union.
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Option<Self> {
        let input: DeriveInput = syn::parse2(tokens).map_err(|error| errors.push(error)).ok()?;
        reject_lifetimes(&input.generics, errors);
        let Options { root, version, migrate, is_stored } = options(entries(&input.attrs, errors), errors);
        let rules = Rules::of(&input.attrs);
        let fields = match input.data {
            Data::Struct(data) => match data.fields {
                Fields::Named(fields) => {
                    let named = Named { ident: &input.ident, generics: &input.generics };
                    let rules = is_stored.then_some(&rules);
                    fields.named.into_iter().filter_map(|f| field(f, &named, rules, errors)).collect()
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
        let (vis, ident, generics) = (input.vis, input.ident, input.generics);
        Some(Self { root, vis, ident, generics, fields, version, migrate, is_stored })
    }
}

/// Parses a field. Returns `None` if it has no name, which cannot occur in a struct with named fields. Without rules, no
/// store keeps the field.
fn field(field: syn::Field, state: &Named<'_>, rules: Option<&Rules>, errors: &mut Errors) -> Option<StateField> {
    let ident = field.ident?;
    let merge = merge(entries(&field.attrs, errors), errors);
    let json = rules.map(|rules| JsonNames::of(&ident, &field.attrs, rules, errors)).unwrap_or_default();
    let carried = |attr: &Attribute| attr.path().is_ident("doc") || attr.path().is_ident("deprecated");
    Some(StateField {
        vis: field.vis,
        ident,
        ty: state.in_place_of_self(field.ty),
        carried: field.attrs.into_iter().filter(carried).collect(),
        merge,
        json,
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
        let mut number = None;
        let path = if input.peek(Token![=]) && ["append", "messages", "not_stored"].iter().any(|flag| key == flag) {
            return Err(input.error(format!("`{key}` takes no value")));
        } else if input.peek(Token![=]) && key == "version" {
            input.parse::<Token![=]>()?;
            let written = input.span();
            let parsed = input.parse::<LitInt>();
            number = Some(parsed.map_err(|_| syn::Error::new(written, "`version` is a number: `version = 2`"))?);
            None
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
        Ok(Self { key, path, number })
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

/// The options of the struct.
struct Options {
    root: Root,
    version: Option<LitInt>,
    migrate: Option<ExprPath>,
    is_stored: bool,
}

/// Interprets the struct's keys.
fn options(entries: Vec<Entry>, errors: &mut Errors) -> Options {
    let mut options = Options { root: Root(None), version: None, migrate: None, is_stored: true };
    let mut seen: Vec<Ident> = Vec::new();
    for Entry { key, path, number } in entries {
        if seen.contains(&key) {
            errors.at(key.span(), format!("`{key}` is given twice"));
            continue;
        }
        match (key.to_string().as_str(), path) {
            ("crate", Some(ExprPath { qself: None, path, .. })) => options.root = Root(Some(path)),
            ("crate", Some(path)) => errors.spanning(path, "`crate` needs the path of a module: `crate = path`"),
            ("crate", None) => errors.at(key.span(), "`crate` needs a path: `crate = path`"),
            ("version", _) => match number {
                Some(number) if number.base10_parse::<u32>().is_ok_and(|version| version > 0) => {
                    options.version = Some(number);
                }
                Some(number) => errors.at(number.span(), "a version is a number from 1 to 4294967295"),
                None => errors.at(key.span(), "`version` needs a number: `version = 2`"),
            },
            ("migrate", Some(path)) => options.migrate = Some(path),
            ("migrate", None) => {
                let text = "`migrate` needs a function: `migrate = path`, a `fn(Value, u32) -> Result<Value, E>`";
                errors.at(key.span(), text);
            }
            ("not_stored", _) => options.is_stored = false,
            (name @ ("append" | "messages" | "with"), _) => {
                errors.at(key.span(), format!("`{name}` belongs on a field of the state"));
            }
            (name, _) => {
                let all = "the struct takes `crate = path`, `version = 2`, `migrate = path` or `not_stored`";
                unknown(&key, name, &["crate", "version", "migrate", "not_stored"], all, errors);
            }
        }
        seen.push(key);
    }
    // A version with a mistake is reported already.
    let is_first = match &options.version {
        Some(version) => version.base10_digits() == "1",
        None => seen.iter().all(|key| key != "version"),
    };
    if let Some(migrate) = options.migrate.as_ref().filter(|_| is_first) {
        errors.spanning(migrate, "`migrate` is called for a state of an older version: add `version = 2`");
    }
    options
}

/// Interprets a field's keys: `append`, `messages` or `with = path`.
fn merge(entries: Vec<Entry>, errors: &mut Errors) -> Merge {
    let mut merge = Merge::Replace;
    for Entry { key, path, .. } in entries {
        let next = match (key.to_string().as_str(), path) {
            ("append", _) => Merge::Append,
            ("messages", _) => Merge::Messages,
            ("with", Some(path)) => Merge::With(path),
            ("with", None) => {
                errors.at(key.span(), "`with` needs a function: `with = path`, a `fn(&mut T, T)`");
                continue;
            }
            (name @ ("crate" | "version" | "migrate" | "not_stored"), _) => {
                errors.at(key.span(), format!("`{name}` belongs on the struct, not on a field"));
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
