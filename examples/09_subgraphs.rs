//! Subgraphs of three kinds: an inline graph, a compiled graph, and a compiled graph with another state.
//!
//! The log shows the names of inner nodes in a run's events: `EDIT/JUDGE` is the node `JUDGE` of the graph that is the
//! node `EDIT` of the outer graph.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 09_subgraphs
//! RESEARCH
//! RESEARCH/SEARCH
//! RESEARCH/OUTLINE
//! EDIT
//! EDIT/REVISE
//! EDIT/JUDGE
//! EDIT/JUDGE: Quality::Poor => EDIT/REVISE
//! EDIT/REVISE
//! EDIT/JUDGE
//! EDIT/JUDGE: Quality::Good => END
//! FRENCH
//! FRENCH/TRANSLATE
//! GERMAN
//! GERMAN/TRANSLATE
//! FRENCH/PROOFREAD
//! GERMAN/PROOFREAD
//! owls hunt by night, silently
//! (fr) owls hunt by night, silently.
//! (de) owls hunt by night, silently.
//! ```

use agentflow::{CompiledGraph, Route, RunConfig, State, graph, graph::ParallelNode, node, run::EventKind};

#[derive(Clone, Default, State)]
struct Article {
    text: String,
    revision: u32,
    #[state(append)]
    translations: Vec<String>,
}

#[derive(Clone, Default, State)]
struct Translation {
    language: &'static str,
    text: String,
}

#[derive(Route)]
enum Quality {
    Good,
    Poor,
}

#[node(SEARCH)]
async fn search(state: &mut Article) {
    state.text.push_str("owls");
}

#[node(OUTLINE)]
async fn outline(state: &mut Article) {
    state.text.push_str(" hunt");
}

#[node(REVISE)]
async fn revise(state: &mut Article) {
    state.revision += 1;
    state.text += if state.revision == 1 { " by night" } else { ", silently" };
}

#[node(JUDGE)]
async fn judge(state: &Article) -> Quality {
    if state.revision < 2 { Quality::Poor } else { Quality::Good }
}

#[node(TRANSLATE)]
async fn translate(state: &mut Translation) {
    state.text = format!("({}) {}", state.language, state.text);
    // A model call would wait here, while the other translation continues.
    tokio::task::yield_now().await;
}

#[node(PROOFREAD)]
async fn proofread(state: &mut Translation) {
    state.text.push('.');
}

/// Builds the editor, an app that can also be run and tested on its own.
fn editor() -> CompiledGraph<Article> {
    graph! {
        REVISE -> JUDGE -> match {
            Quality::Poor => REVISE,
            Quality::Good => END,
        }
    }
}

/// Builds a translator for articles from a graph that does not know them: `map_state` converts an article to the
/// graph's state, and the result to an update. The graph has its own state, so it may run in a group.
fn translator(language: &'static str) -> impl ParallelNode<Article, Output = ()> {
    let app = graph! { TRANSLATE -> PROOFREAD -> END };
    app.map_state(
        move |article: &Article| Translation { language, text: article.text.clone() },
        |translation| Article::update().translations([translation.text]),
    )
}

#[tokio::main]
async fn main() -> Result<(), agentflow::RunError> {
    let app = graph! {
        graph RESEARCH { SEARCH -> OUTLINE -> END }
        node EDIT = editor();
        node FRENCH = translator("fr");
        node GERMAN = translator("de");

        RESEARCH -> EDIT -> { FRENCH, GERMAN } -> END;
    };

    let mut run = app.stream(Article::default(), RunConfig::new());
    while let Some(event) = run.next().await {
        match event.kind {
            EventKind::NodeStarted { node, .. } => println!("{node}"),
            EventKind::RouteTaken { node, route, to, .. } => println!("{node}: {route} => {to}"),
            _ => {}
        }
    }
    let article = run.finish().await?;
    println!("{}", article.text);
    article.translations.iter().for_each(|text| println!("{text}"));
    Ok(())
}
