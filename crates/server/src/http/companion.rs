//! The companion script for clients, for pages without a bundler: `/recover.js`, and as a module `/recover.mjs`.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::LazyLock,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};

/// As pages get it.
struct File {
    text: &'static str,
    etag: String,
}

impl File {
    fn new(text: &'static str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { text, etag: format!("\"{:016x}\"", hasher.finish()) }
    }
}

static SCRIPT: LazyLock<File> =
    LazyLock::new(|| File::new(include_str!("../../../../packages/recover/dist/recover.js")));
static MODULE: LazyLock<File> = LazyLock::new(|| File::new(include_str!("../../../../packages/recover/dist/index.js")));

/// Caches ask again after so many seconds, and usually learn that nothing has changed.
const CACHE_CONTROL: &str = "public, max-age=3600";

/// Answers with the script, or that the caller's copy is still right.
pub(super) fn answer(request: &HttpRequest, module: bool) -> HttpResponse {
    let file = if module { &*MODULE } else { &*SCRIPT };
    let known = request.headers().get_all(header::IF_NONE_MATCH).filter_map(|value| value.to_str().ok());
    let is_ours = |tag: &str| matches!(tag.trim().trim_start_matches("W/"), tag if tag == file.etag || tag == "*");
    let fresh = known.flat_map(|list| list.split(',')).any(is_ours);
    let mut response = HttpResponse::build(if fresh { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    response
        .insert_header((header::ETAG, file.etag.as_str()))
        .insert_header((header::CACHE_CONTROL, CACHE_CONTROL))
        // Modules of another origin need it; there is nothing secret about them.
        .insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"));
    if fresh {
        return response.finish();
    }
    response.insert_header((header::CONTENT_TYPE, "text/javascript; charset=utf-8")).body(file.text)
}
