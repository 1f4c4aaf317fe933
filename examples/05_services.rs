//! Services of the app, injected into nodes. One service is behind a trait, so that a test can replace it.
//!
//! Prints the quote that is mailed, then the quote that the same graph puts into an outbox.
//!
//! ```text
//! cargo run -p agentflow-examples --example 05_services
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use agentflow::{CompiledGraph, NodeError, Provide, RunConfig, State, graph, node};

/// A service that is a plain struct.
struct Prices(HashMap<&'static str, u32>);

/// A service with several implementations.
trait Mailer: Send + Sync {
    fn send(&self, to: &str, text: &str);
}

struct Console;

impl Mailer for Console {
    fn send(&self, to: &str, text: &str) {
        println!("mail to {to}: {text}");
    }
}

#[derive(Default)]
struct Outbox(Mutex<Vec<String>>);

impl Mailer for Outbox {
    fn send(&self, to: &str, text: &str) {
        let mut mails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mails.push(format!("{to}: {text}"));
    }
}

/// The services of the app. Nodes can inject what it provides; a node that injects anything else does not compile.
#[derive(Provide)]
struct Services {
    prices: Prices,
    #[provide(as = dyn Mailer)]
    mailer: Arc<dyn Mailer>,
}

#[derive(Clone, Debug, Default, State)]
struct Quote {
    item: String,
    total: u32,
}

#[node]
async fn price(state: &mut Quote, #[inject] prices: &Prices) -> Result<(), NodeError> {
    let unknown = || format!("there is no price for {}", state.item);
    state.total = *prices.0.get(state.item.as_str()).ok_or_else(unknown)?;
    Ok(())
}

#[node]
async fn send(state: &Quote, config: &RunConfig, #[inject] mailer: &dyn Mailer) {
    let text = format!("{} for {} EUR", state.item, state.total);
    mailer.send(config.user_id().unwrap_or("anon"), &text);
}

fn quotes(mailer: Arc<dyn Mailer>) -> CompiledGraph<Quote, Services> {
    let prices = Prices(HashMap::from([("binoculars", 120), ("a tent", 80)]));
    graph! {
        price -> send -> END;
        compile { services: Services { prices, mailer } }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ada = RunConfig::new().with_user_id("ada");
    let quote = |item: &str| Quote { item: item.to_owned(), ..Quote::default() };

    let app = quotes(Arc::new(Console));
    app.invoke(quote("binoculars"), ada.clone()).await?;
    if let Err(error) = app.invoke(quote("a boat"), ada.clone()).await {
        println!("{error}");
    }

    let outbox = Arc::new(Outbox::default());
    quotes(Arc::clone(&outbox) as _).invoke(quote("a tent"), ada).await?;
    println!("in the outbox: {:?}", outbox.0.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}
