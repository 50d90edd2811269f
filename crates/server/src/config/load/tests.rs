use super::{
    super::{AppConfig, BrokerDriver},
    *,
};

const APP: &str = "[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"hunter2\"\n";

fn load(file: &str, environment: &[(&str, &str)], overrides: Overrides) -> Result<Config, String> {
    let file = (!file.is_empty()).then_some(("fanfare.toml", file));
    load_all(file, "", environment, overrides).map(|loaded| loaded.config)
}

fn load_all(
    file: Option<(&str, &str)>,
    env_file: &str,
    environment: &[(&str, &str)],
    overrides: Overrides,
) -> Result<Loaded, String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let sources = Sources { environment: environment.collect(), overrides, ..Sources::default() };
    let file = file.map(|(path, text)| (Path::new(path), text));
    let env_file = (!env_file.is_empty()).then(|| (Path::new(".env"), env_file.to_owned()));
    let result = sources.merge(file, env_file).map_err(|error| error.to_string());
    if let Ok(loaded) = &result {
        let shown = format!("{loaded:?}{}", loaded.to_annotated_toml());
        assert!(!shown.contains("hunter2"), "shows a secret: {shown}");
        toml::from_str::<toml::Table>(&shown[shown.find("[server]").unwrap()..]).unwrap();
    }
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

/// What a `.env` file and the environment come to.
fn with_env(env_file: &str, environment: &[(&str, &str)]) -> Loaded {
    load_all(None, env_file, environment, Overrides::default()).unwrap()
}

fn app(loaded: &Loaded) -> (&str, &str, &str) {
    let app = &loaded.config.apps[0];
    (app.id.as_str(), app.key.as_str(), app.secret.expose())
}

const PUSHER: &str = "PUSHER_APP_ID=0123\nPUSHER_APP_KEY=1e5\nPUSHER_APP_SECRET=true\n";
const REVERB: &str = "REVERB_APP_ID=r\nREVERB_APP_KEY=rk\nREVERB_APP_SECRET=rs\n";

#[test]
fn a_laravel_project_brings_its_app_along() {
    let loaded = with_env(PUSHER, &[]);
    assert_eq!(app(&loaded), ("0123", "1e5", "true"));
    assert_eq!(loaded.config.apps.len(), 1);
    assert_eq!(loaded.notes, ["the app is taken from .env: PUSHER_APP_ID, PUSHER_APP_KEY, PUSHER_APP_SECRET"]);
    assert_eq!(loaded.warnings, [""; 0]);

    let loaded = with_env(REVERB, &[]);
    assert_eq!(app(&loaded), ("r", "rk", "rs"));
    // Each name for itself: the process wins over the file.
    let loaded = with_env(PUSHER, &[("PUSHER_APP_SECRET", "other")]);
    assert_eq!(app(&loaded), ("0123", "1e5", "other"));
    assert!(loaded.notes[0].starts_with("the app is taken from .env and the environment: "), "{:?}", loaded.notes);
    // Empty ones, as samples of .env files have them, say nothing.
    let loaded = with_env("PUSHER_APP_ID=\nPUSHER_APP_KEY=\nPUSHER_APP_SECRET=\n", &[]);
    assert_eq!((app(&loaded).0, loaded.warnings.len()), ("app-id", 0));
}

#[test]
fn of_two_broadcasters_the_one_that_laravel_uses_brings_the_app() {
    for (more, expected) in [
        ("", "0123"),
        ("BROADCAST_CONNECTION=reverb\n", "r"),
        ("BROADCAST_CONNECTION=pusher\n", "0123"),
        ("BROADCAST_CONNECTION=log\n", "0123"),
        ("BROADCAST_DRIVER=reverb\n", "r"),
    ] {
        let loaded = with_env(&format!("{PUSHER}{REVERB}{more}"), &[]);
        assert_eq!(app(&loaded).0, expected, "{more}");
        assert_eq!(loaded.config.apps.len(), 1);
        assert!(loaded.notes[0].contains("are left aside"), "{:?}", loaded.notes);
    }
    // One that is not complete is none.
    let loaded = with_env(&format!("{PUSHER}REVERB_APP_ID=r\nBROADCAST_CONNECTION=reverb\n"), &[]);
    assert_eq!(app(&loaded).0, "0123");
    let loaded = with_env("REVERB_APP_ID=r\nREVERB_APP_SECRET=hunter2\n", &[]);
    assert_eq!(loaded.warnings, [".env:1: REVERB_APP_ID: names no app without REVERB_APP_KEY"]);
    assert_eq!(app(&loaded).0, "app-id");
}

#[test]
fn an_app_of_the_configuration_stays_the_one() {
    let loaded =
        load_all(Some(("fanfare.toml", APP)), &format!("{PUSHER}{REVERB}"), &[], Overrides::default()).unwrap();
    assert_eq!((app(&loaded).0, loaded.config.apps.len()), ("a", 1));
    assert_eq!((loaded.notes.len(), loaded.warnings.len()), (0, 0));
    // What is said of the first app without its credentials holds for Laravel's.
    let loaded = with_env(PUSHER, &[("FANFARE__APPS__0__MAX_CONNECTIONS", "7")]);
    assert_eq!((app(&loaded).0, loaded.config.apps[0].max_connections), ("0123", 7));
}

#[test]
fn reverbs_other_names_count_with_its_app() {
    let more = "REVERB_SERVER_HOST=127.0.0.2\nREVERB_SERVER_PORT=8080\nREVERB_SERVER_PATH=ws\nREVERB_APP_ACTIVITY_TIMEOUT=30\n\
                REVERB_APP_MAX_CONNECTIONS=50\nREVERB_APP_MAX_MESSAGE_SIZE=10000\nREVERB_MAX_REQUEST_SIZE=2000000\n\
                REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=all\nREVERB_APP_PING_INTERVAL=60\nREVERB_SCALING_ENABLED=false\n";
    let loaded = with_env(&format!("{REVERB}{more}"), &[]);
    let (server, app) = (&loaded.config.server, &loaded.config.apps[0]);
    assert_eq!(
        (server.host.to_string().as_str(), server.port, server.path_prefix.as_str()),
        ("127.0.0.2", 8080, "/ws")
    );
    assert_eq!(
        (server.max_message_bytes, server.max_request_bytes, server.max_outbox_bytes),
        (10_000, 2_000_000, 4_000_000)
    );
    assert_eq!((app.activity_timeout.unwrap().as_secs(), app.max_connections), (30, 50));
    assert_eq!((app.max_event_bytes, app.max_client_event_bytes), (2_000_000, 10_000));
    assert!(app.client_events && app.client_events_on_public_channels);
    assert_eq!(loaded.warnings, [""; 0]);

    // Fanfare's own names win, in the same source and in a later one.
    let own = "FANFARE__SERVER__PORT=1\nFANFARE__APPS__0__MAX_CONNECTIONS=1\n";
    let loaded = with_env(&format!("{own}{REVERB}{more}"), &[("FANFARE__APPS__0__CLIENT_EVENTS", "false")]);
    assert_eq!((loaded.config.server.port, loaded.config.apps[0].max_connections), (1, 1));
    assert!(!loaded.config.apps[0].client_events);
    // Without its app they are somebody else's.
    let loaded = with_env(&format!("{PUSHER}{more}"), &[]);
    assert_eq!(loaded.config.apps[0].max_connections, 0);
    assert_eq!(loaded.config.server.max_message_bytes, 65_536);

    let loaded = with_env(&format!("{REVERB}REVERB_APP_RATE_LIMITING_ENABLED=true\nREVERB_SCALING_CHANNEL=x\n"), &[]);
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].starts_with(".env:4: REVERB_APP_RATE_LIMITING_ENABLED has no effect: "));
}

#[test]
fn where_clients_reach_the_server_is_no_address_to_bind() {
    let loaded = with_env(&format!("{PUSHER}PUSHER_HOST=ws.example.com\n"), &[]);
    assert_eq!(loaded.config.server.public_url, "https://ws.example.com");
    assert_eq!(loaded.config.server.host.to_string(), "127.0.0.1");
    let loaded = with_env(&format!("{REVERB}REVERB_HOST=localhost\nREVERB_PORT=8080\nREVERB_SCHEME=http\n"), &[]);
    assert_eq!((loaded.config.server.public_url.as_str(), loaded.config.server.port), ("http://localhost:8080", 6001));
    assert!(
        loaded.warnings[0]
            .starts_with("REVERB_PORT sends clients to port 8080 of this machine, and Fanfare listens on 6001"),
        "{:?}",
        loaded.warnings
    );
    let same =
        format!("{REVERB}REVERB_HOST=localhost\nREVERB_PORT=8080\nREVERB_SCHEME=http\nREVERB_SERVER_PORT=8080\n");
    assert_eq!(with_env(&same, &[]).warnings, [""; 0]);
    // Nonsense is no reason not to start.
    assert_eq!(with_env("PUSHER_HOST=\"a b\"\nPUSHER_PORT=x", &[]).config.server.public_url, "");
}

#[test]
fn soketis_names_are_understood() {
    let loaded = with_env(
        "",
        &[
            ("SOKETI_PORT", "7001"),
            ("SOKETI_HOST", "localhost"),
            ("SOKETI_DEBUG", "1"),
            ("SOKETI_SHUTDOWN_GRACE_PERIOD", "3000"),
            ("SOKETI_DEFAULT_APP_ID", "0123"),
            ("SOKETI_DEFAULT_APP_KEY", "1e5"),
            ("SOKETI_DEFAULT_APP_SECRET", "hunter2"),
            ("SOKETI_DEFAULT_APP_MAX_CONNS", "-1"),
            ("SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC", "50"),
            ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "7"),
            ("SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC", "-1"),
            ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "true"),
            ("SOKETI_DEFAULT_APP_USER_AUTHENTICATION", "true"),
            ("SOKETI_USER_AUTHENTICATION_TIMEOUT", "5000"),
            ("SOKETI_DEFAULT_APP_WEBHOOKS", r#"[{"url":"https://a.test","event_types":["channel_occupied"]}]"#),
            ("SOKETI_EVENT_MAX_SIZE_IN_KB", "100"),
            ("SOKETI_CHANNEL_CACHE_TTL", "3600"),
            ("SOKETI_ADAPTER_DRIVER", "local"),
            ("SOKETI_METRICS_ENABLED", "true"),
            ("SOKETI_PRESENCE_MAX_MEMBER_SIZE", ""),
        ],
    );
    let (server, app) = (&loaded.config.server, &loaded.config.apps[0]);
    assert_eq!(
        (server.port, server.shutdown_grace.as_secs(), server.host.to_string().as_str()),
        (7001, 3, "127.0.0.1")
    );
    assert_eq!(loaded.config.log.level, "debug");
    assert_eq!((app.id.as_str(), app.key.as_str(), app.secret.expose()), ("0123", "1e5", "hunter2"));
    assert_eq!((app.max_connections, app.max_event_bytes, app.max_client_event_bytes), (0, 102_400, 102_400));
    assert_eq!((app.max_backend_events_per_second, app.max_reads_per_second), (50, 0));
    assert_eq!((app.max_client_events_per_second, app.max_total_client_events_per_second), (7, 0));
    assert_eq!((app.authorization_timeout.as_secs(), app.cache_ttl.as_secs()), (5, 3600));
    assert_eq!(app.webhooks[0].url, "https://a.test");
    assert!(app.client_events && app.client_events_on_public_channels && app.always_counts);
    // What carries larger events grows with them.
    assert_eq!((server.max_message_bytes, server.max_request_bytes), (204_800, 1_048_576));
    let metrics = &loaded.config.metrics;
    assert_eq!(
        (metrics.port, metrics.prefix.as_str(), metrics.host.to_string().as_str()),
        (Some(9601), "soketi_", "127.0.0.1")
    );
    assert_eq!(loaded.warnings, [""; 0]);
    assert!(
        loaded.notes[0].starts_with("taken from the environment: SOKETI_HOST, SOKETI_PORT, "),
        "{:?}",
        loaded.notes
    );
}

#[test]
fn soketis_defaults_fill_its_first_app() {
    let loaded = with_env("SOKETI_DEFAULT_APP_KEY=mine\nSOKETI_PORT=7001\n", &[]);
    assert_eq!(app(&loaded), ("app-id", "mine", "app-secret"));
    let loaded = with_env("SOKETI_EVENT_MAX_NAME_LENGTH=50\n", &[]);
    assert_eq!((app(&loaded).0, loaded.config.apps[0].max_event_name_length), ("app-id", 50));
    // As of everything, the environment's counts.
    let loaded = with_env("SOKETI_EVENT_MAX_NAME_LENGTH=50\n", &[("SOKETI_EVENT_MAX_NAME_LENGTH", "60")]);
    assert_eq!(loaded.config.apps[0].max_event_name_length, 60);
    // Limits for all apps are theirs unless they have their own; its first app's name is that of the file's.
    let file = format!("{APP}max_event_name_length = 20\n[[apps]]\nid = \"b\"\nkey = \"l\"\nsecret = \"t\"\n");
    let environment = [("SOKETI_EVENT_MAX_NAME_LENGTH", "50"), ("SOKETI_DEFAULT_APP_KEY", "mine")];
    let apps = load(&file, &environment, Overrides::default()).unwrap().apps;
    assert_eq!(apps.iter().map(|app| app.max_event_name_length).collect::<Vec<_>>(), [20, 50]);
    assert_eq!((apps[0].key.as_str(), apps[0].id.as_str()), ("mine", "a"));
    assert!(!apps[1].always_counts);
}

#[test]
fn what_has_no_effect_is_told_with_what_to_do() {
    let loaded = with_env("SOKETI_MODE=worker\nSOKETI_SSL_PASS=hunter2\n", &[("SOKETI_DEFAULT_APP_IT", "hunter2")]);
    assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
    assert!(loaded.warnings.iter().any(|warning| warning.starts_with(".env:1: SOKETI_MODE has no effect: ")));
    assert!(loaded.warnings.iter().any(|warning| warning
        == "SOKETI_DEFAULT_APP_IT has no effect: unknown name; did you mean \"SOKETI_DEFAULT_APP_ID\"?"));
    refused(with_environment(&[("SOKETI_DEBUG", "off")]), "SOKETI_DEBUG: must be true, false, 1 or 0, not \"off\"");
    refused(
        with_environment(&[("SOKETI_PORT", "many")]),
        "SOKETI_PORT: server.port: must be a whole number from 0 to 65535, not \"many\"",
    );
}

#[test]
fn each_source_wins_over_the_ones_before() {
    let toml = "[server]\nport = 1\n";
    for (env_file, environment, flag, expected) in [
        ("", &[][..], None, 1),
        ("SOKETI_PORT=2", &[][..], None, 2),
        ("FANFARE__SERVER__PORT=3\nSOKETI_PORT=2\nREVERB_SERVER_PORT=4", &[][..], None, 3),
        ("FANFARE__SERVER__PORT=3", &[("SOKETI_PORT", "5")][..], None, 5),
        ("FANFARE__SERVER__PORT=3", &[("SOKETI_PORT", "5"), ("FANFARE__SERVER__PORT", "6")][..], None, 6),
        ("FANFARE__SERVER__PORT=3", &[("FANFARE__SERVER__PORT", "6")][..], Some(7), 7),
        // The last of several lines counts.
        ("SOKETI_PORT=2\nSOKETI_PORT=8", &[][..], None, 8),
    ] {
        let overrides = Overrides { port: flag, host: None };
        let loaded = load_all(Some(("fanfare.toml", toml)), env_file, environment, overrides).unwrap();
        assert_eq!(loaded.config.server.port, expected, "{env_file} {environment:?} {flag:?}");
    }
    let json = r#"{"port": 1, "appManager.array.apps": [{"id": "a", "key": "k", "secret": "hunter2"}]}"#;
    let loaded =
        load_all(Some(("soketi.json", json)), "", &[("SOKETI_DEFAULT_APP_KEY", "other")], Overrides::default())
            .unwrap();
    assert_eq!((loaded.config.server.port, app(&loaded).1), (1, "other"));
    refused(
        load_all(None, "FANFARE__APPS=[]", &[("FANFARE__APPS__0__KEY", "k")], Overrides::default())
            .map(|loaded| loaded.config),
        "FANFARE__APPS__0__KEY: a part of .env:1: FANFARE__APPS; set one of them",
    );
}

#[test]
fn a_bad_line_of_a_env_file_is_named_if_it_is_about_us() {
    let load = |text| load_all(None, text, &[], Overrides::default()).map(|loaded| loaded.config);
    refused(
        load("APP_NAME=My shop\nPUSHER_APP_KEY=hunter2 hunter2\n"),
        ".env:2: PUSHER_APP_KEY: there is a blank in the value; put it in quotes",
    );
    refused(load("APP_NAME=\"hunter2\nA=1"), ".env:1: the quote that begins here is not closed");
    assert!(load("APP_NAME=My shop\n").is_ok());
}

#[test]
fn each_value_says_where_it_comes_from() {
    let file = "[server]\nport = 1\n\n[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"hunter2\"\n\
                [[apps.webhooks]]\nurl = \"https://a.test\"\nfilter = { channel_name_starts_with = \"x\" }\n";
    let environment = [("FANFARE__SERVER__WORKERS", "3"), ("FANFARE__APPS__0__WEBHOOKS__0__HEADERS", r#"{"X-A":"b"}"#)];
    let overrides = Overrides { host: Some("127.0.0.2".parse().unwrap()), port: None };
    let loaded =
        load_all(Some(("fanfare.toml", file)), "SOKETI_EVENT_MAX_SIZE_IN_KB=600\n", &environment, overrides).unwrap();
    let text = loaded.to_annotated_toml();
    for (setting, origin) in [
        ("port = 1", "fanfare.toml:2"),
        ("host = \"127.0.0.2\"", "flag --host"),
        ("workers = 3", "environment FANFARE__SERVER__WORKERS"),
        ("keep_alive = \"75s\"", "default"),
        ("id = \"a\"", "fanfare.toml:5"),
        ("secret = \"[redacted]\"", "fanfare.toml:7"),
        ("max_event_bytes = 614400", ".env:1 SOKETI_EVENT_MAX_SIZE_IN_KB"),
        ("max_request_bytes = 1228800", "twice SOKETI_EVENT_MAX_SIZE_IN_KB"),
        ("url = \"https://a.test/\"", "fanfare.toml:9"),
        ("channel_name_starts_with = \"x\"", "fanfare.toml:10"),
        ("channel_name_ends_with = \"\"", "default"),
        ("X-A = \"[redacted]\"", "environment FANFARE__APPS__0__WEBHOOKS__0__HEADERS"),
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("{setting} ")));
        let line = line.unwrap_or_else(|| panic!("no {setting} in {text}"));
        assert_eq!(line.split_once(" # ").map(|(_, origin)| origin), Some(origin), "{line}");
    }
}

#[test]
fn a_redis_that_is_used_already_connects_the_nodes() {
    let broker = |env_file: &str| with_env(env_file, &[]).config.broker;
    let laravel = "REDIS_HOST=10.0.0.5\nREDIS_PASSWORD=null\nREDIS_PORT=6380\n";
    assert_eq!(broker(laravel).driver, BrokerDriver::Local);
    let scaled = broker(&format!("{laravel}REVERB_SCALING_ENABLED=true\n"));
    assert_eq!((scaled.driver, scaled.url.as_str()), (BrokerDriver::Redis, "redis://10.0.0.5:6380/0"));
    let scaled = broker(&format!("{laravel}REVERB_SCALING_ENABLED=true\nREDIS_URL=rediss://a.test\n"));
    assert_eq!(scaled.url, "rediss://a.test");
    let soketi = broker(
        "SOKETI_ADAPTER_DRIVER=redis\nSOKETI_DB_REDIS_PASSWORD=\"hunter2 /@\"\nSOKETI_ADAPTER_REDIS_PREFIX=ws\n",
    );
    assert_eq!((soketi.driver, soketi.prefix.as_str()), (BrokerDriver::Redis, "ws"));
    assert_eq!(soketi.url, "redis://:hunter2%20%2F%40@127.0.0.1:6379/0");
    assert_eq!(broker("SOKETI_DB_REDIS_HOST=::1\n").url, "redis://[::1]:6379/0");
    let soketi = broker(
        "SOKETI_ADAPTER_DRIVER=redis\nSOKETI_DB_REDIS_SENTINELS='[{\"host\":\"10.0.0.1\",\"port\":26379},{\"host\":\"::1\",\"port\":1}]'\n\
         SOKETI_DB_REDIS_INSTANCE_NAME=orders\nSOKETI_DB_REDIS_SENTINEL_PASSWORD=hunter3\nSOKETI_DB_REDIS_CLUSTER_NODES=[]\n",
    );
    assert_eq!(soketi.sentinels, ["10.0.0.1:26379", "[::1]:1"]);
    assert_eq!((&*soketi.sentinel_master, &*soketi.sentinel_password), ("orders", "hunter3"));
    let loaded = with_env("SOKETI_ADAPTER_DRIVER=nats\n", &[]);
    assert!(loaded.warnings[0].contains("SOKETI_ADAPTER_DRIVER has no effect: "), "{:?}", loaded.warnings);
}

#[test]
fn soketis_database_has_the_apps() {
    let loaded = with_env(
        "SOKETI_APP_MANAGER_DRIVER=mysql\nSOKETI_DB_MYSQL_HOST=db.test\nSOKETI_DB_MYSQL_USERNAME=shop\n\
         SOKETI_DB_MYSQL_PASSWORD=\"hunter2 /@#%\"\nSOKETI_DB_MYSQL_DATABASE=ws-apps\nSOKETI_DB_POSTGRES_HOST=other.test\n\
         SOKETI_APP_MANAGER_MYSQL_TABLE=tenants\nSOKETI_APP_MANAGER_POSTGRES_TABLE=other\n\
         SOKETI_APP_MANAGER_CACHE_ENABLED=true\nSOKETI_APP_MANAGER_CACHE_TTL=60\n\
         SOKETI_DB_POOLING_ENABLED=true\nSOKETI_DB_POOLING_MAX=9\n",
        &[],
    );
    let database = &loaded.config.database;
    assert_eq!(database.url, "mysql://shop:hunter2%20%2F%40%23%25@db.test:3306/ws%2Dapps");
    assert_eq!((database.table.as_str(), database.cache_ttl.as_secs(), database.max_connections), ("tenants", 60, 9));
    assert_eq!((loaded.config.apps.len(), &loaded.warnings[..]), (0, &[][..]));
    let text = loaded.to_annotated_toml();
    for (setting, origin) in [
        ("url = \"mysql://[redacted]@db.test:3306/ws%2Dapps\"", ".env:2 SOKETI_DB_MYSQL_HOST"),
        ("table = \"tenants\"", ".env:7 SOKETI_APP_MANAGER_MYSQL_TABLE"),
        ("cache_ttl = \"1m\"", ".env:10 SOKETI_APP_MANAGER_CACHE_TTL"),
        ("max_connections = 9", ".env:12 SOKETI_DB_POOLING_MAX"),
    ] {
        let is_it = |line: &str| line.starts_with(setting) && line.ends_with(origin);
        assert!(text.lines().any(is_it), "no {setting} from {origin} in {text}");
    }
}

#[test]
fn soketis_database_is_taken_where_its_driver_asks_for_it() {
    let database = |env_file: &str| with_env(env_file, &[]).config.database;
    let parts =
        "SOKETI_DB_POSTGRES_HOST=a.test\nSOKETI_APP_MANAGER_POSTGRES_TABLE=t\nSOKETI_APP_MANAGER_CACHE_TTL=60\n";
    for driver in ["", "SOKETI_APP_MANAGER_DRIVER=array\n", "SOKETI_APP_MANAGER_DRIVER=dynamodb\n"] {
        let loaded = with_env(&format!("{parts}{driver}"), &[]);
        let database = &loaded.config.database;
        assert_eq!((database.url.as_str(), database.table.as_str(), database.cache_ttl.as_secs()), ("", "apps", 10));
        assert_eq!(loaded.warnings.len(), usize::from(driver.contains("dynamodb")), "{:?}", loaded.warnings);
    }
    let postgres = "SOKETI_APP_MANAGER_DRIVER=postgres\n";
    assert_eq!(database(postgres).url, "postgres://postgres:password@127.0.0.1:5432/main");
    assert_eq!(database(&format!("{postgres}SOKETI_DB_POOLING_ENABLED=1\n")).max_connections, 7);
    let off = "SOKETI_DB_POOLING_ENABLED=0\nSOKETI_DB_POOLING_MAX=9\nSOKETI_APP_MANAGER_CACHE_ENABLED=0\n\
               SOKETI_APP_MANAGER_CACHE_TTL=60\n";
    let ours = database(&format!("{postgres}{off}"));
    assert_eq!((ours.max_connections, ours.cache_ttl.as_secs()), (2, 10));
    assert_eq!(database(&format!("{postgres}SOKETI_APP_MANAGER_CACHE_TTL=-1\n")).cache_ttl.as_secs(), 10);
    for (host, url) in [("::1", "[::1]"), ("/run/pg", "%2Frun%2Fpg"), ("user@a.test", "user%40a.test")] {
        let url = format!("postgres://postgres:password@{url}:5432/main");
        assert_eq!(database(&format!("{postgres}SOKETI_DB_POSTGRES_HOST={host}\n")).url, url);
    }
    // Fanfare's own name wins.
    let environment = [("FANFARE__DATABASE__URL", "postgres://u:hunter2@own.test/name")];
    assert_eq!(with_env(postgres, &environment).config.database.url, environment[0].1);
    for (name, value, problem) in [
        ("SOKETI_APP_MANAGER_DRIVER", "sqlite", "must be array, mysql, postgres or dynamodb, not \"sqlite\""),
        ("SOKETI_DB_POSTGRES_PORT", "many", "must be a whole number from 0 to 65535, not \"many\""),
        ("SOKETI_APP_MANAGER_CACHE_TTL", "1h", "must be a whole number of seconds, not \"1h\""),
        ("SOKETI_DB_POOLING_ENABLED", "yes", "must be true, false, 1 or 0, not \"yes\""),
        ("SOKETI_DB_POOLING_MAX", "0", "database.max_connections: must be more than 0"),
    ] {
        let env_file = "SOKETI_APP_MANAGER_DRIVER=postgres\nSOKETI_DB_POSTGRES_PASSWORD=hunter2\n";
        let result = load_all(None, env_file, &[(name, value)], Overrides::default());
        refused(result.map(|loaded| loaded.config), &format!("{name}: {problem}"));
    }
}

#[test]
fn with_soketis_database_its_rows_are_the_apps() {
    // Neither the demo app, whose secret everybody knows, nor Laravel's nor Soketi's first one comes beside them.
    let loaded = with_env(
        "PUSHER_APP_ID=a\nPUSHER_APP_KEY=k\nPUSHER_APP_SECRET=hunter2\nSOKETI_DEFAULT_APP_MAX_CONNS=5\n\
         SOKETI_DEFAULT_APP_SECRET=hunter2\nSOKETI_EVENT_MAX_SIZE_IN_KB=100\nSOKETI_USER_AUTHENTICATION_TIMEOUT=5000\n",
        &[("SOKETI_APP_MANAGER_DRIVER", "mysql"), ("SOKETI_HOST", "0.0.0.0")],
    );
    assert_eq!(loaded.config.apps, []);
    assert_eq!(
        loaded.warnings,
        [
            ".env:4: SOKETI_DEFAULT_APP_MAX_CONNS has no effect: apps are in a database, as SOKETI_APP_MANAGER_DRIVER says; set it \
          in their rows"
        ]
    );
    let row = serde_json::json!({"id": "a", "key": "k", "secret": "s", "enable_user_authentication": 1});
    let (server, defaults) = (&loaded.config.server, &loaded.config.database.row_defaults);
    let (app, problems) = AppConfig::from_row(row.as_object().unwrap(), defaults, server).unwrap();
    assert_eq!((app.max_event_bytes, app.max_client_event_bytes, problems.len()), (102_400, 102_400, 0));
    assert_eq!(app.authorization_timeout.as_secs(), 5);
    assert!(app.always_counts && app.client_events_on_public_channels);
    // What is set for all apps is checked, also if there is none yet.
    refused(
        with_environment(&[("SOKETI_APP_MANAGER_DRIVER", "mysql"), ("SOKETI_PRESENCE_MAX_MEMBERS", "many")]),
        "SOKETI_PRESENCE_MAX_MEMBERS: max_presence_members: must be a whole number of 0 or more, not \"many\"",
    );
    // An app of Fanfare's own file stays beside them.
    let own = load(APP, &[("SOKETI_APP_MANAGER_DRIVER", "mysql")], Overrides::default()).unwrap();
    assert_eq!((own.apps.len(), own.apps[0].id.as_str()), (1, "a"));
}

#[test]
fn an_app_that_lacks_something_is_named_by_what_was_said_of_it() {
    let json = r#"{"appManager.array.apps": [{"id": "a", "key": "k", "secret": "hunter2"}, {"id": "b", "key": "l"}]}"#;
    let result = load_all(Some(("soketi.json", json)), "", &[], Overrides::default());
    let problem = "soketi.json: appManager.array.apps.1.id: apps[1].secret: must not be empty";
    refused(result.map(|loaded| loaded.config), problem);
}

#[test]
fn soketis_file_may_lead_to_the_database() {
    let json = r#"{"appManager": {"driver": "postgres", "cache": {"ttl": 30}, "array": {"apps": [{"id": "a"}, {"id": "b"}]}},
                   "database.postgres": {"host": "a.test", "port": 5433, "user": "u", "password": "hunter2"}}"#;
    let loaded = load_all(Some(("soketi.json", json)), "", &[], Overrides::default()).unwrap();
    assert_eq!(loaded.config.database.url, "postgres://u:hunter2@a.test:5433/main");
    assert_eq!((loaded.config.database.cache_ttl.as_secs(), loaded.config.apps.len()), (30, 0));
    assert_eq!(
        loaded.warnings,
        [
            "soketi.json: appManager.array.apps.0.id and the other apps have no effect: apps are in a database, as soketi.json: \
          appManager.driver says; set it in their rows"
        ]
    );
}
