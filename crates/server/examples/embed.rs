//! Fanfare inside an actix-web application: its routes beside yours, on your server.
//!
//!     cargo run --example embed -- --port 6001
//!
//! It takes the flags of `fanfare serve`, so that the tests of the real clients can run against it.

use std::path::PathBuf;

use actix_web::{App, HttpServer, web};
use clap::Parser;
use fanfare_server::{
    Fanfare,
    config::{Config, Overrides, process_environment},
};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Args {
    /// `serve`, as for the binary
    #[arg(default_value = "serve")]
    _command: String,
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long)]
    port: Option<u16>,
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let args = Args::parse();
    let overrides = Overrides { host: None, port: args.port };
    let config = Config::load(args.config.as_deref(), process_environment()?, overrides)?;

    let fanfare = Fanfare::start(&config)?;
    let routes = fanfare.clone();
    let server = HttpServer::new(move || {
        App::new()
            .configure(routes.routes())
            .route("/hello", web::get().to(|| async { "a page of the application's own\n" }))
    })
    .on_connect(Fanfare::on_connect(&config))
    .h1_allow_half_closed(false)
    .tcp_nodelay(true)
    .disable_signals()
    .bind((config.server.host, config.server.port))?;
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    let serving = actix_web::rt::spawn(server);
    tracing::info!("listening on http://{address}");

    let mut terminate = signal(SignalKind::terminate())?;
    terminate.recv().await;
    tokio::select! {
        () = fanfare.shutdown() => {}
        _ = terminate.recv() => return Ok(()),
    }
    handle.stop(true).await;
    serving.await??;
    Ok(())
}
