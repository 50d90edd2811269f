//! Certificates that change under traffic, a plain port beside the one with TLS, and apps that insist on TLS.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use fanfare_server::config::{AppConfig, Network};
use fanfare_tests::{DEADLINE, Event, Receiving, TestServer, deadline, eventually};
use futures_util::{SinkExt, StreamExt, future::join_all};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, interval},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        client::Resumption,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    },
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// The files of a server's certificate, which can be replaced.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a file in place as a whole, as tools for certificates do.
    fn put(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).expect("a file");
        fs::rename(self.path("new"), self.path(name)).expect("a file in place");
    }

    /// Puts a new pair in place, and returns who trusts it.
    fn renew(&self) -> TlsConnector {
        let (certificate, key, connector) = pair();
        self.put("certificate.pem", &certificate);
        self.put("key.pem", &key);
        connector
    }

    /// A server with the pair that is in place, and a plain port.
    fn server(&self, app: impl FnOnce(&mut AppConfig)) -> TestServer {
        TestServer::builder()
            .config(|config| {
                let text = |name| self.path(name).to_str().expect("UTF-8").to_owned();
                (config.tls.certificate, config.tls.key) = (text("certificate.pem"), text("key.pem"));
                config.tls.plain_port = Some(0);
            })
            .app(app)
            .start()
    }
}

/// A certificate and its key in PEM, and who trusts it.
fn pair() -> (String, String, TlsConnector) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    (cert.pem(), signing_key.serialize_pem(), connector(cert.der().clone()))
}

fn connector(certificate: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions that ring has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A session that is resumed shows no certificate.
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

/// A handshake; fails with a certificate that the client does not trust.
async fn shake_hands(server: &TestServer, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = deadline("the server accepts", TcpStream::connect(server.address())).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    deadline("the TLS handshake", connector.connect(name, socket)).await
}

/// What clients without TLS are told.
const TLS_ONLY: &str = "Application only accepts SSL connections, reconnect using wss://";

type Client = WebSocketStream<TlsStream<TcpStream>>;

async fn subscribe(server: &TestServer, connector: &TlsConnector, channel: &str) -> Client {
    let stream = shake_hands(server, connector).await.expect("a trusted certificate");
    let url = format!("wss://localhost{}", server.path());
    let (mut client, _) = Box::pin(deadline("the handshake", client_async(url, stream))).await.expect("101");
    assert_eq!(next(&mut client).await.name, "pusher:connection_established");
    let frame = json!({"event": "pusher:subscribe", "data": {"channel": channel}});
    deadline("a frame is sent", client.send(Message::text(frame.to_string()))).await.expect("a live connection");
    assert!(next(&mut client).await.is("pusher_internal:subscription_succeeded", channel));
    client
}

async fn next(client: &mut Client) -> Event {
    loop {
        let message = deadline("a message", client.next()).await.expect("a live connection").expect("a sound frame");
        if let Message::Text(text) = message {
            return Event::parse(&text);
        }
    }
}

/// Waits until new handshakes get a certificate that the client trusts.
async fn wait_for(server: &TestServer, connector: &TlsConnector) {
    let ask = async || shake_hands(server, connector).await.is_ok();
    eventually("the new certificate", ask, |trusted| *trusted).await;
}

/// A thousand subscribers count events while the certificate changes twice, and once to one that is broken.
#[tokio::test]
async fn certificates_change_under_a_thousand_subscribers_who_miss_nothing() {
    const SUBSCRIBERS: usize = 1_000;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more descriptors");
    let files = Files::new();
    let first = files.renew();
    let server = files.server(|_| {});
    let mut clients = Vec::new();
    while clients.len() < SUBSCRIBERS {
        // Not all at once: each handshake has its time.
        clients.extend(join_all((0..20).map(|_| subscribe(&server, &first, "numbers"))).await);
    }

    // Every client reads to the event that says it is over, and checks each number.
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::task::spawn(async move {
                for expected in 0.. {
                    let event = next(&mut client).await;
                    if event.name == "end" {
                        return expected;
                    }
                    assert_eq!(event.data, expected.to_string(), "an event is missing, or came twice");
                }
                unreachable!("numbers do not end")
            })
        })
        .collect();

    let mut api = server.api_over_plain().await;
    let changes = async {
        let second = files.renew();
        wait_for(&server, &second).await;
        assert!(shake_hands(&server, &first).await.is_err(), "the old certificate is still given out");
        // A key that is another certificate's, and a file that is none.
        files.put("key.pem", &pair().1);
        files.put("certificate.pem", "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n");
        let third = files.renew();
        wait_for(&server, &third).await;
    };
    let mut published = 0;
    let mut ticks = interval(Duration::from_millis(50));
    let mut changes = Box::pin(changes);
    let start = Instant::now();
    loop {
        tokio::select! {
            () = &mut changes => break,
            _ = ticks.tick() => {
                api.trigger("numbers", "number", &published.to_string()).await;
                published += 1;
            }
        }
        assert!(start.elapsed() < 3 * DEADLINE, "the changes take too long");
    }
    drop(changes);
    api.trigger("numbers", "end", "").await;
    for received in join_all(readers).await {
        assert_eq!(received.expect("a reader that saw every number"), published);
    }
    println!("{SUBSCRIBERS} subscribers got each of {published} events over two changes of the certificate");
}

#[tokio::test]
async fn an_app_that_insists_on_tls_sends_plain_clients_to_it() {
    let files = Files::new();
    let connector = files.renew();
    let server = files.server(|app| app.require_tls = true);
    let refused = server.try_connect_plain(&server.path()).await.expect_err("no TLS");
    let error = &refused.events[0];
    assert_eq!((error.name.as_str(), &error.json()["code"]), ("pusher:error", &json!(4000)));
    assert_eq!(error.json()["message"], TLS_ONLY);
    assert_eq!(refused.code, Some(4000));
    subscribe(&server, &connector, "news").await;

    let mut api = server.api_over_plain().await;
    let answer = api.post("/events", r#"{"name":"a","channel":"b","data":"c"}"#).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.body, "Application only accepts SSL connections: use https://\n");
    let answer = api.request("GET", "/up", "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"health":"OK"}"#));
}

#[tokio::test]
async fn an_app_that_begins_to_insist_on_tls_sends_its_plain_clients_away_and_keeps_the_others() {
    let files = Files::new();
    let connector = files.renew();
    let text = |more: &str| {
        let (certificate, key) = (files.path("certificate.pem"), files.path("key.pem"));
        format!(
            "[tls]\ncertificate = {certificate:?}\nkey = {key:?}\nplain_port = 0\n\
             [[apps]]\nid = \"one\"\nkey = \"one-key\"\nsecret = \"one-secret\"\nsubscription_count = false\n{more}\n"
        )
    };
    files.put("fanfare.toml", &text(""));
    let mut server = TestServer::of_file(&files.path("fanfare.toml"));
    let mut secure = subscribe(&server, &connector, "news").await;
    let path = server.path();
    let mut plain = server.try_connect_plain(&path).await.expect("it does not insist yet");
    server.be_without_websockets(Receiving::Stream);
    let mut session = server.try_connect_plain(&path).await.expect("it does not insist yet");

    files.put("fanfare.toml", &text("require_tls = true"));
    for client in [&mut plain, &mut session] {
        let ended = client.ended().await;
        assert_eq!((ended.code, &*ended.reason), (Some(4000), TLS_ONLY), "{ended:?}");
    }
    let ping = Message::text(r#"{"event":"pusher:ping","data":{}}"#);
    deadline("a frame is sent", secure.send(ping)).await.expect("a live connection");
    assert_eq!(next(&mut secure).await.name, "pusher:pong");
}

#[tokio::test]
async fn tls_at_a_trusted_proxy_is_tls() {
    let builder = || TestServer::builder().app(|app| app.require_tls = true);
    let server = builder()
        .config(|config| {
            config.server.trusted_proxies = vec![Network::parse("127.0.0.1").expect("an address")];
        })
        .start();
    for (headers, let_in) in [
        ("x-forwarded-proto: https\r\n", true),
        ("forwarded: for=192.0.2.7;proto=https\r\n", true),
        ("x-forwarded-proto: http\r\n", false),
        ("", false),
    ] {
        assert_eq!(is_let_in(&server, headers).await, let_in, "{headers}");
    }
    let server = builder().start();
    assert!(!is_let_in(&server, "x-forwarded-proto: https\r\n").await, "anybody can say so");
}

/// Whether a WebSocket whose request has these headers is welcome.
async fn is_let_in(server: &TestServer, headers: &str) -> bool {
    let mut socket = TcpStream::connect(server.address()).await.expect("a connection");
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n",
        server.path()
    );
    socket.write_all(request.as_bytes()).await.expect("a live connection");
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if text.contains("pusher:connection_established") {
            return true;
        }
        if text.contains(r#""code":4000"#) {
            return false;
        }
        let read = deadline("the first frame", socket.read_buf(&mut answer)).await.expect("a live connection");
        assert!(read > 0, "closed without a frame");
    }
}
