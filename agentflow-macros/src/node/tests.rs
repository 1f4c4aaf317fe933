//! Snapshots of the expansion, which always contains the function, and the text of each mistake. `ui-tests` has rustc's
//! output.

use proc_macro2::TokenStream;
use proptest::prelude::*;
use quote::quote;

use super::expand;
use crate::testing::{self, contains, lexes, pretty_items, quick, soup, unspaced};

fn pretty(args: TokenStream, item: TokenStream) -> String {
    pretty_items(expand(args, item))
}

fn mistakes(item: TokenStream) -> Vec<String> {
    testing::mistakes(expand(TokenStream::new(), item))
}

fn mistakes_of_arguments(args: TokenStream) -> Vec<String> {
    testing::mistakes(expand(args, in_place()))
}

fn in_place() -> TokenStream {
    quote! {
        /// Says hello.
        #[tracing::instrument]
        pub(crate) async fn greet(
            state: &mut AgentState,
            config: &RunConfig,
            task_manager: &BackgroundTaskManager,
        ) -> Result<(), NodeError> {
            state.context.push(hello());
            Ok(())
        }
    }
}

#[test]
fn a_node_that_changes_the_state_in_place() {
    insta::assert_snapshot!(pretty(TokenStream::new(), in_place()));
}

#[test]
fn a_node_that_reads_the_state() {
    insta::assert_snapshot!(pretty(
        TokenStream::new(),
        quote! {
            async fn title(events: &EventWriter, _state: &Report, cancel: &CancellationToken) -> ReportUpdate {
                body()
            }
        }
    ));
}

#[test]
fn a_node_that_takes_the_state() {
    insta::assert_snapshot!(pretty(
        TokenStream::new(),
        quote! {
            async fn rewrite(mut state: Report) -> Report { state }
        }
    ));
}

#[test]
fn a_node_that_asks() {
    insta::assert_snapshot!(pretty(
        TokenStream::new(),
        quote! {
            async fn review(state: &Mail, answer: Option<Verdict>) -> Result<Ask<Review, MailUpdate>, NodeError> {
                body()
            }
        }
    ));
}

#[test]
fn a_generic_node_that_asks() {
    insta::assert_snapshot!(pretty(
        TokenStream::new(),
        quote! {
            async fn review<A: DeserializeOwned + Send>(answer: Option<A>) -> Ask<Review> { body() }
        }
    ));
}

#[test]
fn a_node_without_state() {
    insta::assert_snapshot!(pretty(
        TokenStream::new(),
        quote! {
            async fn log(#[inject] db: &Database, #[inject] mail: &dyn Mail) {}
        }
    ));
}

#[test]
fn a_generic_node() {
    insta::assert_snapshot!(pretty(
        TokenStream::new(),
        quote! {
            pub async fn ask<M: Model, const N: usize>(#[inject] model: &M) -> Result<(), M::Error>
            where
                M::Error: Into<NodeError>,
            {
                body()
            }
        }
    ));
}

#[test]
fn a_node_with_a_name_of_its_own() {
    insta::assert_snapshot!(pretty(
        quote!(MAIN, crate = crate::flow),
        quote! {
            #[cfg(feature = "main")]
            #[deprecated]
            async fn my_node(state: &mut State) {}
        }
    ));
}

#[test]
fn after_a_mistake_the_handle_fits_everywhere() {
    insta::assert_snapshot!(pretty(
        TokenStream::new(),
        quote! {
            async fn greet<T: Clone>(state: &mut AgentState, confg: &RunConfig, #[inject] db: Db) {}
        }
    ));
}

#[test]
fn the_same_tokens_give_the_same_output() {
    let output = || expand(TokenStream::new(), in_place()).to_string();
    assert_eq!(output(), output());
}

#[test]
fn a_renamed_crate_is_named_nowhere_by_its_old_name() {
    let generic = quote!(
        async fn ask<M: Model>(#[inject] m: &M) -> Result<(), M> {}
    );
    let mistaken = quote!(
        async fn ask(stat: &mut S) {}
    );
    for item in [in_place(), generic, mistaken] {
        let output = expand(quote!(crate = crate::flow), item);
        assert!(!output.to_string().contains("agentflow"), "{output}");
    }
}

#[test]
fn nothing_is_taken_from_the_users_scope() {
    let words = ["std", "core", "alloc"];
    let output = expand(TokenStream::new(), in_place()).to_string();
    for word in words {
        let absolute = output.matches(&format!(":: {word} ::")).count();
        assert_eq!(output.matches(&format!("{word} ::")).count(), absolute, "{output}");
    }
}

#[test]
fn attribute_arguments() {
    for fine in [quote!(), quote!(MAIN), quote!(MAIN,), quote!(crate = a::b), quote!(crate = a, MAIN)] {
        assert_eq!(mistakes_of_arguments(fine), [""; 0]);
    }
    let expected = "expected the node's name, as in `#[node(MAIN)]`, or `crate = path`";
    for wrong in [quote!("MAIN"), quote!(1), quote!(name = "x"), quote!(MAIN, OTHER), quote!(,), quote!(fn)] {
        assert_eq!(mistakes_of_arguments(wrong), [expected]);
    }
    for half in [quote!(crate), quote!(crate =), quote!(crate = 1)] {
        assert_eq!(mistakes_of_arguments(half), ["expected a path: `crate = my_crate::agentflow`"]);
    }
    assert_eq!(mistakes_of_arguments(quote!(MAIN crate = x)), ["expected `,`"]);
}

#[test]
fn a_parameter_is_compared_with_those_that_are_known() {
    let unknown = "a node takes `state`, `input`, `answer`, `config`, `task_manager`, `events`, `cancel`, `attempt`, `step`, `steps_left` and `error`; a service of the app is \
                   injected: ";
    assert_eq!(
        mistakes(quote!(
            async fn f(stat: &S, _confg: &C, taskmanager: &T, event: E, cancle: &C, db: Db<A>, x: &[u8]) {}
        )),
        [
            "unknown node parameter `stat`; did you mean `state`?".to_owned(),
            "unknown node parameter `_confg`; did you mean `config`?".to_owned(),
            "unknown node parameter `taskmanager`; did you mean `task_manager`?".to_owned(),
            "unknown node parameter `event`; did you mean `events`?".to_owned(),
            "unknown node parameter `cancle`; did you mean `cancel`?".to_owned(),
            format!("unknown node parameter `db`: {unknown}`#[inject] db: &Db<A>`"),
            format!("unknown node parameter `x`: {unknown}`#[inject] x: &[u8]`"),
        ]
    );
}

#[test]
fn a_parameter_of_another_name_is_recognized_by_its_type() {
    assert_eq!(
        mistakes(quote!(
            async fn f(
                s: &mut S,
                cfg: &agentflow::RunConfig,
                tm: BackgroundTaskManager,
                token: &mut CancellationToken,
                ev: &EventWriter,
                why: Option<&NodeFailure>,
            ) {
            }
        )),
        [
            "unknown node parameter `s`; did you mean `state: &mut S`?",
            "unknown node parameter `cfg`; did you mean `config: &RunConfig`?",
            "unknown node parameter `tm`; did you mean `task_manager: &BackgroundTaskManager`?",
            "unknown node parameter `token`; did you mean `cancel: &CancellationToken`?",
            "unknown node parameter `ev`; did you mean `events: &EventWriter`?",
            "unknown node parameter `why`; did you mean `error: Option<&NodeFailure>`?",
        ]
    );
    // Only one parameter is the state.
    let second = mistakes(quote!(
        async fn f(state: &mut S, db: &mut Db) {}
    ));
    assert!(second[0].ends_with("`#[inject] db: &Db`"), "{second:?}");
}

#[test]
fn a_service_may_have_the_name_of_a_known_parameter() {
    let item = quote!(
        async fn f(#[inject] config: &MyConfig, #[inject] state: &Shared, #[inject] events: &Bus) {}
    );
    assert_eq!(mistakes(item), [""; 0]);
    assert_eq!(
        mistakes(quote!(
            async fn f(#[inject] config: &RunConfig, #[inject] state: &mut S) {}
        )),
        [
            "`config: &RunConfig` is not a service: every node can take it without `#[inject]`",
            "`state: &mut S` is not a service: every node can take it without `#[inject]`",
        ]
    );
}

#[test]
fn services_are_chosen_by_their_types_alone() {
    let item = quote!(
        async fn f(#[inject(main)] a: &A, #[inject = "b"] b: &B<u8>, #[inject] c: &B<u8>) {}
    );
    let value = "write `#[inject]`, without a value: a service is chosen by its type";
    let twice =
        "another parameter is this `B<u8>`: a service is found by its type, so give one of the two a type of its own";
    assert_eq!(mistakes(item.clone()), [value, value, twice]);
    let output = expand(TokenStream::new(), item);
    assert!(contains(&output, "async fn f(a: &A, b: &B<u8>, c: &B<u8>)"), "{output}");
}

#[test]
fn borrows_are_elided_only_where_a_node_borrows() {
    let fine = [
        quote!(
            async fn f(state: &'_ mut S) -> Result<Box<dyn Fn(&str) -> &str>, E> {}
        ),
        quote!(
            async fn f(state: &S, #[inject] m: &(dyn Model + Send)) -> Result<fn(&u8), &'static str> {}
        ),
    ];
    for item in fine {
        assert_eq!(mistakes(item), [""; 0]);
    }
    let result = "the result of a node cannot borrow: return a value that owns its data";
    for ty in [quote!(&str), quote!(Result<(), &str>), quote!(Cow<'_, str>), quote!((S, [&u8; 1]))] {
        assert_eq!(
            mistakes(quote!(
                async fn f(state: &S) -> #ty {}
            )),
            [result]
        );
    }
    assert_eq!(
        mistakes(quote!(
            async fn f(state: &mut S<'_>, input: (&u8, u8), #[inject] db: &'static Db<&u8>) {}
        )),
        [
            "a state cannot borrow: name a type that owns its data",
            "an input cannot borrow: name a type that owns its data",
            "a node borrows for the time of its run: write `db: &Db<&u8>`",
            "a service cannot borrow: name a type that owns its data",
        ]
    );
}

#[test]
fn a_state_that_is_taken_is_returned() {
    let advice = |result: &str| {
        format!("a node with `state: S` changes a copy and returns it: write `-> {result}`, or `state: &mut S`")
    };
    for (result, written) in [
        (quote!(), "S"),
        (quote!(-> ()), "S"),
        (quote!(-> Result<(), E>), "Result<S,E>"),
        (quote!(-> io::Result<()>), "Result<S>"),
        (quote!(-> Ask<Q>), "Ask<Q, S>"),
        (quote!(-> Ask<Q, ()>), "Ask<Q, S>"),
        (quote!(-> Result<Ask<Q>, E>), "Result<Ask<Q, S>, E>"),
    ] {
        let found = mistakes(quote!(
            async fn f(state: S) #result {}
        ));
        assert_eq!(found.iter().map(unspaced).collect::<Vec<_>>(), [unspaced(&advice(written))]);
    }
}

#[test]
fn a_question_needs_an_answer() {
    let missing = "this node asks a question: add the parameter `answer: Option<A>`, `None` until it is answered";
    for result in [quote!(Ask<Q>), quote!(agentflow::Ask<Q, S>), quote!(io::Result<Ask<Q>>), quote!(Result<Ask<Q>, E>)]
    {
        let without = quote!(
            async fn f(state: &S) -> #result {}
        );
        assert_eq!(mistakes(without), [missing]);
        let with = quote!(
            async fn f(_answer: Option<A>, state: &S) -> #result {}
        );
        assert_eq!(mistakes(with), [""; 0]);
        // The misspelt parameter may be the answer.
        let misspelt = quote!(
            async fn f(answers: Option<A>) -> #result {}
        );
        assert_eq!(mistakes(misspelt), ["unknown node parameter `answers`; did you mean `answer`?"]);
    }
    assert_eq!(
        mistakes(quote!(
            async fn f(answer: Option<&str>) -> Ask<Q> {}
        )),
        ["an answer cannot borrow: name a type that owns its data"]
    );
    assert_eq!(
        mistakes(quote!(
            async fn f(answer: Option<A>) {}
        )),
        ["a node with `answer` asks a question: write `-> Ask<Question>`, or leave the parameter out"]
    );
    // A route may have the name.
    assert_eq!(
        mistakes(quote!(
            async fn f() -> Ask {}
        )),
        [""; 0]
    );
}

#[test]
fn types_from_macro_rules_are_seen_through() {
    let group = |tokens: TokenStream| proc_macro2::Group::new(proc_macro2::Delimiter::None, tokens);
    let (state, service) = (group(quote!(&mut S)), group(quote!(&Db)));
    let output = expand(
        TokenStream::new(),
        quote!(
            async fn f(state: #state, #[inject] db: #service) {}
        ),
    );
    assert_eq!(testing::mistakes(output.clone()), [""; 0]);
    assert!(contains(&output, "Node<S, __C, ()>"), "{output}");
    assert!(contains(&output, "Provide<Db>"), "{output}");
}

#[test]
fn one_parameter_of_each_name() {
    assert_eq!(
        mistakes(quote!(
            async fn f(state: &mut S, _state: &S, config: &C, config: &C) {}
        )),
        ["a node takes `state` once", "a node takes `config` once"]
    );
}

#[test]
fn services_are_lent() {
    assert_eq!(
        mistakes(quote!(
            async fn f(#[inject] a: A, #[inject] b: &mut B, #[inject] c: &C, #[inject] state: S) {}
        )),
        [
            "an injected service is borrowed: write `a: &A`",
            "a service is shared by all runs: write `b: &B`",
            "an injected service is borrowed: write `state: &S`",
        ]
    );
}

#[test]
fn impl_trait_is_found_wherever_it_stands() {
    let parameter =
        "a node cannot take `impl Trait`: name the type, or make it a type parameter: `async fn node<T: Trait>(..)`";
    for ty in [quote!(impl A), quote!(&impl A), quote!(&mut [impl A; 1]), quote!(Vec<(u8, impl A)>)] {
        assert_eq!(
            mistakes(quote!(
                async fn f(state: #ty) {}
            )),
            [parameter]
        );
        assert_eq!(
            mistakes(quote!(
                async fn f() -> #ty {}
            )),
            ["a node cannot return `impl Trait`: name the type"]
        );
    }
}

#[test]
fn qualifiers() {
    let cases = [
        (
            quote!(
                fn f() {}
            ),
            vec!["a node is asynchronous: write `async fn f`"],
        ),
        (
            quote!(
                const fn f() {}
            ),
            vec!["a node is asynchronous, not `const`: write `async fn f`"],
        ),
        (
            quote!(
                async unsafe fn f() {}
            ),
            vec!["a node cannot be `unsafe`"],
        ),
        (
            quote!(
                async extern "C" fn f() {}
            ),
            vec!["a node cannot be `extern`"],
        ),
        (
            quote!(
                unsafe extern "C" fn f(_: u8, ...) {}
            ),
            vec![
                "a node is asynchronous: write `async fn f`",
                "a node cannot be `extern`",
                "a node cannot be `variadic`",
                "a node cannot be `unsafe`",
                "a node's parameter needs a plain name; destructure it in the body",
            ],
        ),
    ];
    for (item, expected) in cases {
        assert_eq!(mistakes(item), expected);
    }
}

#[test]
fn lifetimes_and_conditional_parameters() {
    assert_eq!(
        mistakes(quote!(
            async fn f<'a, 'b: 'a>(state: &'a mut S, #[cfg(x)] config: &'b C) {}
        )),
        [
            "a node cannot have named lifetimes; use elided ones: `&mut S`",
            "a node cannot have named lifetimes; use elided ones: `&mut S`",
            "a node's parameter cannot be conditional: put `#[cfg]` on the whole function",
        ]
    );
}

#[test]
fn a_method_gets_no_items_beside_it() {
    for receiver in [quote!(self), quote!(&self), quote!(&mut self), quote!(self: Arc<Self>)] {
        let item = quote! { async fn f(#receiver, stat: &mut S) { self.g() } };
        let output = expand(TokenStream::new(), item.clone());
        assert_eq!(
            testing::mistakes(output.clone()),
            ["a node is a free function, not a method: take `state: &mut S` instead of `self`"]
        );
        assert!(contains(&output, &item.to_string()));
        assert!(!contains(&output, "struct"), "{output}");
    }
}

#[test]
fn half_a_function_is_given_back_as_it_is() {
    for half in [
        quote!(),
        quote!(async),
        quote!(async fn),
        quote!(pub async fn greet),
        quote!(async fn greet(state: &mut )),
        quote!(async fn greet(state: &mut AgentState) ->),
        quote!(async fn greet(state) { state.context }),
        quote!(async fn review(answer) -> Ask<Review> { answer }),
        quote!(async fn review(answer: Option<) -> Ask<Review> { answer }),
        quote!(async fn greet(state: &mut AgentState, task_) { state.context }),
        quote!(
            struct Greeter;
        ),
        quote!(
            mod nodes {}
        ),
        quote!(42),
    ] {
        let output = expand(TokenStream::new(), half.clone());
        assert!(output.to_string().starts_with(&half.to_string()), "{half}\n{output}");
        assert_eq!(testing::mistakes(output).len(), 1, "{half}");
    }
}

/// Returns true if the output begins with the unchanged function, after the attribute for clippy.
fn starts_with_item(output: &TokenStream, item: &TokenStream) -> bool {
    let allowed = quote!(#[allow(clippy::unused_async)]);
    unspaced(output).strip_prefix(&unspaced(&allowed)).is_some_and(|output| output.starts_with(&unspaced(item)))
}

/// syn would print the lifetime first, and so repair the mistake that rustc has to report.
#[test]
fn the_function_is_given_back_as_it_is() {
    let item = quote! {
        pub(in a) async fn f<M:, F: Fn(A)>(state: &mut S<M, 'a>, config: &C<F>) -> (Result<(), 'a>) where { body() }
    };
    let output = expand(TokenStream::new(), item.clone());
    assert!(starts_with_item(&output, &item), "{output}");
    let item = quote! { async fn f(#[inject] a: &A, #[allow(x)] #[inject] b: &B) { f(#[inject] 1) } };
    let output = expand(TokenStream::new(), item);
    let expected = quote! { async fn f(a: &A, #[allow(x)] b: &B) { f(#[inject] 1) } };
    assert!(contains(&output, &expected.to_string()), "{output}");
}

#[test]
fn half_a_body_is_the_compilers_to_judge() {
    let item = quote! { async fn greet(state: &mut AgentState) { state. ; let x = } };
    let output = expand(TokenStream::new(), item.clone());
    assert!(starts_with_item(&output, &item), "{output}");
    assert_eq!(testing::mistakes(output), [""; 0]);
}

const FUNCTIONS: &[&str] = &[
    "#[inline] pub async fn greet(state: &mut AgentState, config: &RunConfig) -> Result<(), NodeError> { Ok(()) }",
    "async fn ask<M: Model, const N: usize>(#[inject] db: &Db<M>, state: &[M; N]) -> (M,) where M: Clone { body() }",
    "async fn review(state: &mut S, answer: Option<Verdict>) -> Result<Ask<Review, S>, NodeError> { body() }",
    "async fn take(mut state: S, _events: &EventWriter, cancel: &CancellationToken) -> S { state }",
];

const WORDS: &[&str] = &[
    "async",
    "fn",
    "state",
    "answer",
    "config",
    "task_manager",
    "confg",
    "&",
    "mut",
    "'a",
    "<",
    ">",
    "(",
    "impl",
    "dyn",
    "T",
    ":",
    "::",
    ",",
    "->",
    "#[inject]",
    "#[cfg(x)]",
    "self",
    "&self",
    "_",
    "..",
    "...",
    "const",
    "unsafe",
    "extern",
    "where",
    "{}",
    "()",
    "[]",
    "1",
    "\"text\"",
    "=",
    "for",
    "!",
    ";",
    "struct",
    "pub",
    "r#type",
    "|",
    "$",
];

/// Returns the words that are tokens on their own.
fn vocabulary() -> &'static [&'static str] {
    static WHOLE: std::sync::LazyLock<Vec<&'static str>> = std::sync::LazyLock::new(|| {
        let is_whole = |word: &&&str| word.parse::<TokenStream>().is_ok();
        WORDS.iter().filter(is_whole).copied().collect()
    });
    &WHOLE
}

proptest! {
    #![proptest_config(quick())]

    #[test]
    fn whatever_is_written_the_item_stays(item in soup(FUNCTIONS, vocabulary()), args in soup(&["MAIN, crate = a::b"], vocabulary())) {
        let output = expand(args, item.clone());
        let found = testing::mistakes(output.clone());
        // Only `#[inject]` may be removed.
        let without = |tokens: &TokenStream| unspaced(tokens).replace("#[inject]", "");
        let allowed = unspaced(&quote!(#[allow(clippy::unused_async)]));
        let output_text = without(&output);
        let starts = output_text.strip_prefix(&allowed).unwrap_or(&output_text).starts_with(&without(&item));
        prop_assert!(starts, "{}\n{}", item, output);
        prop_assert!(!item.is_empty() || !found.is_empty());
        // If the input is an item, the output must be items.
        if syn::parse2::<syn::ItemFn>(item.clone()).is_ok() && !item.to_string().contains("self") {
            let error = syn::parse2::<syn::File>(output.clone()).err();
            prop_assert!(error.is_none(), "{}\n{}\n{:?}", item, output, error);
        }
        prop_assert!(!lexes(&item) || lexes(&output), "{}\n{}", item, output);
    }
}
