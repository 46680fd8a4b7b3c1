//! Given events, when a command, then events or a rejection: each step offers only the next.

use annals_record::Version;
use chrono::{DateTime, Utc};

use super::{default_key, through_command, through_record, through_snapshot, time};
use crate::{Aggregate, Context};

/// An instance of `A` to which `events` have happened.
///
/// # Panics
/// If an event or the state does not survive its JSON form.
#[must_use = "say what happens: `.when(command)`"]
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let empty = Given {
        state: A::default(),
        version: Version::new(0),
        key: default_key::<A>(),
        time: time(),
    };
    empty.and(events)
}

/// An instance and the moment at which it will be asked.
pub struct Given<A: Aggregate> {
    state: A,
    version: Version,
    key: Option<A::Key>,
    time: DateTime<Utc>,
}

impl<A: Aggregate> Given<A> {
    /// At this time, not at [`time()`](super::time).
    #[must_use]
    pub fn at(mut self, time: DateTime<Utc>) -> Self {
        self.time = time;
        self
    }

    /// With this key; a fixed one otherwise.
    #[must_use]
    pub fn key(mut self, key: A::Key) -> Self {
        self.key = Some(key);
        self
    }

    /// The state, for tests of `evolve` alone.
    pub fn state(&self) -> &A {
        &self.state
    }

    /// Asks.
    ///
    /// # Panics
    /// If the command does not survive its JSON form, or no key is known ([`Self::key`]).
    pub fn when(self, command: A::Command) -> When<A> {
        let Some(key) = &self.key else {
            panic!("no key of this type can be made up: give one, `.key(…)`")
        };
        let command = through_command(&command);
        let result = self
            .state
            .decide(&command, &Context::new(key, self.time, self.version));
        When { given: self, result }
    }

    fn and(mut self, events: impl IntoIterator<Item = A::Event>) -> Self {
        for event in events {
            self.state.evolve(&through_record(&event));
            self.version = self.version.next();
        }
        self.state = through_snapshot(&self.state);
        self
    }
}

/// What was answered. Say what it should have been.
#[must_use = "say what should have come of it: `.then(…)`, `.then_rejected(…)`, `.then_nothing()`"]
pub struct When<A: Aggregate> {
    given: Given<A>,
    result: Result<Vec<A::Event>, A::Rejection>,
}

impl<A: Aggregate> When<A> {
    /// Exactly these events, in this order. The instance can be asked again afterwards.
    ///
    /// # Panics
    /// If it is not so.
    pub fn then(self, events: impl IntoIterator<Item = A::Event>) -> Given<A>
    where
        A::Event: PartialEq,
    {
        let expected: Vec<_> = events.into_iter().collect();
        match &self.result {
            Ok(events) => assert!(
                *events == expected,
                "other events follow\n  expected {expected:#?}\n  but got {events:#?}"
            ),
            Err(rejection) => panic!("the rules refuse with {rejection:?}\n  expected {expected:#?}"),
        }
        self.given.and(expected)
    }

    /// This rejection. The instance is unchanged and can be asked again.
    ///
    /// # Panics
    /// If it is not so.
    pub fn then_rejected(self, rejection: A::Rejection) -> Given<A>
    where
        A::Rejection: PartialEq,
    {
        match &self.result {
            Err(refused) => assert!(
                *refused == rejection,
                "the rules refuse with another rejection\n  expected {rejection:?}\n  but got  {refused:?}"
            ),
            Ok(events) => panic!("the rules allow it\n  expected {rejection:?}\n  but got {events:#?}"),
        }
        self.given
    }

    /// No event: the answer that nothing changes.
    ///
    /// # Panics
    /// If it is not so.
    pub fn then_nothing(self) -> Given<A> {
        match &self.result {
            Ok(events) => assert!(events.is_empty(), "something changes: {events:#?}"),
            Err(rejection) => panic!("the rules refuse with {rejection:?}, expected that nothing changes"),
        }
        self.given
    }

    /// The answer itself, for what the other steps cannot say.
    ///
    /// # Errors
    /// The rejection.
    pub fn answer(self) -> Result<Vec<A::Event>, A::Rejection> {
        self.result
    }
}
