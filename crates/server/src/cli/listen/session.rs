//! One connection: subscribes, answers pings, and hands events to the output.

use std::time::Duration;

use anyhow::anyhow;
use fanfare_protocol::{
    ChannelKind,
    channel::SERVER_TO_USER,
    signature::{channel_string, user_string},
};
use reqwest::{StatusCode, Upgraded, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    super::{
        CliError,
        api::Server,
        printable,
        target::Target,
        tell,
        wire::{self, Frame},
    },
    ListenArgs,
    output::{Output, Printed},
};

/// How long the answer to a ping may take.
const PONG_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest frame. Servers bound what they take for an event; a list of members may be longer.
const MAX_FRAME: usize = 64 * 1024 * 1024;

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// There were as many events as asked for.
    Enough,
    /// What was asked for cannot be had.
    Refused(String),
    /// By the server, or by the network.
    Closed { code: Option<u16>, reason: String },
}

/// A connection whose handshake is done.
pub(super) struct Session {
    stream: Upgraded,
    /// What has come and is not a whole frame yet.
    bytes: Vec<u8>,
    /// Silence after which the server is asked for a sign of life.
    activity_timeout: Duration,
    pinged: bool,
}

impl Session {
    pub(super) async fn connect(server: &Server) -> Result<Self, CliError> {
        let target = &server.target;
        let url = format!("{}{}", target.origin(), target.websocket_path("fanfare-listen"));
        let request = server
            .client
            .get(url)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            // An example of RFC 6455. Whether the answer fits it is for compatibility tests to look at.
            .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
        let answer = request.send().await.map_err(|error| server.unreachable(error))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status();
            return Err(anyhow!("{} speaks no WebSocket: it answered {status}", target.origin()).into());
        }
        let stream = answer.upgrade().await.map_err(|error| server.unreachable(error))?;
        Ok(Self { stream, bytes: Vec::new(), activity_timeout: Duration::from_secs(120), pinged: false })
    }

    /// Subscribes and prints, until the connection ends.
    pub(super) async fn run(&mut self, server: &Server, args: &ListenArgs, output: &mut Output) -> End {
        let broken = |error: std::io::Error| End::Closed { code: None, reason: error.to_string() };
        loop {
            while let Some((frame, rest)) = Frame::take(&self.bytes) {
                let (first, used) = (frame.first, self.bytes.len() - rest.len());
                let payload = frame.payload.to_vec();
                self.bytes.drain(..used);
                let answers = match first {
                    wire::TEXT => match self.on_message(&payload, &server.target, args, output) {
                        Ok(answers) => answers,
                        Err(end) => return end,
                    },
                    wire::PING => wire::encode(wire::PONG, &payload),
                    wire::PONG => Vec::new(),
                    wire::CLOSE => return closed(&payload),
                    other => {
                        let reason = format!("a frame that begins with {other:#x} is not understood");
                        return End::Closed { code: None, reason };
                    }
                };
                if let Err(error) = self.stream.write_all(&answers).await {
                    return broken(error);
                }
            }
            let wait = if self.pinged { PONG_TIMEOUT } else { self.activity_timeout };
            match timeout(wait, self.stream.read_buf(&mut self.bytes)).await {
                Ok(Ok(0)) => return End::Closed { code: None, reason: "without a close frame".to_owned() },
                Ok(Ok(_)) if self.bytes.len() > MAX_FRAME => {
                    return End::Closed { code: None, reason: format!("a frame is longer than {MAX_FRAME} bytes") };
                }
                Ok(Ok(_)) => self.pinged = false,
                Ok(Err(error)) => return broken(error),
                Err(_) if self.pinged => return End::Closed { code: None, reason: "the server is silent".to_owned() },
                Err(_) => {
                    self.pinged = true;
                    let ping = message(&json!({"event": "pusher:ping", "data": {}}));
                    if let Err(error) = self.stream.write_all(&ping).await {
                        return broken(error);
                    }
                }
            }
        }
    }

    /// What to answer to a message of the protocol.
    fn on_message(
        &mut self,
        payload: &[u8],
        target: &Target,
        args: &ListenArgs,
        output: &mut Output,
    ) -> Result<Vec<u8>, End> {
        let text = String::from_utf8_lossy(payload);
        let Ok(frame) = serde_json::from_str::<Value>(&text) else {
            return Err(End::Closed { code: None, reason: "a message is not JSON".to_owned() });
        };
        let (event, channel) = (frame["event"].as_str().unwrap_or_default(), frame["channel"].as_str());
        // Some servers send objects where pusher.com sends JSON in a string.
        let data = match &frame["data"] {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            value => value.clone(),
        };
        match (event, channel) {
            ("pusher:connection_established", _) => {
                if let Some(seconds) = data["activity_timeout"].as_u64() {
                    self.activity_timeout = Duration::from_secs(seconds.max(1));
                }
                let socket_id = data["socket_id"].as_str().unwrap_or_default();
                tell(format_args!("fanfare: connected to {} as {socket_id}", target.origin()));
                return Ok(opening(socket_id, target, args));
            }
            ("pusher:ping", _) => return Ok(message(&json!({"event": "pusher:pong", "data": {}}))),
            ("pusher_internal:subscription_succeeded", Some(channel)) => {
                tell(format_args!("fanfare: subscribed to {}", printable(channel)));
            }
            ("pusher:subscription_error", Some(channel)) => {
                let why = data["error"].as_str().map_or_else(|| data.to_string(), str::to_owned);
                return Err(End::Refused(format!("cannot subscribe to {channel}: {why}")));
            }
            // A close frame follows, which says whether to come back.
            ("pusher:error", None) => {
                let message = data["message"].as_str().unwrap_or(&text);
                tell(format_args!("fanfare: the server says: {}", printable(message)));
            }
            _ => {}
        }
        match channel {
            Some(_) if output.frame(&text, &frame) == Printed::Enough => Err(End::Enough),
            _ => Ok(Vec::new()),
        }
    }
}

/// The first frames: a sign-in, where a channel is a user's own, and the subscriptions.
fn opening(socket_id: &str, target: &Target, args: &ListenArgs) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(user) = args.channels.iter().find_map(|channel| channel.strip_prefix(SERVER_TO_USER)) {
        let user_data = json!({"id": user}).to_string();
        let auth = target.auth(&user_string(socket_id, &user_data));
        out.extend(message(&json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}})));
    }
    for channel in &args.channels {
        let kind = ChannelKind::of(channel);
        let channel_data = kind.presence.then(|| {
            let info = args.user_info.as_deref().map(|info| serde_json::from_str(info).unwrap_or_else(|_| info.into()));
            let mut member = json!({"user_id": args.user_id});
            if let Some(info) = info {
                member["user_info"] = info;
            }
            member.to_string()
        });
        let mut data = json!({"channel": channel});
        if kind.auth {
            data["auth"] = target.auth(&channel_string(socket_id, channel, channel_data.as_deref())).into();
        }
        if let Some(channel_data) = channel_data {
            data["channel_data"] = channel_data.into();
        }
        out.extend(message(&json!({"event": "pusher:subscribe", "data": data})));
    }
    out
}

fn message(event: &Value) -> Vec<u8> {
    wire::encode(wire::TEXT, event.to_string().as_bytes())
}

fn closed(payload: &[u8]) -> End {
    match payload.split_first_chunk() {
        Some((code, reason)) => {
            End::Closed { code: Some(u16::from_be_bytes(*code)), reason: String::from_utf8_lossy(reason).into_owned() }
        }
        None => End::Closed { code: None, reason: "without a code".to_owned() },
    }
}
