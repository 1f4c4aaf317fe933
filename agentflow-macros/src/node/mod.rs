//! `#[node]`: an `async fn` becomes a node that `graph!` can name.

mod check;
mod expand;
mod parameters;
mod syntax;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use quote::quote;

use crate::errors::Errors;

/// Always gives back the user's function, whatever is wrong with it: the rest of the file goes on compiling.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::new();
    let args = syntax::NodeArgs::parse(args, &mut errors);
    let function = match syntax::Function::parse(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(error);
            let errors = errors.into_tokens();
            return quote!(#item #errors);
        }
    };
    let signature = check::check(&function, &mut errors);
    let item = syntax::without_helper_attributes(item);
    // That a node is asynchronous is a rule of ours: clippy is not to blame the user for it.
    let item = quote!(#[allow(clippy::unused_async)] #item);
    if errors.is_empty() {
        let handle = expand::handle(&args, &function, &signature);
        return quote!(#item #handle);
    }
    // Inside an `impl` nothing but the method itself may stand.
    let stub = (!signature.is_method).then(|| expand::stub(&args, &function, &signature));
    let errors = errors.into_tokens();
    quote!(#item #errors #stub)
}
