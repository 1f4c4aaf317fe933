//! [`Input`] → [`State`]: one function per rule.

use proc_macro2::Ident;
use syn::{Attribute, Generics, Path, Type, Visibility};

use super::syntax::{Entry, Field, Input};
use crate::errors::Errors;
use crate::root::Root;
use crate::suggest::closest;

/// A struct that obeys the rules, or as much of it as does.
pub(crate) struct State {
    pub(crate) root: Root,
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) fields: Vec<StateField>,
}

pub(crate) struct StateField {
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) carried: Vec<Attribute>,
    pub(crate) merge: Merge,
    /// The names of the state's type parameters.
    pub(crate) type_parameters: Vec<String>,
}

/// How an update changes a field.
pub(crate) enum Merge {
    Replace,
    Append,
    /// By the ids of the messages.
    Messages,
    With(Path),
}

impl State {
    pub(crate) fn check(input: Input, errors: &mut Errors) -> Self {
        owns_all(&input.generics, errors);
        let root = root(input.entries, errors);
        let parameters: Vec<_> = input.generics.type_params().map(|parameter| parameter.ident.to_string()).collect();
        let fields = input.fields.into_iter().map(|field| StateField::check(field, &parameters, errors)).collect();
        Self { root, vis: input.vis, ident: input.ident, generics: input.generics, fields }
    }
}

impl StateField {
    fn check(field: Field, type_parameters: &[String], errors: &mut Errors) -> Self {
        let Field { vis, ident, ty, carried, entries } = field;
        let type_parameters = type_parameters.to_vec();
        Self { vis, ident, ty, carried, merge: merge(entries, errors), type_parameters }
    }
}

/// A run owns its state, and moves it from thread to thread.
fn owns_all(generics: &Generics, errors: &mut Errors) {
    for lifetime in generics.lifetimes() {
        errors.spanning(&lifetime.lifetime, "a state owns all it has: it cannot borrow for a lifetime");
    }
}

/// `field: &str`: rustc's own error, which would come back from every place where the update mentions the type.
pub(crate) fn lacks_lifetime(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if reference.lifetime.is_none())
}

/// The struct's own keys: `crate = path`.
fn root(entries: Vec<Entry>, errors: &mut Errors) -> Root {
    let mut root = None;
    for Entry { key, path } in entries {
        match (key.to_string().as_str(), path) {
            ("crate", Some(_)) if root.is_some() => errors.at(key.span(), "`crate` is given twice"),
            ("crate", Some(path)) => root = Some(path),
            ("crate", None) => errors.at(key.span(), "`crate` needs a path: `crate = path`"),
            (name @ ("append" | "messages" | "with"), _) => {
                errors.at(key.span(), format!("`{name}` belongs on a field of the state"));
            }
            (name, _) => unknown(&key, name, &["crate"], "the struct takes `crate = path`", errors),
        }
    }
    Root(root)
}

/// A field's keys: `append`, `messages` or `with = path`.
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
