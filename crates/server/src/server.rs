//! The server as a whole: listener, workers, and a shutdown that loses nothing.

use std::{
    future::{Future, ready},
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    thread::available_parallelism,
    time::Duration,
};

use actix_codec::Framed;
use actix_http::{Extensions, HttpService, KeepAlive, Protocol, Request, error::DispatchError, h1};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::{App, HttpRequest, dev::AppConfig, web};
use anyhow::Context as _;
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    accept::Acceptor,
    config::{Config, MetricsConfig},
    http::{self, DirectTls},
    limits::{BACKLOG, HTTP_CONNECTIONS, MAX_WORKERS},
    logging,
    metrics::{AppMetrics, Counter},
    node::Node,
    reload::Reload,
    startup,
    tls::Certificate,
    transport::{Stream, websocket},
    worker::Worker,
};

/// How long requests under way may take when everything else has stopped, in seconds.
const LAST_REQUESTS_SECONDS: u64 = 1;

/// Everything one worker thread answers on a listener: HTTP by actix-web, and upgrades by our own transport.
fn service(
    node: &Arc<Node>,
    acceptor: Acceptor,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<> {
    let (worker, config) = (Worker::of_thread(node), &node.config);
    let api = Rc::clone(&worker);
    let mut http = HttpService::build();
    if acceptor.can_be_secure() {
        http = http.on_connect_ext(|stream: &Stream, data: &mut Extensions| {
            if stream.is_secure() {
                data.insert(DirectTls);
            }
        });
    }
    let http = http
        .keep_alive(KeepAlive::Timeout(config.keep_alive))
        .client_request_timeout(config.request_timeout)
        .client_disconnect_timeout(Duration::from_secs(1))
        // A client that closes its side of a stream is gone. Otherwise that would be noticed only when the next event is written.
        .h1_allow_half_closed(false)
        .upgrade(fn_service(move |(request, framed): (Request, Framed<Stream, h1::Codec>)| {
            websocket::upgrade(&worker, request, framed);
            ready(Ok::<_, actix_web::Error>(()))
        }))
        .finish(map_config(
            App::new()
                .default_service(web::to(move |request, payload| http::respond(Rc::clone(&api), request, payload)))
                .into_factory()
                .map_err(|error: actix_web::Error| error.error_response()),
            |_| AppConfig::default(),
        ));
    fn_service(move |socket: TcpStream| {
        let accepted = acceptor.clone().accept(socket);
        async { accepted.await.map(|(stream, peer)| (stream, Protocol::Http1, peer)).map_err(DispatchError::Io) }
    })
    .and_then(http)
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
    /// The certificate of the listener, and the second listener without one.
    certificate: Option<Certificate>,
    plain: Option<(TcpListener, SocketAddr)>,
    reload: Option<Reload>,
    /// The port of the metrics, where they have one of their own.
    metrics: Option<TcpListener>,
}

impl Server {
    /// Takes the ports of the configuration, and reads the certificate.
    ///
    /// # Errors
    /// The address is in use, or not this machine's; the certificate or key cannot be used.
    pub fn bind(config: Config) -> anyhow::Result<Self> {
        let certificate = Certificate::load(&config.tls)?;
        let write_timeout = config.server.write_timeout;
        let listen = |host, port| listen(SocketAddr::new(host, port), write_timeout);
        let (listener, address) = listen(config.server.host, config.server.port)?;
        let plain_host = config.tls.plain_host.unwrap_or(config.server.host);
        let plain = config.tls.plain_port.map(|port| listen(plain_host, port).context("tls.plain_port")).transpose()?;
        let metrics = match config.metrics {
            MetricsConfig { enabled: true, port: Some(port), host, .. } => {
                let (listener, _) = listen(host, port).context("metrics.port")?;
                Some(listener)
            }
            _ => None,
        };
        Ok(Self { config, listener, address, certificate, plain, reload: None, metrics })
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

    /// Where it listens without TLS, if it does so on a second port.
    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.plain.as_ref().map(|(_, address)| *address)
    }

    /// Serves until `stop` is ready, then drains: new connections are refused, the others are sent to reconnect over the grace
    /// period, webhooks are delivered. Has to run inside an actix system.
    ///
    /// # Errors
    /// A webhook endpoint, a Redis or database URL that cannot be used, or a thread that cannot be started.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let config = &self.config.server;
        let metrics_address = self.metrics_address();
        let plain_address = self.plain_address();
        let node = Node::start(&self.config, self.reload, self.address.port())?;
        node.load_rings();
        let workers = match config.workers {
            // One core is left to the kernel's side of the network: on two cores a second worker makes each message cross
            // threads and costs half as much again.
            0 => available_parallelism().map_or(1, usize::from).saturating_sub(1).clamp(1, MAX_WORKERS),
            workers => workers,
        };
        let listeners = [
            Some((self.listener, self.certificate.as_ref().map(Certificate::server_config))),
            self.plain.map(|(listener, _)| (listener, None)),
        ];
        let mut builder = actix_server::Server::build()
            .workers(workers)
            .max_concurrent_connections(HTTP_CONNECTIONS)
            .disable_signals()
            .shutdown_timeout(LAST_REQUESTS_SECONDS);
        if let Some(listener) = self.metrics {
            let node = Arc::clone(&node);
            builder = builder.listen("metrics", listener, move || metrics_service!(&node).tcp())?;
        }
        for (listener, tls) in listeners.into_iter().flatten() {
            let (node, acceptor) = (Arc::clone(&node), Acceptor::new(Arc::new(config.clone()), tls));
            builder = builder.listen("fanfare", listener, move || service(&node, acceptor.clone()))?;
        }
        let server = builder.run();
        let handle = server.handle();
        let serving = actix_rt::spawn(server);
        tracing::info!(workers, "listening on {}://{}", self.config.tls.scheme(), self.address);
        if let Some(address) = plain_address {
            tracing::info!("listening on http://{address}, too");
        }
        if let Some(address) = metrics_address {
            tracing::info!("metrics at http://{address}/metrics");
        } else if self.config.metrics.enabled {
            let (scheme, prefix) = (self.config.tls.scheme(), &self.config.server.path_prefix);
            let (host, port) = (startup::reachable(self.address.ip()), self.address.port());
            tracing::info!("metrics for this machine at {scheme}://{host}:{port}{prefix}/metrics");
        }
        let watching = self.certificate.map(|certificate| actix_rt::spawn(certificate.watch(Arc::clone(&node))));
        tracing::info!("lines to paste:\n\n{}", startup::paste_lines(&self.config, self.address));

        stop.await;
        Arc::clone(&node).shutdown().await;
        handle.stop(true).await;
        serving.await??;
        if let Some(watching) = watching {
            watching.abort();
        }
        // After the last request, so that everything that was published is in it.
        node.save_rings();
        log_totals(&node);
        Ok(())
    }
}

/// The last line of the log: what the process has done.
fn log_totals(node: &Node) {
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
}

/// Takes a port: a listener, and where it really listens. Its sockets are bounded from their first byte: answers that nobody
/// reads would fill the kernel's memory, too.
///
/// Linux gives a listener's options to the sockets that it accepts, so that no connection costs a call for them.
fn listen(address: SocketAddr, write_timeout: Duration) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let bind = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        websocket::bound_socket(&socket, write_timeout);
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        io::Result::Ok((listener, address))
    };
    bind().with_context(|| format!("cannot listen on {address}"))
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
        let mut more = signal(SignalKind::user_defined1())?;
        // The reloading task has a handler of its own. This one sees to it that an early SIGHUP does not end the process.
        let _hangup = signal(SignalKind::hangup())?;
        let log = async {
            while more.recv().await.is_some() {
                logging::more();
            }
        };
        let signals = async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            let _ = stop.send(());
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::warn!("second signal: exiting at once");
        };
        tokio::select! {
            result = run => result,
            () = signals => Ok(()),
            () = log => Ok(()),
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
        let (listener, address) = listen(SocketAddr::from(([127, 0, 0, 1], 0)), write_timeout).unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let options = socket2::SockRef::from(&accepted);
        assert!(options.tcp_nodelay().unwrap());
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(write_timeout));
        assert_eq!(options.tcp_notsent_lowat().unwrap(), crate::limits::UNSENT_BYTES);
    }
}
