//! The least a server can do: what `fanfare bench` is measured against.
//!
//!     cargo run --release --example floor -- 6002
//!     fanfare bench --url ws://127.0.0.1:6002 --pid PID
//!
//! One thread that answers handshakes, subscriptions and triggers, and writes the frame of each event once to every
//! subscriber. It checks no signature, sets no limit, keeps no connection alive and waits for whoever does not read: a floor for
//! the cost, and nothing to use.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    rc::{Rc, Weak},
};

use actix_http::ws::hash_key;
use serde::Deserialize;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::{LocalSet, spawn_local},
};

const SUCCEEDED: &str = "pusher_internal:subscription_succeeded";

/// The subscribers of each channel. One event is written at a time, so that no two frames mix.
#[derive(Default)]
struct Floor {
    channels: RefCell<HashMap<String, Vec<Weak<TcpStream>>>>,
    turn: Mutex<()>,
}

/// What the API is asked for.
#[derive(Deserialize)]
struct Trigger<'a> {
    name: &'a str,
    channel: &'a str,
    data: &'a str,
}

/// What a client sends.
#[derive(Deserialize)]
struct Message<'a> {
    event: &'a str,
    #[serde(default)]
    data: Data<'a>,
}

#[derive(Default, Deserialize)]
struct Data<'a> {
    #[serde(default)]
    channel: &'a str,
}

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(6002);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        eprintln!("listening on http://{}", listener.local_addr()?);
        let floor = Rc::new(Floor::default());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // Whoever goes away ends its own task.
            spawn_local(serve(Rc::clone(&floor), stream));
        }
    })
}

async fn serve(floor: Rc<Floor>, mut stream: TcpStream) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            more(&mut stream, &mut bytes).await?;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let header = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        if let Some(key) = header("sec-websocket-key") {
            let key = String::from_utf8(hash_key(key.as_bytes()).to_vec()).ok()?;
            let established = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}"#;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {key}\r\n\r\n"
            );
            write(&stream, &[answer.as_bytes(), &frame(0x81, established.as_bytes())].concat()).await.ok()?;
            bytes.drain(..end);
            return listen(&floor, stream, bytes).await;
        }
        let length: usize = header("content-length")?.parse().ok()?;
        while bytes.len() < end + length {
            more(&mut stream, &mut bytes).await?;
        }
        floor.publish(&serde_json::from_slice(&bytes[end..end + length]).ok()?).await;
        write(&stream, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            .await
            .ok()?;
        bytes.drain(..end + length);
    }
}

async fn listen(floor: &Floor, stream: TcpStream, mut bytes: Vec<u8>) -> Option<()> {
    // Whoever publishes writes to it, too.
    let stream = Rc::new(stream);
    loop {
        while let Some((first, payload, used)) = take(&bytes) {
            let answer = match first & 0x0f {
                8 => return None,
                9 => frame(0x8a, &payload),
                1 => floor.answer(&payload, &stream)?,
                _ => Vec::new(),
            };
            bytes.drain(..used);
            write(&stream, &answer).await.ok()?;
        }
        stream.readable().await.ok()?;
        match stream.try_read_buf(&mut bytes) {
            Ok(0) => return None,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return None,
            _ => {}
        }
    }
}

impl Floor {
    fn answer(&self, payload: &[u8], stream: &Rc<TcpStream>) -> Option<Vec<u8>> {
        let message: Message<'_> = serde_json::from_slice(payload).ok()?;
        let text = match message.event {
            "pusher:subscribe" => {
                let channel = message.data.channel;
                self.channels.borrow_mut().entry(channel.to_owned()).or_default().push(Rc::downgrade(stream));
                format!(r#"{{"event":"{SUCCEEDED}","channel":"{channel}","data":"{{}}"}}"#)
            }
            "pusher:ping" => r#"{"event":"pusher:pong","data":"{}"}"#.to_owned(),
            _ => return Some(Vec::new()),
        };
        Some(frame(0x81, text.as_bytes()))
    }

    async fn publish(&self, Trigger { name, channel, data }: &Trigger<'_>) {
        let text = format!(r#"{{"event":"{name}","channel":"{channel}","data":"{data}"}}"#);
        let frame = frame(0x81, text.as_bytes());
        let _turn = self.turn.lock().await;
        let subscribers = self.channels.borrow_mut().remove(*channel).unwrap_or_default();
        for stream in &subscribers {
            if let Some(stream) = stream.upgrade() {
                let _ = write(&stream, &frame).await;
            }
        }
        self.channels.borrow_mut().entry((*channel).to_owned()).or_default().splice(..0, subscribers);
    }
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(bytes).await.ok()? > 0).then_some(())
}

/// One `send`, unless the socket is full.
async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A frame of a server (RFC 6455, 5.2).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => out.push(length.to_le_bytes()[0]),
        Ok(length) => out.extend([&[126][..], &length.to_be_bytes()].concat()),
        Err(_) => out.extend([&[127][..], &(payload.len() as u64).to_be_bytes()].concat()),
    }
    out.extend_from_slice(payload);
    out
}

/// A client's frame: its first byte, what is in it, and how long it was. Clients that measure send short ones.
fn take(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (first, length) = (*bytes.first()?, bytes.get(1)? & 0x7f);
    let (start, length) = match length {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into()),
        127 => return None,
        length => (2, usize::from(length)),
    };
    let (mask, end) = (bytes.get(start..start + 4)?, start + 4 + length);
    let payload = bytes.get(start + 4..end)?;
    Some((first, payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect(), end))
}
