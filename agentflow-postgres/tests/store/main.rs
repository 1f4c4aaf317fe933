//! The store in PostgreSQL. Every test has a schema of its own on the server that `AGENTFLOW_POSTGRES_URL` names; without
//! one, the tests are left out. `.ci/postgres cargo test -p agentflow-postgres` starts a server for them.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test's name documents it, and a test fails by panicking")]

mod conformance;
mod outages;
mod pooler;
mod schema;
mod support;
mod values;
