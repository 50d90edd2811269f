//! The binary: exit codes, what goes to stdout and what to stderr, and that secrets go to neither.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

const SECRET: &str = "hunter2-hunter2";

/// What a run of the binary left behind.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn new(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_fanfare"))
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let run = Self {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        };
        assert!(!run.stdout.contains(SECRET) && !run.stderr.contains(SECRET), "{}{}", run.stdout, run.stderr);
        run
    }

    #[track_caller]
    fn refused(&self, expected: &str) {
        assert_eq!((self.stderr.as_str(), self.code), (format!("fanfare: {expected}\n").as_str(), Some(2)));
        assert_eq!(self.stdout, "");
    }

    #[track_caller]
    fn printed(&self) -> toml::Table {
        assert_eq!((self.stderr.as_str(), self.code), ("", Some(0)));
        self.stdout.parse().unwrap()
    }
}

/// A file for one test, named after it.
fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    path.into_os_string().into_string().unwrap()
}

fn app_file(name: &str, more: &str) -> String {
    file(name, &format!("[[apps]]\nid = \"0123\"\nkey = \"k\"\nsecret = \"{SECRET}\"\n{more}"))
}

#[test]
fn check_config_prints_the_effective_configuration_without_secrets() {
    let file = app_file(
        "prints",
        &format!(
            "max_connections = 7\n[[apps.webhooks]]\nurl = \"https://{SECRET}@a.test/\"\n\
             headers = {{ Authorization = \"{SECRET}\" }}\n"
        ),
    );
    let environment = [("FANFARE__SERVER__PORT", "7000"), ("FANFARE__APPS__0__KEY", "0042"), ("FANFARE_CONFIG", &file)];
    let printed = Run::new(&["check-config"], &environment).printed();
    assert_eq!(printed["server"]["port"].as_integer(), Some(7000));
    assert_eq!(printed["server"]["host"].as_str(), Some("127.0.0.1"));
    let app = &printed["apps"][0];
    assert_eq!(app["id"].as_str(), Some("0123"));
    assert_eq!(app["key"].as_str(), Some("0042"));
    assert_eq!(app["secret"].as_str(), Some("[redacted]"));
    assert_eq!(app["max_connections"].as_integer(), Some(7));
    assert_eq!(app["webhooks"][0]["headers"]["Authorization"].as_str(), Some("[redacted]"));
}

#[test]
fn check_config_of_nothing_shows_the_demo_app() {
    let printed = Run::new(&["check-config"], &[("FANFARE_SERVICE_HOST", "10.0.0.1")]).printed();
    assert_eq!(printed["apps"][0]["id"].as_str(), Some("app-id"));
}

#[test]
fn a_mistake_in_the_file_is_one_line_and_exit_code_2() {
    let path = file("unknown", "[server]\nprot = 6001\n");
    Run::new(&["check-config", "--config", &path], &[])
        .refused(&format!("{path}: server.prot: unknown key; did you mean \"port\"?"));

    let path = app_file("number", "max_connections = \"many\"\n");
    Run::new(&["check-config", "--config", &path], &[])
        .refused(&format!("{path}: apps[0].max_connections: must be a whole number of 0 or more, not \"many\""));

    let path = file("secret", &format!("[[apps]]\nsecret = [\"{SECRET}\"]\n"));
    Run::new(&["check-config", "--config", &path], &[])
        .refused(&format!("{path}: apps[0].secret: must be text in quotes"));

    let path = file("syntax", &format!("[[apps]]\nsecret = {SECRET}\n"));
    let run = Run::new(&["check-config", "--config", &path], &[]);
    assert!(
        run.stderr.starts_with(&format!("fanfare: {path}: not a TOML file: line 2, column 10: ")),
        "{}",
        run.stderr
    );
    assert_eq!((run.stderr.lines().count(), run.code), (1, Some(2)));

    Run::new(&["check-config", "--config", "/nowhere/fanfare.toml"], &[])
        .refused("/nowhere/fanfare.toml: cannot read the configuration file: No such file or directory (os error 2)");
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_mistake_too() {
    let missing = [("FANFARE__TLS__CERTIFICATE", "/nowhere/c.pem"), ("FANFARE__TLS__KEY", "/nowhere/k.pem")];
    for arguments in [&["check-config"][..], &["serve", "--port", "0"]] {
        let run = Run::new(arguments, &missing);
        assert!(run.stderr.starts_with("fanfare: tls.certificate: cannot use /nowhere/c.pem: "), "{}", run.stderr);
        assert_eq!((run.stderr.lines().count(), run.code, &*run.stdout), (1, Some(2), ""));
    }
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    Run::new(&["check-config"], &[("FANFARE__SERVER__PORT", "http")])
        .refused("FANFARE__SERVER__PORT: server.port: must be a whole number from 0 to 65535, not \"http\"");
    Run::new(&["check-config"], &[("FANFARE__APPS__0__SECRETT", SECRET)])
        .refused("FANFARE__APPS__0__SECRETT: apps[0].secrett: unknown key; did you mean \"secret\"?");
}

#[test]
#[cfg(unix)]
fn a_variable_that_is_not_utf8_is_refused_and_others_are_not_looked_at() {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = std::ffi::OsStr::from_bytes(b"\xff");
    let run = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        let output = command.arg("check-config").env_clear().env(name, bytes).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run("OTHER"), (Some(0), String::new()));
    assert_eq!(run("FANFARE__LOG__LEVEL"), (Some(2), "fanfare: FANFARE__LOG__LEVEL: must be UTF-8\n".to_owned()));
}

#[test]
fn serve_refuses_the_demo_app_on_an_address_that_others_can_reach() {
    for arguments in [&["--host", "0.0.0.0"][..], &["serve", "--host", "0.0.0.0"]] {
        Run::new(arguments, &[]).refused(
            "--host: server.host: 0.0.0.0 is not a loopback address, and there is only the demo app, whose secret everybody \
             knows; configure an app of your own: [[apps]] with id, key and secret, or FANFARE__APPS__0__ID, \
             FANFARE__APPS__0__KEY and FANFARE__APPS__0__SECRET",
        );
    }
}

#[test]
fn bad_flags_are_one_line_and_exit_code_2() {
    Run::new(&["--prot", "1"], &[]).refused("unexpected argument '--prot' found; see fanfare --help");
    Run::new(&["serve", "--port", "x"], &[])
        .refused("invalid value 'x' for '--port <N>': invalid digit found in string; see fanfare --help");
    Run::new(&["start"], &[]).refused("unrecognized subcommand 'start'; see fanfare --help");
}

#[test]
fn help_and_version_go_to_stdout() {
    let run = Run::new(&["--version"], &[]);
    assert_eq!((run.stdout, run.code), (format!("fanfare {}\n", env!("CARGO_PKG_VERSION")), Some(0)));
    let run = Run::new(&["--help"], &[]);
    assert!(run.stdout.contains("Examples:\n  fanfare "), "{}", run.stdout);
    assert_eq!((run.stderr.as_str(), run.code), ("", Some(0)));
}

/// A file of two apps, written as people write.
const BY_HAND: &str = r#"# Our server.
[server]
port = 7000   # behind the proxy

[[apps]]
id = "shop"   # the shop
key = "shop-key"
secret = "hunter2-hunter2" # do not tell

[[apps.webhooks]]
url = "https://a.test/hooks"

[[apps]]
id = "till"
key = "till-key"
secret = "hunter2-hunter2"
enabled = false

[log]
level = "warn"
"#;

#[test]
fn apps_are_made_listed_switched_and_rotated_in_the_file() {
    let path = file("by-hand", BY_HAND);
    let app = |arguments: &[&str]| {
        let arguments = [&["app"], arguments, &["--config", &path]].concat();
        let run = Run::new(&arguments, &[]);
        assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
        run
    };
    let read = || fs::read_to_string(&path).unwrap();

    let list = app(&["list"]).stdout;
    assert_eq!(list, "ID    KEY       STATE     IN\nshop  shop-key  enabled   file\ntill  till-key  disabled  file\n");
    app(&["enable", "till"]);
    app(&["disable", "shop"]);
    let expected = BY_HAND
        .replace("enabled = false", "enabled = true")
        .replace(" # do not tell\n", " # do not tell\nenabled = false\n");
    assert_eq!(read(), expected, "all else stays as it was written");

    let printed = app(&["rotate-key", "shop"]).stdout;
    let value = |text: &str, name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name}: {text}")).to_owned()
    };
    let (key, secret) = (value(&printed, "PUSHER_APP_KEY"), value(&printed, "PUSHER_APP_SECRET"));
    assert_eq!((key.len(), secret.len()), (20, 64));
    let text = read();
    assert!(text.contains(&format!("key = \"{key}\"\nsecret = \"{secret}\" # do not tell\n")), "{text}");
    assert!(text.contains("previous_key = \"shop-key\"\nprevious_secret = \"hunter2-hunter2\"\n"), "{text}");
    let again = Run::new(&["app", "rotate-key", "shop", "--config", &path], &[]);
    assert!(again.code == Some(1) && again.stderr.contains("--finish"), "{}", again.stderr);
    app(&["rotate-key", "shop", "--finish"]);
    assert!(!read().contains("previous_"), "{}", read());

    let printed = app(&["new"]).stdout;
    let id = value(&printed, "PUSHER_APP_ID");
    assert!(id.len() == 7 && id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    let text = read();
    let made = format!("[[apps]]\nid = \"{id}\"\nkey = \"{}\"\n", value(&printed, "PUSHER_APP_KEY"));
    assert!(text.contains(&made) && text.contains("port = 7000   # behind the proxy"), "{text}");
    assert!(text.find(&made) > text.find("id = \"till\""), "behind the others: {text}");
    Run::new(&["check-config", "--config", &path], &[]).printed();
}

#[test]
fn what_would_break_the_file_is_not_written() {
    let path = file("unbroken", BY_HAND);
    let refused = |arguments: &[&str], code, expected: &str| {
        let run = Run::new(&[&["app"], arguments, &["--config", &path]].concat(), &[]);
        assert!(run.code == Some(code) && run.stderr.contains(expected), "{arguments:?}: {}", run.stderr);
        assert_eq!((run.stderr.lines().count(), &*run.stdout), (1, ""), "{}", run.stderr);
        assert_eq!(fs::read_to_string(&path).unwrap(), BY_HAND);
    };
    refused(&["new", "--id", "shop"], 1, "there is an app with the id shop already");
    refused(&["new", "--id", "a b"], 2, "id: is a part of URLs");
    refused(&["enable", "nobody"], 1, "there is no app with the id nobody");
    refused(&["rotate-key", "shop", "--finish"], 1, "there is no rotation to end");
    let broken = file("broken", "[server]\nsecret = hunter2-hunter2\n");
    Run::new(&["app", "new", "--config", &broken], &[]).refused(&format!(
        "{broken}: not a TOML file: line 2, column 10: string values must be quoted, expected literal string"
    ));
    let run = Run::new(&["app", "list"], &[]);
    assert!(run.code == Some(2) && run.stderr.contains("--config FILE or FANFARE_CONFIG"), "{}", run.stderr);
}

#[test]
fn apps_of_soketis_file_are_listed_and_not_changed() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("apps.json");
    fs::write(&path, r#"{"appManager.array.apps": [{"id": "0123", "key": "k", "secret": "hunter2-hunter2"}]}"#)
        .unwrap();
    let app =
        |arguments: &[&str]| Run::new(&[&["app"], arguments, &["--config", path.to_str().unwrap()]].concat(), &[]);
    assert_eq!(app(&["list"]).stdout, "ID    KEY  STATE    IN\n0123  k    enabled  file\n");
    for arguments in [&["new"][..], &["disable", "0123"], &["rotate-key", "0123"]] {
        let run = app(arguments);
        assert!(run.code == Some(1) && run.stderr.contains("can only be read"), "{arguments:?}: {}", run.stderr);
    }
}

/// On a public address a file without an app cannot be used; with its first one it can.
#[test]
fn the_first_app_may_make_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let path = file("no-apps", "[server]\nhost = \"0.0.0.0\"\n");
    assert_eq!(Run::new(&["check-config", "--config", &path], &[]).code, Some(2));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(Run::new(&["app", "new", "--config", &path], &[]).code, Some(0));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    Run::new(&["check-config", "--config", &path], &[]).printed();

    fs::remove_file(&path).unwrap();
    assert_eq!(Run::new(&["app", "new", "--config", &path], &[]).code, Some(0));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "it holds a secret");
    let printed = Run::new(&["check-config", "--config", &path], &[]).printed();
    assert_ne!(printed["apps"][0]["id"].as_str(), Some("app-id"));
}
