//! A snapshot of the expansion, which always contains the function, and the text of each mistake. `ui-tests` has rustc's
//! output.

use proc_macro2::TokenStream;
use proptest::prelude::*;
use quote::quote;

use super::expand;
use crate::testing::{self, contains, lexes, pretty_items, quick, soup};

fn mistakes(item: TokenStream) -> Vec<String> {
    testing::mistakes(expand(TokenStream::new(), item))
}

#[test]
fn a_task_with_every_parameter() {
    let function = quote! {
        /// Sends a mail.
        #[cfg(feature = "mail")]
        pub(crate) async fn deliver(
            #[inject] smtp: &Smtp,
            args: Outgoing,
            _attempt: u32,
            task: &DurableTaskContext,
            cancel: &CancellationToken,
        ) -> Result<(), SmtpError> {
            body()
        }
    };
    insta::assert_snapshot!(pretty_items(expand(quote!(name = "mail.deliver", crate = crate::flow), function)));
}

#[test]
fn a_task_without_arguments_takes_none_and_has_the_name_of_its_function() {
    let output = expand(
        TokenStream::new(),
        quote!(
            async fn r#type() {}
        ),
    );
    assert!(contains(&output, "type __Args = ();"), "{output}");
    assert!(contains(&output, "const NAME: &'static str = \"type\";"), "{output}");
}

#[test]
fn what_no_task_can_have() {
    let cases = [
        (
            quote!(
                fn a() {}
            ),
            "a durable task is asynchronous: write `async fn a`",
        ),
        (
            quote!(
                async unsafe fn a() {}
            ),
            "a durable task cannot be `unsafe`",
        ),
        (
            quote!(
                async fn a(&self) {}
            ),
            "a durable task is a free function, not a method: take what it needs as `args`",
        ),
        (
            quote!(
                async fn a<'a>() {}
            ),
            "a durable task has no generic parameters: its stored name stands for one function",
        ),
        (
            quote!(
                async fn a(args: &[u8]) {}
            ),
            "a durable task owns its arguments: write `args: Vec<u8>`",
        ),
        (
            quote!(
                async fn a(args: Cow<'_, str>) {}
            ),
            "the arguments of a durable task cannot borrow: name a type that owns its data",
        ),
        (
            quote!(
                async fn a(args: impl Serialize) {}
            ),
            "a durable task cannot take `impl Trait`: name the type",
        ),
        (
            quote!(
                async fn a((one, two): (u8, u8)) {}
            ),
            "a durable task's parameter needs a plain name; destructure it in the body",
        ),
        (
            quote!(
                async fn a(attempt: u32, _attempt: u32) {}
            ),
            "a durable task takes `attempt` once",
        ),
        (
            quote!(
                async fn a(token: &CancellationToken) {}
            ),
            "unknown parameter `token` of a durable task; did you mean `cancel: &CancellationToken`?",
        ),
        (
            quote!(
                async fn a(arg: String) {}
            ),
            "unknown parameter `arg` of a durable task; did you mean `args`?",
        ),
        (
            quote!(
                async fn a(state: &mut Mail) {}
            ),
            "unknown parameter `state` of a durable task: it takes `args`, one value that is stored, `attempt`, `task` and \
             `cancel`; a service of the app is injected: `#[inject] state: &Mail`",
        ),
        (
            quote!(
                async fn a(#[inject] smtp: Arc<Smtp>) {}
            ),
            "an injected service is borrowed: write `smtp: &Smtp`, or `smtp: &Arc<Smtp>` if that is what the app provides",
        ),
        (
            quote!(
                async fn a() -> ! {}
            ),
            "a durable task returns, so that its outcome is recorded: leave out `-> !`",
        ),
        (
            quote!(
                struct A;
            ),
            "`#[task]` goes on an `async fn`: `#[task] async fn name(..) { .. }`",
        ),
    ];
    for (function, expected) in cases {
        assert_eq!(mistakes(function.clone()), [expected], "{function}");
    }
}

#[test]
fn mistakes_in_the_arguments_of_the_attribute() {
    let expected = "expected the stored name, as in `#[task(name = \"mail.deliver\")]`, or `crate = path`";
    let cases = [
        (quote!(deliver), expected),
        (quote!("deliver"), expected),
        (quote!(name), expected),
        (quote!(name = deliver), expected),
        (quote!(name = ""), "a task's name has at least one character"),
        (quote!(name = "a", name = "b"), "`name` is given already"),
        (quote!(name = "a" crate = b), "expected `,`"),
    ];
    for (args, expected) in cases {
        assert_eq!(
            testing::mistakes(expand(
                args.clone(),
                quote!(
                    async fn a() {}
                )
            )),
            [expected],
            "{args}"
        );
    }
}

const TASKS: &[&str] = &[
    "#[inject] async fn deliver(args: Outgoing, #[inject] smtp: &Smtp, attempt: u32) -> Result<(), SmtpError> { body() }",
    "pub async fn report<T: Clone>(task: &DurableTaskContext, cancel: &CancellationToken) where T: Send {}",
];

const WORDS: &[&str] =
    &["#[inject]", "&", "args", "attempt", "'a", "<", ">", "->", "impl", "fn", "async", "self", "Self", ":"];

proptest! {
    #![proptest_config(quick())]

    #[test]
    fn any_tokens_expand_to_tokens(task in soup(TASKS, WORDS)) {
        let output = expand(TokenStream::new(), task.clone());
        prop_assert!(!lexes(&task) || lexes(&output), "{task}\n{output}");
        // If the input is an item, the output must be items.
        if syn::parse2::<syn::ItemFn>(task.clone()).is_ok() && !task.to_string().contains("self") {
            let error = syn::parse2::<syn::File>(output.clone()).err();
            prop_assert!(error.is_none(), "{task}\n{output}\n{error:?}");
        }
    }
}
