//! Reading orders with their items.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::json;
use sqlx::SqliteConnection;

use super::Status;
use crate::{db::rfc3339, error::ApiError};

/// As many rows as one answer has.
pub(crate) const MAX_LISTED: usize = 500;

/// What people call an order is a bit more than its id.
const FIRST_NUMBER: i64 = 1000;

/// An order, as the pages see it.
#[derive(Debug, Serialize)]
pub(crate) struct Order {
    pub(crate) id: i64,
    pub(crate) number: i64,
    customer: String,
    pub(crate) status: Status,
    total_cents: i64,
    items: Vec<Item>,
    created_at: String,
    updated_at: String,
    created_by: String,
    pub(crate) revision: i64,
}

#[derive(Debug, Serialize, sqlx::FromRow)]
struct Item {
    #[serde(skip)]
    order_id: i64,
    product_id: i64,
    name: String,
    quantity: i64,
    price_cents: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    customer: String,
    status: Status,
    total_cents: i64,
    created_ms: i64,
    updated_ms: i64,
    created_by: String,
    revision: i64,
}

const SELECT: &str =
    "SELECT orders.id, customer, status, total_cents, created_ms, updated_ms, users.name AS created_by, revision
    FROM orders JOIN users ON users.id = created_by";

/// One order.
pub(crate) async fn find(connection: &mut SqliteConnection, id: i64) -> Result<Order, ApiError> {
    let sql = format!("{SELECT} WHERE orders.id = ?");
    let row = sqlx::query_as(&sql).bind(id).fetch_optional(&mut *connection).await?;
    let order = match row {
        Some(row) => with_items(connection, vec![row]).await?.pop(),
        None => None,
    };
    order.ok_or_else(|| ApiError::NotFound(format!("there is no order with id {id}")))
}

/// Those that changed after a revision, in the order of their changes, and whether there are more.
pub(super) async fn changed_after(
    connection: &mut SqliteConnection,
    revision: i64,
) -> sqlx::Result<(Vec<Order>, bool)> {
    let sql = format!("{SELECT} WHERE revision > ? ORDER BY revision LIMIT {}", MAX_LISTED + 1);
    let rows = sqlx::query_as(&sql).bind(revision).fetch_all(&mut *connection).await?;
    cut(connection, rows).await
}

/// Those with one of the statuses, oldest first, and whether there are more.
pub(super) async fn with_status(
    connection: &mut SqliteConnection,
    statuses: &[Status],
) -> sqlx::Result<(Vec<Order>, bool)> {
    let sql = format!(
        "{SELECT} WHERE status IN (SELECT value FROM json_each(?)) ORDER BY orders.id LIMIT {}",
        MAX_LISTED + 1
    );
    let rows = sqlx::query_as(&sql).bind(json!(statuses).to_string()).fetch_all(&mut *connection).await?;
    cut(connection, rows).await
}

async fn cut(connection: &mut SqliteConnection, mut rows: Vec<Row>) -> sqlx::Result<(Vec<Order>, bool)> {
    let more = rows.len() > MAX_LISTED;
    rows.truncate(MAX_LISTED);
    Ok((with_items(connection, rows).await?, more))
}

async fn with_items(connection: &mut SqliteConnection, rows: Vec<Row>) -> sqlx::Result<Vec<Order>> {
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let items = sqlx::query_as(
        "SELECT order_id, product_id, name, quantity, price_cents FROM order_items
         WHERE order_id IN (SELECT value FROM json_each(?)) ORDER BY product_id",
    );
    let items: Vec<Item> = items.bind(json!(ids).to_string()).fetch_all(connection).await?;
    let mut of_order: HashMap<_, Vec<_>> = HashMap::new();
    for item in items {
        of_order.entry(item.order_id).or_default().push(item);
    }
    let order = |row: Row| Order {
        id: row.id,
        number: FIRST_NUMBER + row.id,
        customer: row.customer,
        status: row.status,
        total_cents: row.total_cents,
        items: of_order.remove(&row.id).unwrap_or_default(),
        created_at: rfc3339(row.created_ms),
        updated_at: rfc3339(row.updated_ms),
        created_by: row.created_by,
        revision: row.revision,
    };
    Ok(rows.into_iter().map(order).collect())
}
