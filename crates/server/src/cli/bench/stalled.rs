//! Subscribers that never read.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use super::{in_time, subscriber, target::Target};

/// How long the end of a connection may take once it is read from: more than a server gives it.
const GOODBYE: Duration = Duration::from_secs(4);

/// Connections that are subscribed, and not read from.
#[derive(Debug)]
pub(super) struct Stalled(Vec<TcpStream>);

impl Stalled {
    /// Lets `count` of them subscribe, spread over the channels.
    pub(super) async fn start(count: u32, channels: u32, target: &Target) -> Result<Self, String> {
        let subscribe = |index: u32| in_time("a subscription", subscriber::connect(target, index % channels));
        let streams = stream::iter(0..count).map(subscribe).buffer_unordered(64).map_ok(|(stream, _)| stream);
        Ok(Self(streams.try_collect().await?))
    }

    /// How many the server has closed, of how many.
    pub(super) async fn closed(self) -> (usize, usize) {
        let count = self.0.len();
        let ends = self.0.into_iter().map(|stream| async move { timeout(GOODBYE, end(stream)).await.is_ok() });
        (join_all(ends).await.into_iter().filter(|closed| *closed).count(), count)
    }
}

/// Waits for what is behind that which was not read.
async fn end(mut stream: TcpStream) {
    let mut scratch = vec![0; 64 * 1024];
    while stream.read(&mut scratch).await.is_ok_and(|length| length > 0) {}
}
