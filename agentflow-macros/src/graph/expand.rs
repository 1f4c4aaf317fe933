//! Graph → tokens: an expression of type `CompiledGraph<S, C>`, even for invalid input.
//!
//! Only generated punctuation and keywords carry a user's span. At the span of a generated identifier the editor would
//! show that one instead of the user's.

use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;

use super::{
    hints::editor_hints,
    model::{Edge, Model, Step, Work},
    syntax::{Arm, Binding, Decision, Graph, Reference, Setting, Source},
    topology::Next,
};
use crate::{errors::Errors, printing::parenthesized};

pub(crate) fn expand(graph: &Graph, model: &Model<'_>, errors: Errors) -> TokenStream {
    let root = &graph.root;
    let has_errors = !errors.is_empty() || model.has_mistakes();
    let finish = if has_errors { quote!(poisoned) } else { quote!(compiled) };
    let errors = errors.into_tokens();
    let hints = editor_hints(graph);
    let builder = builder(graph, model, has_errors, &errors);
    let settings = graph.compile.iter().filter(|setting| !is_of_builder(setting));
    let settings = settings.map(|setting| option(setting, has_errors));
    // A closure that is missing has no type that rustc could infer.
    let hooks =
        graph.compile.iter().filter(|setting| is_of_builder(setting) && !(setting.value.is_empty() && has_errors));
    let hooks = hooks.map(|setting| option(setting, has_errors));
    let options = Ident::new("__options", Span::mixed_site());
    let g = builder_ident();
    quote_spanned! {Span::mixed_site()=>
        {
            use #root::__private as __af;
            #hints
            #[allow(unused_parens, clippy::let_and_return)]
            let __app = {
                #builder
                #(#g #hooks;)*
                let #options = __af::CompileOptions::new() #(#settings)*;
                __af::#finish(#g, #options)
            };
            __app
        }
    }
}

/// Returns whether the key of `compile { .. }` is a call on the builder: there the closure's parameter has the type of
/// the state, which the options do not know.
pub(super) fn is_of_builder(setting: &Setting) -> bool {
    setting.key == "on_commit"
}

/// Returns the variable that holds the builder. The user's expressions cannot name it.
fn builder_ident() -> Ident {
    Ident::new("__g", Span::mixed_site())
}

/// Returns the statements that fill the builder. The caller compiles it.
fn builder(graph: &Graph, model: &Model<'_>, has_errors: bool, after_names: &TokenStream) -> TokenStream {
    let names = names(graph, model, has_errors);
    let g = builder_ident();
    let mistakes = mistakes(graph, model);
    let new = match (&graph.state, model.steps.is_empty() && graph.mentions.is_empty()) {
        _ if graph.is_inner => quote!(#g.__inside()),
        (Some(state), _) => empty(state),
        (None, false) => quote!(__af::StateGraph::<_, _>::new()),
        // Without nodes rustc has nothing to infer the state from.
        (None, true) => quote!(__af::StateGraph::<__af::AgentState, _>::new()),
    };
    let name = graph.name.as_ref().map(|name| quote!(#g.set_name(#name);));
    let steps = model.steps.iter().map(|step| expand_step(graph, model, step, has_errors));
    let entry = model.entry.map(|entry| {
        let entry = Literal::string(&model.step(entry).name);
        quote!(#g.set_entry_point(#entry);)
    });
    quote_spanned! {Span::mixed_site()=>
        #names
        #after_names
        #mistakes
        #[allow(unused_mut)]
        let mut #g = #new;
        #name
        #(#steps)*
        #entry
    }
}

/// Returns the call that makes an empty graph with this state. rustc reports a type that is not a state at the span
/// from the call's first to its last token, which are both at the user's type.
fn empty(state: &TokenStream) -> TokenStream {
    let span = state.span();
    let open = quote_spanned!(span=> <);
    let close = quote_spanned!(span=> >);
    let arguments = parenthesized(span, TokenStream::new());
    quote!(#open __af::StateGraph<_, _>>::__of::<#state #close #arguments)
}

/// Returns all names of the graph: its bindings and its mentions.
pub(super) fn names(graph: &Graph, model: &Model<'_>, has_errors: bool) -> TokenStream {
    let bindings = graph.bindings.iter().enumerate().filter_map(|(index, binding)| {
        // A second binding of a name is already reported; its item would be a duplicate.
        let is_first = graph.bindings[..index].iter().all(|other| other.name != binding.name);
        is_first.then(|| expand_binding(binding, model.is_added(index), has_errors))
    });
    let mentions = graph.mentions.iter().map(|reference| mention(graph, reference));
    quote!(#(#bindings)* #(#mentions)*)
}

/// Declares the name of `node MAIN = my_node;` as a type in the block, so that rustc and the editor resolve it.
fn expand_binding(binding: &Binding, is_added: bool, has_errors: bool) -> TokenStream {
    let Binding { name, source, .. } = binding;
    let allow = quote!(#[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]);
    match source {
        // `node a = a;` names the node itself.
        Source::Handle(handle) if handle.is_plain && handle.name == *name => TokenStream::new(),
        Source::Handle(handle) => quote!(#allow type #name = #handle;),
        // The value of a node in the graph is evaluated when the node is added.
        Source::Value(value) if !is_added && !value.is_empty() => quote! {
            #allow
            enum #name {}
            #allow
            let _ = #value;
        },
        Source::Graph(inner) if !is_added => {
            let names = names(inner, &Model::default(), has_errors);
            quote!(#allow enum #name {} { #names })
        }
        Source::Value(_) | Source::Graph(_) => quote!(#allow enum #name {}),
    }
}

/// Returns the expression that makes a bound node, or `None` if its type suffices. The expression has the user's
/// tokens, so that rustc reports there a value that is not a node.
fn value(graph: &Graph, model: &Model<'_>, binding: usize, has_errors: bool) -> Option<TokenStream> {
    match &graph.bindings[binding].source {
        Source::Handle(_) => None,
        Source::Value(value) => Some(value.clone()),
        Source::Graph(inner) => {
            let empty = Model::default();
            let model = model.inner.get(&binding).unwrap_or(&empty);
            let builder = builder(inner, model, has_errors, &TokenStream::new());
            let g = builder_ident();
            Some(quote!({ #builder __af::subgraph(#g) }))
        }
    }
}

/// Returns the call for `KEY: VALUE`. Its parentheses have the key's span, so that rustc reports errors of the call
/// there.
pub(super) fn option(Setting { key, value }: &Setting, has_errors: bool) -> TokenStream {
    let value = if value.is_empty() && has_errors { quote!(__af::missing()) } else { value.clone() };
    let arguments = parenthesized(key.span(), value);
    quote!(.#key #arguments)
}

/// Returns the mistakes that rustc reports only if every name in the graph resolves. Each constant depends on
/// `__NAMES`, so rustc skips it after a name error. The names are listed once, so that the output grows linearly.
fn mistakes(graph: &Graph, model: &Model<'_>) -> Option<TokenStream> {
    if model.mistakes.is_empty() {
        return None;
    }
    let mentions = graph.mentions.iter().map(|reference| match reference.with_own_generics() {
        None => mention(graph, reference),
        // A constant cannot use the generic parameters of the function around it.
        Some((parameters, path)) => {
            let units = parameters.iter().map(|_| quote!(()));
            quote! {{
                #[allow(non_camel_case_types)]
                type __Mention<#(#parameters),*> = #path;
                let _: __Mention<#(#units),*>;
            }}
        }
    });
    let mistakes = model.mistakes.iter().map(|(tokens, text)| {
        // rustc reports a call at the span from its first to its last token.
        let function = parenthesized(tokens.span(), quote!(__af::mistake));
        let arguments = parenthesized(tokens.span(), Literal::string(text));
        quote!(const _: () = { __NAMES; #function #arguments };)
    });
    Some(quote! {
        const __NAMES: () = { #(#mentions)* };
        #(#[allow(path_statements, clippy::no_effect)] #mistakes)*
    })
}

/// Returns a statement in which rustc and the editor resolve the reference. Parentheses mark the name as a type, since
/// it is also the name of a function.
fn mention(graph: &Graph, reference: &Reference) -> TokenStream {
    let root = &graph.root;
    if reference.is_start() || reference.is_end() {
        let keyword = &reference.name;
        return quote!(let _: (#root::#keyword););
    }
    quote!(let _: (#reference);)
}

/// Returns the calls that add a step, its options and its edges.
fn expand_step(graph: &Graph, model: &Model<'_>, step: &Step<'_>, has_errors: bool) -> TokenStream {
    let g = builder_ident();
    let name = Literal::string(&step.name);
    let edges = step.edges.iter().map(|edge| match edge {
        Edge::Direct { to, .. } => {
            let to = match to {
                Next::Step(to) => Literal::string(&model.step(*to).name).to_token_stream(),
                Next::End => quote!(__af::END),
            };
            quote!(#g.add_edge(#name, #to);)
        }
        // A node that returns its route is added together with the decision.
        Edge::Routed { decision: Decision { router: None, .. }, .. } => TokenStream::new(),
        Edge::Routed { decision, targets } => {
            let router = router(decision, &[]);
            let arms = arms(model, decision, targets);
            quote!(#g.__route(#name, #router, &[#(#arms),*]);)
        }
    });
    let (added, options) = match &step.work {
        Work::Group { branches, .. } => {
            let branches = branches.iter().map(|branch| {
                let members = branch.iter().map(|member| Literal::string(&model.step(*member).name));
                quote!(&[#(#members),*])
            });
            (quote!(#g.__group(#name, &[#(#branches),*]);), None)
        }
        Work::Node { first_mention, binding } => {
            let options = binding.and_then(|binding| node_options(model, step, &graph.bindings[binding], has_errors));
            let value = binding.and_then(|binding| value(graph, model, binding, has_errors));
            (add_node(model, step, first_mention, value.as_ref(), has_errors), options)
        }
    };
    quote!(#added #options #(#edges)*)
}

/// Returns the call that adds a node, either by its type or with its value.
fn add_node(
    model: &Model<'_>,
    step: &Step<'_>,
    reference: &Reference,
    value: Option<&TokenStream>,
    has_errors: bool,
) -> TokenStream {
    let g = builder_ident();
    let name = Literal::string(&step.name);
    // If the node's route does not fit its outgoing edge, rustc reports it at this token.
    let fit = Ident::new("_", reference.name.span());
    let returned = step.edges.iter().find_map(|edge| match edge {
        Edge::Routed { decision, targets } if decision.router.is_none() => Some((decision, targets)),
        _ => None,
    });
    let call = match (returned, step.group, value) {
        (Some((decision, targets)), _, value) => {
            let route = Ident::new("__returned", Span::mixed_site());
            let router = router(decision, &[route]);
            let arms = arms(model, decision, targets);
            if let Some(value) = value {
                quote!(__deciding_value::<#fit, _>(#name, #value, #router, &[#(#arms),*]))
            } else {
                quote!(__deciding::<(#reference), #fit, _>(#name, #router, &[#(#arms),*]))
            }
        }
        // After a mistake an inner graph, which cannot run in a group, may come this far. It is already reported.
        (None, Some(_), Some(value)) if !has_errors => quote!(add_parallel_node(#name, #value)),
        (None, Some(_), None) => quote!(__branch::<(#reference), #fit, #fit>(#name)),
        (None, _, Some(value)) => quote!(add_node(#name, #value)),
        (None, None, None) => quote!(__node::<(#reference), #fit>(#name)),
    };
    quote!(#g.#call;)
}

fn node_options(model: &Model<'_>, step: &Step<'_>, binding: &Binding, has_errors: bool) -> Option<TokenStream> {
    if binding.options.is_empty() && step.on_error.is_none() {
        return None;
    }
    let g = builder_ident();
    let name = Literal::string(&step.name);
    let settings = binding.options.iter().map(|setting| option(setting, has_errors));
    let on_error = step.on_error.map(|step| {
        let step = Literal::string(&model.step(step).name);
        quote!(.on_error(#step))
    });
    Some(quote!(#g.set_node_options(#name, __af::NodeOptions::new() #(#settings)* #on_error);))
}

/// Returns the router closure: a plain `match` whose arms return the indexes of the outgoing edges.
pub(super) fn router(decision: &Decision, returned: &[Ident]) -> TokenStream {
    let state = Ident::new("__state", Span::mixed_site());
    // rustc reports patterns that are not exhaustive at the span from the call's first to its last token.
    let at = |span: Span, function: TokenStream, argument: TokenStream| {
        let [function, argument] = [function, argument].map(|tokens| parenthesized(span, tokens));
        quote!(#function #argument)
    };
    let scrutinee = match (&decision.router, returned) {
        (Some(router), _) => {
            // rustc reports a router of another state at the span of the argument.
            let borrowed = parenthesized(router.span(), quote!(&#state));
            at(router.span(), router.clone(), quote_spanned!(router.span()=> *#borrowed))
        }
        (None, [returned, ..]) => at(decision.keyword.span(), quote!(__af::itself), returned.to_token_stream()),
        (None, []) => TokenStream::new(),
    };
    // The parser has already reported an arm without a pattern.
    let arms = decision.arms.iter().enumerate().filter(|(_, arm)| !arm.pattern.is_empty());
    let arms = arms.map(|(index, Arm { pattern, chain })| {
        let index = parenthesized(chain.end().unwrap_or_else(Span::call_site), Literal::usize_suffixed(index));
        quote!(#pattern => #index,)
    });
    // rustc's suggestion inserts missing arms at this span.
    let mut arms = Group::new(Delimiter::Brace, quote!(#(#arms)*));
    arms.set_span(decision.braces);
    let keyword = &decision.keyword;
    // The keyword has the user's span, so clippy treats the whole expression as user code.
    let allow = quote! {
        #[allow(
            clippy::match_bool,
            clippy::match_single_binding,
            clippy::redundant_closure_call,
            clippy::single_match_else,
        )]
    };
    quote!(#allow move |#state: &_ #(, #returned)*| #keyword #scrutinee #arms)
}

/// Returns the arms' patterns and targets in the runtime's form.
fn arms(model: &Model<'_>, decision: &Decision, targets: &[Next]) -> Vec<TokenStream> {
    let arm = |(arm, target): (&Arm, &Next)| {
        let label = Literal::string(&pattern_text(&arm.pattern));
        let target = match target {
            Next::Step(step) => {
                let name = Literal::string(&model.step(*step).name);
                quote!(::core::option::Option::Some(#name))
            }
            Next::End => quote!(::core::option::Option::None),
        };
        quote!((#label, #target))
    };
    decision.arms.iter().zip(targets).map(arm).collect()
}

/// Returns the pattern as text, without the spaces that printing puts around each token (`Step::Tools`).
fn pattern_text(pattern: &TokenStream) -> String {
    pattern
        .to_string()
        .replace(" :: ", "::")
        .replace(" (", "(")
        .replace("( ", "(")
        .replace(" )", ")")
        .replace(" ,", ",")
}
