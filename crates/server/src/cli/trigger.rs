//! `fanfare trigger`.

use clap::Args;
use fanfare_protocol::SocketId;
use serde_json::json;

use super::{CliError, api::ServerArgs, argument_or_stdin, block_on, print};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct TriggerArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The channel
    channel: String,
    /// The event's name
    event: String,
    /// The event's data, usually JSON; `-` reads it from stdin
    #[arg(allow_hyphen_values = true)]
    data: String,
    /// One more channel; may be repeated
    #[arg(long = "channel", short = 'c', value_name = "CHANNEL")]
    more: Vec<String>,
    /// The connection that shall not get the event, as `toOthers()` does in Laravel
    #[arg(long, value_name = "ID")]
    socket_id: Option<SocketId>,
    /// Also ask for attributes of the channels: `subscription_count`, `user_count`
    #[arg(long, value_name = "LIST")]
    info: Option<String>,
}

const HELP: &str = "\
Examples:
  fanfare trigger orders order.created '{\"id\":7}'
  fanfare trigger orders order.created '{\"id\":7}' --channel stock --info subscription_count
  date | fanfare trigger clock tick -
  fanfare trigger '#server-to-user-ada' note '\"hello\"' --url https://ws.example.com

Prints what the server answers if --info asks for something, and nothing otherwise.
Exit codes: 0 when the server took the event; 1 when it did not, or cannot be reached; 2 for a bad flag or configuration.";

pub(super) fn run(args: &TriggerArgs) -> Result<(), CliError> {
    let server = args.server.server()?;
    let data = argument_or_stdin(&args.data)?;
    let channels: Vec<_> = std::iter::once(&args.channel).chain(&args.more).collect();
    let mut body = json!({"name": args.event, "channels": channels, "data": data});
    if let Some(socket_id) = args.socket_id {
        body["socket_id"] = socket_id.to_string().into();
    }
    if let Some(info) = &args.info {
        body["info"] = info.as_str().into();
    }
    let answer = block_on(server.post(&["events"], body.to_string()))?;
    match args.info {
        Some(_) => print(&format!("{answer}\n")),
        None => Ok(()),
    }
}
