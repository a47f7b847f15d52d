//! An HTTP service that stores an order and its event together: both or neither, whatever fails.
//!
//! Needs a database with the schema of this project (`triage-service --migrate` or
//! `outbox-publisher --migrate` brings it up) and makes its own table `orders` beside it:
//!
//! ```text
//! DATABASE_URL=postgres://postgres@127.0.0.1/claimfirst cargo run --release -p shared --example http_handler
//!
//! curl -i http://127.0.0.1:8090/orders -H 'content-type: application/json' \
//!      -d '{"order_id": "4711", "customer": "ada", "total_cents": 4200}'
//! ```
//!
//! The first call answers 201, a repetition 200, and there is one event. A running outbox-publisher
//! sends it to the topic `shop.order-placed.v1`; until then it waits in the view `outbox_claims`.

use std::str::FromStr;

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use shared::doorbell::Doorbell;
use shared::outbox::{self, NewEvent};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

const TOPIC: &str = "shop.order-placed.v1";
const EVENT_TYPE: &str = "shop.order.placed";

#[derive(Clone)]
struct Shop {
    pool: PgPool,
    doorbell: Doorbell,
}

#[derive(Debug, Deserialize, Serialize)]
struct Order {
    /// Chosen by the client, so that it can repeat a request whose answer was lost.
    order_id: String,
    customer: String,
    total_cents: i64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("DATABASE_URL")
        .context("set DATABASE_URL, for example postgres://postgres@127.0.0.1/claimfirst")?;
    let options = PgConnectOptions::from_str(&url).context("read DATABASE_URL")?;
    let pool = PgPoolOptions::new()
        .connect_with(options.clone())
        .await
        .context("connect to Postgres")?;
    sqlx::query(
        "create table if not exists orders (order_id text primary key, customer text not null, total_cents bigint not null)",
    )
    .execute(&pool)
    .await
    .context("make the table of orders")?;

    let shop = Shop {
        pool,
        doorbell: Doorbell::new(options),
    };
    let router = Router::new().route("/orders", post(place_order)).with_state(shop);
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8090".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await.context("listen")?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router).await.context("serve")
}

async fn place_order(State(shop): State<Shop>, Json(order): Json<Order>) -> (StatusCode, String) {
    match store(&shop.pool, &order).await {
        Ok(true) => {
            // After the commit: the publisher looks at once instead of at its next poll.
            shop.doorbell.ring();
            (StatusCode::CREATED, format!("order {} is placed\n", order.order_id))
        }
        Ok(false) => (StatusCode::OK, format!("order {} was placed before\n", order.order_id)),
        Err(error) => {
            eprintln!("order {}: {error:#}", order.order_id);
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "try again with the same order_id\n".to_owned(),
            )
        }
    }
}

/// Stores the order and its event in one transaction. `false`: the order was there before, and so was
/// its event.
async fn store(pool: &PgPool, order: &Order) -> anyhow::Result<bool> {
    let mut tx = pool.begin().await?;
    let inserted =
        sqlx::query("insert into orders (order_id, customer, total_cents) values ($1, $2, $3) on conflict do nothing")
            .bind(&order.order_id)
            .bind(&order.customer)
            .bind(order.total_cents)
            .execute(&mut *tx)
            .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false); // dropping the transaction rolls it back
    }
    // Keyed by customer: the orders of one customer stay in order, and meet one partition.
    let event = NewEvent::new(TOPIC, EVENT_TYPE, serde_json::to_vec(order)?).key(order.customer.as_bytes());
    outbox::enqueue(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(true)
}
