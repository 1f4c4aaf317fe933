//! [`State`] with mistakes → an update whose setters take anything, so that the uses of the state cause no more errors.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{GenericParam, Generics, parse_quote};

use super::expand::update_ident;
use super::syntax::State;

pub(crate) fn fallback(state: &State) -> TokenStream {
    let State { root, vis, ident, generics, fields, .. } = state;
    let update = update_ident(ident);
    // A state cannot borrow, which is already reported, but the same struct with `'static` lifetimes can be one.
    let all = generics.params.iter().map(|param| match param {
        GenericParam::Lifetime(_) => quote!('static),
        GenericParam::Type(param) => param.ident.to_token_stream(),
        GenericParam::Const(param) => param.ident.to_token_stream(),
    });
    let this = quote!(#ident<#(#all),*>);
    let owned = super::expand::bounded(&without_lifetimes(generics));
    let (impl_generics, args, bounds) = owned.split_for_impl();
    let mut with_lifetime = owned.clone();
    with_lifetime.params.insert(0, parse_quote!('__de));
    let read_generics = with_lifetime.split_for_impl().0;
    let setters = fields.iter().map(|field| {
        let (vis, ident) = (&field.vis, &field.ident);
        quote!(#vis fn #ident<__Value>(self, _: __Value) -> Self { self })
    });

    quote_spanned! {Span::mixed_site()=>
        #[doc(hidden)]
        #vis struct #update #impl_generics (::core::marker::PhantomData<fn() -> #this>) #bounds;

        const _: () = {
            #[allow(dead_code)]
            impl #impl_generics #this #bounds {
                #vis fn update() -> #update #args { #update(::core::marker::PhantomData) }
            }
            #[allow(dead_code)]
            impl #impl_generics #update #args #bounds { #(#setters)* }
            impl #impl_generics ::core::clone::Clone for #update #args #bounds {
                fn clone(&self) -> Self { Self(::core::marker::PhantomData) }
            }
            impl #impl_generics ::core::default::Default for #update #args #bounds {
                fn default() -> Self { Self(::core::marker::PhantomData) }
            }
            impl #impl_generics #root::__private::state::Serialize for #update #args #bounds {
                fn serialize<__Z: #root::__private::state::Serializer>(
                    &self,
                    _: __Z,
                ) -> ::core::result::Result<__Z::Ok, __Z::Error> { ::core::unreachable!() }
            }
            impl #read_generics #root::__private::state::Deserialize<'__de> for #update #args #bounds {
                fn deserialize<__D: #root::__private::state::Deserializer<'__de>>(
                    _: __D,
                ) -> ::core::result::Result<Self, __D::Error> { ::core::unreachable!() }
            }
            impl #impl_generics #root::__private::Update for #update #args #bounds {
                type State = #this;
            }
            impl #impl_generics #root::State for #this #bounds {
                type Update = #update #args;
                fn apply(&mut self, _: #update #args) {}
                fn changes(_: &#update #args) -> ::std::vec::Vec<#root::__private::FieldChange> { ::std::vec::Vec::new() }
            }
        };
    }
}

fn without_lifetimes(generics: &Generics) -> Generics {
    let params = generics.params.iter().filter(|param| !matches!(param, GenericParam::Lifetime(_)));
    Generics { params: params.cloned().collect(), ..generics.clone() }
}
