//! `get`: a row, or a page of a list.

use annals_client::Query;
use serde_json::Value;

use crate::cli::args::{Common, GetArgs};
use crate::cli::output::Output;
use crate::cli::{output, session};
use crate::exit::{Answer, Usage};

pub(crate) async fn run(common: &Common, args: GetArgs) -> anyhow::Result<Answer> {
    let client = session::client(common, &args.client)?;
    let mut query = Query::default();
    for filter in &args.filter {
        let (name, value) = filter.split_once('=').ok_or_else(|| {
            Usage(format!(
                "--filter {filter}: write NAME=VALUE, as in status=placed"
            ))
        })?;
        query = query.with(name, value);
    }
    for position in &args.after {
        query = query.after(position);
    }
    let answer = client.get(&args.resource, args.key.as_deref(), &query).await?;
    if !answer.status.is_success() {
        eprintln!("{}", answer.summary());
        return output::refused(&answer);
    }
    if common.output == Output::Json {
        output::text(&String::from_utf8_lossy(&answer.body))?;
        return Ok(Answer::Done);
    }
    let mut body: Value = answer.json()?;
    match body["data"].take() {
        Value::Array(rows) => common.output.print_all(&rows)?,
        row => common.output.print(&row)?,
    }
    if let Some(next) = body["next"].as_str() {
        eprintln!("more: --filter cursor={next}");
    }
    if let Some(position) = answer.position() {
        eprintln!("as of {position}");
    }
    Ok(Answer::Done)
}
