//! `graph!`: a workflow drawn with arrows becomes a compiled graph.
//!
//! Tokens → AST (`syntax`) → graph (`model`) → rules (`check`) → tokens (`expand`). A stage runs only where the one
//! before found no mistake, so that one mistake makes one error. Whatever is wrong, the expansion mentions every node
//! that was written and has the type of the graph: the editor can complete, and the code behind goes on compiling.

mod check;
mod expand;
mod hints;
mod model;
mod syntax;
#[cfg(test)]
mod tests;
mod tokens;
mod topology;

use proc_macro2::TokenStream;

use crate::errors::Errors;

pub(crate) fn expand(input: TokenStream) -> TokenStream {
    let mut errors = Errors::new();
    let graph = syntax::Graph::parse(input, &mut errors);
    let mut model = model::Model::default();
    if errors.is_empty() {
        model = model::Model::build(&graph, &mut errors);
    }
    if errors.is_empty() {
        check::check(&mut model, &mut errors);
    }
    expand::expand(&graph, &model, errors)
}
