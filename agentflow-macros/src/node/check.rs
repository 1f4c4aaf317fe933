//! [`Function`] → [`Signature`]: the rules of a node's signature, all applied, so that all mistakes show at once.

use std::collections::HashSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{FnArg, GenericParam, Ident, Pat, PatType, ReturnType, Safety, Type, TypeReference};

use super::syntax::{Function, is_inject};
use crate::{errors::Errors, printing::text, suggest::closest};

/// What the signature asks of the runtime.
#[derive(Default)]
pub(crate) struct Signature {
    /// In the order in which the function takes them.
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) is_method: bool,
}

pub(crate) enum Parameter {
    State(State),
    /// One of the parameters that are known by name, with the type that the user wrote.
    Known(Known, Type),
    /// `#[inject] db: &Db`, with `Db`.
    Inject(Type),
}

pub(crate) enum State {
    InPlace(Type),
    Reads(Type),
    Owns(Type),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Config,
    TaskManager,
    Events,
    Cancel,
    Attempt,
    Error,
}

const NAMES: [&str; 7] = ["state", "config", "task_manager", "events", "cancel", "attempt", "error"];

impl Known {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "config" => Self::Config,
            "task_manager" => Self::TaskManager,
            "events" => Self::Events,
            "cancel" => Self::Cancel,
            "attempt" => Self::Attempt,
            "error" => Self::Error,
            _ => return None,
        })
    }
}

pub(crate) fn check(function: &Function, errors: &mut Errors) -> Signature {
    let mut signature = Signature::default();
    if let Some(receiver) = receiver(function) {
        errors.spanning(
            receiver,
            "a node is a function of its own, not a method: take `state: &mut S` instead of `self`",
        );
        signature.is_method = true;
        return signature;
    }
    qualifiers(function, errors);
    generics(function, errors);
    let mut seen = HashSet::new();
    for input in &function.sig.inputs {
        if let FnArg::Typed(input) = input
            && let Some((name, parameter)) = parameter(input, errors)
        {
            if seen.contains(&name) {
                errors.spanning(&input.pat, format!("a node takes `{name}` once"));
                continue;
            }
            seen.insert(name);
            signature.parameters.push(parameter);
        }
    }
    result(function, errors);
    signature
}

fn receiver(function: &Function) -> Option<&syn::Receiver> {
    function.sig.inputs.iter().find_map(|input| match input {
        FnArg::Receiver(receiver) => Some(receiver),
        FnArg::Typed(_) => None,
    })
}

fn qualifiers(function: &Function, errors: &mut Errors) {
    let sig = &function.sig;
    let asynchronous = format!("write `async fn {}`", sig.ident);
    if let (Some(token), None) = (&sig.constness, &sig.asyncness) {
        // One mistake, not two.
        errors.spanning(token, format!("a node is asynchronous, not `const`: {asynchronous}"));
    } else if sig.asyncness.is_none() {
        errors.at(sig.fn_token.span, format!("a node is asynchronous: {asynchronous}"));
    }
    let mut reject = |token: Option<&dyn ToTokens>, word: &str| {
        if let Some(token) = token {
            errors.spanning(token, format!("a node cannot be `{word}`"));
        }
    };
    reject(sig.abi.as_ref().map(|token| token as _), "extern");
    reject(sig.variadic.as_ref().map(|token| token as _), "variadic");
    if let Safety::Unsafe(token) = &sig.safety {
        reject(Some(token), "unsafe");
    }
}

fn generics(function: &Function, errors: &mut Errors) {
    for parameter in &function.sig.generics.params {
        if let GenericParam::Lifetime(lifetime) = parameter {
            errors.spanning(lifetime, "a node's references live as long as its run: leave the lifetime out");
        }
    }
}

fn parameter(input: &PatType, errors: &mut Errors) -> Option<(String, Parameter)> {
    if let Some(cfg) = input.attrs.iter().find(|attr| attr.path().is_ident("cfg")) {
        errors.spanning(cfg, "a node's parameter cannot be conditional: put `#[cfg]` on the whole function");
    }
    if let Some(place) = impl_trait(input.ty.to_token_stream()) {
        errors.spanning(
            place,
            "a node cannot take `impl Trait`: name the type, or make it a type parameter: `async fn node<T: Trait>(..)`",
        );
        return None;
    }
    let Pat::Ident(name) = &*input.pat else {
        errors.spanning(
            &input.pat,
            "a node's parameter is chosen by its name: write a name, and take it apart in the body",
        );
        return None;
    };
    let ident = &name.ident;
    let text = ident.to_string();
    let known = text.trim_start_matches('_');
    let parameter = if input.attrs.iter().any(is_inject) {
        Parameter::Inject(injected(ident, &input.ty, errors)?)
    } else if known == "state" {
        Parameter::State(state(&input.ty))
    } else if let Some(known) = Known::from_name(known) {
        Parameter::Known(known, (*input.ty).clone())
    } else {
        unknown(ident, known, &input.ty, errors);
        return None;
    };
    Some((known.to_owned(), parameter))
}

fn unknown(ident: &Ident, name: &str, ty: &Type, errors: &mut Errors) {
    let message = if let Some(close) = closest(name, &NAMES) {
        format!("unknown node parameter `{ident}`; did you mean `{close}`?")
    } else {
        let service = match ty {
            Type::Reference(reference) => text(&reference.elem),
            ty => text(ty),
        };
        format!(
            "unknown node parameter `{ident}`: a node takes `state`, `config`, `task_manager`, `events`, `cancel`, \
             `attempt` and `error`; a service of the app's context is injected: `#[inject] {ident}: &{service}`"
        )
    };
    errors.at(ident.span(), message);
}

fn state(ty: &Type) -> State {
    match ty {
        Type::Reference(TypeReference { mutability: Some(_), elem, .. }) => State::InPlace((**elem).clone()),
        Type::Reference(TypeReference { elem, .. }) => State::Reads((**elem).clone()),
        ty => State::Owns(ty.clone()),
    }
}

fn injected(ident: &Ident, ty: &Type, errors: &mut Errors) -> Option<Type> {
    match ty {
        Type::Reference(TypeReference { mutability: None, elem, .. }) => Some((**elem).clone()),
        Type::Reference(TypeReference { mutability: Some(_), elem, .. }) => {
            errors.spanning(ty, format!("a service is shared by all runs: write `{ident}: &{}`", text(elem)));
            None
        }
        ty => {
            errors.spanning(ty, format!("a service is lent, not given: write `{ident}: &{}`", text(ty)));
            None
        }
    }
}

fn result(function: &Function, errors: &mut Errors) {
    if let ReturnType::Type(_, ty) = &function.sig.output
        && let Some(place) = impl_trait(ty.to_token_stream())
    {
        errors.spanning(place, "a node cannot return `impl Trait`: name the type");
    }
}

/// Where `impl` stands in a type, if it does.
fn impl_trait(ty: TokenStream) -> Option<Ident> {
    ty.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "impl" => Some(ident),
        TokenTree::Group(group) => impl_trait(group.stream()),
        _ => None,
    })
}
