//! Printing of tokens for messages, and spans for rustc.

use proc_macro2::{Delimiter, Group, Span};
use quote::ToTokens;

/// `(tokens)`, with the parentheses at `span`: rustc shows what is wrong with the whole there, and the editor sees no
/// identifier of ours in a user's place.
pub(crate) fn parenthesized(span: Span, tokens: impl ToTokens) -> Group {
    let mut parentheses = Group::new(Delimiter::Parenthesis, tokens.to_token_stream());
    parentheses.set_span(span);
    parentheses
}

/// The tokens as text, without the spaces that printing puts around everything but words.
pub(crate) fn text(tokens: &impl ToTokens) -> String {
    let printed = tokens.to_token_stream().to_string();
    let mut words = printed.split(' ').filter(|word| !word.is_empty());
    let mut text = words.next().unwrap_or_default().to_owned();
    let is_of_word = |char: char| char.is_alphanumeric() || char == '_';
    for word in words {
        if text.ends_with(is_of_word) && word.starts_with(is_of_word) {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::text;

    #[test]
    fn only_words_are_kept_apart() {
        assert_eq!(text(&quote!(a::b::<C>)), "a::b::<C>");
        assert_eq!(text(&quote!(dyn Db + Send)), "dyn Db+Send");
        assert_eq!(text(&quote!()), "");
    }
}
