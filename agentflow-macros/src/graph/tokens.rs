//! [`Tokens`]: a cursor over token trees, for a parser that recovers from errors.
//!
//! syn's parsers stop at the first unexpected token. A graph that is being typed is invalid most of the time, and this
//! parser must read all of it.

use proc_macro2::{Delimiter, Group, Ident, Punct, Spacing, TokenStream, TokenTree};
use quote::quote;

#[derive(Clone)]
pub(crate) struct Tokens {
    list: Vec<TokenTree>,
    at: usize,
}

impl Tokens {
    pub(crate) fn new(stream: TokenStream) -> Self {
        Self { list: stream.into_iter().collect(), at: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.list.len()
    }

    pub(crate) fn peek(&self) -> Option<&TokenTree> {
        self.nth(0)
    }

    pub(crate) fn nth(&self, n: usize) -> Option<&TokenTree> {
        self.list.get(self.at + n)
    }

    pub(crate) fn next(&mut self) -> Option<TokenTree> {
        let token = self.peek().cloned();
        self.at += usize::from(token.is_some());
        token
    }

    /// Returns all tokens, including those already taken.
    pub(crate) fn all(self) -> TokenStream {
        self.list.into_iter().collect()
    }

    /// Takes all remaining tokens.
    pub(crate) fn rest(&mut self) -> TokenStream {
        self.while_not(|_| false)
    }

    /// Takes tokens until `is_end` returns true, or all remaining ones.
    pub(crate) fn while_not(&mut self, is_end: impl Fn(&Self) -> bool) -> TokenStream {
        let mut taken = TokenStream::new();
        while !self.is_empty() && !is_end(self) {
            taken.extend(self.next());
        }
        taken
    }

    /// Takes the remaining tokens except a brace group at the end, if there is more than that group. The braces of
    /// `graph! { .. }` belong to the macro call.
    pub(crate) fn before_last_brace(&mut self) -> TokenStream {
        let left = self.list.len() - self.at;
        let is_braced = left > 1 && self.peek_group(left - 1, Delimiter::Brace) && !self.peek_punct(left - 2, '!');
        let end = self.list.len() - usize::from(is_braced);
        let before = self.list[self.at..end].iter().cloned().collect();
        self.at = end;
        before
    }

    fn punct_at(&self, n: usize, char: char) -> Option<&Punct> {
        match self.nth(n) {
            Some(TokenTree::Punct(punct)) if punct.as_char() == char => Some(punct),
            _ => None,
        }
    }

    pub(crate) fn peek_punct(&self, n: usize, char: char) -> bool {
        self.punct_at(n, char).is_some()
    }

    pub(crate) fn punct(&mut self, char: char) -> Option<Punct> {
        let punct = self.punct_at(0, char)?.clone();
        self.at += 1;
        Some(punct)
    }

    fn peek_pair(&self, first: char, second: char) -> bool {
        self.punct_at(0, first).is_some_and(|punct| punct.spacing() == Spacing::Joint) && self.peek_punct(1, second)
    }

    fn pair(&mut self, first: char, second: char) -> Option<[TokenTree; 2]> {
        if !self.peek_pair(first, second) {
            return None;
        }
        Some([self.next()?, self.next()?])
    }

    pub(crate) fn peek_arrow(&self) -> bool {
        self.peek_pair('-', '>')
    }

    /// `->`
    pub(crate) fn arrow(&mut self) -> Option<[TokenTree; 2]> {
        self.pair('-', '>')
    }

    pub(crate) fn peek_fat_arrow(&self) -> bool {
        self.peek_pair('=', '>')
    }

    /// `=>`
    pub(crate) fn fat_arrow(&mut self) -> Option<[TokenTree; 2]> {
        self.pair('=', '>')
    }

    pub(crate) fn peek_path_separator(&self) -> bool {
        self.peek_pair(':', ':')
    }

    /// `::`
    pub(crate) fn path_separator(&mut self) -> Option<[TokenTree; 2]> {
        self.pair(':', ':')
    }

    pub(crate) fn ident_at(&self, n: usize) -> Option<&Ident> {
        match self.nth(n) {
            Some(TokenTree::Ident(ident)) => Some(ident),
            _ => None,
        }
    }

    pub(crate) fn ident(&mut self) -> Option<Ident> {
        let ident = self.ident_at(0)?.clone();
        self.at += 1;
        Some(ident)
    }

    pub(crate) fn peek_word(&self, n: usize, word: &str) -> bool {
        self.ident_at(n).is_some_and(|ident| ident == word)
    }

    pub(crate) fn word(&mut self, word: &str) -> Option<Ident> {
        if self.peek_word(0, word) { self.ident() } else { None }
    }

    pub(crate) fn peek_group(&self, n: usize, delimiter: Delimiter) -> bool {
        matches!(self.nth(n), Some(TokenTree::Group(group)) if group.delimiter() == delimiter)
    }

    pub(crate) fn group(&mut self, delimiter: Delimiter) -> Option<Group> {
        match self.peek() {
            Some(TokenTree::Group(group)) if group.delimiter() == delimiter => {
                let group = group.clone();
                self.at += 1;
                Some(group)
            }
            _ => None,
        }
    }

    /// Takes `<A, B<C>>` and returns true if it was closed. A list that is not closed ends at the graph's next arrow,
    /// and the missing `>` are added.
    pub(crate) fn generic_arguments(&mut self) -> (TokenStream, bool) {
        let mut arguments = TokenStream::new();
        let mut depth = 0_usize;
        let mut after_parentheses = false;
        while !self.is_empty() {
            if self.peek_arrow() {
                // `fn(A) -> B` goes on; without parentheses it is the graph's arrow.
                if !after_parentheses {
                    break;
                }
                arguments.extend(self.arrow().into_iter().flatten());
            }
            depth += usize::from(self.peek_punct(0, '<'));
            depth -= usize::from(self.peek_punct(0, '>'));
            after_parentheses = self.peek_group(0, Delimiter::Parenthesis);
            arguments.extend(self.next());
            if depth == 0 {
                return (arguments, true);
            }
        }
        arguments.extend((0..depth).map(|_| quote!(>)));
        (arguments, false)
    }

    /// Takes the tokens up to `end`, or all remaining ones, and skips `end`.
    pub(crate) fn until(&mut self, end: char) -> Self {
        let taken = self.code_until(|tokens| tokens.peek_punct(0, end));
        self.punct(end);
        Self::new(taken)
    }

    /// Takes the tokens of Rust code until `is_end` returns true, or all remaining ones. It does not look for the end
    /// inside `::<A, B>`, `<A as B<C, D>>::` and the parameters of a closure, which have commas of their own.
    pub(crate) fn code_until(&mut self, is_end: impl Fn(&Self) -> bool) -> TokenStream {
        let mut taken = TokenStream::new();
        let mut begins_operand = true;
        while !self.is_empty() && !is_end(self) {
            if let Some(separator) = self.path_separator() {
                taken.extend(separator);
                if self.peek_punct(0, '<') {
                    taken.extend(self.generic_arguments().0);
                }
                begins_operand = false;
            } else if begins_operand && self.peek_punct(0, '<') && self.clone().generic_arguments().1 {
                taken.extend(self.generic_arguments().0);
                begins_operand = false;
            } else if begins_operand && self.starts_closure() {
                taken.extend(self.next());
                taken.extend(self.while_not(|tokens| tokens.peek_punct(0, '|')));
                taken.extend(self.next());
            } else {
                begins_operand = match self.peek() {
                    Some(TokenTree::Ident(ident)) => ident == "move" || ident == "async" || ident == "if",
                    Some(TokenTree::Punct(punct)) => [':', '=', ',', '&'].contains(&punct.as_char()),
                    _ => false,
                };
                taken.extend(self.next());
            }
        }
        taken
    }

    /// Returns whether `|A, B|` is at this place. An alternative of a pattern has an arrow before the next `|`.
    fn starts_closure(&self) -> bool {
        if !self.peek_punct(0, '|') {
            return false;
        }
        let mut tokens = self.clone();
        tokens.next();
        tokens.while_not(|tokens| tokens.peek_punct(0, '|') || tokens.peek_punct(0, ';') || tokens.peek_fat_arrow());
        tokens.peek_punct(0, '|')
    }

    /// Opens a group without delimiters at this place: a fragment of `macro_rules!`, such as `$node:path`.
    pub(crate) fn open_fragment(&mut self) {
        while let Some(TokenTree::Group(group)) = self.peek()
            && group.delimiter() == Delimiter::None
        {
            let inside = group.stream();
            self.list.splice(self.at..=self.at, inside);
        }
    }

    /// Takes the attributes at this place: `#[..]`, `#![..]`, and documentation comments.
    pub(crate) fn attributes(&mut self) -> Option<TokenStream> {
        let mut attributes = TokenStream::new();
        while self.peek_punct(0, '#') {
            let length = if self.peek_group(1, Delimiter::Bracket) {
                2
            } else if self.peek_punct(1, '!') && self.peek_group(2, Delimiter::Bracket) {
                3
            } else {
                break;
            };
            attributes.extend((0..length).filter_map(|_| self.next()));
        }
        (!attributes.is_empty()).then_some(attributes)
    }

    /// Splits the remaining tokens at the separators.
    pub(crate) fn split(mut self, separator: char) -> Vec<Self> {
        let mut parts = Vec::new();
        while !self.is_empty() {
            parts.push(self.until(separator));
        }
        parts
    }
}
