//! The parameters of a node: their names, and the rules of each.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{Ident, Pat, PatType, Type, TypeReference};

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
    written: &'static str,
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
    fn from_name(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.name == name)
    }

    /// Returns the parameter that has a type of this name, behind a reference or in an `Option`. A number may be anything.
    fn from_type(ty: &Type) -> Option<&'static Self> {
        let name = last_segment(lent(ty))?.ident.to_string();
        let of_type =
            |known: &&Self| known.written.trim_start_matches("Option<").trim_end_matches('>') == format!("&{name}");
        KNOWN.iter().find(of_type)
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

/// Returns the parameter with its name. `has_state` is true if one of the parameters is the state's by its name.
pub(crate) fn parameter(input: &PatType, has_state: bool, errors: &mut Errors) -> Option<(String, Parameter)> {
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
    let (ident, ty) = (&name.ident, bare(&input.ty));
    let text = ident.to_string();
    let known = text.trim_start_matches('_');
    let parameter = if let Some(attr) = input.attrs.iter().find(|attr| is_inject(attr)) {
        if !matches!(attr.meta, syn::Meta::Path(_)) {
            errors.spanning(attr, "write `#[inject]`, without a value: a service is chosen by its type");
        }
        if let Some(given) = given(known, ty) {
            errors.spanning(attr, format!("`{given}` is not a service: every node can take it without `#[inject]`"));
            return None;
        }
        Parameter::Inject(injected(ident, ty, errors)?)
    } else if known == "state" {
        Parameter::State(state(ident, ty, errors)?)
    } else if known == "input" {
        Parameter::Input(value(ident, ty, errors)?)
    } else if known == "answer" {
        Parameter::Answer(owned(ty, "an answer", errors).then(|| ty.clone())?)
    } else if let Some(known) = Known::from_name(known) {
        lifetime(ident, ty, errors);
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
    let known = Known::from_type(ty).filter(|known| known.name == name)?;
    Some(format!("{name}: {}", known.written))
}

fn unknown(ident: &Ident, name: &str, ty: &Type, has_state: bool, errors: &mut Errors) {
    let names: Vec<_> = ["state", "input", "answer"].into_iter().chain(KNOWN.iter().map(|known| known.name)).collect();
    let likely = if let Some(known) = Known::from_type(ty) {
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
    lifetime(ident, ty, errors);
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
fn lifetime(ident: &Ident, ty: &Type, errors: &mut Errors) {
    if let Type::Reference(TypeReference { lifetime: Some(lifetime), mutability, elem, .. }) = ty
        && lifetime.ident == "static"
    {
        let mutability = mutability.map(|_| "mut ").unwrap_or_default();
        let text = format!("a node borrows for the time of its run: write `{ident}: &{mutability}{}`", text(elem));
        errors.at(lifetime.span(), text);
    }
}

/// Reports a type that borrows without a lifetime of its own, which the impls could not name.
fn owned(ty: &Type, noun: &str, errors: &mut Errors) -> bool {
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
    lifetime(ident, ty, errors);
    owned(elem, "an input", errors).then(|| Input::Borrowed((**elem).clone()))
}

fn injected(ident: &Ident, ty: &Type, errors: &mut Errors) -> Option<Type> {
    let message = match ty {
        Type::Reference(TypeReference { mutability: None, elem, .. }) => {
            lifetime(ident, ty, errors);
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
