//! Tokens → AST. The parser recovers from every mistake: it records the mistake and keeps what it could read.

use proc_macro2::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream, Parser};

use super::{
    options::{self, Keys, Setting, settings},
    tokens::Tokens,
};
use crate::{errors::Errors, printing::text, root::Root};

/// The statements of `graph! { .. }`, or of `graph NAME { .. }` inside it.
#[derive(Default)]
pub(crate) struct Graph {
    pub(crate) state: Option<TokenStream>,
    pub(crate) name: Option<Literal>,
    pub(crate) root: Root,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) compile: Vec<Setting>,
    /// The durable tasks that the app runs.
    pub(crate) tasks: Vec<Reference>,
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
    /// Returns the option `store` of `compile`.
    pub(crate) fn store(&self) -> Option<&Setting> {
        self.compile.iter().find(|setting| setting.key == "store")
    }

    pub(crate) fn parse(input: TokenStream, errors: &mut Errors) -> Self {
        let mut graph = Self::default();
        graph.statements(Tokens::new(input), errors);
        graph
    }

    fn statements(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        while !tokens.is_empty() {
            refuse_attributes(&mut tokens, errors);
            if tokens.punct(';').is_some() {
                continue;
            }
            if tokens.peek_word(0, "compile") && tokens.peek_group(1, Delimiter::Brace) {
                self.compile(&mut tokens, errors);
            } else if tokens.peek_word(0, "tasks") && tokens.peek_group(1, Delimiter::Brace) {
                self.tasks(&mut tokens, errors);
            } else if tokens.peek_word(0, "graph")
                && (tokens.ident_at(1).is_some() || tokens.peek_group(1, Delimiter::Brace))
            {
                self.subgraph(&mut tokens, errors);
            } else if (tokens.peek_word(0, "subgraph") || tokens.peek_word(0, "mod"))
                && tokens.ident_at(1).is_some()
                && tokens.peek_group(2, Delimiter::Brace)
            {
                let name = tokens.ident_at(1).to_token_stream();
                errors.spanning(
                    tokens.peek(),
                    format!("a graph inside a graph is written `graph {name} {{ A -> END }}`"),
                );
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
        self.compile.extend(settings(&group, &options::OF_GRAPH, errors));
    }

    /// `tasks { PATH, PATH }`
    fn tasks(&mut self, tokens: &mut Tokens, errors: &mut Errors) {
        let keyword = tokens.next();
        self.only_outside(keyword.as_ref(), errors);
        let Some(group) = tokens.group(Delimiter::Brace) else { return };
        for mut inside in Tokens::new(group.stream()).split(',') {
            refuse_attributes(&mut inside, errors);
            let Some((task, dangling)) = reference(&mut inside) else {
                if !inside.is_empty() {
                    errors.spanning(inside.peek(), "expected a durable task: `tasks { deliver }`");
                }
                continue;
            };
            self.written.push(task.clone());
            if let Some((last, expected)) = dangling {
                errors.spanning(last, expected);
            } else if !inside.is_empty() {
                errors.spanning(inside.peek(), "expected `,`");
            } else if self.tasks.iter().any(|other| other.text() == task.text()) {
                errors.spanning(&task, format!("`{}` is registered already", task.text()));
            } else if !self.is_inner {
                self.tasks.push(task);
            }
        }
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
            let keyword = tokens.next();
            self.binding(tokens, keyword, errors);
        } else if tokens.peek_word(0, "compile")
            && (tokens.nth(1).is_none() || tokens.peek_group(1, Delimiter::Parenthesis) || starts_assignment(&tokens))
        {
            errors.spanning(tokens.peek(), "expected options: `compile { shutdown_timeout: 30s }`");
        } else if tokens.peek_word(0, "tasks")
            && (tokens.nth(1).is_none()
                || tokens.peek_group(1, Delimiter::Parenthesis)
                || tokens.peek_group(1, Delimiter::Bracket)
                || starts_assignment(&tokens))
        {
            errors.spanning(tokens.peek(), "expected the durable tasks of the app: `tasks { deliver }`");
        } else if tokens.peek_word(0, "name")
            && (starts_assignment(&tokens) || matches!(tokens.nth(1), Some(TokenTree::Literal(_))))
        {
            errors.spanning(tokens.nth(1), "a graph's name is a string literal: `name = \"support\";`");
        } else if (tokens.peek_word(0, "state") || tokens.peek_word(0, "State")) && starts_assignment(&tokens) {
            errors.spanning(tokens.peek(), "expected `type State = MyState;`");
        } else if tokens.ident_at(0).is_some_and(|word| ["let", "const", "static"].iter().any(|other| word == other)) {
            self.named_in_rust(tokens, errors);
        } else if tokens.ident_at(0).is_some() && starts_assignment(&tokens) && tokens.peek_punct(1, '=') {
            let name = tokens.peek().to_token_stream();
            let wrong = tokens.peek().cloned();
            if tokens.peek_word(0, "node") {
                errors.spanning(wrong, "expected a name: `node NAME = my_node;`");
            } else {
                errors.spanning(wrong, format!("a node gets a name with `node`: `node {name} = my_node;`"));
                self.named_without_node(tokens);
            }
        } else {
            let chain = self.chain(&mut tokens, Context::Statement, errors);
            self.chains.push(chain);
        }
    }

    /// `let NAME = source`: reports the keyword, and binds the name, so that chains can use it.
    fn named_in_rust(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let keyword = tokens.next();
        tokens.word("mut");
        let name = tokens.peek().filter(|_| tokens.ident_at(0).is_some());
        let name = name.map_or_else(|| "NAME".to_owned(), ToString::to_string);
        errors.spanning(keyword, format!("a node gets a name with `node`: `node {name} = my_node;`"));
        self.named_without_node(tokens);
    }

    /// `NAME = source`, which is reported: binds the name, so that chains can use it.
    fn named_without_node(&mut self, mut tokens: Tokens) {
        let mut muted = Errors::new();
        let Some(name) = tokens.ident() else { return };
        let reference_of_name = Reference { path: name.to_token_stream(), name: name.clone(), is_plain: true };
        self.mention(&reference_of_name, None, &mut muted);
        tokens.punct('=');
        let mut source = Source::Value(TokenStream::new());
        if let Some((reference, dangling)) = reference(&mut tokens) {
            if follows_a_handle(&tokens) {
                self.mention(&reference, dangling, &mut muted);
                source = Source::Handle(reference);
            } else {
                self.written.push(reference);
            }
        }
        self.bindings.push(Binding::new(name, source));
        let chain = self.chain(&mut tokens, Context::Statement, &mut muted);
        self.chains.push(chain);
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
            if self.state.is_some() {
                errors.spanning(keyword, "`type State` is given already");
                return;
            }
            // rustc reports what is not a type, and the editor completes an unfinished one.
            let written = tokens.rest();
            match split_code::<syn::Type>(&written) {
                Some((state, rest)) if !rest.is_empty() => {
                    self.state = Some(state);
                    self.missing_semicolon(rest, errors);
                }
                _ => self.state = Some(written),
            }
        }
    }

    /// Reports tokens after the end of a statement, and reads them as a statement.
    fn missing_semicolon(&mut self, rest: TokenStream, errors: &mut Errors) {
        let mut tokens = Tokens::new(rest);
        let is_option = tokens.peek_punct(0, ',') && tokens.ident_at(1).is_some() && tokens.peek_punct(2, ':');
        let text = if is_option { "options stand in braces: `node NAME = my_node { .. };`" } else { "expected `;`" };
        errors.spanning(tokens.peek(), text);
        tokens.punct(',');
        self.statement(tokens, &mut Errors::new());
    }

    /// `name = "text"`
    fn name(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let keyword = tokens.next();
        self.only_outside(keyword.as_ref(), errors);
        tokens.next();
        tokens.open_fragment();
        if self.name.is_some() {
            errors.spanning(keyword, "`name` is given already");
            return;
        }
        match tokens.next() {
            Some(TokenTree::Literal(literal)) if literal.to_string().starts_with('"') => {
                self.name = Some(literal);
                if !tokens.is_empty() {
                    self.missing_semicolon(tokens.rest(), errors);
                }
            }
            other => errors.spanning(other.or(keyword), "a graph's name is a string literal: `name = \"support\";`"),
        }
    }

    /// `crate = path`
    fn root(&mut self, mut tokens: Tokens, errors: &mut Errors) {
        let statement = tokens.clone().all();
        let keyword = tokens.next();
        self.only_outside(keyword.as_ref(), errors);
        if self.root.0.is_some() && !self.is_inner {
            errors.spanning(keyword, "`crate` is given already");
            return;
        }
        match Root::parse.parse2(statement.clone()) {
            Ok(root) => self.root = root,
            Err(_) => errors.spanning(statement, "expected a path: `crate = my_crate::agentflow;`"),
        }
    }

    /// `node IDENT = source { options }`, without the keyword.
    fn binding(&mut self, mut tokens: Tokens, keyword: Option<TokenTree>, errors: &mut Errors) {
        let Some(name) = tokens.ident() else { return };
        let equals = tokens.punct('=');
        if equals.is_none() || tokens.is_empty() {
            let wrong = tokens.peek().cloned().or(equals.map(TokenTree::from)).or(keyword);
            errors.spanning(wrong, format!("expected a node: `node {name} = my_node;`"));
            // The binding is kept, so that chains can use its name.
            self.bindings.push(Binding::new(name, Source::Value(TokenStream::new())));
            return;
        }
        if let Some(word) = tokens.ident_at(0)
            && ["if", "match", "unsafe", "loop", "while", "for", "async"].iter().any(|other| word == other)
        {
            errors.at(
                word.span(),
                format!("a value that ends in braces goes in parentheses: `node {name} = ({word} ..);`"),
            );
            self.bindings.push(Binding::new(name, Source::Value(TokenStream::new())));
            return;
        }
        let mut as_path = tokens.clone();
        let (source, options) = match reference(&mut as_path) {
            Some((reference, dangling)) if follows_a_handle(&as_path) => {
                self.mention(&reference, dangling, errors);
                tokens = as_path;
                let options = tokens.group(Delimiter::Brace);
                let options = options.filter(|options| !is_struct_literal(&name, &reference, options, errors));
                (Source::Handle(reference), options)
            }
            _ => {
                let value = tokens.before_last_brace();
                let mut options = tokens.group(Delimiter::Brace);
                let value = match split_code::<syn::Expr>(&value) {
                    Some((value, rest)) if !rest.is_empty() => {
                        tokens = Tokens::new(rest.into_iter().chain(options.take().map(TokenTree::from)).collect());
                        options = options_of_a_stage(&mut tokens);
                        value
                    }
                    _ => value,
                };
                (Source::Value(value), options)
            }
        };
        let (options, on_error) = self.options(options, &options::OF_NODE, errors);
        self.bindings.push(Binding { name, source, options, on_error });
        if !tokens.is_empty() {
            self.missing_semicolon(tokens.rest(), errors);
        }
    }

    /// Splits `{ KEY: VALUE, on_error: NODE }` into the settings and the fallback.
    fn options(&mut self, group: Option<Group>, keys: &Keys, errors: &mut Errors) -> (Vec<Setting>, Option<Reference>) {
        let mut options = group.map(|group| settings(&group, keys, errors)).unwrap_or_default();
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
        let before = errors.count();
        let mut alone = Vec::new();
        let chain = self.stages(tokens, context, &mut alone, errors);
        // Where the chain is none, words that no arrow touches are no nodes.
        if errors.count() > before {
            for mention in alone.into_iter().rev() {
                self.mentions.remove(mention);
            }
        }
        chain
    }

    /// Parses a chain. After a mistake it reports nothing until the next arrow. Adds the mentions that no arrow touches to
    /// `alone`.
    fn stages(
        &mut self,
        tokens: &mut Tokens,
        context: Context,
        alone: &mut Vec<usize>,
        reported: &mut Errors,
    ) -> Chain {
        let mut chain = Chain::default();
        let mut arrow = None;
        let mut is_broken = false;
        loop {
            let mut muted = Errors::new();
            let errors = if is_broken { &mut muted } else { &mut *reported };
            refuse_attributes(tokens, errors);
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
            let is_first = chain.stages.is_empty();
            if context == Context::Arm
                && is_first
                && let Some(mut body) = body_of_arm(tokens)
            {
                errors.spanning(tokens.next(), "an arm has no braces: write `PATTERN => A -> B,`");
                chain = self.chain(&mut body, Context::Statement, &mut Errors::new());
                return chain;
            }
            let is_led_to = arrow.is_some() || context != Context::Statement && is_first;
            let mentioned = self.mentions.len();
            let stage = self.stage(tokens, context, errors);
            let is_mentioned = matches!(stage, Some(Stage::Node(_))) && self.mentions.len() > mentioned;
            is_broken |= stage.is_none();
            chain.stages.extend(stage);
            if context == Context::Arm && chain.stages.len() == 1 && chain.carried.is_none() {
                chain.carried = carried(&chain.stages[0], tokens, errors);
            }
            arrow = tokens.arrow();
            if arrow.is_none() && !context.is_over(tokens) {
                let errors = if is_broken { &mut muted } else { &mut *reported };
                arrow = Self::no_arrow(&chain, tokens, context, is_led_to, errors);
                is_broken = true;
                if context == Context::Arm && starts_an_arm(tokens) {
                    return chain;
                }
            }
            is_broken &= arrow.is_none();
            if is_mentioned && !is_led_to && arrow.is_none() {
                alone.push(mentioned);
            }
        }
    }

    /// Reports what stands in the place of an arrow, and returns the arrow behind it.
    fn no_arrow(
        chain: &Chain,
        tokens: &mut Tokens,
        context: Context,
        is_led_to: bool,
        errors: &mut Errors,
    ) -> Option<[TokenTree; 2]> {
        if let (Some(Stage::Node(node)), Some(TokenTree::Group(group))) = (chain.stages.last(), tokens.peek().cloned())
            && group.delimiter() == Delimiter::Parenthesis
        {
            tokens.next();
            let node = node.text();
            let text = if group.stream().is_empty() {
                format!("a node is named, not called: write `{node}`")
            } else if context == Context::Statement && !is_led_to && !tokens.peek_arrow() {
                "a graph is drawn with arrows: `A -> B -> END`".to_owned()
            } else {
                format!("only an arm of a `match` carries a value: `PATTERN(value) => {node}(value)`")
            };
            errors.spanning(group, text);
            return tokens.arrow();
        }
        if let Some(options) = options_of_a_stage(tokens) {
            errors.spanning(options, "a node's options belong to its binding: `node NAME = my_node { .. };`");
            return tokens.arrow();
        }
        if tokens.peek_punct(0, '<') && tokens.peek_punct(1, '-') {
            let arrow = [tokens.next()?, tokens.next()?];
            tokens.punct('>');
            errors.spanning(TokenStream::from_iter(arrow.clone()), "an arrow points forward: `A -> B`");
            return Some(arrow);
        }
        let expected = format!("expected `->` or {}", context.end());
        let text = tokens.ident_at(0).filter(|word| *word == "as").and_then(keyword).unwrap_or(expected);
        errors.spanning(tokens.peek(), text);
        if context == Context::Arm && starts_an_arm(tokens) {
            return None;
        }
        skip_to_stage(tokens, context)
    }

    /// Parses one stage. If there is none, reports that and skips the token found instead.
    fn stage(&mut self, tokens: &mut Tokens, context: Context, errors: &mut Errors) -> Option<Stage> {
        if tokens.peek_word(0, "if") {
            errors.spanning(tokens.next(), "a decision is a `match`: `A -> match router { true => B, false => C }`");
            tokens.while_not(|tokens| tokens.peek_arrow() || tokens.peek_punct(0, ','));
            return None;
        }
        if let Some(text) = tokens.ident_at(0).and_then(keyword) {
            errors.spanning(tokens.next(), text);
            tokens.while_not(|tokens| context.is_over(tokens));
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
        let (mut options, on_error) = self.options(settings, &options::OF_EACH, errors);
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
        let keys = if let BranchesKind::Each { .. } = kind { options::OF_EACH } else { options::OF_GROUP };
        let (options, on_error) = self.options(after.group(Delimiter::Brace), &keys, errors);
        Branches { kind, braces, chains, options, on_error }
    }

    /// `match router { PATTERN => chain, .. }`
    fn decision(&mut self, tokens: &mut Tokens, errors: &mut Errors) -> Option<Decision> {
        let keyword = tokens.ident()?;
        let router = tokens.code_until(|tokens| tokens.peek_group(0, Delimiter::Brace) || tokens.peek_punct(0, ','));
        let router = named_router(router, errors);
        let group = tokens.group(Delimiter::Brace).unwrap_or_else(|| {
            errors.spanning(&keyword, "expected arms: `match router { Route::A => A, Route::B => END }`");
            let mut none = Group::new(Delimiter::Brace, TokenStream::new());
            none.set_span(keyword.span());
            none
        });
        let mut arms = Vec::new();
        let mut inside = Tokens::new(group.stream());
        while !inside.is_empty() {
            refuse_attributes(&mut inside, errors);
            let pattern = inside.code_until(|tokens| tokens.peek_fat_arrow() || tokens.peek_punct(0, ','));
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

/// Reports a router that is called with the state, or a field of the state in its place, and returns the router without
/// the mistake.
fn named_router(router: TokenStream, errors: &mut Errors) -> TokenStream {
    let list: Vec<_> = router.clone().into_iter().collect();
    match &list[..] {
        [TokenTree::Ident(state), TokenTree::Punct(dot), ..] if state == "state" && dot.as_char() == '.' => {
            let written = text(&router);
            errors.spanning(
                &router,
                format!("a router is a function of the state: `match |state: &MyState| {written} {{ .. }}`"),
            );
            TokenStream::new()
        }
        [path @ .., TokenTree::Ident(_), TokenTree::Group(arguments)]
            if arguments.delimiter() == Delimiter::Parenthesis && is_the_state(arguments) =>
        {
            let function: TokenStream = list[..=path.len()].iter().cloned().collect();
            errors.spanning(arguments, format!("a router is named, not called: `match {} {{ .. }}`", text(&function)));
            function
        }
        _ => router,
    }
}

/// `(state)`, `(&state)` or `(&mut state)`
fn is_the_state(arguments: &Group) -> bool {
    let mut inside = Tokens::new(arguments.stream());
    inside.punct('&');
    inside.word("mut");
    inside.word("state").is_some() && inside.is_empty()
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
            items.extend(tokens.group(Delimiter::Brace).map(TokenTree::from));
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
    tokens.code_until(|tokens| tokens.peek_fat_arrow() || tokens.peek_punct(0, ','));
    tokens.peek_fat_arrow()
}

/// Returns whether what follows a path can only follow the name of a node: options, the end, or what begins another
/// statement.
fn follows_a_handle(tokens: &Tokens) -> bool {
    let ends = |n| match tokens.nth(n) {
        None | Some(TokenTree::Ident(_)) => true,
        Some(TokenTree::Punct(punct)) => {
            punct.as_char() == ',' || punct.as_char() == '-' && tokens.peek_punct(n + 1, '>')
        }
        _ => false,
    };
    ends(0) && !tokens.peek_word(0, "as") || tokens.peek_group(0, Delimiter::Brace) && ends(1)
}

/// Reports the fields of a struct in the place of options.
fn is_struct_literal(name: &Ident, source: &Reference, braces: &Group, errors: &mut Errors) -> bool {
    let inside = Tokens::new(braces.stream());
    let Some(key) = inside.ident_at(0) else { return false };
    let struct_name = source.name.to_string();
    let is_struct = struct_name.starts_with(char::is_uppercase) && struct_name.contains(char::is_lowercase);
    if !is_struct || options::OF_NODE.has(key) {
        return false;
    }
    errors.spanning(
        braces,
        format!(
            "`{key}` is no option of a node; a value goes in parentheses: `node {name} = ({} {{ .. }});`",
            source.text()
        ),
    );
    true
}

/// Returns whether `=` or `:` follows the first word.
fn starts_assignment(tokens: &Tokens) -> bool {
    let mut after = tokens.clone();
    after.next();
    !after.peek_fat_arrow() && !after.peek_path_separator() && (after.peek_punct(0, '=') || after.peek_punct(0, ':'))
}

/// Splits the tokens after the type or expression at their beginning. Returns `None` if they do not begin with one,
/// for instance because it is half-typed.
pub(super) fn split_code<T: Parse + ToTokens>(tokens: &TokenStream) -> Option<(TokenStream, TokenStream)> {
    let split = |input: ParseStream<'_>| {
        let code: T = input.parse()?;
        Ok((code.to_token_stream(), input.parse::<TokenStream>()?))
    };
    split.parse2(tokens.clone()).ok()
}

/// Skips and reports attributes and documentation comments.
pub(super) fn refuse_attributes(tokens: &mut Tokens, errors: &mut Errors) {
    let Some(attributes) = tokens.attributes() else { return };
    let is_comment =
        Tokens::new(attributes.clone().into_iter().filter_map(inside_brackets).collect()).peek_word(0, "doc");
    let text = if is_comment {
        "a comment in a graph begins with `//`"
    } else {
        "attributes have no place in a graph: put them on the function that returns it"
    };
    errors.spanning(attributes, text);
}

fn inside_brackets(token: TokenTree) -> Option<TokenStream> {
    match token {
        TokenTree::Group(group) => Some(group.stream()),
        _ => None,
    }
}

/// Returns the advice for a keyword of Rust in the place of a node.
fn keyword(word: &Ident) -> Option<String> {
    let text = word.to_string();
    let advice = match &*text {
        "let" | "const" | "static" => "a node gets a name with `node`: `node NAME = my_node;`",
        "as" => "a node gets another name with `node`: `node OTHER = my_node;`",
        "use" => "`use` belongs outside of the graph; a node may also be named with its path: `module::my_node`",
        "for" | "while" | "loop" => {
            "a loop is an edge that leads back: `A -> match router { true => A, false => END }`"
        }
        "if" | "else" => "a decision is a `match`: `A -> match router { true => B, false => C }`",
        "return" | "break" | "continue" | "yield" => "a run ends at `END`: `A -> END`",
        "async" | "enum" | "extern" | "fn" | "impl" | "mod" | "pub" | "struct" | "trait" | "unsafe" => {
            return Some(format!("`{text}` has no place in a graph: write the item outside of it"));
        }
        "await" | "dyn" | "false" | "in" | "match" | "move" | "mut" | "ref" | "true" | "type" | "where" => {
            return Some(format!("`{text}` is a keyword, and no name of a node"));
        }
        _ => return None,
    };
    Some(advice.to_owned())
}

/// Returns the tokens in the braces of an arm that are no group: nothing follows them, and they have one branch.
fn body_of_arm(tokens: &Tokens) -> Option<Tokens> {
    let Some(TokenTree::Group(group)) = tokens.peek() else { return None };
    let mut after = tokens.clone();
    after.next();
    if group.delimiter() != Delimiter::Brace || group.stream().is_empty() || after.peek_arrow() {
        return None;
    }
    let mut inside = Tokens::new(group.stream());
    let body = inside.code_until(|tokens| tokens.peek_punct(0, ',') || tokens.peek_punct(0, ';'));
    inside.next();
    inside.is_empty().then(|| Tokens::new(body))
}

/// Skips tokens that cannot begin a stage, and takes the arrow after them.
fn skip_to_stage(tokens: &mut Tokens, context: Context) -> Option<[TokenTree; 2]> {
    tokens.while_not(|tokens| {
        context.is_over(tokens)
            || tokens.peek_arrow()
            || tokens.ident_at(0).is_some()
            || tokens.peek_group(0, Delimiter::Brace)
    });
    tokens.arrow()
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
    tokens.open_fragment();
    let mut name = tokens.ident()?;
    path.extend(name.to_token_stream());
    let mut dangling = None;
    loop {
        if tokens.peek_punct(0, '<') && !tokens.peek_punct(1, '-') {
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
