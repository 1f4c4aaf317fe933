//! `graph!`: a workflow drawn with arrows becomes a compiled graph.
//!
//! Tokens → AST (`syntax`) → graph (`model`) → rules (`check`) → tokens (`expand`). A stage runs only if the stage
//! before it found no mistake, so that one mistake makes one error. Even for invalid input the expansion names every
//! node that was written, so that the editor can complete, and has the graph's type, so that the code after the macro
//! type-checks.

mod check;
mod expand;
mod hints;
mod model;
mod options;
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
        check::name_of_graph(&graph, &mut errors);
        check::check(&mut model, &mut errors);
    }
    expand::expand(&graph, &model, errors)
}
