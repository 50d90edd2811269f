//! `fanfare sign`: what a server SDK would send, for those who write or debug one.

use clap::{Args, Subcommand};
use fanfare_protocol::{
    ChannelKind, SocketId,
    request::{signed_query, string_to_sign},
    signature::{channel_string, user_string},
};
use serde_json::json;

use super::{
    CliError, argument_or_stdin, print,
    target::{Target, TargetArgs, encode_path},
    tell,
};
use crate::timing::unix_time;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct SignArgs {
    #[command(subcommand)]
    what: What,
}

/// What each of them takes.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    target: TargetArgs,
    /// Also print the text that is signed, to stderr
    #[arg(long)]
    explain: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A subscription to a private or presence channel: the answer of an auth endpoint
    #[command(after_help = CHANNEL_HELP)]
    Channel {
        #[command(flatten)]
        common: Common,
        /// The connection, as pusher-js tells it: `pusher.connection.socket_id`
        socket_id: SocketId,
        /// The channel
        channel: String,
        /// Who joins a presence channel: `{"user_id":"7","user_info":{"name":"Ada"}}`
        channel_data: Option<String>,
    },
    /// A sign-in: the answer of a user authentication endpoint
    #[command(after_help = USER_HELP)]
    User {
        #[command(flatten)]
        common: Common,
        /// The connection, as pusher-js tells it: `pusher.connection.socket_id`
        socket_id: SocketId,
        /// Who signs in: `{"id":"7","user_info":{"name":"Ada"}}`
        user_data: String,
    },
    /// A request of the HTTP API: its URL
    #[command(after_help = REQUEST_HELP)]
    Request {
        #[command(flatten)]
        common: Common,
        /// GET or POST
        method: String,
        /// The path, with parameters if it has any, below --url
        path: String,
        /// The body; `-` reads it from stdin
        body: Option<String>,
        /// The time to sign, in Unix seconds [default: now]
        #[arg(long, value_name = "SECONDS")]
        timestamp: Option<u64>,
    },
}

const HELP: &str = "\
Examples:
  fanfare sign channel 1234.5678 private-orders
  fanfare sign channel 1234.5678 presence-room '{\"user_id\":\"7\"}' --explain
  fanfare sign user 1234.5678 '{\"id\":\"7\"}'
  curl \"$(fanfare sign request GET '/apps/app-id/channels?info=subscription_count')\"
  curl -d \"$body\" \"$(fanfare sign request POST /apps/app-id/events \"$body\")\"

Nothing is sent. A signed request is good for ten minutes.";

const CHANNEL_HELP: &str = "\
Examples:
  fanfare sign channel 1234.5678 private-orders
  fanfare sign channel 1234.5678 presence-room '{\"user_id\":\"7\",\"user_info\":{\"name\":\"Ada\"}}' --explain";

const USER_HELP: &str = "\
Examples:
  fanfare sign user 1234.5678 '{\"id\":\"7\"}'
  fanfare sign user 1234.5678 '{\"id\":\"7\",\"watchlist\":[\"8\"]}' --explain";

const REQUEST_HELP: &str = "\
Examples:
  curl \"$(fanfare sign request GET '/apps/app-id/channels?info=subscription_count')\"
  curl -d \"$body\" \"$(fanfare sign request POST /apps/app-id/events \"$body\")\"
  fanfare sign request GET /apps/app-id/channels --timestamp 1353088179 --explain   to compare with a log";

pub(super) fn run(args: &SignArgs) -> Result<(), CliError> {
    let (What::Channel { common, .. } | What::User { common, .. } | What::Request { common, .. }) = &args.what;
    let target = common.target.target()?;
    let (signed, result) = match &args.what {
        What::Channel { socket_id, channel, channel_data, .. } => {
            of_channel(&target, *socket_id, channel, channel_data.as_deref())?
        }
        What::User { socket_id, user_data, .. } => {
            let text = user_string(&socket_id.to_string(), user_data);
            let answer = json!({"auth": target.auth(&text), "user_data": user_data});
            (text, answer.to_string())
        }
        What::Request { method, path, body, timestamp, .. } => {
            let body = body.as_deref().map(argument_or_stdin).transpose()?.unwrap_or_default();
            of_request(&target, method, path, &body, *timestamp)
        }
    };
    if common.explain {
        tell(signed);
    }
    print(&format!("{result}\n"))
}

fn of_channel(
    target: &Target,
    socket_id: SocketId,
    channel: &str,
    channel_data: Option<&str>,
) -> Result<(String, String), CliError> {
    let kind = ChannelKind::of(channel);
    if !kind.auth {
        let text = format!("CHANNEL: {channel} is a public channel, which needs no signature");
        return Err(CliError::Usage(text));
    }
    if kind.presence && channel_data.is_none() {
        let text = r#"CHANNEL_DATA: a presence channel needs to know who joins: '{"user_id":"7"}'"#;
        return Err(CliError::Usage(text.to_owned()));
    }
    let text = channel_string(&socket_id.to_string(), channel, channel_data);
    let mut answer = json!({"auth": target.auth(&text)});
    if let Some(data) = channel_data {
        answer["channel_data"] = data.into();
    }
    Ok((text, answer.to_string()))
}

fn of_request(target: &Target, method: &str, path: &str, body: &str, timestamp: Option<u64>) -> (String, String) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = format!("{}{}{path}", target.prefix(), if path.starts_with('/') { "" } else { "/" });
    let params: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    let now = unix_time().as_secs();
    let (method, now) = (method.to_ascii_uppercase(), timestamp.unwrap_or(now));
    let query = signed_query(target.signer(), target.key(), &method, &path, &params, body.as_bytes(), now);
    (string_to_sign(&method, &path, &query), format!("{}{}?{query}", target.origin(), encode_path(&path)))
}
