//! Logs to standard error, metrics in memory until they are asked for.

use std::fmt::{self, Write as _};
use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;

use annals_http::request::{self, Request};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{ConfigError, sections};

/// What is logged where `ANNALS_LOG` does not say otherwise. (Same grammar as tracing's `EnvFilter`.)
const SERVER: &str =
    "info,sqlx=warn,sqlx::postgres::notice=error,h2=warn,hyper=warn,librdkafka=error,rdkafka=warn";
const CLIENT: &str = "warn";

/// Bounds of histograms, in seconds.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_env("ANNALS_LOG").unwrap_or_else(|_| EnvFilter::new(default))
}

/// Logs of a node. A second call changes nothing.
///
/// # Errors
/// [`ConfigError`] for a format that there is not.
pub(crate) fn server(settings: &sections::Telemetry) -> Result<(), ConfigError> {
    let builder = tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_env_filter(filter(SERVER));
    match settings.log_format.as_str() {
        "json" => {
            let json = builder
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .map_event_format(|lines| WithRequest { lines, json: true });
            json.try_init().ok();
        }
        "pretty" => {
            builder
                .with_ansi(stderr().is_terminal())
                .with_target(true)
                .compact()
                .map_event_format(|lines| WithRequest { lines, json: false })
                .try_init()
                .ok();
        }
        other => {
            return Err(ConfigError(format!(
                "telemetry.log_format is `{other}`: json or pretty"
            )));
        }
    }
    Ok(())
}

/// Lines that say in which request they were logged: the same as a span named `request` would say, but nothing is
/// made, formatted or dropped for requests in which nothing is logged.
struct WithRequest<F> {
    lines: F,
    json: bool,
}

impl<S, N, F> FormatEvent<S, N> for WithRequest<F>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let Some(request) = request::current() else {
            return self.lines.format_event(context, writer, event);
        };
        let mut line = String::with_capacity(512);
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        // A span of somebody else's keeps its name.
        let member = if context.lookup_current().is_some() {
            "request"
        } else {
            "span"
        };
        append(&mut line, &request, self.json.then_some(member))?;
        writer.write_str(&line)
    }
}

/// Puts a request at the end of a whole line; as the member of this name if the line is JSON.
fn append(line: &mut String, request: &Request, member: Option<&str>) -> fmt::Result {
    let Request {
        method,
        route,
        correlation,
    } = request;
    line.truncate(line.trim_end().len());
    if let Some(member) = member {
        // An object of at least one member, which a time always is.
        line.pop();
        let span = json!({
            "correlation": **correlation, "method": method.as_str(), "route": route, "name": "request",
        });
        writeln!(line, ",\"{member}\":{span}}}")
    } else {
        writeln!(line, " method={method} route={route:?} correlation={correlation}")
    }
}

/// Logs of everything else: warnings. A second call changes nothing.
pub(crate) fn client() {
    let builder = tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_env_filter(filter(CLIENT));
    builder
        .with_ansi(stderr().is_terminal())
        .without_time()
        .compact()
        .try_init()
        .ok();
}

/// The process's recorder of metrics; made at the first call.
///
/// # Errors
/// If another recorder is there already.
pub(crate) fn recorder() -> anyhow::Result<PrometheusHandle> {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    Ok(RECORDER.get_or_init(|| handle).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_in_which_request_it_was_logged() {
        let request = Request {
            method: http::Method::POST,
            route: "/v1/{resource}/{key}/{command}",
            correlation: "c-1".into(),
        };
        let mut line = "{\"timestamp\":\"t\",\"level\":\"ERROR\",\"message\":\"m\"}\n".to_owned();
        append(&mut line, &request, Some("span")).unwrap();
        assert!(line.ends_with("}\n"), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        let span = json!({
            "name": "request", "method": "POST", "route": "/v1/{resource}/{key}/{command}", "correlation": "c-1",
        });
        assert_eq!(read["span"], span);
        assert_eq!(read["message"], "m");
        let mut line = "ERROR annals_http::edge: m\n".to_owned();
        append(&mut line, &request, None).unwrap();
        let expected = "ERROR annals_http::edge: m method=POST route=\"/v1/{resource}/{key}/{command}\" correlation=c-1\n";
        assert_eq!(line, expected);
    }
}
