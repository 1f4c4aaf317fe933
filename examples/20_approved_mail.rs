//! A mail that a person approves. The run ends with a question, and the process too; another process answers later.
//!
//! It shows a node that asks, a question with its JSON, an answer of the wrong type, and an answer that comes too late. The
//! example starts itself again as the second process.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 20_approved_mail
//! [first process] case-17 waits for `review`: {"to":"ada@example.com","draft":"Dear Ada, your parcel is lost."}
//! [first process] ends, with nothing left running
//! [second process] found case-17, which asks: Dear Ada, your parcel is lost.
//! [second process] answers "Maybe": the answer to node `review` is not a `Verdict`: `Verdict` cannot be read from JSON: unknown variant `Maybe`, expected `Send` or `Rewrite`
//! [second process] answers Rewrite: it asks again: Dear Ada, your parcel is late.
//! [second process] answers Send
//! [second process] answers once more: it was answered before
//! [first process again] case-17: sent to ada@example.com: Dear Ada, your parcel is late.
//! ```

use std::{env, path::Path, process::Command};

use agentflow::{
    Ask, CompiledGraph, Route, RunConfig, State, graph, node,
    store::ThreadFilter,
    thread::{Outcome, ThreadError, ThreadStatus},
};
use agentflow_sqlite::SqliteStore;
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, State, Serialize, Deserialize)]
struct Mail {
    to: String,
    draft: String,
    wish: Option<String>,
    is_sent: bool,
}

/// The question that a person is shown.
#[derive(Serialize, Deserialize)]
struct Review {
    to: String,
    draft: String,
}

/// The answers that a person may give.
#[derive(Serialize, Deserialize)]
enum Verdict {
    Send,
    Rewrite { wish: String },
}

#[derive(Route)]
enum Next {
    Send,
    Rewrite,
}

#[node]
async fn write(state: &mut Mail) {
    let fate = state.wish.take().unwrap_or_else(|| "lost".into());
    state.draft = format!("Dear Ada, your parcel is {fate}.");
}

#[node]
async fn review(state: &mut Mail, answer: Option<Verdict>) -> Ask<Review, Next> {
    match answer {
        None => Ask::Question(Review { to: state.to.clone(), draft: state.draft.clone() }),
        Some(Verdict::Send) => Ask::Done(Next::Send),
        Some(Verdict::Rewrite { wish }) => {
            state.wish = Some(wish);
            Ask::Done(Next::Rewrite)
        }
    }
}

#[node]
async fn send(state: &mut Mail) {
    state.is_sent = true;
}

fn open(path: &Path) -> anyhow::Result<CompiledGraph<Mail>> {
    Ok(graph! {
        name = "mail";
        write -> review -> match { Next::Send => send -> END, Next::Rewrite => write };
        compile { store: SqliteStore::open(path)? }
    })
}

async fn first_process(path: &Path) -> anyhow::Result<()> {
    let app = open(path)?;
    let outcome = app.thread("case-17").invoke(Mail::update().to("ada@example.com"), RunConfig::new()).await?;
    let Outcome::Waiting(questions) = outcome else { bail!("the mail was sent without a review") };
    for question in &questions {
        println!("[first process] case-17 waits for `{}`: {}", question.node(), question.json());
    }
    app.aclose().await;
    println!("[first process] ends, with nothing left running");
    Ok(())
}

async fn second_process(path: &Path) -> anyhow::Result<()> {
    let app = open(path)?;
    let mut filter = ThreadFilter::default();
    filter.status = Some(ThreadStatus::Paused);
    let page = app.threads().list(filter).await?;
    let row = page.threads.first().context("a thread waits")?;
    let thread = app.thread(row.id.as_str());
    let questions = thread.questions().await?;
    let question = questions.first().context("it has a question")?;
    println!("[second process] found {}, which asks: {}", row.id, question.decode::<Review>()?.draft);

    let error = thread.answer(question.id(), "Maybe").await.err().context("it is no verdict")?;
    let error = error.to_string().replace("20_approved_mail::", "");
    println!("[second process] answers \"Maybe\": {}", error.split(" at line").next().unwrap_or_default());

    let rewrite = Verdict::Rewrite { wish: "late".into() };
    let outcome = thread.answer(question.id(), &rewrite).await?;
    let again = outcome.questions().first().context("the new draft is reviewed too")?;
    println!("[second process] answers Rewrite: it asks again: {}", again.decode::<Review>()?.draft);

    let outcome = thread.answer(again.id(), &Verdict::Send).await?;
    ensure!(outcome.done().is_some_and(|mail| mail.is_sent), "the mail is sent");
    println!("[second process] answers Send");
    match thread.answer(again.id(), &Verdict::Send).await {
        Err(ThreadError::AlreadyAnswered { .. }) => {
            println!("[second process] answers once more: it was answered before");
        }
        other => bail!("a second answer was accepted: {other:?}"),
    }
    app.aclose().await;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(path) = env::args_os().nth(1) {
        return second_process(path.as_ref()).await;
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("mail.db");
    first_process(&path).await?;
    let status = Command::new(env::current_exe()?).arg(&path).status()?;
    ensure!(status.success(), "the second process failed");

    let app = open(&path)?;
    let mail = app.thread("case-17").state().await?.context("the thread is there")?.values;
    println!("[first process again] case-17: sent to {}: {}", mail.to, mail.draft);
    app.aclose().await;
    Ok(())
}
