//! The effects of a node: by name, each target with its circuit breaker, behind an allow-list.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_domain::{EffectError, Retry, SendCommand};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::erased::AnyEffect;
use crate::metrics;

/// Limits of effects.
#[derive(Debug, Clone)]
pub struct EffectSettings {
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Failures in a row that open a target's breaker.
    pub breaker_failures: u32,
    /// How long it stays open before one attempt is let through.
    pub breaker_open: Duration,
    /// Targets that may be asked; `None`: those that effects name themselves.
    pub allowed: Option<Vec<String>>,
}

impl Default for EffectSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            breaker_failures: 10,
            breaker_open: Duration::from_secs(5),
            allowed: None,
        }
    }
}

/// Effects by name. Cheap to clone.
#[derive(Clone)]
pub struct Effects {
    by_name: Arc<BTreeMap<&'static str, AnyEffect>>,
    breakers: Arc<Mutex<HashMap<String, Breaker>>>,
    settings: EffectSettings,
}

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Effects {
    /// These effects.
    pub fn new(effects: impl IntoIterator<Item = AnyEffect>, settings: EffectSettings) -> Self {
        let by_name = effects
            .into_iter()
            .map(|effect| (effect.name(), effect))
            .collect();
        Self {
            by_name: Arc::new(by_name),
            breakers: Arc::default(),
            settings,
        }
    }

    /// Asks once, unless the target's breaker is open or the target is not allowed.
    pub(crate) async fn perform(
        &self,
        name: &str,
        payload: &RawValue,
        key: &str,
    ) -> Result<Option<SendCommand>, EffectError> {
        let never = |message: String| EffectError {
            retry: Retry::Never,
            message,
        };
        let effect = self
            .by_name
            .get(name)
            .ok_or_else(|| never(format!("no effect `{name}` is registered")))?;
        let target = effect.target(payload).map_err(|error| never(error.to_string()))?;
        if self
            .settings
            .allowed
            .as_ref()
            .is_some_and(|allowed| !allowed.contains(&target))
        {
            return Err(never(format!(
                "the target `{target}` is not allowed: add it to process.effect_targets"
            )));
        }
        if self.is_open(&target) {
            let message = format!("`{target}` failed too often; its circuit breaker is open");
            return Err(EffectError {
                retry: Retry::Later,
                message,
            });
        }
        let attempt = tokio::time::timeout(self.settings.timeout, effect.perform(payload, key)).await;
        let result = attempt.unwrap_or_else(|_| {
            let message = format!("`{target}` did not answer within {:?}", self.settings.timeout);
            Err(EffectError {
                retry: Retry::Unknown,
                message,
            })
        });
        // An answer that is a plain no comes from a target that is well.
        let well = !result.as_ref().is_err_and(|error| error.retry != Retry::Never);
        self.note(&target, well);
        result
    }

    fn is_open(&self, target: &str) -> bool {
        let mut breakers = self.breakers.lock().expect("nobody panics while holding it");
        let Some(breaker) = breakers.get_mut(target) else {
            return false;
        };
        match breaker.open_until {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                // Half open: this one is let through, the others wait for what becomes of it.
                breaker.open_until = Some(Instant::now() + self.settings.breaker_open);
                false
            }
            None => false,
        }
    }

    fn note(&self, target: &str, ok: bool) {
        let mut breakers = self.breakers.lock().expect("nobody panics while holding it");
        let breaker = breakers.entry(target.to_owned()).or_default();
        if ok {
            *breaker = Breaker::default();
            return;
        }
        breaker.failures = breaker.failures.saturating_add(1);
        if breaker.failures == self.settings.breaker_failures {
            metrics::breaker_opened();
            tracing::warn!(
                target_host = target,
                "an effect's target failed too often: its circuit breaker opens"
            );
        }
        if breaker.failures >= self.settings.breaker_failures {
            breaker.open_until = Some(Instant::now() + self.settings.breaker_open);
        }
    }
}
