use quote::quote;

use super::derive;
use crate::testing::{contains, mistakes, pretty_items};

#[test]
fn each_field_is_provided_by_its_type() {
    let output = derive(quote! {
        struct Services { db: Db, mailer: std::sync::Arc<dyn Mailer>, #[provide(skip)] started: Instant }
    });
    assert!(contains(&output, "impl __af::Provide<Db> for Services"));
    assert!(contains(&output, "impl __af::Provide<std::sync::Arc<dyn Mailer>> for Services"));
    assert!(!contains(&output, "Instant"));
    assert_eq!(mistakes(output.clone()), Vec::<String>::new());
    pretty_items(output);
}

#[test]
fn a_pointer_provides_its_target() {
    let output = derive(quote! { struct Services { #[provide(as = dyn Mailer)] mailer: std::sync::Arc<dyn Mailer> } });
    assert!(contains(&output, "impl __af::Provide<dyn Mailer> for Services"));
    assert!(contains(&output, "&*self.mailer"));
    pretty_items(output);
}

#[test]
fn tuple_structs_and_generics_work() {
    let output = derive(quote! { struct Services<T: Send>(Db, T) where T: Clone; });
    assert!(contains(&output, "impl<T: Send> __af::Provide<T> for Services<T> where T: Clone"));
    assert!(contains(&output, "&self.1"));
    pretty_items(output);
}

#[test]
fn each_mistake_is_reported_and_the_other_fields_are_provided() {
    for (input, mistake) in [
        (
            quote!(
                struct S {
                    a: Db,
                    b: Db,
                    c: Mail,
                }
            ),
            "`a` provides `Db` already: a service is found by its type, so give this field a type of its own, or mark it \
             `#[provide(skip)]`",
        ),
        (
            quote!(
                struct S {
                    #[provide(hide)]
                    a: Db,
                    c: Mail,
                }
            ),
            "unknown key `hide`: a field takes `#[provide(skip)]` or `#[provide(as = dyn Trait)]`",
        ),
        (
            quote!(
                struct S {
                    #[provide]
                    a: Db,
                    c: Mail,
                }
            ),
            "a field takes `#[provide(skip)]` or `#[provide(as = dyn Trait)]`",
        ),
    ] {
        let output = derive(input);
        assert!(contains(&output, "__af::Provide<Mail> for S"));
        assert_eq!(mistakes(output), [mistake]);
    }
    let output = derive(quote!(
        enum S {
            A,
        }
    ));
    assert_eq!(mistakes(output), ["services are the fields of a struct: `struct Services { db: Db }`"]);
}

#[test]
fn the_path_of_a_reexport_is_used() {
    let output = derive(quote! { #[provide(crate = x::agentflow)] struct S { a: Db } });
    assert!(contains(&output, "use x::agentflow::__private as __af;"));
}
