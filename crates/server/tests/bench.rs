//! `fanfare bench`, the real binary, against a server of its own.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod support;

use std::process::{Command, Output};

use support::Server;

/// What a run left behind.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn bench(arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    let Output { status, stdout, stderr } = command.arg("bench").args(arguments).env_clear().output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

impl Run {
    /// A figure of the report.
    #[track_caller]
    fn value(&self, name: &str) -> &str {
        let value = self.stdout.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name}: {}{}", self.stdout, self.stderr)).trim()
    }

    #[track_caller]
    fn refused(&self, reason: &str) {
        assert_eq!(self.code, Some(2), "{}", self.stderr);
        assert!(self.stderr.contains(reason), "{}", self.stderr);
        assert_eq!(self.stdout, "");
    }
}

#[test]
fn a_paced_run_counts_every_delivery() {
    let server = Server::start();
    let run = bench(&[
        "--url",
        &server.url,
        "--subscribers",
        "20",
        "--rate",
        "30",
        "--seconds",
        "1",
        "--channels",
        "2",
        "--threads",
        "2",
    ]);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    assert_eq!(run.value("subscribers connected"), "20 of 20");
    // A busy machine may send less than planned, and then says so; what was sent has to arrive.
    let sent: u64 = run.value("events sent").split(' ').next().unwrap().parse().unwrap();
    assert!((1..=30).contains(&sent), "{}", run.stdout);
    // Each channel has ten subscribers.
    assert_eq!(run.value("deliveries  "), (sent * 10).to_string());
    for nothing in ["lost", "duplicated", "out of order", "HTTP errors", "connections closed"] {
        assert_eq!(run.value(nothing), "0", "{}", run.stdout);
    }
    for quantile in ["latency p50", "latency p99", "latency p999", "latency max"] {
        assert!(run.value(quantile).trim_end_matches(" ms").trim().parse::<f64>().unwrap() > 0.0, "{}", run.stdout);
    }
    assert!(run.stderr.contains("20 connected"), "{}", run.stderr);
}

#[test]
fn without_a_rate_the_answers_set_the_pace() {
    let server = Server::start();
    let run = bench(&["--url", &server.url, "--subscribers", "3", "--rate", "0", "--seconds", "1"]);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let sent: u64 = run.value("events sent").parse().unwrap();
    assert!(sent > 30, "{}", run.stdout);
    assert_eq!(run.value("deliveries  "), (sent * 3).to_string());
}

#[test]
fn stalled_readers_are_closed_and_others_miss_nothing() {
    let server = Server::start();
    let load = ["--subscribers", "5", "--stalled", "3", "--rate", "300", "--seconds", "2", "--payload", "9000"];
    let run = bench(&[&["--url", &server.url][..], &load].concat());
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    assert_eq!(run.value("stalled, closed"), "3 of 3");
    let sent: u64 = run.value("events sent").split(' ').next().unwrap().parse().unwrap();
    assert_eq!(run.value("deliveries  "), (sent * 5).to_string());
    for wish in ["ping", "subscribe", "event"] {
        assert!(run.value(&format!("bystander's {wish}")).starts_with("p50 "), "{}", run.stdout);
    }
}

#[test]
fn what_the_servers_process_uses_is_told() {
    let server = Server::start();
    let pid = server.pid().to_string();
    let load = ["--url", &server.url, "--pid", &pid, "--rate", "0", "--seconds", "1"];
    let run = bench(&[&load[..], &["--subscribers", "50"]].concat());
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let each = |unit: &str| {
        let line = run.stdout.lines().find(|line| line.starts_with("server's") && line.ends_with(unit));
        line.unwrap_or_else(|| panic!("nothing {unit}: {}", run.stdout))
            .split_ascii_whitespace()
            .nth(2)
            .unwrap()
            .to_owned()
    };
    assert!(each("bytes per connection").parse::<u64>().unwrap() > 0, "{}", run.stdout);
    assert!(each("µs per delivery").parse::<f64>().unwrap() > 0.0, "{}", run.stdout);

    let run = bench(&[&load[..], &["--subscribers", "0"]].concat());
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    assert_eq!(run.value("deliveries  "), "0");
    assert!(run.value("server's CPU").ends_with("µs per event"), "{}", run.stdout);

    let nobody = bench(&["--url", &server.url, "--pid", "4000000000"]);
    assert_eq!(nobody.code, Some(1), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("process 4000000000 (--pid)"), "{}", nobody.stderr);
}

#[test]
fn a_wrong_secret_is_an_http_error() {
    let server = Server::start();
    let run = bench(&["--url", &server.url, "--secret", "wrong", "--subscribers", "1", "--seconds", "1"]);
    assert_eq!(run.code, Some(1), "{}{}", run.stdout, run.stderr);
    assert!(run.value("HTTP errors").contains("401 Unauthorized: Invalid signature"), "{}", run.stdout);
    assert_eq!((run.value("deliveries  "), run.value("lost")), ("0", "0"));
}

#[test]
fn a_wrong_key_is_a_refusal() {
    let server = Server::start();
    let run = bench(&["--url", &server.url, "--key", "wrong", "--subscribers", "1", "--seconds", "1"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{}", run.stderr);
    assert!(run.stderr.contains("no subscriber could connect"), "{}", run.stderr);
    assert!(run.stderr.contains("4001"), "{}", run.stderr);
}

#[test]
fn only_this_machine_is_loaded_unless_told_so() {
    // 192.0.2.0/24 is for documents: nobody is there.
    bench(&["--url", "ws://192.0.2.1:6001"]).refused("--i-may-load-this-host");
    bench(&["--url", "wss://127.0.0.1:6001"]).refused("TLS is not measured here");
    bench(&["--url", "ftp://127.0.0.1:6001"]).refused("has to begin with");
    bench(&["--subscribers", "2", "--channels", "3"]).refused("more channels than --subscribers");
    bench(&["--app-id", "nobody"]).refused("has no app with the id nobody");
}

#[test]
fn subscribers_are_spread_over_the_nodes_that_are_named() {
    // Two servers that know nothing of each other: what is triggered at one does not come to the other's.
    let (near, far) = (Server::start(), Server::start());
    let run = bench(&[
        "--url",
        &near.url,
        "--subscribe-at",
        &near.url,
        "--subscribe-at",
        &far.url,
        "--subscribers",
        "10",
        "--seconds",
        "1",
    ]);
    assert_eq!(run.code, Some(1), "{}{}", run.stdout, run.stderr);
    let sent: u64 = run.value("events sent").split(' ').next().unwrap().parse().unwrap();
    assert_eq!(run.value("lost"), (sent * 5).to_string());
    assert_eq!(run.value("deliveries  "), (sent * 5).to_string());
    bench(&["--url", &near.url, "--subscribe-at", "wss://127.0.0.1:1"]).refused("--subscribe-at");
}
