//! `send`: one command.

use std::io::Read;

use annals_client::{Command, Precondition};
use anyhow::Context as _;

use crate::cli::args::{Common, SendArgs};
use crate::cli::{output, session};
use crate::exit::{Answer, Usage};

pub(crate) async fn run(common: &Common, args: SendArgs) -> anyhow::Result<Answer> {
    let client = session::client(common, &args.client)?;
    let data = data(&args.data)?;
    let precondition = args
        .if_match
        .as_deref()
        .map_or(Ok(Precondition::None), precondition)?;
    let key = match args.idempotency_key {
        Some(key) => key,
        None => crate::ambient::system().uuid().to_string(),
    };
    let command = Command::new(&args.resource, &args.key, &args.command, data, &key).only_if(precondition);
    let sent = client.send(&command).await;
    let answer = sent.with_context(|| format!("to find out, send it again with --idempotency-key {key}"))?;
    output::text(&String::from_utf8_lossy(&answer.body))?;
    if answer.status.is_success() {
        return Ok(Answer::Done);
    }
    eprintln!("{}", answer.summary());
    crate::cli::output::refused(&answer)
}

fn data(given: &str) -> anyhow::Result<Vec<u8>> {
    if given == "-" {
        let mut data = Vec::new();
        std::io::stdin()
            .read_to_end(&mut data)
            .context("standard input cannot be read")?;
        return Ok(data);
    }
    match given.strip_prefix('@') {
        Some(file) => {
            std::fs::read(file).map_err(|error| Usage(format!("{file} cannot be read: {error}")).into())
        }
        None => Ok(given.as_bytes().to_vec()),
    }
}

fn precondition(text: &str) -> Result<Precondition, Usage> {
    if text == "*" {
        return Ok(Precondition::Exists);
    }
    let wrong = || Usage(format!("--if-match {text}: a version such as 3, or *"));
    text.trim_matches('"')
        .parse()
        .map(Precondition::Version)
        .map_err(|_| wrong())
}
