//! Tokens → AST. The parser recovers from every mistake: it records the mistake and keeps what it could read.

use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::Parser;

use super::tokens::Tokens;
use crate::{
    errors::Errors,
    printing::{parenthesized, text},
    root::Root,
};

/// The statements of `graph! { .. }`, or of `graph NAME { .. }` inside it.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) state: Option<TokenStream>,
    pub(crate) name: Option<Literal>,
    pub(crate) root: Root,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) compile: Vec<Setting>,
    /// Every use of a node's name, in the order of the text, even if the graph around it is wrong.
    pub(crate) mentions: Vec<Reference>,
    /// `mentions`, and between them the beginnings of paths such as `other::`. Only the editor sees these, because
    /// rustc would report that a module is not a type.
    pub(crate) written: Vec<Reference>,
    /// True if another graph contains this one.
    pub(crate) is_inner: bool,
}

/// `node IDENT = source { options };`, or `graph IDENT { .. }`
pub(crate) struct Binding {
    pub(crate) name: Ident,
    pub(crate) source: Source,
    pub(crate) options: Vec<Setting>,
    /// The option `on_error: NODE`.
    pub(crate) on_error: Option<Reference>,
}

impl Binding {
    fn new(name: Ident, source: Source) -> Self {
        Self { name, source, options: Vec::new(), on_error: None }
    }
}

pub(crate) enum Source {
    /// The handle that `#[node]` made.
    Handle(Reference),
    /// A value that implements `Node`; empty while it is being typed.
    Value(TokenStream),
    /// A graph written in place.
    Graph(Graph),
}

/// `KEY: VALUE`, a call of the builder's method `KEY`.
pub(crate) struct Setting {
    pub(crate) key: Ident,
    pub(crate) value: TokenStream,
}

/// `A -> { B, C } -> match .. { .. }`
#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) stages: Vec<Stage>,
    pub(crate) decision: Option<Decision>,
    /// The value that an arm carries to its first stage, with its parentheses.
    pub(crate) carried: Option<Group>,
}

impl Chain {
    /// Returns the span of the last token.
    pub(crate) fn end(&self) -> Option<Span> {
        if let Some(decision) = &self.decision {
            return Some(decision.braces);
        }
        Some(self.stages.last()?.to_token_stream().into_iter().last()?.span())
    }
}

pub(crate) enum Stage {
    Node(Reference),
    Group(Branches),
}

impl ToTokens for Stage {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Self::Node(reference) => reference.to_tokens(tokens),
            Self::Group(group) => group.braces.to_tokens(tokens),
        }
    }
}

/// `{ B, C -> D }`, `any { B, C }` or `each items { B }`, with its options.
pub(crate) struct Branches {
    pub(crate) kind: BranchesKind,
    /// The tokens of the branches.
    pub(crate) braces: Group,
    pub(crate) chains: Vec<Chain>,
    pub(crate) options: Vec<Setting>,
    /// The option `on_error: NODE`.
    pub(crate) on_error: Option<Reference>,
}

pub(crate) enum BranchesKind {
    All,
    Any,
    /// The items: a function of the state.
    Each {
        keyword: Ident,
        items: TokenStream,
    },
}

/// `match router { PATTERN => chain, .. }`
pub(crate) struct Decision {
    pub(crate) keyword: Ident,
    /// A function of the state. Without it, the decision matches the value that the node before it returned.
    pub(crate) router: Option<TokenStream>,
    pub(crate) arms: Vec<Arm>,
    /// The span of the braces: rustc suggests missing arms there.
    pub(crate) braces: Span,
}

pub(crate) struct Arm {
    /// The pattern and its guard, unparsed: rustc parses and checks them.
    pub(crate) pattern: TokenStream,
    pub(crate) chain: Chain,
}

/// The path of a node, or `START`, `END` or `JOIN`.
#[derive(Clone)]
pub(crate) struct Reference {
    /// A path in type position, without a `::` at its end.
    path: TokenStream,
    /// The last segment.
    pub(crate) name: Ident,
    /// True for one segment without generic arguments, which may name a binding or be a keyword.
    pub(crate) is_plain: bool,
}

impl Reference {
    pub(crate) fn is_start(&self) -> bool {
        self.is_plain && self.name == "START"
    }

    /// Returns new type parameters and the path with these as its generic arguments, or `None` if it has none.
    pub(crate) fn with_own_generics(&self) -> Option<(Vec<Ident>, TokenStream)> {
        let mut parameters = Vec::new();
        let mut path = TokenStream::new();
        let mut tokens = Tokens::new(self.path.clone());
        while !tokens.is_empty() {
            if !tokens.peek_punct(0, '<') {
                path.extend(tokens.next());
                continue;
            }
            let inside: Vec<_> = tokens.generic_arguments().0.into_iter().collect();
            let inside = inside[1..inside.len() - 1].iter().cloned().collect();
            let arguments = Tokens::new(inside).split(',').into_iter().map(|argument| {
                // A literal or a block can only be a constant, which no type parameter replaces.
                if let Some(TokenTree::Literal(_) | TokenTree::Group(_)) = argument.peek() {
                    return argument.all();
                }
                let parameter = Ident::new(&format!("__{}", parameters.len()), Span::mixed_site());
                parameters.push(parameter.clone());
                parameter.to_token_stream()
            });
            path.extend(quote!(<#(#arguments),*>));
        }
        (!parameters.is_empty()).then_some((parameters, path))
    }

    pub(crate) fn is_join(&self) -> bool {
        self.is_plain && self.name == "JOIN"
    }

    /// Returns whether this is a keyword, and no name of a node.
    pub(crate) fn is_keyword(&self) -> bool {
        self.is_start() || self.is_end() || self.is_join()
    }

    pub(crate) fn is_end(&self) -> bool {
        self.is_plain && self.name == "END"
    }

    /// Returns the path as text; references with the same text name the same node.
    pub(crate) fn text(&self) -> String {
        text(&self.path).replace(',', ", ")
    }
}

impl ToTokens for Reference {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.path.to_tokens(tokens);
    }
}

/// The construct that contains a chain, which determines the token that ends the chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Statement,
    /// A branch of a group: the next comma ends it.
    Branch,
    /// An arm of a decision: the next comma ends it.
    Arm,
}

impl Context {
    fn is_over(self, tokens: &Tokens) -> bool {
        tokens.is_empty() || self != Self::Statement && tokens.peek_punct(0, ',')
    }

    fn end(self) -> &'static str {
        match self {
            Self::Statement => "`;`",
            Self::Branch | Self::Arm => "`,`",
        }
    }
}

/// The tokens that can begin a stage, for messages.
const STAGE: &str = "a node, `{ .. }`, `match` or `END`";

impl Graph {
    pub(crate) fn parse(input: TokenStream, errors: &mut Errors) -> Self {
        let mut graph = Self::default();
        graph.statements(Tokens::new(input), errors);
        graph
    }

    fn statements(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        while !tokens.is_empty() {
            if tokens.punct(';').is_some() {
                continue;
            }
            if tokens.peek_word(0, "compile") && tokens.peek_group(1, Delimiter::Brace) {
                self.compile(&mut tokens, errors);
            } else if tokens.peek_word(0, "graph")
                && (tokens.ident_at(1).is_some() || tokens.peek_group(1, Delimiter::Brace))
            {
                self.subgraph(&mut tokens, errors);
            } else {
                self.statement(tokens.until(';'), errors);
            }
        }
    }

    /// `compile { .. }`
    fn compile(&mut self, tokens: &mut Tokens, errors: &mut Errors) {
        let keyword = tokens.next();
        let Some(group) = tokens.group(Delimiter::Brace) else {
            return;
        };
        if self.is_inner {
            errors.spanning(keyword, "`compile` is for the whole graph: write it in the outer graph");
        }
        self.compile.extend(settings(&group, errors));
    }

    /// `graph NAME { .. }`
    fn subgraph(&mut self, tokens: &mut Tokens, errors: &mut Errors) {
        let keyword = tokens.next();
        let name = tokens.ident();
        let braces = tokens.group(Delimiter::Brace);
        if name.is_none() || braces.is_none() {
            let text = match &name {
                Some(name) => format!("expected the graph: `graph {name} {{ A -> END }}`"),
                None => "expected a name: `graph NAME { A -> END }`".to_owned(),
            };
            errors.spanning(keyword, text);
        }
        let mut inner = Self { is_inner: true, root: self.root.clone(), ..Self::default() };
        if let Some(braces) = braces {
            inner.statements(Tokens::new(braces.stream()), errors);
        }
        let Some(name) = name else {
            // A graph without a name is no node, but the names inside it must still resolve.
            self.mentions.append(&mut inner.mentions);
            self.written.append(&mut inner.written);
            return;
        };
        self.bindings.push(Binding::new(name, Source::Graph(inner)));
    }

    fn statement(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        if tokens.peek_word(0, "type") {
            self.state(tokens, errors);
        } else if tokens.peek_word(0, "name") && tokens.peek_punct(1, '=') {
            self.name(tokens, errors);
        } else if tokens.peek_word(0, "crate") && tokens.peek_punct(1, '=') {
            self.root(tokens, errors);
        } else if tokens.peek_word(0, "node") && tokens.ident_at(1).is_some() {
            self.binding(tokens, errors);
        } else if tokens.peek_word(0, "compile") && tokens.nth(1).is_none() {
            errors.spanning(tokens.peek(), "expected options: `compile { shutdown_timeout: 30s }`");
        } else {
            let chain = self.chain(&mut tokens, Context::Statement, errors);
            self.chains.push(chain);
        }
    }

    /// Reports a statement about the whole graph inside an inner graph.
    fn only_outside(&self, keyword: Option<&TokenTree>, errors: &mut Errors) {
        if self.is_inner {
            let word = keyword.to_token_stream();
            errors.spanning(keyword, format!("`{word}` is for the whole graph: write it in the outer graph"));
        }
    }

    /// `type State = TYPE`
    fn state(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let keyword = tokens.next();
        self.only_outside(keyword.as_ref(), errors);
        if tokens.word("State").is_none() || tokens.punct('=').is_none() || tokens.is_empty() {
            errors.spanning(tokens.peek().cloned().or(keyword), "expected `type State = MyState;`");
        } else {
            // The type is not parsed: rustc reports what is not a type, and the editor completes an unfinished one.
            self.state = Some(tokens.rest());
        }
    }

    /// `name = "text"`
    fn name(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let keyword = tokens.next();
        self.only_outside(keyword.as_ref(), errors);
        tokens.next();
        match tokens.next() {
            Some(TokenTree::Literal(literal)) if literal.to_string().starts_with('"') => {
                self.name = Some(literal);
                if let Some(stray) = tokens.next() {
                    errors.at(stray.span(), "expected `;`");
                }
            }
            other => errors.spanning(other.or(keyword), "a graph's name is a string literal: `name = \"support\";`"),
        }
    }

    /// `crate = path`
    fn root(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let statement = tokens.clone().all();
        self.only_outside(tokens.next().as_ref(), errors);
        match Root::parse.parse2(statement.clone()) {
            Ok(root) => self.root = root,
            Err(_) => errors.spanning(statement, "expected a path: `crate = my_crate::agentflow;`"),
        }
    }

    /// `node IDENT = source { options }`
    fn binding(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let keyword = tokens.next();
        let Some(name) = tokens.ident() else { return };
        let equals = tokens.punct('=');
        if equals.is_none() || tokens.is_empty() {
            let wrong = tokens.peek().cloned().or(equals.map(TokenTree::from)).or(keyword);
            errors.spanning(wrong, format!("expected a node: `node {name} = my_node;`"));
            // The binding is kept, so that chains can use its name.
            self.bindings.push(Binding::new(name, Source::Value(TokenStream::new())));
            return;
        }
        let mut as_path = tokens.clone();
        let source = match reference(&mut as_path) {
            Some((reference, dangling)) if starts_options_or_ends(&as_path) => {
                self.mention(&reference, dangling, errors);
                tokens = as_path;
                Source::Handle(reference)
            }
            // In `f A -> B` no expression continues after the path, so a `;` is missing there.
            Some((reference, dangling)) if as_path.ident_at(0).is_some() || as_path.peek_arrow() => {
                self.mention(&reference, dangling, errors);
                errors.spanning(as_path.peek(), "expected `;`");
                self.bindings.push(Binding::new(name, Source::Handle(reference)));
                return;
            }
            _ => Source::Value(tokens.before_last_brace()),
        };
        let (options, on_error) = self.options(tokens.group(Delimiter::Brace), errors);
        self.bindings.push(Binding { name, source, options, on_error });
    }

    /// Splits `{ KEY: VALUE, on_error: NODE }` into the settings and the fallback.
    fn options(&mut self, group: Option<Group>, errors: &mut Errors) -> (Vec<Setting>, Option<Reference>) {
        let mut options = group.map(|group| settings(&group, errors)).unwrap_or_default();
        let on_error = options
            .iter()
            .position(|setting| setting.key == "on_error")
            .and_then(|position| self.fallback(&options.remove(position), errors));
        (options, on_error)
    }

    /// `on_error: NODE`
    fn fallback(&mut self, setting: &Setting, errors: &mut Errors) -> Option<Reference> {
        let mut tokens = Tokens::new(setting.value.clone());
        let found = reference(&mut tokens).filter(|_| tokens.is_empty());
        let Some((reference, dangling)) = found else {
            let wrong = if setting.value.is_empty() { setting.key.to_token_stream() } else { setting.value.clone() };
            errors.spanning(wrong, "expected a node that handles the error: `on_error: RECOVER`");
            return None;
        };
        self.mention(&reference, dangling, errors);
        Some(reference)
    }

    /// `A -> B -> C`
    fn chain(&mut self, tokens: &mut Tokens, context: Context, errors: &mut Errors) -> Chain {
        let mut chain = Chain::default();
        let mut arrow = None;
        loop {
            if context.is_over(tokens) {
                if let Some(arrow) = arrow {
                    errors.spanning(
                        TokenStream::from_iter::<[TokenTree; 2]>(arrow),
                        format!("expected {STAGE} after `->`"),
                    );
                }
                return chain;
            }
            if tokens.peek_word(0, "match") {
                chain.decision = self.decision(tokens, errors);
                if chain.stages.is_empty()
                    && let Some(decision) = &chain.decision
                {
                    errors.spanning(&decision.keyword, "`match` needs a node before it: `A -> match .. { .. }`");
                }
                after_decision(tokens, context, errors);
                return chain;
            }
            chain.stages.extend(self.stage(tokens, errors));
            if context == Context::Arm && chain.stages.len() == 1 && chain.carried.is_none() {
                chain.carried = carried(&chain.stages[0], tokens, errors);
            }
            arrow = tokens.arrow();
            if arrow.is_none() && !context.is_over(tokens) {
                if let (Some(Stage::Node(node)), true) =
                    (chain.stages.last(), tokens.peek_group(0, Delimiter::Parenthesis))
                {
                    let node = node.text();
                    errors.spanning(
                        tokens.next(),
                        format!("only an arm of a `match` carries a value: `PATTERN(value) => {node}(value)`"),
                    );
                    arrow = tokens.arrow();
                    continue;
                }
                if let Some(options) = options_of_a_stage(tokens) {
                    errors.spanning(options, "a node's options belong to its binding: `node NAME = my_node { .. };`");
                    arrow = tokens.arrow();
                    continue;
                }
                errors.spanning(tokens.peek(), format!("expected `->` or {}", context.end()));
                if context == Context::Arm && starts_an_arm(tokens) {
                    return chain;
                }
                skip_to_stage(tokens, context);
            }
        }
    }

    /// Parses one stage. If there is none, reports that and skips the token found instead.
    fn stage(&mut self, tokens: &mut Tokens, errors: &mut Errors) -> Option<Stage> {
        if tokens.peek_word(0, "if") {
            errors.spanning(tokens.next(), "a decision is a `match`: `A -> match router { true => B, false => C }`");
            tokens.while_not(|tokens| tokens.peek_arrow() || tokens.peek_punct(0, ','));
            return None;
        }
        if tokens.peek_word(0, "each") && starts_each(tokens) {
            return self.each(tokens, errors).map(Stage::Group);
        }
        if tokens.peek_word(0, "any") && tokens.peek_group(1, Delimiter::Brace) {
            tokens.next();
            return tokens
                .group(Delimiter::Brace)
                .map(|braces| Stage::Group(self.branches(BranchesKind::Any, braces, tokens, errors)));
        }
        if let Some(braces) = tokens.group(Delimiter::Brace) {
            return Some(Stage::Group(self.branches(BranchesKind::All, braces, tokens, errors)));
        }
        if let Some((reference, dangling)) = reference(tokens) {
            self.mention(&reference, dangling, errors);
            return Some(Stage::Node(reference));
        }
        if tokens.peek_arrow() {
            let arrow = tokens.clone().arrow().map(TokenStream::from_iter::<[TokenTree; 2]>);
            errors.spanning(arrow, format!("expected {STAGE} before `->`"));
        } else {
            errors.spanning(tokens.next(), format!("expected {STAGE}"));
        }
        None
    }

    /// `each items { options } { BRANCH }`
    fn each(&mut self, tokens: &mut Tokens, errors: &mut Errors) -> Option<Branches> {
        let keyword = tokens.ident()?;
        let items = items(tokens);
        if items.is_empty() {
            errors.spanning(&keyword, "expected a function of the state that returns the items: `each items { NODE }`");
        }
        // Options come before the branch, and the branch is the last brace group.
        let settings = if tokens.peek_group(1, Delimiter::Brace) && !starts_settings(tokens, 1) {
            tokens.group(Delimiter::Brace)
        } else {
            None
        };
        let only_settings = settings.is_none() && starts_settings(tokens, 0);
        let braces = tokens.group(Delimiter::Brace);
        let Some(braces) = braces.filter(|_| !only_settings) else {
            errors.spanning(&keyword, format!("expected the branch: `each {} {{ NODE }}`", text(&items)));
            return None;
        };
        let (mut options, on_error) = self.options(settings, errors);
        let keyword_span = keyword.span();
        let mut branches = self.branches(BranchesKind::Each { keyword, items }, braces, tokens, errors);
        for option in std::mem::take(&mut branches.options) {
            if options.iter().any(|before| before.key == option.key) {
                errors.at(option.key.span(), format!("`{}` is set already", option.key));
            }
            options.push(option);
        }
        if let (Some(_), Some(second)) = (&on_error, &branches.on_error) {
            errors.spanning(second, "`on_error` is set already");
        }
        if let [_, second, ..] = &branches.chains[..] {
            let wrong = second.stages.first().map_or_else(|| branches.braces.to_token_stream(), Stage::to_token_stream);
            errors.spanning(
                wrong,
                "`each` has one branch; run several nodes for each item with a group: `each items { { A, B } }`",
            );
        } else if branches.chains.is_empty() {
            errors.at(keyword_span, "`each` needs a branch that runs for each item: `each items { NODE }`");
        }
        Some(Branches { options, on_error: on_error.or(branches.on_error.take()), ..branches })
    }

    /// `{ B, C -> D }`, and the options after it.
    fn branches(&mut self, kind: BranchesKind, braces: Group, after: &mut Tokens, errors: &mut Errors) -> Branches {
        let mut tokens = Tokens::new(braces.stream());
        let mut chains = Vec::new();
        while !tokens.is_empty() {
            let before = errors.count();
            let chain = self.chain(&mut tokens, Context::Branch, errors);
            let comma = tokens.punct(',');
            if chain.stages.is_empty() && chain.decision.is_none() && errors.count() == before {
                errors.spanning(comma, "expected a branch before `,`");
            }
            chains.push(chain);
        }
        // Nothing else in braces follows a group.
        let (options, on_error) = self.options(after.group(Delimiter::Brace), errors);
        Branches { kind, braces, chains, options, on_error }
    }

    /// `match router { PATTERN => chain, .. }`
    fn decision(&mut self, tokens: &mut Tokens, errors: &mut Errors) -> Option<Decision> {
        let keyword = tokens.ident()?;
        let router = tokens.while_not(|tokens| tokens.peek_group(0, Delimiter::Brace) || tokens.peek_punct(0, ','));
        let group = tokens.group(Delimiter::Brace).unwrap_or_else(|| {
            errors.spanning(&keyword, "expected arms: `match router { Route::A => A, Route::B => END }`");
            let mut none = Group::new(Delimiter::Brace, TokenStream::new());
            none.set_span(keyword.span());
            none
        });
        let mut arms = Vec::new();
        let mut inside = Tokens::new(group.stream());
        while !inside.is_empty() {
            let pattern = inside.while_not(|tokens| tokens.peek_fat_arrow() || tokens.peek_punct(0, ','));
            let Some(arrow) = inside.fat_arrow() else {
                let comma = inside.punct(',');
                let wrong = if pattern.is_empty() { comma.to_token_stream() } else { pattern.clone() };
                errors.spanning(wrong, "expected `PATTERN => NODE`");
                // The unfinished pattern is kept for the editor's completion.
                let pattern = Tokens::new(pattern).while_not(Tokens::peek_arrow);
                arms.push(Arm { pattern, chain: Chain::default() });
                continue;
            };
            let arrow = TokenStream::from_iter::<[TokenTree; 2]>(arrow);
            let before = errors.count();
            let chain = self.chain(&mut inside, Context::Arm, errors);
            inside.punct(',');
            if pattern.is_empty() {
                errors.spanning(arrow, "expected a pattern before `=>`");
            } else if chain.stages.is_empty() && errors.count() == before {
                errors.spanning(arrow, "expected a node or `END` after `=>`");
            }
            arms.push(Arm { pattern, chain });
        }
        let router = (!router.is_empty()).then_some(router);
        Some(Decision { keyword, router, arms, braces: group.span() })
    }

    fn mention(&mut self, reference: &Reference, dangling: Option<Dangling>, errors: &mut Errors) {
        self.written.push(reference.clone());
        if let Some((last, expected)) = dangling {
            errors.spanning(last, expected);
        } else {
            self.mentions.push(reference.clone());
        }
    }
}

/// Reports tokens after a decision: an edge cannot lead from all of its arms.
fn after_decision(tokens: &mut Tokens, context: Context, errors: &mut Errors) {
    if !context.is_over(tokens) {
        match tokens.clone().arrow() {
            Some(arrow) => errors.spanning(
                TokenStream::from_iter::<[TokenTree; 2]>(arrow),
                "nothing can follow a `match`: write what follows inside its arms, `PATTERN => A -> B`",
            ),
            None => errors.spanning(tokens.peek(), format!("expected {} after the `match`", context.end())),
        }
        if context == Context::Arm && starts_an_arm(tokens) {
            return;
        }
        tokens.while_not(|tokens| context.is_over(tokens));
    }
}

/// Takes the value that an arm carries to its node: the parentheses behind the node.
fn carried(stage: &Stage, tokens: &mut Tokens, errors: &mut Errors) -> Option<Group> {
    let group = tokens.group(Delimiter::Parenthesis)?;
    match stage {
        Stage::Node(node) if node.is_keyword() => {
            errors.spanning(&group, format!("`{}` takes no value", node.name));
            None
        }
        Stage::Node(node) if group.stream().is_empty() => {
            let node = node.text();
            errors.spanning(&group, format!("expected the value that the edge carries: `{node}(value)`, or `{node}`"));
            None
        }
        Stage::Node(_) => Some(group),
        Stage::Group(_) => {
            errors.spanning(&group, "expected `->` or `,`");
            None
        }
    }
}

/// Returns whether `each` begins a stage. It is the name of a node where `->`, `,` or the end follows.
fn starts_each(tokens: &Tokens) -> bool {
    match tokens.nth(1) {
        Some(TokenTree::Ident(_) | TokenTree::Group(_)) => true,
        Some(TokenTree::Punct(punct)) => punct.as_char() == '|' || punct.as_char() == '&',
        Some(TokenTree::Literal(_)) | None => false,
    }
}

/// Takes the items of an `each`: all before its braces. A closure may have a body in braces of its own, and a function
/// several generic arguments.
fn items(tokens: &mut Tokens) -> TokenStream {
    let mut items = TokenStream::new();
    let mut after_pipe = false;
    while !tokens.is_empty() && !tokens.peek_punct(0, ',') {
        if after_pipe && tokens.peek_arrow() {
            items.extend(tokens.arrow().into_iter().flatten());
            items.extend(tokens.while_not(|tokens| tokens.peek_group(0, Delimiter::Brace) || tokens.peek_arrow()));
            items.extend(tokens.group(Delimiter::Brace));
            break;
        }
        if tokens.peek_arrow() {
            break;
        }
        if tokens.peek_group(0, Delimiter::Brace) {
            // `|state| { NODE }` without a further pair of braces is a closure without a body.
            if after_pipe && tokens.peek_group(1, Delimiter::Brace) {
                items.extend(tokens.next());
            }
            break;
        }
        after_pipe = tokens.peek_punct(0, '|');
        if let Some(separator) = tokens.path_separator() {
            items.extend(separator);
            if tokens.peek_punct(0, '<') {
                items.extend(tokens.generic_arguments().0);
            }
        } else {
            items.extend(tokens.next());
        }
    }
    items
}

/// Returns whether the braces at this place hold `KEY: VALUE`.
fn starts_settings(tokens: &Tokens, n: usize) -> bool {
    let Some(TokenTree::Group(group)) = tokens.nth(n) else { return false };
    let inside = Tokens::new(group.stream());
    inside.ident_at(0).is_some() && inside.peek_punct(1, ':') && !inside.peek_punct(2, ':')
}

/// Takes `{ KEY: VALUE, .. }` after a stage. The branches of a group have no `KEY:`.
fn options_of_a_stage(tokens: &mut Tokens) -> Option<Group> {
    if starts_settings(tokens, 0) { tokens.group(Delimiter::Brace) } else { None }
}

/// Returns true if a pattern and its `=>` come before the next comma.
fn starts_an_arm(tokens: &Tokens) -> bool {
    let mut tokens = tokens.clone();
    tokens.while_not(|tokens| tokens.peek_fat_arrow() || tokens.peek_punct(0, ','));
    tokens.peek_fat_arrow()
}

fn starts_options_or_ends(tokens: &Tokens) -> bool {
    tokens.is_empty() || tokens.peek_group(0, Delimiter::Brace) && tokens.nth(1).is_none()
}

/// Skips tokens that cannot begin a stage, and the arrow after them.
fn skip_to_stage(tokens: &mut Tokens, context: Context) {
    tokens.while_not(|tokens| {
        context.is_over(tokens)
            || tokens.peek_arrow()
            || tokens.ident_at(0).is_some()
            || tokens.peek_group(0, Delimiter::Brace)
    });
    tokens.arrow();
}

/// The last token of a path that is still being typed, and the token expected there.
type Dangling = (TokenTree, &'static str);

/// Takes a path in type position. It omits a `::` at the end, and closes a `<` that is not closed.
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
            // `a<T>` and `a::<T>` are one node, and only the second form is also an expression.
            path.extend(quote!(::));
            let open = tokens.peek().cloned();
            let (arguments, is_closed) = tokens.generic_arguments();
            path.extend(arguments);
            is_plain = false;
            if !is_closed {
                dangling = open.map(|open| (open, "expected a `>` that closes this `<`"));
                break;
            }
        } else if let Some([first, second]) = tokens.path_separator() {
            if let Some(segment) = tokens.ident() {
                path.extend([first, second]);
                path.extend(segment.to_token_stream());
                name = segment;
                is_plain = false;
            } else if !tokens.peek_punct(0, '<') {
                dangling = Some((second, "expected a name after `::`"));
                break;
            }
        } else {
            break;
        }
    }
    Some((Reference { path, name, is_plain }, dangling))
}

/// `{ KEY: VALUE, KEY }`
fn settings(group: &Group, errors: &mut Errors) -> Vec<Setting> {
    let mut settings = Vec::new();
    for mut tokens in Tokens::new(group.stream()).split(',') {
        let Some(key) = tokens.ident() else {
            if !tokens.is_empty() {
                errors.spanning(tokens.peek(), "expected an option: `KEY: VALUE`");
            }
            continue;
        };
        if settings.iter().any(|setting: &Setting| setting.key == key) {
            errors.at(key.span(), format!("`{key}` is set already"));
        } else if tokens.is_empty() {
            settings.push(Setting { key, value: TokenStream::new() });
        } else if let Some(colon) = tokens.punct(':') {
            // `fallback` reports a missing value of `on_error`.
            if tokens.is_empty() && key != "on_error" {
                errors.at(colon.span(), format!("expected a value after `{key}:`"));
            }
            settings.push(Setting { key, value: value(tokens.rest()) });
        } else {
            errors.spanning(tokens.peek(), format!("expected `:` and a value after `{key}`"));
        }
    }
    settings
}

/// Replaces a duration such as `30s` by an expression; other values are expressions.
fn value(tokens: TokenStream) -> TokenStream {
    let mut tokens = Tokens::new(tokens);
    let duration = match (tokens.next(), tokens.is_empty()) {
        (Some(TokenTree::Literal(literal)), true) => duration(&literal),
        _ => None,
    };
    duration.unwrap_or_else(|| tokens.all())
}

/// Converts `30s`, `1.5s`, `200ms`, `5m` or `1h` to an expression. Rust's lexer makes one token of a number and its
/// suffix.
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
    let mut nanos_per_digit = nanos_per_unit;
    for digit in fraction.chars() {
        nanos_per_digit /= 10;
        nanos = nanos.checked_add(u64::from(digit.to_digit(10)?) * nanos_per_digit)?;
    }
    let nanos = Literal::u64_suffixed(nanos);
    // rustc derives the span of an expression from its first and last token, and ignores parentheses there. With a `*`
    // in front, errors about the expression are reported at the literal.
    let expression = parenthesized(literal.span(), quote!(&::core::time::Duration::from_nanos(#nanos)));
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
        let from_nanos = |nanos: &str| Some(format!("* (& :: core :: time :: Duration :: from_nanos ({nanos}u64))"));
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
