//! `#[derive(Provide)]`: a struct whose fields are the services that nodes inject.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Data, DeriveInput, Field, Member, Token, parse::ParseStream, spanned::Spanned};

use crate::{errors::Errors, printing::text, root::Root};

#[cfg(test)]
mod tests;

/// Expands to one `impl Provide<FieldType>` for each field that is not skipped.
///
/// The impls of the correct fields are emitted even if another field has a mistake, so that graphs which inject them
/// report nothing more.
pub(crate) fn derive(input: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(input) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut errors = Errors::new();
    let root = root(&input.attrs, &mut errors);
    let fields = match input.data {
        Data::Struct(data) => data.fields,
        Data::Enum(_) | Data::Union(_) => {
            errors.spanning(&input.ident, "services are the fields of a struct: `struct Services { db: Db }`");
            return errors.into_tokens();
        }
    };
    let provided = provided(fields.iter(), &mut errors);
    let errors = errors.into_tokens();
    let (ident, (impl_generics, arguments, bounds)) = (&input.ident, input.generics.split_for_impl());
    let impls = provided.into_iter().map(|(member, field)| {
        let ty = &field.ty;
        quote! {
            #[automatically_derived]
            impl #impl_generics __af::Provide<#ty> for #ident #arguments #bounds {
                fn provide(&self) -> &#ty {
                    &self.#member
                }
            }
        }
    });
    quote! {
        #errors
        const _: () = {
            use #root::__private as __af;
            #(#impls)*
        };
    }
}

/// Returns the fields to provide. Two of one type are a mistake: a node asks for a service by its type alone.
fn provided<'f>(fields: impl Iterator<Item = &'f Field>, errors: &mut Errors) -> Vec<(Member, &'f Field)> {
    let mut provided: Vec<(Member, &Field)> = Vec::new();
    for (index, field) in fields.enumerate() {
        if is_skipped(&field.attrs, errors) {
            continue;
        }
        let member = field.ident.clone().map_or_else(|| Member::from(index), Member::from);
        let ty = text(&field.ty);
        match provided.iter().find(|(_, other)| text(&other.ty) == ty) {
            None => provided.push((member, field)),
            Some((first, _)) => errors.spanning(
                &field.ty,
                format!(
                    "`{}` provides `{ty}` already: a service is found by its type, so give this field a type of its own, \
                     or mark it `#[provide(skip)]`",
                    first.to_token_stream()
                ),
            ),
        }
    }
    provided
}

/// Whether the field has `#[provide(skip)]`.
fn is_skipped(attrs: &[Attribute], errors: &mut Errors) -> bool {
    let mut is_skipped = false;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("provide")) {
        match attr.parse_args::<syn::Ident>() {
            Ok(key) if key == "skip" => is_skipped = true,
            Ok(key) => errors.at(key.span(), format!("unknown key `{key}` (a field takes `skip`)")),
            Err(_) => errors.at(attr.span(), "a field takes `#[provide(skip)]`"),
        }
    }
    is_skipped
}

/// Reads `#[provide(crate = path)]` of the struct.
fn root(attrs: &[Attribute], errors: &mut Errors) -> Root {
    let mut root = Root::default();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("provide")) {
        let parsed = attr.parse_args_with(|input: ParseStream<'_>| {
            input.parse::<Token![crate]>()?;
            input.parse::<Token![=]>()?;
            input.call(syn::Path::parse_mod_style)
        });
        match parsed {
            Ok(path) => root = Root(Some(path)),
            Err(error) => errors.push(error),
        }
    }
    root
}
