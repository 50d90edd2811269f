//! Apps in PostgreSQL and MariaDB: found when somebody asks, followed while in use, and kept while the database is away.

use std::{fs, path::PathBuf, process::Command};

use fanfare_tests::{
    Api, Crowd, Database, Engine, Line, Log, Metrics, Receiving, TestServer, WebhookReceiver, eventually,
};
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::spawn_blocking;

/// Soketi's table as its first versions have it.
const OLD_TABLE: &str = "CREATE TABLE apps (id VARCHAR(255) PRIMARY KEY, {key} VARCHAR(255), secret VARCHAR(255), \
    max_connections INTEGER NOT NULL, enable_client_messages SMALLINT NOT NULL, enabled SMALLINT NOT NULL, \
    max_backend_events_per_sec INTEGER NOT NULL, max_client_events_per_sec INTEGER NOT NULL, \
    max_read_req_per_sec INTEGER NOT NULL, webhooks JSON)";

/// Whether the database is away, and what became of the questions.
const DOWN: &str = "fanfare_database_down";
const QUERIES: &str = "fanfare_database_queries_total";

/// A name that SQL has other plans with.
fn key_column(engine: Engine) -> &'static str {
    if engine == Engine::Postgres { "\"key\"" } else { "`key`" }
}

/// A database with apps, and a server that asks it.
struct Scene {
    engine: Engine,
    database: Database,
    server: TestServer,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// With the app "one" in an old table of Soketi's.
    async fn start(engine: Engine) -> Self {
        let database = Database::start(engine).await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fanfare.toml");
        let url = database.url();
        let text = format!(
            "[database]\nurl = \"{url}\"\ncache_ttl = \"300ms\"\ntimeout = \"2s\"\n[webhooks]\nvacated_delay = \"0s\"\n"
        );
        fs::write(&file, text).expect("a file");
        database.sql(&OLD_TABLE.replace("{key}", key_column(engine))).await;
        let mut server = TestServer::of_file(&file);
        server.be_app("one", "one-key", "one-secret");
        let scene = Self { engine, database, server, file, _folder: folder };
        scene.insert("one").await;
        scene
    }

    async fn insert(&self, id: &str) {
        let key = key_column(self.engine);
        let columns = format!(
            "id, {key}, secret, max_connections, enable_client_messages, enabled, max_backend_events_per_sec, \
             max_client_events_per_sec, max_read_req_per_sec"
        );
        let values = format!("'{id}', '{id}-key', '{id}-secret', -1, 1, 1, -1, -1, -1");
        self.database.sql(&format!("INSERT INTO apps ({columns}) VALUES ({values})")).await;
    }

    /// Runs `fanfare app`, which has to succeed. What it prints on stdout.
    async fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        command.arg("app").args(arguments).arg("--config").arg(&self.file);
        let output = spawn_blocking(move || command.output()).await.expect("a blocking task").expect("a program");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    async fn status(&self) -> u16 {
        self.server.api().await.get("/channels", &[]).await.status
    }

    async fn becomes(&self, expected: u16) {
        let what = format!("the API answers {expected}");
        eventually(&what, async || self.status().await, |status| *status == expected).await;
    }

    /// The key and secret of the lines to paste.
    fn credentials(printed: &str) -> (String, String) {
        let value = |name: &str| {
            let found = printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("no {name}: {printed}")).to_owned()
        };
        (value("PUSHER_APP_KEY"), value("PUSHER_APP_SECRET"))
    }
}

macro_rules! with_both {
    ($($scenario:ident),* $(,)?) => {
        mod postgres { $(#[tokio::test] async fn $scenario() { super::$scenario(super::Engine::Postgres).await; })* }
        mod mariadb { $(#[tokio::test] async fn $scenario() { super::$scenario(super::Engine::MariaDb).await; })* }
    };
}

with_both!(
    apps_are_found_and_followed,
    a_database_that_is_away_keeps_known_apps_working,
    apps_are_made_and_rotated_by_command,
    soketis_file_leads_to_its_database,
    a_thousand_clients_miss_nothing_while_the_database_goes_and_comes,
);

async fn apps_are_found_and_followed(engine: Engine) {
    let log = Log::read();
    let scene = Scene::start(engine).await;
    let mut client = scene.server.connect().await;
    client.subscribe("private-a").await;
    assert_eq!(scene.status().await, 200);

    // Nobody there, by key and by id; and then there is.
    let mut api = scene.server.api().await;
    assert_eq!(api.request("GET", "/apps/two/channels", "").await.status, 404);
    let two = scene.server.path().replace("one-key", "two-key");
    assert_eq!(scene.server.try_connect(&two).await.expect_err("no such app").code, Some(4001));
    assert_eq!(scene.server.try_connect("/app/ONE-KEY").await.expect_err("another key").code, Some(4001));
    scene.insert("two").await;
    let found = async || scene.server.try_connect(&two).await.is_ok();
    eventually("the new app is found", found, |connected| *connected).await;

    // What changes holds without anybody asking: for a live connection, and then for the app.
    // A value that cannot be used costs that value, and is in the log.
    scene.database.sql("UPDATE apps SET enable_client_messages = 0, webhooks = '{}' WHERE id = 'one'").await;
    let refused = async || {
        client.send_event("private-a", "client-x", json!({})).await;
        client.settled().await.len()
    };
    if engine == Engine::Postgres {
        // It does not take what is no JSON.
        scene.database.sql("UPDATE apps SET enable_client_messages = 0 WHERE id = 'one'").await;
    }
    eventually("client events are off", refused, |errors| *errors == 1).await;
    log.line(&["WARN", "the row of an app", "app.id=\"one\"", "webhooks: must be a JSON list"]).await;
    scene.database.sql("UPDATE apps SET enabled = 0 WHERE id = 'one'").await;
    assert_eq!(client.ended().await.code, Some(4003));
    assert_eq!(scene.status().await, 403);
    scene.database.sql("UPDATE apps SET enabled = 1, max_connections = 1 WHERE id = 'one'").await;
    scene.becomes(200).await;
    let mut client = scene.server.connect().await;
    assert_eq!(scene.server.try_connect(&scene.server.path()).await.expect_err("one too many").code, Some(4004));

    // So do our own settings, which may be columns.
    let mut api = scene.server.api().await;
    api.trigger("cache-a", "kept", "").await;
    let columns = "ADD COLUMN max_cached_events INTEGER, ADD COLUMN cache_ttl VARCHAR(9), \
        ADD COLUMN max_xhr_sessions INTEGER, ADD COLUMN activity_timeout VARCHAR(9)";
    scene.database.sql(&format!("ALTER TABLE apps {columns}")).await;
    let values =
        "max_connections = 5, max_cached_events = 1, cache_ttl = '1s', max_xhr_sessions = 1, activity_timeout = '1s'";
    scene.database.sql(&format!("UPDATE apps SET {values} WHERE id = 'one'")).await;
    client.until(|event| event.name == "pusher:ping").await;
    api.trigger("cache-b", "kept", "").await;
    assert_eq!(api.get("/channels/cache-b", &[("info", "cache")]).await.json()["cache"], json!(null));
    api.trigger("cache-a", "renewed", "").await;
    let kept = async || api.get("/channels/cache-a", &[("info", "cache")]).await.json();
    eventually("it is kept for a second", kept, |channel| channel["cache"].is_null()).await;
    let _session = scene.server.session().receive(Receiving::Stream).await;
    let mut refused = scene.server.session().receive(Receiving::Stream).await;
    let code = loop {
        if let Line::Closed(code, _) = refused.line().await.expect("a line that says why") {
            break code;
        }
    };
    assert_eq!(code, 4100);

    scene.database.sql("DELETE FROM apps WHERE id = 'one'").await;
    assert_eq!(client.ended().await.code, Some(4001));
    assert_eq!(scene.status().await, 404);

    // A key that two rows have stays with the first one, and is the other's when that has gone.
    scene.insert("three").await;
    scene.database.sql(&format!("UPDATE apps SET {} = 'two-key' WHERE id = 'three'", key_column(engine))).await;
    let three = async || scene.server.api().await.request("GET", "/apps/three/channels", "").await.status;
    eventually("the third app is found", three, |status| *status == 401).await;
    log.line(&["ERROR", "app.id=three", "the key is app two's already"]).await;
    scene.database.sql("DELETE FROM apps WHERE id = 'two'").await;
    let gone = async || scene.server.api().await.request("GET", "/apps/two/channels", "").await.status;
    eventually("the second app has gone", gone, |status| *status == 404).await;
    let connected = async || scene.server.try_connect(&two).await.is_ok();
    eventually("the key is another app's", connected, |connected| *connected).await;
}

async fn a_database_that_is_away_keeps_known_apps_working(engine: Engine) {
    let log = Log::read();
    let mut scene = Scene::start(engine).await;
    let mut client = scene.server.connect().await;
    client.subscribe("news").await;
    client.settled().await;
    let (gone, back) = ("the database of the apps does not answer", "the database of the apps answers again");
    let (gone_before, back_before) = (log.lines(&[gone]).len(), log.lines(&[back]).len());

    let mut api = scene.server.api().await;
    let unavailable = [("cause", "apps_unavailable")];
    let unknown_apps = |metrics: &Metrics| metrics.get("fanfare_refusals_total", &[("cause", "app_unknown")]);
    let before = Metrics::of(&mut api).await;
    assert_eq!([before.get(DOWN, &[]), before.get("fanfare_refusals_total", &unavailable)], [0.0, 0.0]);
    assert_eq!([before.get(QUERIES, &[("result", "failed")]), unknown_apps(&before)], [0.0, 0.0]);

    scene.database.stop().await;
    let unknown =
        async |server: &TestServer| server.try_connect("/app/nobody?protocol=7").await.expect_err("no such app").code;
    let mut sent_away = 0.0;
    let noticed = async || {
        let code = unknown(&scene.server).await;
        sent_away += f64::from(u8::from(code == Some(4100)));
        code
    };
    eventually("it is noticed", noticed, |code| *code == Some(4100)).await;
    let answer = api.request("GET", "/apps/another/channels", "").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains("retry-after: 1"), "{answer:?}");
    // Whoever was sent away is counted, as is each question that failed, and nobody as asking for an app that there is not.
    let asked = async || Metrics::of(&mut api).await;
    let often = |metrics: &Metrics| metrics.get(QUERIES, &[("result", "failed")]) >= 3.0;
    let during = eventually("it is asked again", asked, often).await;
    assert_eq!([during.get(DOWN, &[]), unknown_apps(&during)], [1.0, 0.0]);
    assert_eq!(during.get("fanfare_refusals_total", &unavailable), sent_away + 1.0);
    // Known apps: for those who are there, who come, and who ask.
    scene.server.connect_many(5).await;
    api.trigger("news", "hello", "world").await;
    assert_eq!(client.next_event().await.data, "world");

    scene.database.resume().await;
    let found = async || unknown(&scene.server).await;
    eventually("it is noticed that the database is back", found, |code| *code == Some(4001)).await;
    let after = Metrics::of(&mut api).await;
    assert_eq!([after.get(DOWN, &[]), unknown_apps(&after)], [0.0, 1.0]);
    scene.insert("late").await;
    let late = scene.server.path().replace("one-key", "late-key");
    let found = async || scene.server.try_connect(&late).await.is_ok();
    eventually("a new app is found", found, |connected| *connected).await;
    scene.database.sql("UPDATE apps SET enabled = 0 WHERE id = 'one'").await;
    assert_eq!(client.ended().await.code, Some(4003));
    // Other scenarios of this process have databases of their own.
    assert!(log.lines(&[gone]).len() > gone_before && log.lines(&[back]).len() > back_before);
}

async fn apps_are_made_and_rotated_by_command(engine: Engine) {
    let mut receiver = WebhookReceiver::start();
    let mut scene = Scene::start(engine).await;
    let printed = scene.command(&["new", "--id", "made"]).await;
    let old = Scene::credentials(&printed);
    assert!(printed.starts_with("PUSHER_APP_ID=made\n"), "{printed}");
    let webhooks = json!([{"url": receiver.url(), "event_types": ["channel_occupied"]}]);
    scene.database.sql(&format!("UPDATE apps SET webhooks = '{webhooks}' WHERE id = 'made'")).await;
    scene.server.be_app("made", &old.0, &old.1);
    let mut by_old = scene.server.connect().await;
    by_old.subscribe("private-a").await;
    let list = scene.command(&["list"]).await;
    assert!(list.contains("made") && list.contains(&old.0) && !list.contains(&old.1), "{list}");

    // Tools find an app of the database, too.
    let url = format!("http://{}", scene.server.address());
    let mut channels = Command::new(env!("CARGO_BIN_EXE_node"));
    channels.args(["channels", "--app-id", "made", "--url", &url, "--config"]).arg(&scene.file);
    let channels = spawn_blocking(move || channels.output()).await.expect("a blocking task").expect("a program");
    assert_eq!(String::from_utf8_lossy(&channels.stdout), "private-a  1 subscriber\n", "{channels:?}");

    // Soketi's table has no place for a second key: the command says how to make one, or makes it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
    command.args(["app", "rotate-key", "made", "--config"]).arg(&scene.file);
    let refused = spawn_blocking(move || command.output()).await.expect("a blocking task").expect("a program");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("ALTER TABLE") && error.contains("--add-columns"), "{error}");

    let new = Scene::credentials(&scene.command(&["rotate-key", "made", "--add-columns"]).await);
    assert_ne!(old, new);
    scene.server.be_app("made", &new.0, &new.1);
    scene.becomes(200).await;
    let mut by_new = scene.server.connect().await;
    by_new.subscribe("private-b").await;
    by_old.subscribe("private-c").await;
    for _ in 0..3 {
        assert_eq!(receiver.next().await.header("x-pusher-key"), old.0);
    }
    scene.command(&["rotate-key", "made", "--finish"]).await;
    scene.server.be_app("made", &old.0, &old.1);
    scene.becomes(401).await;
    scene.server.be_app("made", &new.0, &new.1);
    by_new.subscribe("private-d").await;
    assert_eq!(receiver.next().await.header("x-pusher-key"), new.0);

    scene.command(&["disable", "made"]).await;
    assert_eq!(by_old.ended().await.code, Some(4003));
    scene.becomes(403).await;
    scene.command(&["disable", "made"]).await;
    scene.command(&["enable", "made"]).await;
    scene.becomes(200).await;
}

async fn soketis_file_leads_to_its_database(engine: Engine) {
    let mut scene = Scene::start(engine).await;
    let mut options = scene.database.soketi_options();
    options["eventLimits.maxPayloadInKb"] = json!(100);
    let file = scene.file.with_file_name("soketi.json");
    fs::write(&file, options.to_string()).expect("a file");
    let mut server = TestServer::of_file(&file);
    server.be_app("one", "one-key", "one-secret");
    scene.file.clone_from(&file);
    assert_eq!(scene.command(&["list"]).await, "ID   KEY      STATE    IN\none  one-key  enabled  database\n");

    // Client events on public channels, and events of a hundred kilobytes: as with Soketi.
    let (mut sender, mut receiver) = (server.connect().await, server.connect().await);
    sender.subscribe("public").await;
    receiver.subscribe("public").await;

    // What it says of all apps holds for the rows, also when it changes.
    let mut api = server.api().await;
    let body = json!({"name": "longer-than-ten", "channel": "public", "data": ""}).to_string();
    assert_eq!(api.post("/events", &body).await.status, 200);
    receiver.until(|event| event.name == "longer-than-ten").await;
    options["eventLimits.maxNameLength"] = json!(10);
    fs::write(&file, options.to_string()).expect("a file");
    eventually("the limit holds", async || api.post("/events", &body).await.status, |status| *status == 400).await;
    sender.send_event("public", "client-x", json!("a".repeat(90_000))).await;
    let (_, event) = receiver.until(|event| event.name == "client-x").await;
    assert_eq!(event.channel.as_deref(), Some("public"));
}

#[expect(clippy::print_stdout, reason = "figures for whoever looks")]
async fn a_thousand_clients_miss_nothing_while_the_database_goes_and_comes(engine: Engine) {
    let mut scene = Scene::start(engine).await;
    scene
        .database
        .sql("ALTER TABLE apps ADD COLUMN previous_key VARCHAR(255), ADD COLUMN previous_secret VARCHAR(255)")
        .await;
    // Whose table has no column for it counts subscribers.
    scene.database.sql("ALTER TABLE apps ADD COLUMN subscription_count SMALLINT DEFAULT 0").await;
    scene.database.sql("UPDATE apps SET subscription_count = 0").await;
    let crowd = Crowd::gather(&scene.server, 1000).await;
    scene.database.stop().await;
    crowd.some_more().await;
    scene.database.resume().await;
    crowd.some_more().await;
    let new = Scene::credentials(&scene.command(&["rotate-key", "one"]).await);
    scene.server.be_app("one", &new.0, &new.1);
    scene.becomes(200).await;
    crowd.publish_through(scene.server.api().await).await;
    scene.command(&["rotate-key", "one", "--finish"]).await;
    scene.server.be_app("one", "one-key", "one-secret");
    scene.becomes(401).await;
    scene.database.sql("UPDATE apps SET max_connections = 2000 WHERE id = 'one'").await;
    crowd.some_more().await;
    println!("{:?}: events that each of 1000 clients got: {}", scene.engine, crowd.leave().await);
}

/// A flood of keys that nobody has costs few questions, and keeps nobody else waiting.
#[tokio::test]
async fn a_burst_of_unknown_keys_makes_few_questions() {
    let scene = Scene::start(Engine::MariaDb).await;
    let mut api: Api = scene.server.api().await;
    api.trigger("news", "e", "").await;
    let questions = async || {
        let text = scene.database.sql("SHOW GLOBAL STATUS LIKE 'Com_select'").await;
        text.split_whitespace().last().and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let before = questions().await;
    let attempts = (0..600).map(|number| {
        let key = if number < 300 { "same".to_owned() } else { format!("other-{number}") };
        let server = &scene.server;
        async move { server.try_connect(&format!("/app/{key}?protocol=7")).await.expect_err("no such app").code }
    });
    assert!(join_all(attempts).await.iter().all(|code| matches!(code, Some(4001 | 4100))));
    let asked = questions().await - before;
    println!("600 connects with 301 unknown keys: {asked} questions");
    assert!(asked < 150, "{asked} questions");
    api.trigger("news", "e", "").await;
}
