//! What all clients of the Kafka log share: logs, bearer tokens, words for errors.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::settings::{KafkaSettings, TokenSource};
use crate::LogError;

/// How long one looks for the reason why brokers cannot be reached.
const WHY_LIMIT: Duration = Duration::from_secs(3);

/// The context of consumers and of the admin client.
#[derive(Debug, Clone)]
pub(super) struct Context {
    tokens: Option<Arc<dyn TokenSource>>,
    /// The last error that the client had with its brokers, in its words.
    said: Arc<Mutex<Option<String>>>,
}

impl Context {
    pub(super) fn new(settings: &KafkaSettings) -> Self {
        Self {
            tokens: settings.tokens(),
            said: Arc::default(),
        }
    }

    /// The last error with the brokers themselves: a login, a certificate, a connection.
    fn said(&self) -> Option<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows from what was said before, and says less.
        if said.is_none() || error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *said = Some(reason.to_owned());
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let source = self.tokens.as_ref().ok_or("no source of tokens is configured")?;
        let token = source.token()?;
        Ok(OAuthToken {
            token: token.token.expose_secret().to_owned(),
            principal_name: token.principal,
            lifetime_ms: token.expires_at_ms,
        })
    }
}

impl ConsumerContext for Context {}

/// Why brokers cannot be asked: the admin client keeps that to itself and only times out, so another client tries.
pub(super) async fn why_unreachable(settings: &KafkaSettings) -> Option<String> {
    let (config, context) = (settings.consumer("why", "annals-why"), Context::new(settings));
    let asked = tokio::task::spawn_blocking(move || {
        let consumer = BaseConsumer::from_config_and_context(&config, context.clone()).ok()?;
        let until = Instant::now() + WHY_LIMIT;
        while context.said().is_none() && Instant::now() < until {
            // Serves what the client has to say; there is nothing to be read.
            drop(consumer.poll(Duration::from_millis(100)));
        }
        context.said()
    });
    asked.await.ok().flatten()
}

/// An error that may pass.
pub(super) fn unavailable(what: &str, error: &KafkaError) -> LogError {
    LogError::Unavailable(format!("{what}: {error}"))
}
