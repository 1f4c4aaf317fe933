//! `#[node]`: an `async fn` becomes a node that `graph!` can name.

pub(crate) mod check;
pub(crate) mod expand;
pub(crate) mod parameters;
mod spawns;
pub(crate) mod syntax;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use quote::quote;

use self::parameters::{Input, Parameter};
use crate::errors::Errors;

/// Returns the user's function even if it has mistakes, so that they cause no errors where the function is called.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::new();
    let args = syntax::NodeArgs::parse(args, &mut errors);
    let function = match syntax::Function::parse("node", item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(error);
            let errors = errors.into_tokens();
            return quote!(#item #errors);
        }
    };
    let signature = check::check(&function, &mut errors);
    let item = syntax::without_helper_attributes(item);
    // A node must be `async` even if it awaits nothing, so clippy must not warn about that.
    let item = quote!(#[allow(clippy::unused_async)] #item);
    // An edge carries a `String`, never a `str`, so clippy must not ask for `input: &str`, which is a mistake.
    let is_borrowed = |parameter: &Parameter| matches!(parameter, Parameter::Input(Input::Borrowed(_)));
    let borrows_input = signature.parameters.iter().any(is_borrowed);
    let item = if borrows_input { quote!(#[allow(clippy::ptr_arg)] #item) } else { item };
    let has_errors = !errors.is_empty();
    let errors = errors.into_tokens();
    if signature.is_method {
        // An `impl` cannot contain a struct.
        return quote!(#item #errors);
    }
    let handle = expand::handle(&args, &function, &signature, has_errors.then_some(&errors));
    quote!(#item #handle)
}
