//! The macros of agentflow. Their documentation is on the re-exports in `agentflow`.

mod errors;
mod graph;
mod node;
mod printing;
mod provide;
mod root;
mod route;
mod state;
mod suggest;
mod task;
#[cfg(test)]
mod testing;
mod types;

use proc_macro::TokenStream;

#[allow(missing_docs, reason = "documented on the re-export")]
#[proc_macro_derive(State, attributes(state))]
pub fn state(input: TokenStream) -> TokenStream {
    state::derive(input.into()).into()
}

#[allow(missing_docs, reason = "documented on the re-export")]
#[proc_macro_derive(Provide, attributes(provide))]
pub fn provide(input: TokenStream) -> TokenStream {
    provide::derive(input.into()).into()
}

#[allow(missing_docs, reason = "documented on the re-export")]
#[proc_macro_derive(Route, attributes(route))]
pub fn route(input: TokenStream) -> TokenStream {
    route::derive(input.into()).into()
}

#[allow(missing_docs, reason = "documented on the re-export")]
#[proc_macro_attribute]
pub fn node(args: TokenStream, item: TokenStream) -> TokenStream {
    node::expand(args.into(), item.into()).into()
}

#[allow(missing_docs, reason = "documented on the re-export")]
#[proc_macro_attribute]
pub fn task(args: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(args.into(), item.into()).into()
}

#[allow(missing_docs, reason = "documented on the re-export")]
#[proc_macro]
pub fn graph(input: TokenStream) -> TokenStream {
    graph::expand(input.into()).into()
}
