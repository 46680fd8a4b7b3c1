//! The limits of the edge, each with its unit and default.

use std::path::PathBuf;
use std::time::Duration;

use crate::scan::MAX_DEPTH;

/// Section `http` of the configuration, and what of other sections concerns the edge.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest body of a command, and of a line's data in a batch; bytes.
    pub body_bytes: usize,
    /// How many arrays and objects may be open at once in a body; 1 to 128.
    pub json_depth: usize,
    /// The largest head of a request: target and headers; bytes.
    pub header_bytes: usize,
    /// How long a request may take from its head on, ms; a command's own deadline is `deadline_ms`.
    pub request_ms: u64,
    /// `command.deadline_ms`: after it a command's outcome is not known (504).
    pub deadline_ms: u64,
    /// The most connections of one listener; more wait to be accepted.
    pub connections: usize,
    /// Which origins browsers may call from (CORS); none: it is off. `*`: any.
    pub cors_origins: Vec<String>,
    /// Certificate and key; without them plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How many lines of one batch are under way at once.
    pub batch_concurrency: usize,
    /// `query.live_heartbeat_ms`: a stream of live changes in which nothing happens says so this often, ms.
    pub live_heartbeat_ms: u64,
    /// `telemetry.access_log`: one log line a request.
    pub access_log: bool,
}

/// The files of TLS, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain of certificates, the server's own first.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_bytes: 256 << 10,
            json_depth: 32,
            header_bytes: 16 << 10,
            request_ms: 10_000,
            deadline_ms: 5_000,
            connections: 4_096,
            cors_origins: Vec::new(),
            tls: None,
            batch_concurrency: 64,
            live_heartbeat_ms: 15_000,
            access_log: false,
        }
    }
}

impl Settings {
    /// Says what is wrong with a setting, by its name.
    ///
    /// # Errors
    /// The first setting that cannot work, and what could.
    pub fn validate(&self) -> Result<(), String> {
        let within = |name: &str, value: u64, least: u64, most: u64| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(format!("{name} must be from {least} to {most}, not {value}")),
        };
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        within("http.body_bytes", number(self.body_bytes), 1_024, 64 << 20)?;
        within("http.json_depth", number(self.json_depth), 1, number(MAX_DEPTH))?;
        within("http.header_bytes", number(self.header_bytes), 4 << 10, 1 << 20)?;
        within("http.request_ms", self.request_ms, 100, 600_000)?;
        within("command.deadline_ms", self.deadline_ms, 10, 600_000)?;
        within("http.connections", number(self.connections), 1, 1_000_000)?;
        within("http.batch_concurrency", number(self.batch_concurrency), 1, 4_096)?;
        within("query.live_heartbeat_ms", self.live_heartbeat_ms, 100, 600_000)?;
        let origin = |origin: &&String| {
            let scheme = origin.starts_with("http://") || origin.starts_with("https://");
            *origin != "*" && (!scheme || origin.matches('/').count() != 2)
        };
        match self.cors_origins.iter().find(origin) {
            Some(origin) => Err(format!(
                "http.cors_origins: `{origin}` is no origin: scheme, host and port without a path, or *"
            )),
            None => Ok(()),
        }
    }

    /// How long a request may take.
    #[must_use]
    pub fn request_time(&self) -> Duration {
        Duration::from_millis(self.request_ms)
    }

    /// How often a quiet stream of live changes says that it is there.
    #[must_use]
    pub fn live_heartbeat(&self) -> Duration {
        Duration::from_millis(self.live_heartbeat_ms)
    }

    /// How long a command may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fine_and_each_limit_is_checked() {
        Settings::default().validate().unwrap();
        type Spoil = fn(&mut Settings);
        let wrong: [(&str, Spoil); 6] = [
            ("query.live_heartbeat_ms", |s| s.live_heartbeat_ms = 0),
            ("http.body_bytes", |s| s.body_bytes = 0),
            ("http.json_depth", |s| s.json_depth = MAX_DEPTH + 1),
            ("http.connections", |s| s.connections = 0),
            ("command.deadline_ms", |s| s.deadline_ms = 0),
            ("http.cors_origins", |s| {
                s.cors_origins = vec!["https://shop.example/".to_owned()]
            }),
        ];
        for (name, spoil) in wrong {
            let mut settings = Settings::default();
            spoil(&mut settings);
            assert!(settings.validate().unwrap_err().starts_with(name), "{name}");
        }
        let cors = ["*", "https://shop.example", "http://127.0.0.1:3000"]
            .map(str::to_owned)
            .to_vec();
        Settings {
            cors_origins: cors,
            ..Settings::default()
        }
        .validate()
        .unwrap();
    }
}
