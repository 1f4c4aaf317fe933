//! [`OwnConnection`]: the connection that a store has beside the pool, which renews leases and listens for changes.

use std::{
    future::poll_fn,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agentflow::store::{OwnerId, StoreError, StoreErrorKind};
use deadpool::managed::Manager as _;
use deadpool_postgres::Pool;
use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_postgres::{
    AsyncMessage, Client, Config, Error, Socket,
    tls::{MakeTlsConnect, TlsConnect},
};

use crate::{error, owners::RENEW, value::args};

/// The time after which a connection, or an answer, is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time between two checks of a connection that listens. A network that is cut off sends no word of it.
const PROBE: Duration = Duration::from_secs(15);
/// The time between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);

/// The number of changes that the store knows of.
#[derive(Clone, Debug)]
pub(crate) struct Changes(Arc<watch::Sender<u64>>);

impl Changes {
    pub(crate) fn new() -> Self {
        // The first caller asks for what has changed since zero, and may have missed something.
        Self(Arc::new(watch::Sender::new(1)))
    }

    /// Says that something may have changed.
    pub(crate) fn add(&self) {
        self.0.send_modify(|changes| *changes += 1);
    }

    /// Waits until the number is another one than `since`, or the time has passed.
    pub(crate) async fn wait(&self, since: u64, time: Duration) -> u64 {
        let mut receiver = self.0.subscribe();
        // The sender lives as long as `self`.
        match timeout(time, receiver.wait_for(|changes| *changes != since)).await {
            Ok(Ok(changes)) => *changes,
            _ => since,
        }
    }
}

type AnyClient = Box<dyn Deref<Target = Client> + Send>;
type Listen = Arc<dyn Fn(Changes, Arc<Notify>) -> BoxFuture<'static, Result<Client, Error>> + Send + Sync>;

/// The way in which the connection is made.
#[derive(Clone)]
pub(crate) enum Connector {
    /// The settings of the pool. They cannot listen.
    Pool(Pool),
    /// By a configuration of its own.
    Listen(Listen),
}

impl Connector {
    /// Returns a connector that listens.
    pub(crate) fn listen<T>(config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Self::Listen(Arc::new(move |changes, lost| {
            let (config, tls) = (config.clone(), tls.clone());
            async move {
                let (client, mut connection) = config.connect(tls).await?;
                tokio::spawn(async move {
                    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                        if let AsyncMessage::Notification(_) = message {
                            changes.add();
                        }
                    }
                    lost.notify_one();
                });
                Ok(client)
            }
            .boxed()
        }))
    }

    /// Connects, and listens if it can.
    async fn connect(&self, changes: &Changes, lost: &Arc<Notify>) -> Result<AnyClient, StoreError> {
        const OPERATION: &str = "renew";
        let connect = async {
            match self {
                Self::Pool(pool) => {
                    let client = pool.manager().create().await?;
                    Ok::<AnyClient, Error>(Box::new(client))
                }
                Self::Listen(listen) => {
                    let client = listen(changes.clone(), lost.clone()).await?;
                    let channel: String =
                        client.query_typed_one("SELECT agentflow_channel()", &[]).await?.try_get(0)?;
                    client.batch_execute(&format!("LISTEN {channel}")).await?;
                    Ok(Box::new(Box::new(client)) as AnyClient)
                }
            }
        };
        let late = |_| StoreError::new(OPERATION, StoreErrorKind::Unavailable);
        let client =
            timeout(PATIENCE, connect).await.map_err(late)?.map_err(|error| error::server(OPERATION, &error))?;
        // What was sent before is lost.
        changes.add();
        Ok(client)
    }
}

/// A request to renew a lease.
struct Renew {
    owner: OwnerId,
    lease: Duration,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// A connection with a thread and a runtime of its own, so that neither a node that blocks a thread of the caller's runtime
/// nor a full pool keeps it from renewing a lease.
pub(crate) struct OwnConnection {
    connector: Connector,
    changes: Changes,
    /// Set while the thread runs.
    requests: Mutex<Option<mpsc::UnboundedSender<Renew>>>,
}

impl OwnConnection {
    pub(crate) fn new(connector: Connector, changes: Changes) -> Self {
        Self { connector, changes, requests: Mutex::new(None) }
    }

    /// Starts the thread, if it does not run.
    pub(crate) fn start(&self, operation: &'static str) -> Result<(), StoreError> {
        self.requests(operation).map(|_| ())
    }

    /// Ends the thread and its connection.
    pub(crate) fn stop(&self) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn requests(&self, operation: &'static str) -> Result<mpsc::UnboundedSender<Renew>, StoreError> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requests) = requests.as_ref().filter(|requests| !requests.is_closed()) {
            return Ok(requests.clone());
        }
        let other = |error: std::io::Error| StoreError::new(operation, StoreErrorKind::Other).with_source(error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(other)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let (connector, changes) = (self.connector.clone(), self.changes.clone());
        std::thread::Builder::new()
            .name("agentflow-postgres".to_owned())
            .spawn(move || runtime.block_on(serve(receiver, &connector, &changes)))
            .map_err(other)?;
        Ok(requests.insert(sender).clone())
    }

    pub(crate) async fn renew(&self, owner: OwnerId, lease: Duration) -> Result<(), StoreError> {
        const OPERATION: &str = "renew";
        let (reply, answer) = oneshot::channel();
        let closed = || error::closed(OPERATION);
        self.requests(OPERATION)?.send(Renew { owner, lease, reply }).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// Answers requests until the store is gone.
async fn serve(mut requests: mpsc::UnboundedReceiver<Renew>, connector: &Connector, changes: &Changes) {
    let lost = Arc::new(Notify::new());
    let mut client: Option<AnyClient> = None;
    let listens = matches!(connector, Connector::Listen(_));
    let mut next_probe = Instant::now();
    loop {
        tokio::select! {
            biased;
            request = requests.recv() => {
                let Some(Renew { owner, lease, reply }) = request else { return };
                let renewed = renew(&mut client, connector, changes, &lost, owner, lease).await;
                // A caller that has gone needs no answer.
                let _ = reply.send(renewed);
            }
            () = lost.notified(), if listens => next_probe = Instant::now(),
            () = sleep_until(next_probe), if listens => {
                next_probe = Instant::now() + match probe(&mut client, connector, changes, &lost).await {
                    Ok(()) => PROBE,
                    Err(error) => {
                        tracing::warn!(%error, "the store hears of no changes, and polls");
                        RETRY
                    }
                };
            }
        }
    }
}

/// Connects if there is no connection, or checks the one that there is.
async fn probe(
    client: &mut Option<AnyClient>,
    connector: &Connector,
    changes: &Changes,
    lost: &Arc<Notify>,
) -> Result<(), StoreError> {
    if let Some(open) = client.as_ref().filter(|client| !client.is_closed())
        && matches!(timeout(PATIENCE, open.batch_execute("")).await, Ok(Ok(())))
    {
        return Ok(());
    }
    *client = None;
    *client = Some(connector.connect(changes, lost).await?);
    Ok(())
}

async fn renew(
    client: &mut Option<AnyClient>,
    connector: &Connector,
    changes: &Changes,
    lost: &Arc<Notify>,
    owner: OwnerId,
    lease: Duration,
) -> Result<(), StoreError> {
    const OPERATION: &str = "renew";
    let open = match client.take() {
        Some(open) if !open.is_closed() => open,
        _ => connector.connect(changes, lost).await?,
    };
    let rows = async { open.query_typed_raw(RENEW, args![owner, lease]).await?.try_collect::<Vec<_>>().await };
    let late = |_| StoreError::new(OPERATION, StoreErrorKind::Unavailable);
    // A connection that has failed is dropped.
    let rows = timeout(PATIENCE, rows).await.map_err(late)?.map_err(|error| error::server(OPERATION, &error))?;
    *client = Some(open);
    if rows.is_empty() { Err(StoreError::fenced(OPERATION)) } else { Ok(()) }
}
