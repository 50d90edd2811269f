//! The commands that talk to a server, the real binary against a real server: what they print, and how they end.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod support;

use std::{
    io::Write,
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{DEADLINE, Lines, Server, signal};

const SECRET: &str = "hunter2-hunter2";

/// What a run left behind.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    command
}

fn finished(output: Output) -> Run {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    finished(command(arguments, variables).output().unwrap())
}

/// A command against a server.
fn run(server: &Server, arguments: &[&str]) -> Run {
    run_with(&[arguments, &["--url", &server.url]].concat(), &[])
}

impl Run {
    #[track_caller]
    fn printed(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.stdout
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(self.printed()).unwrap()
    }

    /// One line of error, which holds all these texts.
    #[track_caller]
    fn failed(&self, code: i32, texts: &[&str]) {
        assert_eq!((self.code, self.stderr.lines().count()), (Some(code), 1), "{self:?}");
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in {}", self.stderr);
        }
        assert!(!self.stderr.contains(SECRET) && !self.stderr.contains("auth_signature"), "{}", self.stderr);
    }
}

/// A running `fanfare listen`.
struct Listener {
    process: Child,
    events: Lines,
    told: Lines,
}

impl Listener {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let arguments = [&["listen", "--url", &server.url], arguments].concat();
        let mut process = command(&arguments, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (events, told) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        Self { process, events: Lines::of(events), told: Lines::of(told) }
    }

    /// The code it ends with.
    fn ended(&mut self) -> Option<i32> {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn what_is_triggered_is_heard_and_ctrl_c_ends_listening_with_0() {
    let server = Server::start();
    let channels = ["orders", "private-till", "presence-room", "#server-to-user-ada"];
    let mut listener = Listener::start(&server, &[&channels[..], &["--json"]].concat());
    for channel in channels {
        listener.told.wait_for(&format!("subscribed to {channel}"));
    }
    for channel in channels {
        assert_eq!(run(&server, &["trigger", channel, "order.created", r#"{"id":7}"#]).printed(), "");
    }
    let events = listener.events.wait_for_count("order.created", channels.len());
    let expected = channels.map(|channel| json!({"event": "order.created", "channel": channel, "data": r#"{"id":7}"#}));
    let events: Vec<Value> = events.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events, expected);
    signal(&listener.process, Signal::INT);
    assert_eq!(listener.ended(), Some(0));
}

#[test]
fn events_are_lines_for_people_and_a_count_ends_it() {
    let server = Server::start();
    let mut listener = Listener::start(&server, &["orders", "--count", "1"]);
    listener.told.wait_for("subscribed to orders");
    run(&server, &["trigger", "orders", "order.created", "a\u{1b}[2J"]).printed();
    assert_eq!(listener.ended(), Some(0));
    let line = listener.events.wait_for("order.created");
    assert!(line.ends_with(r"Z orders order.created a\u{1b}[2J"), "{line}");
}

#[test]
fn data_may_come_from_stdin_and_go_to_several_channels_but_not_to_one_connection() {
    let server = Server::start();
    let first = Listener::start(&server, &["orders", "stock", "--json"]);
    let second = Listener::start(&server, &["orders", "--json"]);
    for listener in [&first, &second] {
        listener.told.wait_for("subscribed to orders");
    }
    first.told.wait_for("subscribed to stock");
    let connected = second.told.wait_for("connected to");
    let socket_id = connected.rsplit(' ').next().unwrap();
    let arguments = ["trigger", "orders", "tick", "-", "--channel", "stock", "--socket-id", socket_id];
    let info = ["--info", "subscription_count", "--url", &server.url];
    let mut process = command(&[&arguments[..], &info].concat(), &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(b"{\"n\":1}\n").unwrap();
    let answer = finished(process.wait_with_output().unwrap()).json();
    assert_eq!(answer["channels"], json!({"orders": {"subscription_count": 2}, "stock": {"subscription_count": 1}}));
    let events = first.events.wait_for_count(r#""data":"{\"n\":1}""#, 2);
    assert_eq!(events.len(), 2);
    // The excluded one gets what comes later, and did not get this.
    run(&server, &["trigger", "orders", "tock", ""]).printed();
    second.events.wait_for("tock");
    assert!(!second.events.all().iter().any(|line| line.contains("tick")));
}

#[test]
fn channels_tell_who_listens() {
    let server = Server::start();
    assert_eq!(run(&server, &["channels"]).printed(), "");
    let _listener = {
        let listener = Listener::start(&server, &["orders", "presence-room", "--user-id", "ada"]);
        listener.told.wait_for("subscribed to presence-room");
        listener
    };
    assert_eq!(run(&server, &["channels"]).printed(), "orders  1 subscriber\npresence-room  1 subscriber\n");
    assert_eq!(run(&server, &["channels", "--prefix", "presence-"]).printed(), "presence-room  1 subscriber  1 user\n");
    assert_eq!(run(&server, &["channels", "presence-room"]).printed(), "presence-room  1 subscriber  1 user\n  ada\n");
    assert_eq!(run(&server, &["channels", "nobody"]).printed(), "nobody  not occupied  0 subscribers\n");
    let room = run(&server, &["channels", "presence-room", "--json"]).json();
    assert_eq!(room["users"], json!([{"id": "ada"}]));
    run(&server, &["channels", "a b"]).failed(1, &["400", "Invalid channel name"]);
}

#[test]
fn signatures_are_those_of_the_published_examples() {
    // Pusher's documents: authorizing users, authentication signatures.
    let app = [
        ("PUSHER_APP_ID", "3"),
        ("PUSHER_APP_KEY", "278d425bdf160c739803"),
        ("PUSHER_APP_SECRET", "7ad3773142a6692b25b8"),
    ];
    let channel = run_with(&["sign", "channel", "1234.1234", "private-foobar"], &app).json();
    let auth = "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
    assert_eq!(channel, json!({"auth": auth}));
    let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
    let presence = run_with(&["sign", "channel", "1234.1234", "presence-foobar", data, "--explain"], &app);
    let auth = "278d425bdf160c739803:31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80";
    assert_eq!(presence.json(), json!({"auth": auth, "channel_data": data}));
    assert_eq!(presence.stderr, format!("1234.1234:presence-foobar:{data}\n"));
    let user = run_with(&["sign", "user", "1234.1234", r#"{"id":"12345"}"#, "--explain"], &app);
    assert_eq!(user.stderr, "1234.1234::user::{\"id\":\"12345\"}\n");

    let app = [("PUSHER_APP_SECRET", "secret"), ("PUSHER_APP_KEY", "key"), ("PUSHER_APP_ID", "1")];
    let body = r#"{"name":"foo"}"#;
    let request = ["sign", "request", "post", "/apps/1/events", body, "--timestamp", "1353088179", "--explain"];
    let signed = run_with(&request, &app);
    let text = "POST\n/apps/1/events\nauth_key=key&auth_timestamp=1353088179&auth_version=1.0&body_md5=";
    assert!(signed.stderr.starts_with(text), "{signed:?}");
    assert!(signed.printed().starts_with("http://127.0.0.1:6001/apps/1/events?auth_key=key&"), "{signed:?}");

    run_with(&["sign", "channel", "1234.1234", "orders"], &app).failed(2, &["public channel"]);
    run_with(&["sign", "channel", "1234.1234", "presence-room"], &app).failed(2, &["who joins"]);
    run_with(&["sign", "channel", "nonsense", "private-a"], &app).failed(2, &["nonsense"]);
}

#[test]
fn a_signed_request_is_good_for_the_server() {
    let server = Server::start();
    let path = "/apps/app-id/channels?info=subscription_count";
    let url = run(&server, &["sign", "request", "GET", path]).printed().trim().to_owned();
    let answer = std::process::Command::new("curl").args(["-s", &url]).output();
    // Not every machine has it.
    if let Ok(answer) = answer {
        assert_eq!(String::from_utf8(answer.stdout).unwrap(), r#"{"channels":{}}"#);
    }
}

#[test]
fn pusher_variables_and_the_configuration_name_the_server_and_the_app() {
    let server = Server::with(&[
        ("FANFARE__APPS__0__ID", "till"),
        ("FANFARE__APPS__0__KEY", "till-key"),
        ("FANFARE__APPS__0__SECRET", SECRET),
    ]);
    let port = server.url.rsplit(':').next().unwrap();
    let of_pusher = [
        ("PUSHER_APP_ID", "till"),
        ("PUSHER_APP_KEY", "till-key"),
        ("PUSHER_APP_SECRET", SECRET),
        ("PUSHER_HOST", "127.0.0.1"),
        ("PUSHER_PORT", port),
        ("PUSHER_SCHEME", "http"),
    ];
    assert_eq!(run_with(&["trigger", "orders", "e", "{}"], &of_pusher).printed(), "");
    let of_config = [
        ("FANFARE__APPS__0__ID", "till"),
        ("FANFARE__APPS__0__KEY", "till-key"),
        ("FANFARE__APPS__0__SECRET", SECRET),
        ("FANFARE__SERVER__PORT", port),
    ];
    assert_eq!(run_with(&["trigger", "orders", "e", "{}"], &of_config).printed(), "");
    let wrong = [&of_pusher[..2], &[("PUSHER_APP_SECRET", "wrong")], &of_pusher[3..]].concat();
    run_with(&["trigger", "orders", "e", "{}"], &wrong)
        .failed(1, &["401", "Invalid signature", "--secret", "PUSHER_APP_SECRET"]);
    let listener = run_with(&["listen", "private-orders"], &wrong);
    assert_eq!(listener.code, Some(1), "{listener:?}");
    assert!(listener.stderr.contains("cannot subscribe to private-orders"), "{listener:?}");
    let unknown = [&[("PUSHER_APP_ID", "other")], &of_pusher[1..]].concat();
    run_with(&["channels"], &unknown).failed(1, &["404", "no app with the id other"]);
}

#[test]
fn errors_name_what_to_look_at() {
    // The port is free again when the server is gone.
    let url = { Server::start().url.clone() };
    let gone = ["--url", url.as_str()];
    let address = url.replace("ws://", "http://");
    let hints = [address.as_str(), "refused", "--url", "PUSHER_HOST"];
    run_with(&[&["trigger", "orders", "e", "{}"], &gone[..]].concat(), &[]).failed(1, &hints);
    run_with(&[&["listen", "orders"], &gone[..]].concat(), &[]).failed(1, &hints);
    run_with(&[&["channels"], &gone[..]].concat(), &[]).failed(1, &hints);
    run_with(&["channels", "--url", "ftp://127.0.0.1"], &[]).failed(2, &["has to begin with http://"]);
    run_with(&["channels", "--url", "127.0.0.1:6001"], &[]).failed(2, &["--url"]);
    run_with(&["listen"], &[]).failed(2, &["CHANNELS"]);
    let server = Server::start();
    let refused = run(&server, &["listen", "orders", "--key", "wrong"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("closed the connection for good: 4001"), "{refused:?}");
    run(&server, &["channels", "--app-id", "app-id", "--key", "wrong", "--secret", "x"]).failed(1, &["401", "--key"]);
}

#[test]
fn a_listener_comes_back_after_the_server_has() {
    let server = Server::start();
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    let listener = Listener::start(&server, &["orders", "--json"]);
    listener.told.wait_for("subscribed to orders");
    drop(server);
    listener.told.wait_for("the connection ended");
    let mut again = command(&["serve", "--port", &port], &[]).stderr(Stdio::null()).spawn().unwrap();
    listener.told.wait_for_count("subscribed to orders", 2);
    let url = format!("ws://127.0.0.1:{port}");
    run_with(&["trigger", "orders", "e", "again", "--url", &url], &[]).printed();
    listener.events.wait_for("again");
    again.kill().unwrap();
    again.wait().unwrap();
}

/// As with `2>&1 | head -1`: no panic, and the exit code says what was wrong.
#[test]
fn a_stderr_that_nobody_reads_is_no_trouble() {
    for (arguments, code) in [(&["trigger"][..], 2), (&["channels", "--url", "http://127.0.0.1:9"], 1)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = command(arguments, &[]).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn completions_and_pages_of_the_manual_name_every_command() {
    let commands =
        ["serve", "check-config", "app", "trigger", "listen", "channels", "sign", "bench", "completions", "man"];
    for shell in ["bash", "zsh", "fish"] {
        let script = run_with(&["completions", shell], &[]);
        for command in commands {
            assert!(script.printed().contains(command), "{shell} does not complete {command}");
        }
    }
    let page = run_with(&["man"], &[]);
    assert!(page.printed().contains(".TH fanfare 1"), "{}", &page.stdout[..200]);
    for command in commands {
        assert!(page.stdout.replace("\\-", "-").contains(&format!("fanfare-{command}(1)")), "no {command}");
        let page = run_with(&["man", command], &[]);
        assert!(page.printed().contains(".TH "), "{command}");
        // Each says how to use it.
        let help = run_with(&[command, "--help"], &[]);
        assert!(help.printed().contains("Usage:") && help.stdout.contains("Examples:\n  "), "{command}");
    }
    run_with(&["completions", "tcsh"], &[]).failed(2, &["tcsh"]);
    let page = run_with(&["man", "app", "rotate-key"], &[]);
    assert!(page.printed().contains(".TH fanfare-app-rotate-key 1"), "{page:?}");
    run_with(&["man", "nothing"], &[]).failed(2, &["there is no command nothing"]);
}
