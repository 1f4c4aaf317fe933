//! The tables: how they are made, and who may use them.

use agentflow::store::{Store, StoreErrorKind};
use agentflow_postgres::PostgresStore;

use crate::support::{Database, begun, owner, thread_id};

#[tokio::test]
async fn stores_that_open_together_make_the_tables_once() {
    let Some(database) = Database::new().await else { return };
    let (first, second, third) = tokio::join!(database.store(), database.store(), database.store());
    for store in [&first, &second, &third] {
        store.open().await.unwrap();
    }
    let owner = owner(&first).await;
    begun(&second, "a", owner).await;
    assert!(third.thread(&thread_id("a")).await.unwrap().is_some());
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused() {
    let Some(database) = Database::new().await else { return };
    drop(database.store().await);
    let client = database.client().await;
    client.batch_execute("UPDATE agentflow_schema SET version = 99").await.unwrap();
    // The version before still works with them.
    drop(database.store().await);
    client.batch_execute("UPDATE agentflow_schema SET oldest_reader = 99").await.unwrap();
    let error = PostgresStore::connect_with(database.config.clone()).await.unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::TooNew, "{error}");
    assert!(error.to_string().contains("99"), "{error}");
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_a_typed_error() {
    let Some(database) = Database::new().await else { return };
    let mut config = database.config.clone();
    config.options(format!("-c search_path={} -c default_transaction_read_only=on", database.schema));
    let error = PostgresStore::connect_with(config).await.unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::ReadOnly, "{error}");
}

#[tokio::test]
async fn a_text_that_is_no_connection_string_is_invalid() {
    let error = PostgresStore::connect("postgres://host:port").await.unwrap_err();
    assert_eq!(*error.kind(), StoreErrorKind::Invalid, "{error}");
    assert!(!error.may_pass());
}

#[tokio::test]
async fn a_closed_store_refuses_operations() {
    let Some(database) = Database::new().await else { return };
    let store = database.store().await;
    let owner = owner(&store).await;
    store.close().await.unwrap();
    assert!(!store.now().await.unwrap_err().may_pass());
    assert!(!store.renew(owner, crate::support::LEASE).await.unwrap_err().may_pass());
}
