//! A running point of sale, and the people who use it.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use fanfare_tests::{DEADLINE, TestServer};
use reqwest::{
    Client, Method, RequestBuilder,
    header::{CONTENT_TYPE, COOKIE, SET_COOKIE},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The process, and its database.
pub(crate) struct Shop {
    process: Child,
    url: String,
    log: Arc<Mutex<Vec<String>>>,
    directory: Arc<TempDir>,
    broadcasts: SocketAddr,
}

impl Shop {
    /// Starts one with an empty database, which broadcasts through `server`.
    pub(crate) fn start(server: &TestServer) -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), server.address())
    }

    fn start_in(directory: Arc<TempDir>, broadcasts: SocketAddr) -> Self {
        let settings = [
            ("POS_PORT", "0".to_owned()),
            ("POS_DATABASE", PathBuf::from("pos.sqlite").display().to_string()),
            ("PUSHER_APP_ID", "app-id".to_owned()),
            ("PUSHER_APP_KEY", "app-key".to_owned()),
            ("PUSHER_APP_SECRET", "app-secret".to_owned()),
            ("PUSHER_HOST", broadcasts.ip().to_string()),
            ("PUSHER_PORT", broadcasts.port().to_string()),
            ("PUSHER_SCHEME", "http".to_owned()),
        ];
        let mut process = Command::new(env!("CARGO_BIN_EXE_fanfare-pos"))
            .env_clear()
            .envs(settings)
            .current_dir(directory.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (log, (ready, started)) = (Arc::<Mutex<Vec<String>>>::default(), mpsc::channel());
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("the point of sale is at ") {
                    ready.send(url.split(' ').next().unwrap().to_owned()).unwrap();
                }
                lines.lock().unwrap().push(line);
            }
        });
        let url = started.recv_timeout(DEADLINE);
        let url = url.unwrap_or_else(|_| panic!("the shop did not start: {:?}", log.lock().unwrap()));
        Self { process, url, log, directory, broadcasts }
    }

    /// Kills the process, without a chance to finish anything, and starts another one on the same database.
    pub(crate) fn killed_and_started_again(mut self) -> Self {
        self.process.kill().unwrap();
        Self::start_in(Arc::clone(&self.directory), self.broadcasts)
    }

    /// The lines of its log that contain a text.
    pub(crate) fn logged(&self, text: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Somebody who is not signed in.
    pub(crate) fn stranger(&self) -> Person {
        // Installed by whichever test is first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Person { http: Client::new(), url: self.url.clone(), cookie: String::new(), socket_id: None }
    }

    /// One of the demo staff, signed in.
    pub(crate) async fn person(&self, username: &str) -> Person {
        let mut person = self.stranger();
        let form = json!({"username": username, "password": format!("{username}-demo")});
        let answer = person.request(Method::POST, "/api/session").header(CONTENT_TYPE, "application/json");
        let answer = answer.body(form.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
        assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Lax"), "{cookie}");
        cookie.split(';').next().unwrap().clone_into(&mut person.cookie);
        person
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Status and body of an answer.
pub(crate) type Answer = (u16, Value);

/// Somebody with a browser.
pub(crate) struct Person {
    http: Client,
    url: String,
    cookie: String,
    /// Sent as `X-Socket-ID`, as Echo does.
    pub(crate) socket_id: Option<String>,
}

impl Person {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).header(COOKIE, &self.cookie);
        if let Some(socket_id) = &self.socket_id {
            request = request.header("X-Socket-ID", socket_id);
        }
        request
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).header(CONTENT_TYPE, "application/json").body(body.to_string())).await
    }

    /// Asks to join a channel.
    pub(crate) async fn auth(&self, path: &str, form: &str) -> Answer {
        let form_type = "application/x-www-form-urlencoded";
        answer(self.request(Method::POST, path).header(CONTENT_TYPE, form_type).body(form.to_owned())).await
    }

    /// Takes an order of one espresso, and returns its id.
    pub(crate) async fn order(&self) -> i64 {
        let order = json!({"customer": "Ada", "items": [{"product_id": 1, "quantity": 1}]});
        let (status, answer) = self.post("/api/orders", &order).await;
        assert_eq!(status, 201, "{answer}");
        answer["order"]["id"].as_i64().unwrap()
    }

    /// Moves an order.
    pub(crate) async fn set(&self, order: i64, status: &str) -> Answer {
        self.post(&format!("/api/orders/{order}/status"), &json!({"status": status})).await
    }

    /// Moves an order step by step, successfully.
    pub(crate) async fn set_all(&self, order: i64, statuses: &[&str]) {
        for status in statuses {
            let answer = self.set(order, status).await;
            assert_eq!(answer.0, 200, "{answer:?}");
            assert_eq!(answer.1["order"]["status"], **status);
        }
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
