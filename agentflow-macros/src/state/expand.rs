//! [`State`] → the update type, its setters, and the merge.

use proc_macro2::{Group, Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Generics, Type, parse_quote};

use super::syntax::{Merge, State, StateField};
use crate::{
    printing::{parenthesized, text},
    root::Root,
    types::{bare, is_std_collection, last_segment, optional, type_arguments},
};

pub(crate) fn expand(state: &State) -> TokenStream {
    let State { root, vis, ident, generics, fields, .. } = state;
    let update = update_ident(ident);
    let name = update.to_string();
    let doc = format!(
        "Changes to a [`{ident}`]: made with [`{ident}::update`], returned by a node.\n\n\
         A field that is not set stays as it is."
    );
    let (impl_generics, args, bounds) = generics.split_for_impl();
    let bounded = bounded(generics);
    let state_generics = bounded.split_for_impl().0;
    let user_bounds = generics.where_clause.iter().flat_map(|clause| &clause.predicates).map(|p| quote!(#p,));
    let field_bounds = user_bounds.chain(fields.iter().map(StateField::bounds));
    let fit = quote!(where #(#field_bounds)*);

    let idents: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let names: Vec<_> = idents.iter().map(|ident| ident.unraw().to_string()).collect();
    let storage = fields.iter().map(|field| field.storage(root));
    let setters = fields.iter().map(|field| field.setter(generics));
    let merges = fields.iter().map(StateField::apply);
    let changes = fields.iter().zip(&names).map(|(field, name)| {
        let (ident, replaces) = (&field.ident, matches!(field.merge, Merge::Replace));
        quote_spanned!(Span::mixed_site()=> (__state::FieldChange::new(#name, #replaces), update.#ident.is_set()))
    });

    let replaced = fields.iter().filter(|field| matches!(field.merge, Merge::Replace)).map(|field| {
        let ident = &field.ident;
        quote_spanned!(Span::mixed_site()=> update.#ident.is_set())
    });

    let version = version(state);
    let stored = state.is_stored.then(|| stored(state, &update));

    // After a forgotten derive, rustc would list other types that implement `State`, which does not help. An impl with
    // conditions is exempt, because rustc must be able to name the condition that is not met.
    let quiet = generics.type_params().next().is_none().then(|| quote!(#[diagnostic::do_not_recommend]));

    // With mixed-site spans, the user's paths and types cannot refer to a local of this expansion.
    quote_spanned! {Span::mixed_site()=>
        #[doc = #doc]
        #[must_use = "an update does nothing unless the node returns it"]
        #vis struct #update #generics #bounds {
            #(#idents: #storage,)*
        }

        const _: () = {
            use #root::__private::state as __state;

            #[automatically_derived]
            #[allow(dead_code)]
            impl #impl_generics #ident #args #bounds {
                /// An update that changes nothing yet.
                #vis fn update() -> #update #args {
                    ::core::default::Default::default()
                }
            }

            #[automatically_derived]
            #[allow(dead_code, deprecated, clippy::impl_trait_in_params)]
            impl #impl_generics #update #args #bounds {
                #(#setters)*
            }

            #[automatically_derived]
            impl #impl_generics ::core::default::Default for #update #args #bounds {
                fn default() -> Self {
                    Self { #(#idents: ::core::default::Default::default(),)* }
                }
            }

            #[automatically_derived]
            #[allow(clippy::trait_duplication_in_bounds, clippy::type_repetition_in_bounds)]
            impl #impl_generics ::core::clone::Clone for #update #args #fit {
                fn clone(&self) -> Self {
                    Self { #(#idents: ::core::clone::Clone::clone(&self.#idents),)* }
                }
            }

            #[automatically_derived]
            impl #impl_generics ::core::fmt::Debug for #update #args #bounds {
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    __state::debug(f, #name, &[#((#names, self.#idents.is_set()),)*])
                }
            }

            #[automatically_derived]
            #quiet
            #[allow(deprecated, clippy::trait_duplication_in_bounds, clippy::type_repetition_in_bounds)]
            impl #state_generics #root::State for #ident #args #fit {
                type Update = #update #args;
                #version

                fn apply(&mut self, update: #update #args) {
                    #(#merges)*
                }

                fn changes(update: &#update #args) -> ::std::vec::Vec<__state::FieldChange> {
                    __state::changes(&[#(#changes,)*])
                }

                #[allow(unused_variables)]
                fn replaced(update: &#update #args) -> ::core::primitive::u64 {
                    __state::bits([#(#replaced,)*])
                }
            }

            #[automatically_derived]
            #quiet
            #[allow(clippy::trait_duplication_in_bounds, clippy::type_repetition_in_bounds)]
            impl #state_generics #root::__private::Update for #update #args #fit {
                type State = #ident #args;
            }

            #stored
        };
    }
}

/// Returns the version of the state, and the function that calls its migration.
fn version(State { version, migrate, .. }: &State) -> TokenStream {
    let version = version.as_ref().map(|version| quote!(const VERSION: ::core::primitive::u32 = #version;));
    let migrate = migrate.as_ref().map(|function| {
        quote_spanned! {Span::mixed_site()=>
            fn migrate(
                state: __state::Value,
                from: ::core::primitive::u32,
            ) -> ::core::result::Result<__state::Value, __state::MigrationError> {
                __state::migrate(#function, state, from)
            }
        }
    });
    quote!(#version #migrate)
}

/// Returns the impls by which the update is written and read as JSON.
///
/// The bounds have a lifetime of their own, or that of the impl: without it rustc would report a field that is not serde
/// here, and not where the update is written or read.
fn stored(state: &State, update: &Ident) -> TokenStream {
    let State { generics, fields, .. } = state;
    let (impl_generics, args, _) = generics.split_for_impl();
    let mut with_lifetime = generics.clone();
    with_lifetime.params.insert(0, parse_quote!('__de));
    let read_generics = with_lifetime.split_for_impl().0;
    let predicates: Vec<_> = generics.where_clause.iter().flat_map(|clause| &clause.predicates).collect();
    let written = fields.iter().filter(|field| field.json.written.is_some());
    let written = written.map(|StateField { ty, .. }| quote!(for<'__a> #ty: __state::StoredField,));
    let read = fields.iter().filter(|field| !field.json.read.is_empty());
    let read = read.map(|StateField { ty, .. }| quote!(#ty: __state::Deserialize<'__de>,));
    let writes = fields.iter().filter_map(|field| {
        let (ident, name) = (&field.ident, field.json.written.as_ref()?);
        let write = if let Merge::Messages = field.merge { quote!(write_messages) } else { quote!(write) };
        Some(quote_spanned!(Span::mixed_site()=> self.#ident.#write(#name, map)?;))
    });
    let reads = fields.iter().filter(|field| !field.json.read.is_empty()).map(|field| {
        let (ident, names) = (&field.ident, &field.json.read);
        let read = if let Merge::Messages = field.merge { quote!(read_messages) } else { quote!(read) };
        quote_spanned!(Span::mixed_site()=> #(#names)|* => { self.#ident.#read(map)?; true })
    });
    let allow =
        quote!(#[allow(unused_lifetimes, clippy::trait_duplication_in_bounds, clippy::type_repetition_in_bounds)]);
    quote_spanned! {Span::mixed_site()=>
        #[automatically_derived]
        #allow
        #[allow(unused_variables, unreachable_patterns)]
        impl #impl_generics __state::WriteUpdate for #update #args where #(#predicates,)* #(#written)* {
            fn write<__M: __state::SerializeMap>(&self, map: &mut __M) -> ::core::result::Result<(), __M::Error> {
                #(#writes)*
                ::core::result::Result::Ok(())
            }
        }

        #[automatically_derived]
        #allow
        #[allow(unused_variables, unreachable_patterns)]
        impl #read_generics __state::ReadUpdate<'__de> for #update #args where #(#predicates,)* #(#read)* {
            fn read<__M: __state::MapAccess<'__de>>(
                &mut self,
                field: &::core::primitive::str,
                map: &mut __M,
            ) -> ::core::result::Result<::core::primitive::bool, __M::Error> {
                ::core::result::Result::Ok(match field {
                    #(#reads)*
                    _ => false,
                })
            }
        }

        #[automatically_derived]
        #allow
        impl #impl_generics __state::Serialize for #update #args
        where
            #(#predicates,)*
            for<'__a> #update #args: __state::WriteUpdate,
        {
            fn serialize<__Z: __state::Serializer>(
                &self,
                serializer: __Z,
            ) -> ::core::result::Result<__Z::Ok, __Z::Error> {
                __state::serialize(self, serializer)
            }
        }

        #[automatically_derived]
        #allow
        impl #read_generics __state::Deserialize<'__de> for #update #args
        where
            #(#predicates,)*
            #update #args: __state::ReadUpdate<'__de>,
        {
            fn deserialize<__D: __state::Deserializer<'__de>>(
                deserializer: __D,
            ) -> ::core::result::Result<Self, __D::Error> {
                __state::deserialize(deserializer)
            }
        }
    }
}

/// Returns the name of the update type. The user's code can use it, but none of the user's tokens is it, so it has the
/// span of the macro call.
pub(super) fn update_ident(state: &Ident) -> Ident {
    format_ident!("{}Update", state.unraw(), span = Span::call_site())
}

/// Adds the bounds of a state to each type parameter, as the derives of std do with theirs.
pub(super) fn bounded(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    for param in generics.type_params_mut() {
        param.bounds.push(parse_quote!(::core::clone::Clone));
        param.bounds.push(parse_quote!(::core::marker::Send));
        param.bounds.push(parse_quote!(::core::marker::Sync));
        param.bounds.push(parse_quote!('static));
    }
    generics
}

impl StateField {
    /// Returns the type of the update's field.
    fn storage(&self, root: &Root) -> TokenStream {
        let ty = &self.ty;
        let holder = match self.merge {
            Merge::Replace => quote!(Replace),
            Merge::Append => quote!(Append),
            Merge::With(_) | Merge::Messages => quote!(With),
        };
        quote!(#root::__private::state::#holder<#ty>)
    }

    /// Returns the bounds of the field's type. Each impl repeats them with the same tokens, so that rustc reports an
    /// unsuitable type once, at the field, and assumes the bounds everywhere else.
    fn bounds(&self) -> TokenStream {
        let (ty, field) = (&self.ty, self.at_type(quote!(__state::Field)));
        let merged = self.merge_bound().map(|merged| quote!(+ #merged));
        quote!(#ty: #field #merged,)
    }

    /// Returns the bound that the merge rule adds to the field's type.
    fn merge_bound(&self) -> Option<Group> {
        match self.merge {
            Merge::Append => Some(self.at_type(quote!(__state::Collection))),
            Merge::Messages => Some(self.at_type(quote!(__state::Messages))),
            Merge::Replace | Merge::With(_) => None,
        }
    }

    /// Wraps a bound in parentheses at the span of the field's type, so that rustc reports the bound there.
    fn at_type(&self, tokens: TokenStream) -> Group {
        parenthesized(self.ty.span(), tokens)
    }

    fn setter(&self, generics: &Generics) -> TokenStream {
        let Self { vis, ident, ty, carried, merge, .. } = self;
        let doc = match merge {
            Merge::Replace => "Replaces the field.".to_owned(),
            Merge::Append => "Appends to the field; a second call appends more.".to_owned(),
            Merge::Messages => "Merges messages into the field by their ids; a second call merges more.".to_owned(),
            Merge::With(path) => format!("Merges into the field with `{}`; a second call merges again.", text(path)),
        };
        let Argument { given, param, set } = self.argument(generics);
        let fit = self.merge_bound().map(|bound| quote!(where #ty: #bound));
        // The user's documentation comes first, in a paragraph of its own.
        let gap = carried.iter().any(|attr| attr.path().is_ident("doc")).then(|| quote!(#[doc = ""]));
        quote_spanned! {Span::mixed_site()=>
            #(#carried)*
            #gap
            #[doc = #doc]
            #vis fn #ident #given(mut self, #ident: #param) -> Self #fit {
                self.#ident.#set(#ident);
                self
            }
        }
    }

    /// Returns the argument of the setter: everything that converts into the field's type without ambiguity.
    fn argument(&self, generics: &Generics) -> Argument {
        let ty = &self.ty;
        let plain = |param, set| Argument { given: None, param, set };
        if let Merge::Append = self.merge {
            return plain(many_of(ty), quote!(set));
        }
        if is_std_collection(ty) {
            return plain(many_of(ty), quote!(set_items));
        }
        match optional(ty) {
            Some(inner) if !is_ambiguous(inner, generics) => Argument {
                given: Some(quote!(<__Given>)),
                param: quote!(impl __state::IntoOption<#inner, __Given>),
                set: quote!(set_option),
            },
            _ => plain(one_of(ty), quote!(set)),
        }
    }

    fn apply(&self) -> TokenStream {
        let ident = &self.ident;
        let with = match &self.merge {
            Merge::Replace | Merge::Append => None,
            Merge::Messages => Some(quote!(, __state::Messages::merge)),
            Merge::With(path) => Some(quote!(, #path)),
        };
        quote_spanned!(Span::mixed_site()=> update.#ident.apply(&mut self.#ident #with);)
    }
}

/// The argument of a setter.
struct Argument {
    /// The type parameter that distinguishes a value from an `Option`.
    given: Option<TokenStream>,
    param: TokenStream,
    /// The method of the update's field that stores the argument.
    set: TokenStream,
}

/// Returns true if inference cannot distinguish `T` from `Option<T>`: a number literal has no type yet, and some types
/// convert from an `Option`.
fn is_ambiguous(inner: &Type, generics: &Generics) -> bool {
    let Some(last) = last_segment(inner).map(|last| &last.ident) else {
        return false;
    };
    is_number(inner) || last == "Value" || generics.type_params().any(|parameter| parameter.ident == *last)
}

/// Returns the argument type for one value, which is anything that converts into it. A number is not converted, because
/// a literal that converts into many types has no type of its own.
fn one_of(ty: &Type) -> TokenStream {
    if is_number(ty) { quote!(#ty) } else { quote!(impl ::core::convert::Into<#ty>) }
}

/// Returns the argument type for any number of items.
fn many_of(ty: &Type) -> TokenStream {
    let item = quote!(<#ty as ::core::iter::IntoIterator>::Item);
    let item = if holds_numbers(ty) { quote!(= #item) } else { quote!(: ::core::convert::Into<#item>) };
    quote!(impl ::core::iter::IntoIterator<Item #item>)
}

/// Returns true if the type has the name of a number. A wrong guess changes only the conversions that a setter accepts.
fn is_number(ty: &Type) -> bool {
    const NUMBERS: [&str; 14] =
        ["u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64"];
    matches!(bare(ty), Type::Path(path) if NUMBERS.iter().any(|number| path.path.is_ident(number)))
}

/// Returns true for collections of numbers, such as `Vec<u32>` and `HashMap<String, f64>`.
fn holds_numbers(ty: &Type) -> bool {
    type_arguments(ty).iter().any(|ty| is_number(ty))
}
