//! A client without a WebSocket, line by line: as pusher-js does it, or as it never would.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};

use crate::{Event, deadline, eventually};

/// Where pusher-js opens the next stream, at the end of a line.
pub const STREAM_LENGTH: usize = 256 * 1024;
/// More than any scenario leaves unread.
const UNREAD_EVENTS: usize = 100_000;

/// How a session receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiving {
    /// `xhr_streaming`: one response without an end.
    Stream,
    /// `xhr`: a response for each time something comes.
    Poll,
}

/// One line of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// `o`
    Open,
    /// `a[...]`
    Messages(Vec<String>),
    /// `h`, any number of them.
    Heartbeat,
    /// `c[code,"reason"]`
    Closed(u16, String),
}

impl Line {
    fn parse(line: &str) -> Self {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {line}"));
        match line.as_bytes() {
            [b'o'] => Self::Open,
            [b'a', ..] => Self::Messages(serde_json::from_value(json(&line[1..])).expect("an array of strings")),
            [b'c', ..] => {
                let (code, reason) = serde_json::from_value(json(&line[1..])).expect("a code and a reason");
                Self::Closed(code, reason)
            }
            _ if !line.is_empty() && line.bytes().all(|byte| byte == b'h') => Self::Heartbeat,
            _ => panic!("an unknown line: {line}"),
        }
    }
}

/// A request that was sent, and what came back so far.
#[derive(Debug)]
pub struct Exchange {
    /// The status code.
    pub status: u16,
    /// The head, in lower case, without the status line.
    pub headers: String,
    /// How long the lines that were read are together, in UTF-16 units, as browsers count.
    pub length: usize,
    socket: TcpStream,
    raw: Vec<u8>,
    body: Vec<u8>,
    chunked: bool,
    /// Bytes of the body that are still to come, if that is known.
    left: Option<usize>,
    ended: bool,
}

impl Exchange {
    /// Goes away, and waits until the server has noticed: it closes its side, too.
    pub async fn hang_up(mut self) {
        let _ = self.socket.shutdown().await;
        while self.read().await {}
    }

    /// Sends a request over a connection of its own and waits for the head of the answer.
    pub async fn begin(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> Self {
        let mut exchange = Self::send(address, method, target, headers, body).await;
        exchange.read_head().await;
        exchange
    }

    async fn send(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> Self {
        let mut socket = deadline("the server accepts", TcpStream::connect(address)).await.expect("a connection");
        socket.set_nodelay(true).expect("no delay");
        let length = body.len();
        let text = format!(
            "{method} {target} HTTP/1.1\r\nhost: {address}\r\norigin: http://shop.test\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{headers}\r\n{body}"
        );
        deadline("a request is sent", socket.write_all(text.as_bytes())).await.expect("a live connection");
        let (raw, body) = (Vec::new(), Vec::new());
        Self {
            status: 0,
            headers: String::new(),
            length: 0,
            socket,
            raw,
            body,
            chunked: false,
            left: None,
            ended: false,
        }
    }

    async fn read_head(&mut self) {
        let end = loop {
            if let Some(end) = self.raw.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.read().await, "closed before an answer");
        };
        let head = String::from_utf8(self.raw.drain(..end).collect()).expect("a head in ASCII").to_lowercase();
        let (line, headers) = head.split_once("\r\n").expect("a status line");
        self.status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        self.headers = headers.to_owned();
        self.chunked = headers.contains("transfer-encoding: chunked");
        let length = self.header("content-length").map(|length| length.parse().expect("a length"));
        self.left = if self.chunked { None } else { Some(length.unwrap_or_default()) };
        self.take_body();
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim))
    }

    async fn read(&mut self) -> bool {
        deadline("bytes of the server", self.socket.read_buf(&mut self.raw)).await.is_ok_and(|read| read > 0)
    }

    /// Moves what is there from the connection's bytes to the body.
    fn take_body(&mut self) {
        if let Some(left) = &mut self.left {
            let taken = self.raw.len().min(*left);
            self.body.extend(self.raw.drain(..taken));
            *left -= taken;
            self.ended = *left == 0;
            return;
        }
        while let Some(end) = self.raw.windows(2).position(|bytes| bytes == b"\r\n") {
            let size = std::str::from_utf8(&self.raw[..end]).expect("a size");
            let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal");
            if self.raw.len() < end + 2 + size + 2 {
                return;
            }
            self.body.extend_from_slice(&self.raw[end + 2..end + 2 + size]);
            self.raw.drain(..end + 2 + size + 2);
            self.ended |= size == 0;
        }
    }

    /// The next line; nothing at the end of the response.
    pub async fn line(&mut self) -> Option<Line> {
        loop {
            if let Some(end) = self.body.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8(self.body.drain(..=end).collect()).expect("UTF-8");
                self.length += line.encode_utf16().count();
                return Some(Line::parse(line.trim_end_matches('\n')));
            }
            if self.ended {
                assert!(self.body.is_empty(), "half a line at the end");
                return None;
            }
            if !self.read().await {
                assert!(self.body.is_empty(), "half a line at the end");
                return None;
            }
            self.take_body();
        }
    }

    /// The body up to its end, which has to come.
    pub async fn text(mut self) -> String {
        while !self.ended {
            assert!(self.read().await, "the answer is not whole");
            self.take_body();
        }
        String::from_utf8(self.body).expect("UTF-8")
    }
}

static SESSIONS: AtomicU32 = AtomicU32::new(0);

/// One session, without any of pusher-js's habits.
#[derive(Clone, Debug)]
pub struct XhrSession {
    address: SocketAddr,
    base: String,
    query: String,
}

impl XhrSession {
    /// A session below a path such as `/pusher/app/app-key`, not yet opened.
    pub fn new(address: SocketAddr, path: &str) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, "protocol=7&client=js&version=8.6.0"));
        let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let base = format!("{path}/{}/{:08x}", number % 1000, rand::random::<u32>());
        Self { address, base, query: query.to_owned() }
    }

    /// The same session at another path.
    #[must_use]
    pub fn at(&self, path: &str) -> Self {
        let name: Vec<_> = self.base.rsplitn(3, '/').collect();
        Self { address: self.address, base: format!("{path}/{}/{}", name[1], name[0]), query: self.query.clone() }
    }

    /// The same session, whose next request is marked as pusher-js does it. With the same number again it is the same request.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        Self { query: format!("{}&t=1795627438925&n={number}", self.query), ..self.clone() }
    }

    /// Begins to receive, and waits until the response begins.
    pub async fn receive(&self, receiving: Receiving) -> Exchange {
        let call = if receiving == Receiving::Stream { "xhr_streaming" } else { "xhr" };
        self.request("POST", call, "").await
    }

    /// Begins a poll that the server holds: nothing has come of it when this returns.
    pub async fn hold_poll(&self) -> HeldPoll {
        let target = format!("{}/xhr?{}", self.base, self.query);
        HeldPoll(Exchange::send(self.address, "POST", &target, "", "").await)
    }

    /// Any request of the session.
    pub async fn request(&self, method: &str, call: &str, body: &str) -> Exchange {
        let target = format!("{}/{call}?{}", self.base, self.query);
        Exchange::begin(self.address, method, &target, "", body).await
    }

    /// Sends messages, which the server has to accept.
    pub async fn send(&self, messages: &[&str]) {
        let sent = self.request("POST", "xhr_send", &serde_json::to_string(messages).expect("JSON")).await;
        assert_eq!(sent.status, 204, "{sent:?}");
    }

    /// Subscribes to a public channel, and does not wait.
    pub async fn subscribe(&self, channel: &str) {
        self.send(&[&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#)]).await;
    }
}

/// A poll whose answer is still to come.
#[derive(Debug)]
pub struct HeldPoll(Exchange);

impl HeldPoll {
    /// The answer.
    pub async fn answer(mut self) -> Exchange {
        self.0.read_head().await;
        self.0
    }
}

/// A session that receives all the time, as pages do, whether anybody looks at it or not.
#[derive(Debug)]
pub(crate) struct XhrClient {
    session: XhrSession,
    received: mpsc::Receiver<Received>,
    task: JoinHandle<()>,
}

/// What came next.
#[derive(Debug)]
pub(crate) enum Received {
    Event(Event),
    Closed(u16, String),
    /// The response ended without a reason.
    Lost,
}

impl XhrClient {
    pub(crate) fn open(address: SocketAddr, path: &str, receiving: Receiving) -> Self {
        let session = XhrSession::new(address, path);
        let (sender, received) = mpsc::channel(UNREAD_EVENTS);
        let task = tokio::spawn(receive_all(session.clone(), receiving, sender));
        Self { session, received, task }
    }

    pub(crate) async fn next(&mut self) -> Received {
        self.received.recv().await.expect("nothing comes behind the end")
    }

    pub(crate) async fn send(&self, message: &str) {
        self.session.send(&[message]).await;
    }

    /// Stops to receive, and waits until the server has found out.
    pub(crate) async fn close(&self) {
        self.task.abort();
        let ask = async || self.session.request("POST", "xhr_send", "[]").await.status;
        eventually("the session ends", ask, |status| *status == 404).await;
    }
}

impl Drop for XhrClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Receives until the end.
async fn receive_all(session: XhrSession, receiving: Receiving, sender: mpsc::Sender<Received>) {
    let mut exchange = session.receive(receiving).await;
    let mut opened = false;
    loop {
        match exchange.line().await {
            Some(Line::Open) => assert!(!std::mem::replace(&mut opened, true), "a second `o`"),
            Some(Line::Messages(messages)) => {
                for message in messages {
                    let _ = sender.send(Received::Event(Event::parse(&message))).await;
                }
            }
            Some(Line::Heartbeat) if opened && receiving == Receiving::Stream => session.send(&[]).await,
            Some(Line::Heartbeat) => {}
            Some(Line::Closed(code, reason)) => {
                let _ = sender.send(Received::Closed(code, reason)).await;
                return;
            }
            None if receiving == Receiving::Poll && exchange.ended => exchange = session.receive(receiving).await,
            None => {
                let _ = sender.send(Received::Lost).await;
                return;
            }
        }
        if receiving == Receiving::Stream && exchange.length > STREAM_LENGTH {
            exchange = session.receive(receiving).await;
        }
    }
}
