//! Snapshots of the expansion, and the text of each mistake. `ui-tests` has rustc's output.

use proc_macro2::TokenStream;
use quote::quote;

use super::derive;
use crate::testing::{self, pretty_items};

fn pretty(input: TokenStream) -> String {
    pretty_items(derive(input))
}

fn mistakes(input: TokenStream) -> Vec<String> {
    testing::mistakes(derive(input))
}

fn report() -> TokenStream {
    quote! {
        #[derive(Clone, State)]
        pub struct Report {
            /// The subject.
            pub title: String,
            pages: u32,
            #[state(append)]
            pub(crate) notes: Vec<String>,
            #[state(append)]
            #[deprecated]
            scores: Vec<f64>,
            /// The longest wins.
            #[state(with = rules::longest)]
            summary: String,
        }
    }
}

#[test]
fn a_struct() {
    insta::assert_snapshot!(pretty(report()));
}

#[test]
fn a_generic_struct() {
    insta::assert_snapshot!(pretty(quote! {
        struct Best<T: Ord = u8, const N: usize = 2> where T: Debug { best: [T; N] }
    }));
}

#[test]
fn names_in_json_and_a_version() {
    insta::assert_snapshot!(pretty(quote! {
        #[serde(rename_all(serialize = "camelCase", deserialize = "SCREAMING-KEBAB-CASE"), deny_unknown_fields)]
        #[state(version = 3, migrate = migrations::older)]
        struct Mail {
            sent_to: String,
            #[serde(rename = "body", alias = "text", alias = "content", default = "empty")]
            r#type: String,
            #[serde(skip)]
            socket: Socket,
            #[serde(skip_serializing)]
            secret: String,
            #[serde(skip_deserializing, serialize_with = "f")]
            #[serde(skip)]
            cache: String,
            #[state(messages)]
            chat: Vec<Message>,
        }
    }));
}

#[test]
fn an_empty_struct() {
    insta::assert_snapshot!(pretty(quote!(
        struct Empty {}
    )));
}

#[test]
fn after_a_mistake_setters_take_anything() {
    insta::assert_snapshot!(pretty(quote! {
        pub struct Report<'a, T: Clone> {
            pub title: &'a str,
            #[state(append)]
            notes: Vec<T>,
        }
    }));
}

#[test]
fn the_same_tokens_give_the_same_output() {
    assert_eq!(derive(report()).to_string(), derive(report()).to_string());
}

#[test]
fn a_renamed_crate_is_named_nowhere_by_its_old_name() {
    for field in [quote!(notes: Vec<String>), quote!(#[state(apend)] notes: Vec<String>)] {
        let output = derive(quote! {
            #[state(crate = crate::flow)]
            struct Report { #field }
        });
        assert!(!output.to_string().contains("agentflow"), "{output}");
    }
}

#[test]
fn an_unknown_key_is_compared_with_those_that_are_known() {
    assert_eq!(
        mistakes(quote!(
            struct S {
                #[state(apend)]
                a: A,
                #[state(reduce)]
                b: B,
            }
        )),
        [
            "unknown key `apend`; did you mean `append`? (a field takes `append`, `messages` or `with = path`)",
            "unknown key `reduce` (a field takes `append`, `messages` or `with = path`)",
        ]
    );
    assert_eq!(
        mistakes(quote!(
            #[state(crat = x)]
            struct S {}
        )),
        [
            "unknown key `crat`; did you mean `crate`? (the struct takes `crate = path`, `version = 2`, `migrate = path` or \
             `not_stored`)"
        ]
    );
}

#[test]
fn a_field_merges_in_one_way() {
    let both = "a field merges in one way: `append`, `messages` or `with`";
    assert_eq!(
        mistakes(quote!(
            struct S {
                #[state(append, with = f)]
                a: A,
            }
        )),
        [both]
    );
    assert_eq!(
        mistakes(quote!(
            struct S {
                #[state(with = f)]
                #[state(append)]
                a: A,
            }
        )),
        [both]
    );
    assert_eq!(
        mistakes(quote!(
            struct S {
                #[state(append, append)]
                a: A,
            }
        )),
        ["`append` is given twice"]
    );
    assert_eq!(
        mistakes(quote!(
            struct S {
                #[state(with = f, with = g)]
                a: A,
            }
        )),
        ["`with` is given twice"]
    );
}

#[test]
fn a_key_has_its_place() {
    assert_eq!(
        mistakes(quote!(
            #[state(append, with = f)]
            struct S {
                #[state(crate = x, not_stored)]
                a: A,
            }
        )),
        [
            "`append` belongs on a field of the state",
            "`with` belongs on a field of the state",
            "`crate` belongs on the struct, not on a field",
            "`not_stored` belongs on the struct, not on a field",
        ]
    );
}

#[test]
fn half_typed_attributes_say_what_is_missing() {
    assert_eq!(
        mistakes(quote!(
            struct S {
                #[state()]
                a: A,
            }
        )),
        [""; 0]
    );
    assert_eq!(
        mistakes(quote!(
            struct S {
                #[state(with)]
                a: A,
            }
        )),
        ["`with` needs a function: `with = path`, a `fn(&mut T, T)`"]
    );
    for half in [quote!(with = ), quote!(with = , append)] {
        assert_eq!(
            mistakes(quote!(
                struct S {
                    #[state(#half)]
                    a: A,
                }
            ))[0],
            "expected a path to a function after `=`"
        );
    }
    assert_eq!(
        mistakes(quote!(
            struct S {
                #[state(with(f))]
                a: A,
            }
        )),
        ["expected `with = path`"]
    );
    assert_eq!(
        mistakes(quote!(
            struct S {
                #[state(append with)]
                a: A,
            }
        )),
        ["expected `append` or `append = path`"]
    );
    assert_eq!(
        mistakes(quote!(
            #[state(crate)]
            struct S {}
        )),
        ["`crate` needs a path: `crate = path`"]
    );
}

#[test]
fn a_field_has_the_form_of_its_type_in_json() {
    for attribute in [quote!(flatten), quote!(default, with = "f"), quote!(serialize_with = "f", rename = "b")] {
        let field = quote!(#[serde(#attribute)] a: A);
        assert!(mistakes(quote!(struct S { #field }))[0].starts_with("an update cannot be written as JSON with `"));
        assert_eq!(mistakes(quote!(#[state(not_stored)] struct S { #field })), [""; 0]);
        assert_eq!(mistakes(quote!(struct S { #[serde(skip)] #field })), [""; 0]);
    }
}

#[test]
fn a_version_is_a_number_from_1_and_a_migration_needs_an_older_one() {
    let found = |options: TokenStream| {
        mistakes(quote!(
            #[state(#options)]
            struct S {}
        ))
    };
    assert_eq!(found(quote!(version = 2, migrate = f)), [""; 0]);
    assert_eq!(found(quote!(version = 0, migrate = f)), ["a version is a number from 1 to 4294967295"]);
    assert_eq!(found(quote!(version = 4294967296)), ["a version is a number from 1 to 4294967295"]);
    assert_eq!(found(quote!(version = two)), ["`version` is a number: `version = 2`"]);
    assert_eq!(found(quote!(version)), ["`version` needs a number: `version = 2`"]);
    assert_eq!(found(quote!(version = 2, version = 3)), ["`version` is given twice"]);
    assert_eq!(found(quote!(not_stored = true)), ["`not_stored` takes no value"]);
    for options in [quote!(migrate = f), quote!(version = 1, migrate = f)] {
        assert_eq!(found(options), ["`migrate` is called for a state of an older version: add `version = 2`"]);
    }
    assert_eq!(
        found(quote!(version = 2, migrate)),
        ["`migrate` needs a function: `migrate = path`, a `fn(Value, u32) -> Result<Value, E>`"]
    );
}

#[test]
fn only_a_struct_with_named_fields_that_owns_them_is_a_state() {
    assert_eq!(
        mistakes(quote!(
            enum S {}
        )),
        ["a state is a struct: put this enum into a field of one"]
    );
    assert_eq!(
        mistakes(quote!(
            struct S(A);
        )),
        ["a state needs named fields: `struct Name { field: Type }`"]
    );
    assert_eq!(
        mistakes(quote!(
            union S {
                a: u8,
            }
        )),
        ["a state is a struct, not a union"]
    );
    assert_eq!(
        mistakes(quote!(
            struct S<'a, 'b> {
                a: &'a &'b str,
            }
        )),
        ["a state cannot have lifetimes: its fields must own their data"; 2]
    );
    assert_eq!(
        mistakes(quote!(
            fn not_even_a_type() {}
        ))
        .len(),
        1
    );
}

#[test]
fn all_mistakes_are_found_in_one_go() {
    let found = mistakes(quote! {
        #[state(krate = x)]
        struct S<'a> {
            #[state(apend, with)]
            a: &'a A,
            #[state(with = "f", append, append)]
            b: B,
        }
    });
    assert_eq!(found.len(), 6, "{found:#?}");
}
