//! A channel name, and the same text as a user id, a socket id and a list of attributes.

#![no_main]

use fanfare_protocol::{
    ChannelKind, ChannelName, SocketId, channel::SERVER_TO_USER, limits, server_event, trigger::Info,
};
use libfuzzer_sys::fuzz_target;

fn parse(name: &str) {
    match ChannelName::parse(name, limits::CHANNEL_NAME_BYTES) {
        Ok(channel) => {
            assert_eq!(channel.as_str(), name);
            assert_eq!(channel.kind(), ChannelKind::of(name));
            assert_eq!(channel.user_id().is_some(), channel.kind().user);
            let frame = server_event::subscription_succeeded(name);
            let frame: serde_json::Value = serde_json::from_slice(&frame).expect("a frame is JSON");
            assert_eq!(frame["channel"], name);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(|text: &str| {
    parse(text);
    parse(&format!("{SERVER_TO_USER}{text}"));
    let _ = Info::parse(text);
    if let Ok(id) = text.parse::<SocketId>() {
        assert!(SocketId::is_well_formed(text));
        assert_eq!(id.to_string(), text);
    }
});
