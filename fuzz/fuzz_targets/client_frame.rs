//! A text message from a client: parsed, and what it carries put into frames for others.

#![no_main]

use fanfare_protocol::{
    ClientEvent,
    client_event::RecoverFrom,
    json::EventData,
    limits,
    presence::{Member, MemberLimits, User},
    server_event::{self, MemberFragments},
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const LIMITS: MemberLimits = MemberLimits { user_id: limits::USER_ID_CHARS, user_info: limits::USER_INFO_BYTES };

/// `data` of a frame, which has to be JSON with a string there.
fn data(frame: &[u8]) -> String {
    let frame: Value = serde_json::from_slice(frame).expect("a frame is JSON");
    frame["data"].as_str().expect("data is a string").to_owned()
}

fuzz_target!(|message: &[u8]| {
    match ClientEvent::parse(message) {
        Ok(ClientEvent::Subscribe(subscribe)) => {
            let Some(text) = subscribe.channel_data() else { return };
            if let Ok(member) = Member::from_channel_data(text, LIMITS) {
                let member = MemberFragments::new(&member);
                data(&server_event::presence_succeeded(subscribe.channel(), [&member].into_iter()));
            }
        }
        Ok(ClientEvent::SignIn(sign_in)) => {
            if User::from_user_data(sign_in.user_data(), LIMITS).is_ok() {
                data(&server_event::signin_success(sign_in.user_data()));
            }
        }
        Ok(ClientEvent::Relay(relay)) => {
            if let Some(Ok(sent)) = relay.data.map(EventData::from_value) {
                let channel = relay.channel.as_deref().unwrap_or_default();
                let frame = server_event::channel_event(&relay.event, channel, &sent, Some("u1"));
                assert_eq!(data(&frame), sent.text());
            }
        }
        Ok(ClientEvent::Recover(recover)) => {
            for (channel, from) in &recover.from {
                if let RecoverFrom::Position(position) = from {
                    assert_eq!(position.to_string().parse(), Ok(*position));
                    let stock = server_event::recovery(channel, true, 1);
                    let frame = server_event::with_position(&stock, *position);
                    data(&frame);
                    assert_eq!(server_event::without_position(&frame, *position), Some(stock));
                }
            }
        }
        Ok(ClientEvent::Unsubscribe { .. } | ClientEvent::Ping | ClientEvent::Pong) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
