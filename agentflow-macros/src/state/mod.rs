//! `#[derive(State)]`: a struct becomes a state, with an update type whose setters record changes.

mod expand;
mod fallback;
mod serde;
mod syntax;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;

use crate::errors::Errors;

pub(crate) fn derive(input: TokenStream) -> TokenStream {
    let mut errors = Errors::new();
    let Some(state) = syntax::State::parse(input, &mut errors) else {
        return errors.into_tokens();
    };
    let sound = !state.fields.iter().any(|field| syntax::lacks_lifetime(&field.ty));
    if errors.is_empty() && sound {
        return expand::expand(&state);
    }
    let mut output = errors.into_tokens();
    output.extend(fallback::fallback(&state));
    output
}
