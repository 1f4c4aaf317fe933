//! Graph → tokens: an expression of type `CompiledGraph<S, C>`, whatever was wrong with the input.
//!
//! Only punctuation and keywords carry a user's span, and the tokens that are the user's own: an identifier of ours in
//! their place would be what the editor shows there.

use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream};
use quote::{quote, quote_spanned};

use super::{
    model::{Model, Target},
    syntax::{Binding, Graph, Reference, Setting, Source},
};
use crate::errors::Errors;

pub(crate) fn expand(graph: &Graph, model: &Model, errors: Errors) -> TokenStream {
    let root = &graph.root;
    // Out of the reach of the user's own expressions.
    let g = Ident::new("__g", Span::mixed_site());
    let has_errors = !errors.is_empty();
    let bindings = graph.bindings.iter().enumerate().filter_map(|(index, binding)| {
        // A second one of a name has been complained about, and would be an item too many.
        let is_first = graph.bindings[..index]
            .iter()
            .all(|other| other.name != binding.name);
        is_first.then(|| expand_binding(binding, has_errors))
    });
    let mentions = graph.mentions.iter().map(|reference| mention(graph, reference));
    let editor = editor_hints(graph);
    let errors = errors.into_tokens();
    let new = match (&graph.state, graph.mentions.is_empty()) {
        (Some(state), _) => quote!(__af::graph::<#state, _>()),
        (None, false) => quote!(__af::StateGraph::<_, _>::new()),
        // Nothing to infer the state from.
        (None, true) => quote!(__af::StateGraph::<__af::AgentState, _>::new()),
    };
    let name = graph.name.as_ref().map(|name| quote!(#g.set_name(#name);));
    let nodes = model.nodes.iter().map(|node| {
        let name = Literal::string(&node.name);
        match (node.handle(graph), node.binding) {
            (Some(handle), _) => quote! {
                #[allow(unused_parens)]
                #g.__node::<(#handle)>(#name);
            },
            (None, Some(binding)) => {
                // The user's own tokens, so that rustc shows them where they are no node.
                let value = graph.bindings[binding].value();
                quote! {
                    #[allow(unused_parens)]
                    #g.__add(#name, #value);
                }
            }
            (None, None) => TokenStream::new(),
        }
    });
    let edges = model.edges.iter().map(|edge| {
        let from = Literal::string(&model.nodes[edge.from].name);
        match edge.to {
            Target::Node(to) => {
                let to = Literal::string(&model.nodes[to].name);
                quote!(#g.__edge(#from, #to);)
            }
            Target::End => quote!(#g.__edge(#from, __af::END);),
        }
    });
    let entry = model.entry.map(|entry| {
        let entry = Literal::string(&model.nodes[entry].name);
        quote!(#g.__entry(#entry);)
    });
    let options = Ident::new("__options", Span::mixed_site());
    let settings = graph.compile.iter().map(|setting| option(setting, has_errors));
    let finish = if has_errors {
        quote!(poisoned)
    } else {
        quote!(compiled)
    };
    quote_spanned! {Span::mixed_site()=>
        {
            use #root::__private as __af;
            #(#bindings)*
            #(#mentions)*
            #editor
            #errors
            let mut #g = #new;
            #name
            #(#nodes)*
            #(#edges)*
            #entry
            #[allow(unused_parens)]
            let #options = __af::CompileOptions::new() #(#settings)*;
            __af::#finish(#g, #options)
        }
    }
}

/// `node MAIN = my_node;` makes `MAIN` a type of this block: references resolve to it, and the editor finds it.
fn expand_binding(Binding { name, source }: &Binding, has_errors: bool) -> TokenStream {
    match source {
        // `node a = a;` names the node itself.
        Source::Handle(handle) if handle.is_plain && handle.name == *name => TokenStream::new(),
        Source::Handle(handle) => quote! {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
            type #name = #handle;
        },
        Source::Value(tokens) => {
            // Without mistakes it stands where the node is added.
            let value = (has_errors && !tokens.is_empty()).then(|| {
                quote! {
                    #[allow(unused_parens)]
                    let _ = #tokens;
                }
            });
            quote! {
                #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
                enum #name {}
                #value
            }
        }
    }
}

/// `KEY: VALUE` as a call. rustc shows what is wrong with the call as a whole at the key: the parentheses stand there.
fn option(Setting { key, value }: &Setting, has_errors: bool) -> TokenStream {
    let value = if value.is_empty() && has_errors {
        quote!(__af::missing())
    } else {
        value.clone()
    };
    let mut arguments = Group::new(Delimiter::Parenthesis, value);
    arguments.set_span(key.span());
    quote!(.#key #arguments)
}

/// The reference in a place where it resolves. The parentheses keep a function's name from being read as a constant.
fn mention(graph: &Graph, reference: &Reference) -> TokenStream {
    let root = &graph.root;
    if reference.is_start() || reference.is_end() {
        let keyword = &reference.name;
        return quote! {
            #[allow(unused_parens)]
            let _: (#root::#keyword);
        };
    }
    quote! {
        #[allow(unused_parens)]
        let _: (#reference);
    }
}

/// What rust-analyzer is to know and rustc never sees: `START` and `END` can be completed, and a reference to a node is
/// one to its function too.
fn editor_hints(graph: &Graph) -> TokenStream {
    let root = &graph.root;
    let functions = graph
        .mentions
        .iter()
        .filter(|reference| !reference.is_start() && !reference.is_end());
    let half_typed = &graph.half_typed;
    quote! {
        #[allow(unexpected_cfgs)]
        {
            #[cfg(rust_analyzer)]
            {
                use #root::{END, START};
                #(let _ = #functions;)*
                #(let _: (#half_typed);)*
            }
        }
    }
}
