//! The data subjects' keys as a projection's source of plain values.

use annals_auth::{Opened, Opener};
use async_trait::async_trait;
use serde_json::Value;

use super::events::{OpenError, OpenPersonal, Sealed};

#[async_trait]
impl OpenPersonal for Opener {
    /// Erased values are null; so are those that do not read, which annals-auth counts and alarms on.
    async fn open(&self, sealed: &[Box<Sealed>]) -> Result<Vec<Option<Value>>, OpenError> {
        let texts: Vec<&str> = sealed.iter().map(|text| &**text).collect();
        let opened = self
            .open_many(&texts)
            .await
            .map_err(|error| OpenError(error.to_string()))?;
        let plain = opened.into_iter().map(|opened| match opened {
            Opened::Plain(value) => Some(value),
            Opened::Erased | Opened::Wrong => None,
        });
        Ok(plain.collect())
    }
}
