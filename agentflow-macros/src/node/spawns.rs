//! The durable tasks that the body of a node names.

use proc_macro2::{Ident, Spacing, TokenStream, TokenTree};

/// Returns the path of each `create_durable_task::<PATH>` in the body, once.
///
/// The impls name the paths outside of the body, where its `use`s and items are unknown: these paths are left out.
pub(crate) fn durable_tasks(body: &TokenStream) -> Vec<TokenStream> {
    let mut found = Found::default();
    found.collect(body);
    if found.has_imports {
        return Vec::new();
    }
    let Found { mut paths, items, .. } = found;
    paths.retain(|path| match path.clone().into_iter().next() {
        Some(TokenTree::Ident(first)) => first != "_" && first != "Self" && !items.contains(&first),
        Some(TokenTree::Punct(first)) => first.as_char() == ':',
        _ => false,
    });
    let mut seen = Vec::new();
    paths.retain(|path| {
        let text = path.to_string();
        let is_new = !seen.contains(&text);
        seen.push(text);
        is_new
    });
    paths
}

#[derive(Default)]
struct Found {
    paths: Vec<TokenStream>,
    /// The names of the items in the body.
    items: Vec<Ident>,
    has_imports: bool,
}

impl Found {
    fn collect(&mut self, tokens: &TokenStream) {
        const ITEMS: [&str; 7] = ["fn", "struct", "enum", "union", "type", "mod", "trait"];
        let list: Vec<TokenTree> = tokens.clone().into_iter().collect();
        for (at, token) in list.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.collect(&group.stream()),
                TokenTree::Ident(word) if word == "use" => self.has_imports = true,
                TokenTree::Ident(word) if ITEMS.iter().any(|item| word == item) => {
                    if let Some(TokenTree::Ident(name)) = list.get(at + 1) {
                        self.items.push(name.clone());
                    }
                }
                TokenTree::Ident(word) if word == "create_durable_task" => {
                    self.paths.extend(turbofish(&list[at + 1..]));
                }
                _ => {}
            }
        }
    }
}

/// Returns the tokens in the `::<..>` with which the tokens begin.
fn turbofish(tokens: &[TokenTree]) -> Option<TokenStream> {
    let is = |token: Option<&TokenTree>, char: char| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char);
    if !(is(tokens.first(), ':') && is(tokens.get(1), ':') && is(tokens.get(2), '<')) {
        return None;
    }
    let mut depth = 1;
    let mut inside = Vec::new();
    let mut is_arrow = false;
    for token in &tokens[3..] {
        if let TokenTree::Punct(punct) = token {
            match punct.as_char() {
                '<' => depth += 1,
                '>' if !is_arrow => depth -= 1,
                _ => {}
            }
            is_arrow = punct.as_char() == '-' && punct.spacing() == Spacing::Joint;
        }
        if depth == 0 {
            return Some(inside.into_iter().collect());
        }
        inside.push(token.clone());
    }
    None
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn paths(body: &TokenStream) -> Vec<String> {
        durable_tasks(body).iter().map(|path| path.to_string().replace(' ', "")).collect()
    }

    #[test]
    fn each_task_that_the_body_names_is_found_once() {
        let body = quote!({
            tasks.create_durable_task::<deliver>(mail).spawn()?;
            let report = async {
                if late {
                    tasks.create_durable_task::<::a::report<fn(u8) -> Vec<u8>>>(()).spawn()
                }
            };
            tasks.create_durable_task::<deliver>(mail).spawn()?;
            log!(create_durable_task(3), tasks.create_durable_task::<_>(3), create_durable_task::<Self>);
        });
        assert_eq!(paths(&body), ["deliver", "::a::report<fn(u8)->Vec<u8>>"]);
    }

    #[test]
    fn paths_that_only_the_body_knows_are_left_out() {
        assert_eq!(
            paths(&quote!({
                use a::b;
                tasks.create_durable_task::<b>(());
            })),
            [""; 0]
        );
        let body = quote!({
            async fn inside() {}
            tasks.create_durable_task::<inside>(());
            tasks.create_durable_task::<outside>(());
        });
        assert_eq!(paths(&body), ["outside"]);
    }
}
