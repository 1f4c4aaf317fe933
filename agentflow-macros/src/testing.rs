//! Helpers for the tests of all macros.

use proc_macro2::{TokenStream, TokenTree};
use proptest::prelude::*;

/// Returns the texts of all mistakes: of the `compile_error!`s, and of those that depend on the graph's names.
pub(crate) fn mistakes(output: TokenStream) -> Vec<String> {
    fn collect(tokens: TokenStream, texts: &mut Vec<String>) {
        let mut tokens = tokens.into_iter();
        while let Some(token) = tokens.next() {
            let is_now = matches!(&token, TokenTree::Ident(ident) if ident == "compile_error");
            let is_later =
                matches!(&token, TokenTree::Group(function) if unspaced(&function.stream()) == "__af::mistake");
            if is_now || is_later {
                if is_now {
                    tokens.next();
                }
                let Some(TokenTree::Group(text)) = tokens.next() else { panic!("a mistake without text") };
                let text: syn::LitStr = syn::parse2(text.stream()).expect("a text");
                texts.push(text.value());
            } else if let TokenTree::Group(group) = token {
                collect(group.stream(), texts);
            }
        }
    }
    let mut texts = Vec::new();
    collect(output, &mut texts);
    texts
}

/// Formats items.
pub(crate) fn pretty_items(output: TokenStream) -> String {
    prettyplease::unparse(&syn::parse2(output).expect("the output is items"))
}

/// Formats an expression.
pub(crate) fn pretty_expression(output: &TokenStream) -> String {
    let expression: syn::Expr = syn::parse2(output.clone()).expect("the output is an expression");
    pretty_items(quote::quote! { fn expression() { #expression } })
}

/// Returns true if the printed tokens lex again. Some do not: a printed `#` before `"` begins a raw string.
pub(crate) fn lexes(tokens: &TokenStream) -> bool {
    tokens.to_string().parse::<TokenStream>().is_ok()
}

/// Removes the spaces, which depend on how the tokens were made.
pub(crate) fn unspaced(tokens: &impl ToString) -> String {
    tokens.to_string().replace([' ', '\n'], "")
}

/// Returns true if `whole` contains `part`, without regard to spaces.
pub(crate) fn contains(whole: &TokenStream, part: &str) -> bool {
    unspaced(whole).contains(&unspaced(&part))
}

/// One change of a text's tokens. Each index is reduced modulo the number of tokens or words.
#[derive(Clone, Debug)]
enum Change {
    Delete(usize),
    Duplicate(usize),
    Swap(usize, usize),
    Insert(usize, usize),
    Replace(usize, usize),
    Cut(usize),
}

/// Generates texts near `valid`, in which some tokens are deleted, duplicated, swapped or replaced by words of
/// `vocabulary`. Brackets stay in pairs, because rustc calls no macro with unpaired ones.
pub(crate) fn soup(
    valid: &'static [&'static str],
    vocabulary: &'static [&'static str],
) -> impl Strategy<Value = TokenStream> {
    let index = 0..10_000_usize;
    let change = prop_oneof![
        index.clone().prop_map(Change::Delete),
        index.clone().prop_map(Change::Duplicate),
        (index.clone(), index.clone()).prop_map(|(one, two)| Change::Swap(one, two)),
        (index.clone(), index.clone()).prop_map(|(at, word)| Change::Insert(at, word)),
        (index.clone(), index.clone()).prop_map(|(at, word)| Change::Replace(at, word)),
        index.prop_map(Change::Cut),
    ];
    let changes = proptest::collection::vec(change, 0..6);
    (0..valid.len(), changes).prop_map(move |(text, changes)| {
        let mut tokens: TokenStream = valid[text].parse().expect("tokens");
        for change in &changes {
            tokens = changed(tokens, change, vocabulary);
        }
        tokens
    })
}

fn changed(tokens: TokenStream, change: &Change, vocabulary: &[&str]) -> TokenStream {
    let mut list: Vec<TokenTree> = tokens.into_iter().collect();
    let count = list.len();
    if count == 0 {
        return word(vocabulary, 0);
    }
    let (Change::Delete(at)
    | Change::Duplicate(at)
    | Change::Swap(at, _)
    | Change::Insert(at, _)
    | Change::Replace(at, _)
    | Change::Cut(at)) = *change;
    // Half of the changes at a group are made inside the group.
    if let TokenTree::Group(group) = &list[at % count]
        && at % 2 == 0
    {
        let content = changed(group.stream(), &deeper(change), vocabulary);
        list[at % count] = proc_macro2::Group::new(group.delimiter(), content).into();
        return list.into_iter().collect();
    }
    let at = at % count;
    match *change {
        Change::Delete(_) => drop(list.remove(at)),
        Change::Duplicate(_) => list.insert(at, list[at].clone()),
        Change::Swap(_, other) => list.swap(at, other % count),
        Change::Insert(_, index) => drop(list.splice(at..at, word(vocabulary, index))),
        Change::Replace(_, index) => drop(list.splice(at..=at, word(vocabulary, index))),
        Change::Cut(_) => list.truncate(at),
    }
    list.into_iter().collect()
}

fn deeper(change: &Change) -> Change {
    match *change {
        Change::Delete(at) => Change::Delete(at / 7),
        Change::Duplicate(at) => Change::Duplicate(at / 7),
        Change::Swap(one, two) => Change::Swap(one / 7, two),
        Change::Insert(at, word) => Change::Insert(at / 7, word),
        Change::Replace(at, word) => Change::Replace(at / 7, word),
        Change::Cut(at) => Change::Cut(at / 7),
    }
}

fn word(vocabulary: &[&str], index: usize) -> TokenStream {
    vocabulary[index % vocabulary.len()].parse().expect("tokens")
}

/// Returns a configuration with enough cases to find mistakes of a few changes within one or two seconds.
pub(crate) fn quick() -> ProptestConfig {
    ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() }
}
