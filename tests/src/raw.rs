//! A socket that sends what it is told to, frame by frame or byte by byte.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::interval,
};

use crate::{Event, deadline, eventually};

/// RFC 6455, 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names of the RFC")]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A frame; the bits that a client may get wrong can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether the message ends with it.
    pub fin: bool,
    /// The reserved bits, 0 to 7.
    pub rsv: u8,
    /// What it is.
    pub opcode: u8,
    /// Frames of clients have to be masked, those of servers must not.
    pub masked: bool,
    /// What it carries, unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole frame of a client.
    pub fn new(opcode: Opcode, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, rsv: 0, opcode: opcode as u8, masked: true, payload: payload.into() }
    }

    /// A text message in one frame.
    pub fn text(text: &str) -> Self {
        Self::new(Opcode::Text, text)
    }

    /// A close frame.
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(Opcode::Close, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    /// More frames of the message follow.
    #[must_use]
    pub fn unfinished(self) -> Self {
        Self { fin: false, ..self }
    }

    /// The code and the reason of a close frame.
    pub fn close_code(&self) -> (u16, String) {
        assert_eq!(self.opcode, Opcode::Close as u8, "not a close frame: {self:?}");
        let (code, reason) = self.payload.split_at_checked(2).expect("a close code");
        (u16::from_be_bytes([code[0], code[1]]), String::from_utf8(reason.to_vec()).expect("a UTF-8 reason"))
    }

    /// What a text frame says.
    pub fn event(&self) -> Event {
        assert_eq!(self.opcode, Opcode::Text as u8, "not a text frame: {self:?}");
        Event::parse(std::str::from_utf8(&self.payload).expect("UTF-8"))
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mask_bit = if self.masked { 0x80 } else { 0 };
        let mut out = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        match (u8::try_from(self.payload.len()), u16::try_from(self.payload.len())) {
            (Ok(length @ 0..=125), _) => out.push(mask_bit | length),
            (_, Ok(length)) => {
                out.push(mask_bit | 126);
                out.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                out.push(mask_bit | 127);
                out.extend_from_slice(&(self.payload.len() as u64).to_be_bytes());
            }
        }
        if self.masked {
            let mask = [0x12, 0x34, 0x56, 0x78];
            out.extend_from_slice(&mask);
            out.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        } else {
            out.extend_from_slice(&self.payload);
        }
        out
    }

    /// Takes a frame of the server from the front of a buffer, if it is there as a whole.
    fn take(buffer: &mut Vec<u8>) -> Option<Self> {
        let (first, second) = (*buffer.first()?, *buffer.get(1)?);
        assert_eq!(second & 0x80, 0, "servers do not mask");
        let (start, length) = match second {
            126 => (4, u64::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)),
            length => (2, u64::from(length)),
        };
        let end = start + usize::try_from(length).ok()?;
        let payload = buffer.get(start..end)?.to_vec();
        buffer.drain(..end);
        Some(Self { fin: first & 0x80 != 0, rsv: first >> 4 & 7, opcode: first & 0xf, masked: false, payload })
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct RawClient {
    /// Its name on the server.
    pub socket_id: String,
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr, path: &str, early: &[u8]) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Small, so that a client that does not read stalls soon.
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut socket = deadline("the server accepts", socket.connect(address)).await.expect("a connection");
        socket.set_nodelay(true).expect("no delay");
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(&[request.as_bytes(), early].concat()).await.expect("a request");
        let mut client = Self { socket_id: String::new(), socket, buffer: Vec::new() };
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        let established = client.next_event().await;
        assert_eq!(established.name, "pusher:connection_established");
        client.socket_id = established.json()["socket_id"].as_str().expect("a string socket_id").to_owned();
        client
    }

    async fn read_head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                return String::from_utf8(self.buffer.drain(..end + 4).collect()).expect("a head in ASCII");
            }
            assert!(self.read().await.expect("a live connection") > 0, "closed during the handshake");
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        deadline("bytes of the server", self.socket.read_buf(&mut self.buffer)).await
    }

    /// Sends bytes.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        deadline("bytes are sent", self.socket.write_all(bytes)).await.expect("a live connection");
    }

    /// Sends bytes, unless the server ends the connection before it has taken them.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        deadline("bytes are sent", self.socket.write_all(bytes)).await
    }

    /// Sends bytes for as long as it takes, and reads what comes without a look at it, until the connection ends.
    pub async fn flood(&mut self, bytes: &[u8]) {
        let (mut reader, mut writer) = self.socket.split();
        let mut sink = tokio::io::sink();
        let _ = tokio::join!(writer.write_all(bytes), tokio::io::copy(&mut reader, &mut sink));
    }

    /// Sends one frame.
    pub async fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.encode()).await;
    }

    /// Sends one text message.
    pub async fn send_text(&mut self, text: &str) {
        self.send(&Frame::text(text)).await;
    }

    /// Subscribes to a public channel, and waits for the answer.
    pub async fn subscribe(&mut self, channel: &str) {
        self.send_text(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#)).await;
        let event = self.next_event().await;
        assert!(event.is("pusher_internal:subscription_succeeded", channel), "{event:?}");
    }

    /// The next frame; nothing if the connection ended.
    pub async fn try_next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::take(&mut self.buffer) {
                return Some(frame);
            }
            if !matches!(self.read().await, Ok(1..)) {
                return None;
            }
        }
    }

    /// The next frame; the connection has to live.
    pub async fn next(&mut self) -> Frame {
        self.try_next().await.expect("a live connection")
    }

    /// The next event; the connection has to live.
    pub async fn next_event(&mut self) -> Event {
        self.next().await.event()
    }

    /// The frames up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.try_next().await {
            frames.push(frame);
        }
        frames
    }

    /// The next frame, read in bites of so many bytes; the connection has to live.
    pub async fn next_in_bites(&mut self, bytes: usize) -> Frame {
        let mut bite = vec![0; bytes];
        loop {
            if let Some(frame) = Frame::take(&mut self.buffer) {
                return frame;
            }
            let read = deadline("bytes of the server", self.socket.read(&mut bite)).await.expect("a live connection");
            assert!(read > 0, "the server closed the connection");
            self.buffer.extend_from_slice(&bite[..read]);
        }
    }

    /// Closes the sending direction alone.
    pub async fn half_close(&mut self) {
        self.socket.shutdown().await.expect("a live connection");
    }

    /// Breaks the connection off: the server gets a reset.
    pub fn abort(self) {
        self.socket.set_zero_linger().expect("a live connection");
    }

    /// Waits, without reading, until the server's kernel knows nothing of the connection any more.
    pub async fn forgotten(&self) {
        let ours = self.socket.local_addr().expect("an address").port();
        let theirs = self.socket.peer_addr().expect("an address").port();
        // Local and remote address of the server's end, as `/proc/net/tcp` writes them.
        let (local, remote) = (format!(":{theirs:04X}"), format!(":{ours:04X}"));
        // Nobody is asked who could be busy, so the question has its own pace.
        let mut pace = interval(Duration::from_millis(50));
        let is_known = async || {
            pace.tick().await;
            let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
            table.lines().any(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let mut ends_with = |port: &str| fields.next().is_some_and(|address| address.ends_with(port));
                ends_with(&local) && ends_with(&remote)
            })
        };
        eventually("the server gives the connection up", is_known, |known| !known).await;
    }
}
