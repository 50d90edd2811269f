//! Registrations: taken by a cashier, released at the desk.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Json, Path, Query},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::{
    auth::User,
    db::{now_ms, revision, rfc3339},
    error::ApiError,
    input::text,
    orders::MAX_LISTED,
    outbox::Change,
    server::Shop,
};

const MAX_NAME_CHARS: usize = 80;
const MAX_EMAIL_CHARS: usize = 254;

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
enum Status {
    Created,
    Released,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    name: String,
    email: Option<String>,
    status: Status,
    created_ms: i64,
    revision: i64,
}

impl Row {
    fn view(&self) -> Value {
        let Self { id, name, email, status, created_ms, revision } = self;
        let created_at = rfc3339(*created_ms);
        json!({"id": id, "name": name, "email": email, "status": status, "created_at": created_at, "revision": revision})
    }
}

const SELECT: &str = "SELECT id, name, email, status, created_ms, revision FROM registrations";

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/registrations").route(web::get().to(list)).route(web::post().to(create)))
        .route("/api/registrations/{id}/release", web::post().to(release));
}

#[derive(Deserialize)]
struct Filter {
    status: Option<Status>,
    after: Option<i64>,
}

async fn list(_: User, shop: Data<Shop>, Query(filter): Query<Filter>) -> Result<Json<Value>, ApiError> {
    // One snapshot, so that the revision is that of the list.
    let mut tx = shop.db.reader.begin().await?;
    let now = revision(&mut tx).await?;
    let limit = MAX_LISTED + 1;
    let mut rows: Vec<Row> = if let Some(after) = filter.after {
        let sql = format!("{SELECT} WHERE revision > ? ORDER BY revision LIMIT {limit}");
        sqlx::query_as(&sql).bind(after).fetch_all(&mut *tx).await?
    } else {
        let sql = format!("{SELECT} WHERE status = ? ORDER BY revision LIMIT {limit}");
        sqlx::query_as(&sql).bind(filter.status.unwrap_or(Status::Created)).fetch_all(&mut *tx).await?
    };
    let more = rows.len() > MAX_LISTED;
    rows.truncate(MAX_LISTED);
    // A list that was cut is complete only up to its last change.
    let revision = rows.last().filter(|_| more).map_or(now, |last| last.revision);
    let rows: Vec<_> = rows.iter().map(Row::view).collect();
    Ok(Json(json!({"registrations": rows, "revision": revision, "more": more})))
}

#[derive(Deserialize)]
struct New {
    name: String,
    email: Option<String>,
}

async fn create(
    user: User,
    shop: Data<Shop>,
    request: HttpRequest,
    Json(new): Json<New>,
) -> Result<HttpResponse, ApiError> {
    if !user.role.sells() {
        return Err(ApiError::forbidden("only a cashier or the manager takes registrations"));
    }
    let name = text("name", &new.name, MAX_NAME_CHARS)?;
    let email = match new.email.filter(|email| !email.trim().is_empty()) {
        Some(email) => Some(text("email", &email, MAX_EMAIL_CHARS)?),
        None => None,
    };
    if email.as_ref().is_some_and(|email| !email.contains('@')) {
        return Err(ApiError::bad("email has no @"));
    }

    let mut change = Change::begin(&shop, &request).await?;
    let revision = change.revision().await?;
    let insert = sqlx::query_scalar(
        "INSERT INTO registrations (name, email, status, created_ms, revision) VALUES (?, ?, ?, ?, ?) RETURNING id",
    );
    let insert = insert.bind(name).bind(email).bind(Status::Created).bind(now_ms()).bind(revision);
    let id: i64 = insert.fetch_one(&mut *change.tx).await?;
    let registration = find(&mut change.tx, id).await?;
    tell(&mut change, "registration.created", &registration);
    let live = change.commit().await?;
    Ok(HttpResponse::Created().json(json!({"registration": registration.view(), "live": live})))
}

async fn release(user: User, shop: Data<Shop>, request: HttpRequest, id: Path<i64>) -> Result<Json<Value>, ApiError> {
    if !user.role.releases() {
        return Err(ApiError::forbidden("only the releasing desk or the manager releases registrations"));
    }
    let mut change = Change::begin(&shop, &request).await?;
    let registration = find(&mut change.tx, *id).await?;
    if registration.status == Status::Released {
        return Err(ApiError::Conflict(format!("the registration of {} is released already", registration.name)));
    }
    let revision = change.revision().await?;
    let update = sqlx::query("UPDATE registrations SET status = ?, revision = ? WHERE id = ?");
    update.bind(Status::Released).bind(revision).bind(registration.id).execute(&mut *change.tx).await?;
    let registration = Row { status: Status::Released, revision, ..registration };
    tell(&mut change, "registration.released", &registration);
    let live = change.commit().await?;
    Ok(Json(json!({"registration": registration.view(), "live": live})))
}

async fn find(connection: &mut SqliteConnection, id: i64) -> Result<Row, ApiError> {
    let sql = format!("{SELECT} WHERE id = ?");
    let row = sqlx::query_as(&sql).bind(id).fetch_optional(connection).await?;
    row.ok_or_else(|| ApiError::NotFound(format!("there is no registration with id {id}")))
}

fn tell(change: &mut Change<'_>, event: &str, registration: &Row) {
    let Row { id, status, revision, .. } = registration;
    change.tell("registrations", event, &json!({"id": id, "status": status, "revision": revision}));
}
