//! What the edge counts. No label holds a stream, a caller or any other id.

use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, StatusCode};
use metrics::{Counter, Histogram};

use crate::route::TEMPLATES;

/// Requests, by `route` (a template), `method` and `status`.
pub const REQUESTS: &str = "annals_http_requests_total";
/// How long requests took until their response's head, seconds; by `route` and `method`.
pub const DURATION: &str = "annals_http_request_duration_seconds";
/// Connections that are open, by `listener`.
pub const CONNECTIONS: &str = "annals_http_connections";
/// Requests sent on to a shard's owner, by `outcome`.
pub const FORWARDED: &str = "annals_http_forwarded_total";
/// Panics caught in handlers: each is a defect.
pub const PANICS: &str = "annals_http_panics_total";

/// Says what each of them means, for whoever exports them.
pub fn describe() {
    metrics::describe_counter!(REQUESTS, "Requests by route template, method and status");
    metrics::describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "Time until a response's head, by route template and method"
    );
    metrics::describe_gauge!(CONNECTIONS, "Open connections by listener");
    metrics::describe_counter!(FORWARDED, "Requests sent on to a shard's owner");
    metrics::describe_counter!(PANICS, "Panics caught in handlers");
}

/// Most statuses that one route gives to one method; further ones are counted the slow way.
const STATUSES: usize = 12;
/// What a method may be called.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "other",
];

/// Counters and histograms of requests, kept once they were used: finding one by its labels costs more than counting.
pub(crate) struct Requests(Box<[[Series; METHODS.len()]; TEMPLATES.len()]>);

/// Those of one route and method.
#[derive(Default)]
struct Series {
    took: OnceLock<Histogram>,
    counted: [OnceLock<(StatusCode, Counter)>; STATUSES],
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self(Box::default())
    }

    /// Counts one request; `template` is an index of [`TEMPLATES`].
    pub(crate) fn count(&self, template: usize, method: &Method, status: StatusCode, took: Duration) {
        let (route, method) = (TEMPLATES[template], index(method));
        let (series, method) = (&self.0[template][method], METHODS[method]);
        let histogram = || metrics::histogram!(DURATION, "route" => route, "method" => method);
        series.took.get_or_init(histogram).record(took.as_secs_f64());
        let counter = || {
            let status = status.as_str().to_owned();
            metrics::counter!(REQUESTS, "route" => route, "method" => method, "status" => status)
        };
        for slot in &series.counted {
            let (of, counter) = slot.get_or_init(|| (status, counter()));
            if *of == status {
                return counter.increment(1);
            }
        }
        counter().increment(1);
    }
}

/// A client may invent methods, and must not invent labels.
fn index(method: &Method) -> usize {
    let name = method.as_str();
    let last = METHODS.len() - 1;
    METHODS[..last]
        .iter()
        .position(|known| *known == name)
        .unwrap_or(last)
}
