//! What one message costs: parsing, signatures, encoding. `cargo bench -p fanfare-protocol`.

#![expect(clippy::unwrap_used, reason = "a failed set-up ends the run")]

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanfare_protocol::{
    AppSecret, ClientEvent, Signer, SocketId,
    json::EventData,
    presence::{Member, MemberLimits},
    request::{Query, SignedRequest, signed_query},
    server_event::{self, MemberFragments},
    signature::{channel_string, verify_channel},
    trigger::{Event, EventLimits},
};

const KEY: &str = "app-key";
const PATH: &str = "/apps/app-id/events";
const NOW: u64 = 1_700_000_000;
const LIMITS: MemberLimits = MemberLimits { user_id: 128, user_info: 1024 };

/// A small event, and one of the size of a chat message with its markup.
const BODIES: [usize; 2] = [200, 4096];

fn signer() -> Signer {
    Signer::new(&AppSecret::new("app-secret"))
}

/// The body of a trigger, `length` bytes, with JSON in its data as the SDKs write it.
fn trigger_body(length: usize) -> String {
    let body = |text: &str| {
        format!(r#"{{"name":"order-created","channel":"private-orders","data":"{{\"text\":\"{text}\"}}"}}"#)
    };
    body(&"x".repeat(length - body("").len()))
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let member = r#"{\"user_id\":\"7\",\"user_info\":{\"name\":\"Ada\"}}"#;
    let auth = format!("{KEY}:{}", "a".repeat(64));
    let frames = [
        ("subscribe, public", r#"{"event":"pusher:subscribe","data":{"channel":"orders"}}"#.to_owned()),
        (
            "subscribe, presence",
            format!(
                r#"{{"event":"pusher:subscribe","data":{{"auth":"{auth}","channel":"presence-orders","channel_data":"{member}"}}}}"#
            ),
        ),
        (
            "client event",
            r#"{"event":"client-typing","channel":"private-orders","data":{"user":7,"typing":true,"at":[1,2,3]}}"#
                .to_owned(),
        ),
        ("ping", r#"{"event":"pusher:ping","data":{}}"#.to_owned()),
    ];
    for (name, frame) in &frames {
        ClientEvent::parse(frame.as_bytes()).unwrap();
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(*name, |b| b.iter(|| ClientEvent::parse(black_box(frame.as_bytes())).is_ok()));
    }
    let (query, limits) = (Query::default(), EventLimits::default());
    for length in BODIES {
        let body = trigger_body(length);
        Event::parse(body.as_bytes(), &query, &limits).unwrap();
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(BenchmarkId::new("trigger", length), body.as_bytes(), |b, body| {
            b.iter(|| Event::parse(black_box(body), &query, &limits).is_ok());
        });
    }
    group.finish();
}

fn signatures(c: &mut Criterion) {
    let mut group = c.benchmark_group("signature");
    let signer = signer();
    let socket = SocketId::from_random(123_456, 654_321);
    let (id, channel) = (socket.to_string(), "private-orders");
    group.bench_function("channel, sign", |b| {
        b.iter(|| signer.sign(&[channel_string(black_box(&id), channel, None).as_bytes()]));
    });
    let auth = format!("{KEY}:{}", signer.sign(&[channel_string(&id, channel, None).as_bytes()]));
    verify_channel(&auth, socket, channel, None, |_| Some(&signer)).unwrap();
    group.bench_function("channel, verify", |b| {
        b.iter(|| verify_channel(black_box(&auth), socket, channel, None, |_| Some(&signer)).is_ok());
    });
    for length in BODIES {
        let body = trigger_body(length).into_bytes();
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(BenchmarkId::new("request, sign", length), &body[..], |b, body| {
            b.iter(|| signed_query(&signer, KEY, "POST", PATH, &[], black_box(body), NOW));
        });
        let raw = signed_query(&signer, KEY, "POST", PATH, &[], &body, NOW);
        let verify = |raw: &str, body: &[u8]| {
            let query = Query::parse(raw);
            SignedRequest { method: "POST", path: PATH, prefix: "", query: &query, body }
                .verify(NOW, |_| Some(&signer))
                .is_ok()
        };
        assert!(verify(&raw, &body));
        // With the parsing of the query, which has no other purpose.
        group.bench_with_input(BenchmarkId::new("request, verify", length), &body[..], |b, body| {
            b.iter(|| verify(black_box(&raw), body));
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let (query, limits) = (Query::default(), EventLimits::default());
    for length in BODIES {
        let body = trigger_body(length);
        let event = Event::parse(body.as_bytes(), &query, &limits).unwrap();
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_with_input(BenchmarkId::new("channel event", length), &event, |b, event| {
            b.iter(|| server_event::channel_event(&event.name, &event.channels[0], black_box(&event.data), None));
        });
        let text = event.data.text().into_owned();
        group.bench_with_input(BenchmarkId::new("data from text", length), &text, |b, text| {
            b.iter(|| EventData::from_text(black_box(text)));
        });
    }
    group.finish();
}

fn presence(c: &mut Criterion) {
    let mut group = c.benchmark_group("presence");
    let data = |number: usize| format!(r#"{{"user_id":"user-{number}","user_info":{{"name":"User {number}"}}}}"#);
    let member = |number| Member::from_channel_data(&data(number), LIMITS).unwrap();
    let fragments: Vec<_> = (0..100).map(|number| MemberFragments::new(&member(number))).collect();
    let one = data(7);
    group.bench_function("member from channel_data", |b| {
        b.iter(|| {
            Member::from_channel_data(black_box(&one), LIMITS).map(|member| MemberFragments::new(&member)).is_ok()
        });
    });
    group.bench_function("snapshot of 100 members", |b| {
        b.iter(|| server_event::presence_succeeded("presence-orders", black_box(&fragments).iter()));
    });
    group.bench_function("member_added", |b| {
        b.iter(|| server_event::member_added("presence-orders", black_box(&fragments[0])));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = parse, signatures, encode, presence
}
criterion_main!(benches);
