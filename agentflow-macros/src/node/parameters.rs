//! The parameters of a node: their names, and the rules of each.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{Ident, Pat, PatType, Type, TypeReference};

use super::syntax::is_inject;
use crate::{errors::Errors, printing::text, suggest::closest};

pub(crate) enum Parameter {
    State(State),
    /// The value that the edge carries.
    Input(Input),
    /// A parameter that is known by its name, with the user's type.
    Known(&'static Known, Type),
    /// `#[inject] db: &Db`, with `Db`.
    Inject(Type),
}

pub(crate) enum State {
    InPlace(Type),
    Reads(Type),
    Owns(Type),
}

/// The `input` parameter, with the type of the value.
pub(crate) enum Input {
    Borrowed(Type),
    Copied(Type),
}

impl Input {
    pub(crate) fn value_type(&self) -> &Type {
        let (Self::Borrowed(ty) | Self::Copied(ty)) = self;
        ty
    }
}

/// A parameter that is known by its name.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    /// The type of the value.
    pub(crate) given: fn() -> TokenStream,
    /// The expression that takes the value from the context `__cx`.
    pub(crate) value: fn() -> TokenStream,
}

const KNOWN: [Known; 7] = [
    Known { name: "config", given: || quote!(&__af::RunConfig), value: || quote!(__cx.config) },
    Known {
        name: "task_manager",
        given: || quote!(&__af::BackgroundTaskManager),
        value: || quote!(&__cx.task_manager()),
    },
    Known { name: "events", given: || quote!(&__af::EventWriter), value: || quote!(__cx.events) },
    Known { name: "cancel", given: || quote!(&__af::CancellationToken), value: || quote!(__cx.cancel) },
    Known { name: "attempt", given: || quote!(u32), value: || quote!(__cx.attempt()) },
    Known { name: "steps_left", given: || quote!(usize), value: || quote!(__cx.steps_left()) },
    Known {
        name: "error",
        given: || quote!(::core::option::Option<&__af::NodeFailure>),
        value: || quote!(__cx.error()),
    },
];

impl Known {
    fn from_name(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.name == name)
    }

    /// The variable that holds the value during the call.
    pub(crate) fn variable(&self) -> Ident {
        format_ident!("__{}", self.name)
    }
}

pub(crate) fn parameter(input: &PatType, errors: &mut Errors) -> Option<(String, Parameter)> {
    if let Some(cfg) = input.attrs.iter().find(|attr| attr.path().is_ident("cfg")) {
        errors.spanning(cfg, "a node's parameter cannot be conditional: put `#[cfg]` on the whole function");
    }
    if let Some(keyword) = impl_trait(input.ty.to_token_stream()) {
        errors.spanning(
            keyword,
            "a node cannot take `impl Trait`: name the type, or make it a type parameter: `async fn node<T: Trait>(..)`",
        );
        return None;
    }
    let Pat::Ident(name) = &*input.pat else {
        errors.spanning(&input.pat, "a node's parameter needs a plain name; destructure it in the body");
        return None;
    };
    let ident = &name.ident;
    let text = ident.to_string();
    let known = text.trim_start_matches('_');
    let parameter = if input.attrs.iter().any(is_inject) {
        Parameter::Inject(injected(ident, &input.ty, errors)?)
    } else if known == "state" {
        Parameter::State(state(&input.ty))
    } else if known == "input" {
        Parameter::Input(value(ident, &input.ty, errors)?)
    } else if let Some(known) = Known::from_name(known) {
        Parameter::Known(known, (*input.ty).clone())
    } else {
        unknown(ident, known, &input.ty, errors);
        return None;
    };
    Some((known.to_owned(), parameter))
}

fn unknown(ident: &Ident, name: &str, ty: &Type, errors: &mut Errors) {
    let names: Vec<_> = ["state", "input"].into_iter().chain(KNOWN.iter().map(|known| known.name)).collect();
    let message = if let Some(close) = closest(name, &names) {
        format!("unknown node parameter `{ident}`; did you mean `{close}`?")
    } else {
        let service = match ty {
            Type::Reference(reference) => text(&reference.elem),
            ty => text(ty),
        };
        format!(
            "unknown node parameter `{ident}`: a node takes `state`, `input`, `config`, `task_manager`, `events`, \
             `cancel`, `attempt`, `steps_left` and `error`; a service of the app is injected: `#[inject] {ident}: &{service}`"
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

/// The type of the `input` parameter. A borrowed value has a sized type, which the edge carries.
fn value(ident: &Ident, ty: &Type, errors: &mut Errors) -> Option<Input> {
    let Type::Reference(TypeReference { mutability, elem, .. }) = ty else { return Some(Input::Copied(ty.clone())) };
    let owned = match &**elem {
        Type::Path(path) if path.path.is_ident("str") => Some("String".to_owned()),
        Type::Slice(slice) => Some(format!("Vec<{}>", text(&slice.elem))),
        _ => None,
    };
    if let Some(owned) = owned {
        errors.spanning(ty, format!("an edge carries an owned value: write `{ident}: &{owned}`"));
        return None;
    }
    if mutability.is_some() {
        let elem = text(elem);
        errors
            .spanning(ty, format!("every attempt has the same input: write `{ident}: &{elem}`, or `{ident}: {elem}`"));
        return None;
    }
    Some(Input::Borrowed((**elem).clone()))
}

fn injected(ident: &Ident, ty: &Type, errors: &mut Errors) -> Option<Type> {
    match ty {
        Type::Reference(TypeReference { mutability: None, elem, .. }) => Some((**elem).clone()),
        Type::Reference(TypeReference { mutability: Some(_), elem, .. }) => {
            errors.spanning(ty, format!("a service is shared by all runs: write `{ident}: &{}`", text(elem)));
            None
        }
        ty => {
            errors.spanning(ty, format!("an injected service is borrowed: write `{ident}: &{}`", text(ty)));
            None
        }
    }
}

/// Returns the first `impl` in a type.
pub(crate) fn impl_trait(ty: TokenStream) -> Option<Ident> {
    ty.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "impl" => Some(ident),
        TokenTree::Group(group) => impl_trait(group.stream()),
        _ => None,
    })
}
