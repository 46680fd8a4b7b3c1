//! What the edge counts. No label holds a stream, a caller or any other id.

use std::time::Duration;

use http::{Method, StatusCode};

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

/// Counts one request.
pub(crate) fn request(route: &'static str, method: &Method, status: StatusCode, took: Duration) {
    let method = label(method);
    metrics::counter!(REQUESTS, "route" => route, "method" => method, "status" => status.as_str().to_owned())
        .increment(1);
    metrics::histogram!(DURATION, "route" => route, "method" => method).record(took.as_secs_f64());
}

/// A client may invent methods, and must not invent labels.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
