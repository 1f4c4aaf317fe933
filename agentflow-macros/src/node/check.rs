//! [`Function`] → [`Signature`]: the rules of a node's signature. All are applied, so that all mistakes show at once.

use std::collections::HashSet;

use quote::ToTokens;
use syn::{FnArg, GenericParam, ReturnType, Safety};

use super::{
    parameters::{Parameter, impl_trait, parameter},
    syntax::Function,
};
use crate::errors::Errors;

/// The part of a function's signature that its impls depend on.
#[derive(Default)]
pub(crate) struct Signature {
    /// The parameters, in the function's order.
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) is_method: bool,
}

pub(crate) fn check(function: &Function, errors: &mut Errors) -> Signature {
    let mut signature = Signature::default();
    if let Some(receiver) = receiver(function) {
        errors.spanning(receiver, "a node is a free function, not a method: take `state: &mut S` instead of `self`");
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
        // A `const fn` cannot be `async`, so both are one mistake.
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
            errors.spanning(lifetime, "a node cannot have named lifetimes; use elided ones: `&mut S`");
        }
    }
}

fn result(function: &Function, errors: &mut Errors) {
    if let ReturnType::Type(_, ty) = &function.sig.output
        && let Some(keyword) = impl_trait(ty.to_token_stream())
    {
        errors.spanning(keyword, "a node cannot return `impl Trait`: name the type");
    }
}
