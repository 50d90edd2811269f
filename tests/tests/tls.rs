//! The same over TLS: what the server writes can be taken in part, and then has to go on where it stopped.

use std::sync::Arc;

use fanfare_tests::{Event, TestServer, deadline};
use futures_util::{SinkExt, StreamExt};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
        version::{TLS12, TLS13},
    },
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// A server with a certificate that was made for it, and what trusts that certificate.
struct Tls {
    server: TestServer,
    connector: TlsConnector,
}

impl Tls {
    fn start() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path.to_str().expect("UTF-8").to_owned()
        };
        let server = TestServer::builder()
            .config(|config| {
                config.tls.certificate = file("certificate.pem", cert.pem());
                config.tls.key = file("key.pem", signing_key.serialize_pem());
            })
            .start();
        Self { server, connector: connector(cert.der().clone()) }
    }

    async fn stream(&self, socket: TcpSocket) -> TlsStream<TcpStream> {
        let socket = deadline("the server accepts", socket.connect(self.server.address())).await.expect("a connection");
        socket.set_nodelay(true).expect("no delay");
        let name = ServerName::try_from("localhost").expect("a name");
        deadline("the TLS handshake", self.connector.connect(name, socket)).await.expect("TLS")
    }

    /// A subscriber; `socket` may be one with a small buffer.
    async fn subscribe(&self, socket: TcpSocket, channel: &str) -> WebSocketStream<TlsStream<TcpStream>> {
        let stream = self.stream(socket).await;
        let url = format!("wss://localhost{}", self.server.path());
        let (mut client, _) = Box::pin(deadline("the handshake", client_async(url, stream))).await.expect("101");
        assert_eq!(next(&mut client).await.name, "pusher:connection_established");
        let frame = json!({"event": "pusher:subscribe", "data": {"channel": channel}});
        deadline("a frame is sent", client.send(Message::text(frame.to_string()))).await.expect("a live connection");
        assert!(next(&mut client).await.is("pusher_internal:subscription_succeeded", channel));
        client
    }

    /// One request on a connection of its own.
    async fn request(&self, method: &str, target: &str, body: &str) -> String {
        let mut stream = self.stream(socket()).await;
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        deadline("a request is sent", stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()))
            .await
            .expect("a live connection");
        let mut answer = String::new();
        let read = deadline("the answer and the end", stream.read_to_string(&mut answer)).await;
        read.expect("an end that TLS announces");
        answer
    }

    async fn post(&self, path: &str, body: &Value) -> String {
        let path = format!("/apps/app-id{path}");
        let body = body.to_string();
        let query = self.server.api().await.sign("POST", &path, &[], &body);
        self.request("POST", &format!("{path}?{query}"), &body).await
    }
}

fn connector(certificate: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("versions that ring has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn socket() -> TcpSocket {
    TcpSocket::new_v4().expect("a socket")
}

/// As small as it gets: the server's writes are soon taken in part.
fn small_socket() -> TcpSocket {
    let socket = socket();
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket
}

async fn next(client: &mut WebSocketStream<TlsStream<TcpStream>>) -> Event {
    let message = deadline("a message", client.next()).await.expect("a live connection").expect("a sound frame");
    Event::parse(message.to_text().expect("text"))
}

#[tokio::test]
async fn health_is_answered_over_tls_and_not_beside_it() {
    let tls = Tls::start();
    let answer = tls.request("GET", "/up", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with(r#"{"health":"OK"}"#), "{answer}");

    let mut plain = TcpStream::connect(tls.server.address()).await.expect("a connection");
    plain.write_all(b"GET /up HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("a live connection");
    let mut answer = Vec::new();
    let _ = deadline("the server closes", plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/"), "an answer in the clear");
}

#[tokio::test]
async fn metrics_tell_by_transport_who_is_connected_over_tls() {
    let tls = Tls::start();
    let _client = Box::pin(tls.subscribe(socket(), "news")).await;
    let answer = tls.request("POST", "/pusher/app/app-key/1/session/xhr", "").await;
    assert!(answer.contains("pusher:connection_established"), "{answer}");
    let metrics = tls.request("GET", "/metrics", "").await;
    for (transport, count) in [("websocket", 0), ("websocket_tls", 1), ("actix_ws", 0), ("xhr", 0), ("xhr_tls", 1)] {
        let label = format!("transport=\"{transport}\"");
        let is_it = |line: &&str| line.starts_with("fanfare_connections{") && line.contains(&label);
        let line = metrics.lines().find(is_it).unwrap_or_else(|| panic!("no {transport}: {metrics}"));
        assert!(line.ends_with(&format!(" {count}")), "{line}");
    }
}

/// 400 KB in 50 events, for readers that take them at once and for those who begin to read when all is published.
#[tokio::test]
async fn events_arrive_whole_and_in_order_over_tls() {
    const BATCHES: usize = 5;
    const EVENTS: usize = 10;
    let tls = Tls::start();
    let mut prompt = Box::pin(tls.subscribe(socket(), "news")).await;
    let mut late = Box::pin(tls.subscribe(small_socket(), "news")).await;
    // No two bytes in a row alike, so that none can be lost or doubled.
    let data = |number: usize| {
        let letters = (b'a'..=b'z').map(char::from).cycle().skip(number).take(8 * 1024);
        format!("{number}:{}", letters.collect::<String>())
    };
    let check = async |client: &mut WebSocketStream<_>| {
        for number in 0..BATCHES * EVENTS {
            let event = next(client).await;
            assert!(event.is("letters", "news"), "{}", event.name);
            assert!(event.data == data(number), "event {number} is not what was published");
        }
    };
    let publish = async {
        for batch in 0..BATCHES {
            let numbers = batch * EVENTS..(batch + 1) * EVENTS;
            let events: Vec<_> =
                numbers.map(|number| json!({"name": "letters", "channel": "news", "data": data(number)})).collect();
            let answer = tls.post("/batch_events", &json!({"batch": events})).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    };
    tokio::join!(publish, check(&mut prompt));
    check(&mut late).await;

    // Both live on, and their ends are announced.
    for client in [&mut prompt, &mut late] {
        deadline("a ping", client.send(Message::text(r#"{"event":"pusher:ping","data":{}}"#))).await.expect("a ping");
        assert_eq!(next(client).await.name, "pusher:pong");
        deadline("a close frame", client.close(None)).await.expect("a live connection");
        while deadline("the end", client.next()).await.is_some_and(|message| message.is_ok()) {}
    }
}
