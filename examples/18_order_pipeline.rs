//! An order pipeline: a decision for each line of an order. What is in stock is packed, what is short is ordered from the
//! supplier, and a download needs neither.
//!
//! It shows arms that carry values of different types to their nodes, an arm that leads to `JOIN`, a node that is retried
//! with the same value, and a field that the branches add up.
//!
//! The original is a state machine that maps over the lines of an order and chooses by the stock, such as
//! <https://dev.to/aws-builders/aws-step-functions-simple-order-flow-6gn>.
//!
//! ```console
//! $ cargo run -p agentflow-examples --example 18_order_pipeline
//!     CHECK[0]: Stock::Enough(line), on to PACK[0] with Line
//!     PACK[0] is tried again: the scale is busy
//!     CHECK[1]: Stock::Short(line, missing), on to REORDER[1] with (Line, u32)
//!     CHECK[2]: Stock::Download, on to JOIN[2]
//!     CHECK[3]: Stock::Enough(line), on to PACK[3] with Line
//! packed: 2 × feather
//! packed: 1 × lamp
//! from the supplier: 3 × perch
//! the customer pays 127
//! ```

use agentflow::{CompiledGraph, NodeError, Route, RunConfig, State, graph, node, run::EventKind};

#[derive(Clone, Debug)]
struct Line {
    product: &'static str,
    quantity: u32,
    price: u32,
}

#[derive(Clone, Debug, Default, State)]
struct Order {
    lines: Vec<Line>,
    #[state(append)]
    packed: Vec<String>,
    #[state(append)]
    reordered: Vec<String>,
    /// The price for the customer, to which each branch adds its part.
    #[state(with = add)]
    amount: u32,
    receipt: String,
}

fn add(amount: &mut u32, part: u32) {
    *amount += part;
}

#[derive(Debug, Route)]
enum Stock {
    Enough(Line),
    /// The line, and the number of pieces that are missing.
    Short(Line, u32),
    Download,
}

/// The lines are the items: each is the `input` of the first node of its branch.
fn lines(order: &Order) -> Vec<Line> {
    order.lines.clone()
}

/// Adds the price of a line, and decides by the stock. It returns both an update and a route.
#[node(CHECK)]
async fn check_stock(_state: &Order, input: Line) -> (OrderUpdate, Stock) {
    let in_stock = match input.product {
        "perch" => 2,
        _ => 10,
    };
    let update = Order::update().amount(input.quantity * input.price);
    let stock = match input {
        Line { product: "song", .. } => Stock::Download,
        line if line.quantity > in_stock => {
            let missing = line.quantity - in_stock;
            Stock::Short(line, missing)
        }
        line => Stock::Enough(line),
    };
    (update, stock)
}

/// Fails at the first attempt for feathers. Each attempt has the same line.
#[node]
async fn pack(_state: &Order, input: &Line, attempt: u32) -> Result<OrderUpdate, NodeError> {
    if input.product == "feather" && attempt == 1 {
        return Err("the scale is busy".into());
    }
    Ok(Order::update().packed([format!("{} × {}", input.quantity, input.product)]))
}

/// Orders what is missing from the supplier.
#[node(REORDER)]
async fn reorder(_state: &Order, input: (Line, u32)) -> OrderUpdate {
    let (line, missing) = input;
    Order::update().reordered([format!("{missing} × {}", line.product)])
}

#[node(CHARGE)]
async fn charge(state: &mut Order) {
    state.receipt = format!("the customer pays {}", state.amount);
}

fn pipeline() -> CompiledGraph<Order> {
    graph! {
        node PACK = pack { retry: 2 };
        START -> each lines {
            CHECK -> match {
                Stock::Enough(line) => PACK(line),
                Stock::Short(line, missing) => REORDER((line, missing)),
                Stock::Download => JOIN,
            }
        } -> CHARGE -> END
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), agentflow::RunError> {
    let line = |product, quantity, price| Line { product, quantity, price };
    let lines = vec![line("feather", 2, 1), line("perch", 5, 20), line("song", 1, 5), line("lamp", 1, 20)];
    let mut run = pipeline().stream(Order { lines, ..Order::default() }, RunConfig::new());
    while let Some(event) = run.next().await {
        match event.kind {
            EventKind::RouteTaken { node, route, to, carries, .. } => {
                let with = carries.map(|carries| format!(" with {carries}")).unwrap_or_default();
                println!("    {node}: {route}, on to {to}{with}");
            }
            EventKind::NodeFailed { node, error, retry_in: Some(_), .. } => {
                println!("    {node} is tried again: {error}");
            }
            _ => {}
        }
    }
    let order = run.finish().await?;
    order.packed.iter().for_each(|packed| println!("packed: {packed}"));
    order.reordered.iter().for_each(|missing| println!("from the supplier: {missing}"));
    println!("{}", order.receipt);
    Ok(())
}
