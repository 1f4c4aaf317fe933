//! [`Function`] → [`Signature`]: the rules of a node's signature. All are applied, so that all mistakes show at once.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{FnArg, GenericParam, ReturnType, Safety, Type};

use super::{
    parameters::{Parameter, Seen, State, elided, impl_trait, is_named, parameter},
    syntax::Function,
};
use crate::{
    errors::Errors,
    printing::text,
    types::{bare, last_segment, type_arguments},
};

/// The part of a function's signature that its impls depend on.
#[derive(Default)]
pub(crate) struct Signature {
    /// The parameters, in the function's order.
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) is_method: bool,
}

pub(crate) fn check(function: &Function, errors: &mut Errors) -> Signature {
    let mut signature = Signature::default();
    if is_method(function, "node", "take `state: &mut S` instead of `self`", errors) {
        signature.is_method = true;
        return signature;
    }
    qualifiers(function, "node", errors);
    generics(function, errors);
    let mut seen = Seen::default();
    let is_typed_state = |input: &FnArg| matches!(input, FnArg::Typed(input) if is_named(input, "state"));
    let has_state = function.sig.inputs.iter().any(is_typed_state);
    for input in &function.sig.inputs {
        if let FnArg::Typed(input) = input
            && let Some((name, parameter)) = parameter(input, has_state, errors)
        {
            if !seen.is_first(input, name, "node", errors) {
                continue;
            }
            if let Parameter::Inject(service) = &parameter {
                seen.service(input, service, errors);
            }
            signature.parameters.push(parameter);
        }
    }
    result(function, &signature, errors);
    signature
}

/// Reports a method, and a function that is written in an `impl`, and returns whether it is one.
pub(crate) fn is_method(function: &Function, noun: &str, instead: &str, errors: &mut Errors) -> bool {
    if let Some(receiver) = receiver(function) {
        errors.spanning(receiver, format!("a {noun} is a free function, not a method: {instead}"));
        return true;
    }
    if let Some(of_impl) = self_type(function.sig.to_token_stream()) {
        let text = format!("a {noun} is a free function: write it outside of the `impl`, and name the type");
        errors.at(of_impl.span(), text);
        return true;
    }
    false
}

fn receiver(function: &Function) -> Option<&syn::Receiver> {
    function.sig.inputs.iter().find_map(|input| match input {
        FnArg::Receiver(receiver) => Some(receiver),
        FnArg::Typed(_) => None,
    })
}

pub(crate) fn qualifiers(function: &Function, noun: &str, errors: &mut Errors) {
    let sig = &function.sig;
    let asynchronous = format!("write `async fn {}`", sig.ident);
    if let (Some(token), None) = (&sig.constness, &sig.asyncness) {
        // A `const fn` cannot be `async`, so both are one mistake.
        errors.spanning(token, format!("a {noun} is asynchronous, not `const`: {asynchronous}"));
    } else if sig.asyncness.is_none() {
        errors.at(sig.fn_token.span, format!("a {noun} is asynchronous: {asynchronous}"));
    }
    let mut reject = |token: Option<&dyn ToTokens>, word: &str| {
        if let Some(token) = token {
            errors.spanning(token, format!("a {noun} cannot be `{word}`"));
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

fn result(function: &Function, signature: &Signature, errors: &mut Errors) {
    let owned = signature.parameters.iter().find_map(|parameter| match parameter {
        Parameter::State(State::Owns(ty)) => Some(ty),
        _ => None,
    });
    let output = match &function.sig.output {
        ReturnType::Default => None,
        ReturnType::Type(_, ty) => Some(bare(ty)),
    };
    if let Some(state) = owned
        && output.is_none_or(returns_nothing)
    {
        let (name, written) = (text(state), with_state(output, state));
        let text = format!(
            "a node with `state: {name}` changes a copy and returns it: write `-> {written}`, or `state: &mut {name}`"
        );
        errors.spanning(state, text);
        return;
    }
    let answer = signature.parameters.iter().find_map(|parameter| match parameter {
        Parameter::Answer(ty) => Some(ty),
        _ => None,
    });
    let Some(output) = output else {
        if let Some(answer) = answer {
            let text = "a node with `answer` asks a question: write `-> Ask<Question>`, or leave the parameter out";
            errors.spanning(answer, text);
        }
        return;
    };
    // A parameter with a mistake may have been meant to be the answer.
    let are_all_known = signature.parameters.len() == function.sig.inputs.len();
    if let Some(ask) = asks(output).filter(|_| answer.is_none() && are_all_known) {
        let text = "this node asks a question: add the parameter `answer: Option<A>`, `None` until it is answered";
        errors.at(ask.span(), text);
        return;
    }
    result_without_name(output, "node", "so that the graph can go on", errors);
}

/// Reports a result that the impls cannot name, or that never comes. `reason` is why a `noun` returns.
pub(crate) fn result_without_name(output: &Type, noun: &str, reason: &str, errors: &mut Errors) {
    let tokens = output.to_token_stream();
    if let Some(keyword) = impl_trait(tokens.clone()) {
        errors.spanning(keyword, format!("a {noun} cannot return `impl Trait`: name the type"));
    } else if let Type::Never(never) = output {
        errors.spanning(never, format!("a {noun} returns, {reason}: leave out `-> !`"));
    } else if let Some(borrow) = elided(&tokens) {
        let text = format!("the result of a {noun} cannot borrow: return a value that owns its data");
        errors.at(borrow, text);
    }
}

/// Returns the word `Ask` of the results `Ask<Q, T>` and `Result<Ask<Q, T>, E>`.
fn asks(ty: &Type) -> Option<&Ident> {
    match &last_segment(ty)?.ident {
        ask if is_ask(ty) => Some(ask),
        result if result == "Result" => type_arguments(ty).first().and_then(|ok| asks(ok)),
        _ => None,
    }
}

/// Returns the result with the state in the place of nothing.
fn with_state(output: Option<&Type>, state: &Type) -> String {
    let arguments = output.map(type_arguments).unwrap_or_default();
    match &arguments[..] {
        [question, ..] if output.is_some_and(is_ask) => format!("Ask<{}, {}>", text(question), text(state)),
        [ok, error] => format!("Result<{}, {}>", with_state(Some(ok), state), text(error)),
        [ok] => format!("Result<{}>", with_state(Some(ok), state)),
        _ => text(state),
    }
}

/// Returns true for `()` and `Result<(), E>`, and for `Ask<Q>`, `Ask<Q, ()>` in the place of `()`.
fn returns_nothing(ty: &Type) -> bool {
    let ty = bare(ty);
    let arguments = type_arguments(ty);
    match ty {
        Type::Tuple(tuple) => tuple.elems.is_empty(),
        ty if is_ask(ty) => arguments.get(1).is_none_or(|done| returns_nothing(done)),
        ty => {
            last_segment(ty).is_some_and(|last| last.ident == "Result")
                && arguments.first().is_some_and(|ok| returns_nothing(ok))
        }
    }
}

/// Returns true for `Ask<Q, T>` and `Ask<Q>`.
fn is_ask(ty: &Type) -> bool {
    last_segment(ty).is_some_and(|last| last.ident == "Ask") && !type_arguments(ty).is_empty()
}

/// Returns the first `Self`.
fn self_type(tokens: TokenStream) -> Option<Ident> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "Self" => Some(ident),
        TokenTree::Group(group) => self_type(group.stream()),
        _ => None,
    })
}
