//! Corrective RAG: each retrieved document is graded, the relevant ones are refined, and a query that found nothing is
//! rewritten; if that finds nothing either, the web is searched.
//!
//! It shows an `each` with several nodes and a decision per item, whose arm carries the document to the next node, and a
//! decision after the join.
//!
//! The original is LangGraph's
//! <https://github.com/langchain-ai/langgraph/blob/main/examples/rag/langgraph_crag.ipynb>; it grades in a loop inside of
//! one node, and goes to the web at once.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 15_corrective_rag
//! ? what do owls eat
//!     GRADE[0]: Grade::Relevant(document), on to REFINE[0]
//!     GRADE[1]: Grade::Irrelevant, on to JOIN[1]
//!     GRADE[2]: Grade::Relevant(document), on to REFINE[2]
//!     each {GRADE}: Next::Answer, on to ANSWER
//! = owls eat mice [1]; owls eat at night [2]
//! ? menu of strigiformes
//!     GRADE[0]: Grade::Irrelevant, on to JOIN[0]
//!     GRADE[1]: Grade::Irrelevant, on to JOIN[1]
//!     GRADE[2]: Grade::Irrelevant, on to JOIN[2]
//!     each {GRADE}: Next::Rewrite, on to REWRITE
//!     GRADE[0]: Grade::Relevant(document), on to REFINE[0]
//!     GRADE[1]: Grade::Irrelevant, on to JOIN[1]
//!     GRADE[2]: Grade::Relevant(document), on to REFINE[2]
//!     each {GRADE}: Next::Answer, on to ANSWER
//! = owls eat mice [1]; owls eat at night [2]
//! ? who won the match
//!     GRADE[0]: Grade::Irrelevant, on to JOIN[0]
//!     GRADE[1]: Grade::Irrelevant, on to JOIN[1]
//!     GRADE[2]: Grade::Irrelevant, on to JOIN[2]
//!     each {GRADE}: Next::Rewrite, on to REWRITE
//!     GRADE[0]: Grade::Irrelevant, on to JOIN[0]
//!     GRADE[1]: Grade::Irrelevant, on to JOIN[1]
//!     GRADE[2]: Grade::Irrelevant, on to JOIN[2]
//!     each {GRADE}: Next::SearchWeb, on to WEB
//! = the web knows who won the match [1]
//! ```

use agentflow::{CompiledGraph, Route, RunConfig, State, graph, node, run::EventKind};

/// The library that is searched: three pages, each with several sentences.
const LIBRARY: [&str; 3] =
    ["owls eat mice. mice eat seeds.", "lions sleep all day.", "bats fly at night. owls eat at night."];

#[derive(Clone, Debug, Default, State)]
struct Search {
    question: String,
    /// The question in the words of the library; it is rewritten once.
    query: String,
    tries: u32,
    documents: Vec<String>,
    /// The sentences that answer the question, from all branches.
    #[state(append)]
    facts: Vec<String>,
    answer: String,
}

#[derive(Debug, Route)]
enum Grade {
    Relevant(String),
    Irrelevant,
}

enum Next {
    Answer,
    Rewrite,
    SearchWeb,
}

fn documents(search: &Search) -> Vec<String> {
    search.documents.clone()
}

/// Decides after all documents are graded.
fn next(search: &Search) -> Next {
    match (search.facts.is_empty(), search.tries) {
        (false, _) => Next::Answer,
        (true, 1) => Next::Rewrite,
        (true, _) => Next::SearchWeb,
    }
}

/// Returns whether every long word of the query is in the text.
fn matches(query: &str, text: &str) -> bool {
    query.split(' ').filter(|word| word.len() > 2).all(|word| text.contains(word))
}

#[node(RETRIEVE)]
async fn retrieve(state: &mut Search) {
    state.tries += 1;
    // A vector store would return the nearest pages, relevant or not.
    state.documents = LIBRARY.map(str::to_owned).to_vec();
}

/// Grades one document, and passes it on if it is relevant.
#[node(GRADE)]
async fn grade(state: &Search, input: String) -> Grade {
    if matches(&state.query, &input) { Grade::Relevant(input) } else { Grade::Irrelevant }
}

/// Keeps the sentences of a relevant document that answer the question.
#[node(REFINE)]
async fn refine(state: &Search, input: String) -> SearchUpdate {
    let sentences = input.split_terminator('.').map(str::trim);
    Search::update().facts(sentences.filter(|sentence| matches(&state.query, sentence)))
}

#[node(REWRITE)]
async fn rewrite(state: &mut Search) {
    state.query = state.query.replace("menu", "eat").replace("strigiformes", "owls");
}

#[node(WEB)]
async fn search_web(state: &mut Search) {
    state.facts.push(format!("the web knows {}", state.question));
}

#[node(ANSWER)]
async fn answer(state: &mut Search) {
    let facts = state.facts.iter().enumerate();
    let cited: Vec<_> = facts.map(|(index, fact)| format!("{fact} [{}]", index + 1)).collect();
    state.answer = cited.join("; ");
}

fn corrective_rag() -> CompiledGraph<Search> {
    graph! {
        RETRIEVE -> each documents {
            GRADE -> match {
                Grade::Relevant(document) => REFINE(document),
                Grade::Irrelevant => JOIN,
            }
        } -> match next {
            Next::Answer => ANSWER -> END,
            Next::Rewrite => REWRITE -> RETRIEVE,
            Next::SearchWeb => WEB -> ANSWER,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), agentflow::RunError> {
    let app = corrective_rag();
    for (question, query) in [
        ("what do owls eat", "owls eat"),
        ("menu of strigiformes", "menu of strigiformes"),
        ("who won the match", "won match"),
    ] {
        println!("? {question}");
        let search = Search { question: question.to_owned(), query: query.to_owned(), ..Search::default() };
        let mut run = app.stream(search, RunConfig::new());
        while let Some(event) = run.next().await {
            if let EventKind::RouteTaken { node, route, to, .. } = event.kind {
                println!("    {node}: {route}, on to {to}");
            }
        }
        println!("= {}", run.finish().await?.answer);
    }
    Ok(())
}
