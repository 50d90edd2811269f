//! The real binary with settings that people have already: in a Laravel project's folder, with Soketi's variables and file.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fanfare_protocol::{AppSecret, Signer, request::signed_query};

const DEADLINE: Duration = Duration::from_secs(20);
const SECRET: &str = "hunter2$hunter2";

/// A folder of one test, with these files.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    folder
}

fn fanfare(folder: &PathBuf, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    command.args(arguments).current_dir(folder).env_clear().envs(environment.iter().copied());
    command
}

/// What `check-config` prints, and its warnings.
fn check(folder: &PathBuf, arguments: &[&str], environment: &[(&str, &str)]) -> (String, String) {
    let arguments = [&["check-config"], arguments].concat();
    let Output { status, stdout, stderr } = fanfare(folder, &arguments, environment).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(stdout), text(stderr));
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(!stdout.contains("hunter2") && !stderr.contains("hunter2"), "shows a secret: {stdout}{stderr}");
    (stdout, stderr)
}

/// The line of a setting, without what fills it up.
#[track_caller]
fn line(text: &str, setting: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(&format!("{setting} = ")));
    let line = line.unwrap_or_else(|| panic!("no {setting} in {text}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A server in a folder, and its log up to the lines to paste.
struct Server {
    process: Child,
    port: u16,
    log: Vec<String>,
}

impl Server {
    fn start(folder: &PathBuf, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let arguments = [&["serve", "--port", "0"], arguments].concat();
        let mut process = fanfare(folder, &arguments, environment).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut log = Vec::new();
        // The last line to paste.
        for line in lines.by_ref() {
            let last = line == "});";
            log.push(line);
            if last {
                break;
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
        let port = log.iter().find_map(|line| line.split_once("listening on http://127.0.0.1:")).unwrap().1;
        let port = port.split_whitespace().next().unwrap().parse().unwrap();
        assert!(!log.concat().contains("hunter2"), "shows a secret: {log:#?}");
        Self { process, port, log }
    }

    #[track_caller]
    fn says(&self, text: &str) {
        assert!(self.log.iter().any(|line| line.contains(text)), "no {text:?} in {:#?}", self.log);
    }

    /// The answer to a signed request.
    fn request(&self, app: (&str, &str, &str), method: &str, path: &str, body: &str) -> String {
        let (id, key, secret) = app;
        let path = format!("/apps/{id}{path}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let signer = Signer::new(&AppSecret::new(secret));
        let query = signed_query(&signer, key, method, &path, &[], body.as_bytes(), now);
        let length = body.len();
        self.send(&format!(
            "{method} {path}?{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }

    fn send(&self, request: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn in_a_laravel_folder_it_serves_the_projects_app() {
    let env_file = format!(
        "APP_NAME=\"My shop\"\nAPP_KEY=base64:x=\n\nBROADCAST_CONNECTION=reverb\n\nREVERB_APP_ID=0123\n\
         REVERB_APP_KEY=\"1e5\"\nREVERB_APP_SECRET={SECRET}\nREVERB_HOST=\"localhost\"\nREVERB_PORT=8080\nREVERB_SCHEME=http\n\n\
         VITE_REVERB_APP_KEY=\"${{REVERB_APP_KEY}}\"\n"
    );
    let folder = folder("laravel", &[(".env", &env_file)]);
    let server = Server::start(&folder, &[], &[]);
    server.says("the app is taken from .env: REVERB_APP_ID, REVERB_APP_KEY, REVERB_APP_SECRET");
    server.says("PUSHER_APP_KEY=1e5");
    server.says("PUSHER_HOST=localhost");
    server.says("PUSHER_PORT=8080");
    let app = ("0123", "1e5", SECRET);
    let answer = server.request(app, "POST", "/events", r#"{"name":"a","channel":"b","data":"c"}"#);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{}"), "{answer}");
    let answer = server.request(("0123", "1e5", "hunter2"), "GET", "/channels", "");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");

    let (printed, warnings) = check(&folder, &[], &[]);
    assert_eq!(line(&printed, "id"), "id = \"0123\" # .env:6 REVERB_APP_ID");
    assert_eq!(line(&printed, "secret"), "secret = \"[redacted]\" # .env:8 REVERB_APP_SECRET");
    assert_eq!(line(&printed, "public_url"), "public_url = \"http://localhost:8080\" # .env:9 REVERB_HOST");
    assert_eq!(line(&printed, "port"), "port = 6001 # default");
    assert!(warnings.starts_with("fanfare: warning: REVERB_PORT sends clients to port 8080"), "{warnings}");
    // Told where clients go, it is silent.
    let (printed, warnings) = check(&folder, &[], &[("REVERB_SERVER_PORT", "8080")]);
    assert_eq!(line(&printed, "port"), "port = 8080 # environment REVERB_SERVER_PORT");
    assert_eq!(warnings, "");
    // And not at all, or elsewhere.
    let (printed, _) = check(&folder, &["--env-file", ""], &[]);
    assert_eq!(line(&printed, "id"), "id = \"app-id\" # default");
    let elsewhere = self::folder("elsewhere", &[]);
    let path = folder.join(".env").into_os_string().into_string().unwrap();
    let (printed, _) = check(&elsewhere, &["--env-file", &path], &[]);
    assert_eq!(line(&printed, "id"), format!("id = \"0123\" # {path}:6 REVERB_APP_ID"));
}

#[test]
fn soketis_file_and_variables_start_the_same_server() {
    let file = r#"{
        "port": 7001,
        "appManager.array.apps": [
            {"id": "till", "key": "till-key", "secret": "hunter2$hunter2", "enableClientMessages": true, "maxEventPayloadInKb": 100}
        ],
        "cors.origin": ["*"]
    }"#;
    let folder = folder("soketi", &[("soketi.json", file)]);
    let server = Server::start(&folder, &["--config", "soketi.json"], &[("SOKETI_ADAPTER_DRIVER", "nats")]);
    server.says("soketi.json: cors has no effect: who may connect is allowed_origins of an app");
    server.says("SOKETI_ADAPTER_DRIVER has no effect: ");
    let app = ("till", "till-key", SECRET);
    let large = format!(r#"{{"name":"a","channel":"cache-b","data":"{}"}}"#, "x".repeat(100 * 1024));
    let answer = server.request(app, "POST", "/events", &large);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Soketi's answers have counts unasked.
    let answer = server.request(app, "GET", "/channels/till", "");
    assert!(answer.ends_with(r#"{"occupied":false,"subscription_count":0}"#), "{answer}");

    let (printed, _) = check(&folder, &["--config", "soketi.json"], &[("SOKETI_PORT", "7002")]);
    assert_eq!(line(&printed, "port"), "port = 7002 # environment SOKETI_PORT");
    assert_eq!(
        line(&printed, "max_event_bytes"),
        "max_event_bytes = 102400 # soketi.json appManager.array.apps.0.maxEventPayloadInKb"
    );
}

#[test]
fn a_file_that_is_asked_for_has_to_be_there() {
    let folder = folder("missing", &[("broken", "PUSHER_APP_KEY=\"hunter2\n")]);
    let run = |arguments: &[&str]| {
        let output = fanfare(&folder, arguments, &[]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = run(&["check-config", "--env-file", "nowhere"]);
    assert_eq!(code, Some(2));
    assert_eq!(error, "fanfare: nowhere: cannot read the configuration file: No such file or directory (os error 2)\n");
    assert_eq!(
        run(&["check-config", "--env-file", "broken"]),
        (Some(2), "fanfare: broken:1: the quote that begins here is not closed\n".to_owned())
    );
}
