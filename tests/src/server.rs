//! A whole server inside the test's process.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use actix_web::{App, HttpServer};
use fanfare_protocol::{AppSecret, Signer};
use fanfare_server::{
    Fanfare, Reload, Server,
    config::{AppConfig, Config, Overrides, WebhookConfig},
};
use tokio::sync::oneshot;

use crate::{
    Api, Client, RawClient, Receiving, WebhookReceiver, XhrSession,
    spread::{self, Spread},
};

/// Describes a server before it starts.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    app: AppConfig,
    receiving: Option<Receiving>,
}

impl Builder {
    /// Changes the app. It begins as the demo app without announced subscription counts, which would be noise between the
    /// events that scenarios look at.
    #[must_use]
    pub fn app(mut self, change: impl FnOnce(&mut AppConfig)) -> Self {
        change(&mut self.app);
        self
    }

    /// Changes everything else. It begins with three workers and a short shutdown.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Tells an endpoint of everything, at once: nobody waits whether somebody who left comes back.
    #[must_use]
    pub fn webhooks(self, receiver: &WebhookReceiver) -> Self {
        let webhook = WebhookConfig { url: receiver.url(), ..WebhookConfig::default() };
        self.app(|app| app.webhooks.push(webhook)).config(|config| config.webhooks.vacated_delay = Duration::ZERO)
    }

    /// How its [`Client`]s receive if they have no WebSocket.
    #[must_use]
    pub fn without_websockets(self, receiving: Receiving) -> Self {
        Self { receiving: Some(receiving), ..self }
    }

    /// Starts the server; or, with `FANFARE_EMBEDDED` in the environment, an actix-web application with its routes; or, with
    /// `FANFARE_TEST_NODES=3`, three nodes that take the scenario's connections in turns. It accepts connections when this returns.
    pub fn start(self) -> TestServer {
        let Self { mut config, app, receiving } = self;
        let credentials = Credentials::of(&app);
        config.apps.push(app);
        let mut server = match (spread::wanted(), std::env::var_os("FANFARE_EMBEDDED")) {
            (Some(nodes), _) => Spread::start(nodes, config, &credentials),
            (None, None) => TestServer::run(Server::bind(config).expect("a free port"), credentials),
            (None, Some(_)) => TestServer::embedded(config, credentials),
        };
        server.receiving = receiving;
        server
    }
}

/// What clients of an app know.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) signer: Signer,
}

impl Credentials {
    pub(crate) fn of(app: &AppConfig) -> Self {
        Self::new(app.id.as_str(), app.key.as_str(), app.secret.expose())
    }

    pub(crate) fn demo() -> Self {
        Self::of(&AppConfig::demo())
    }

    fn new(id: &str, key: &str, secret: &str) -> Self {
        Self { id: id.to_owned(), key: key.to_owned(), signer: Signer::new(&AppSecret::new(secret)) }
    }
}

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct TestServer {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    plain_address: Option<SocketAddr>,
    credentials: Credentials,
    receiving: Option<Receiving>,
    /// More nodes, if it is not one.
    pub(crate) spread: Option<Spread>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    pub(crate) fn run(server: Server, credentials: Credentials) -> Self {
        let (address, metrics_address) = (server.address(), server.metrics_address());
        let plain_address = server.plain_address();
        let run = async |stopped| {
            let stopped = async {
                let _ = stopped.await;
            };
            server.run(stopped).await
        };
        let mut server = Self::spawn(address, credentials, run);
        server.metrics_address = metrics_address;
        server.plain_address = plain_address;
        server
    }

    /// The routes inside an actix-web application, as in `examples/embed.rs`.
    fn embedded(mut config: Config, credentials: Credentials) -> Self {
        // The socket of a stalled reader is actix-web's: the kernel ends it.
        config.server.write_timeout = config.server.write_timeout.min(Duration::from_secs(3));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        Self::spawn(address, credentials, async move |stopped| {
            let fanfare = Fanfare::start(&config)?;
            let routes = fanfare.clone();
            let server = HttpServer::new(move || App::new().configure(routes.routes()))
                .workers(config.server.workers)
                .client_request_timeout(config.server.request_timeout)
                .keep_alive(config.server.keep_alive)
                .on_connect(Fanfare::on_connect(&config))
                .h1_allow_half_closed(false)
                .tcp_nodelay(true)
                .disable_signals()
                .shutdown_timeout(1)
                .listen(listener)?
                .run();
            let handle = server.handle();
            let serving = actix_rt::spawn(server);
            let _ = stopped.await;
            fanfare.shutdown().await;
            handle.stop(true).await;
            Ok(serving.await??)
        })
    }

    fn spawn<F>(address: SocketAddr, credentials: Credentials, run: F) -> Self
    where
        F: AsyncFnOnce(oneshot::Receiver<()>) -> anyhow::Result<()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let run = move || actix_rt::System::new().block_on(run(stopped)).expect("the server ends without an error");
        let thread = thread::Builder::new().name("test-server".to_owned()).spawn(run).expect("a thread");
        Self {
            address,
            metrics_address: None,
            plain_address: None,
            credentials,
            receiving: None,
            spread: None,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// A server with a configuration file, which may change while it runs. Clients are those of the first app.
    pub fn of_file(file: &Path) -> Self {
        let (path, port) = (file.to_owned(), Some(0));
        let load = move || Config::load(Some(&path), [], Overrides { port, ..Overrides::default() });
        let reload = Reload::new([file.to_owned()], load);
        let config = reload.load().expect("a configuration");
        let credentials = config.apps.first().map_or_else(|| Credentials::new("", "", ""), Credentials::of);
        Self::run(Server::bind(config).expect("a free port").with_reload(reload), credentials)
    }

    /// From now on clients and requests are those of this app, or of this key.
    pub fn be_app(&mut self, id: &str, key: &str, secret: &str) {
        self.credentials = Credentials::new(id, key, secret);
    }

    /// From now on clients have no WebSocket.
    pub fn be_without_websockets(&mut self, receiving: Receiving) {
        self.receiving = Some(receiving);
    }

    /// Describes a server. `FANFARE_TEST_TRANSPORT`, `xhr_streaming` or `xhr_polling`, takes WebSockets from all clients.
    pub fn builder() -> Builder {
        let mut config = Config::default();
        config.server.port = 0;
        config.server.workers = 3;
        config.server.shutdown_grace = Duration::from_millis(100);
        // Long enough for a busy machine, and short enough to wait for.
        config.xhr.grace = Duration::from_secs(1);
        let receiving = match std::env::var("FANFARE_TEST_TRANSPORT").as_deref() {
            Ok("xhr_streaming") => Some(Receiving::Stream),
            Ok("xhr_polling") => Some(Receiving::Poll),
            Ok(other) => panic!("FANFARE_TEST_TRANSPORT: {other} is none"),
            Err(_) => None,
        };
        Builder { config, app: AppConfig { subscription_count: false, ..AppConfig::demo() }, receiving }
    }

    /// A server with nothing special about it.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection to the port of the metrics, which has to be one of their own.
    pub async fn metrics_port(&self) -> Api {
        let address = self.metrics_address.expect("metrics on a port of their own");
        Api::connect(address, self.credentials.clone()).await
    }

    /// Where the next connection goes.
    fn next_address(&self) -> SocketAddr {
        self.spread.as_ref().and_then(Spread::next).unwrap_or(self).address
    }

    /// The app's path for WebSocket clients.
    pub fn path(&self) -> String {
        websocket_path(&self.credentials.key)
    }

    /// Connects a client, which has its `connection_established` when this returns.
    pub async fn connect(&self) -> Client {
        match self.try_connect(&self.path()).await {
            Ok(client) => client,
            Err(events) => panic!("the server did not let the client in: {events:?}"),
        }
    }

    /// Connects several clients. The workers take them in turns.
    pub async fn connect_many(&self, count: usize) -> Vec<Client> {
        futures_util::future::join_all((0..count).map(|_| self.connect())).await
    }

    /// Connects a client to any path; one that is refused returns what it was told.
    ///
    /// # Errors
    /// The error frame and the close frame of the refusal.
    pub async fn try_connect(&self, path: &str) -> Result<Client, crate::client::Ended> {
        let address = self.next_address();
        let mut client = Client::connect_by(self.receiving, address, path, self.credentials.clone()).await?;
        client.markers = self.spread.as_ref().and_then(|spread| spread.markers(address));
        Ok(client)
    }

    /// A session without a WebSocket, not yet opened, where pusher-js looks by itself.
    pub fn session(&self) -> XhrSession {
        XhrSession::new(self.next_address(), &format!("/pusher/app/{}", self.credentials.key))
    }

    /// As [`TestServer::try_connect`], at the plain port of a server that has one beside its port with TLS.
    ///
    /// # Errors
    /// The error frame and the close frame of the refusal.
    pub async fn try_connect_plain(&self, path: &str) -> Result<Client, crate::client::Ended> {
        let address = self.plain_address.expect("a plain port");
        Client::connect_by(self.receiving, address, path, self.credentials.clone()).await
    }

    /// As [`TestServer::api`], at the plain port.
    pub async fn api_over_plain(&self) -> Api {
        Api::connect(self.plain_address.expect("a plain port"), self.credentials.clone()).await
    }

    /// Connects a socket that speaks frames, with the handshake done.
    pub async fn raw(&self) -> RawClient {
        self.raw_with(&[]).await
    }

    /// As `raw`, with bytes in the segment of the handshake.
    pub async fn raw_with(&self, early: &[u8]) -> RawClient {
        RawClient::connect(self.next_address(), &self.path(), early).await
    }

    /// The signature of a text with the app's secret.
    pub fn sign(&self, text: &str) -> String {
        self.credentials.signer.sign(&[text.as_bytes()])
    }

    /// A connection for the HTTP API.
    pub async fn api(&self) -> Api {
        Api::connect(self.next_address(), self.credentials.clone()).await
    }

    /// Tells the server to stop, as a signal would, and does not wait.
    pub fn begin_shutdown(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.peers().iter_mut().for_each(Self::begin_shutdown);
    }

    fn peers(&mut self) -> &mut [Self] {
        self.spread.as_mut().map_or(&mut [], Spread::peers)
    }

    /// Waits until the server has stopped.
    pub async fn stopped(&mut self) {
        for peer in self.peers() {
            Box::pin(peer.stopped()).await;
        }
        let Some(thread) = self.thread.take() else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join());
        let joined = crate::deadline("the server stops", joined).await.expect("a blocking task");
        joined.expect("the server does not panic");
    }
}

/// A WebSocket client's path for an app's key.
pub(crate) fn websocket_path(key: &str) -> String {
    format!("/app/{key}?protocol=7&client=fanfare-tests&version=1.0&flash=false")
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.begin_shutdown();
        let joined = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            joined.transpose().expect("the server does not panic");
        }
    }
}
