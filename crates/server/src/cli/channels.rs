//! `fanfare channels`.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::Args;
use fanfare_protocol::ChannelKind;
use serde_json::{Map, Value};

use super::{
    CliError,
    api::{Server, ServerArgs},
    block_on, print, printable,
};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct ChannelsArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// One channel, with its users if it is a presence channel
    channel: Option<String>,
    /// Only channels whose name begins so
    #[arg(long, conflicts_with = "channel", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Which attributes to ask for: `subscription_count`, `user_count` of presence channels, `cache` of one cache channel
    /// [default: those that there are]
    #[arg(long, value_name = "LIST")]
    info: Option<String>,
    /// Print what the server answers
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Examples:
  fanfare channels                           the channels that have subscribers
  fanfare channels --prefix presence-        with the number of users
  fanfare channels presence-room             one channel and who is in it
  fanfare channels --json | jq .channels

Exit codes: 0; 1 when the server does not answer, or refuses; 2 for a bad flag or configuration.";

pub(super) fn run(args: &ChannelsArgs) -> Result<(), CliError> {
    let server = args.server.server()?;
    let text = match &args.channel {
        Some(channel) => block_on(one(&server, channel, args))?,
        None => block_on(list(&server, args))?,
    };
    print(&text)
}

fn object(text: &str) -> anyhow::Result<Map<String, Value>> {
    serde_json::from_str(text).context("the answer is not a JSON object")
}

async fn list(server: &Server, args: &ChannelsArgs) -> Result<String, CliError> {
    let usual =
        if args.prefix.starts_with("presence-") { "subscription_count,user_count" } else { "subscription_count" };
    let mut params = vec![("info", args.info.as_deref().unwrap_or(usual))];
    if !args.prefix.is_empty() {
        params.push(("filter_by_prefix", args.prefix.as_str()));
    }
    let answer = server.get(&["channels"], &params).await?;
    if args.json {
        return Ok(format!("{answer}\n"));
    }
    let mut text = String::new();
    let answer = object(&answer)?;
    // Servers in PHP send an empty list instead of an empty object.
    for (name, attributes) in answer.get("channels").and_then(Value::as_object).into_iter().flatten() {
        let _ = writeln!(text, "{}{}", printable(name), described(attributes));
    }
    Ok(text)
}

async fn one(server: &Server, channel: &str, args: &ChannelsArgs) -> Result<String, CliError> {
    let kind = ChannelKind::of(channel);
    let mut usual = vec!["subscription_count"];
    usual.extend(kind.presence.then_some("user_count"));
    usual.extend(kind.cache.then_some("cache"));
    let info = args.info.clone().unwrap_or_else(|| usual.join(","));
    let mut answer = object(&server.get(&["channels", channel], &[("info", &info)]).await?)?;
    if kind.presence {
        let users = object(&server.get(&["channels", channel, "users"], &[]).await?)?;
        answer.extend(users);
    }
    if args.json {
        return Ok(format!("{}\n", Value::from(answer)));
    }
    let occupied = if answer.get("occupied") == Some(&Value::Bool(true)) { "" } else { "  not occupied" };
    let attributes = Value::from(answer);
    let mut text = format!("{}{occupied}{}\n", printable(channel), described(&attributes));
    for user in attributes["users"].as_array().into_iter().flatten() {
        let _ = writeln!(
            text,
            "  {}",
            printable(&user["id"].as_str().map_or_else(|| user["id"].to_string(), str::to_owned))
        );
    }
    if let Some(data) = attributes["cache"]["data"].as_str() {
        let _ = writeln!(text, "  kept: {}", printable(data));
    }
    Ok(text)
}

/// Attributes in words.
fn described(attributes: &Value) -> String {
    let count = |key: &str, one: &str, many: &str| {
        let count = attributes[key].as_u64()?;
        Some(format!("  {count} {}", if count == 1 { one } else { many }))
    };
    [count("subscription_count", "subscriber", "subscribers"), count("user_count", "user", "users")]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attributes_are_told_in_words() {
        assert_eq!(described(&json!({"subscription_count": 1, "user_count": 2})), "  1 subscriber  2 users");
        assert_eq!(described(&json!({})), "");
    }
}
