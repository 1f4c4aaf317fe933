//! Graph → code for the editor only.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::quote;

use super::{
    expand::{is_of_builder, names, option, router},
    model::Model,
    syntax::{Arm, Branches, BranchesKind, Chain, Decision, Graph, Source, Stage},
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
    let functions = graph.mentions.iter().filter(|reference| !reference.is_keyword());
    let node_options = graph.bindings.iter().map(|binding| {
        let settings = binding.options.iter().map(|setting| option(setting, true));
        quote!(let _ = __af::NodeOptions::new() #(#settings)*;)
    });
    let settings = graph.compile.iter().filter(|setting| !is_of_builder(setting));
    let settings = settings.map(|setting| option(setting, true));
    let mut parts = Parts::default();
    graph.chains.iter().for_each(|chain| parts.collect(chain));
    let returned = [Ident::new("__returned", Span::mixed_site())];
    let carried = |_, arm: &Arm| {
        let value = cut(&arm.chain.carried.as_ref()?.stream());
        Some(quote!({ let _ = #value; 0usize }))
    };
    let decisions = parts.decisions.iter().map(|decision| router(&whole(decision), &returned, carried));
    let groups = parts.groups.iter().map(|group| {
        let settings = group.options.iter().map(|setting| option(setting, true));
        match &group.kind {
            BranchesKind::Each { items, .. } => {
                let items = cut(items);
                quote!(let _ = #items; let _ = __af::EachOptions::new() #(#settings)*;)
            }
            BranchesKind::All | BranchesKind::Any => quote!(let _ = __af::NodeOptions::new() #(#settings)*;),
        }
    });
    let inner = graph.bindings.iter().filter_map(|binding| match &binding.source {
        Source::Graph(inner) => {
            let (names, hints) = (names(inner, &Model::default(), true), hints(inner));
            Some(quote!({ #names #hints }))
        }
        _ => None,
    });
    quote! {
        use #root::{END, JOIN, START};
        let _: (#state);
        #(let _: (#written);)*
        #(#inner)*
        #(let _ = #functions;)*
        #(#node_options)*
        #(#groups)*
        let _ = __af::CompileOptions::new() #(#settings)*;
        #(let _ = #decisions;)*
    }
}

/// Returns the expression without the `::` or `.` that ends a half-typed one, because rustc parses the hints too.
fn cut(tokens: &TokenStream) -> TokenStream {
    without_end(tokens, &[':', '.'])
}

fn without_end(tokens: &TokenStream, ends: &[char]) -> TokenStream {
    let mut list: Vec<_> = tokens.clone().into_iter().collect();
    while list.last().is_some_and(|token| matches!(token, TokenTree::Punct(punct) if ends.contains(&punct.as_char()))) {
        list.pop();
    }
    list.into_iter().collect()
}

/// Returns the decision without half-typed paths. A wildcard arm is added, so that missing patterns are reported only
/// once.
fn whole(decision: &Decision) -> Decision {
    // A path stays a path: one segment alone would be a new variable.
    let pattern = |tokens: &TokenStream| {
        // A pattern may end in `..`.
        let path = without_end(tokens, &[':']);
        let is_cut = path.clone().into_iter().count() < tokens.clone().into_iter().count();
        if is_cut { quote!(#path { .. }) } else { path }
    };
    let arms = decision.arms.iter().filter(|arm| !arm.pattern.is_empty()).map(|arm| Arm {
        pattern: pattern(&arm.pattern),
        chain: Chain { carried: arm.chain.carried.clone(), ..Chain::default() },
    });
    let arms = arms.chain([Arm { pattern: quote!(_), chain: Chain::default() }]);
    Decision {
        keyword: decision.keyword.clone(),
        router: decision.router.as_ref().map(cut),
        arms: arms.collect(),
        braces: decision.braces,
    }
}

/// The decisions and groups of a graph, with those inside others.
#[derive(Default)]
struct Parts<'a> {
    decisions: Vec<&'a Decision>,
    groups: Vec<&'a Branches>,
}

impl<'a> Parts<'a> {
    fn collect(&mut self, chain: &'a Chain) {
        for stage in &chain.stages {
            if let Stage::Group(group) = stage {
                self.groups.push(group);
                group.chains.iter().for_each(|chain| self.collect(chain));
            }
        }
        if let Some(decision) = &chain.decision {
            self.decisions.push(decision);
            decision.arms.iter().for_each(|arm| self.collect(&arm.chain));
        }
    }
}
