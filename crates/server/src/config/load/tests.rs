use super::*;

const APP: &str = "[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"hunter2\"\n";

fn load(file: &str, environment: &[(&str, &str)], overrides: Overrides) -> Result<Config, String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let file = (!file.is_empty()).then_some((Path::new("fanfare.toml"), file));
    let result = Config::merge(file, environment, overrides).map_err(|error| error.to_string());
    if let Err(error) = &result {
        assert!(!error.contains("hunter2"), "shows a secret: {error}");
        assert!(!error.contains('\n'), "more than a line: {error}");
    }
    result
}

fn with_file(file: &str) -> Result<Config, String> {
    load(file, &[], Overrides::default())
}

fn with_environment(environment: &[(&str, &str)]) -> Result<Config, String> {
    load("", environment, Overrides::default())
}

#[track_caller]
fn refused(result: Result<Config, String>, expected: &str) {
    assert_eq!(result.unwrap_err(), expected);
}

#[test]
fn nothing_configured_is_the_demo_app_on_loopback() {
    let config = with_file("").unwrap();
    assert_eq!(config.apps, [AppConfig::demo()]);
    assert_eq!((config.server.host.to_string().as_str(), config.server.port), ("127.0.0.1", 6001));
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let file = "[server]\nport = 1\nhost = \"127.0.0.1\"\nworkers = 3\n";
    let environment = [("FANFARE__SERVER__PORT", "2"), ("FANFARE__SERVER__HOST", "127.0.0.2")];
    let config = load(file, &environment, Overrides { port: Some(3), host: None }).unwrap();
    assert_eq!((config.server.port, config.server.host.to_string().as_str()), (3, "127.0.0.2"));
    assert_eq!(config.server.workers, 3);
}

#[test]
fn one_key_from_the_environment_keeps_the_others_of_the_file() {
    let file = "[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"s\"\nmax_connections = 5\n\
                [[apps.webhooks]]\nurl = \"https://a.test\"\nheaders = { X-Team = \"till\", x-floor = \"1\" }\n\
                [[apps]]\nid = \"b\"\nkey = \"l\"\nsecret = \"t\"\n";
    let environment = [
        ("FANFARE__APPS__0__SECRET", "other"),
        ("FANFARE__APPS__0__WEBHOOKS__0__HEADERS__X-FLOOR", "2"),
        ("FANFARE__APPS__1__KEY", "m"),
    ];
    let apps = load(file, &environment, Overrides::default()).unwrap().apps;
    assert_eq!((apps[0].id.as_str(), apps[0].secret.expose(), apps[0].max_connections), ("a", "other", 5));
    assert_eq!(apps[0].webhooks[0].headers["X-Team"], "till");
    assert_eq!(apps[0].webhooks[0].headers["x-floor"], "2");
    assert_eq!((apps[1].id.as_str(), apps[1].key.as_str(), apps[1].secret.expose()), ("b", "m", "t"));
}

#[test]
fn ids_keys_and_secrets_stay_the_text_they_are() {
    let file = "[[apps]]\nid = \"0123\"\nkey = \"1e3\"\nsecret = \"true\"\n";
    let environment =
        [("FANFARE__APPS__0__ID", "0123"), ("FANFARE__APPS__0__KEY", "true"), ("FANFARE__APPS__0__SECRET", "[1,2]")];
    for (config, id, key, secret) in
        [(with_file(file), "0123", "1e3", "true"), (with_environment(&environment), "0123", "true", "[1,2]")]
    {
        let app = &config.unwrap().apps[0];
        assert_eq!((app.id.as_str(), app.key.as_str(), app.secret.expose()), (id, key, secret));
    }
}

#[test]
fn text_of_the_environment_becomes_what_the_key_is() {
    let config = with_environment(&[
        ("FANFARE__SERVER__WORKERS", " 4 "),
        ("FANFARE__SERVER__REQUIRE_PROTOCOL_VERSION", "true"),
        ("FANFARE__SERVER__PONG_TIMEOUT", "500ms"),
        ("FANFARE__WEBHOOKS__BATCHING", "1"),
        ("FANFARE__LOG__FORMAT", "json"),
        ("FANFARE__APPS__0__ID", "a"),
        ("FANFARE__APPS__0__KEY", "k"),
        ("FANFARE__APPS__0__SECRET", "s"),
        ("FANFARE__APPS__0__ACTIVITY_TIMEOUT", "30s"),
        ("FANFARE__APPS__0__ALLOWED_ORIGINS", "a.test, b.test"),
        ("FANFARE__APPS__0__WEBHOOKS__0__URL", "https://a.test"),
        ("FANFARE__APPS__0__WEBHOOKS__0__EVENT_TYPES", "[\"cache_miss\", \"client_event\"]"),
        ("FANFARE__APPS__0__WEBHOOKS__0__HEADERS", "{\"X-Team\": \"till\"}"),
    ])
    .unwrap();
    assert_eq!(config.server.workers, 4);
    assert!(config.server.require_protocol_version && config.webhooks.batching);
    assert_eq!(config.server.pong_timeout.as_millis(), 500);
    assert_eq!(config.log.format, super::super::LogFormat::Json);
    let app = &config.apps[0];
    assert_eq!(app.activity_timeout.map(|timeout| timeout.as_secs()), Some(30));
    assert_eq!(app.allowed_origins, ["a.test", "b.test"]);
    assert_eq!(app.webhooks[0].event_types.len(), 2);
    assert_eq!(app.webhooks[0].headers["X-Team"], "till");
}

#[test]
fn all_apps_can_be_one_variable() {
    let json = r#"[{"id":"a","key":"k","secret":"s","max_connections":7,"activity_timeout":null},{"id":"b","key":"l","secret":"t"}]"#;
    let apps = with_environment(&[("FANFARE__APPS", json)]).unwrap().apps;
    assert_eq!((apps.len(), apps[0].max_connections, apps[1].key.as_str()), (2, 7, "l"));
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    refused(with_file("[server]\nprot = 1\n"), "fanfare.toml: server.prot: unknown key; did you mean \"port\"?");
    refused(with_file("[servers]\nport = 1\n"), "fanfare.toml: servers: unknown key; did you mean \"server\"?");
    refused(
        with_file(&format!("{APP}max_connection = 1\n")),
        "fanfare.toml: apps[0].max_connection: unknown key; did you mean \"max_connections\"?",
    );
    refused(with_file("[log]\ncolour = true\n"), "fanfare.toml: log.colour: unknown key; known are level, format");
    refused(
        with_environment(&[("FANFARE__SERVER__PROT", "1")]),
        "FANFARE__SERVER__PROT: server.prot: unknown key; did you mean \"port\"?",
    );
    refused(
        load(APP, &[("FANFARE__APPS__0__SECRETT", "hunter2")], Overrides::default()),
        "FANFARE__APPS__0__SECRETT: apps[0].secrett: unknown key; did you mean \"secret\"?",
    );
}

#[test]
fn a_bad_value_is_named_with_what_would_be_right() {
    for (file, expected) in [
        ("server = 1", "server: must be a table"),
        ("apps = {}", "apps: must be a list"),
        ("apps = [1]", "apps[0]: must be a table"),
        ("[server]\nport = 70000", "server.port: must be a whole number from 0 to 65535, not 70000"),
        ("[server]\nport = \"6001\"", "server.port: must be a whole number from 0 to 65535, not \"6001\""),
        ("[server]\nport = true", "server.port: must be a whole number from 0 to 65535, not true"),
        ("[server]\nworkers = -1", "server.workers: must be a whole number of 0 or more, not -1"),
        ("[server]\nworkers = 1.5", "server.workers: must be a whole number of 0 or more, not 1.5"),
        ("[server]\nworkers = []", "server.workers: must be a whole number of 0 or more, not a list"),
        ("[server]\nrequire_protocol_version = 1", "server.require_protocol_version: must be true or false, not 1"),
        (
            "[server]\nkeep_alive = \"75\"",
            "server.keep_alive: must be a number with its unit, such as \"500ms\", \"30s\" or \"5m\", not \"75\"",
        ),
        ("[server]\nkeep_alive = 75", "server.keep_alive: must be text in quotes"),
        (
            "[server]\nhost = \"localhost\"",
            "server.host: must be an IP address, such as \"127.0.0.1\" or \"0.0.0.0\", not \"localhost\"",
        ),
        ("[log]\nformat = \"xml\"", "log.format: must be \"text\" or \"json\", not \"xml\""),
        ("[[apps]]\nsecret = 12345", "apps[0].secret: must be text in quotes"),
        ("[[apps]]\nsecret = [\"hunter2\"]", "apps[0].secret: must be text in quotes"),
        ("[[apps]]\nallowed_origins = [\"a.test\", 1]", "apps[0].allowed_origins[1]: must be text in quotes"),
    ] {
        refused(with_file(file), &format!("fanfare.toml: {expected}"));
    }
    for (name, value, expected) in [
        ("FANFARE__SERVER__PORT", "http", "server.port: must be a whole number from 0 to 65535, not \"http\""),
        ("FANFARE__SERVER__PORT", "", "server.port: must be a whole number from 0 to 65535, not \"\""),
        ("FANFARE__WEBHOOKS__BATCHING", "yes", "webhooks.batching: must be true or false, not \"yes\""),
        ("FANFARE__SERVER__PORT__X", "1", "server.port: must be a whole number from 0 to 65535, not a table"),
        ("FANFARE__SERVER", "hunter2", "server: must be a table"),
        ("FANFARE__APPS", "hunter2", "apps[0]: must be a table"),
        (
            "FANFARE__APPS",
            "[{\"secret\":\"hunter2]",
            "apps: must be valid JSON (EOF while parsing a string at line 1 column 20)",
        ),
        ("FANFARE__APPS", "[{\"secret\":[\"hunter2\"]}]", "apps[0].secret: must be text in quotes"),
        ("FANFARE__APPS__1__KEY", "k", "apps[0]: missing; the elements of a list are numbered from 0 without gaps"),
    ] {
        refused(with_environment(&[(name, value)]), &format!("{name}: {expected}"));
    }
}

#[test]
fn what_is_not_toml_is_named_by_its_place_and_never_shown() {
    for (file, expected) in [
        ("[[apps]]\nsecret = \"hunter2\nid = \"a\"\n", "line 2, column 18: "),
        ("[[apps]]\nsecret = hunter2\n", "line 2, column 10: "),
        ("[[apps]]\nsecret = \"hunter2\"\nsecret = \"hunter2\"\n", "line 3, column 1: duplicate key"),
        ("[server]\nport = 99999999999999999999\n", ""),
    ] {
        let error = with_file(file).unwrap_err();
        let start = format!("fanfare.toml: not a TOML file: {expected}");
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn what_a_type_cannot_say_is_named_with_its_source_too() {
    refused(with_file("[[apps]]\nid = \"a\"\nsecret = \"hunter2\"\n"), "fanfare.toml: apps[0].key: must not be empty");
    refused(
        load(APP, &[("FANFARE__APPS__0__TERMINATE_CODE", "1000")], Overrides::default()),
        "FANFARE__APPS__0__TERMINATE_CODE: apps[0].terminate_code: must be from 4000 to 4999, such as 4009 (stop) or 4200 \
         (return at once)",
    );
    let error = load("", &[], Overrides { host: Some("0.0.0.0".parse().unwrap()), port: None }).unwrap_err();
    assert!(
        error.starts_with("--host: server.host: 0.0.0.0 is not a loopback address, and there is only the demo app"),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/fanfare.toml")), [], Overrides::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nowhere/fanfare.toml: cannot read the configuration file: No such file or directory (os error 2)"
    );
}
