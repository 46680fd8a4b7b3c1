//! `audit history|state`: the online questions of auditors.

use annals_client::{Client, Query, Response};
use serde_json::Value;

use crate::cli::args::{Audit, Common};
use crate::cli::output::Output;
use crate::cli::{output, session, tail};
use crate::exit::Answer;

pub(crate) async fn run(common: &Common, what: Audit) -> anyhow::Result<Answer> {
    match what {
        Audit::History { stream, client } => {
            let client = session::client(common, &client)?;
            history(&client, common.output, &stream).await
        }
        Audit::Attest { .. } => anyhow::bail!("attestation works on the database, not on a server"),
        Audit::State {
            stream,
            version,
            at,
            client,
        } => {
            let client = session::client(common, &client)?;
            let mut query = Query::default();
            if let Some(version) = version {
                query = query.with("version", version.to_string());
            }
            if let Some(at) = at {
                query = query.with("at", at);
            }
            let answer = ask(&client, &format!("/v1/audit/streams/{stream}/state"), &query).await?;
            if !answer.status.is_success() {
                eprintln!("{}", answer.summary());
                return output::refused(&answer);
            }
            common.output.print(&answer.json::<Value>()?)?;
            Ok(Answer::Done)
        }
    }
}

async fn history(client: &Client, output: Output, stream: &str) -> anyhow::Result<Answer> {
    let mut query = Query::default();
    let mut all = Vec::new();
    loop {
        let answer = ask(client, &format!("/v1/audit/streams/{stream}"), &query).await?;
        if !answer.status.is_success() {
            eprintln!("{}", answer.summary());
            return output::refused(&answer);
        }
        let mut body: Value = answer.json()?;
        if let Value::Array(items) = body["data"].take() {
            all.extend(items);
        }
        match body["next"].as_str() {
            Some(next) => query = Query::default().with("after", next),
            None => break,
        }
    }
    match output {
        Output::Table => all.iter().try_for_each(|item| output::text(&tail::line(item)))?,
        other => other.print_all(&all)?,
    }
    Ok(Answer::Done)
}

/// Any address with parameters.
pub(crate) async fn ask(client: &Client, path: &str, query: &Query) -> anyhow::Result<Response> {
    let parameters: String = query
        .parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect::<Vec<_>>()
        .join("&");
    let target = match parameters.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{parameters}"),
    };
    let none = bytes::Bytes::new();
    Ok(client
        .raw(http::Method::GET, &target, http::HeaderMap::new(), none)
        .await?)
}

/// Percent-encoded, but for what RFC 3986 calls unreserved.
fn encoded(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    value.bytes().map(byte).collect()
}
