//! A TCP proxy between a node and Postgres, which can hold back, delay or break everything.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to what passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// Each piece waits so long.
    Delay(Duration),
    /// So many bytes a second get through, each way of each connection.
    Trickle(u32),
    /// Nothing gets through; what waits goes on when that ends.
    Hold,
    /// Connections are closed, new ones too.
    Break,
}

/// A proxy. Dropped, it closes everything.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// To the server behind this Unix socket, listening on this address.
    ///
    /// # Panics
    /// If no port can be listened on.
    pub async fn to(socket: PathBuf, from: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((from, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let (mode, modes) = watch::channel(Mode::Pass);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, socket, modes));
        Self {
            address,
            mode,
            _tasks: tasks,
        }
    }

    /// From now on this happens to everything.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, modes: watch::Receiver<Mode>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(connection(client, socket.clone(), modes.clone()));
            }
        }
    }
}

async fn connection(client: TcpStream, socket: PathBuf, mut modes: watch::Receiver<Mode>) {
    if *modes.borrow() == Mode::Break {
        return;
    }
    let Ok(server) = UnixStream::connect(&socket).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (there, back) = (modes.clone(), modes.clone());
    tokio::select! {
        () = pump(from_client, to_server, there) => {}
        () = pump(from_server, to_client, back) => {}
        _ = modes.wait_for(|mode| *mode == Mode::Break) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut modes: watch::Receiver<Mode>,
) {
    let mut piece = vec![0; 64 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut piece).await else {
            return;
        };
        let Ok(mode) = modes.wait_for(|mode| *mode != Mode::Hold).await.map(|mode| *mode) else {
            return;
        };
        match mode {
            Mode::Delay(pause) => tokio::time::sleep(pause).await,
            Mode::Trickle(rate) => {
                let bytes = u32::try_from(count).unwrap_or(u32::MAX);
                tokio::time::sleep(Duration::from_secs(1) * bytes / rate.max(1)).await;
            }
            Mode::Pass | Mode::Hold | Mode::Break => {}
        }
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}
