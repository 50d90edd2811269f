//! The real binary behind proxies, and with certificates that are broken: what its log says, and whom it believes.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, client::Resumption, crypto::ring, pki_types::CertificateDer,
};

const DEADLINE: Duration = Duration::from_secs(20);
/// The beginning of every header of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A server in another process, on a free port, and its log.
struct Server {
    process: Child,
    port: u16,
    log: mpsc::Receiver<String>,
}

impl Server {
    fn start(environment: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(["serve", "--port", "0"])
            .env_clear()
            .envs(environment.iter().copied())
            .env("FANFARE__LOG__LEVEL", "info,fanfare_server=debug")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (send, log) = mpsc::channel();
        // Whoever does not read the log stops the server that writes it.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut server = Self { process, port: 0, log };
        let line = server.line("listening on ");
        server.port = line.rsplit_once(':').unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
        server
    }

    /// The next line of the log that holds `text`.
    #[track_caller]
    fn line(&self, text: &str) -> String {
        let (start, mut before) = (Instant::now(), Vec::new());
        while let Ok(line) = self.log.recv_timeout(DEADLINE.saturating_sub(start.elapsed())) {
            if line.contains(text) {
                return line;
            }
            before.push(line);
        }
        panic!("no line with {text:?} in {before:#?}");
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    }

    /// Asks for a WebSocket, with `before` in front of everything, and returns the address that the log has for it.
    #[track_caller]
    fn address(&self, before: &[u8], headers: &str) -> String {
        let mut socket = self.connect();
        let request = format!(
            "GET /app/app-key?protocol=7 HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        socket.write_all(&[before, request.as_bytes()].concat()).unwrap();
        let line = self.line("connection accepted");
        let address = line.split_once("address=Some(").unwrap().1;
        address.split_once(')').unwrap().0.to_owned()
    }

    /// What a connection gets before it is closed.
    fn rest(&self, sent: &[u8]) -> Vec<u8> {
        let mut socket = self.connect();
        socket.write_all(sent).unwrap();
        let mut answer = Vec::new();
        // A reset is an end as well.
        let _ = socket.read_to_end(&mut answer);
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn a_header_of_a_trusted_proxy_tells_the_client_and_anybody_elses_does_not() {
    let server = Server::start(&[("FANFARE__SERVER__TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")]);
    assert_eq!(server.address(b"", "x-forwarded-for: 6.6.6.6, 192.0.2.7, 10.1.1.1\r\n"), "192.0.2.7");
    assert_eq!(server.address(b"", "forwarded: for=6.6.6.6, for=\"[2001:db8::7]:4711\"\r\n"), "2001:db8::7");
    assert_eq!(server.address(b"", "x-forwarded-for: 192.0.2.7, nonsense\r\n"), "127.0.0.1");

    let server = Server::start(&[("FANFARE__SERVER__TRUSTED_PROXIES", "10.0.0.0/8")]);
    assert_eq!(server.address(b"", "x-forwarded-for: 192.0.2.7\r\nforwarded: for=192.0.2.7\r\n"), "127.0.0.1");
}

fn version_2(command: u8, source: [u8; 4]) -> Vec<u8> {
    let addresses = [&source[..], &[10, 0, 0, 1], &[0x12, 0x34, 0x01, 0xBB]].concat();
    [SIGNATURE, &[command, 0x11, 0, 12], &addresses].concat()
}

#[test]
fn the_proxy_protocol_of_a_trusted_proxy_tells_the_client() {
    let server = Server::start(&[
        ("FANFARE__SERVER__TRUSTED_PROXIES", "127.0.0.1,192.0.2.99"),
        ("FANFARE__SERVER__PROXY_PROTOCOL", "true"),
    ]);
    assert_eq!(server.address(&version_2(0x21, [192, 0, 2, 7]), ""), "192.0.2.7");
    assert_eq!(server.address(b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", ""), "2001:db8::7");
    // A health check of the proxy itself.
    assert_eq!(server.address(&version_2(0x20, [192, 0, 2, 7]), ""), "127.0.0.1");
    // The client of the load balancer is a proxy, or is none.
    let header = "x-forwarded-for: 198.51.100.7\r\n";
    assert_eq!(server.address(&version_2(0x21, [192, 0, 2, 99]), header), "198.51.100.7");
    assert_eq!(server.address(&version_2(0x21, [192, 0, 2, 7]), header), "192.0.2.7");

    for sent in [
        &b"GET /up HTTP/1.1\r\nhost: localhost\r\n\r\n"[..],
        &[SIGNATURE, &[0x21, 0x11, 0, 2, 1, 2]].concat(),
        &[SIGNATURE, &[0x21, 0x11, 0xFF, 0xFF]].concat(),
        b"PROXY TCP4 nobody 10.0.0.1 1 2\r\nGET /up HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        assert_eq!(server.rest(sent), b"", "an answer to {sent:?}");
        server.line("closing a connection of a trusted proxy without a PROXY header");
    }
    // Half a header keeps nobody else waiting, and is not waited for for ever.
    let start = Instant::now();
    assert_eq!(server.rest(SIGNATURE), b"");
    assert!(start.elapsed() < DEADLINE);
}

#[test]
fn who_is_no_trusted_proxy_cannot_say_who_it_is() {
    let server = Server::start(&[
        ("FANFARE__SERVER__TRUSTED_PROXIES", "10.0.0.0/8"),
        ("FANFARE__SERVER__PROXY_PROTOCOL", "true"),
    ]);
    assert_eq!(server.address(b"", ""), "127.0.0.1");
    let request = b"GET /up HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answer = server.rest(&[&version_2(0x21, [192, 0, 2, 7])[..], request].concat());
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

/// A certificate and its key in PEM, and who trusts it.
fn pair() -> (String, String, Arc<ClientConfig>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(cert.der().to_vec())).unwrap();
    let mut client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A session that is resumed shows no certificate.
    client.resumption = Resumption::disabled();
    (cert.pem(), signing_key.serialize_pem(), Arc::new(client))
}

/// `GET /up` over TLS; an error if the certificate is not trusted.
fn up(server: &Server, client: &Arc<ClientConfig>) -> std::io::Result<String> {
    let connection = ClientConnection::new(Arc::clone(client), "localhost".try_into().unwrap()).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, server.connect());
    stream.write_all(b"GET /up HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_broken_pair_keeps_the_certificate_from_before_and_is_told_once() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("broken-pair");
    fs::create_dir_all(&directory).unwrap();
    let path = |name: &str| directory.join(name).into_os_string().into_string().unwrap();
    let (certificate_file, key_file) = (path("certificate.pem"), path("key.pem"));
    let (certificate, key, first) = pair();
    fs::write(&certificate_file, certificate).unwrap();
    fs::write(&key_file, key).unwrap();
    let server = Server::start(&[("FANFARE__TLS__CERTIFICATE", &certificate_file), ("FANFARE__TLS__KEY", &key_file)]);
    assert!(up(&server, &first).unwrap().starts_with("HTTP/1.1 200"));

    // One half of a new pair.
    let (certificate, key, second) = pair();
    fs::write(&certificate_file, certificate).unwrap();
    let line = server.line("keeping the certificate from before");
    assert!(line.contains("tls.key: ") && line.contains("does not belong to"), "{line}");
    assert!(up(&server, &first).unwrap().starts_with("HTTP/1.1 200"));

    // A file that is none. That there was one line for the half shows in this being the next one.
    fs::remove_file(&key_file).unwrap();
    let line = server.line("keeping the certificate from before");
    assert!(line.contains(&format!("tls.key: cannot use {key_file}")), "{line}");
    assert!(up(&server, &first).unwrap().starts_with("HTTP/1.1 200"));

    // Whole again, and asked to look at once.
    fs::write(&key_file, key).unwrap();
    let hangup = Command::new("kill").args(["-HUP", &server.process.id().to_string()]).status().unwrap();
    assert!(hangup.success());
    server.line("new handshakes get the certificate");
    assert!(up(&server, &second).unwrap().starts_with("HTTP/1.1 200"));
    assert!(up(&server, &first).is_err(), "the old certificate is still given out");
}
