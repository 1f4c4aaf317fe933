//! Tokens → [`TaskArgs`].

use proc_macro2::TokenStream;
use syn::{
    Ident, LitStr, Result, Token,
    parse::{ParseStream, Parser},
};

use crate::{errors::Errors, root::Root};

/// `#[task]`, `#[task(name = "mail.deliver")]`, `#[task(name = "..", crate = path)]`.
#[derive(Default)]
pub(crate) struct TaskArgs {
    /// The stored name, unless it is the function's.
    pub(crate) name: Option<LitStr>,
    pub(crate) root: Root,
}

impl TaskArgs {
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        let mut args = Self::default();
        let parser = |input: ParseStream<'_>| {
            while !input.is_empty() {
                args.argument(input)?;
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(())
        };
        if let Err(error) = parser.parse2(tokens) {
            errors.push(error);
        }
        args
    }

    fn argument(&mut self, input: ParseStream<'_>) -> Result<()> {
        const EXPECTED: &str = "expected the stored name, as in `#[task(name = \"mail.deliver\")]`, or `crate = path`";
        if input.peek(Token![crate]) {
            self.root = input.call(Root::parse)?;
            return Ok(());
        }
        let start = input.fork();
        if input.parse::<Ident>().is_ok_and(|key| key == "name") && input.parse::<Token![=]>().is_ok() {
            let name: LitStr = input.parse().map_err(|error| syn::Error::new(error.span(), EXPECTED))?;
            let is_valid = !name.value().trim().is_empty() && !name.value().contains(char::is_control);
            if self.name.is_none() && is_valid {
                self.name = Some(name);
                return Ok(());
            }
            let text = if is_valid { "`name` is given already" } else { "a task's name has at least one character" };
            return Err(syn::Error::new(name.span(), text));
        }
        Err(start.error(EXPECTED))
    }
}
