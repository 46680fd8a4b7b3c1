//! A process and an effect behind vtables: states and payloads travel as JSON, inputs as boxes.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use annals_domain::{
    Actions, Effect, EffectError, EffectFuture, Input, Process, ProcessContext, ProcessId, ReadError,
    RecordView, Retry,
};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

/// A process with its types erased.
pub type AnyProcess = Arc<dyn ErasedProcess>;
/// An effect with its payload's type erased.
pub type AnyEffect = Arc<dyn ErasedEffect>;
/// One input of some process.
pub type AnyInput = Box<dyn Any + Send>;

/// What came of one input.
#[derive(Debug)]
pub struct Reaction {
    /// The instance's state, as JSON.
    pub state: Vec<u8>,
    /// Where it stands.
    pub step: &'static str,
    /// What it wants done.
    pub actions: Actions,
}

/// Why an instance could not react.
#[derive(Debug, thiserror::Error)]
pub enum ReactError {
    /// Its state does not read or write.
    #[error("the state of the instance: {0}")]
    State(#[from] serde_json::Error),
    /// Its id does not read.
    #[error("`{0}` is no id of an instance")]
    Id(String),
}

/// A process manager by name.
pub trait ErasedProcess: Send + Sync {
    /// [`Process::NAME`].
    fn name(&self) -> &'static str;
    /// The categories that it reads.
    fn categories(&self) -> &'static [&'static str];
    /// The instance that a record concerns, and the input; `None` if it concerns none.
    ///
    /// # Errors
    /// [`ReadError`].
    fn of_record(&self, record: &RecordView<'_>) -> Result<Option<(String, AnyInput)>, ReadError>;
    /// The input of a timer.
    fn of_timer(&self, timer: &str, instance: &str) -> Option<AnyInput>;
    /// Reacts; `state` is `None` for an instance that begins.
    ///
    /// # Errors
    /// [`ReactError`].
    fn react(
        &self,
        instance: &str,
        state: Option<&[u8]>,
        input: &AnyInput,
        time: DateTime<Utc>,
    ) -> Result<Reaction, ReactError>;
}

/// An effect by name.
pub trait ErasedEffect: Send + Sync {
    /// [`Effect::NAME`].
    fn name(&self) -> &'static str;
    /// Where a payload goes to.
    ///
    /// # Errors
    /// A payload that does not read.
    fn target(&self, payload: &RawValue) -> Result<String, serde_json::Error>;
    /// Asks once.
    fn perform<'a>(&'a self, payload: &'a RawValue, idempotency_key: &'a str) -> EffectFuture<'a>;
}

fn boxed(input: impl Any + Send) -> AnyInput {
    Box::new(input)
}

struct Typed<P: Process> {
    settings: P::Settings,
    process: PhantomData<fn() -> P>,
}

/// Erases a process.
pub fn process<P: Process>(settings: P::Settings) -> AnyProcess {
    Arc::new(Typed::<P> {
        settings,
        process: PhantomData,
    })
}

impl<P: Process> ErasedProcess for Typed<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn categories(&self) -> &'static [&'static str] {
        P::Input::CATEGORIES
    }

    fn of_record(&self, record: &RecordView<'_>) -> Result<Option<(String, AnyInput)>, ReadError> {
        let Some(input) = P::Input::from_record(record)? else {
            return Ok(None);
        };
        Ok(P::instance(&input).map(|id| (id.to_text(), boxed(input))))
    }

    fn of_timer(&self, timer: &str, instance: &str) -> Option<AnyInput> {
        P::Input::from_timer(timer, instance).map(boxed)
    }

    fn react(
        &self,
        instance: &str,
        state: Option<&[u8]>,
        input: &AnyInput,
        time: DateTime<Utc>,
    ) -> Result<Reaction, ReactError> {
        let id = P::Id::from_text(instance).ok_or_else(|| ReactError::Id(instance.to_owned()))?;
        let mut process: P = state.map(serde_json::from_slice).transpose()?.unwrap_or_default();
        let input = input
            .downcast_ref::<P::Input>()
            .expect("an input meets only its own process");
        let actions = process.react(
            input,
            &ProcessContext {
                id: &id,
                time,
                settings: &self.settings,
            },
        );
        Ok(Reaction {
            state: serde_json::to_vec(&process)?,
            step: process.step(),
            actions,
        })
    }
}

struct TypedEffect<E>(E);

/// Erases an effect.
pub fn effect<E: Effect>(effect: E) -> AnyEffect {
    Arc::new(TypedEffect(effect))
}

impl<E: Effect> ErasedEffect for TypedEffect<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn target(&self, payload: &RawValue) -> Result<String, serde_json::Error> {
        Ok(self.0.target(&serde_json::from_str(payload.get())?))
    }

    fn perform<'a>(&'a self, payload: &'a RawValue, idempotency_key: &'a str) -> EffectFuture<'a> {
        Box::pin(async move {
            let payload: E::Payload = serde_json::from_str(payload.get()).map_err(|error| EffectError {
                retry: Retry::Never,
                message: format!("the payload does not read: {error}"),
            })?;
            self.0.perform(&payload, idempotency_key).await
        })
    }
}
