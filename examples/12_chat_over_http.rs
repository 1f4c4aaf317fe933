//! A chat service over HTTP: each answer is a stream of server-sent events, and each thread has a memory.
//!
//! Two requests of one thread take turns. A client that hangs up cancels its run, and the thread's memory stays as it
//! was. SIGTERM lets the streams that are open come to their end, then drains the background tasks.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 12_chat_over_http
//! -- ada asks
//! event: token, data: Owls
//! event: token, data: sleep
//! event: token, data: in trees.
//! event: end, data: ok
//! thread ada: 2 messages
//! -- ada asks again, and hangs up after the first token
//! event: token, data: Owls
//! thread ada: 2 messages
//! -- bob asks, and SIGTERM comes after the first token
//! event: token, data: Owls
//! SIGTERM: shutting down
//! event: token, data: sleep
//! event: token, data: in trees.
//! event: end, data: ok
//! shut down in 201.2ms
//!   runs:  0 ended meanwhile, 0 unfinished, 0 still running
//!   tasks: closed in 201.2ms: 1 completed
//! ```
//!
//! With an address it serves until a signal comes:
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 12_chat_over_http -- 127.0.0.1:8080
//! $ curl -N -d 'Where do owls sleep?' http://127.0.0.1:8080/threads/ada
//! ```

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agentflow::{
    AgentState, BackgroundTaskManager, CancellationToken, CompiledGraph, EventWriter, Message, NodeError, RunConfig,
    graph, node,
    run::{Event, EventKind},
    shutdown,
};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Sse, sse},
    routing,
};
use futures::{StreamExt, future::ready, stream};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// The time that open requests have once the service is told to stop.
const HTTP_DRAIN: Duration = Duration::from_secs(5);

type Memory = Arc<tokio::sync::Mutex<AgentState>>;

/// The memory of every thread. A database takes its place in a real service.
#[derive(Clone, Default)]
struct Threads(Arc<Mutex<HashMap<String, Memory>>>);

impl Threads {
    fn thread(&self, id: &str) -> Memory {
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Memory::clone(threads.entry(id.to_owned()).or_default())
    }
}

/// Writes each token as it comes; the message is in the state once it is complete.
#[node(MODEL)]
async fn model(state: &mut AgentState, events: &EventWriter) {
    let mut words = Vec::new();
    for token in ["Owls", "sleep", "in trees."] {
        sleep(Duration::from_millis(100)).await;
        events.emit("token", token).await;
        words.push(token);
    }
    state.context.push(Message::assistant(words.join(" ")));
}

/// Work that the client does not wait for.
#[node(INDEX)]
async fn index(config: &RunConfig, task_manager: &BackgroundTaskManager) -> Result<(), NodeError> {
    let thread = config.thread_id().unwrap_or_default().to_owned();
    let update_index = async { sleep(Duration::from_millis(200)).await };
    task_manager.create_task(update_index).name("index").context("thread", thread).spawn()?;
    Ok(())
}

#[derive(Clone)]
struct Service {
    app: CompiledGraph<AgentState>,
    threads: Threads,
}

async fn chat(
    State(service): State<Service>,
    Path(id): Path<String>,
    question: String,
) -> Result<impl IntoResponse, StatusCode> {
    // The task below owns this lock: the thread's next request waits until this run has ended.
    let mut memory = service.threads.thread(&id).lock_owned().await;
    let mut state = memory.clone();
    state.context.push(Message::user(question));
    let run = service.app.try_stream(state, RunConfig::new().with_thread_id(id));
    let (events, end) = run.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?.split();

    // A task of the app, so that a shutdown waits until the state is saved.
    let save = async move {
        if let Ok(state) = end.await {
            *memory = state;
        }
    };
    let saving = service.app.task_manager().create_task(save).name("save").spawn();
    let saving = saving.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;

    // A client that hangs up drops these events, which cancels the run. The response of one that stays ends once the
    // state is saved.
    let events = events.filter_map(|event| ready(to_sse(event).map(Ok::<_, Infallible>)));
    let saved = stream::once(saving).filter_map(|_| ready(None));
    Ok(Sse::new(events.chain(saved)))
}

/// Selects what the client sees of a run.
fn to_sse(event: Event) -> Option<sse::Event> {
    let number = event.sequence.to_string();
    let (name, data) = match event.kind {
        EventKind::Custom { name, data, .. } if name == "token" => (name, data.as_str()?.to_owned()),
        EventKind::RunEnded { error, .. } => ("end".to_owned(), error.unwrap_or_else(|| "ok".to_owned())),
        _ => return None,
    };
    Some(sse::Event::default().id(number).event(name).data(data))
}

async fn memory(State(service): State<Service>, Path(id): Path<String>) -> String {
    let memory = service.threads.thread(&id);
    let messages = memory.lock().await.context.len();
    format!("thread {id}: {messages} messages")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = graph! { MODEL -> INDEX -> END; compile { shutdown_timeout: 10s } };
    let service = Service { app: app.clone(), threads: Threads::default() };
    let router = Router::new().route("/threads/{id}", routing::post(chat).get(memory)).with_state(service);

    let given = std::env::args().nth(1);
    let listener = TcpListener::bind(given.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let serve = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let server = tokio::spawn(serve.into_future());
    let stopped = stop.clone();
    let demo = given.is_none().then(|| {
        tokio::spawn(async move {
            if let Err(error) = demo(address, stopped).await {
                eprintln!("the demo failed: {error:#}");
                std::process::exit(1);
            }
        })
    });

    println!("{}: shutting down", shutdown::signal().await?);
    stop.cancel();
    match timeout(HTTP_DRAIN, server).await {
        Ok(ended) => ended??,
        Err(_) => println!("some requests are still open: `aclose` ends their runs"),
    }
    if let Some(demo) = demo {
        demo.await?;
    }
    println!("{}", app.aclose().await);
    Ok(())
}

async fn demo(address: SocketAddr, stopped: CancellationToken) -> anyhow::Result<()> {
    println!("-- ada asks");
    let mut answer = send(address, "POST", "ada").await?;
    while print_event(&mut answer).await? {}
    println!("{}", last_line(send(address, "GET", "ada").await?).await?);

    println!("-- ada asks again, and hangs up after the first token");
    let mut answer = send(address, "POST", "ada").await?;
    print_event(&mut answer).await?;
    drop(answer);
    println!("{}", last_line(send(address, "GET", "ada").await?).await?);

    println!("-- bob asks, and SIGTERM comes after the first token");
    let mut answer = send(address, "POST", "bob").await?;
    print_event(&mut answer).await?;
    let kill = ["-c", "kill -TERM $PPID"];
    anyhow::ensure!(tokio::process::Command::new("sh").args(kill).status().await?.success(), "no SIGTERM was sent");
    stopped.cancelled().await;
    while print_event(&mut answer).await? {}
    Ok(())
}

async fn send(address: SocketAddr, method: &str, thread: &str) -> anyhow::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address).await?;
    let question = "Where do owls sleep?";
    let request = format!(
        "{method} /threads/{thread} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{question}",
        question.len(),
    );
    stream.write_all(request.as_bytes()).await?;
    Ok(BufReader::new(stream))
}

/// Prints the next event of a response; returns whether there was one.
async fn print_event(response: &mut BufReader<TcpStream>) -> anyhow::Result<bool> {
    let mut name = String::new();
    let mut line = String::new();
    while response.read_line(&mut line).await? > 0 {
        if let Some(event) = line.strip_prefix("event: ") {
            event.trim_end().clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            println!("event: {name}, data: {}", data.trim_end());
            return Ok(true);
        }
        line.clear();
    }
    Ok(false)
}

async fn last_line(mut response: BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut text = String::new();
    response.read_to_string(&mut text).await?;
    Ok(text.lines().last().unwrap_or_default().to_owned())
}
