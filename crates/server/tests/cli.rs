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
