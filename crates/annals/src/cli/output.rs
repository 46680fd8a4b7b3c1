//! What is printed: tables for people, JSON for programs, progress.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

/// How data are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Ndjson,
}

impl Output {
    /// Prints things as JSON, or as a table of their fields.
    ///
    /// # Errors
    /// If standard output is gone.
    pub fn print_all<T: Serialize>(self, things: &[T]) -> anyhow::Result<()> {
        let values = things
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<Vec<_>, _>>()?;
        match self {
            Self::Json => text(&serde_json::to_string_pretty(&values)?),
            Self::Ndjson => values.iter().try_for_each(|value| text(&value.to_string())),
            Self::Table => rows(&values),
        }
    }

    /// Prints one thing.
    ///
    /// # Errors
    /// If standard output is gone.
    pub fn print<T: Serialize>(self, thing: &T) -> anyhow::Result<()> {
        let value = serde_json::to_value(thing)?;
        match self {
            Self::Json => text(&serde_json::to_string_pretty(&value)?),
            Self::Ndjson => text(&value.to_string()),
            Self::Table => match &value {
                Value::Object(fields) => table(
                    &["", ""],
                    fields.iter().map(|(name, value)| [name.clone(), cell(value)]),
                ),
                other => text(&cell(other)),
            },
        }
    }
}

/// One line on standard output.
///
/// # Errors
/// If standard output is gone.
pub fn text(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

/// A table; its columns fit the terminal.
///
/// # Errors
/// If standard output is gone.
pub fn table<const N: usize>(
    head: &[&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> anyhow::Result<()> {
    let mut table = plain();
    if head.iter().any(|name| !name.is_empty()) {
        table.set_header(head.iter().copied());
    }
    for row in rows {
        table.add_row(row);
    }
    text(&trimmed(&table))
}

/// JSON objects as a table: a column for each field of any.
fn rows(values: &[Value]) -> anyhow::Result<()> {
    let mut columns: Vec<&str> = Vec::new();
    for field in values
        .iter()
        .filter_map(Value::as_object)
        .flat_map(|fields| fields.keys())
    {
        if !columns.contains(&field.as_str()) {
            columns.push(field);
        }
    }
    if columns.is_empty() {
        return text("(none)");
    }
    let mut table = plain();
    table.set_header(columns.iter().copied());
    for value in values {
        table.add_row(
            columns
                .iter()
                .map(|column| value.get(column).map(cell).unwrap_or_default()),
        );
    }
    text(&trimmed(&table))
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    }
    table
}

fn trimmed(table: &Table) -> String {
    let lines = table.to_string();
    lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress of long work, on standard error: a bar with rate and time left on a terminal, else a line every few
/// seconds.
#[derive(Debug)]
pub struct Progress {
    what: String,
    total: u64,
    done: u64,
    began: Instant,
    last: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins; `total` 0: not known.
    #[must_use]
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        let what = what.into();
        let bar = io::stderr().is_terminal().then(|| {
            let template = match total {
                0 => "{msg}: {pos}, {per_sec}, {elapsed}",
                _ => "{msg}: {bar:30} {pos}/{len}, {per_sec}, {eta} left",
            };
            let bar = if total == 0 {
                ProgressBar::new_spinner()
            } else {
                ProgressBar::new(total)
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.with_message(what.clone())
        });
        let now = Instant::now();
        Self {
            what,
            total,
            done: 0,
            began: now,
            last: now,
            bar,
        }
    }

    /// There is more to be done than was known.
    pub fn expect(&mut self, total: u64) {
        self.total = self.total.max(total);
        if let Some(bar) = &self.bar {
            bar.set_length(self.total);
        }
    }

    /// So many more are done.
    pub fn add(&mut self, count: u64) {
        self.done += count;
        if let Some(bar) = &self.bar {
            bar.inc(count);
        } else if self.last.elapsed() >= LINE_EVERY {
            self.last = Instant::now();
            eprintln!("{}", self.line());
        }
    }

    /// How many are done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Ends, with a last line. Returns how long it took.
    pub fn finish(self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{}", self.line());
        self.began.elapsed()
    }

    fn line(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = per_second(self.done, self.began.elapsed());
        let of = if self.total == 0 {
            String::new()
        } else {
            format!(" of {}", self.total)
        };
        let left = match self.total.saturating_sub(self.done) {
            left if left > 0 && rate > 0.0 => {
                let left = u32::try_from(left).map_or(f64::INFINITY, f64::from);
                format!(", {:.0} s left", left / rate)
            }
            _ => String::new(),
        };
        format!(
            "{}: {}{of} in {seconds:.1} s, {rate:.0}/s{left}",
            self.what, self.done
        )
    }
}

/// So many in this time, a second.
#[must_use]
pub fn per_second(count: u64, time: Duration) -> f64 {
    let count = u32::try_from(count).map_or(f64::INFINITY, f64::from);
    count / time.as_secs_f64().max(0.001)
}

/// What an answer that is no success means for the exit status: the server said no (1), the request was wrong (2), or
/// it could not be done (3, an error).
///
/// # Errors
/// For 429 and 5xx: later it may be done.
pub fn refused(answer: &annals_client::Response) -> anyhow::Result<crate::exit::Answer> {
    let status = answer.status.as_u16();
    match status {
        400 | 405 | 406 | 413 | 415 | 422 | 431 => Err(crate::exit::Usage(answer.summary()).into()),
        429 | 500.. => anyhow::bail!("{}: {}", answer.url, answer.summary()),
        _ => Ok(crate::exit::Answer::No),
    }
}
