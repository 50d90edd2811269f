//! A TCP proxy that can be slow, or cut the line.

use std::{net::SocketAddr, thread, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Builder,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// Chunks on their way; more wait in the kernel.
const CHUNKS: usize = 1024;

/// A way to another address, for as long as it is kept.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// Counted up to cut all connections; odd: none is let through.
    cut: watch::Sender<u64>,
}

impl Proxy {
    /// Every byte takes `delay` in each direction.
    ///
    /// It has a thread of its own: what goes through may not wait while the scenario's own thread runs a command.
    pub fn start(target: SocketAddr, delay: Duration) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (cut, cuts) = watch::channel(0);
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(listener, target, delay, cuts));
        });
        Self { address, cut }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections; new ones are let through.
    pub fn cut(&self) {
        self.cut.send_modify(|round| *round += 2);
    }

    /// Cuts all connections and lets none through.
    pub fn close(&self) {
        self.cut.send_modify(|round| *round = (*round + 2) | 1);
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.cut.send_modify(|round| *round = (*round + 2) & !1);
    }
}

/// Lets connections through until the proxy is dropped.
async fn serve(listener: std::net::TcpListener, target: SocketAddr, delay: Duration, mut cuts: watch::Receiver<u64>) {
    listener.set_nonblocking(true).expect("a listener that does not block");
    let listener = TcpListener::from_std(listener).expect("a listener");
    loop {
        let near = tokio::select! {
            accepted = listener.accept() => accepted.expect("a connection").0,
            changed = cuts.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let mut cuts = cuts.clone();
        let round = *cuts.borrow_and_update();
        if round % 2 == 1 {
            continue;
        }
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::select! {
                () = copy(near_read, far_write, delay) => {}
                () = copy(far_read, near_write, delay) => {}
                _ = cuts.wait_for(|now| *now != round) => {}
            }
        });
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + delay, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
