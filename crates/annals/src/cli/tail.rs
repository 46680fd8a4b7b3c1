//! `tail`: accepted records, readable.

use std::collections::HashMap;
use std::time::Duration;

use annals_client::Query;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use crate::cli::args::{Common, TailArgs};
use crate::cli::output::Output;
use crate::cli::{audit, output, session};
use crate::exit::Answer;

/// How often `--follow` asks again at the end.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How much later than its time a record may become known, and still be printed: shards are indexed side by side.
const LATE: TimeDelta = TimeDelta::seconds(10);

pub(crate) async fn run(common: &Common, args: TailArgs) -> anyhow::Result<Answer> {
    let client = session::client(common, &args.client)?;
    let path = match &args.stream {
        Some(stream) => format!("/v1/audit/streams/{stream}"),
        None => "/v1/audit/records".to_owned(),
    };
    let (mut seen, mut after) = (Seen::default(), None::<String>);
    loop {
        let mut query = Query::default();
        if let Some(category) = &args.category {
            query = query.with("category", category);
        }
        if let Some(after) = &after {
            query = query.with("after", after);
        } else if let (None, Some(from)) = (&args.stream, seen.from()) {
            query = query.with("from", &from);
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
        for item in items.iter().filter(|item| seen.is_new(item)) {
            match common.output {
                Output::Table => output::text(&line(item))?,
                Output::Json | Output::Ndjson => output::text(&item.to_string())?,
            }
        }
        if let Some(next) = body["next"].as_str() {
            after = Some(next.to_owned());
            continue;
        }
        if !args.follow {
            return Ok(Answer::Done);
        }
        if args.stream.is_none() {
            // The order is by time, and a slower shard's record may still come in before the newest one.
            after = None;
            seen.forget();
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Answer::Done),
        }
    }
}

/// What was printed, as far back as it may be met again.
#[derive(Default)]
struct Seen {
    /// The times of the records, by id.
    printed: HashMap<String, DateTime<Utc>>,
    newest: Option<DateTime<Utc>>,
}

impl Seen {
    fn is_new(&mut self, item: &Value) -> bool {
        let time = item["time"].as_str().and_then(|time| time.parse().ok());
        let time = time.unwrap_or(DateTime::UNIX_EPOCH);
        self.newest = self.newest.max(Some(time));
        self.printed.insert(item["record"].to_string(), time).is_none()
    }

    /// Where to begin again.
    fn from(&self) -> Option<String> {
        let from = self.newest? - LATE;
        Some(from.to_rfc3339_opts(SecondsFormat::Millis, true))
    }

    /// Drops what will not be asked for again.
    fn forget(&mut self) {
        if let Some(newest) = self.newest {
            self.printed.retain(|_, time| *time >= newest - LATE);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_that_becomes_known_late_is_printed_once() {
        let item = |record: &str, time: &str| json!({"record": record, "time": time});
        let mut seen = Seen::default();
        assert_eq!(seen.from(), None);
        assert!(seen.is_new(&item("old", "2026-11-22T10:00:00.000Z")));
        assert!(seen.is_new(&item("new", "2026-11-22T10:00:30.000Z")));
        seen.forget();
        assert_eq!(seen.from().as_deref(), Some("2026-11-22T10:00:20.000Z"));
        let late = item("late", "2026-11-22T10:00:21.000Z");
        assert!(seen.is_new(&late));
        assert!(!seen.is_new(&late));
        assert!(!seen.is_new(&item("new", "2026-11-22T10:00:30.000Z")));
        assert_eq!(seen.printed.len(), 2, "the old one is not kept for ever");
    }
}
