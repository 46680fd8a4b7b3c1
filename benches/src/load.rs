//! Clients over HTTP/1.1: each has one connection and waits for each answer before it asks again.
//!
//! Written on bare sockets, so that little of the machine goes into asking. It reads what servers here send: a status
//! line, headers, a body whose length a header says (or none, as with 304).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Writes the n-th request, all of it, into an empty buffer.
pub type Requests = Arc<dyn Fn(u64, &mut Vec<u8>) + Send + Sync>;

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// So many requests have been sent.
    Requests(u64),
    /// So much time has passed.
    Time(Duration),
    /// The same, with so many requests due a second, whatever the server does; a latency counts from when a request was due.
    Due {
        /// Requests a second, of all clients together.
        rate: f64,
        /// How long.
        time: Duration,
    },
}

/// What came of a run.
#[derive(Debug)]
pub struct Answers {
    /// How many answers were of the expected class.
    pub good: u64,
    /// How many were not.
    pub bad: u64,
    /// The first of those.
    pub first_bad: Option<String>,
    /// How long it took.
    pub took: Duration,
    latencies_us: Vec<u32>,
}

impl Answers {
    /// Good answers a second.
    ///
    /// # Errors
    /// If one in a thousand or more was not good: such a run says nothing.
    pub fn rate(&self) -> anyhow::Result<f64> {
        if self.bad * 1_000 >= self.good.max(1) {
            bail!(
                "{} good answers, {} bad, the first: {:?}",
                self.good,
                self.bad,
                self.first_bad
            );
        }
        Ok(self.good as f64 / self.took.as_secs_f64())
    }

    /// The latency below which this part of the answers came, ms.
    #[must_use]
    pub fn latency_ms(&self, part: f64) -> f64 {
        let index = (self.latencies_us.len() as f64 * part) as usize;
        let at = self
            .latencies_us
            .get(index.min(self.latencies_us.len().saturating_sub(1)));
        at.map_or(0.0, |us| f64::from(*us) / 1e3)
    }
}

/// Runs `clients` at once. `expected` is the first digit of a good status.
///
/// # Errors
/// If a connection cannot be made, or breaks.
pub async fn run(
    server: SocketAddr,
    clients: usize,
    until: Until,
    expected: u8,
    next: &Arc<AtomicU64>,
    requests: &Requests,
) -> anyhow::Result<Answers> {
    let began = Instant::now();
    let first = next.load(Ordering::Relaxed);
    let (last, end, rate) = match until {
        Until::Requests(count) => (first + count, None, None),
        Until::Time(time) => (u64::MAX, Some(began + time), None),
        Until::Due { rate, time } => (u64::MAX, Some(began + time), Some(rate)),
    };
    let pace = Pace {
        began,
        first,
        last,
        end,
        rate,
    };
    let mut running = JoinSet::new();
    for _ in 0..clients {
        let (next, requests) = (Arc::clone(next), Arc::clone(requests));
        running.spawn(client(server, expected, pace, next, requests));
    }
    let mut answers = Answers {
        good: 0,
        bad: 0,
        first_bad: None,
        took: Duration::ZERO,
        latencies_us: Vec::new(),
    };
    while let Some(ended) = running.join_next().await {
        let of_client = ended??;
        answers.good += of_client.good;
        answers.bad += of_client.bad;
        answers.first_bad = answers.first_bad.or(of_client.first_bad);
        answers.latencies_us.extend(of_client.latencies_us);
    }
    answers.took = began.elapsed();
    answers.latencies_us.sort_unstable();
    Ok(answers)
}

/// When which request is to be sent.
#[derive(Clone, Copy)]
struct Pace {
    began: Instant,
    first: u64,
    last: u64,
    end: Option<Instant>,
    rate: Option<f64>,
}

impl Pace {
    /// When the n-th is due, not before `now`; `None` if the run ends before that.
    fn due(&self, n: u64, now: Instant) -> Option<Instant> {
        let due = match self.rate {
            Some(rate) => self.began + Duration::from_secs_f64((n - self.first) as f64 / rate),
            None => now,
        };
        (n < self.last && self.end.is_none_or(|end| due < end && now < end)).then_some(due)
    }
}

async fn client(
    server: SocketAddr,
    expected: u8,
    pace: Pace,
    next: Arc<AtomicU64>,
    requests: Requests,
) -> anyhow::Result<Answers> {
    let mut socket = TcpStream::connect(server).await.context("cannot connect")?;
    socket.set_nodelay(true)?;
    let (mut request, mut answer) = (Vec::with_capacity(1_024), Vec::with_capacity(4_096));
    let mut seen = Answers {
        good: 0,
        bad: 0,
        first_bad: None,
        took: Duration::ZERO,
        latencies_us: Vec::new(),
    };
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let Some(due) = pace.due(n, Instant::now()) else {
            return Ok(seen);
        };
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        request.clear();
        requests(n, &mut request);
        ask(&mut socket, &request, &mut answer).await?;
        seen.latencies_us
            .push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
        // `HTTP/1.1 200`: the tenth byte.
        if answer.get(9) == Some(&expected) {
            seen.good += 1;
        } else {
            seen.bad += 1;
            let text = || String::from_utf8_lossy(&answer).into_owned();
            seen.first_bad.get_or_insert_with(text);
        }
    }
}

/// Sends one request and reads its answer, all of it, in place of what was there.
///
/// # Errors
/// If the connection breaks.
pub async fn ask(socket: &mut TcpStream, request: &[u8], answer: &mut Vec<u8>) -> anyhow::Result<()> {
    socket.write_all(request).await?;
    answer.clear();
    read(socket, answer).await
}

/// Reads one answer, all of it.
async fn read(socket: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<()> {
    let whole = loop {
        if let Some(whole) = length(answer)? {
            break whole;
        }
        if socket.read_buf(answer).await? == 0 {
            bail!(
                "the server closed the connection: {:?}",
                String::from_utf8_lossy(answer)
            );
        }
    };
    while answer.len() < whole {
        if socket.read_buf(answer).await? == 0 {
            bail!("the server closed the connection within a body");
        }
    }
    Ok(())
}

/// How long the answer is with its body; `None` until its headers are there.
fn length(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..end])?;
    let mut body = 0;
    for line in head.split("\r\n").skip(1) {
        let (name, value) = line.split_once(':').context("a header without a colon")?;
        if name.eq_ignore_ascii_case("content-length") {
            body = value.trim().parse()?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("an answer in chunks: {head}");
        }
    }
    Ok(Some(end + 4 + body))
}
