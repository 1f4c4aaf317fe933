//! A process is killed in the middle of a node, and the next one goes on with the run.
//!
//! It shows that a committed step is not done again, that the node that was cut off runs again with the same step id, and
//! that the step id keeps a payment from being made twice. The example starts itself again as the process that is killed.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 21_kill_and_recover
//! [killed process] reserve: a chair is reserved, step 1
//! [killed process] pay: the bank is asked, step 2
//! [killed process] the bank: 80 € are paid
//! -- the process is killed: the payment is made, and the step is not committed --
//! [next process] pay: the bank is asked, step 2
//! [next process] the bank: this was paid already
//! [next process] ship: the chair is shipped, step 3
//! [next process] 1 run was taken over, and has ended
//! order-7: reserved 1, paid 1, shipped 1
//! ```

use std::{
    env, fs,
    future::pending,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use agentflow::{CompiledGraph, NodeError, RunConfig, State, graph, node, run::StepId};
use agentflow_sqlite::SqliteStore;
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

#[derive(Clone, Debug, Default, State, Serialize, Deserialize)]
struct Order {
    reserved: u32,
    paid: u32,
    shipped: u32,
}

/// A bank that knows which payments were made, by the key that comes with each.
struct Bank {
    folder: PathBuf,
    /// Set in the process that is killed before the bank's answer arrives.
    hangs: bool,
}

impl Bank {
    async fn pay(&self, key: &str) -> Result<(), NodeError> {
        let payment = self.folder.join(key.replace('/', "_"));
        if payment.try_exists()? {
            println!("the bank: this was paid already");
        } else {
            fs::write(payment, "80 €")?;
            println!("the bank: 80 € are paid");
        }
        if self.hangs {
            pending::<()>().await;
        }
        Ok(())
    }
}

#[node]
async fn reserve(state: &mut Order, step: &StepId) {
    println!("reserve: a chair is reserved, step {}", step.number());
    state.reserved += 1;
}

#[node]
async fn pay(state: &mut Order, step: &StepId, #[inject] bank: &Bank) -> Result<(), NodeError> {
    println!("pay: the bank is asked, step {}", step.number());
    bank.pay(&step.to_string()).await?;
    state.paid += 1;
    Ok(())
}

#[node]
async fn ship(state: &mut Order, step: &StepId) {
    println!("ship: the chair is shipped, step {}", step.number());
    state.shipped += 1;
}

fn open(folder: &Path, hangs: bool) -> anyhow::Result<CompiledGraph<Order, Bank>> {
    Ok(graph! {
        name = "order";
        reserve -> pay -> ship -> END;
        compile {
            store: SqliteStore::open(folder.join("orders.db"))?,
            services: Bank { folder: folder.to_owned(), hangs },
        }
    })
}

/// The process that is killed.
async fn killed_process(folder: &Path) -> anyhow::Result<()> {
    let app = open(folder, true)?;
    let _ = app.thread("order-7").invoke(Order::update(), RunConfig::new()).await?;
    Ok(())
}

/// The process that is started after it.
async fn next_process(folder: &Path) -> anyhow::Result<()> {
    let app = open(folder, false)?;
    let report = app.recover().await?;
    // The runs go on in the background.
    while !app.runs().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    println!("{} run was taken over, and has ended", report.taken.len());
    app.aclose().await;
    Ok(())
}

/// Starts this program again, and prints its lines, until it ends or has printed the line at which it is killed.
fn run(name: &str, role: &str, folder: &Path, is_killed_after: Option<&str>) -> anyhow::Result<()> {
    let mut process = Command::new(env::current_exe()?).arg(role).arg(folder).stdout(Stdio::piped()).spawn()?;
    for line in BufReader::new(process.stdout.take().context("its output is piped")?).lines() {
        let line = line?;
        println!("[{name}] {line}");
        if is_killed_after.is_some_and(|last| line == last) {
            process.kill()?; // SIGKILL: the process can do nothing about it
        }
    }
    let status = process.wait()?;
    ensure!(status.success() != is_killed_after.is_some(), "the {name} has ended with {status}");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args_os().skip(1);
    if let (Some(role), Some(folder)) = (arguments.next(), arguments.next()) {
        return match role.to_str() {
            Some("killed") => killed_process(folder.as_ref()).await,
            _ => next_process(folder.as_ref()).await,
        };
    }
    let folder = tempfile::tempdir()?;
    run("killed process", "killed", folder.path(), Some("the bank: 80 € are paid"))?;
    println!("-- the process is killed: the payment is made, and the step is not committed --");
    run("next process", "next", folder.path(), None)?;

    let app = open(folder.path(), false)?;
    let order = app.thread("order-7").state().await?.context("the thread is there")?.values;
    println!("order-7: reserved {}, paid {}, shipped {}", order.reserved, order.paid, order.shipped);
    app.aclose().await;
    Ok(())
}
