//! Reading orders with their items.

use serde::Serialize;
use serde_json::{json, value::RawValue};
use sqlx::{FromRow, Row, SqliteConnection, sqlite::SqliteRow};

use super::Status;
use crate::{db::rfc3339, error::ApiError};

/// As many rows as one answer has.
pub(crate) const MAX_LISTED: usize = 500;

/// What people call an order is a bit more than its id.
pub(super) const FIRST_NUMBER: i64 = 1000;

/// An order, as the pages see it.
#[derive(Debug, Serialize)]
pub(crate) struct Order {
    pub(crate) id: i64,
    number: i64,
    customer: String,
    status: Status,
    total_cents: i64,
    /// As the database wrote it.
    items: Box<RawValue>,
    created_at: String,
    updated_at: String,
    created_by: String,
    pub(super) revision: i64,
}

impl FromRow<'_, SqliteRow> for Order {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let id = row.try_get("id")?;
        let items = RawValue::from_string(row.try_get("items")?);
        Ok(Self {
            id,
            number: FIRST_NUMBER + id,
            customer: row.try_get("customer")?,
            status: row.try_get("status")?,
            total_cents: row.try_get("total_cents")?,
            items: items.map_err(|error| sqlx::Error::Decode(error.into()))?,
            created_at: rfc3339(row.try_get("created_ms")?),
            updated_at: rfc3339(row.try_get("updated_ms")?),
            created_by: row.try_get("created_by")?,
            revision: row.try_get("revision")?,
        })
    }
}

/// One query for an order and its items: each is a way to the database's thread and back.
const SELECT: &str = "SELECT orders.*, users.name AS created_by, (
        SELECT json_group_array(json_object(
            'product_id', product_id, 'name', items.name, 'quantity', quantity, 'price_cents', price_cents
        ) ORDER BY product_id)
        FROM order_items AS items WHERE order_id = orders.id
    ) AS items
    FROM orders JOIN users ON users.id = orders.created_by";

/// One order.
pub(crate) async fn find(connection: &mut SqliteConnection, id: i64) -> Result<Order, ApiError> {
    let sql = format!("{SELECT} WHERE orders.id = ?");
    let order = sqlx::query_as(&sql).bind(id).fetch_optional(connection).await?;
    order.ok_or_else(|| unknown(id))
}

/// The error for an order that is not there.
pub(super) fn unknown(id: i64) -> ApiError {
    ApiError::NotFound(format!("there is no order with id {id}"))
}

/// Those that changed after a revision, in the order of their changes, and whether there are more.
pub(super) async fn changed_after(
    connection: &mut SqliteConnection,
    revision: i64,
) -> sqlx::Result<(Vec<Order>, bool)> {
    let sql = format!("{SELECT} WHERE revision > ? ORDER BY revision LIMIT {}", MAX_LISTED + 1);
    Ok(cut(sqlx::query_as(&sql).bind(revision).fetch_all(connection).await?))
}

/// Those with one of the statuses, in the order of their last changes, and whether there are more.
pub(super) async fn with_status(
    connection: &mut SqliteConnection,
    statuses: &[Status],
) -> sqlx::Result<(Vec<Order>, bool)> {
    let sql =
        format!("{SELECT} WHERE status IN (SELECT value FROM json_each(?)) ORDER BY revision LIMIT {}", MAX_LISTED + 1);
    Ok(cut(sqlx::query_as(&sql).bind(json!(statuses).to_string()).fetch_all(connection).await?))
}

fn cut(mut orders: Vec<Order>) -> (Vec<Order>, bool) {
    let more = orders.len() > MAX_LISTED;
    orders.truncate(MAX_LISTED);
    (orders, more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::seed, db::Database};

    #[tokio::test]
    async fn a_long_list_is_complete_page_by_page() {
        let directory = tempfile::tempdir().unwrap();
        let db = Database::open(&directory.path().join("pos.sqlite")).await.unwrap();
        seed(&db.writer).await.unwrap();
        // Higher ids have lower revisions: pages follow the revisions.
        let insert = sqlx::query(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1001)
             INSERT INTO orders (customer, status, total_cents, created_by, created_ms, updated_ms, revision)
             SELECT 'Ada', 'created', 0, 1, 0, 0, 2000 - i FROM n",
        );
        insert.execute(&db.writer).await.unwrap();
        let mut connection = db.reader.acquire().await.unwrap();
        let (mut orders, mut more) = with_status(&mut connection, &Status::OPEN).await.unwrap();
        while more {
            let (page, left) = changed_after(&mut connection, orders.last().unwrap().revision).await.unwrap();
            assert!(page.len() <= MAX_LISTED);
            orders.extend(page);
            more = left;
        }
        assert!(orders.iter().map(|order| order.id).eq((1..=1001).rev()));
    }
}
