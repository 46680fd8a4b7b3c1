//! Whether some brokers may hold a log: the suite of promises on a topic that is made for it and deleted behind it.

use std::sync::{Arc, Mutex, PoisonError};

use annals_record::{AppName, Generation, ShardCount};
use async_trait::async_trait;

use super::{KafkaError, KafkaLog, KafkaSettings, topic};
use crate::conformance::{self, Kept, Subject};
use crate::{Log, LogError};

struct Trial {
    settings: KafkaSettings,
    app: AppName,
    shards: ShardCount,
    log: Arc<KafkaLog>,
    others: Mutex<Vec<Arc<KafkaLog>>>,
}

#[async_trait]
impl Subject for Trial {
    fn log(&self) -> Arc<dyn Log> {
        let log: Arc<KafkaLog> = Arc::clone(&self.log);
        log
    }

    async fn another(&self) -> Arc<dyn Log> {
        let (settings, app) = (self.settings.clone(), self.app.clone());
        match KafkaLog::open(settings, app, self.shards, Generation::FIRST).await {
            Ok(log) => {
                let log = Arc::new(log);
                let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
                others.push(Arc::clone(&log));
                log
            }
            // The promise that asked for it will be broken by the log that is there.
            Err(error) => {
                tracing::error!(%error, "the topic cannot be opened a second time");
                self.log()
            }
        }
    }

    fn compares(&self) -> bool {
        false
    }
}

impl KafkaLog {
    /// Makes a topic for `app`, a name that nobody has, looks at every promise on it, and deletes it.
    ///
    /// # Errors
    /// [`KafkaError`] if the topic cannot be made or is not safe; a broken promise is a line of the answer.
    pub async fn keeps_promises(
        settings: KafkaSettings,
        app: &AppName,
        replication: u16,
    ) -> Result<Vec<(&'static str, Kept)>, KafkaError> {
        let settings = KafkaSettings {
            topic: "{app}.log".to_owned(),
            ..settings
        };
        let count = u32::try_from(conformance::promises().len()).unwrap_or(u32::MAX);
        let shards = ShardCount::try_from(count).map_err(|error| KafkaError::Settings(error.to_string()))?;
        Self::create(&settings, app, shards, replication).await?;
        let kept = Self::try_all(&settings, app, shards).await;
        let deleted = topic::delete(&settings, &settings.topic_of(app)).await;
        let kept = kept?;
        deleted?;
        Ok(kept)
    }

    async fn try_all(
        settings: &KafkaSettings,
        app: &AppName,
        shards: ShardCount,
    ) -> Result<Vec<(&'static str, Kept)>, KafkaError> {
        let log = Self::open(settings.clone(), app.clone(), shards, Generation::FIRST).await?;
        let trial = Trial {
            settings: settings.clone(),
            app: app.clone(),
            shards,
            log: Arc::new(log),
            others: Mutex::default(),
        };
        let kept = conformance::run(&trial)
            .await
            .map_err(|error: LogError| error.into());
        let Trial { log, others, .. } = trial;
        let others = others.into_inner().unwrap_or_else(PoisonError::into_inner);
        for log in others.into_iter().chain([log]) {
            if let Some(log) = Arc::into_inner(log) {
                log.close().await;
            }
        }
        kept
    }
}
