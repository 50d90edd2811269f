//! What requests may cost: time and memory of whoever sends them badly.

use std::time::Duration;

use fanfare_tests::{DEADLINE, TestServer, deadline};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// Whoever mistypes an app's id has to learn that, whatever the size of the request.
#[tokio::test]
async fn a_large_request_to_an_unknown_app_is_told_so() {
    let server = TestServer::start();
    let mut socket = TcpStream::connect(server.address()).await.expect("a connection");
    let body = vec![b' '; 200_000];
    let head = format!("POST /apps/nobody/events HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).await.expect("a head");
    // The server may hang up before it has read everything.
    let _ = socket.write_all(&body).await;
    let mut answer = [0; 12];
    deadline("an answer", socket.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 404");
}

/// Answers that nobody reads fill the kernel's buffers, and would for as long as the other side keeps its socket open.
#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_closed() {
    let write_timeout = Duration::from_secs(1);
    let server = TestServer::builder().config(|config| config.server.write_timeout = write_timeout).start();
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut socket = socket.connect(server.address()).await.expect("a connection");
    let requests = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);
    let closed = async {
        // Stalls once the server stalls.
        while socket.write_all(requests.as_bytes()).await.is_ok() {}
    };
    timeout(DEADLINE, closed).await.expect("the server closes the connection");
}
