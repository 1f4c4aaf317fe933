//! What the tests of all macros look at an expansion with.

use proc_macro2::{TokenStream, TokenTree};
use proptest::prelude::*;

/// The texts of all mistakes: of the `compile_error!`s, and of those that rustc says only where all names resolve.
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

/// Items, as rustfmt would set them.
pub(crate) fn pretty_items(output: TokenStream) -> String {
    prettyplease::unparse(&syn::parse2(output).expect("the output is items"))
}

/// An expression, as rustfmt would set it.
pub(crate) fn pretty_expression(output: &TokenStream) -> String {
    let expression: syn::Expr = syn::parse2(output.clone()).expect("the output is an expression");
    pretty_items(quote::quote! { fn expression() { #expression } })
}

/// Whether the text is tokens: some, such as `#` before `"`, are others when they are printed side by side.
pub(crate) fn lexes(tokens: &TokenStream) -> bool {
    tokens.to_string().parse::<TokenStream>().is_ok()
}

/// The text without its spaces, which depend on how the tokens were made.
pub(crate) fn unspaced(tokens: &impl ToString) -> String {
    tokens.to_string().replace([' ', '\n'], "")
}

/// Whether `part` stands in `whole`, whatever the spaces.
pub(crate) fn contains(whole: &TokenStream, part: &str) -> bool {
    unspaced(whole).contains(&unspaced(&part))
}

/// One change of a text's tokens; the numbers are taken modulo what there is to choose from.
#[derive(Clone, Debug)]
enum Change {
    Delete(usize),
    Duplicate(usize),
    Swap(usize, usize),
    Insert(usize, usize),
    Replace(usize, usize),
    Cut(usize),
}

/// Texts near `valid`: some of their tokens are gone, doubled, swapped or replaced by others of `vocabulary`. Brackets
/// stay in pairs: with others no macro is called.
pub(crate) fn soup(
    valid: &'static [&'static str],
    vocabulary: &'static [&'static str],
) -> impl Strategy<Value = TokenStream> {
    let at = 0..10_000_usize;
    let change = prop_oneof![
        at.clone().prop_map(Change::Delete),
        at.clone().prop_map(Change::Duplicate),
        (at.clone(), at.clone()).prop_map(|(one, two)| Change::Swap(one, two)),
        (at.clone(), at.clone()).prop_map(|(place, word)| Change::Insert(place, word)),
        (at.clone(), at.clone()).prop_map(|(place, word)| Change::Replace(place, word)),
        at.prop_map(Change::Cut),
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
    let (Change::Delete(place)
    | Change::Duplicate(place)
    | Change::Swap(place, _)
    | Change::Insert(place, _)
    | Change::Replace(place, _)
    | Change::Cut(place)) = *change;
    // Every other change of a group's place is one within the group.
    if let TokenTree::Group(group) = &list[place % count]
        && place % 2 == 0
    {
        let content = changed(group.stream(), &deeper(change), vocabulary);
        list[place % count] = proc_macro2::Group::new(group.delimiter(), content).into();
        return list.into_iter().collect();
    }
    let place = place % count;
    match *change {
        Change::Delete(_) => drop(list.remove(place)),
        Change::Duplicate(_) => list.insert(place, list[place].clone()),
        Change::Swap(_, other) => list.swap(place, other % count),
        Change::Insert(_, index) => drop(list.splice(place..place, word(vocabulary, index))),
        Change::Replace(_, index) => drop(list.splice(place..=place, word(vocabulary, index))),
        Change::Cut(_) => list.truncate(place),
    }
    list.into_iter().collect()
}

fn deeper(change: &Change) -> Change {
    match *change {
        Change::Delete(place) => Change::Delete(place / 7),
        Change::Duplicate(place) => Change::Duplicate(place / 7),
        Change::Swap(one, two) => Change::Swap(one / 7, two),
        Change::Insert(place, word) => Change::Insert(place / 7, word),
        Change::Replace(place, word) => Change::Replace(place / 7, word),
        Change::Cut(place) => Change::Cut(place / 7),
    }
}

fn word(vocabulary: &[&str], index: usize) -> TokenStream {
    vocabulary[index % vocabulary.len()].parse().expect("tokens")
}

/// Enough to find what a few changes break, in less than a second or two.
pub(crate) fn quick() -> ProptestConfig {
    ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() }
}
