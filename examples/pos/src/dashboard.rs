//! The manager's figures, and whether the other screens are up to date.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use actix_web::web::{self, Data, Json, Query};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sqlx::SqliteConnection;

use crate::{
    auth::{Role, User},
    db::{now_ms, rfc3339},
    error::ApiError,
    orders::Status,
    server::Shop,
};

const HOUR_MS: i64 = 3_600_000;
/// As many hours as the chart has.
const HOURS: i64 = 24;

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config.route("/api/dashboard", web::get().to(show)).route("/api/live", web::get().to(live));
}

async fn live(_: User, shop: Data<Shop>) -> Result<Json<Value>, ApiError> {
    let waiting = shop.outbox.waiting(&mut *shop.db.reader.acquire().await?).await?;
    Ok(Json(json!({"live": waiting == 0, "waiting": waiting})))
}

#[derive(Deserialize)]
struct Range {
    since: Option<String>,
}

async fn show(user: User, shop: Data<Shop>, Query(range): Query<Range>) -> Result<Json<Value>, ApiError> {
    if user.role != Role::Manager {
        return Err(ApiError::forbidden("only the manager sees the dashboard"));
    }
    let now = now_ms();
    let since = range.since.as_deref().map_or(Ok(now - HOURS * HOUR_MS), parse)?;

    let mut tx = shop.db.reader.begin().await?;
    let sales = "SELECT count(*), coalesce(sum(total_cents), 0) FROM orders WHERE paid_ms >= ?";
    let (sales_count, revenue_cents): (i64, i64) = sqlx::query_as(sales).bind(since).fetch_one(&mut *tx).await?;
    Ok(Json(json!({
        "orders_by_status": by_status(&mut tx, since).await?,
        "sales_count": sales_count,
        "revenue_cents": revenue_cents,
        "revenue_by_hour": by_hour(&mut tx, since, now).await?,
        "stock": stock(&mut tx).await?,
        "not_live": shop.outbox.waiting(&mut tx).await?,
    })))
}

fn parse(text: &str) -> Result<i64, ApiError> {
    let bad = || ApiError::bad(format!("since is \"{text}\", which is not a time like 2026-01-31T00:00:00Z"));
    let time: SystemTime = humantime::parse_rfc3339(text).map_err(|_| bad())?;
    let elapsed = time.duration_since(UNIX_EPOCH).map_err(|_| bad())?;
    i64::try_from(elapsed.as_millis()).map_err(|_| bad())
}

async fn by_status(connection: &mut SqliteConnection, since: i64) -> sqlx::Result<Map<String, Value>> {
    let sql = "SELECT status, count(*) FROM orders
        WHERE created_ms >= ? OR status IN ('created', 'payment', 'paid') GROUP BY status";
    let counts: Vec<(Status, i64)> = sqlx::query_as(sql).bind(since).fetch_all(connection).await?;
    let count = |status| counts.iter().find(|(found, _)| *found == status).map_or(0, |(_, count)| *count);
    Ok(Status::ALL.map(|status| (status.to_string(), count(status).into())).into_iter().collect())
}

async fn by_hour(connection: &mut SqliteConnection, since: i64, now: i64) -> sqlx::Result<Vec<Value>> {
    let last = now / HOUR_MS;
    let first = (since / HOUR_MS).max(last - HOURS + 1);
    let sql = "SELECT paid_ms / 3600000, sum(total_cents), count(*) FROM orders WHERE paid_ms >= ? GROUP BY 1";
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(sql).bind(since).fetch_all(connection).await?;
    let sales: HashMap<_, _> = rows.into_iter().map(|(hour, cents, count)| (hour, (cents, count))).collect();
    let hour = |hour| {
        let (cents, count) = sales.get(&hour).copied().unwrap_or_default();
        json!({"hour": rfc3339(hour * HOUR_MS), "cents": cents, "count": count})
    };
    Ok((first..=last).map(hour).collect())
}

async fn stock(connection: &mut SqliteConnection) -> sqlx::Result<Vec<Value>> {
    let rows: Vec<(i64, String, i64)> =
        sqlx::query_as("SELECT id, name, stock FROM products ORDER BY stock, id").fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(id, name, stock)| json!({"product_id": id, "name": name, "stock": stock})).collect())
}
