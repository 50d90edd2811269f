//! A client that speaks the protocol, over a WebSocket or without one.

use std::{net::SocketAddr, sync::Arc};

use fanfare_protocol::signature::{channel_string, user_string};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message},
};

use crate::{
    Event, Receiving, deadline,
    server::Credentials,
    spread::Markers,
    xhr::{self, XhrClient},
};

/// A connected client.
#[derive(Debug)]
pub struct Client {
    /// Its name on the server.
    pub socket_id: String,
    /// The first frame.
    pub established: Event,
    wire: Wire,
    credentials: Credentials,
    /// What tells that events have come everywhere, if there are several nodes.
    pub(crate) markers: Option<Arc<Markers>>,
}

/// How a client is connected.
#[derive(Debug)]
enum Wire {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Xhr(Box<XhrClient>),
}

/// How a connection ended: what came before, and the close frame, if there was one.
#[derive(Debug)]
pub struct Ended {
    /// Events before the end.
    pub events: Vec<Event>,
    /// Code of the close frame.
    pub code: Option<u16>,
    /// Reason of the close frame.
    pub reason: String,
}

enum Received {
    Event(Event),
    End { code: Option<u16>, reason: String },
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, path: &str, credentials: Credentials) -> Result<Self, Ended> {
        Self::connect_by(None, address, path, credentials).await
    }

    /// Connects without a WebSocket, if it is said how to receive then.
    pub(crate) async fn connect_by(
        receiving: Option<Receiving>,
        address: SocketAddr,
        path: &str,
        credentials: Credentials,
    ) -> Result<Self, Ended> {
        let mut wire = match receiving {
            Some(receiving) => Wire::Xhr(Box::new(XhrClient::open(address, path, receiving))),
            None => {
                let socket = deadline("the server accepts", TcpStream::connect(address)).await.expect("a connection");
                socket.set_nodelay(true).expect("no delay");
                let handshake = client_async(format!("ws://{address}{path}"), socket);
                let (socket, _) = deadline("the handshake", handshake).await.expect("101 whatever the request");
                Wire::WebSocket(Box::new(socket))
            }
        };
        let mut events = Vec::new();
        loop {
            match deadline("the first frame", receive(&mut wire)).await {
                Received::Event(event) if event.name == "pusher:connection_established" && events.is_empty() => {
                    let socket_id = event.json()["socket_id"].as_str().expect("a string socket_id").to_owned();
                    return Ok(Self { socket_id, established: event, wire, credentials, markers: None });
                }
                Received::Event(event) => events.push(event),
                Received::End { code, reason } => return Err(Ended { events, code, reason }),
            }
        }
    }

    /// The next event; the connection has to live.
    pub async fn next_event(&mut self) -> Event {
        self.event_or_end()
            .await
            .unwrap_or_else(|Ended { code, reason, .. }| panic!("the connection ended: {code:?} {reason}"))
    }

    /// The next event, or how the connection ended.
    ///
    /// # Errors
    /// The close frame.
    pub async fn event_or_end(&mut self) -> Result<Event, Ended> {
        match deadline("the next event", receive(&mut self.wire)).await {
            Received::Event(event) => Ok(event),
            Received::End { code, reason } => Err(Ended { events: Vec::new(), code, reason }),
        }
    }

    /// Waits until the connection ends.
    pub async fn ended(&mut self) -> Ended {
        let mut events = Vec::new();
        loop {
            match deadline("the end of the connection", receive(&mut self.wire)).await {
                Received::Event(event) => events.push(event),
                Received::End { code, reason } => return Ended { events, code, reason },
            }
        }
    }

    /// Everything the server has decided to send to this client so far: it asks for a `pusher:pong`, which comes after.
    pub async fn settled(&mut self) -> Vec<Event> {
        let mut before = self.ponged().await;
        if let Some(markers) = self.markers.clone() {
            // What this client sent is published now; then it comes by way of Redis.
            markers.pass().await;
            before.extend(self.ponged().await);
        }
        before
    }

    async fn ponged(&mut self) -> Vec<Event> {
        self.send(&json!({"event": "pusher:ping", "data": {}})).await;
        self.until(|event| event.name == "pusher:pong").await.0
    }

    /// Receives up to an event: what came before, and it.
    pub async fn until(&mut self, mut last: impl FnMut(&Event) -> bool) -> (Vec<Event>, Event) {
        let mut before = Vec::new();
        loop {
            let event = self.next_event().await;
            if last(&event) {
                return (before, event);
            }
            before.push(event);
        }
    }

    /// Sends one frame.
    pub async fn send(&mut self, frame: &Value) {
        self.send_text(frame.to_string()).await;
    }

    /// Sends one text message.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into())).await;
    }

    /// Sends any message.
    pub async fn send_message(&mut self, message: Message) {
        match &mut self.wire {
            Wire::WebSocket(socket) => {
                deadline("a frame is sent", socket.send(message)).await.expect("a live connection");
            }
            Wire::Xhr(session) => session.send(message.to_text().expect("text")).await,
        }
    }

    /// Subscribes to a public or private channel, and returns the events of other channels that came before the answer.
    pub async fn subscribe(&mut self, channel: &str) -> Vec<Event> {
        let data = self.subscription(channel, None);
        self.subscribe_with(channel, data).await.0
    }

    /// Joins a presence channel, and returns the answer.
    pub async fn join(&mut self, channel: &str, user_id: &str) -> Event {
        let member = json!({"user_id": user_id, "user_info": {"name": user_id}}).to_string();
        let data = self.subscription(channel, Some(&member));
        self.subscribe_with(channel, data).await.1
    }

    /// The `data` of a subscription, with its signature.
    pub fn subscription(&self, channel: &str, channel_data: Option<&str>) -> Value {
        let text = channel_string(&self.socket_id, channel, channel_data);
        let mut data = json!({"auth": self.sign(&text), "channel": channel});
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        data
    }

    /// Asks for a subscription, and does not wait.
    pub async fn begin_subscribe(&mut self, data: Value) {
        self.send(&json!({"event": "pusher:subscribe", "data": data})).await;
    }

    async fn subscribe_with(&mut self, channel: &str, data: Value) -> (Vec<Event>, Event) {
        self.begin_subscribe(data).await;
        let answer = self.until(|event| {
            assert!(event.name != "pusher:error", "the subscription failed: {}", event.text);
            event.is("pusher_internal:subscription_succeeded", channel)
        });
        let (before, answer) = answer.await;
        let early = before.iter().find(|event| event.channel.as_deref() == Some(channel));
        assert!(early.is_none(), "an event before subscription_succeeded: {early:?}");
        (before, answer)
    }

    /// Leaves a channel; there is no answer to that.
    pub async fn unsubscribe(&mut self, channel: &str) {
        self.send(&json!({"event": "pusher:unsubscribe", "data": {"channel": channel}})).await;
    }

    /// Signs in, and returns the answer.
    pub async fn sign_in(&mut self, user_data: &str) -> Event {
        let auth = self.sign(&user_string(&self.socket_id, user_data));
        self.send(&json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}})).await;
        self.until(|event| event.name == "pusher:signin_success" || event.name == "pusher:error").await.1
    }

    /// Sends a client event.
    pub async fn send_event(&mut self, channel: &str, name: &str, data: Value) {
        self.send(&json!({"event": name, "channel": channel, "data": data})).await;
    }

    /// Closes the connection. Over a WebSocket the server does the same; without one it finds out, when its patience ends.
    pub async fn close(mut self) -> Ended {
        match &mut self.wire {
            Wire::WebSocket(socket) => {
                deadline("a close frame is sent", (**socket).close(None)).await.expect("a live connection");
            }
            Wire::Xhr(client) => {
                client.close().await;
                return Ended { events: Vec::new(), code: None, reason: String::new() };
            }
        }
        self.ended().await
    }

    /// `key:signature` of a text.
    pub fn sign(&self, text: &str) -> String {
        format!("{}:{}", self.credentials.key, self.credentials.signer.sign(&[text.as_bytes()]))
    }
}

async fn receive(wire: &mut Wire) -> Received {
    let socket = match wire {
        Wire::WebSocket(socket) => socket,
        Wire::Xhr(client) => {
            return match client.next().await {
                xhr::Received::Event(event) => Received::Event(event),
                xhr::Received::Closed(code, reason) => Received::End { code: Some(code), reason },
                xhr::Received::Lost => Received::End { code: None, reason: "the response ended".to_owned() },
            };
        }
    };
    loop {
        let message = match socket.next().await {
            Some(Ok(message)) => message,
            None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                return Received::End { code: None, reason: "no close frame".to_owned() };
            }
            Some(Err(error)) => return Received::End { code: None, reason: error.to_string() },
        };
        match message {
            Message::Text(text) => return Received::Event(Event::parse(&text)),
            Message::Close(frame) => {
                let (code, reason) = frame
                    .map_or((None, String::new()), |frame| (Some(u16::from(frame.code)), frame.reason.to_string()));
                return Received::End { code, reason };
            }
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Binary(_) | Message::Frame(_) => panic!("the server sends text: {message:?}"),
        }
    }
}
