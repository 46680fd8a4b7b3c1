//! Settings of the Kafka log, and what follows from them for each of its clients.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use annals_record::AppName;
use rdkafka::ClientConfig;
use secrecy::{ExposeSecret, SecretString};

/// What a record's own framing may add to its stored bytes: batch header, lengths, header lengths.
/// Source: Kafka's record batch format, version 2; a record of the grammar needs less than 300.
pub(super) const FRAMING_BYTES: usize = 1024;

/// Settings of librdkafka that the log's safety rests on, or that are set from settings of their own.
const NOT_TO_OVERRIDE: [&str; 42] = [
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.servers",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.commit.enable",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "enable.sasl.oauthbearer.unsecure.jwt",
    "enable.ssl.certificate.verification",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
    "partitioner",
    "queue.buffering.max.ms",
    "queuing.strategy",
    "request.required.acks",
    "retries",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "transactional.id",
];

/// Where the log is and how it is reached.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// The topic; `{app}` stands for the app's name.
    pub topic: String,
    /// How many producer instances a process spreads its shards over; 1 to `producers_max`.
    pub producers: usize,
    /// How many at most; 1 to 64. Retiring ones are not counted.
    pub producers_max: usize,
    /// The largest record: bytes of key, value and headers; 1 KiB to 32 MiB.
    pub record_bytes: usize,
    /// TLS; none: the connection is not encrypted.
    pub tls: Option<Tls>,
    /// How the client says who it is; none: it does not.
    pub sasl: Option<Sasl>,
    /// Accept a topic with one replica, which one lost disk destroys.
    pub allow_single_replica: bool,
    /// Further settings of librdkafka. Those that safety rests on are refused.
    pub client: BTreeMap<String, String>,
}

/// TLS towards the brokers.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM file of the authorities to trust; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's own certificate.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of its key.
    pub key_file: Option<PathBuf>,
    /// The key's password.
    pub key_password: Option<SecretString>,
}

/// SASL towards the brokers.
#[derive(Debug, Clone)]
pub enum Sasl {
    /// User name and password by SCRAM. Source: RFC 5802, RFC 7677.
    Scram {
        /// The hash.
        mechanism: ScramMechanism,
        /// The user.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// A bearer token. Source: RFC 7628, KIP-255.
    OAuthBearer {
        /// Where tokens come from; asked again before one expires.
        tokens: Arc<dyn TokenSource>,
    },
}

/// The hash of SCRAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256
    Sha256,
    /// SCRAM-SHA-512
    Sha512,
}

/// Where bearer tokens come from. Called on a client's own thread, where it may block for a moment.
pub trait TokenSource: Send + Sync + fmt::Debug {
    /// A token that is valid now.
    ///
    /// # Errors
    /// In words; the client asks again after some seconds.
    fn token(&self) -> Result<BearerToken, String>;
}

/// A bearer token.
#[derive(Debug, Clone)]
pub struct BearerToken {
    /// The token.
    pub token: SecretString,
    /// Whose it is, for the brokers' own logs.
    pub principal: String,
    /// When it expires, ms since 1970.
    pub expires_at_ms: i64,
}

impl KafkaSettings {
    /// The defaults, for brokers that are reached without TLS and SASL.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic: "{app}.log".to_owned(),
            producers: 2,
            producers_max: 8,
            record_bytes: 900 << 10,
            tls: None,
            sasl: None,
            allow_single_replica: false,
            client: BTreeMap::new(),
        }
    }

    /// The topic of `app`'s log.
    #[must_use]
    pub fn topic_of(&self, app: &AppName) -> String {
        self.topic.replace("{app}", app.as_str())
    }

    /// Whether the values are within their ranges.
    ///
    /// # Errors
    /// The setting, its value and its range, in words.
    pub fn validate(&self) -> Result<(), String> {
        if self.brokers.trim().is_empty() {
            return Err("log.brokers is empty: give host:port, several with commas".to_owned());
        }
        let named = self.topic.replace("{app}", "a");
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if named.is_empty() || !named.chars().all(legal) || self.topic.len() > 249 {
            return Err(format!(
                "log.topic is `{}`: letters, digits, `.`, `_` and `-`, and `{{app}}` for the app's name",
                self.topic
            ));
        }
        if !(1..=64).contains(&self.producers_max) {
            return Err(format!("log.producers_max is {}: 1 to 64", self.producers_max));
        }
        if !(1..=self.producers_max).contains(&self.producers) {
            return Err(format!(
                "log.producers is {}: 1 to log.producers_max, which is {}",
                self.producers, self.producers_max
            ));
        }
        if !((1 << 10)..=(32 << 20)).contains(&self.record_bytes) {
            return Err(format!(
                "log.record_bytes is {}: 1024 to 33554432",
                self.record_bytes
            ));
        }
        for name in self.client.keys() {
            if NOT_TO_OVERRIDE.contains(&name.as_str()) {
                return Err(format!("log.client.{name} cannot be set: the log sets it itself"));
            }
        }
        // The client itself knows best which names and values it takes.
        match self.producer().create_native_config() {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("log.client: {error}")),
        }
    }

    /// What every client has in common.
    fn common(&self, purpose: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.client {
            config.set(name, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("socket.nagle.disable", "true")
            .set("allow.auto.create.topics", "false");
        if !self.client.contains_key("client.id") {
            config.set("client.id", format!("annals-{purpose}"));
        }
        if !self.client.contains_key("reconnect.backoff.max.ms") {
            config
                .set("reconnect.backoff.ms", "50")
                .set("reconnect.backoff.max.ms", "1000");
        }
        self.secure(&mut config);
        config
    }

    fn secure(&self, config: &mut ClientConfig) {
        config.set(
            "security.protocol",
            match (&self.tls, &self.sasl) {
                (None, None) => "plaintext",
                (Some(_), None) => "ssl",
                (None, Some(_)) => "sasl_plaintext",
                (Some(_), Some(_)) => "sasl_ssl",
            },
        );
        if let Some(tls) = &self.tls {
            config.set("ssl.endpoint.identification.algorithm", "https");
            let files = [
                ("ssl.ca.location", &tls.ca_file),
                ("ssl.certificate.location", &tls.certificate_file),
                ("ssl.key.location", &tls.key_file),
            ];
            for (name, file) in files {
                if let Some(file) = file {
                    config.set(name, file.to_string_lossy());
                }
            }
            if let Some(password) = &tls.key_password {
                config.set("ssl.key.password", password.expose_secret());
            }
        }
        match &self.sasl {
            None => {}
            Some(Sasl::Scram {
                mechanism,
                username,
                password,
            }) => {
                config
                    .set("sasl.mechanism", mechanism.as_str())
                    .set("sasl.username", username)
                    .set("sasl.password", password.expose_secret());
            }
            Some(Sasl::OAuthBearer { .. }) => {
                config.set("sasl.mechanism", "OAUTHBEARER");
            }
        }
    }

    /// An idempotent producer that waits out every trouble but a fatal one.
    pub(super) fn producer(&self) -> ClientConfig {
        // A batch is never larger than the larger of this and one record, so neither is over the topic's
        // max.message.bytes, whose violation would end the producer.
        let message_bytes = (self.record_bytes + FRAMING_BYTES).to_string();
        let mut config = self.common("producer");
        config
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "5")
            .set("message.timeout.ms", "0")
            .set("message.send.max.retries", "2147483647")
            .set("queue.buffering.max.ms", "0")
            .set("delivery.report.only.error", "false")
            .set("message.max.bytes", &message_bytes)
            .set("batch.size", &message_bytes);
        let defaults = [
            ("queue.buffering.max.kbytes", "131072"),
            ("queue.buffering.max.messages", "200000"),
            ("retry.backoff.max.ms", "500"),
            // A leader that is frozen and not dead keeps its connections: this long until the records go to the next
            // leader, by the same producer with the same numbers. (The client's own default is a minute.)
            ("socket.timeout.ms", "10000"),
            ("request.timeout.ms", "8000"),
        ];
        self.default_to(&mut config, &defaults);
        config
    }

    /// A consumer that is told what to read and keeps no offsets at the brokers.
    pub(super) fn consumer(&self, purpose: &str, group: &str) -> ClientConfig {
        let mut config = self.common(purpose);
        // The client assigns nothing without a group's name; no group is joined and nothing is committed.
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_uncommitted")
            .set("enable.partition.eof", "false");
        let defaults = [
            ("check.crcs", "true"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.error.backoff.ms", "50"),
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.message.max.bytes", "1048576"),
            ("queued.max.messages.kbytes", "8192"),
        ];
        self.default_to(&mut config, &defaults);
        config
    }

    /// A client that asks and changes what the cluster is set to.
    pub(super) fn admin(&self) -> ClientConfig {
        self.common("admin")
    }

    fn default_to(&self, config: &mut ClientConfig, defaults: &[(&str, &str)]) {
        for (name, value) in defaults {
            if !self.client.contains_key(*name) {
                config.set(*name, *value);
            }
        }
    }

    /// Where tokens come from, if the brokers want any.
    pub(super) fn tokens(&self) -> Option<Arc<dyn TokenSource>> {
        match &self.sasl {
            Some(Sasl::OAuthBearer { tokens }) => Some(Arc::clone(tokens)),
            _ => None,
        }
    }
}

impl ScramMechanism {
    /// As brokers call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }
}
