//! An HTTP service with a graceful shutdown: no request and no background task is lost.
//!
//! On SIGTERM or Ctrl-C the server accepts no more requests and completes the open ones. Then the app waits for its
//! runs, and then for their background tasks. Each wait has a bound, and a second signal ends the process at once.
//!
//! ```text
//! cargo run -p agentflow-examples --example 03_graceful_shutdown -- 127.0.0.1:8080
//! curl -d 'Where do owls sleep?' http://127.0.0.1:8080/ask
//! curl http://127.0.0.1:8080/tasks
//! ```
//!
//! Without an address it picks a port, sends itself some requests, and then SIGTERM during one of them. It prints the
//! order in which everything ends. (This needs a Unix shell.)

use std::{net::SocketAddr, time::Duration};

use agentflow::{
    AgentState, BackgroundTaskManager, CancellationToken, CompiledGraph, Message, NodeError, RunConfig, graph, node,
    run::RunErrorKind, shutdown,
};
use anyhow::{Context, bail};
use axum::{Router, extract::State, http::StatusCode, routing};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// The time in which open requests must complete after a signal. Idle connections are closed at once.
const HTTP_DRAIN: Duration = Duration::from_secs(5);

type App = CompiledGraph<AgentState>;

async fn archive(question: String) {
    sleep(Duration::from_millis(800)).await;
    println!("archived: {question}");
}

#[node(ANSWER)]
async fn answer(state: &mut AgentState, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    let question = state.last_message().ok_or("nothing was asked")?.text();
    sleep(Duration::from_millis(300)).await; // the model
    state.context.push(Message::assistant(format!("{question} In trees.")));
    task_manager.create_task(archive(question)).name("archive").timeout(Duration::from_secs(10)).spawn()?;
    Ok(())
}

async fn ask(State(app): State<App>, question: String) -> Result<String, (StatusCode, String)> {
    // A client that hangs up drops this future, which cancels the run.
    match app.invoke(AgentState::from_user(question), RunConfig::new()).await {
        Ok(state) => Ok(state.last_message().map(Message::text).unwrap_or_default()),
        Err(error) => {
            let status = match error.kind() {
                RunErrorKind::Closed | RunErrorKind::ShutDown { .. } => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Err((status, error.to_string()))
        }
    }
}

async fn tasks(State(app): State<App>) -> String {
    let manager = app.task_manager();
    let live: Vec<_> = manager.task_info().iter().map(|task| format!("{task}\n")).collect();
    format!("{}\n{}", manager.stats(), live.concat())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = graph! { ANSWER -> END; compile { shutdown_timeout: 10s } };
    let router =
        Router::new().route("/ask", routing::post(ask)).route("/tasks", routing::get(tasks)).with_state(app.clone());

    let given = std::env::args().nth(1);
    let listener = TcpListener::bind(given.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");

    let stop = CancellationToken::new();
    let serve = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut server = tokio::spawn(serve.into_future());
    let demo = given.is_none().then(|| {
        tokio::spawn(async move {
            if let Err(error) = demo(address).await {
                eprintln!("the demo failed: {error:#}");
                std::process::exit(1);
            }
        })
    });

    let signal = tokio::select! {
        signal = shutdown::signal() => signal?,
        ended = &mut server => {
            ended??;
            bail!("the server ended by itself");
        }
    };
    println!("{signal}: shutting down");
    // tokio handles the signals from the first one on, so a second signal would have no effect without this task.
    tokio::spawn(async {
        if let Ok(signal) = shutdown::signal().await {
            println!("{signal} again: exiting");
            std::process::exit(1);
        }
    });

    stop.cancel();
    match timeout(HTTP_DRAIN, &mut server).await {
        Ok(ended) => {
            ended??;
            println!("all open requests are complete");
        }
        Err(_) => println!("some requests are still open; shutting down their runs"),
    }
    println!("{}", app.aclose().await);
    if let Some(demo) = demo {
        demo.await?;
    }
    Ok(())
}

/// Sends two requests, and a third one that SIGTERM interrupts.
async fn demo(address: SocketAddr) -> anyhow::Result<()> {
    for question in ["Where do owls sleep?", "And bats?"] {
        println!("answer: {}", post(address, question).await?);
    }
    let (answer, ()) = tokio::try_join!(post(address, "And sparrows?"), async {
        sleep(Duration::from_millis(100)).await;
        let kill = ["-c", "kill -TERM $PPID"];
        let status = tokio::process::Command::new("sh").args(kill).status().await?;
        if !status.success() {
            bail!("no SIGTERM was sent: {status}");
        }
        Ok(())
    })?;
    println!("answer: {answer}");
    Ok(())
}

async fn post(address: SocketAddr, body: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await.context("the server does not accept connections")?;
    let length = body.len();
    let request =
        format!("POST /ask HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let (head, body) = response.split_once("\r\n\r\n").context("the response has no body")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{head}");
    }
    Ok(body.to_owned())
}
