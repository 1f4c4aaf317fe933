//! Printing of tokens for messages, and spans for rustc.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
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

/// Prints a pattern and its guard as rustfmt does. Literals stay as they are.
pub(crate) fn pattern(tokens: TokenStream) -> String {
    let mut printer = Printer::default();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let mut token_text = token.to_string();
        match token {
            TokenTree::Group(group) => printer.group(&group),
            TokenTree::Punct(_) => {
                while let Some(TokenTree::Punct(next)) = tokens.peek()
                    && OPERATORS.contains(&&*format!("{token_text}{next}"))
                {
                    token_text.push(next.as_char());
                    tokens.next();
                }
                printer.operator(&token_text);
            }
            TokenTree::Ident(_) => {
                let is_operand = !["if", "ref", "mut", "as", "in", "match", "move"].contains(&&*token_text);
                // A range without an end ends before a guard.
                printer.is_tight &= token_text != "if";
                printer.push(&token_text, true, false, is_operand);
            }
            TokenTree::Literal(_) => printer.push(&token_text, true, false, true),
        }
    }
    printer.text
}

/// The operators of several characters.
const OPERATORS: [&str; 11] = ["::", "..", "..=", "==", "!=", "<=", ">=", "&&", "||", "->", "=>"];

/// A text that is printed token by token.
#[derive(Default)]
struct Printer {
    text: String,
    /// True if no space follows the last token.
    is_tight: bool,
    /// True if the last token ends an operand, so that an operator after it has two sides.
    is_operand: bool,
    /// The number of open `::<`.
    generics: usize,
}

impl Printer {
    /// Adds a token, with or without a space before it and after it.
    fn push(&mut self, token: &str, space_before: bool, is_tight: bool, is_operand: bool) {
        if space_before && !self.is_tight && !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(token);
        (self.is_tight, self.is_operand) = (is_tight, is_operand);
    }

    fn operator(&mut self, operator: &str) {
        let follows_comma = self.text.ends_with([',', ':']) && !self.text.ends_with("::");
        match operator {
            "," | ":" => self.push(operator, false, false, false),
            "::" | "." | ".." | "..=" | "?" => self.push(operator, follows_comma || !self.is_operand, true, true),
            "<" if self.generics > 0 || self.text.ends_with("::") => {
                self.generics += 1;
                self.push(operator, false, true, false);
            }
            ">" if self.generics > 0 => {
                self.generics -= 1;
                self.push(operator, false, false, true);
            }
            "'" => self.push(operator, true, true, false),
            "&" | "&&" | "-" | "*" | "!" if !self.is_operand => self.push(operator, true, true, false),
            _ => self.push(operator, true, false, false),
        }
    }

    fn group(&mut self, group: &Group) {
        let inside = pattern(group.stream());
        match group.delimiter() {
            Delimiter::Parenthesis => self.push(&format!("({inside})"), !self.is_operand, false, true),
            Delimiter::Bracket => self.push(&format!("[{inside}]"), !self.is_operand, false, true),
            Delimiter::Brace if inside.is_empty() => self.push("{}", true, false, true),
            Delimiter::Brace => self.push(&format!("{{ {inside} }}"), true, false, true),
            Delimiter::None => self.push(&inside, true, false, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::{pattern, text};

    #[test]
    fn a_pattern_is_printed_as_it_is_written() {
        for written in [
            "Step::Tools",
            "Step::Tools { name, .. } if name == limit",
            "m::Step::Done(_, 3) | Step::Never",
            "Either::<u8, u16>::Left(1)",
            "n @ 1..=5 if !(n.is_even() && full::<u8, u16>())",
            "Step::Say(\"a :: b ( c , d\", -1, &[first, ..])",
            "5.. if a < b",
            "(a, _)",
        ] {
            assert_eq!(pattern(written.parse().expect("tokens")), written);
        }
    }

    #[test]
    fn only_words_are_kept_apart() {
        assert_eq!(text(&quote!(a::b::<C>)), "a::b::<C>");
        assert_eq!(text(&quote!(dyn Db + Send)), "dyn Db+Send");
        assert_eq!(text(&quote!()), "");
    }
}
