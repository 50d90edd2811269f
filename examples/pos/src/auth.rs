//! Who is signed in: staff, passwords, sessions, and what a role may do.

use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time::Duration as CookieDuration},
    dev::Payload,
    web::{self, Data, Json},
};
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::SqlitePool;

use crate::{db::now_ms, error::ApiError, server::Shop};

const COOKIE: &str = "pos_session";
/// A long working day.
const SESSION_HOURS: i64 = 12;

/// The staff of a new database, as the sign-in page shows it: username, name, role, password.
const DEMO_STAFF: [(&str, &str, Role, &str); 4] = [
    ("cashier", "Carla", Role::Cashier, "cashier-demo"),
    ("cashier2", "Chen", Role::Cashier, "cashier2-demo"),
    ("releasing", "Rosa", Role::Releasing, "releasing-demo"),
    ("manager", "Malik", Role::Manager, "manager-demo"),
];

/// What somebody does in the shop, and so may do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Takes orders and money.
    Cashier,
    /// Hands out what was paid.
    Releasing,
    /// May do everything.
    Manager,
}

impl Role {
    /// May create orders and registrations, and take payments.
    pub(crate) fn sells(self) -> bool {
        matches!(self, Self::Cashier | Self::Manager)
    }

    /// May hand out orders and registrations.
    pub(crate) fn releases(self) -> bool {
        matches!(self, Self::Releasing | Self::Manager)
    }
}

/// The signed-in person. A handler that takes one answers 401 to everybody else.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) role: Role,
}

impl FromRequest for User {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let shop = request.app_data::<Data<Shop>>().cloned();
        let token = request.cookie(COOKIE);
        Box::pin(async move {
            let (Some(shop), Some(token)) = (shop, token) else { return Err(ApiError::NotSignedIn) };
            let user = sqlx::query_as(
                "SELECT users.id, name, role FROM sessions JOIN users ON users.id = user_id
                 WHERE digest = ? AND expires_ms > ?",
            );
            let user = user.bind(digest(token.value())).bind(now_ms()).fetch_optional(&shop.db.reader).await?;
            user.ok_or(ApiError::NotSignedIn)
        })
    }
}

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/api/session")
                .route(web::get().to(show))
                .route(web::post().to(sign_in))
                .route(web::delete().to(sign_out)),
        )
        .route("/api/demo", web::get().to(demo));
}

/// Adds the demo staff to a database without any.
pub(crate) async fn seed(pool: &SqlitePool) -> anyhow::Result<()> {
    if sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users)").fetch_one(pool).await? {
        return Ok(());
    }
    for (username, name, role, password) in DEMO_STAFF {
        let hash = Argon2::default().hash_password(password.as_bytes())?.to_string();
        let insert = sqlx::query("INSERT INTO users (username, name, role, password_hash) VALUES (?, ?, ?, ?)");
        insert.bind(username).bind(name).bind(role).bind(hash).execute(pool).await?;
    }
    Ok(())
}

async fn demo() -> HttpResponse {
    let users = DEMO_STAFF.map(|(username, name, role, password)| {
        json!({"username": username, "name": name, "role": role, "password": password})
    });
    HttpResponse::Ok().json(json!({"users": users}))
}

async fn show(user: User, shop: Data<Shop>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"user": user, "realtime": shop.pusher.realtime}))
}

#[derive(Deserialize)]
struct SignIn {
    username: String,
    password: String,
}

async fn sign_in(shop: Data<Shop>, Json(form): Json<SignIn>) -> Result<HttpResponse, ApiError> {
    #[derive(sqlx::FromRow)]
    struct Found {
        #[sqlx(flatten)]
        user: User,
        password_hash: String,
    }
    let found = sqlx::query_as("SELECT id, name, role, password_hash FROM users WHERE username = ?");
    let found: Option<Found> = found.bind(form.username.trim()).fetch_optional(&shop.db.reader).await?;
    let found = found.ok_or(ApiError::WrongPassword)?;

    // Checking a password is meant to be expensive: two at a time leave the machine to the others.
    let _turn = shop.sign_ins.acquire().await.map_err(|error| ApiError::Internal(error.into()))?;
    let Found { user, password_hash } = found;
    let fits = web::block(move || {
        let hash = PasswordHash::new(&password_hash);
        hash.is_ok_and(|hash| Argon2::default().verify_password(form.password.as_bytes(), &hash).is_ok())
    });
    if !fits.await? {
        return Err(ApiError::WrongPassword);
    }

    let token = hex::encode(rand::random::<[u8; 32]>());
    let expires_ms = now_ms() + SESSION_HOURS * 3_600_000;
    let mut tx = shop.db.writer.begin().await?;
    sqlx::query("DELETE FROM sessions WHERE expires_ms <= ?").bind(now_ms()).execute(&mut *tx).await?;
    let insert = sqlx::query("INSERT INTO sessions (digest, user_id, expires_ms) VALUES (?, ?, ?)");
    insert.bind(digest(&token)).bind(user.id).bind(expires_ms).execute(&mut *tx).await?;
    tx.commit().await?;
    let cookie = cookie(token, CookieDuration::hours(SESSION_HOURS));
    Ok(HttpResponse::Ok().cookie(cookie).json(json!({"user": user})))
}

async fn sign_out(shop: Data<Shop>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    if let Some(token) = request.cookie(COOKIE) {
        sqlx::query("DELETE FROM sessions WHERE digest = ?")
            .bind(digest(token.value()))
            .execute(&shop.db.writer)
            .await?;
    }
    Ok(HttpResponse::NoContent().cookie(cookie(String::new(), CookieDuration::ZERO)).finish())
}

fn cookie(token: String, max_age: CookieDuration) -> Cookie<'static> {
    Cookie::build(COOKIE, token).path("/").http_only(true).same_site(SameSite::Lax).max_age(max_age).finish()
}

fn digest(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}
