//! A TCP proxy that can be slow, or cut the line.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

/// Chunks on their way; more wait in the kernel.
const CHUNKS: usize = 1024;

/// A way to another address. Runs for as long as the test.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// Counted up to cut all connections; odd: none is let through.
    cut: Arc<watch::Sender<u64>>,
}

impl Proxy {
    /// Every byte takes `delay` in each direction.
    pub async fn start(target: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let cut = Arc::new(watch::Sender::new(0));
        let cuts = Arc::clone(&cut);
        tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { return };
                let mut cuts = cuts.subscribe();
                let round = *cuts.borrow();
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
