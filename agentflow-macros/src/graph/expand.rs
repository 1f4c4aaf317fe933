//! Graph → tokens: an expression of type `CompiledGraph<S, C>`, even for invalid input.
//!
//! Only generated punctuation and keywords carry a user's span. At the span of a generated identifier the editor would
//! show that one instead of the user's.

use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;

use super::{
    hints::editor_hints,
    model::{Edge, Model, Place, Work},
    options::Setting,
    syntax::{Arm, Binding, Branches, BranchesKind, Decision, Graph, Reference, Source, Stage},
    topology::{Next, StepId},
};
use crate::{
    errors::Errors,
    printing::{self, parenthesized},
};

pub(crate) fn expand(graph: &Graph, model: &Model<'_>, errors: Errors) -> TokenStream {
    let root = &graph.root;
    let has_errors = !errors.is_empty() || model.has_mistakes();
    let finish = if has_errors { quote!(poisoned) } else { quote!(compiled) };
    let store = graph.store();
    // rustc reports a state that a store cannot keep at the argument for the persistence.
    let persistence = store.map(|store| {
        let at_store = Ident::new("_", store.key.span());
        quote!(::<_, _, #at_store>)
    });
    let errors = errors.into_tokens();
    let hints = editor_hints(graph);
    let builder =
        Builder { graph, model, has_errors, is_parallel: false, is_in_any: false, has_store: store.is_some() }
            .statements(&errors);
    // A store or a closure that is missing has no type that rustc could infer.
    let is_missing = |setting: &Setting| setting.value.is_empty() && has_errors;
    let settings = graph.compile.iter().filter(|setting| setting.is_known && !is_of_builder(setting));
    let settings = settings.filter(|setting| setting.key != "store" || !is_missing(setting));
    let settings = settings.map(|setting| option(setting, has_errors));
    let hooks = graph.compile.iter().filter(|setting| is_of_builder(setting) && !is_missing(setting));
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
                __af::#finish #persistence (#g, #options)
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

/// The variables of a step: the placed node, and the type of its input.
fn node_ident(step: StepId) -> Ident {
    Ident::new(&format!("__n{}", step.index()), Span::mixed_site())
}

fn takes_ident(step: StepId) -> Ident {
    Ident::new(&format!("__t{}", step.index()), Span::mixed_site())
}

/// Returns the type of a step's input as an expression at the tokens that the step is reported at.
fn takes(step: StepId, span: Span) -> TokenStream {
    let variable = takes_ident(step);
    let borrowed = parenthesized(span, quote!(&#variable));
    quote_spanned!(span=> *#borrowed)
}

/// Writes the statements that fill a builder.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about the graph")]
struct Builder<'a> {
    graph: &'a Graph,
    model: &'a Model<'a>,
    has_errors: bool,
    /// True for a graph written inside another one that runs in a branch, where all nodes read the state.
    is_parallel: bool,
    /// True in a graph with a store, which keeps the inputs of its nodes.
    has_store: bool,
    /// True for a graph written inside another one that runs in a branch of an `any`.
    is_in_any: bool,
}

/// Returns the call that makes an empty graph with this state. rustc reports a type that is not a state at the span
/// from the call's first to its last token, which are both at the user's type.
fn empty(state: &TokenStream) -> TokenStream {
    let span = state.span();
    let open = quote_spanned!(span=> <);
    let close = quote_spanned!(span=> >);
    let arguments = parenthesized(span, TokenStream::new());
    quote!(#open __af::StateGraph<_, _, _>>::__of::<#state #close #arguments)
}

impl Builder<'_> {
    /// Returns the statements that fill the builder. The caller compiles it.
    fn statements(&self, after_names: &TokenStream) -> TokenStream {
        let Self { graph, model, has_errors, is_parallel, .. } = *self;
        let names = names(graph, model, has_errors);
        let g = builder_ident();
        let mistakes = mistakes(graph, model);
        let new = match (&graph.state, model.steps.is_empty() && graph.mentions.is_empty()) {
            _ if is_parallel => quote!(#g.__inside_branch()),
            _ if graph.is_inner => quote!(#g.__inside()),
            (Some(state), _) => empty(state),
            (None, false) => quote!(__af::StateGraph::<_, _, _>::new()),
            // Without nodes rustc has nothing to infer the state from.
            (None, true) => quote!(__af::StateGraph::<__af::AgentState, _, _>::new()),
        };
        let name = graph.name.as_ref().map(|name| quote!(#g.set_name(#name);));
        let tasks = (!graph.is_inner).then(|| tasks(graph));
        let ids = || (0..model.steps.len()).map(StepId::new);
        // All nodes are put in their places first, so that every edge knows the input of the node that it leads to.
        let places = ids().map(|step| self.place(step));
        let edges = ids().map(|step| self.plain_edges(step));
        let steps = ids().map(|step| self.step(step));
        let entry = model.entry.map(|entry| {
            let stage = model.start.map(Stage::to_token_stream);
            let plain = self.plain(entry, stage.as_ref());
            let entry = Literal::string(&model.step(entry).name);
            quote!(#plain #g.set_entry_point(#entry);)
        });
        quote_spanned! {Span::mixed_site()=>
            #names
            #after_names
            #mistakes
            #[allow(unused_mut)]
            let mut #g = #new;
            #name
            #tasks
            #(#places)*
            #(#edges)*
            #(#steps)*
            #entry
        }
    }

    fn binding(&self, step: StepId) -> Option<&Binding> {
        match self.model.step(step).work {
            Work::Node { binding: Some(binding), .. } => Some(&self.graph.bindings[binding]),
            _ => None,
        }
    }

    /// Returns true if the step reads the state in a branch.
    fn is_in_branch(&self, step: StepId) -> bool {
        self.is_parallel || self.model.step(step).place.is_some()
    }

    /// Returns true if the step is in a branch of an `any`, or of a group in one.
    fn is_in_any(&self, step: StepId) -> bool {
        let mut place = self.model.step(step).place;
        while let Some(Place { group, .. }) = place {
            let group = self.model.step(group);
            if let Work::Group { written: Branches { kind: BranchesKind::Any, .. }, .. } = group.work {
                return true;
            }
            place = group.place;
        }
        self.is_in_any
    }

    /// Returns the statement that puts a node in its place, either by its type or with its value.
    fn place(&self, step: StepId) -> TokenStream {
        let Work::Node { first_mention: reference, binding } = &self.model.step(step).work else {
            return TokenStream::new();
        };
        let g = builder_ident();
        let (node, takes) = (node_ident(step), takes_ident(step));
        // rustc reports a node that does not fit at this token.
        let fit = Ident::new("_", reference.name.span());
        let placed = match self.binding(step).map(|binding| &binding.source) {
            // rustc reports a value that is not a node at the argument for its type, which has the value's span.
            Some(Source::Value(value)) => {
                let place = if self.is_in_branch(step) { quote!(__place_parallel) } else { quote!(__place_value) };
                let of_value = Ident::new("_", value.span());
                quote!(#g.#place::<#fit, #fit, #of_value>(#value))
            }
            Some(Source::Graph(inner)) => {
                let (is_parallel, is_in_any) = (self.is_in_branch(step), self.is_in_any(step));
                let empty = Model::default();
                let model = binding.and_then(|binding| self.model.inner.get(&binding)).unwrap_or(&empty);
                let statements =
                    Builder { graph: inner, model, is_parallel, is_in_any, ..*self }.statements(&TokenStream::new());
                let function = if is_parallel { quote!(parallel_subgraph) } else { quote!(subgraph) };
                quote!(__af::#function({ #statements #g }))
            }
            Some(Source::Handle(_)) | None => {
                quote!(#g.__place::<(#reference), #fit, #fit, #fit, #fit, __Tasks>())
            }
        };
        let kept = self.has_store.then(|| {
            quote! {
                #[allow(unused_variables)]
                let #takes = __af::kept::<_, _, #fit, _>(&#g, #takes);
            }
        });
        let is_handle = matches!(self.binding(step).map(|binding| &binding.source), Some(Source::Handle(_)) | None);
        let check = (is_handle && self.is_in_any(step)).then(|| quote!(__af::in_any::<#fit, _, _>(&#node);));
        // Where the graph has mistakes, edges may be missing that use these.
        quote! {
            #[allow(unused_variables)]
            let (#node, #takes) = #placed;
            #kept
            #check
        }
    }

    /// Returns the checks of an edge that carries no value to the step. They are reported at the tokens, or at the step.
    fn plain(&self, to: StepId, at: Option<&TokenStream>) -> TokenStream {
        let checks = self.model.takers(to).into_iter().map(|taker| {
            let step = self.model.step(taker);
            let span = match at {
                Some(at) if taker == to => at.span(),
                _ => step.written().span(),
            };
            let takes = takes(taker, span);
            quote!(__af::plain(#takes);)
        });
        quote!(#(#checks)*)
    }

    /// Returns the checks of the step's edges that carry no value.
    fn plain_edges(&self, step: StepId) -> TokenStream {
        let declared = self.model.step(step);
        let mut checks = TokenStream::new();
        for edge in &declared.edges {
            match edge {
                Edge::Direct { to: Next::Step(to), at } => checks.extend(self.plain(*to, Some(&at.to_token_stream()))),
                Edge::Direct { to: Next::End, .. } | Edge::Join => {}
                Edge::Routed { decision, targets } => {
                    for (arm, target) in decision.arms.iter().zip(targets) {
                        let (Next::Step(to), Some(stage)) = (target, arm.chain.stages.first()) else { continue };
                        if arm.chain.carried.is_none() {
                            checks.extend(self.plain(*to, Some(&stage.to_token_stream())));
                        }
                    }
                }
            }
        }
        if let Some(fallback) = declared.on_error {
            let written = match &declared.work {
                Work::Group { written, .. } => written.on_error.as_ref(),
                Work::Node { .. } => self.binding(step).and_then(|binding| binding.on_error.as_ref()),
            };
            checks.extend(self.plain(fallback, written.map(Reference::to_token_stream).as_ref()));
        }
        checks
    }

    /// Returns the calls that add a step, its options and its decision.
    fn step(&self, id: StepId) -> TokenStream {
        let Self { model, has_errors, .. } = *self;
        let g = builder_ident();
        let step = model.step(id);
        let name = Literal::string(&step.name);
        let edges = step.edges.iter().map(|edge| match edge {
            Edge::Direct { to, .. } => {
                let to = match to {
                    Next::Step(to) => Literal::string(&model.step(*to).name).to_token_stream(),
                    Next::End if step.place.is_some() => quote!(__af::JOIN),
                    Next::End => quote!(__af::END),
                };
                quote!(#g.add_edge(#name, #to);)
            }
            Edge::Join => quote!(#g.add_edge(#name, __af::JOIN);),
            // A node that returns its route is added together with the decision.
            Edge::Routed { decision: Decision { router: None, .. }, .. } => TokenStream::new(),
            Edge::Routed { decision, targets } => {
                let router = self.router(decision, targets, &[]);
                let arms = self.arms(decision, targets);
                quote!(#g.__route(#name, #router, &[#(#arms),*]);)
            }
        });
        let on_error = step.on_error.map(|step| {
            let step = Literal::string(&model.step(step).name);
            quote!(.on_error(#step))
        });
        let settings: Vec<_> = match &step.work {
            Work::Node { .. } => self
                .binding(id)
                .iter()
                .flat_map(|binding| &binding.options)
                .filter(|set| set.is_known)
                .map(|set| option(set, has_errors))
                .collect(),
            Work::Group { written, .. } => {
                written.options.iter().filter(|set| is_of_group(set)).map(|set| option(set, has_errors)).collect()
            }
        };
        let options = (!settings.is_empty() || on_error.is_some())
            .then(|| quote!(#g.set_node_options(#name, __af::NodeOptions::new() #(#settings)* #on_error);));
        let added = match &step.work {
            Work::Group { written, branches } => self.add_group(&name, written, branches),
            Work::Node { .. } => self.add_node(id),
        };
        quote!(#added #options #(#edges)*)
    }

    fn add_group(&self, name: &Literal, written: &Branches, branches: &[Vec<StepId>]) -> TokenStream {
        let Self { model, has_errors, .. } = *self;
        let g = builder_ident();
        let lists = branches.iter().map(|branch| {
            let members = branch.iter().map(|member| Literal::string(&model.step(*member).name));
            quote!(&[#(#members),*])
        });
        let (keyword, items) = match &written.kind {
            BranchesKind::All => return quote!(#g.__group(#name, &[#(#lists),*]);),
            BranchesKind::Any => return quote!(#g.__any(#name, &[#(#lists),*]);),
            BranchesKind::Each { keyword, items } => (keyword, items),
        };
        let takers = branches.first().and_then(|branch| branch.first()).map(|first| model.takers(*first));
        let takers = takers.unwrap_or_default();
        let Some((first, others)) = takers.split_first() else {
            // The branch begins with an `each`, which has items of its own.
            let span = branches
                .first()
                .and_then(|branch| branch.first())
                .map_or_else(Span::call_site, |first| model.step(*first).written().span());
            let text = "an item of `each` goes to a node: begin the branch with a node that has an `input`";
            let error = syn::Error::new(span, text).into_compile_error();
            return if has_errors { TokenStream::new() } else { error };
        };
        let first = takes(*first, keyword.span());
        let same = others.iter().map(|other| {
            let other = takes(*other, model.step(*other).written().span());
            quote!(__af::same(#first, #other);)
        });
        let (state, limit) = (Ident::new("__state", Span::mixed_site()), Ident::new("__limit", Span::mixed_site()));
        // rustc reports a function of another state at the span of the argument.
        let borrowed = parenthesized(items.span(), quote!(&#state));
        let argument = quote_spanned!(items.span()=> *#borrowed);
        let [function, argument] = [items.clone(), argument].map(|tokens| parenthesized(items.span(), tokens));
        let settings =
            written.options.iter().filter(|set| set.is_known && !is_of_group(set)).map(|set| option(set, has_errors));
        quote! {
            #(#same)*
            #[allow(clippy::redundant_closure_call)]
            #g.__each(
                #name,
                #first,
                move |#state: &_, #limit| __af::items(#first, #function #argument, #limit),
                __af::EachOptions::new() #(#settings)*,
                #(#lists),*
            );
        }
    }

    /// Returns the call that adds a node, with the decision on its route if there is one.
    fn add_node(&self, id: StepId) -> TokenStream {
        let g = builder_ident();
        let step = self.model.step(id);
        let name = Literal::string(&step.name);
        let (node, takes) = (node_ident(id), takes_ident(id));
        let Work::Node { first_mention: reference, .. } = &step.work else { return TokenStream::new() };
        // If the node's route does not fit its outgoing edge, rustc reports it at this token.
        let fit = Ident::new("_", reference.name.span());
        let is_in_branch = self.is_in_branch(id);
        if let (Some(Binding { source: Source::Graph(_), .. }), true) = (self.binding(id), is_in_branch) {
            return quote!(#g.__parallel_graph(#name, #node););
        }
        let is_value = matches!(self.binding(id), Some(Binding { source: Source::Value(_), .. }));
        let returned = step.edges.iter().find_map(|edge| match edge {
            Edge::Routed { decision, targets } if decision.router.is_none() => Some((decision, targets)),
            _ => None,
        });
        let Some((decision, targets)) = returned else {
            return match (is_value, is_in_branch) {
                (true, _) => quote!(#g.__value::<#fit, _>(#name, #node, #takes);),
                (false, true) => quote!(#g.__branch::<#fit, _, #fit>(#name, #node, #takes);),
                (false, false) => quote!(#g.__node::<#fit, _, #fit>(#name, #node, #takes);),
            };
        };
        let add = match (is_value, is_in_branch) {
            (true, _) => quote!(__deciding_value::<#fit, _, _>),
            (false, true) => quote!(__deciding_branch::<#fit, _, _, #fit>),
            (false, false) => quote!(__deciding::<#fit, _, _, #fit>),
        };
        let route = Ident::new("__returned", Span::mixed_site());
        let router = self.router(decision, targets, &[route]);
        let arms = self.arms(decision, targets);
        quote!(#g.#add(#name, #node, #takes, #router, &[#(#arms),*]);)
    }

    /// Returns the router closure: a plain `match` whose arms return the indexes of the outgoing edges. An arm that carries a
    /// value puts it into the slot.
    fn router(&self, decision: &Decision, targets: &[Next], returned: &[Ident]) -> TokenStream {
        router(decision, returned, |index, arm| {
            let (Some(value), Some(Next::Step(to))) = (&arm.chain.carried, targets.get(index)) else { return None };
            let takers = self.model.takers(*to);
            let (first, others) = takers.split_first()?;
            let span = arm.chain.stages.first().map_or_else(Span::call_site, |stage| stage.to_token_stream().span());
            let first = takes(*first, span);
            let same = others.iter().map(|other| {
                let other = takes(*other, span);
                quote!(__af::same(#first, #other);)
            });
            let slot = slot_ident();
            let index = Literal::usize_suffixed(index);
            let value = value.stream();
            Some(quote!({ #(#same)* __af::carry(#first, #value, #index, #slot) }))
        })
    }

    /// Returns the arms' patterns and targets in the runtime's form.
    fn arms(&self, decision: &Decision, targets: &[Next]) -> Vec<TokenStream> {
        let arm = |(arm, target): (&Arm, &Next)| {
            let label = Literal::string(&printing::pattern(arm.pattern.clone()));
            let none = quote!(::core::option::Option::None);
            let (name, receiver) = match target {
                Next::Step(step) => {
                    let name = Literal::string(&self.model.step(*step).name);
                    (quote!(::core::option::Option::Some(#name)), self.model.takers(*step).first().copied())
                }
                Next::End => (none.clone(), None),
            };
            let carries = match (&arm.chain.carried, receiver) {
                (Some(_), Some(receiver)) => {
                    let takes = takes_ident(receiver);
                    quote!(#takes.carried())
                }
                _ => none,
            };
            quote!((#label, #name, #carries))
        };
        decision.arms.iter().zip(targets).map(arm).collect()
    }
}

/// Returns the type that stands for the durable tasks of the graph, and the calls that register them.
fn tasks(graph: &Graph) -> TokenStream {
    let g = builder_ident();
    let mut names: Vec<TokenStream> = Vec::new();
    let tasks: Vec<_> = graph
        .tasks
        .iter()
        .enumerate()
        .map(|(index, task)| {
            // rustc reports a task that the app cannot run at this token.
            let fit = Ident::new("_", task.name.span());
            // An item cannot name the generic parameters of the function around it.
            if task.with_own_generics().is_some() {
                return quote!(#g.__task::<#fit>(__af::task::<(#task)>()););
            }
            let alias = Ident::new(&format!("__Task{index}"), Span::mixed_site());
            let distinct = parenthesized(task.name.span(), quote!(__af::distinct));
            let name = quote!(__af::NameOf::<#alias>::NAME);
            let arguments = parenthesized(task.name.span(), quote!(#name, &[#(#names),*]));
            let distinct = (!names.is_empty()).then(|| quote!(const _: () = { #distinct #arguments };));
            names.push(name);
            quote! {
                type #alias = (#task);
                impl __af::Registers<#alias> for __Tasks {}
                #distinct
                #g.__task::<#fit>(__af::task::<#alias>());
            }
        })
        .collect();
    let import = (names.len() > 1).then(|| {
        quote!(
            use __af::NoName as _;
        )
    });
    quote! {
        #[allow(dead_code)]
        struct __Tasks;
        #import
        #(#tasks)*
    }
}

/// Returns whether the option belongs to every group, and not to `each` alone.
fn is_of_group(setting: &Setting) -> bool {
    setting.key == "label"
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

/// Returns the call for `KEY: VALUE`. Its parentheses have the key's span, so that rustc reports errors of the call
/// there.
pub(super) fn option(Setting { key, value, .. }: &Setting, has_errors: bool) -> TokenStream {
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
    if reference.is_keyword() {
        let keyword = &reference.name;
        return quote!(let _: (#root::#keyword););
    }
    quote!(let _: (#reference);)
}

fn slot_ident() -> Ident {
    Ident::new("__slot", Span::mixed_site())
}

/// Returns the router closure: a plain `match` whose arms return the indexes of the outgoing edges. `carry` returns the
/// expression of an arm that carries a value.
pub(super) fn router(
    decision: &Decision,
    returned: &[Ident],
    carry: impl Fn(usize, &Arm) -> Option<TokenStream>,
) -> TokenStream {
    let (state, slot) = (Ident::new("__state", Span::mixed_site()), slot_ident());
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
    let arms = arms.map(|(index, arm)| {
        let pattern = &arm.pattern;
        let chosen = carry(index, arm).unwrap_or_else(|| Literal::usize_suffixed(index).to_token_stream());
        let chosen = parenthesized(arm.chain.end().unwrap_or_else(Span::call_site), chosen);
        quote!(#pattern => #chosen,)
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
    quote!(#allow move |#state: &_ #(, #returned)*, #slot: &_| #keyword #scrutinee #arms)
}
