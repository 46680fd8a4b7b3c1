//! `tail`: accepted records, readable.

use std::collections::HashSet;
use std::time::Duration;

use annals_client::Query;
use serde_json::Value;

use crate::cli::args::{Common, TailArgs};
use crate::cli::output::Output;
use crate::cli::{audit, output, session};
use crate::exit::Answer;

/// How often `--follow` asks again at the end.
const ASK_EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn run(common: &Common, args: TailArgs) -> anyhow::Result<Answer> {
    let client = session::client(common, &args.client)?;
    let path = match &args.stream {
        Some(stream) => format!("/v1/audit/streams/{stream}"),
        None => "/v1/audit/records".to_owned(),
    };
    let mut after: Option<String> = None;
    // At the end the same page is asked for again: what was printed of it is passed over.
    let mut printed: HashSet<String> = HashSet::new();
    loop {
        let mut query = Query::default();
        if let Some(category) = &args.category {
            query = query.with("category", category);
        }
        if let Some(after) = &after {
            query = query.with("after", after);
        }
        let answer = audit::ask(&client, &path, &query).await?;
        if !answer.status.is_success() {
            eprintln!("{}", answer.summary());
            return output::refused(&answer);
        }
        let mut body: Value = answer.json()?;
        let items = match body["data"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        for item in &items {
            if !printed.insert(item["record"].to_string()) {
                continue;
            }
            match common.output {
                Output::Table => output::text(&line(item))?,
                Output::Json | Output::Ndjson => output::text(&item.to_string())?,
            }
        }
        match body["next"].as_str() {
            Some(next) => {
                after = Some(next.to_owned());
                printed.clear();
            }
            None if !args.follow => return Ok(Answer::Done),
            None => tokio::select! {
                () = tokio::time::sleep(ASK_EVERY) => {}
                _ = tokio::signal::ctrl_c() => return Ok(Answer::Done),
            },
        }
    }
}

/// One record on one line: time, position, stream, version, command, outcome, actor.
pub(crate) fn line(item: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    if item["stream"].is_null() {
        return format!(
            "{}  {:>8}  {}",
            text(&item["time"]),
            text(&item["position"]),
            text(&item["kind"])
        );
    }
    let command = &item["command"];
    let command = command.get("name").map_or_else(|| text(command), text);
    let events = item["events"].as_array().map(|events| {
        let types = events
            .iter()
            .map(|event| event.get("type").map_or_else(|| text(event), text));
        types.collect::<Vec<_>>().join(", ")
    });
    let outcome = match (events, item["refusal"].get("code")) {
        (_, Some(code)) => format!("refused: {}", text(code)),
        (Some(events), None) if events.is_empty() => "nothing changed".to_owned(),
        (Some(events), None) => events,
        (None, None) => text(&item["kind"]),
    };
    let actor = &item["actor"];
    let actor = actor.get("sub").map_or_else(|| text(actor), text);
    format!(
        "{}  {:>8}  {} @{}  {command} -> {outcome}  ({actor})",
        text(&item["time"]),
        text(&item["position"]),
        text(&item["stream"]),
        text(&item["version"]),
    )
}
