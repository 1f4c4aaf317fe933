//! `#[task]`: an `async fn` becomes a durable task, which a graph registers and a node spawns by its name.

mod check;
mod expand;
mod parameters;
mod syntax;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use quote::quote;

use crate::{
    errors::Errors,
    node::syntax::{Function, without_helper_attributes},
};

/// Returns the user's function even if it has mistakes, so that they cause no errors where the function is called.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::new();
    let args = syntax::TaskArgs::parse(args, &mut errors);
    let function = match Function::parse("task", item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(error);
            let errors = errors.into_tokens();
            return quote!(#item #errors);
        }
    };
    let signature = check::check(&function, &mut errors);
    let item = without_helper_attributes(item);
    // A task must be `async` even if it awaits nothing, and owns its arguments, so clippy must not warn about either.
    let item = quote!(#[allow(clippy::needless_pass_by_value, clippy::unused_async)] #item);
    let has_errors = !errors.is_empty();
    let errors = errors.into_tokens();
    if signature.is_method {
        // An `impl` cannot contain a struct.
        return quote!(#item #errors);
    }
    let handle = expand::handle(&args, &function, &signature, has_errors.then_some(&errors));
    quote!(#item #handle)
}
