//! `#[derive(Provide)]`: a struct whose fields are the services that nodes inject.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Data, DeriveInput, Field, Member, Token, Type, parse::ParseStream, spanned::Spanned};

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
    let root = Root::from_attributes(&input.attrs, "provide", &mut errors);
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
    let impls = provided.into_iter().map(|Service { member, ty, is_behind_pointer }| {
        let pointer = is_behind_pointer.then(|| quote!(*));
        quote! {
            #[automatically_derived]
            impl #impl_generics __af::Provide<#ty> for #ident #arguments #bounds {
                fn provide(&self) -> &__af::Service<#ty> {
                    &#pointer self.#member
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

/// A field that is provided.
struct Service {
    member: Member,
    /// The type by which nodes ask for it.
    ty: Type,
    /// True if the field is an `Arc`, a `Box` or another pointer to the service.
    is_behind_pointer: bool,
}

/// Returns the fields to provide. Two of one type are a mistake: a node asks for a service by its type alone.
fn provided<'f>(fields: impl Iterator<Item = &'f Field>, errors: &mut Errors) -> Vec<Service> {
    let mut provided: Vec<Service> = Vec::new();
    for (index, field) in fields.enumerate() {
        let (ty, is_behind_pointer) = match option(&field.attrs, errors) {
            Some(FieldOption::Skip) => continue,
            Some(FieldOption::As(ty)) => (*ty, true),
            None => (field.ty.clone(), false),
        };
        let member = field.ident.clone().map_or_else(|| Member::from(index), Member::from);
        let name = text(&ty);
        match provided.iter().find(|other| text(&other.ty) == name) {
            None => provided.push(Service { member, ty, is_behind_pointer }),
            Some(first) => errors.spanning(
                &ty,
                format!(
                    "`{}` provides `{name}` already: a service is found by its type, so give this field a type of its own, \
                     or mark it `#[provide(skip)]`",
                    first.member.to_token_stream()
                ),
            ),
        }
    }
    provided
}

/// The option of a field.
enum FieldOption {
    /// `#[provide(skip)]`
    Skip,
    /// `#[provide(as = dyn Trait)]`
    As(Box<Type>),
}

fn option(attrs: &[Attribute], errors: &mut Errors) -> Option<FieldOption> {
    const FORMS: &str = "a field takes `#[provide(skip)]` or `#[provide(as = dyn Trait)]`";
    let mut option = None;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("provide")) {
        let parsed = attr.parse_args_with(|input: ParseStream<'_>| {
            if input.parse::<Option<Token![as]>>()?.is_some() {
                input.parse::<Token![=]>()?;
                return Ok(FieldOption::As(Box::new(input.parse()?)));
            }
            let key: syn::Ident = input.parse()?;
            if key == "skip" {
                return Ok(FieldOption::Skip);
            }
            Err(syn::Error::new(key.span(), format!("unknown key `{key}`: {FORMS}")))
        });
        match parsed {
            Ok(parsed) => option = Some(parsed),
            Err(error) if error.to_string().starts_with("unknown key") => errors.push(error),
            Err(_) => errors.at(attr.span(), FORMS),
        }
    }
    option
}
