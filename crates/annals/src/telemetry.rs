//! Logs to standard error, metrics in memory until they are asked for.

use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, sections};

/// What is logged where `ANNALS_LOG` does not say otherwise. (Same grammar as tracing's `EnvFilter`.)
const SERVER: &str = "info,sqlx=warn,sqlx::postgres::notice=error,h2=warn,hyper=warn,librdkafka=error,rdkafka=warn";
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
                .with_span_list(false);
            json.try_init().ok();
        }
        "pretty" => {
            builder
                .with_ansi(stderr().is_terminal())
                .with_target(true)
                .compact()
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
