//! The signed HTTP API over one connection.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use fanfare_protocol::request::signed_query;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{deadline, server::Credentials};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The head, without the status line.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl Response {
    /// The JSON of a success: nothing but 200 with an object is one.
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert!(self.headers.to_lowercase().contains("content-type: application/json"), "{self:?}");
        let value: Value = serde_json::from_str(&self.body).expect("JSON");
        assert!(value.is_object(), "{self:?}");
        value
    }
}

/// A connection that is kept for all requests.
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    credentials: Credentials,
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Api {
    pub(crate) async fn connect(address: SocketAddr, credentials: Credentials) -> Self {
        let socket = deadline("the server accepts", TcpStream::connect(address)).await.expect("a connection");
        socket.set_nodelay(true).expect("no delay");
        Self { address, credentials, socket, buffer: Vec::new() }
    }

    /// Publishes one event, successfully.
    pub async fn trigger(&mut self, channel: &str, name: &str, data: &str) {
        let body = json!({"name": name, "channel": channel, "data": data});
        assert_eq!(self.post("/events", &body.to_string()).await.json(), json!({}));
    }

    /// `POST` below the app's path.
    pub async fn post(&mut self, path: &str, body: &str) -> Response {
        let path = format!("/apps/{}{path}", self.credentials.id);
        let query = self.sign("POST", &path, &[], body);
        self.request("POST", &format!("{path}?{query}"), body).await
    }

    /// `GET` below the app's path.
    pub async fn get(&mut self, path: &str, params: &[(&str, &str)]) -> Response {
        let path = format!("/apps/{}{path}", self.credentials.id);
        let query = self.sign("GET", &path, params, "");
        self.request("GET", &format!("{path}?{query}"), "").await
    }

    /// The number of live connections.
    pub async fn connections(&mut self) -> u64 {
        self.get("/connections", &[]).await.json()["connections"].as_u64().expect("a number")
    }

    /// The distinct users of a presence channel, sorted.
    pub async fn users(&mut self, channel: &str) -> Vec<String> {
        let json = self.get(&format!("/channels/{channel}/users"), &[]).await.json();
        let users = json["users"].as_array().expect("an array");
        let mut ids: Vec<_> = users.iter().map(|user| user["id"].as_str().expect("a string").to_owned()).collect();
        ids.sort();
        ids
    }

    /// The signed query of a request; `path` and `params` as they are before any encoding.
    pub fn sign(&self, method: &str, path: &str, params: &[(&str, &str)], body: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
        let Credentials { key, signer, .. } = &self.credentials;
        signed_query(signer, key, method, path, params, body.as_bytes(), now)
    }

    /// Any request, as it is.
    pub async fn request(&mut self, method: &str, target: &str, body: &str) -> Response {
        let length = body.len();
        let text =
            format!("{method} {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n\r\n{body}", self.address);
        deadline("a request is sent", self.socket.write_all(text.as_bytes())).await.expect("a kept connection");
        deadline("an answer", self.answer()).await
    }

    async fn answer(&mut self) -> Response {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            self.read().await;
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).expect("a head in ASCII");
        let (line, headers) = head.split_once("\r\n").expect("a status line");
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = headers.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let length: usize = length.unwrap_or_default();
        while self.buffer.len() < length {
            self.read().await;
        }
        let body = String::from_utf8(self.buffer.drain(..length).collect()).expect("a body in UTF-8");
        Response { status, headers: headers.to_owned(), body }
    }

    async fn read(&mut self) {
        let read = self.socket.read_buf(&mut self.buffer).await.expect("a kept connection");
        assert!(read > 0, "the server closed the connection");
    }
}
