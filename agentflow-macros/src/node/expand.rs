//! The code that `#[node]` adds to the function: the handle and its impls.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{Attribute, GenericParam, Ident, ReturnType, Type, spanned::Spanned};

use super::{
    check::Signature,
    parameters::{Input, Known, Parameter, State},
    spawns::durable_tasks,
    syntax::{Function, NodeArgs},
};
use crate::{
    printing::parenthesized,
    types::{last_segment, type_arguments},
};

/// The handle type and its impls. Those of a function with mistakes fit everywhere, so that its uses report nothing
/// more.
pub(crate) fn handle(
    args: &NodeArgs,
    function: &Function,
    signature: &Signature,
    errors: Option<&TokenStream>,
) -> TokenStream {
    let names = Names::new(args, function);
    let struct_ = names.struct_(function);
    let impls = match errors {
        Some(errors) => stub_impls(&names, signature, errors),
        None => impls(&names, function, signature),
    };
    let NodeArgs { root, .. } = args;
    let cfgs = cfgs(function);
    quote! {
        #struct_
        #cfgs
        #[allow(deprecated, clippy::unit_arg)]
        const _: () = {
            use #root::__private as __af;
            #impls
        };
    }
}

/// The handle's name and generics, in the forms that the expansion needs.
pub(crate) struct Names<'a> {
    pub(crate) handle: &'a Ident,
    generics: Vec<&'a GenericParam>,
    /// `<L, N>`, or nothing.
    pub(crate) arguments: TokenStream,
    /// The expression that makes a handle.
    value: TokenStream,
    /// True for `#[node(MAIN)]`, which makes a unit struct: no function has the name, so it can also be a value.
    is_renamed: bool,
}

impl<'a> Names<'a> {
    pub(crate) fn new(args: &'a NodeArgs, function: &'a Function) -> Self {
        let handle = args.name.as_ref().unwrap_or(&function.sig.ident);
        let generics: Vec<_> = function
            .sig
            .generics
            .params
            .iter()
            .filter(|parameter| !matches!(parameter, GenericParam::Lifetime(_)))
            .collect();
        let is_renamed = args.name.is_some();
        let (arguments, value) = if generics.is_empty() {
            (TokenStream::new(), if is_renamed { quote!(#handle) } else { quote!(#handle {}) })
        } else {
            let names = generics.iter().map(|parameter| name(parameter));
            (quote!(<#(#names),*>), quote!(#handle { _marker: ::core::marker::PhantomData }))
        };
        Self { handle, generics, arguments, value, is_renamed }
    }

    /// Returns the generic parameters without bounds or defaults.
    pub(crate) fn parameters(&self) -> Vec<TokenStream> {
        self.generics
            .iter()
            .map(|parameter| match parameter {
                GenericParam::Const(parameter) => {
                    let (ident, ty) = (&parameter.ident, &parameter.ty);
                    quote!(const #ident: #ty)
                }
                parameter => name(parameter),
            })
            .collect()
    }

    /// Returns the struct. It has braces unless it is renamed: a braced struct is in the type namespace only, so it can
    /// have the function's name.
    pub(crate) fn struct_(&self, function: &Function) -> TokenStream {
        let Self { handle, value, .. } = self;
        let vis = function.vis();
        let attrs = function
            .attrs
            .iter()
            .filter(|attr| ["doc", "cfg", "deprecated"].iter().any(|kept| attr.path().is_ident(kept)));
        let attrs = quote! {
            #(#attrs)*
            #[allow(non_camel_case_types, missing_docs, clippy::upper_case_acronyms, clippy::exhaustive_structs)]
        };
        if self.generics.is_empty() {
            let body = if self.is_renamed { quote!(;) } else { quote!({}) };
            return quote! {
                #attrs
                #[derive(Clone, Copy, Debug)]
                #vis struct #handle #body
            };
        }
        let parameters = self.parameters();
        let types = self.generics.iter().filter(|parameter| matches!(parameter, GenericParam::Type(_)));
        let types = types.map(|parameter| name(parameter));
        let arguments = &self.arguments;
        let cfgs = cfgs(function);
        quote! {
            #attrs
            #vis struct #handle<#(#parameters),*> {
                _marker: ::core::marker::PhantomData<fn() -> (#(#types,)*)>,
            }
            #cfgs
            #[automatically_derived]
            impl<#(#parameters),*> ::core::default::Default for #handle #arguments {
                fn default() -> Self {
                    #value
                }
            }
            #cfgs
            #[automatically_derived]
            impl<#(#parameters),*> ::core::fmt::Debug for #handle #arguments {
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    f.write_str(::core::stringify!(#handle))
                }
            }
        }
    }
}

fn name(parameter: &GenericParam) -> TokenStream {
    match parameter {
        GenericParam::Type(parameter) => parameter.ident.to_token_stream(),
        GenericParam::Const(parameter) => parameter.ident.to_token_stream(),
        GenericParam::Lifetime(parameter) => parameter.lifetime.to_token_stream(),
    }
}

/// Returns the `#[cfg]`s of the function, which its handle and impls share.
pub(crate) fn cfgs(function: &Function) -> TokenStream {
    function.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).map(Attribute::to_token_stream).collect()
}

/// The checks of a function's state, result and input.
///
/// rustc reports a constant that failed once, and nothing that depends on it. A constant cannot name the parameters of a
/// generic function, whose types are checked by a function instead.
struct Checks {
    /// The type of the input.
    input: TokenStream,
    /// The type of the state, as graphs find it.
    state: TokenStream,
    /// The type of the result, as the impls name it.
    checked: TokenStream,
    /// The type of the answer, as the impls name it.
    answer: Option<TokenStream>,
    /// The constants, or the function.
    items: TokenStream,
}

impl Checks {
    fn new(
        function: &Function,
        signature: &Signature,
        form: &TokenStream,
        state: &TokenStream,
        result: &Type,
        parameters: &impl ToTokens,
    ) -> Self {
        let generics = &function.sig.generics;
        let input = input_type(signature).map(Input::value_type);
        let check_input = input.map(|ty| quote!(__af::input::<#ty>()));
        let answer = answer_type(signature);
        let wrapper = wrapper(signature);
        let has_state = state_type(signature).is_some();
        let check_state = has_state.then(|| quote!(__af::state_type::<#state>()));
        if !generics.params.is_empty() {
            let where_clause = &generics.where_clause;
            let form = quote!(__af::#form<#state, ()>);
            let check_result = result_checks(result, &result.to_token_stream(), &form, answer.is_some());
            let checks = check_state.into_iter().chain(check_result).chain(check_input);
            return Self {
                input: input.map_or_else(|| quote!(()), ToTokens::to_token_stream),
                state: state.clone(),
                checked: quote!(__af::#wrapper<#result, 0>),
                answer: answer.map(|ty| quote!(<#ty as __af::AnswerParameter>::Answer)),
                items: quote! {
                    #[allow(dead_code)]
                    fn __checks<#parameters>() #where_clause {
                        #(#checks;)*
                    }
                },
            };
        }
        // A node without state runs on every state.
        let state_of_form = if has_state { state.clone() } else { quote!(__af::AgentState) };
        // rustc advises a type parameter beside the name of the item that mentions an unknown type. The alias has the place
        // of the function's name, so that it is the same advice, reported once.
        let alias = Ident::new("__Result", function.sig.ident.span());
        let form = quote!(__af::#form<#state_of_form, ()>);
        let check_result = result_checks(result, &alias.to_token_stream(), &form, answer.is_some());
        let alias_of_answer = Ident::new("__Answer", function.sig.ident.span());
        let declared_answer = answer.map(|ty| quote!(type #alias_of_answer = #ty;));
        let check_answer = answer.map(|ty| {
            let answer = parenthesized(ty.span(), quote!(#alias_of_answer,));
            quote!(__af::answer::<#answer>())
        });
        let check_input = check_input.map(|check| quote!(const __INPUT: usize = { #check; 0 };));
        let checks = check_state.into_iter().chain(check_answer).chain(check_result);
        Self {
            input: input
                .map_or_else(|| quote!(()), |ty| quote!(<__af::CheckedInput<#ty, __INPUT> as __af::Valid>::Value)),
            state: if has_state {
                quote!(<__af::CheckedState<#state, __VALID> as __af::Valid>::Value)
            } else {
                state.clone()
            },
            checked: quote!(__af::#wrapper<__Result, __VALID>),
            answer: answer.map(|_| quote!(<__af::CheckedAnswer<__Answer, __VALID> as __af::ValidAnswer>::Answer)),
            items: quote! {
                type #alias = #result;
                #declared_answer
                const __VALID: usize = { #(#checks;)* 0 };
                #check_input
            },
        }
    }
}

/// Returns the checks of a result, which is `alias`. Those of a `Result` are separate, so that rustc reports the half that
/// is wrong.
fn result_checks(result: &Type, alias: &TokenStream, form: &TokenStream, asks: bool) -> Vec<TokenStream> {
    let (whole, half) = if asks { (quote!(ask), quote!(ask_ok)) } else { (quote!(result), quote!(ok)) };
    match (last_segment(result), type_arguments(result).as_slice()) {
        (Some(last), [ok, error]) if last.ident == "Result" => {
            // rustc reports a half where it is written: at the parentheses.
            let (ok, error) = (parenthesized(ok.span(), quote!(#alias,)), parenthesized(error.span(), quote!(#alias,)));
            vec![quote!(__af::#half::<#ok, #form>()), quote!(__af::error::<#error>())]
        }
        _ => vec![quote!(__af::#whole::<#result, #form>())],
    }
}

fn impls(names: &Names<'_>, function: &Function, signature: &Signature) -> TokenStream {
    let sig = &function.sig;
    let Names { handle, arguments, .. } = names;
    let state = state_type(signature);
    let mut parameters = sig.generics.params.clone();
    for parameter in &mut parameters {
        // A node outlives every borrow, so its type parameters do.
        if let GenericParam::Type(parameter) = parameter {
            parameter.bounds.push(syn::parse_quote!('static));
        }
    }
    if state.is_none() {
        parameters.push(syn::parse_quote!(__S: __af::State));
    }
    let mut generics = parameters.clone();
    generics.push(syn::parse_quote!(__C: __af::Context));
    let services = signature.parameters.iter().filter_map(|parameter| match parameter {
        Parameter::Inject(service) => Some(quote!(__C: __af::Provide<#service>,)),
        _ => None,
    });
    let (form, state, in_place) = match state {
        None => (quote!(InPlace), quote!(__S), false),
        Some(State::InPlace(ty)) => (quote!(InPlace), quote!(#ty), true),
        Some(State::Reads(ty)) => (quote!(Reads), quote!(#ty), false),
        Some(State::Owns(ty)) => (quote!(Owns), quote!(#ty), false),
    };
    let result = match &sig.output {
        ReturnType::Default => syn::parse_quote!(()),
        ReturnType::Type(_, ty) => (**ty).clone(),
    };
    let Checks { input, state: of_graph, checked, answer, items } =
        Checks::new(function, signature, &form, &state, &result, &parameters);
    let predicates = sig.generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let predicates = quote!(#(#predicates,)*);
    let bounds = quote!(where #predicates #(#services)*);
    let call = call(function, signature, arguments);
    let Spawns { items: spawn_items, names: durable_tasks, all: spawns } = Spawns::new(function);
    let info = info(signature, durable_tasks.as_ref(), &checked, answer.as_ref());
    let taken = taken(signature, answer.as_ref());
    let wrapper = wrapper(signature);
    let finishes = |context: TokenStream| quote!(__af::Finishes<__af::#form<#state, #context>>);
    let in_app = finishes(quote!(__C));
    // rustc reports a future that is not `Send` at this span.
    let output = parenthesized(sig.ident.span(), quote!(::core::result::Result<Self::Output, __af::NodeError>));
    let parallel = matches!(state_type(signature), None | Some(State::Reads(_))).then(|| {
        // A node whose result is not an update has no such impl. That is an error only if a group uses the node.
        let update = quote! {
            ::core::result::Result<
                (::core::option::Option<<#of_graph as __af::State>::Update>, Self::Output),
                __af::NodeError,
            >
        };
        quote! {
            #[automatically_derived]
            impl<#generics> __af::ParallelNode<#of_graph, __C, #input> for #handle #arguments #bounds
                #of_graph: __af::StateIn<__C>,
                #checked: __af::FinishesUpdate<#of_graph, __C>,
            {
                type Output = <#checked as __af::FinishesUpdate<#of_graph, __C>>::Route;
                #info
                const IS_FUNCTION: bool = true;
                async fn run_parallel(&self, __cx: __af::ParallelContext<'_, #of_graph, __C, #input>) -> #update {
                    #taken
                    <#checked as __af::FinishesUpdate<#of_graph, __C>>::into_update(__af::#wrapper(#call))
                }
            }
        }
    });
    let of_signature = finishes(quote!(()));
    let value = &names.value;
    let asks_nothing = answer.is_none().then(|| {
        let parameters = names.parameters();
        quote! {
            #[automatically_derived]
            #[diagnostic::do_not_recommend]
            impl<#(#parameters),*> __af::AsksNothing for #handle #arguments {}
        }
    });
    quote! {
        #items
        #spawn_items
        #[automatically_derived]
        #[allow(unused_parens)]
        impl<#generics> __af::Node<#state, __C, #input> for #handle #arguments #bounds #checked: #in_app {
            type Output = <#checked as #in_app>::Route;
            const MUTATES_STATE: bool = #in_place;
            #info
            async fn run(&self, __cx: __af::NodeContext<'_, #state, __C, #input>) -> #output {
                #taken
                <#checked as #in_app>::finish(__af::#wrapper(#call), __cx)
            }
        }
        #parallel
        #[automatically_derived]
        impl<#parameters> __af::Signature<#of_graph, <#checked as #of_signature>::Route, #input> for #handle #arguments
        where #predicates #checked: #of_signature
        {
            type This = Self;
            type Spawns = #spawns;
            const HANDLE: Self = #value;
        }
        #asks_nothing
    }
}

/// Returns the parameters that are known by their names.
fn known(signature: &Signature) -> impl Iterator<Item = &'static Known> {
    signature.parameters.iter().filter_map(|parameter| match parameter {
        Parameter::Known(known, _) => Some(*known),
        _ => None,
    })
}

/// Returns the constant with the node's properties, if it has any.
fn info(
    signature: &Signature,
    durable_tasks: Option<&TokenStream>,
    checked: &TokenStream,
    answer: Option<&TokenStream>,
) -> Option<TokenStream> {
    let starts_tasks = known(signature).any(|known| known.name == "task_manager").then(|| quote!(.starts_tasks()));
    let durable_tasks = durable_tasks.map(|names| quote!(.durable_tasks(#names)));
    let info = quote!(__af::NodeInfo::new() #starts_tasks #durable_tasks);
    let info = match answer {
        None if starts_tasks.is_none() && durable_tasks.is_none() => return None,
        None => info,
        Some(answer) => quote! {{
            use __af::NoSchema as _;
            __af::asks::<#checked, #answer>(
                #info,
                __af::SchemaOf::<<#checked as __af::Asks>::Question>::QUESTION,
                __af::SchemaOf::<#answer>::ANSWER,
            )
        }},
    };
    Some(quote!(const INFO: __af::NodeInfo = #info;))
}

/// Returns the statements that take the values of the parameters out of the context. They come first, because the call
/// then borrows the state from the same context.
fn taken(signature: &Signature, answer: Option<&TokenStream>) -> TokenStream {
    let answered = answer.map(|answer| quote!(let __answer = __cx.answer::<#answer>()?;));
    let taken = known(signature).map(|known| {
        let (variable, value) = (known.variable(), (known.value)());
        quote!(let #variable = #value;)
    });
    taken.chain(answered).collect()
}

/// Returns the name of the type that holds a checked result.
fn wrapper(signature: &Signature) -> TokenStream {
    if answer_type(signature).is_some() { quote!(CheckedAsk) } else { quote!(Checked) }
}

/// The durable tasks that the body of a function names.
struct Spawns {
    /// An alias for each of them.
    items: TokenStream,
    /// Their names, for the node's properties.
    names: Option<TokenStream>,
    /// The type of all of them: `(A, (B, ()))`.
    all: TokenStream,
}

impl Spawns {
    fn new(function: &Function) -> Self {
        let name = &function.sig.ident;
        // An alias cannot name the parameters of a generic function, whose tasks are checked when they are spawned.
        let is_generic = !function.sig.generics.params.is_empty();
        let paths = if is_generic { Vec::new() } else { durable_tasks(&function.body) };
        // As for the result: the advice for an unknown type is the same as in the body.
        let aliases: Vec<_> =
            (0..paths.len()).map(|index| Ident::new(&format!("__Spawn{index}"), name.span())).collect();
        let names = (!paths.is_empty()).then(|| quote!(&[#(#aliases::NAME),*]));
        let import = names.as_ref().map(|_| {
            quote!(
                use __af::NoName as _;
            )
        });
        let spawned = |all, alias| quote!((__af::Spawned<#alias, { #alias::IS_TASK }>, #all));
        let all = aliases.iter().rev().fold(quote!(()), spawned);
        Self { items: quote!(#import #(type #aliases = __af::NameOf<#paths>;)*), names, all }
    }
}

/// Returns the impl of a function with mistakes: in a graph, a stub stands for it.
fn stub_impls(names: &Names<'_>, signature: &Signature, errors: &TokenStream) -> TokenStream {
    let (state_parameter, state) = match state_type(signature) {
        None => (Some(quote!(__S: __af::State,)), quote!(__S)),
        Some(State::InPlace(ty) | State::Reads(ty) | State::Owns(ty)) => (None, quote!(#ty)),
    };
    let Names { handle, arguments, .. } = names;
    let parameters = names.parameters();
    let any = quote!(<__af::Mistaken<__MISTAKE> as __af::Reported>::Any);
    quote! {
        // rustc reports nothing that depends on a constant that failed.
        const __MISTAKE: usize = { #errors 0 };
        #[automatically_derived]
        impl<#(#parameters,)* #state_parameter> __af::Signature<#state, #any, #any> for #handle #arguments {
            type This = __af::Stub<#any>;
            type Spawns = ();
            const HANDLE: __af::Stub<#any> = __af::Stub::NEW;
        }
    }
}

fn state_type(signature: &Signature) -> Option<&State> {
    signature.parameters.iter().find_map(|parameter| match parameter {
        Parameter::State(state) => Some(state),
        _ => None,
    })
}

fn answer_type(signature: &Signature) -> Option<&Type> {
    signature.parameters.iter().find_map(|parameter| match parameter {
        Parameter::Answer(ty) => Some(ty),
        _ => None,
    })
}

fn input_type(signature: &Signature) -> Option<&Input> {
    signature.parameters.iter().find_map(|parameter| match parameter {
        Parameter::Input(input) => Some(input),
        _ => None,
    })
}

/// Returns the call of the user's function, awaited. Each of the user's types occurs at most once in it, so that rustc
/// reports an unknown type once.
fn call(function: &Function, signature: &Signature, turbofish: &TokenStream) -> TokenStream {
    let name = &function.sig.ident;
    let arguments = signature.parameters.iter().map(|parameter| match parameter {
        Parameter::State(State::InPlace(ty)) => quote!(__af::state_mut::<#ty>(__cx.state)),
        Parameter::State(State::Reads(ty)) => quote!(__af::state_ref::<#ty>(__cx.state)),
        Parameter::State(State::Owns(ty)) => quote!(__af::state_owned::<#ty>(__cx.state)),
        Parameter::Input(Input::Borrowed(_)) => quote!(__cx.input),
        Parameter::Input(Input::Copied(ty)) => quote!(<#ty as __af::InputByValue>::copied(__cx.input)),
        Parameter::Answer(_) => quote!(__answer),
        Parameter::Known(known, ty) => {
            let (variable, given) = (known.variable(), (known.given)());
            quote!(<#ty as __af::Accepts<#given>>::accept(#variable))
        }
        Parameter::Inject(service) => quote!(<__C as __af::Provide<#service>>::provide(__cx.services)),
    });
    let turbofish = (!turbofish.is_empty()).then(|| quote!(::#turbofish));
    // The call has the span of the function's name: rustc reports a future that is not `Send` at the call.
    quote_spanned!(name.span()=> #name #turbofish (#(#arguments),*).await)
}
