//! The checks that every store has to pass.

use std::{sync::Arc, time::Duration};

use agentflow::store::{
    Store,
    conformance::{self, Fixture, FixtureFuture},
};

use agentflow_postgres::PostgresStore;
use tokio_postgres::Config;

use crate::{
    pooler::Pooler,
    support::{Database, connect, patiently, server},
};

impl Fixture for Database {
    fn open(&self) -> FixtureFuture<'_, Arc<dyn Store>> {
        Box::pin(async { Arc::new(self.store().await) as Arc<dyn Store> })
    }

    fn advance(&self, duration: Duration) -> FixtureFuture<'_, ()> {
        Box::pin(async move {
            let micros = duration.as_micros().try_into().unwrap();
            self.store().await.move_clock(micros).await.unwrap();
        })
    }
}

#[tokio::test]
async fn the_store_conforms() {
    let Some(server) = server() else { return };
    conformance::run(async || Database::on(server.clone()).await).await.unwrap();
}

/// A database behind a pooler.
struct Pooled(Config);

impl Fixture for Pooled {
    fn open(&self) -> FixtureFuture<'_, Arc<dyn Store>> {
        Box::pin(async {
            // The pooler may not have started yet.
            Arc::new(patiently(|| PostgresStore::connect_with(self.0.clone())).await) as Arc<dyn Store>
        })
    }

    fn advance(&self, duration: Duration) -> FixtureFuture<'_, ()> {
        Box::pin(async move {
            let micros = duration.as_micros().try_into().unwrap();
            PostgresStore::connect_with(self.0.clone()).await.unwrap().move_clock(micros).await.unwrap();
        })
    }
}

#[tokio::test]
async fn the_store_conforms_through_a_transaction_pooler() {
    let Some(server) = server() else { return };
    let Some(pooler) = Pooler::start(&server) else { return };
    let client = connect(&server).await;
    let fixture = async || {
        let name = format!("test_{}", agentflow::RunId::new()).replace('-', "_");
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Pooled(pooler.config(&name))
    };
    // Each check has a database of its own, because a pooler passes no search path on. That takes long, so it is every
    // fourth one.
    let names = conformance::checks();
    let selected: Vec<_> = names.iter().step_by(4).collect();
    conformance::run_selected(fixture, |name| selected.iter().any(|selected| **selected == name)).await.unwrap();
}
