//! Starts the point of sale. Settings come from the environment and from `.env` in the current directory.

use std::{
    io::{self, ErrorKind, IsTerminal},
    path::Path,
};

use anyhow::Context;
use fanfare_pos::{Config, server::Server};
use tracing_subscriber::EnvFilter;

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    // What is set already wins over the file.
    match dotenvy::from_path(Path::new(".env")) {
        Err(dotenvy::Error::Io(error)) if error.kind() == ErrorKind::NotFound => {}
        read => read.context(".env cannot be read")?,
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,actix_server=warn"));
    let format = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    format.with_env_filter(filter).init();
    let config = Config::from_lookup(|name| std::env::var(name).ok())?;
    Server::bind(config).await?.run().await
}
