//! The code that `#[task]` adds to the function: the handle and its impls.

use proc_macro2::{Literal, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Ident, ReturnType, Type, parse_quote, spanned::Spanned};

use super::{check::Signature, parameters::Parameter, syntax::TaskArgs};
use crate::{
    node::{
        expand::{Names, cfgs},
        syntax::{Function, NodeArgs},
    },
    printing::parenthesized,
    types::{last_segment, type_arguments},
};

/// The handle type and its impls. Those of a function with mistakes fit everywhere, so that its uses report nothing
/// more.
pub(crate) fn handle(
    args: &TaskArgs,
    function: &Function,
    signature: &Signature,
    errors: Option<&TokenStream>,
) -> TokenStream {
    let of_handle = NodeArgs::default();
    let names = Names::new(&of_handle, function);
    let struct_ = names.struct_(function);
    let function_name = &function.sig.ident;
    let name = args.name.as_ref().map_or_else(
        // A raw identifier is stored without its `r#`.
        || Literal::string(function_name.to_string().trim_start_matches("r#")).to_token_stream(),
        ToTokens::to_token_stream,
    );
    let impls = match errors {
        Some(errors) => stub_impls(&names, &name, errors),
        None => impls(&name, function, signature),
    };
    let root = &args.root;
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

fn impls(name: &TokenStream, function: &Function, signature: &Signature) -> TokenStream {
    let sig = &function.sig;
    let handle = &sig.ident;
    let args = signature.parameters.iter().find_map(|parameter| match parameter {
        Parameter::Args(ty) => Some(ty.clone()),
        _ => None,
    });
    let args: Type = args.unwrap_or_else(|| parse_quote!(()));
    let result: Type = match &sig.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, ty) => (**ty).clone(),
    };
    // rustc advises a type parameter beside the name of the item that mentions an unknown type. The aliases have the place
    // of the function's name, so that it is the same advice, reported once.
    let (of_args, of_result) = (Ident::new("__Args", handle.span()), Ident::new("__Result", handle.span()));
    let checks = result_checks(&result);
    let services = signature.parameters.iter().filter_map(|parameter| match parameter {
        Parameter::Inject(service) => Some(quote!(__C: __af::ProvideToTask<#service>,)),
        _ => None,
    });
    let call = call(function, signature);
    // rustc reports a future that is not `Send` at this span.
    let output = parenthesized(handle.span(), quote!(::core::result::Result<(), __af::TaskError>));
    quote! {
        type #of_args = #args;
        type #of_result = #result;
        const __ARGS: usize = { __af::task_args::<#args>(); 0 };
        const __VALID: usize = { #(#checks;)* 0 };
        #[automatically_derived]
        impl __af::Task for #handle {
            type Args = <__af::CheckedArgs<__Args, __ARGS> as __af::ValidArgs>::Value;
            const NAME: &'static str = #name;
        }
        #[automatically_derived]
        #[allow(unused_parens, unused_variables)]
        impl<__C: __af::Context> __af::RunTask<__C> for #handle where #(#services)* {
            async fn run(
                __args: <Self as __af::Task>::Args,
                __attempt: __af::TaskAttempt<'_, __C>,
            ) -> #output {
                <__af::Checked<__Result, __VALID> as __af::FinishesTask>::finish(__af::Checked(#call))
            }
        }
    }
}

/// Returns the checks of a result. Those of a `Result` are separate, so that rustc reports the half that is wrong.
fn result_checks(result: &Type) -> Vec<TokenStream> {
    match (last_segment(result), type_arguments(result).as_slice()) {
        (Some(last), [ok, error]) if last.ident == "Result" => {
            // rustc reports a half where it is written: at the parentheses.
            let [ok, error] = [ok, error].map(|half| parenthesized(half.span(), quote!(__Result,)));
            vec![quote!(__af::task_ok::<#ok>()), quote!(__af::task_error::<#error>())]
        }
        _ => vec![quote!(__af::task_result::<#result>())],
    }
}

/// Returns the call of the user's function, awaited.
fn call(function: &Function, signature: &Signature) -> TokenStream {
    let name = &function.sig.ident;
    let arguments = signature.parameters.iter().map(|parameter| match parameter {
        Parameter::Args(_) => quote!(__args),
        Parameter::Known(known, ty) => {
            let (value, given) = ((known.value)(), (known.given)());
            quote!(<#ty as __af::AcceptedByTask<#given>>::accept(#value))
        }
        Parameter::Inject(service) => quote!(<__C as __af::ProvideToTask<#service>>::provide(__attempt.services)),
    });
    // The call has the span of the function's name: rustc reports a future that is not `Send` at the call.
    quote_spanned!(name.span()=> #name(#(#arguments),*).await)
}

/// Returns the impls of a function with mistakes: in a graph and at a spawn, a stub stands for it.
fn stub_impls(names: &Names<'_>, name: &TokenStream, errors: &TokenStream) -> TokenStream {
    let Names { handle, arguments, .. } = names;
    let parameters = names.parameters();
    quote! {
        // rustc reports nothing that depends on a constant that failed.
        const __MISTAKE: usize = { #errors 0 };
        #[automatically_derived]
        impl<#(#parameters),*> __af::Task for #handle #arguments where Self: 'static {
            type Args = <__af::Mistaken<__MISTAKE> as __af::ReportedArgs>::Any;
            const NAME: &'static str = #name;
        }
        #[automatically_derived]
        impl<#(#parameters,)* __C: __af::Context> __af::RunTask<__C> for #handle #arguments where Self: 'static {
            async fn run(
                _: <Self as __af::Task>::Args,
                _: __af::TaskAttempt<'_, __C>,
            ) -> ::core::result::Result<(), __af::TaskError> {
                ::core::unreachable!("a task with mistakes does not compile")
            }
        }
    }
}
