//! The server as a whole: listener, workers, and a shutdown that loses nothing.

use std::{
    future::{Future, ready},
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering},
    thread::available_parallelism,
    time::Duration,
};

use actix_codec::Framed;
use actix_http::{HttpService, KeepAlive, Request, h1};
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{App, HttpRequest, dev::AppConfig, web};
use anyhow::Context as _;
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    config::{Config, MetricsConfig},
    http,
    limits::{BACKLOG, TLS_HANDSHAKES},
    metrics::{AppMetrics, Counter},
    node::Node,
    reload::Reload,
    startup, tls,
    transport::websocket,
    worker::Worker,
};

/// How long requests under way may take when everything else has stopped, in seconds.
const LAST_REQUESTS_SECONDS: u64 = 1;

/// Everything one worker thread answers on a listener: HTTP by actix-web, and upgrades by our own transport.
macro_rules! service {
    ($node:expr, $stream:ty) => {{
        let (node, worker) = ($node, Worker::start($node));
        let (config, api) = (&node.config, Arc::clone(node));
        HttpService::build()
            .keep_alive(KeepAlive::Timeout(config.keep_alive))
            .client_request_timeout(config.request_timeout)
            .client_disconnect_timeout(Duration::from_secs(1))
            .upgrade(fn_service(move |(request, framed): (Request, Framed<$stream, h1::Codec>)| {
                websocket::upgrade(&worker, &request, framed);
                ready(Ok::<_, actix_web::Error>(()))
            }))
            .finish(map_config(
                App::new()
                    .default_service(web::to(move |request, payload| http::respond(Arc::clone(&api), request, payload)))
                    .into_factory()
                    .map_err(|error: actix_web::Error| error.error_response()),
                |_| AppConfig::default(),
            ))
    }};
}

/// What a worker thread answers on the port of the metrics.
macro_rules! metrics_service {
    ($node:expr) => {{
        let node = Arc::clone($node);
        HttpService::build()
            .keep_alive(KeepAlive::Timeout(node.config.keep_alive))
            .client_request_timeout(node.config.request_timeout)
            .finish(map_config(
                App::new()
                    .default_service(web::to(move |request: HttpRequest| ready(http::respond_metrics(&node, &request))))
                    .into_factory()
                    .map_err(|error: actix_web::Error| error.error_response()),
                |_| AppConfig::default(),
            ))
    }};
}

/// A server that has its port, and does not answer yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<rustls::ServerConfig>,
    reload: Option<Reload>,
    /// The port of the metrics, where they have one of their own.
    metrics: Option<TcpListener>,
}

impl Server {
    /// Takes the port of the configuration, and reads the certificate.
    ///
    /// # Errors
    /// The address is in use, or not this machine's; the certificate or key cannot be used.
    pub fn bind(mut config: Config) -> anyhow::Result<Self> {
        let tls = tls::load(&config.tls)?;
        let address = SocketAddr::new(config.server.host, config.server.port);
        let listener =
            listen(address, config.server.write_timeout).with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        config.server.port = address.port();
        let metrics = match config.metrics {
            MetricsConfig { enabled: true, port: Some(port), host, .. } => {
                let address = SocketAddr::new(host, port);
                Some(
                    listen(address, config.server.write_timeout)
                        .with_context(|| format!("metrics.port: cannot listen on {address}"))?,
                )
            }
            _ => None,
        };
        Ok(Self { config, listener, address, tls, reload: None, metrics })
    }

    /// Takes changes of the configuration while it runs: on SIGHUP, and when a file of `reload` changes if
    /// `server.watch_config` says so.
    #[must_use]
    pub fn with_reload(self, reload: Reload) -> Self {
        Self { reload: Some(reload), ..self }
    }

    /// Where the metrics are told, if they have a port of their own.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready, then drains: new connections are refused, the others are sent to reconnect over the grace
    /// period, webhooks are delivered. Has to run inside an actix system.
    ///
    /// # Errors
    /// A webhook endpoint that cannot be used, or a thread that cannot be started.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let config = &self.config.server;
        let metrics_address = self.metrics_address();
        let node = Node::start(&self.config, self.reload)?;
        let workers = match config.workers {
            // One core is left to the kernel's side of the network: on two cores a second worker makes each message cross
            // threads and costs half as much again.
            0 => available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1),
            workers => workers,
        };
        let service_node = Arc::clone(&node);
        let mut builder =
            actix_server::Server::build().workers(workers).disable_signals().shutdown_timeout(LAST_REQUESTS_SECONDS);
        if let Some(listener) = self.metrics {
            let node = Arc::clone(&node);
            builder = builder.listen("metrics", listener, move || metrics_service!(&node).tcp())?;
        }
        let server = match self.tls {
            None => builder.listen("fanfare", self.listener, move || service!(&service_node, TcpStream).tcp())?,
            Some(tls) => {
                actix_tls::accept::max_concurrent_tls_connect(TLS_HANDSHAKES);
                builder.listen("fanfare", self.listener, move || {
                    service!(&service_node, TlsStream<TcpStream>).rustls_0_23(tls.clone())
                })?
            }
        }
        .run();
        let handle = server.handle();
        let serving = actix_rt::spawn(server);
        tracing::info!(workers, "listening on {}://{}", self.config.tls.scheme(), self.address);
        if let Some(address) = metrics_address {
            tracing::info!("metrics at http://{address}/metrics");
        } else if self.config.metrics.enabled {
            let (scheme, prefix) = (self.config.tls.scheme(), &self.config.server.path_prefix);
            tracing::info!("metrics for this machine at {scheme}://{}{prefix}/metrics", self.address);
        }
        tracing::info!("lines to paste:\n\n{}", startup::paste_lines(&self.config, self.address));

        stop.await;
        Arc::clone(&node).shutdown().await;
        handle.stop(true).await;
        serving.await??;
        let webhooks = node.webhooks.counters();
        let total = |counter: fn(&AppMetrics) -> &Counter| {
            node.apps.all().iter().map(|app| counter(&app.metrics).get()).sum::<u64>()
        };
        tracing::info!(
            webhooks.delivered = webhooks.delivered.get(),
            webhooks.dropped = webhooks.dropped.get(),
            webhooks.overflowed = webhooks.overflowed.get(),
            slow_readers_closed = total(|app| &app.slow_readers_closed),
            publish_timeouts = total(|app| &app.publish_timeouts),
            cache_overflows = total(|app| &app.cache_overflows),
            broker.published = node.metrics.broker.published.load(Ordering::Relaxed),
            broker.refused = node.metrics.broker.refused.load(Ordering::Relaxed),
            broker.replayed = node.metrics.broker.replayed.load(Ordering::Relaxed),
            broker.received = node.metrics.broker.received.load(Ordering::Relaxed),
            broker.read_from_log = node.metrics.broker.read_from_log.load(Ordering::Relaxed),
            broker.lost = node.metrics.broker.lost.load(Ordering::Relaxed),
            "stopped"
        );
        Ok(())
    }
}

/// A listener whose sockets are bounded from their first byte: answers that nobody reads would fill the kernel's memory, too.
///
/// Linux gives a listener's options to the sockets that it accepts, so that no connection costs a call for them.
fn listen(address: SocketAddr, write_timeout: Duration) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    websocket::bound_socket(&socket, write_timeout);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Runs a server until SIGTERM or SIGINT, and returns when it has drained. A second signal ends it at once. SIGHUP reads the
/// configuration again.
///
/// # Errors
/// As [`Server::bind`] and [`Server::run`].
pub fn serve(config: Config, reload: Reload) -> anyhow::Result<()> {
    raise_descriptor_limit();
    actix_rt::System::new().block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let server = Server::bind(config)?.with_reload(reload);
        let (stop, stopped) = oneshot::channel();
        let run = server.run(async {
            let _ = stopped.await;
        });
        let signals = async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            let _ = stop.send(());
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::warn!("second signal: exiting at once");
        };
        tokio::select! {
            result = run => result,
            () = signals => Ok(()),
        }
    })
}

/// Each connection takes a descriptor; the usual soft limit of 1,024 is far below what the hard limit allows.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files; it bounds the number of connections");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_have_the_listeners_options() {
        let write_timeout = Duration::from_secs(7);
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)), write_timeout).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let options = socket2::SockRef::from(&accepted);
        assert!(options.tcp_nodelay().unwrap());
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(write_timeout));
        assert_eq!(options.tcp_notsent_lowat().unwrap(), crate::limits::UNSENT_BYTES);
    }
}
