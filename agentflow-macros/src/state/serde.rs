//! serde's attributes, which say how a field is written as JSON. serde's own derive reports those with mistakes.

use proc_macro2::{Ident, TokenStream};
use syn::{Attribute, Expr, LitStr, Token, ext::IdentExt, meta::ParseNestedMeta, parenthesized};

use crate::errors::Errors;

/// The names of a field in JSON.
#[derive(Default)]
pub(crate) struct JsonNames {
    /// The name under which the field is written; `None` if it is not.
    pub(crate) written: Option<String>,
    /// The names under which it is read; none if it is not.
    pub(crate) read: Vec<String>,
}

/// A value for writing and one for reading: `key = "x"` or `key(serialize = "x", deserialize = "y")`.
#[derive(Clone, Default)]
struct Both {
    serialize: Option<String>,
    deserialize: Option<String>,
}

/// The rules of `#[serde(rename_all = ..)]` on the struct.
pub(crate) struct Rules(Both);

impl Rules {
    pub(crate) fn of(attributes: &[Attribute]) -> Self {
        let mut rules = Both::default();
        each_key(attributes, |key, meta| if key == "rename_all" { rules.parse(meta) } else { skip_value(meta) });
        Self(rules)
    }
}

impl JsonNames {
    /// Reads the attributes of a field. One that changes the form of its value is reported.
    pub(crate) fn of(field: &Ident, attributes: &[Attribute], rules: &Rules, errors: &mut Errors) -> Self {
        let mut renamed = Both::default();
        let mut aliases = Vec::new();
        let (mut is_written, mut is_read) = (true, true);
        let mut form = None;
        each_key(attributes, |key, meta| {
            match key.to_string().as_str() {
                "rename" => return renamed.parse(meta),
                "alias" => {
                    aliases.push(meta.value()?.parse::<LitStr>()?.value());
                    return Ok(());
                }
                "skip" => (is_written, is_read) = (false, false),
                "skip_serializing" => is_written = false,
                "skip_deserializing" => is_read = false,
                "flatten" | "with" | "serialize_with" | "deserialize_with" => form = Some(key.clone()),
                _ => {}
            }
            skip_value(meta)
        });
        if let Some(key) = form.filter(|_| is_written || is_read) {
            errors.at(
                key.span(),
                format!(
                    "an update cannot be written as JSON with `{key}`; put the value into a type with a form of its own, or add \
                     `#[state(not_stored)]` to a struct that no store keeps"
                ),
            );
        }
        let name = field.unraw().to_string();
        let by_rule = |rule: &Option<String>| rule.as_ref().map_or_else(|| name.clone(), |rule| apply(rule, &name));
        let written = renamed.serialize.unwrap_or_else(|| by_rule(&rules.0.serialize));
        let read = renamed.deserialize.unwrap_or_else(|| by_rule(&rules.0.deserialize));
        let read = [read].into_iter().chain(aliases);
        Self { written: is_written.then_some(written), read: if is_read { read.collect() } else { Vec::new() } }
    }
}

impl Both {
    fn parse(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        if meta.input.peek(Token![=]) {
            let value = Some(meta.value()?.parse::<LitStr>()?.value());
            *self = Self { serialize: value.clone(), deserialize: value };
            return Ok(());
        }
        meta.parse_nested_meta(|meta| {
            let value = Some(meta.value()?.parse::<LitStr>()?.value());
            if meta.path.is_ident("serialize") {
                self.serialize = value;
            } else {
                self.deserialize = value;
            }
            Ok(())
        })
    }
}

/// Calls `read` with each key in `#[serde(..)]`.
fn each_key(attributes: &[Attribute], mut read: impl FnMut(&Ident, &ParseNestedMeta<'_>) -> syn::Result<()>) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        // serde reports what does not parse.
        let _ = attribute.parse_nested_meta(|meta| match meta.path.get_ident() {
            Some(key) => read(key, &meta),
            None => skip_value(&meta),
        });
    }
}

fn skip_value(meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
    if meta.input.peek(Token![=]) {
        meta.value()?.parse::<Expr>()?;
    } else if meta.input.peek(syn::token::Paren) {
        let inside;
        parenthesized!(inside in meta.input);
        inside.parse::<TokenStream>()?;
    }
    Ok(())
}

/// Applies a rule of `rename_all` to the name of a field, as serde does.
fn apply(rule: &str, field: &str) -> String {
    let pascal = || -> String {
        let words = field.split('_').map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
        });
        words.collect()
    };
    match rule {
        "UPPERCASE" | "SCREAMING_SNAKE_CASE" => field.to_ascii_uppercase(),
        "PascalCase" => pascal(),
        "camelCase" => {
            let pascal = pascal();
            let mut letters = pascal.chars();
            letters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + letters.as_str())
        }
        "kebab-case" => field.replace('_', "-"),
        "SCREAMING-KEBAB-CASE" => field.to_ascii_uppercase().replace('_', "-"),
        // `lowercase` and `snake_case`; serde reports others.
        _ => field.to_owned(),
    }
}
