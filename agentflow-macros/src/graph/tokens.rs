//! [`Tokens`]: a cursor over token trees that never gives up.
//!
//! syn's parsers stop at the first token they don't expect; a graph that is being typed is wrong most of the time and
//! must be read to its end all the same.

use proc_macro2::{Delimiter, Group, Ident, Punct, Spacing, TokenStream, TokenTree};

#[derive(Clone)]
pub(crate) struct Tokens {
    list: Vec<TokenTree>,
    at: usize,
}

impl Tokens {
    pub(crate) fn new(stream: TokenStream) -> Self {
        Self {
            list: stream.into_iter().collect(),
            at: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.list.len()
    }

    pub(crate) fn peek(&self) -> Option<&TokenTree> {
        self.list.get(self.at)
    }

    pub(crate) fn next(&mut self) -> Option<TokenTree> {
        let token = self.list.get(self.at).cloned();
        self.at += usize::from(token.is_some());
        token
    }

    /// Everything, what was taken too.
    pub(crate) fn all(self) -> TokenStream {
        self.list.into_iter().collect()
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> TokenStream {
        let rest = self.list[self.at.min(self.list.len())..]
            .iter()
            .cloned()
            .collect();
        self.at = self.list.len();
        rest
    }

    pub(crate) fn nth(&self, n: usize) -> Option<&TokenTree> {
        self.list.get(self.at + n)
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
        if self.peek_word(0, word) {
            self.ident()
        } else {
            None
        }
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

    /// `::`
    pub(crate) fn peek_path_separator(&self) -> bool {
        self.punct_at(0, ':')
            .is_some_and(|punct| punct.spacing() == Spacing::Joint)
            && self.punct_at(1, ':').is_some()
    }

    pub(crate) fn path_separator(&mut self) -> Option<[TokenTree; 2]> {
        if !self.peek_path_separator() {
            return None;
        }
        Some([self.next()?, self.next()?])
    }

    pub(crate) fn peek_arrow(&self) -> bool {
        self.arrow_at(0)
    }

    fn arrow_at(&self, n: usize) -> bool {
        self.punct_at(n, '-')
            .is_some_and(|punct| punct.spacing() == Spacing::Joint)
            && self.punct_at(n + 1, '>').is_some()
    }

    /// `->`
    pub(crate) fn arrow(&mut self) -> Option<[TokenTree; 2]> {
        if !self.arrow_at(0) {
            return None;
        }
        Some([self.next()?, self.next()?])
    }

    /// The tokens up to `end`, which is taken too; all that is left where it doesn't come.
    pub(crate) fn until(&mut self, end: char) -> Self {
        let start = self.at;
        while !self.is_empty() && !self.peek_punct(0, end) {
            self.at += 1;
        }
        let list = self.list[start..self.at].to_vec();
        self.punct(end);
        Self { list, at: 0 }
    }

    /// What stands between the commas.
    pub(crate) fn split(mut self, separator: char) -> Vec<Self> {
        let mut parts = Vec::new();
        while !self.is_empty() {
            parts.push(self.until(separator));
        }
        parts
    }
}
