//! Processes that a scenario starts, signals and ends: Redis, and nodes of a cluster.

use std::{
    io::{BufRead, BufReader, pipe},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use fanfare_server::config::AppConfig;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    Api, Client, DEADLINE,
    port::free_port,
    server::{Credentials, websocket_path},
};

/// How often something is looked at that cannot tell when it changes.
const GLANCE: Duration = Duration::from_millis(5);

/// A child process and what it has written. Killed when it is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let (output, stdout) = pipe().expect("a pipe");
        let stderr = stdout.try_clone().expect("a pipe");
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        // The ends to write to are the child's alone: it is the end of its lines when it ends.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let written = Arc::clone(&lines);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                written.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Self { child, lines }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the process is there");
    }

    fn kill(&mut self) {
        // A stopped process dies of this, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn find(&self, text: &str) -> Option<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().find(|line| line.contains(text)).cloned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("--- process {}:\n{}", self.child.id(), lines.join("\n"));
        }
    }
}

/// Waits until a question has an answer, for what can only be asked again and again.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        sleep(GLANCE).await;
    }
}

/// A Redis of the scenario's own.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<Process>,
    address: SocketAddr,
    arguments: Vec<String>,
    directory: TempDir,
    /// What it watches, if it is a sentinel: written anew for each run, since it writes there.
    sentinel: Option<String>,
    tls: bool,
}

impl RedisServer {
    /// Starts one that writes nothing to disk: what it holds ends with it.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with more arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self::prepare(arguments);
        server.run().await;
        server
    }

    /// One that has its port, and does not run yet.
    pub fn prepare(arguments: &[&str]) -> Self {
        Self {
            process: None,
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            directory: tempfile::tempdir().expect("a directory"),
            sentinel: None,
            tls: false,
        }
    }

    /// One of a Redis Cluster, which knows no other yet.
    pub fn prepare_in_cluster(arguments: &[&str]) -> Self {
        let mut server = Self::prepare(arguments);
        let bus = free_port().to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus];
        server.arguments.extend(cluster.map(str::to_owned));
        server
    }

    /// A sentinel that watches a primary, which it calls `orders`. `lines`: more of its configuration.
    pub fn prepare_sentinel(primary: SocketAddr, lines: &[&str]) -> Self {
        let mut server = Self::prepare(&[]);
        let (ip, port) = (primary.ip(), primary.port());
        let mut text = format!(
            "bind 127.0.0.1\nport {}\nsentinel monitor orders {ip} {port} 1\n\
             sentinel down-after-milliseconds orders 500\nsentinel failover-timeout orders 3000\n",
            server.address.port()
        );
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        server.sentinel = Some(text);
        server
    }

    /// Speaks TLS with this certificate and key (PEM), and nothing else, also to other servers.
    #[must_use]
    pub fn with_tls(mut self, certificate: &str, key: &str) -> Self {
        let path = |name: &str, text: &str| {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path.into_os_string().into_string().expect("a path in UTF-8")
        };
        let (certificate, key) = (path("certificate.pem", certificate), path("key.pem", key));
        let port = self.address.port().to_string();
        let tls = [
            ("port", "0"),
            ("tls-port", &port),
            ("tls-cert-file", &certificate),
            ("tls-key-file", &key),
            ("tls-ca-cert-file", &certificate),
            ("tls-auth-clients", "no"),
            ("tls-replication", "yes"),
        ];
        match &mut self.sentinel {
            Some(text) => tls.iter().for_each(|(name, value)| text.push_str(&format!("{name} {value}\n"))),
            None => {
                let in_cluster = self.arguments.iter().any(|argument| argument == "--cluster-enabled");
                let more = in_cluster.then_some(("tls-cluster", "yes"));
                let arguments = tls.into_iter().chain(more);
                self.arguments.extend(arguments.flat_map(|(name, value)| [format!("--{name}"), value.to_owned()]));
            }
        }
        self.tls = true;
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs it, empty.
    pub async fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.current_dir(self.directory.path());
        if let Some(text) = &self.sentinel {
            std::fs::write(self.directory.path().join("sentinel.conf"), text).expect("a file");
            command.args(["sentinel.conf", "--sentinel"]);
        } else {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--port", &self.address.port().to_string()]).args(&self.arguments);
        }
        self.process = Some(Process::start(&mut command));
        let address = self.address;
        until("Redis listens", async || TcpStream::connect(address).await.ok()).await;
    }

    /// Kills it with all it holds.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops it in its tracks: connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("a running Redis").signal(signal);
    }

    /// Asks it something by `redis-cli`.
    pub fn ask(&self, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &self.address.port().to_string()]);
        if self.tls {
            cli.args(["--tls", "--insecure"]);
        }
        cli.args(command);
        let output = cli.output().expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// One node of a cluster: the server as a process of its own.
#[derive(Debug)]
pub struct Node {
    process: Process,
    address: SocketAddr,
    credentials: Credentials,
}

impl Node {
    /// Starts a node with these variables beside those of the demo app, and waits until it listens. `program`: the test
    /// target's `CARGO_BIN_EXE_node`.
    pub async fn start(program: &str, variables: &[(&str, &str)]) -> Self {
        let (app, credentials) = (AppConfig::demo(), Credentials::demo());
        let mut command = Command::new(program);
        command.env_clear().env("FANFARE__SERVER__PORT", "0").env("FANFARE__SERVER__WORKERS", "2");
        command.env("FANFARE__APPS__0__ID", &credentials.id).env("FANFARE__APPS__0__KEY", &credentials.key);
        command
            .env("FANFARE__APPS__0__SECRET", app.secret.expose())
            .env("FANFARE__APPS__0__SUBSCRIPTION_COUNT", "false");
        command.env("FANFARE__APPS__0__MAX_CLIENT_EVENTS_PER_SECOND", "0").envs(variables.iter().copied());
        let process = Process::start(&mut command);
        let line = until("the node listens", async || process.find("listening on http://")).await;
        let address = line.split_once("http://").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address: {line}"));
        Self { process, address, credentials }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until its log has a line with this text.
    pub async fn logs(&self, text: &str) -> String {
        until(&format!("the log says {text:?}"), async || self.process.find(text)).await
    }

    /// Whether its log has a line with this text.
    pub fn has_logged(&self, text: &str) -> bool {
        self.process.find(text).is_some()
    }

    /// Lines of its log with this text.
    pub fn lines(&self, text: &str) -> Vec<String> {
        let lines = self.process.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Connects a client.
    pub async fn connect(&self) -> Client {
        let path = websocket_path(&self.credentials.key);
        Client::connect(self.address, &path, self.credentials.clone()).await.expect("the node lets the client in")
    }

    /// A connection for the HTTP API.
    pub async fn api(&self) -> Api {
        Api::connect(self.address, self.credentials.clone()).await
    }

    /// Ends it without a chance to do anything about it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it in its tracks.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Tells it to stop, as an operator would.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits until it has stopped by itself.
    pub async fn stopped(&mut self) -> ExitStatus {
        let child = &mut self.process.child;
        until("the node stops", async || child.try_wait().expect("a child of this process")).await
    }
}
