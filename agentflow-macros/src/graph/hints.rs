//! Graph → code for the editor only.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::quote;

use super::{
    expand::{is_of_builder, names, option, router},
    model::Model,
    syntax::{Arm, Chain, Decision, Graph, Source, Stage},
};

/// Returns code that only rust-analyzer sees. With it, the editor completes `START` and `END`, resolves a node's name
/// to its function too, and completes options, patterns and routers while the code around them is wrong.
///
/// rust-analyzer expands the text twice, as it is and with a marker at the cursor, and looks up the marker's position
/// in the expansion without it. The hints therefore come first, and mistakes do not change their form.
pub(super) fn editor_hints(graph: &Graph) -> TokenStream {
    let hints = hints(graph);
    quote! {
        #[allow(unexpected_cfgs)]
        {
            #[cfg(rust_analyzer)]
            {
                #hints
            }
        }
    }
}

fn hints(graph: &Graph) -> TokenStream {
    let Graph { root, state, written, .. } = graph;
    let functions = graph.mentions.iter().filter(|reference| !reference.is_start() && !reference.is_end());
    let node_options = graph.bindings.iter().map(|binding| {
        let settings = binding.options.iter().map(|setting| option(setting, true));
        quote!(let _ = __af::NodeOptions::new() #(#settings)*;)
    });
    let settings = graph.compile.iter().filter(|setting| !is_of_builder(setting));
    let settings = settings.map(|setting| option(setting, true));
    let mut decisions = Vec::new();
    graph.chains.iter().for_each(|chain| collect_decisions(chain, &mut decisions));
    let returned = [Ident::new("__returned", Span::mixed_site())];
    let decisions = decisions.iter().map(|decision| router(&whole(decision), &returned));
    let inner = graph.bindings.iter().filter_map(|binding| match &binding.source {
        Source::Graph(inner) => {
            let (names, hints) = (names(inner, &Model::default(), true), hints(inner));
            Some(quote!({ #names #hints }))
        }
        _ => None,
    });
    quote! {
        use #root::{END, START};
        let _: (#state);
        #(let _: (#written);)*
        #(#inner)*
        #(let _ = #functions;)*
        #(#node_options)*
        let _ = __af::CompileOptions::new() #(#settings)*;
        #(let _ = #decisions;)*
    }
}

/// Returns the decision without the `::` that ends a half-typed path, because rustc parses the hints too. A wildcard
/// arm is added, so that missing patterns are reported only once.
fn whole(decision: &Decision) -> Decision {
    let cut = |tokens: &TokenStream| {
        let mut list: Vec<_> = tokens.clone().into_iter().collect();
        while list.last().is_some_and(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':')) {
            list.pop();
        }
        list.into_iter().collect::<TokenStream>()
    };
    // A path stays a path: one segment alone would be a new variable.
    let pattern = |tokens: &TokenStream| {
        let path = cut(tokens);
        let is_cut = path.clone().into_iter().count() < tokens.clone().into_iter().count();
        if is_cut { quote!(#path { .. }) } else { path }
    };
    let arms = decision.arms.iter().filter(|arm| !arm.pattern.is_empty()).map(|arm| pattern(&arm.pattern));
    let arms = arms.chain([quote!(_)]).map(|pattern| Arm { pattern, chain: Chain::default() });
    Decision {
        keyword: decision.keyword.clone(),
        router: decision.router.as_ref().map(cut),
        arms: arms.collect(),
        braces: decision.braces,
    }
}

fn collect_decisions<'a>(chain: &'a Chain, decisions: &mut Vec<&'a Decision>) {
    for stage in &chain.stages {
        if let Stage::Group(group) = stage {
            group.chains.iter().for_each(|chain| collect_decisions(chain, decisions));
        }
    }
    if let Some(decision) = &chain.decision {
        decisions.push(decision);
        decision.arms.iter().for_each(|arm| collect_decisions(&arm.chain, decisions));
    }
}
