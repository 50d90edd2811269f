//! What the binary writes to its log, and what it never does.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod support;

use std::{fs, net::TcpListener, path::PathBuf, process::Command};

use rustix::process::Signal;
use support::{Lines, Server};

const SECRET: &str = "hunter2-hunter2-hunter2";
const PAYLOAD: &str = "payload-marker";

fn tool(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(arguments).args(["--url", &server.url, "--app-id", "till", "--key", "till-key"]);
    command.env_clear().env("PUSHER_APP_SECRET", SECRET);
    command
}

/// Subscribes to channels of all kinds, and hears one event.
fn listen(server: &Server, user_id: &str) -> std::process::Child {
    let channels = ["orders", "private-till", "presence-room", "#server-to-user-ada"];
    let mut listen = tool(server, &["listen", "--user-id", user_id, "--user-info", &format!("\"{PAYLOAD}\"")]);
    let mut process =
        listen.args(channels).stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    Lines::of(process.stderr.take().unwrap()).wait_for("subscribed to #server-to-user-ada");
    process
}

#[test]
fn no_secret_signature_or_payload_is_in_the_log_at_any_level() {
    // Nobody answers there: each attempt fails, and is logged.
    let hooks = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hook =
        format!(r#"[{{"url":"http://user:{SECRET}@{hooks}/?token={SECRET}","headers":{{"X-Token":"{SECRET}"}}}}]"#);
    for format in ["text", "json"] {
        let server = Server::with(&[
            ("FANFARE__APPS__0__ID", "till"),
            ("FANFARE__APPS__0__KEY", "till-key"),
            ("FANFARE__APPS__0__SECRET", SECRET),
            ("FANFARE__APPS__0__WEBHOOKS", &hook),
            ("FANFARE__WEBHOOKS__VACATED_DELAY", "0s"),
            ("FANFARE__SERVER__SHUTDOWN_GRACE", "500ms"),
            // Everything, of libraries as well.
            ("FANFARE__LOG__LEVEL", "trace,actix_http=trace"),
            ("FANFARE__LOG__FORMAT", format),
        ]);
        let mut listener = listen(&server, "ada");
        let data = format!(r#"{{"card":"{PAYLOAD}"}}"#);
        for channel in ["orders", "private-till", "presence-room", "cache-orders", "#server-to-user-ada"] {
            assert!(tool(&server, &["trigger", channel, "paid", &data]).status().unwrap().success());
        }
        // Requests and subscriptions that are refused.
        let long = PAYLOAD.repeat(2000);
        for wrong in [&["trigger", "orders", "paid", &long][..], &["trigger", "a b", "paid", &data]] {
            assert!(!tool(&server, wrong).output().unwrap().status.success());
        }
        let wrong = tool(&server, &["trigger", "orders", "paid", &data, "--secret", "wrong"]).output().unwrap();
        assert!(!wrong.status.success());
        let wrong = tool(&server, &["listen", "private-till", "--secret", "wrong"]).output().unwrap();
        assert!(!wrong.status.success());
        listener.kill().unwrap();
        listener.wait().unwrap();
        server.log.wait_for("webhook endpoint fails");
        server.signal(Signal::USR1);
        server.log.wait_for("the log tells more");
        server.signal(Signal::TERM);
        server.log.wait_for("stopped");

        if format == "json" {
            for line in server.log.all() {
                let line: serde_json::Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                let levels = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
                assert!(levels.contains(&line["level"].as_str().unwrap()) && line["message"].is_string(), "{line}");
            }
        }
        let log = server.log.all().join("\n");
        assert!(log.contains("TRACE"), "the log tells little");
        for never in [SECRET, PAYLOAD, "auth_signature="] {
            let line = log.lines().find(|line| line.contains(never));
            assert!(line.is_none(), "{never} is in the log: {line:?}");
        }
        // What an HMAC looks like.
        let signature = log.split(|c: char| !c.is_ascii_hexdigit()).find(|word| word.len() == 64);
        assert!(signature.is_none(), "a signature is in the log: {signature:?}");
    }
}

#[test]
fn a_signal_makes_the_log_tell_more_and_the_last_one_as_much_as_before() {
    let server = Server::with(&[("FANFARE__LOG__LEVEL", "info")]);
    let refuse = || {
        let mut refused = tool(&server, &["listen", "orders"]);
        assert!(!refused.output().unwrap().status.success(), "there is no such app");
    };
    server.signal(Signal::USR1);
    server.log.wait_for("the log tells more");
    refuse();
    server.log.wait_for("connection refused");
    server.signal(Signal::USR1);
    server.log.wait_for_count("the log tells more", 2);
    server.signal(Signal::USR1);
    server.log.wait_for("the log is as configured again");
    refuse();
    server.signal(Signal::TERM);
    server.log.wait_for("stopped");
    assert_eq!(server.log.wait_for_count("connection refused", 1).len(), 1);
}

#[test]
fn a_changed_level_holds_at_once() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("log-level.toml");
    fs::write(&path, "[log]\nlevel = \"info\"\n").unwrap();
    let server = Server::with(&[("FANFARE_CONFIG", path.to_str().unwrap())]);
    fs::write(&path, "[log]\nlevel = \"debug\"\n").unwrap();
    server.log.wait_for("log.level has changed");
    let mut refused = tool(&server, &["listen", "orders"]);
    assert!(!refused.output().unwrap().status.success(), "there is no such app");
    server.log.wait_for("connection refused");
    assert!(!server.log.all().iter().any(|line| line.contains("after a restart only")));
}

#[test]
fn what_is_to_be_said_of_settings_is_said_when_it_is_new() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("warnings.env");
    fs::write(&path, "SOKETI_MODE=worker\n").unwrap();
    let server = Server::with(&[("FANFARE_ENV_FILE", path.to_str().unwrap())]);
    server.log.wait_for("SOKETI_MODE has no effect");
    fs::write(&path, "SOKETI_MODE=worker\nSOKETI_CLUSTER_PORT=1\n").unwrap();
    let line = server.log.wait_for("SOKETI_CLUSTER_PORT has no effect");
    assert!(line.contains("WARN"), "{line}");
    assert_eq!(server.log.wait_for_count("SOKETI_MODE has no effect", 1).len(), 1);
}

/// A deploy may take the folder of the last release away, with the `.env` in it.
#[test]
fn an_env_file_that_goes_changes_nothing_until_it_is_back() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("release");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(".env");
    let text = format!("PUSHER_APP_ID=till\nPUSHER_APP_KEY=till-key\nPUSHER_APP_SECRET={SECRET}\n");
    fs::write(&file, &text).unwrap();
    let server = Server::in_folder(&folder, &[]);
    let mut listener = listen(&server, "ada");
    fs::remove_file(&file).unwrap();
    let line = server.log.wait_for("the last good one stays in effect");
    assert!(line.contains("ERROR") && line.contains(".env: cannot read"), "{line}");
    fs::write(&file, format!("{text}SOKETI_MODE=worker\n")).unwrap();
    server.log.wait_for("the configuration was read again");
    assert!(listener.try_wait().unwrap().is_none(), "the listener was sent away");
    assert!(!server.log.all().iter().any(|line| line.contains("closing an app's connections")));
    listener.kill().unwrap();
    listener.wait().unwrap();
}

/// Nobody listens there. How often it is asked is counted; the log has one line.
#[test]
fn a_database_that_is_away_is_one_line_however_often_it_is_asked() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://user:{SECRET}@{nobody}/apps");
    let server = Server::with(&[
        ("FANFARE__DATABASE__URL", &url),
        ("FANFARE__DATABASE__CACHE_TTL", "100ms"),
        ("FANFARE__DATABASE__TIMEOUT", "300ms"),
    ]);
    for _ in 0..5 {
        let refused = tool(&server, &["trigger", "orders", "paid", "{}"]).output().unwrap();
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(1) && error.contains("503"), "{error}");
    }
    let failed = |metrics: &str| {
        let value = metrics.lines().find(|line| line.contains("database_queries_total{result=\"failed\"")).unwrap();
        value.split_whitespace().last().unwrap().parse::<u32>().unwrap()
    };
    let end = std::time::Instant::now() + support::DEADLINE;
    while failed(&server.get("/metrics")) < 3 {
        assert!(std::time::Instant::now() < end, "it is not asked again");
    }
    let metrics = server.get("/metrics");
    assert!(metrics.contains("fanfare_database_down{"), "{metrics}");
    assert!(metrics.contains("cause=\"apps_unavailable\""), "{metrics}");
    server.signal(Signal::TERM);
    server.log.wait_for("stopped");
    let lines = server.log.wait_for_count("the database of the apps does not answer", 1);
    assert!(lines.len() == 1 && lines[0].contains("ERROR") && !lines[0].contains(SECRET), "{lines:#?}");
    assert!(lines[0].contains(&format!("no answer from {nobody} within")), "{lines:#?}");
}

#[test]
fn another_password_is_a_change_though_none_is_shown() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("passwords.env");
    let write = |number: u32| {
        let url = format!("FANFARE__BROKER__URL=redis://a:{SECRET}{number}@127.0.0.1:6379\n");
        fs::write(&path, format!("{url}FANFARE__BROKER__SENTINEL_PASSWORD={SECRET}{number}\n")).unwrap();
    };
    write(1);
    let server = Server::with(&[("FANFARE_ENV_FILE", path.to_str().unwrap())]);
    write(2);
    let line = server.log.wait_for("after a restart only");
    assert!(line.contains("\"broker.sentinel_password\", \"broker.url\"") && !line.contains(SECRET), "{line}");
}

#[test]
fn a_trouble_is_one_line_however_often_clients_cause_it() {
    let server = Server::with(&[
        ("FANFARE__APPS__0__ID", "till"),
        ("FANFARE__APPS__0__KEY", "till-key"),
        ("FANFARE__APPS__0__SECRET", SECRET),
        ("FANFARE__APPS__0__MAX_CONNECTIONS", "1"),
        ("FANFARE__APPS__0__MAX_BACKEND_EVENTS_PER_SECOND", "1"),
    ]);
    let mut listener = listen(&server, "ada");
    let three = ["trigger", "orders", "e", "{}", "--channel", "a", "--channel", "b"];
    assert!(tool(&server, &three).status().unwrap().success(), "more than a bucketful passes when it is full");
    for _ in 0..5 {
        assert!(!tool(&server, &["listen", "orders"]).output().unwrap().status.success());
        server.log.wait_for("max_connections");
    }
    while tool(&server, &three).output().unwrap().status.success() {}
    server.log.wait_for("max_backend_events_per_second");
    listener.kill().unwrap();
    listener.wait().unwrap();
    server.signal(Signal::TERM);
    server.log.wait_for("stopped");
    for setting in ["max_connections", "max_backend_events_per_second"] {
        assert_eq!(server.log.wait_for_count(setting, 1).len(), 1, "{:#?}", server.log.all());
    }
}

#[test]
fn the_lines_that_operators_are_told_of_are_those_of_the_code() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.extension() {
                None => folders.push(entry),
                Some(_) => code.push_str(&fs::read_to_string(entry).unwrap()),
            }
        }
    }
    // A text that goes on in the next line of the code.
    let code: String = code.split("\\\n").map(str::trim_start).collect();
    let guide = fs::read_to_string(root.join("../../docs/operating.md")).unwrap();
    let (_, section) = guide.split_once("Lines to know:").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let lines: Vec<_> = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next()).collect();
    assert!(lines.len() > 15, "{lines:?}");
    for line in lines {
        let parts = line.split('`').step_by(2).flat_map(|line| line.split('…')).map(str::trim);
        for part in parts.filter(|part| !part.is_empty()) {
            assert!(code.contains(part), "docs/operating.md tells of a line that is never written: {part}");
        }
    }
}
