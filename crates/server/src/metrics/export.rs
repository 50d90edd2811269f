//! Every name, what it means, and where its value comes from. `docs/operating.md` has the same list; a test compares them.
//!
//! The first group has the names of Soketi, so that its dashboards work: also where Prometheus would have them otherwise, such
//! as counters that do not end in `_total`.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::{
    AppMetrics, Refusal, Transport,
    process::Process,
    refusal::Refusals,
    text::{Kind, Text},
};
use crate::{app::App, node::Node, timing::unix_time, webhook::Backlog};

pub(crate) use super::text::CONTENT_TYPE;

/// One app at one moment.
struct View<'a> {
    app: &'a App,
    metrics: &'a AppMetrics,
    waiting: Backlog,
}

/// A family with one number for each app.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&View<'_>) -> u64,
}

const fn counter(name: &'static str, help: &'static str, value: fn(&View<'_>) -> u64) -> Family {
    Family { name, kind: Kind::Counter, help, value }
}

const fn gauge(name: &'static str, help: &'static str, value: fn(&View<'_>) -> u64) -> Family {
    Family { name, kind: Kind::Gauge, help, value }
}

const OF_APPS: &[Family] = &[
    // Soketi's.
    gauge("connected", "Live connections.", |of| {
        Transport::ALL.iter().map(|transport| of.metrics.open_now(*transport)).sum()
    }),
    counter("new_connections_total", "Connections that were let in.", |of| {
        of.metrics.opened.iter().map(super::Counter::get).sum()
    }),
    counter("new_disconnections_total", "Connections that have ended.", |of| {
        of.metrics.closed.iter().map(super::Counter::get).sum()
    }),
    counter("socket_received_bytes", "Bytes read from clients after the handshake.", |of| {
        of.metrics.bytes_received.get()
    }),
    counter("socket_transmitted_bytes", "Bytes written to clients.", |of| of.metrics.bytes_sent.get()),
    counter("ws_messages_received_total", "Messages from clients.", |of| of.metrics.messages_received.get()),
    counter("ws_messages_sent_total", "Frames written to clients, those of control included.", |of| {
        of.metrics.messages_sent.get()
    }),
    counter("http_received_bytes", "Bytes of bodies of HTTP API requests.", |of| of.metrics.http_bytes_received.get()),
    counter("http_transmitted_bytes", "Bytes of bodies of HTTP API answers.", |of| of.metrics.http_bytes_sent.get()),
    counter("http_calls_received_total", "HTTP API requests.", |of| of.metrics.http_calls.get()),
    // Nodes ask each other nothing: reads come from what each node, or Redis, knows.
    counter(
        "horizontal_adapter_resolved_promises",
        "Questions other nodes answered; always 0, as none are asked.",
        |_| 0,
    ),
    counter(
        "horizontal_adapter_uncomplete_promises",
        "Questions other nodes left open; always 0, as none are asked.",
        |_| 0,
    ),
    counter("horizontal_adapter_sent_requests", "Questions to other nodes; always 0, as none are asked.", |_| 0),
    counter("horizontal_adapter_received_requests", "Questions of other nodes; always 0, as none are asked.", |_| 0),
    counter("horizontal_adapter_received_responses", "Answers of other nodes; always 0, as none are asked.", |_| 0),
    // Our own.
    counter(
        "socket_writes_total",
        "Writes to clients; with ws_messages_sent_total: how many frames share one.",
        |of| of.metrics.writes.get(),
    ),
    gauge("outbox_bytes", "Bytes that wait for connections, half a second ago at most.", |of| {
        of.metrics.outbox_bytes.load(Ordering::Relaxed) as u64
    }),
    counter(
        "slow_readers_closed_total",
        "Connections closed with 4100 because too much waited for them, or they took nothing of it in time.",
        |of| of.metrics.slow_readers_closed.get(),
    ),
    gauge("channels", "Channels that have subscribers or keep an event.", |of| of.app.directory.len() as u64),
    gauge("cached_events", "Events that cache channels keep.", |of| of.app.directory.cached_events() as u64),
    counter(
        "cache_overflows_total",
        "Events of cache channels that were not kept, for want of max_cached_events.",
        |of| of.metrics.cache_overflows.get(),
    ),
    counter(
        "publish_timeouts_total",
        "Triggers answered with 503, as a worker was busy for server.publish_timeout.",
        |of| of.metrics.publish_timeouts.get(),
    ),
    counter("webhook_attempts_total", "Requests sent to webhook endpoints.", |of| of.metrics.webhooks.attempts.get()),
    counter("webhook_failures_total", "Requests to webhook endpoints that failed.", |of| {
        of.metrics.webhooks.failed_attempts.get()
    }),
    counter("webhook_events_delivered_total", "Events that webhook endpoints took.", |of| {
        of.metrics.webhooks.delivered.get()
    }),
    gauge("webhook_queue_events", "Events that wait for webhook endpoints.", |of| of.waiting.events as u64),
];

/// The metrics of the node in the text format.
pub(crate) fn render(node: &Node) -> String {
    let metrics = &node.metrics;
    let port = metrics.port.to_string();
    let common = [("port", port.as_str())];
    let mut text = Text::new(&metrics.config().prefix, &common);

    let now = Instant::now();
    let mut apps = node.apps.all();
    apps.sort_unstable_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    let view = |app| View { app, metrics: &app.metrics, waiting: app.webhooks.waiting(now) };
    let apps: Vec<_> = apps.iter().map(|app| view(app)).collect();

    for Family { name, kind, help, value } in OF_APPS {
        text.family(name, *kind, help);
        for of in &apps {
            text.sample(&[("app_id", of.app.id.as_str())], value(of));
        }
    }
    labelled(&mut text, &apps, &metrics.refusals);
    recovery(&mut text, &apps);
    histograms(&mut text, &apps);
    of_node(&mut text, node);
    if let Some(process) = Process::now() {
        of_process(&mut text, &process, metrics.started.elapsed().unwrap_or_default());
    }
    text.finish()
}

/// Families with a label beside the app.
fn labelled(text: &mut Text<'_>, apps: &[View<'_>], of_nobody: &Refusals) {
    text.family("connections", Kind::Gauge, "Live connections, by how they are connected.");
    for of in apps {
        for transport in Transport::ALL {
            let labels = [("app_id", of.app.id.as_str()), ("transport", transport.name())];
            text.sample(&labels, of.metrics.open_now(transport));
        }
    }
    text.family(
        "webhook_events_dropped_total",
        Kind::Counter,
        "Events that webhook endpoints will not get, by why not.",
    );
    for of in apps {
        let webhooks = &of.metrics.webhooks;
        for (cause, counter) in [("expired", &webhooks.dropped), ("overflow", &webhooks.overflowed)] {
            text.sample(&[("app_id", of.app.id.as_str()), ("cause", cause)], counter.get());
        }
    }
    text.family(
        "webhook_queue_oldest_seconds",
        Kind::Gauge,
        "How long the oldest event has waited for its webhook endpoint.",
    );
    for of in apps {
        text.sample(&[("app_id", of.app.id.as_str())], of.waiting.oldest.as_secs_f64());
    }
    // Causes that have happened only: most never do, for most apps.
    text.family(
        "refusals_total",
        Kind::Counter,
        "What was refused, by cause; without an app where none could be told.",
    );
    let refusals = apps.iter().map(|of| (of.app.id.as_str(), &of.metrics.refusals)).chain([("", of_nobody)]);
    for (app, refusals) in refusals {
        for cause in Refusal::ALL {
            let count = refusals.get(*cause);
            if count > 0 {
                text.sample(&[("app_id", app), ("cause", cause.label())], count);
            }
        }
    }
}

/// How clients fared that came back.
fn recovery(text: &mut Text<'_>, apps: &[View<'_>]) {
    text.family(
        "recovery_total",
        Kind::Counter,
        "Channels that clients came back to, by whether they got what they had missed: recovered, or why not.",
    );
    for of in apps {
        for (outcome, count) in of.app.directory.recoveries().iter() {
            text.sample(&[("app_id", of.app.id.as_str()), ("result", outcome.label())], count);
        }
    }
}

fn histograms(text: &mut Text<'_>, apps: &[View<'_>]) {
    const DELIVERY: &str = "From a trigger's last byte, or a client event, to its last write on a worker.";
    text.family("delivery_seconds", Kind::Histogram, DELIVERY);
    for of in apps {
        let (app, snapshot) = (("app_id", of.app.id.as_str()), of.metrics.delivery.snapshot());
        for (bound, count) in &snapshot.buckets {
            text.part("_bucket", &[app, ("le", &bound.to_string())], count);
        }
        text.part("_bucket", &[app, ("le", "+Inf")], snapshot.count);
        text.part("_sum", &[app], snapshot.sum);
        text.part("_count", &[app], snapshot.count);
    }
    const ADAPTER: &str = "Milliseconds until other nodes had answered; always empty, as nothing is asked.";
    text.family("horizontal_adapter_resolve_time", Kind::Histogram, ADAPTER);
    for of in apps {
        let app = ("app_id", of.app.id.as_str());
        text.part("_bucket", &[app, ("le", "+Inf")], 0);
        text.part("_sum", &[app], 0);
        text.part("_count", &[app], 0);
    }
}

fn of_node(text: &mut Text<'_>, node: &Node) {
    let metrics = &node.metrics;
    text.family("inbox_bytes", Kind::Gauge, "What waits for workers, in the unit of server.max_inbox_bytes.");
    let (events, answers) = node.inbox_bytes();
    text.sample(&[("load", "events")], events);
    text.sample(&[("load", "answers")], answers);
    let rings = &node.recovery.rings;
    text.family("recovery_ring_bytes", Kind::Gauge, "What is kept for clients that come back.");
    text.sample(&[], rings.bytes());
    text.family(
        "recovery_oldest_seconds",
        Kind::Gauge,
        "How long the oldest event has been kept for clients that come back.",
    );
    text.sample(&[], rings.oldest_age(Instant::now()).unwrap_or_default().as_secs_f64());
    let reloads = [
        ("config_reloads_total", "Times apps or settings were read anew.", &metrics.config_reloads),
        ("tls_reloads_total", "Times the certificate was read anew.", &metrics.tls_reloads),
    ];
    for (name, help, reloads) in reloads {
        text.family(name, Kind::Counter, help);
        text.sample(&[("result", "succeeded")], reloads.succeeded.get());
        text.sample(&[("result", "failed")], reloads.failed.get());
    }
    let database = &metrics.database;
    text.family(
        "database_queries_total",
        Kind::Counter,
        "Questions to the database of the apps, by what came of them.",
    );
    let failed = database.failures.get();
    text.sample(&[("result", "succeeded")], database.queries.get().saturating_sub(failed));
    text.sample(&[("result", "failed")], failed);
    text.family("database_down", Kind::Gauge, "1 while the database of the apps does not answer.");
    text.sample(&[], u64::from(database.down.load(Ordering::Relaxed)));
    let broker = &metrics.broker;
    let events = [
        ("broker_published_total", "Events that Redis took.", &broker.published),
        ("broker_refused_total", "Triggers and client events refused, as too much waits for Redis.", &broker.refused),
        ("broker_replayed_total", "Events sent to Redis again, as it had lost them.", &broker.replayed),
        ("broker_received_total", "Events that came from Redis.", &broker.received),
        ("broker_read_from_log_total", "Events missed at first and then read from Redis.", &broker.read_from_log),
        ("broker_lost_total", "Events of other nodes that were missed for good.", &broker.lost),
    ];
    for (name, help, counter) in events {
        text.family(name, Kind::Counter, help);
        text.sample(&[], counter.load(Ordering::Relaxed));
    }
    text.family("build_info", Kind::Gauge, "Always 1; the version is in a label.");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
}

/// Under the names of Prometheus' own clients, and of Soketi.
fn of_process(text: &mut Text<'_>, process: &Process, uptime: Duration) {
    let seconds = |time: Duration| time.as_secs_f64();
    let now = unix_time();
    let numbers = [
        ("process_cpu_user_seconds_total", "CPU time of the process itself.", seconds(process.cpu_user)),
        ("process_cpu_system_seconds_total", "CPU time of the kernel for the process.", seconds(process.cpu_system)),
        ("process_cpu_seconds_total", "CPU time of both.", seconds(process.cpu_user + process.cpu_system)),
    ];
    for (name, help, value) in numbers {
        text.family(name, Kind::Counter, help);
        text.sample(&[], value);
    }
    text.family("process_start_time_seconds", Kind::Gauge, "When the server was started, in Unix seconds.");
    text.sample(&[], seconds(now.saturating_sub(uptime)));
    let sizes = [
        ("process_resident_memory_bytes", "Resident memory.", process.resident),
        ("process_virtual_memory_bytes", "Mapped memory.", process.mapped),
        ("process_heap_bytes", "Memory of the data segment.", process.data),
        ("process_open_fds", "Open files and sockets.", process.open_fds),
        ("process_max_fds", "Files and sockets that may be open.", process.max_fds),
    ];
    for (name, help, value) in sizes {
        text.family(name, Kind::Gauge, help);
        text.sample(&[], value);
    }
}
