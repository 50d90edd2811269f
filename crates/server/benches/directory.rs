//! What the directory costs: subscribing, leaving and publishing, without a socket. `cargo bench -p fanfare-server --bench directory`.

#![expect(clippy::unwrap_used, reason = "a failed set-up ends the run")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fanfare_server::{
    config::{AppConfig, Config},
    measure::Channels,
};

fn channels() -> Channels {
    let app = AppConfig { subscription_count: false, max_presence_members: usize::MAX, ..AppConfig::demo() };
    Channels::new(&Config { apps: vec![app], ..Config::default() }).unwrap()
}

/// Many more channels than the one that is measured.
const OTHERS: u32 = 10_000;

fn directory(c: &mut Criterion) {
    let mut group = c.benchmark_group("directory");
    let mut channels = channels();
    let _others: Vec<_> = (0..OTHERS).map(|i| channels.subscribe(i, &format!("other-{i}"), None).unwrap()).collect();
    let data = "x".repeat(200);

    group.bench_function("publish, nobody listens", |b| b.iter(|| channels.publish("nobody", black_box(&data))));
    for count in [1_u32, 1_000] {
        let name = format!("news-{count}");
        let _subscribers: Vec<_> = (0..count).map(|i| channels.subscribe(i, &name, None).unwrap()).collect();
        channels.take();
        group.bench_function(BenchmarkId::new("publish, subscribers", count), |b| {
            b.iter(|| {
                channels.publish(&name, black_box(&data));
                channels.take()
            });
        });
        group.bench_function(BenchmarkId::new("subscribe and leave, subscribers", count), |b| {
            b.iter(|| {
                let joined = channels.subscribe(u32::MAX, &name, None).unwrap();
                channels.unsubscribe(&name, &joined);
                channels.take()
            });
        });
    }
    for count in [10_u32, 100, 1_000, 10_000] {
        let name = format!("presence-{count}");
        let member = |i: u32| channels.subscribe(i, &name, Some(&format!("user-{i}"))).unwrap();
        let _members: Vec<_> = (0..count).map(member).collect();
        channels.take();
        // Each join is a change: the list of members is built for it once.
        group.bench_function(BenchmarkId::new("join and leave, members", count), |b| {
            b.iter(|| {
                let joined = channels.subscribe(u32::MAX, &name, Some("guest")).unwrap();
                channels.unsubscribe(&name, &joined);
                channels.take()
            });
        });
        group.bench_function(BenchmarkId::new("another tab, members", count), |b| {
            b.iter(|| {
                let joined = channels.subscribe(u32::MAX, &name, Some("user-0")).unwrap();
                channels.unsubscribe(&name, &joined);
                channels.take()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, directory);
criterion_main!(benches);
