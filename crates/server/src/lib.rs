//! Fanfare: a self-hosted broadcast server for stock Pusher Channels clients and SDKs.

pub mod cli;
pub mod config;
mod logging;
mod startup;

/// Serves until the process is told to stop.
///
/// # Errors
/// The address cannot be bound.
#[expect(clippy::needless_pass_by_value, reason = "the server owns its configuration")]
pub fn serve(config: config::Config) -> anyhow::Result<()> {
    let address = std::net::SocketAddr::new(config.server.host, config.server.port);
    tracing::info!("listening on http://{address}\n\n{}", startup::paste_lines(&config, address));
    Ok(())
}
