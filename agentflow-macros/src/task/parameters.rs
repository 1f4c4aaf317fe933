//! The parameters of a durable task: their names, and the rules of each.

use quote::quote;
use syn::{Ident, PatType, Type, TypeReference};

use crate::{
    errors::Errors,
    node::{
        parameters::{Known, injected, lifetime, owned, plain_name, without_value},
        syntax::is_inject,
    },
    printing::text,
    suggest::closest,
    types::bare,
};

pub(crate) enum Parameter {
    /// The arguments, which are stored.
    Args(Type),
    /// A parameter that is known by its name, with the user's type.
    Known(&'static Known, Type),
    /// `#[inject] smtp: &Smtp`, with `Smtp`.
    Inject(Type),
}

const KNOWN: [Known; 3] = [
    Known { name: "attempt", written: "u32", given: || quote!(u32), value: || quote!(__attempt.task.attempt()) },
    Known {
        name: "task",
        written: "&DurableTaskContext",
        given: || quote!(&__af::DurableTaskContext),
        value: || quote!(__attempt.task),
    },
    Known {
        name: "cancel",
        written: "&CancellationToken",
        given: || quote!(&__af::CancellationToken),
        value: || quote!(__attempt.task.token()),
    },
];

/// Returns the parameter with its name.
pub(crate) fn parameter(input: &PatType, errors: &mut Errors) -> Option<(String, Parameter)> {
    let ident = plain_name(input, "durable task", "name the type", errors)?;
    let ty = bare(&input.ty);
    let name = ident.to_string();
    let known = name.trim_start_matches('_');
    let parameter = if let Some(attr) = input.attrs.iter().find(|attr| is_inject(attr)) {
        without_value(attr, errors);
        if let Some(known) = Known::from_type(&KNOWN, ty).filter(|of_type| of_type.name == known) {
            let text = format!(
                "`{}: {}` is not a service: every durable task can take it without `#[inject]`",
                known.name, known.written
            );
            errors.spanning(attr, text);
            return None;
        }
        Parameter::Inject(injected(ident, ty, "durable task", errors)?)
    } else if known == "args" {
        Parameter::Args(args(ident, ty, errors)?)
    } else if let Some(known) = Known::from_name(&KNOWN, known) {
        lifetime(ident, ty, "durable task", errors);
        Parameter::Known(known, ty.clone())
    } else {
        unknown(ident, known, ty, errors);
        return None;
    };
    Some((known.to_owned(), parameter))
}

fn args(ident: &Ident, ty: &Type, errors: &mut Errors) -> Option<Type> {
    let Type::Reference(TypeReference { elem, .. }) = ty else {
        return owned(ty, "the arguments of a durable task", errors).then(|| ty.clone());
    };
    let owner = match &**elem {
        Type::Path(path) if path.path.is_ident("str") => "String".to_owned(),
        Type::Slice(slice) => format!("Vec<{}>", text(&slice.elem)),
        elem => text(elem),
    };
    errors.spanning(ty, format!("a durable task owns its arguments: write `{ident}: {owner}`"));
    None
}

fn unknown(ident: &Ident, name: &str, ty: &Type, errors: &mut Errors) {
    let names: Vec<_> = ["args"].into_iter().chain(KNOWN.iter().map(|known| known.name)).collect();
    let likely = match Known::from_type(&KNOWN, ty) {
        Some(known) => Some(format!("{}: {}", known.name, known.written)),
        None => closest(name, &names).map(str::to_owned),
    };
    let message = if let Some(likely) = likely {
        format!("unknown parameter `{ident}` of a durable task; did you mean `{likely}`?")
    } else {
        let service = match ty {
            Type::Reference(reference) => text(&reference.elem),
            ty => text(ty),
        };
        format!(
            "unknown parameter `{ident}` of a durable task: it takes `args`, one value that is stored, `attempt`, `task` \
             and `cancel`; a service of the app is injected: `#[inject] {ident}: &{service}`"
        )
    };
    errors.at(ident.span(), message);
}
