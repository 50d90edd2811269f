//! A load balancer as operators have one: it spreads connections over the nodes that want some.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{interval, timeout},
};

use crate::{
    Api, Client, Ended, Node,
    server::{Credentials, websocket_path},
};

/// How often nodes are asked at `/up`. Operators have seconds there.
const INTERVAL: Duration = Duration::from_millis(50);

/// Takes connections in turn to the nodes that answer 200 at `/up`. Runs for as long as the test.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    nodes: Arc<Mutex<Nodes>>,
    credentials: Credentials,
    /// Ends with the balancer.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Nodes {
    all: Vec<(SocketAddr, bool)>,
    turn: usize,
}

impl Nodes {
    fn next(&mut self) -> Option<SocketAddr> {
        let well: Vec<_> = self.all.iter().filter(|(_, well)| *well).collect();
        self.turn += 1;
        well.get(self.turn % well.len().max(1)).map(|(address, _)| *address)
    }
}

impl Balancer {
    /// One without nodes.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let nodes = Arc::<Mutex<Nodes>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(look(Arc::clone(&nodes)));
        tasks.spawn(serve(listener, Arc::clone(&nodes)));
        Self { address, nodes, credentials: Credentials::demo(), _tasks: tasks }
    }

    /// Knows one more node, and sends clients there as soon as it is well.
    pub fn add(&self, node: &Node) {
        lock(&self.nodes).all.push((node.address(), false));
    }

    /// Whether a node gets clients.
    pub fn uses(&self, node: &Node) -> bool {
        lock(&self.nodes).all.contains(&(node.address(), true))
    }

    /// Connects a client to the node whose turn it is.
    ///
    /// # Errors
    /// The error frame and the close frame of a node that refuses.
    pub async fn connect(&self) -> Result<Client, Ended> {
        let path = websocket_path(&self.credentials.key);
        Client::connect(self.address, &path, self.credentials.clone()).await
    }

    /// A connection for the HTTP API, to the node whose turn it is.
    pub async fn api(&self) -> Api {
        Api::connect(self.address, self.credentials.clone()).await
    }
}

fn lock(nodes: &Mutex<Nodes>) -> std::sync::MutexGuard<'_, Nodes> {
    nodes.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look(nodes: Arc<Mutex<Nodes>>) {
    let mut ticks = interval(INTERVAL);
    loop {
        ticks.tick().await;
        let addresses: Vec<_> = lock(&nodes).all.iter().map(|(address, _)| *address).collect();
        for address in addresses {
            let well = timeout(INTERVAL * 20, is_well(address)).await.unwrap_or(false);
            for node in lock(&nodes).all.iter_mut().filter(|(known, _)| *known == address) {
                node.1 = well;
            }
        }
    }
}

async fn is_well(address: SocketAddr) -> bool {
    let Ok(mut socket) = TcpStream::connect(address).await else { return false };
    let mut answer = Vec::new();
    socket.write_all(b"GET /up HTTP/1.1\r\nhost: balancer\r\nconnection: close\r\n\r\n").await.is_ok()
        && socket.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200 ")
}

async fn serve(listener: TcpListener, nodes: Arc<Mutex<Nodes>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut near, _)) = listener.accept().await else { return };
        let Some(node) = lock(&nodes).next() else { continue };
        connections.spawn(async move {
            let Ok(mut far) = TcpStream::connect(node).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
