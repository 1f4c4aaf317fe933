//! [`Transaction`]: all that one operation writes.

use agentflow::store::StoreError;
use deadpool_postgres::Object;
use futures_util::{
    future::{try_join, try_join3},
    stream::{FuturesOrdered, TryStreamExt},
};
use tokio_postgres::Row;

use crate::{error, value::Argument};

// A process that is stopped inside a transaction holds its locks only for so long: others have to go on without it. The
// isolation is named because users can choose another default.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL lock_timeout = '10s'";

/// A statement with its arguments, which is sent later.
pub(crate) type Statement<'s> = (&'s str, Vec<Argument>);

/// A source of reads: a connection, or a transaction.
pub(crate) trait Read: Send {
    /// The operation of the store, for errors.
    fn operation(&self) -> &'static str;

    /// Returns the rows of each statement.
    fn read_all(
        &mut self,
        statements: Vec<Statement<'_>>,
    ) -> impl Future<Output = Result<Vec<Vec<Row>>, StoreError>> + Send;

    /// Returns the rows of each statement.
    fn read<const N: usize>(
        &mut self,
        statements: [Statement<'_>; N],
    ) -> impl Future<Output = Result<[Vec<Row>; N], StoreError>> + Send {
        async {
            let rows = self.read_all(statements.into()).await?;
            // There is an answer to each statement.
            Ok(rows.try_into().unwrap_or_else(|_| unreachable!("each statement has an answer")))
        }
    }
}

/// A connection of the pool, for one operation of the store. A statement is a transaction of its own.

#[derive(Debug)]
pub(crate) struct Session {
    client: Object,
    pub(crate) operation: &'static str,
}

impl Session {
    pub(crate) fn new(client: Object, operation: &'static str) -> Self {
        Self { client, operation }
    }

    /// Runs a statement and returns its rows.
    pub(crate) async fn rows(&self, sql: &str, arguments: Vec<Argument>) -> Result<Vec<Row>, StoreError> {
        let rows = async { self.client.query_typed_raw(sql, arguments).await?.try_collect().await };
        rows.await.map_err(|error| error::server(self.operation, &error))
    }

    /// Runs statements without arguments.
    pub(crate) async fn batch(&self, sql: &str) -> Result<(), StoreError> {
        self.client.batch_execute(sql).await.map_err(|error| error::server(self.operation, &error))
    }

    /// Returns a transaction, which begins with its first statement.
    pub(crate) fn begin(self) -> Transaction {
        Transaction { session: Some(self), has_begun: false, writes: Vec::new() }
    }

    /// Sends all statements, and then waits for the answers.
    async fn all(&self, statements: Vec<Statement<'_>>) -> Result<Vec<Vec<Row>>, StoreError> {
        // Futures in order are polled in order at first, and the first poll of each sends it.
        let sent: FuturesOrdered<_> =
            statements.into_iter().map(|(sql, arguments)| self.rows(sql, arguments)).collect();
        sent.try_collect().await
    }
}

impl Read for Session {
    fn operation(&self) -> &'static str {
        self.operation
    }

    async fn read_all(&mut self, statements: Vec<Statement<'_>>) -> Result<Vec<Vec<Row>>, StoreError> {
        self.all(statements).await
    }
}

/// A transaction. What it writes is sent together with its next read or with its end, in one round trip.
///
/// One that is dropped before its end closes its connection, so that the server rolls it back.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// Set until the transaction has ended.
    session: Option<Session>,
    has_begun: bool,
    writes: Vec<Statement<'static>>,
}

impl Transaction {
    /// Adds a statement to what the transaction writes.
    pub(crate) fn write(&mut self, sql: &'static str, arguments: Vec<Argument>) {
        self.writes.push((sql, arguments));
    }

    /// Runs statements without arguments.
    pub(crate) async fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.read([]).await?;
        self.session()?.batch(sql).await
    }

    /// Commits what was written. If the connection was lost, an error does not say that nothing was committed.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        let writes = std::mem::take(&mut self.writes);
        // The server answers in order. After a failed write it answers COMMIT with a rollback, and the write's error counts.
        let session = self.session()?;
        let begin = async { if self.has_begun { Ok(()) } else { session.batch(BEGIN).await } };
        try_join3(begin, session.all(writes), session.batch("COMMIT")).await?;
        self.session = None;
        Ok(())
    }

    /// Ends the transaction without a write.
    pub(crate) async fn roll_back(mut self) -> Result<(), StoreError> {
        if self.has_begun {
            self.session()?.batch("ROLLBACK").await?;
        }
        self.session = None;
        Ok(())
    }

    async fn send(&mut self, statements: Vec<Statement<'_>>) -> Result<Vec<Vec<Row>>, StoreError> {
        let session = self.session()?;
        if self.has_begun {
            return session.all(statements).await;
        }
        let ((), rows) = try_join(session.batch(BEGIN), session.all(statements)).await?;
        self.has_begun = true;
        Ok(rows)
    }

    fn session(&self) -> Result<&Session, StoreError> {
        // Both ends consume the transaction, so the session is there.
        self.session.as_ref().ok_or_else(|| error::closed("transaction"))
    }
}

impl Read for Transaction {
    fn operation(&self) -> &'static str {
        self.session.as_ref().map_or("", |session| session.operation)
    }

    /// Earlier writes are sent together with the statements, which see them.
    async fn read_all(&mut self, statements: Vec<Statement<'_>>) -> Result<Vec<Vec<Row>>, StoreError> {
        let mut all: Vec<Statement<'_>> = std::mem::take(&mut self.writes);
        let written = all.len();
        all.extend(statements);
        let mut rows = self.send(all).await?;
        Ok(rows.split_off(written))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            drop(Object::take(session.client));
        }
    }
}
