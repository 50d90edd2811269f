//! Orders: from the cashier's hands to the customer's.
//!
//! ```text
//! created ──▶ payment ──▶ paid ──▶ released
//!    └───────────┴──────────┴────▶ cancelled
//! ```

mod status;
mod store;

use std::collections::BTreeMap;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Json, Path, Query},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

pub(crate) use self::{
    status::Status,
    store::{MAX_LISTED, find},
};
use crate::{
    auth::User,
    db::{now_ms, revision},
    error::ApiError,
    input::text,
    outbox::Change,
    server::Shop,
};

const MAX_CUSTOMER_CHARS: usize = 80;
const MAX_LINES: usize = 50;
const MAX_QUANTITY: i64 = 999;

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/orders").route(web::get().to(list)).route(web::post().to(create)))
        .route("/api/orders/{id}", web::get().to(show))
        .route("/api/orders/{id}/status", web::post().to(set_status));
}

#[derive(Deserialize)]
struct Filter {
    status: Option<String>,
    after: Option<i64>,
}

async fn list(_: User, shop: Data<Shop>, Query(filter): Query<Filter>) -> Result<Json<Value>, ApiError> {
    // One snapshot, so that the revision is that of the list.
    let mut tx = shop.db.reader.begin().await?;
    let now = revision(&mut tx).await?;
    let (orders, more) = if let Some(after) = filter.after {
        store::changed_after(&mut tx, after).await?
    } else {
        let statuses: Result<Vec<_>, _> = match &filter.status {
            Some(list) => list.split(',').map(str::parse).collect(),
            None => Ok(Status::OPEN.to_vec()),
        };
        store::with_status(&mut tx, &statuses.map_err(ApiError::bad)?).await?
    };
    // A list that was cut is complete only up to its last change.
    let revision = orders.last().filter(|_| more).map_or(now, |order| order.revision);
    Ok(Json(json!({"orders": orders, "revision": revision, "more": more})))
}

async fn show(_: User, shop: Data<Shop>, id: Path<i64>) -> Result<Json<Value>, ApiError> {
    let mut tx = shop.db.reader.begin().await?;
    Ok(Json(json!({"order": find(&mut tx, *id).await?})))
}

#[derive(Deserialize)]
struct NewOrder {
    customer: String,
    items: Vec<NewItem>,
}

#[derive(Deserialize)]
struct NewItem {
    product_id: i64,
    quantity: i64,
}

async fn create(
    user: User,
    shop: Data<Shop>,
    request: HttpRequest,
    Json(new): Json<NewOrder>,
) -> Result<HttpResponse, ApiError> {
    if !user.role.sells() {
        return Err(ApiError::forbidden("only a cashier or the manager takes orders"));
    }
    let customer = text("customer", &new.customer, MAX_CUSTOMER_CHARS)?;
    let quantities = quantities(&new.items)?;

    let mut change = Change::begin(&shop, &request).await?;
    let revision = change.revision().await?;
    let now = now_ms();
    let insert = sqlx::query_scalar(
        "INSERT INTO orders (customer, status, total_cents, created_by, created_ms, updated_ms, revision)
         VALUES (?, ?, 0, ?, ?, ?, ?) RETURNING id",
    );
    let insert = insert.bind(customer).bind(Status::Created).bind(user.id).bind(now).bind(now).bind(revision);
    let id: i64 = insert.fetch_one(&mut *change.tx).await?;
    for (product_id, quantity) in quantities {
        take_from_stock(&mut change.tx, product_id, quantity).await?;
        let item = sqlx::query(
            "INSERT INTO order_items (order_id, product_id, name, quantity, price_cents)
             SELECT ?, id, name, ?, price_cents FROM products WHERE id = ?",
        );
        item.bind(id).bind(quantity).bind(product_id).execute(&mut *change.tx).await?;
    }
    let total = sqlx::query(
        "UPDATE orders SET total_cents = (SELECT sum(quantity * price_cents) FROM order_items WHERE order_id = orders.id)
         WHERE id = ?",
    );
    total.bind(id).execute(&mut *change.tx).await?;
    let order = find(&mut change.tx, id).await?;
    tell(&mut change, id, Status::Created, revision);
    let live = change.commit().await?;
    Ok(HttpResponse::Created().json(json!({"order": order, "live": live})))
}

#[derive(Deserialize)]
struct NewStatus {
    status: String,
}

async fn set_status(
    user: User,
    shop: Data<Shop>,
    request: HttpRequest,
    id: Path<i64>,
    Json(new): Json<NewStatus>,
) -> Result<Json<Value>, ApiError> {
    let to: Status = new.status.parse().map_err(ApiError::bad)?;
    let mut change = Change::begin(&shop, &request).await?;
    let from = sqlx::query_scalar("SELECT status FROM orders WHERE id = ?").bind(*id).fetch_optional(&mut *change.tx);
    let from: Status = from.await?.ok_or_else(|| store::unknown(*id))?;
    if !from.may_be_moved(to, user.role) {
        return Err(ApiError::forbidden(from.who_moves(to)));
    }
    if !from.leads_to(to) {
        let number = store::FIRST_NUMBER + *id;
        return Err(ApiError::Conflict(format!("order {number} is {from} and cannot become {to}")));
    }

    let revision = change.revision().await?;
    let update = sqlx::query(
        "UPDATE orders SET status = ?1, updated_ms = ?2, revision = ?3,
             paid_ms = CASE ?1 WHEN 'paid' THEN ?2 WHEN 'cancelled' THEN NULL ELSE paid_ms END
         WHERE id = ?4",
    );
    update.bind(to).bind(now_ms()).bind(revision).bind(*id).execute(&mut *change.tx).await?;
    if to == Status::Cancelled {
        let give_back = sqlx::query(
            "UPDATE products SET stock = stock + items.quantity
             FROM order_items AS items WHERE items.order_id = ? AND items.product_id = products.id",
        );
        give_back.bind(*id).execute(&mut *change.tx).await?;
    }
    let order = find(&mut change.tx, *id).await?;
    tell(&mut change, *id, to, revision);
    let live = change.commit().await?;
    Ok(Json(json!({"order": order, "live": live})))
}

/// Pieces by product: a product that is listed twice counts once.
fn quantities(items: &[NewItem]) -> Result<BTreeMap<i64, i64>, ApiError> {
    if items.is_empty() || items.len() > MAX_LINES {
        return Err(ApiError::bad(format!("an order has 1 to {MAX_LINES} items, this one has {}", items.len())));
    }
    let mut quantities = BTreeMap::new();
    for item in items {
        let sum = quantities.entry(item.product_id).or_insert(0_i64);
        *sum = sum.saturating_add(item.quantity);
        if item.quantity < 1 || *sum > MAX_QUANTITY {
            return Err(ApiError::bad(format!("the quantity of an item is 1 to {MAX_QUANTITY}")));
        }
    }
    Ok(quantities)
}

async fn take_from_stock(connection: &mut SqliteConnection, product_id: i64, quantity: i64) -> Result<(), ApiError> {
    let product = sqlx::query_as("SELECT name, stock FROM products WHERE id = ?");
    let product: Option<(String, i64)> = product.bind(product_id).fetch_optional(&mut *connection).await?;
    let (name, stock) = product.ok_or_else(|| ApiError::bad(format!("there is no product {product_id}")))?;
    if stock < quantity {
        let left = if stock == 0 { "is sold out".to_owned() } else { format!("has only {stock} left") };
        return Err(ApiError::Conflict(format!("{name} {left}")));
    }
    let take = sqlx::query("UPDATE products SET stock = stock - ? WHERE id = ?");
    take.bind(quantity).bind(product_id).execute(connection).await?;
    Ok(())
}

fn tell(change: &mut Change<'_>, id: i64, status: Status, revision: i64) {
    change.tell("orders", "order.status.changed", &json!({"id": id, "status": status, "revision": revision}));
    change.tell_dashboard();
}
