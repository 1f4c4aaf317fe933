//! The parameters of a node: their names, and the rules of each.

use std::collections::HashSet;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{Attribute, Ident, Pat, PatType, Type, TypeReference};

use super::syntax::is_inject;
use crate::{
    errors::Errors,
    printing::text,
    suggest::closest,
    types::{bare, is_std_collection, last_segment, optional, type_arguments},
};

pub(crate) enum Parameter {
    State(State),
    /// The value that the edge carries.
    Input(Input),
    /// The answer to the node's question, with the type of the parameter.
    Answer(Type),
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
    /// The type of the parameter, as users write it.
    pub(crate) written: &'static str,
    /// The type of the value.
    pub(crate) given: fn() -> TokenStream,
    /// The expression that takes the value from the context `__cx`.
    pub(crate) value: fn() -> TokenStream,
}

const KNOWN: [Known; 8] = [
    Known { name: "config", written: "&RunConfig", given: || quote!(&__af::RunConfig), value: || quote!(__cx.config) },
    Known {
        name: "task_manager",
        written: "&BackgroundTaskManager",
        given: || quote!(&__af::BackgroundTaskManager),
        value: || quote!(&__cx.task_manager()),
    },
    Known {
        name: "events",
        written: "&EventWriter",
        given: || quote!(&__af::EventWriter),
        value: || quote!(__cx.events),
    },
    Known {
        name: "cancel",
        written: "&CancellationToken",
        given: || quote!(&__af::CancellationToken),
        value: || quote!(__cx.cancel),
    },
    Known { name: "attempt", written: "u32", given: || quote!(u32), value: || quote!(__cx.attempt()) },
    Known { name: "step", written: "&StepId", given: || quote!(&__af::StepId), value: || quote!(&__cx.step()) },
    Known { name: "steps_left", written: "usize", given: || quote!(usize), value: || quote!(__cx.steps_left()) },
    Known {
        name: "error",
        written: "Option<&NodeFailure>",
        given: || quote!(::core::option::Option<&__af::NodeFailure>),
        value: || quote!(__cx.error()),
    },
];

impl Known {
    pub(crate) fn from_name(known: &'static [Self], name: &str) -> Option<&'static Self> {
        known.iter().find(|known| known.name == name)
    }

    /// Returns the parameter that has a type of this name, behind a reference or in an `Option`. A number may be anything.
    pub(crate) fn from_type(known: &'static [Self], ty: &Type) -> Option<&'static Self> {
        let name = last_segment(lent(ty))?.ident.to_string();
        let of_type =
            |known: &&Self| known.written.trim_start_matches("Option<").trim_end_matches('>') == format!("&{name}");
        known.iter().find(of_type)
    }

    /// The variable that holds the value during the call.
    pub(crate) fn variable(&self) -> Ident {
        format_ident!("__{}", self.name)
    }
}

/// Returns the type without references and `Option`.
fn lent(ty: &Type) -> &Type {
    match bare(ty) {
        Type::Reference(reference) => lent(&reference.elem),
        ty => optional(ty).map_or(ty, lent),
    }
}

fn is_mutable_reference(ty: &Type) -> bool {
    matches!(bare(ty), Type::Reference(TypeReference { mutability: Some(_), .. }))
}

/// Returns true if the type has the name of the crate's own state.
fn is_agent_state(ty: &Type) -> bool {
    last_segment(lent(ty)).is_some_and(|last| last.ident == "AgentState")
}

/// Returns true if the parameter has this name.
pub(crate) fn is_named(input: &PatType, expected: &str) -> bool {
    matches!(&*input.pat, Pat::Ident(name) if name.ident.to_string().trim_start_matches('_') == expected)
}

/// Returns the plain name of a parameter of a `noun`, or reports a parameter that has none. `of_type` is the advice for an
/// `impl Trait`.
pub(crate) fn plain_name<'p>(input: &'p PatType, noun: &str, of_type: &str, errors: &mut Errors) -> Option<&'p Ident> {
    if let Some(cfg) = input.attrs.iter().find(|attr| attr.path().is_ident("cfg")) {
        errors.spanning(cfg, format!("a {noun}'s parameter cannot be conditional: put `#[cfg]` on the whole function"));
    }
    if let Some(keyword) = impl_trait(input.ty.to_token_stream()) {
        errors.spanning(keyword, format!("a {noun} cannot take `impl Trait`: {of_type}"));
        return None;
    }
    let Pat::Ident(name) = &*input.pat else {
        errors.spanning(&input.pat, format!("a {noun}'s parameter needs a plain name; destructure it in the body"));
        return None;
    };
    Some(&name.ident)
}

/// Reports a value of `#[inject]`.
pub(crate) fn without_value(inject: &Attribute, errors: &mut Errors) {
    if !matches!(inject.meta, syn::Meta::Path(_)) {
        errors.spanning(inject, "write `#[inject]`, without a value: a service is chosen by its type");
    }
}

/// The parameters of one function, each of which may occur once.
#[derive(Default)]
pub(crate) struct Seen {
    names: HashSet<String>,
    services: HashSet<String>,
}

impl Seen {
    /// Returns true for the first parameter of this name, and reports the others.
    pub(crate) fn is_first(&mut self, input: &PatType, name: String, noun: &str, errors: &mut Errors) -> bool {
        if self.names.contains(&name) {
            errors.spanning(&input.pat, format!("a {noun} takes `{name}` once"));
            return false;
        }
        self.names.insert(name)
    }

    /// Reports a second service of one type.
    pub(crate) fn service(&mut self, input: &PatType, service: &Type, errors: &mut Errors) {
        let service = text(service);
        if !self.services.insert(service.clone()) {
            let text = format!(
                "another parameter is this `{service}`: a service is found by its type, so give one of the two a \
                 type of its own"
            );
            errors.spanning(&input.ty, text);
        }
    }
}

/// Returns the parameter with its name. `has_state` is true if one of the parameters is the state's by its name.
pub(crate) fn parameter(input: &PatType, has_state: bool, errors: &mut Errors) -> Option<(String, Parameter)> {
    let of_type = "name the type, or make it a type parameter: `async fn node<T: Trait>(..)`";
    let ident = plain_name(input, "node", of_type, errors)?;
    let ty = bare(&input.ty);
    let text = ident.to_string();
    let known = text.trim_start_matches('_');
    let parameter = if let Some(attr) = input.attrs.iter().find(|attr| is_inject(attr)) {
        without_value(attr, errors);
        if let Some(given) = given(known, ty) {
            errors.spanning(attr, format!("`{given}` is not a service: every node can take it without `#[inject]`"));
            return None;
        }
        Parameter::Inject(injected(ident, ty, "node", errors)?)
    } else if known == "state" {
        Parameter::State(state(ident, ty, errors)?)
    } else if known == "input" {
        Parameter::Input(value(ident, ty, errors)?)
    } else if known == "answer" {
        Parameter::Answer(owned(ty, "an answer", errors).then(|| ty.clone())?)
    } else if let Some(known) = Known::from_name(&KNOWN, known) {
        lifetime(ident, ty, "node", errors);
        Parameter::Known(known, ty.clone())
    } else {
        unknown(ident, known, ty, has_state, errors);
        return None;
    };
    Some((known.to_owned(), parameter))
}

/// Returns the parameter that an injected one is, by its name and its type. By the name alone it may be a service.
fn given(name: &str, ty: &Type) -> Option<String> {
    if name == "state" && (is_mutable_reference(ty) || is_agent_state(ty)) {
        return Some(format!("state: {}", text(ty)));
    }
    let known = Known::from_type(&KNOWN, ty).filter(|known| known.name == name)?;
    Some(format!("{name}: {}", known.written))
}

fn unknown(ident: &Ident, name: &str, ty: &Type, has_state: bool, errors: &mut Errors) {
    let names: Vec<_> = ["state", "input", "answer"].into_iter().chain(KNOWN.iter().map(|known| known.name)).collect();
    let likely = if let Some(known) = Known::from_type(&KNOWN, ty) {
        Some(format!("{}: {}", known.name, known.written))
    } else if !has_state && (is_mutable_reference(ty) || is_agent_state(ty)) {
        Some(format!("state: {}", text(ty)))
    } else {
        closest(name, &names).map(str::to_owned)
    };
    let message = if let Some(likely) = likely {
        format!("unknown node parameter `{ident}`; did you mean `{likely}`?")
    } else {
        let service = match ty {
            Type::Reference(reference) => text(&reference.elem),
            ty => text(ty),
        };
        format!(
            "unknown node parameter `{ident}`: a node takes `state`, `input`, `answer`, `config`, `task_manager`, \
             `events`, `cancel`, `attempt`, `step`, `steps_left` and `error`; a service of the app is injected: `#[inject] {ident}: &{service}`"
        )
    };
    errors.at(ident.span(), message);
}

fn state(ident: &Ident, ty: &Type, errors: &mut Errors) -> Option<State> {
    if let Some(state) = wrapped(lent(ty)) {
        errors.spanning(
            ty,
            format!("a run owns its state and lends it to the node: write `{ident}: &mut {}`", text(state)),
        );
        return None;
    }
    if is_std_collection(lent(ty)) {
        errors.spanning(ty, format!("a state is a struct of yours: put this `{}` into a field of one", text(lent(ty))));
        return None;
    }
    lifetime(ident, ty, "node", errors);
    let (state, form): (&Type, fn(Type) -> State) = match ty {
        Type::Reference(TypeReference { mutability: Some(_), elem, .. }) => (elem, State::InPlace),
        Type::Reference(TypeReference { elem, .. }) => (elem, State::Reads),
        ty => (ty, State::Owns),
    };
    owned(state, "a state", errors).then(|| form(state.clone()))
}

/// Returns the type inside of smart pointers, locks and cells.
fn wrapped(ty: &Type) -> Option<&Type> {
    const WRAPPERS: [&str; 6] = ["Arc", "Rc", "Box", "Mutex", "RwLock", "RefCell"];
    let last = last_segment(ty)?;
    let argument = WRAPPERS.iter().any(|name| last.ident == name).then(|| type_arguments(ty).first().copied())??;
    Some(wrapped(argument).unwrap_or(argument))
}

/// Reports a lifetime of a borrowed parameter.
pub(crate) fn lifetime(ident: &Ident, ty: &Type, noun: &str, errors: &mut Errors) {
    if let Type::Reference(TypeReference { lifetime: Some(lifetime), mutability, elem, .. }) = ty
        && lifetime.ident == "static"
    {
        let mutability = mutability.map(|_| "mut ").unwrap_or_default();
        let text = format!("a {noun} borrows for the time of its run: write `{ident}: &{mutability}{}`", text(elem));
        errors.at(lifetime.span(), text);
    }
}

/// Reports a type that borrows without a lifetime of its own, which the impls could not name.
pub(crate) fn owned(ty: &Type, noun: &str, errors: &mut Errors) -> bool {
    let borrow = elided(&ty.to_token_stream());
    if let Some(borrow) = borrow {
        errors.at(borrow, format!("{noun} cannot borrow: name a type that owns its data"));
    }
    borrow.is_none()
}

/// Returns the place of the first `&` or `'_` whose lifetime is left out. The types of functions may have them.
pub(crate) fn elided(ty: &TokenStream) -> Option<Span> {
    let list: Vec<TokenTree> = ty.clone().into_iter().collect();
    let is =
        |token: Option<&TokenTree>, punct: char| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == punct);
    let mut found = None;
    for (at, token) in list.iter().enumerate() {
        let next = list.get(at + 1);
        let here = match token {
            TokenTree::Ident(word) if ["fn", "Fn", "FnMut", "FnOnce", "AsyncFn", "for"].iter().any(|of| word == of) => {
                return None;
            }
            TokenTree::Group(group) => elided(&group.stream()),
            TokenTree::Punct(punct) if punct.as_char() == '&' && !is(next, '\'') => Some(punct.span()),
            TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                matches!(next, Some(TokenTree::Ident(name)) if name == "_").then(|| punct.span())
            }
            _ => None,
        };
        found = found.or(here);
    }
    found
}

/// The type of the `input` parameter. A borrowed value has a sized type, which the edge carries.
fn value(ident: &Ident, ty: &Type, errors: &mut Errors) -> Option<Input> {
    let Type::Reference(TypeReference { mutability, elem, .. }) = ty else {
        return owned(ty, "an input", errors).then(|| Input::Copied(ty.clone()));
    };
    let owner = match &**elem {
        Type::Path(path) if path.path.is_ident("str") => Some("String".to_owned()),
        Type::Slice(slice) => Some(format!("Vec<{}>", text(&slice.elem))),
        _ => None,
    };
    if let Some(owner) = owner {
        errors.spanning(ty, format!("an edge carries an owned value: write `{ident}: &{owner}`"));
        return None;
    }
    if mutability.is_some() {
        let elem = text(elem);
        errors
            .spanning(ty, format!("every attempt has the same input: write `{ident}: &{elem}`, or `{ident}: {elem}`"));
        return None;
    }
    lifetime(ident, ty, "node", errors);
    owned(elem, "an input", errors).then(|| Input::Borrowed((**elem).clone()))
}

pub(crate) fn injected(ident: &Ident, ty: &Type, noun: &str, errors: &mut Errors) -> Option<Type> {
    let message = match ty {
        Type::Reference(TypeReference { mutability: None, elem, .. }) => {
            lifetime(ident, ty, noun, errors);
            return owned(elem, "a service", errors).then(|| (**elem).clone());
        }
        Type::Reference(TypeReference { mutability: Some(_), elem, .. }) => {
            format!("a service is shared by all runs: write `{ident}: &{}`", text(elem))
        }
        ty if optional(ty).is_some() => {
            let service = text(lent(ty));
            format!(
                "an injected service is always there: write `{ident}: &{service}`, or provide an `Option<{service}>` and \
                 write `{ident}: &Option<{service}>`"
            )
        }
        ty => match wrapped(ty) {
            Some(service) => format!(
                "an injected service is borrowed: write `{ident}: &{}`, or `{ident}: &{}` if that is what the app provides",
                text(service),
                text(ty)
            ),
            None => format!("an injected service is borrowed: write `{ident}: &{}`", text(ty)),
        },
    };
    errors.spanning(ty, message);
    None
}

/// Returns the first `impl` in a type.
pub(crate) fn impl_trait(ty: TokenStream) -> Option<Ident> {
    ty.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "impl" => Some(ident),
        TokenTree::Group(group) => impl_trait(group.stream()),
        _ => None,
    })
}
