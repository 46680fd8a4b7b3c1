//! A way to a broker that takes its time.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

pub struct Proxy(JoinHandle<()>);

impl Proxy {
    /// What comes in at `from` reaches `to` only after `delay`, even if its sender has gone by then.
    pub async fn start(from: u16, to: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", from)).await.unwrap();
        Self(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, delay));
                tokio::spawn(pass(from_server, to_client, Duration::ZERO));
            }
        }))
    }

    pub fn stop(self) {
        self.0.abort();
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin + Send + 'static,
    delay: Duration,
) {
    let (late, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let writing = tokio::spawn(async move {
        while let Some((at, bytes)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0
            || late
                .send((Instant::now() + delay, buffer[..count].to_vec()))
                .is_err()
        {
            break;
        }
    }
    drop(late);
    writing.await.ok();
}
