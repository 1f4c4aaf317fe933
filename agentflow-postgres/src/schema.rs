//! The tables, and the steps that bring them up to date.

use agentflow::store::{StoreError, StoreErrorKind};

use crate::{
    error::Cause,
    transaction::{Read, Session},
    value::{args, one},
};

/// The steps from one version of the schema to the next. They only add, so that the version of the library before still
/// works with the tables.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// The lowest version of the schema that the code must know to work with the tables that [`MIGRATIONS`] makes.
const OLDEST_READER: i64 = 1;

/// Creates the tables in the first schema of the connection's search path, or brings them up to date.
pub(crate) async fn migrate(session: Session) -> Result<(), StoreError> {
    let latest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let operation = session.operation;
    let mut transaction = session.begin();
    // Processes that start together migrate one after the other.
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('agentflow ' || coalesce(current_schema(), ''), 0))";
    transaction.read([(lock, args![])]).await?;
    // The user of a store whose tables are there needs no right to create any.
    let [there] = transaction.read([("SELECT to_regclass('agentflow_schema') IS NOT NULL AS there", args![])]).await?;
    if !one::<bool>(operation, &there, "there")? {
        transaction
            .write("CREATE TABLE agentflow_schema (version bigint NOT NULL, oldest_reader bigint NOT NULL)", args![]);
    }
    let sql = "SELECT coalesce(max(version), 0) AS version, coalesce(max(oldest_reader), 0) AS oldest_reader
        FROM agentflow_schema";
    let [versions] = transaction.read([(sql, args![])]).await?;
    let version: i64 = one(operation, &versions, "version")?;
    let oldest_reader: i64 = one(operation, &versions, "oldest_reader")?;
    if oldest_reader > latest {
        transaction.roll_back().await?;
        let cause = format!("its schema needs version {oldest_reader}, and this library knows {latest}");
        return Err(StoreError::new(operation, StoreErrorKind::TooNew).with_source(Cause(cause)));
    }
    let done = usize::try_from(version).unwrap_or_default();
    if done >= MIGRATIONS.len() {
        return transaction.roll_back().await;
    }
    for migration in &MIGRATIONS[done..] {
        transaction.batch(migration).await?;
    }
    transaction.write("DELETE FROM agentflow_schema", args![]);
    transaction.write("INSERT INTO agentflow_schema VALUES ($1, $2)", args![latest, OLDEST_READER]);
    transaction.commit().await
}
