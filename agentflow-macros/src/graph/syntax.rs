//! Tokens → AST. Reads to the end whatever comes: a mistake is noted, what can be made of it is kept.

use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};

use super::tokens::Tokens;
use crate::{errors::Errors, root::Root};

/// What stands between the braces of `graph! { .. }`.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) state: Option<TokenStream>,
    pub(crate) name: Option<Literal>,
    pub(crate) root: Root,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) compile: Vec<Setting>,
    /// Every place where a node is named, in the order of the text, also where the graph around it is wrong.
    pub(crate) mentions: Vec<Reference>,
    /// The beginnings of paths such as `other::`. For the editor only: a module in a node's place is an error more.
    pub(crate) half_typed: Vec<Reference>,
}

/// `node IDENT = source;`
pub(crate) struct Binding {
    pub(crate) name: Ident,
    pub(crate) source: Source,
}

impl Binding {
    /// What stands behind the `=`, where it is not a handle.
    pub(crate) fn value(&self) -> Option<&TokenStream> {
        match &self.source {
            Source::Value(tokens) => Some(tokens),
            Source::Handle(_) => None,
        }
    }
}

pub(crate) enum Source {
    /// The handle that `#[node]` made.
    Handle(Reference),
    /// A value that implements `Node`.
    Value(TokenStream),
}

/// `KEY: VALUE`, a call of the builder's method `KEY`.
pub(crate) struct Setting {
    pub(crate) key: Ident,
    pub(crate) value: TokenStream,
}

/// `A -> B -> C`
#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) stages: Vec<Reference>,
}

/// A node's path as it was written, or `START` or `END`.
#[derive(Clone)]
pub(crate) struct Reference {
    /// A path in type position, without a `::` at its end.
    path: TokenStream,
    /// The last segment.
    pub(crate) name: Ident,
    /// One segment without generic arguments: it may stand for a binding, `START` or `END`.
    pub(crate) is_plain: bool,
}

impl Reference {
    pub(crate) fn is_start(&self) -> bool {
        self.is_plain && self.name == "START"
    }

    pub(crate) fn is_end(&self) -> bool {
        self.is_plain && self.name == "END"
    }

    /// Two references with one text are one node.
    pub(crate) fn text(&self) -> String {
        self.path.to_string().replace(' ', "")
    }
}

impl ToTokens for Reference {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.path.to_tokens(tokens);
    }
}

impl Graph {
    pub(crate) fn parse(input: TokenStream, errors: &mut Errors) -> Self {
        let mut graph = Self::default();
        let mut tokens = Tokens::new(input);
        while !tokens.is_empty() {
            if tokens.punct(';').is_some() {
                continue;
            }
            if tokens.peek_word(0, "compile") && tokens.peek_group(1, Delimiter::Brace) {
                tokens.next();
                if let Some(group) = tokens.group(Delimiter::Brace) {
                    graph.compile.extend(settings(&group, errors));
                }
                continue;
            }
            graph.statement(tokens.until(';'), errors);
        }
        graph
    }

    fn statement(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        if let Some(keyword) = tokens.word("type") {
            self.state(keyword.span(), tokens, errors);
        } else if tokens.peek_word(0, "name") && tokens.peek_punct(1, '=') {
            self.name(tokens, errors);
        } else if tokens.peek_word(0, "crate") && tokens.peek_punct(1, '=') {
            self.root(tokens, errors);
        } else if tokens.peek_word(0, "node") && tokens.ident_at(1).is_some() {
            self.binding(tokens, errors);
        } else if tokens.peek_word(0, "compile") && tokens.nth(1).is_none() {
            errors.spanning(
                tokens.peek(),
                "expected options: `compile { shutdown_timeout: 30s }`",
            );
        } else {
            self.chain(tokens, errors);
        }
    }

    /// `type State = TYPE`
    fn state(&mut self, keyword: Span, mut tokens: Tokens, errors: &mut Errors) {
        if tokens.word("State").is_none() || tokens.punct('=').is_none() || tokens.is_empty() {
            let span = tokens.peek().map_or(keyword, TokenTree::span);
            errors.at(span, "expected `type State = MyState;`");
        } else {
            // Not parsed: what is no type is rustc's to say, and the editor completes what is half of one.
            self.state = Some(tokens.rest());
        }
    }

    /// `name = "text"`
    fn name(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let keyword = tokens
            .next()
            .map_or_else(Span::call_site, |keyword| keyword.span());
        tokens.next();
        match tokens.next() {
            Some(TokenTree::Literal(literal)) if literal.to_string().starts_with('"') => {
                self.name = Some(literal);
                if let Some(stray) = tokens.next() {
                    errors.at(stray.span(), "expected `;`");
                }
            }
            other => {
                let span = other.map_or(keyword, |token| token.span());
                errors.at(span, "a graph's name is a text: `name = \"support\";`");
            }
        }
    }

    /// `crate = path`
    fn root(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let statement = tokens.clone().all();
        tokens.next();
        tokens.next();
        match syn::parse2(tokens.rest()) {
            Ok(path) => self.root = Root(Some(path)),
            Err(_) => errors.spanning(statement, "expected a path: `crate = my_crate::agentflow;`"),
        }
    }

    /// `node IDENT = source`
    fn binding(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let keyword = tokens.next();
        let Some(name) = tokens.ident() else { return };
        let span = keyword.map_or_else(Span::call_site, |keyword| keyword.span());
        let equals = tokens.punct('=');
        if equals.is_none() || tokens.is_empty() {
            let span = equals.map_or(span, |equals| equals.span());
            let span = tokens.peek().map_or(span, TokenTree::span);
            errors.at(span, format!("expected a node: `node {name} = my_node;`"));
            // The name is known all the same.
            let source = Source::Value(TokenStream::new());
            self.bindings.push(Binding { name, source });
            return;
        }
        let source = tokens.rest();
        let mut as_path = Tokens::new(source.clone());
        let source = match reference(&mut as_path) {
            Some((reference, dangling)) if as_path.is_empty() => {
                self.mention(&reference, dangling, errors);
                Source::Handle(reference)
            }
            // `f A -> B`: a path, and something behind it that no expression goes on with.
            Some((reference, dangling)) if as_path.ident_at(0).is_some() || as_path.peek_arrow() => {
                self.mention(&reference, dangling, errors);
                errors.at(as_path.peek().map_or(span, TokenTree::span), "expected `;`");
                Source::Handle(reference)
            }
            _ => Source::Value(source),
        };
        self.bindings.push(Binding { name, source });
    }

    /// `A -> B -> C`
    fn chain(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let mut chain = Chain::default();
        let mut arrow = None;
        loop {
            match reference(&mut tokens) {
                Some((reference, dangling)) => {
                    self.mention(&reference, dangling, errors);
                    chain.stages.push(reference);
                }
                None => missing_stage(&mut tokens, arrow, errors),
            }
            arrow = tokens.arrow();
            if arrow.is_some() {
                continue;
            }
            let Some(stray) = tokens.peek() else { break };
            errors.at(stray.span(), "expected `->` or `;`");
            skip_to_stage(&mut tokens);
            if tokens.is_empty() {
                break;
            }
        }
        self.chains.push(chain);
    }

    fn mention(&mut self, reference: &Reference, dangling: Option<Dangling>, errors: &mut Errors) {
        if let Some((at, expected)) = dangling {
            errors.at(at, expected);
            self.half_typed.push(reference.clone());
        } else {
            self.mentions.push(reference.clone());
        }
    }
}

/// Says what is missing where a node should stand, and takes what stands there instead.
fn missing_stage(tokens: &mut Tokens, arrow: Option<[TokenTree; 2]>, errors: &mut Errors) {
    const EXPECTED: &str = "expected a node or `END`";
    let spanned = |arrow: [TokenTree; 2]| TokenStream::from_iter(arrow);
    match (tokens.peek(), arrow) {
        (None, Some(arrow)) => errors.spanning(spanned(arrow), format!("{EXPECTED} after `->`")),
        (Some(_), _) if tokens.peek_arrow() => {
            let arrow = tokens.clone().arrow().map(spanned);
            errors.spanning(arrow, format!("{EXPECTED} before `->`"));
        }
        (Some(stray), _) => {
            errors.at(stray.span(), EXPECTED);
            tokens.next();
        }
        (None, None) => {}
    }
}

/// Takes what can begin no stage, up to the next arrow.
fn skip_to_stage(tokens: &mut Tokens) {
    while !tokens.is_empty() && !tokens.peek_arrow() && tokens.ident_at(0).is_none() {
        tokens.next();
    }
    tokens.arrow();
}

/// Where a path ends that is still being typed, and what is expected there.
type Dangling = (Span, &'static str);

/// A path in type position. A `::` at its end is left out, and a `<` that is not closed is closed.
fn reference(tokens: &mut Tokens) -> Option<(Reference, Option<Dangling>)> {
    let mut path = TokenStream::new();
    let mut is_plain = true;
    if tokens.peek_path_separator() && tokens.ident_at(2).is_some() {
        path.extend(tokens.path_separator().into_iter().flatten());
        is_plain = false;
    }
    let mut name = tokens.ident()?;
    path.extend(name.to_token_stream());
    let mut dangling = None;
    loop {
        if tokens.peek_punct(0, '<') {
            // Written with `::` or without, it is one node; and as an expression it needs the `::`.
            path.extend(quote!(::));
            let open = tokens.peek().map(TokenTree::span);
            let (arguments, is_closed) = generic_arguments(tokens);
            path.extend(arguments);
            is_plain = false;
            if !is_closed {
                dangling = open.map(|open| (open, "expected a `>` that closes this `<`"));
                break;
            }
        } else if let Some(separator) = tokens.path_separator() {
            if let Some(segment) = tokens.ident() {
                path.extend(separator);
                path.extend(segment.to_token_stream());
                name = segment;
                is_plain = false;
            } else if !tokens.peek_punct(0, '<') {
                dangling = separator
                    .last()
                    .map(|end| (end.span(), "expected a name after `::`"));
                break;
            }
        } else {
            break;
        }
    }
    Some((Reference { path, name, is_plain }, dangling))
}

/// `<A, B<C>>`, and whether it was closed.
fn generic_arguments(tokens: &mut Tokens) -> (TokenStream, bool) {
    let mut arguments = TokenStream::new();
    let mut depth = 0_usize;
    let mut after_parentheses = false;
    loop {
        if tokens.peek_arrow() {
            // `fn(A) -> B` goes on; without parentheses it is the graph's arrow.
            if !after_parentheses {
                break;
            }
            arguments.extend(tokens.arrow().into_iter().flatten());
        }
        after_parentheses = tokens.peek_group(0, Delimiter::Parenthesis);
        let Some(token) = tokens.next() else { break };
        if let TokenTree::Punct(punct) = &token {
            match punct.as_char() {
                '<' => depth += 1,
                '>' => depth -= 1,
                _ => {}
            }
        }
        arguments.extend([token]);
        if depth == 0 {
            return (arguments, true);
        }
    }
    arguments.extend((0..depth).map(|_| quote!(>)));
    (arguments, false)
}

/// `{ KEY: VALUE, KEY }`
fn settings(group: &Group, errors: &mut Errors) -> Vec<Setting> {
    let mut settings = Vec::new();
    for mut tokens in Tokens::new(group.stream()).split(',') {
        let Some(key) = tokens.ident() else {
            if let Some(stray) = tokens.peek() {
                errors.at(stray.span(), "expected an option: `shutdown_timeout: 30s`");
            }
            continue;
        };
        if tokens.is_empty() {
            settings.push(Setting {
                key,
                value: TokenStream::new(),
            });
        } else if let Some(colon) = tokens.punct(':') {
            if tokens.is_empty() {
                errors.at(colon.span(), format!("expected a value after `{key}:`"));
            }
            settings.push(Setting {
                key,
                value: value(tokens.rest()),
            });
        } else if let Some(stray) = tokens.peek() {
            errors.at(stray.span(), format!("expected `:` and a value after `{key}`"));
        }
    }
    settings
}

/// A duration such as `30s` becomes an expression; everything else is one already.
fn value(tokens: TokenStream) -> TokenStream {
    let mut tokens = Tokens::new(tokens);
    let duration = match (tokens.next(), tokens.is_empty()) {
        (Some(TokenTree::Literal(literal)), true) => duration(&literal),
        _ => None,
    };
    duration.unwrap_or_else(|| tokens.all())
}

/// `30s`, `1.5s`, `200ms`, `5m`, `1h`: one token each, because Rust reads a suffix with its number.
fn duration(literal: &Literal) -> Option<TokenStream> {
    let text = literal.to_string();
    let start = text.find(|char: char| char.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(start);
    let nanos_per_unit: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    let mut nanos = whole.parse::<u64>().ok()?.checked_mul(nanos_per_unit)?;
    let mut place = nanos_per_unit;
    for digit in fraction.chars() {
        place /= 10;
        nanos = nanos.checked_add(u64::from(digit.to_digit(10)?) * place)?;
    }
    let nanos = Literal::u64_suffixed(nanos);
    // rustc takes an expression to stand where its first and last token do: what is wrong with it is shown at the
    // literal. Parentheses alone don't count.
    let mut expression = Group::new(
        Delimiter::Parenthesis,
        quote!(&__af::Duration::from_nanos(#nanos)),
    );
    expression.set_span(literal.span());
    Some(quote_spanned!(literal.span()=> *#expression))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str) -> Option<String> {
        duration(&text.parse().expect("a literal")).map(|tokens| tokens.to_string())
    }

    #[test]
    fn durations_are_numbers_with_a_unit() {
        let from_nanos = |nanos: &str| Some(format!("* (& __af :: Duration :: from_nanos ({nanos}u64))"));
        assert_eq!(nanos("30s"), from_nanos("30000000000"));
        assert_eq!(nanos("1.5s"), from_nanos("1500000000"));
        assert_eq!(nanos("200ms"), from_nanos("200000000"));
        assert_eq!(nanos("1_000ms"), from_nanos("1000000000"));
        assert_eq!(nanos("5m"), from_nanos("300000000000"));
        assert_eq!(nanos("1h"), from_nanos("3600000000000"));
        assert_eq!(nanos("0s"), from_nanos("0"));
    }

    #[test]
    fn other_literals_are_left_to_rustc() {
        assert_eq!(nanos("50"), None);
        assert_eq!(nanos("30x"), None);
        assert_eq!(nanos("1u8"), None);
        assert_eq!(nanos("99999999999999h"), None);
    }
}
