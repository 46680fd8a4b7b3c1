//! What all clients of the Kafka log share: logs, bearer tokens, words for errors.

use std::error::Error;
use std::sync::Arc;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use secrecy::ExposeSecret;

use super::settings::{KafkaSettings, TokenSource};
use crate::LogError;

/// The context of consumers and of the admin client.
#[derive(Debug, Clone)]
pub(super) struct Context {
    tokens: Option<Arc<dyn TokenSource>>,
}

impl Context {
    pub(super) fn new(settings: &KafkaSettings) -> Self {
        Self {
            tokens: settings.tokens(),
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
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

/// An error that may pass.
pub(super) fn unavailable(what: &str, error: &KafkaError) -> LogError {
    LogError::Unavailable(format!("{what}: {error}"))
}
