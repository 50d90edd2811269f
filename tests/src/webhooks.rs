//! An endpoint that receives webhooks.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::deadline;

/// Requests that wait to be looked at. More than any scenario makes.
const WAITING: usize = 10_000;

/// A request as it came.
#[derive(Debug)]
pub struct Delivery {
    headers: Vec<(String, String)>,
    /// What was signed.
    pub body: String,
}

impl Delivery {
    /// A header's value.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        &found.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).1
    }

    /// The body, read.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// An endpoint on a thread of its own, so that it answers also while a test waits for its server to end.
#[derive(Debug)]
pub struct WebhookReceiver {
    address: SocketAddr,
    deliveries: mpsc::Receiver<Delivery>,
}

impl WebhookReceiver {
    /// An endpoint that answers 200.
    pub fn start() -> Self {
        Self::failing(0)
    }

    /// An endpoint that answers so many requests 500, and then 200.
    pub fn failing(failures: usize) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").expect("a free port"), failures)
    }

    /// An endpoint at an address that was free a moment ago.
    pub fn start_at(address: SocketAddr) -> Self {
        Self::listen(TcpListener::bind(address).expect("the address is free"), 0)
    }

    fn listen(listener: TcpListener, failures: usize) -> Self {
        let address = listener.local_addr().expect("an address");
        let (sender, deliveries) = mpsc::channel(WAITING);
        let failures = Arc::new(AtomicUsize::new(failures));
        // Each server has one request at a time under way for an endpoint, and keeps its connection.
        let accept = move || {
            for stream in listener.incoming() {
                let (sender, failures) = (sender.clone(), Arc::clone(&failures));
                let stream = BufReader::new(stream.expect("a connection"));
                thread::spawn(move || serve(stream, &sender, &failures));
            }
        };
        thread::Builder::new().name("webhooks".to_owned()).spawn(accept).expect("a thread");
        Self { address, deliveries }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    /// The next request.
    pub async fn next(&mut self) -> Delivery {
        deadline("a webhook", self.deliveries.recv()).await.expect("an endpoint that listens")
    }

    /// The event of the next request, which holds one.
    pub async fn next_event(&mut self) -> Value {
        let delivery = self.next().await;
        match delivery.json()["events"].as_array_mut().map(std::mem::take).as_deref_mut() {
            Some([event]) => event.take(),
            _ => panic!("not one event: {}", delivery.body),
        }
    }

    /// The events of the next request: their names, and whom they are about (`channel`, or `channel user`).
    pub async fn next_events(&mut self) -> Vec<(String, String)> {
        let json = self.next().await.json();
        let events = json["events"].as_array().expect("events").iter();
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let about = |event: &Value| match event.get("user_id") {
            Some(user_id) => format!("{} {}", text(&event["channel"]), text(user_id)),
            None => text(&event["channel"]),
        };
        events.map(|event| (text(&event["name"]), about(event))).collect()
    }

    /// The names of all events that have come and were not looked at, whatever the requests they came in.
    pub fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok(delivery) = self.deliveries.try_recv() {
            for event in delivery.json()["events"].as_array().expect("events") {
                names.push(event["name"].as_str().expect("a name").to_owned());
            }
        }
        names
    }
}

fn serve(mut stream: BufReader<TcpStream>, sender: &mpsc::Sender<Delivery>, failures: &AtomicUsize) {
    while let Some(delivery) = receive(&mut stream) {
        let one_less = |failures: usize| failures.checked_sub(1);
        let fails = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok();
        let status = if fails { "500 As Told" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        if sender.blocking_send(delivery).is_err() || stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn receive(stream: &mut BufReader<TcpStream>) -> Option<Delivery> {
    let mut lines = stream.by_ref().lines();
    assert_eq!(lines.next()?.ok()?, "POST /hooks HTTP/1.1");
    let mut headers = Vec::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut delivery = Delivery { headers, body: String::new() };
    let length = delivery.header("content-length").parse().expect("a length");
    stream.take(length).read_to_string(&mut delivery.body).ok()?;
    Some(delivery)
}
