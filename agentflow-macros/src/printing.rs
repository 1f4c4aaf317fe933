//! Printing of tokens for messages, and spans for rustc.

use proc_macro2::{Delimiter, Group, Span};
use quote::ToTokens;

/// Wraps tokens in parentheses at `span`. rustc reports errors about the whole expression at the parentheses, while the
/// generated identifiers inside keep their own span, so that the editor does not mistake them for the user's.
pub(crate) fn parenthesized(span: Span, tokens: impl ToTokens) -> Group {
    let mut parentheses = Group::new(Delimiter::Parenthesis, tokens.to_token_stream());
    parentheses.set_span(span);
    parentheses
}

/// Prints the tokens, with spaces only between words.
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
