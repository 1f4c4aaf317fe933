//! `#[derive(Route)]`: an enum that a node returns and a decision matches.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput};

use crate::{errors::Errors, root::Root};

/// Emits the impls even for invalid input if they compile. Without them rustc would also report every node that returns
/// the route.
pub(crate) fn derive(input: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(input) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::new();
    match &input.data {
        Data::Enum(data) => {
            let attrs = data.variants.iter().flat_map(|variant| &variant.attrs);
            for attr in attrs.filter(|attr| attr.path().is_ident("route")) {
                errors.spanning(
                    attr,
                    "a variant of a route has no options: `#[route(crate = path)]` belongs on the enum",
                );
            }
        }
        Data::Struct(_) | Data::Union(_) => {
            let text = "a route is an enum: one variant for each outgoing edge, `enum Step { Tools, Done }`";
            errors.spanning(&input.ident, text);
        }
    }
    if let Some(lifetime) = input.generics.lifetimes().next() {
        errors.spanning(lifetime, "a route outlives the node that returns it: it must own its data");
        return errors.into_tokens();
    }
    let root = Root::from_attributes(&input.attrs, "route", &mut errors);
    let errors = errors.into_tokens();
    let DeriveInput { ident, mut generics, .. } = input;
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(syn::parse_quote!(::core::marker::Send));
        parameter.bounds.push(syn::parse_quote!('static));
    }
    let (impl_generics, arguments, bounds) = generics.split_for_impl();
    let mut returning = generics.clone();
    returning.params.push(syn::parse_quote!(__S));
    returning.params.push(syn::parse_quote!(__C));
    let returning = returning.split_for_impl().0;
    let mut in_a_group = generics.clone();
    in_a_group.params.push(syn::parse_quote!(__S: __af::State));
    in_a_group.params.push(syn::parse_quote!(__C));
    let in_a_group = in_a_group.split_for_impl().0;
    // The third form, `Owns`, is missing: a node that takes the state by value must return it too.
    let forms = [quote!(InPlace), quote!(Reads)];
    quote! {
        #errors
        const _: () = {
            use #root::__private as __af;
            #[automatically_derived]
            impl #impl_generics __af::Route for #ident #arguments #bounds {}
            #[automatically_derived]
            #[diagnostic::do_not_recommend]
            impl #impl_generics __af::Routed<Self> for #ident #arguments #bounds {
                fn value(self) -> Self {
                    self
                }
            }
            #(
                #[automatically_derived]
                #[diagnostic::do_not_recommend]
                impl #returning __af::Returns<__af::#forms<__S, __C>> for #ident #arguments #bounds {
                    type Route = Self;
                    fn finish<__I>(
                        self,
                        _: __af::NodeContext<'_, __S, __C, __I>,
                    ) -> ::core::result::Result<Self, __af::NodeError> {
                        ::core::result::Result::Ok(self)
                    }
                }
            )*
            #[automatically_derived]
            #[diagnostic::do_not_recommend]
            impl #in_a_group __af::ReturnsUpdate<__S, __C> for #ident #arguments #bounds {
                type Route = Self;
                fn into_update(
                    self,
                ) -> ::core::result::Result<(::core::option::Option<__S::Update>, Self), __af::NodeError> {
                    ::core::result::Result::Ok((::core::option::Option::None, self))
                }
            }
        };
    }
}
