//! The built front end: one page for all routes, and its files.

use std::path::Path;

use actix_files::{Files, NamedFile};
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, LOCATION, REFERRER_POLICY},
    middleware::DefaultHeaders,
    web::{self, Data},
};

use crate::{
    auth::{Role, User},
    error::ApiError,
    server::Shop,
};

const LOGIN: &str = "/login";
const PAGES: [&str; 7] = [
    "/",
    LOGIN,
    "/dashboard",
    "/cashier/pos",
    "/cashier/registrations",
    "/releasing/orders",
    "/releasing/registrations",
];

/// Scripts are our own alone; the broadcast server may be anywhere.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss: http: https:; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; media-src 'self' data: blob:; frame-ancestors 'none'";

impl Role {
    /// Where somebody with this role begins.
    fn home(self) -> &'static str {
        match self {
            Self::Cashier => "/cashier/pos",
            Self::Releasing => "/releasing/orders",
            Self::Manager => "/dashboard",
        }
    }

    fn may_see(self, page: &str) -> bool {
        match self {
            Self::Cashier => page.starts_with("/cashier/"),
            Self::Releasing => page.starts_with("/releasing/"),
            Self::Manager => page != "/" && page != LOGIN,
        }
    }
}

pub(crate) fn routes(config: &mut web::ServiceConfig, dist: &Path) {
    for path in PAGES {
        config.route(path, web::get().to(page));
    }
    if !dist.is_dir() {
        config.default_service(web::to(nothing));
        return;
    }
    // Their names change with their content.
    let assets = web::scope("/assets")
        .wrap(DefaultHeaders::new().add((CACHE_CONTROL, "public, max-age=31536000, immutable")))
        .service(Files::new("", dist.join("assets")));
    config.service(assets).service(Files::new("/", dist).default_handler(web::to(nothing)));
}

async fn nothing(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    Err(ApiError::NotFound(format!("there is nothing at {}", request.path())))
}

async fn page(user: Result<User, ApiError>, shop: Data<Shop>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let page = request.path();
    let elsewhere = match user {
        Ok(user) if user.role.may_see(page) => None,
        Ok(user) => Some(user.role.home()),
        Err(ApiError::NotSignedIn) => Some(LOGIN).filter(|login| *login != page),
        Err(error) => return Err(error),
    };
    if let Some(elsewhere) = elsewhere {
        return Ok(HttpResponse::Found().insert_header((LOCATION, elsewhere)).finish());
    }
    let index = shop.web.join("index.html");
    let Ok(file) = NamedFile::open(&index) else {
        let text = format!("The pages are not built: {} is missing. Start with examples/pos/run.", index.display());
        return Ok(HttpResponse::NotFound().content_type("text/plain; charset=utf-8").body(text));
    };
    let mut response = file.into_response(&request);
    for (name, value) in
        [(CACHE_CONTROL, "no-cache"), (CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "same-origin")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
