//! Owners and their leases.

use std::time::Duration;

use agentflow::store::{OwnerId, StoreError, Timestamp};

use crate::{
    runs::NOTIFY,
    transaction::{Read, Session},
    value::{args, one},
};

pub(crate) async fn join(session: Session, owner: OwnerId, lease: Duration) -> Result<(), StoreError> {
    let mut transaction = session.begin();
    transaction.write(
        "INSERT INTO agentflow_owners (id, renewed, expires) VALUES ($1, agentflow_now(), agentflow_after($2))
            ON CONFLICT (id) DO UPDATE SET renewed = excluded.renewed, expires = excluded.expires",
        args![owner, lease],
    );
    // Owners that died an hour ago and hold nothing, and items that have expired. A start of a process is rare, and there
    // is one as long as something is written.
    transaction.write(
        "DELETE FROM agentflow_owners o WHERE o.expires < agentflow_now() - 3600000000
            AND NOT EXISTS (SELECT FROM agentflow_runs WHERE owner = o.id AND status IN ('queued', 'running'))
            AND NOT EXISTS (SELECT FROM agentflow_tasks WHERE owner = o.id AND status = 'running')",
        args![],
    );
    transaction.write("DELETE FROM agentflow_items WHERE expires < agentflow_now()", args![]);
    transaction.commit().await
}

/// The renewal of a lease; a row says that the owner is there.
pub(crate) const RENEW: &str = "UPDATE agentflow_owners SET renewed = agentflow_now(), expires = agentflow_after($2)
    WHERE id = $1 RETURNING id";

pub(crate) async fn leave(session: Session, owner: OwnerId) -> Result<(), StoreError> {
    let mut transaction = session.begin();
    transaction.write("DELETE FROM agentflow_owners WHERE id = $1", args![owner]);
    transaction.write(NOTIFY, args![]);
    transaction.commit().await
}

pub(crate) async fn now(mut session: Session) -> Result<Timestamp, StoreError> {
    let [row] = session.read([("SELECT agentflow_now() AS now", args![])]).await?;
    one(session.operation, &row, "now")
}

/// Moves the clock of the store, for tests.
pub(crate) async fn move_clock(session: Session, micros: i64) -> Result<(), StoreError> {
    let mut transaction = session.begin();
    transaction.write("SELECT agentflow_lock('clock')", args![]);
    transaction.write("CREATE TABLE IF NOT EXISTS agentflow_test_clock (moved bigint NOT NULL)", args![]);
    transaction.write("INSERT INTO agentflow_test_clock VALUES ($1)", args![micros]);
    transaction.write(
        "CREATE OR REPLACE FUNCTION agentflow_now() RETURNS bigint LANGUAGE sql VOLATILE AS $$
            SELECT (extract(epoch FROM clock_timestamp()) * 1000000 + sum(moved))::bigint FROM agentflow_test_clock $$",
        args![],
    );
    transaction.commit().await
}
