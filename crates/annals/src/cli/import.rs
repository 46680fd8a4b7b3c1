//! `import`: a file of commands, one a line as `POST /v1/batch` takes them.
//!
//! Each line is sent alone, so that it can be tried again under its own key. Lines of one stream go through one lane,
//! in the file's order, one after the other's answer.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use annals_client::{BatchLine, Client, Command, Precondition, Response, Retries};
use anyhow::Context as _;
use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cli::args::{Common, ImportArgs};
use crate::cli::output::{Output, Progress};
use crate::cli::{output, session};
use crate::exit::{Answer, Usage};

/// Lines that wait in a lane.
const LANE: usize = 16;
/// Failed lines that are printed in full.
const SHOWN: usize = 20;

/// What became of a line.
struct Ended {
    line: u64,
    outcome: Result<Response, annals_client::Error>,
}

#[derive(Debug, Default, Serialize)]
struct Summary {
    lines: u64,
    accepted: u64,
    replayed: u64,
    refused: u64,
    failed: u64,
    by_code: BTreeMap<String, u64>,
    seconds: f64,
}

pub(crate) async fn run(common: &Common, args: ImportArgs) -> anyhow::Result<Answer> {
    // Long work outlasts a restart of the server.
    let client = session::client(common, &args.client)?.with_retries(Retries::default());
    let (total, lines) = open(&args.file).await?;
    let (ended_sender, mut ended) = mpsc::channel(1_024);
    let mut tasks = JoinSet::new();
    let lanes: Vec<_> = (0..args.concurrency)
        .map(|_| {
            let (sender, lane) = mpsc::channel(LANE);
            tasks.spawn(work(client.clone(), lane, ended_sender.clone()));
            sender
        })
        .collect();
    drop(ended_sender);
    let mut reading = tokio::spawn(read(lines, lanes));
    let mut progress = Progress::new("import", total);
    let mut summary = Summary::default();
    while let Some(Ended { line, outcome }) = ended.recv().await {
        progress.add(1);
        summary.take(line, outcome);
    }
    summary.seconds = progress.finish().as_secs_f64();
    (&mut reading).await.context("reading the file")??;
    match common.output {
        Output::Table => output::text(&format!(
            "{} lines: {} accepted ({} of them before), {} refused, {} failed {:?}",
            summary.lines,
            summary.accepted,
            summary.replayed,
            summary.refused,
            summary.failed,
            summary.by_code
        ))?,
        other => other.print(&summary)?,
    }
    anyhow::ensure!(
        summary.failed == 0,
        "{} lines got no answer; the same import again goes on: what was done is answered as before",
        summary.failed
    );
    Ok(if summary.refused == 0 {
        Answer::Done
    } else {
        Answer::No
    })
}

impl Summary {
    fn take(&mut self, line: u64, outcome: Result<Response, annals_client::Error>) {
        self.lines += 1;
        let why = match &outcome {
            Ok(answer) if answer.status.is_success() => {
                self.accepted += 1;
                self.replayed += u64::from(answer.is_replay());
                return;
            }
            Ok(answer) if answer.status.is_client_error() => {
                self.refused += 1;
                let code = answer
                    .rejection()
                    .or_else(|| answer.problem().map(|problem| problem.code));
                *self
                    .by_code
                    .entry(code.unwrap_or_else(|| answer.status.to_string()))
                    .or_default() += 1;
                answer.summary()
            }
            Ok(answer) => {
                self.failed += 1;
                answer.summary()
            }
            Err(error) => {
                self.failed += 1;
                error.to_string()
            }
        };
        if self.refused + self.failed <= u64::try_from(SHOWN).unwrap_or(0) {
            eprintln!("line {line}: {why}");
        }
    }
}

type Source = Box<dyn AsyncBufRead + Send + Unpin>;

/// The lines and, of a file, how many there are.
async fn open(path: &Path) -> anyhow::Result<(u64, Source)> {
    if path == Path::new("-") {
        return Ok((0, Box::new(BufReader::new(tokio::io::stdin()))));
    }
    let wrong = |error: std::io::Error| Usage(format!("{} cannot be read: {error}", path.display()));
    let mut total = 0;
    let mut counting = BufReader::new(tokio::fs::File::open(path).await.map_err(wrong)?).lines();
    while let Some(line) = counting.next_line().await.map_err(wrong)? {
        total += u64::from(!line.trim().is_empty());
    }
    let file = tokio::fs::File::open(path).await.map_err(wrong)?;
    Ok((total, Box::new(BufReader::new(file))))
}

async fn read(source: Source, lanes: Vec<mpsc::Sender<(u64, BatchLine)>>) -> anyhow::Result<()> {
    let mut lines = source.lines();
    let mut number = 0;
    while let Some(text) = lines.next_line().await? {
        number += 1;
        if text.trim().is_empty() {
            continue;
        }
        let line: BatchLine = serde_json::from_str(&text).map_err(|error| {
            Usage(format!(
                "line {number} is no command: {error}; lines before it were sent"
            ))
        })?;
        let mut hasher = DefaultHasher::new();
        match &line.key {
            Some(key) => (&line.resource, key).hash(&mut hasher),
            // The server makes the key of it: the same one meets the same stream.
            None => (&line.resource, &line.idempotency_key).hash(&mut hasher),
        }
        let count = u64::try_from(lanes.len()).unwrap_or(1);
        let lane = usize::try_from(hasher.finish() % count).unwrap_or(0);
        if lanes[lane].send((number, line)).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn work(client: Client, mut lane: mpsc::Receiver<(u64, BatchLine)>, ended: mpsc::Sender<Ended>) {
    while let Some((line, command)) = lane.recv().await {
        let outcome = send(&client, &command).await;
        if ended.send(Ended { line, outcome }).await.is_err() {
            return;
        }
    }
}

async fn send(client: &Client, line: &BatchLine) -> Result<Response, annals_client::Error> {
    let precondition = match (&line.if_match, &line.if_none_match) {
        (Some(tag), _) if tag == "*" => Precondition::Exists,
        (Some(tag), _) => Precondition::Version(
            tag.trim_matches('"')
                .parse()
                .map_err(|_| annals_client::Error::Unsendable { what: "if_match" })?,
        ),
        (None, Some(_)) => Precondition::New,
        (None, None) => Precondition::None,
    };
    let command = Command {
        key: line.key.as_deref(),
        data: line
            .data
            .as_ref()
            .map(|data| data.get().to_owned())
            .unwrap_or_default()
            .into(),
        ..Command::new(&line.resource, "", &line.command, "", &line.idempotency_key)
    };
    client.send(&command.only_if(precondition)).await
}
