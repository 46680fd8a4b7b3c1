//! Given a process, when an input, then actions.

use annals_record::{Category, StreamId, Version};
use chrono::{DateTime, Utc};

use super::{through_snapshot, time};
use crate::catalog::to_raw;
use crate::{
    Action, Actions, Aggregate, AggregateKey, Command, Event, Outcome, Process, ProcessContext, ProcessId,
    RecordView, Refusal, Rejection,
};

/// A process of which no instance has begun.
#[must_use = "say what happens: `.when(input)`"]
pub fn given_process<P: Process>(settings: P::Settings) -> GivenProcess<P> {
    GivenProcess {
        settings,
        state: P::default(),
        id: None,
        time: time(),
    }
}

/// One instance of a process, and the moment of its next input.
pub struct GivenProcess<P: Process> {
    settings: P::Settings,
    state: P,
    id: Option<P::Id>,
    time: DateTime<Utc>,
}

impl<P: Process> GivenProcess<P> {
    /// From this time on, not at [`time()`](super::time).
    #[must_use]
    pub fn at(mut self, time: DateTime<Utc>) -> Self {
        self.time = time;
        self
    }

    /// And these inputs have come already; what was done about them is of no interest here.
    ///
    /// # Panics
    /// As [`Self::when`].
    #[must_use]
    pub fn after(self, inputs: impl IntoIterator<Item = P::Input>) -> Self {
        inputs
            .into_iter()
            .fold(self, |given, input| given.when(input).given)
    }

    /// The instance's state.
    pub fn state(&self) -> &P {
        &self.state
    }

    /// An input comes.
    ///
    /// # Panics
    /// If it concerns no instance or another one than the inputs before, or the state does not survive its JSON
    /// form.
    pub fn when(mut self, input: P::Input) -> Reacted<P> {
        let Some(id) = P::instance(&input) else {
            panic!("this input concerns no instance of {}: {input:?}", P::NAME)
        };
        let text = id.to_text();
        assert!(
            P::Id::from_text(&text).is_some_and(|read| read.to_text() == text),
            "the id {text} changes when it is written and read back"
        );
        if let Some(before) = &self.id {
            let before = before.to_text();
            assert!(
                before == text,
                "this input is for instance {text}, the ones before were for {before}"
            );
        }
        let context = ProcessContext {
            id: &id,
            time: self.time,
            settings: &self.settings,
        };
        let actions = self.state.react(&input, &context);
        self.state = through_snapshot(&self.state);
        self.id = Some(id);
        Reacted { given: self, actions }
    }
}

/// What the process wants done. Say what it should have been.
#[must_use = "say what should have come of it: `.then(…)`, `.then_actions(…)`, `.then_nothing()`"]
pub struct Reacted<P: Process> {
    given: GivenProcess<P>,
    actions: Actions,
}

impl<P: Process> Reacted<P> {
    /// Exactly these actions, in this order.
    ///
    /// # Panics
    /// If it is not so.
    pub fn then(self, expected: Actions) -> GivenProcess<P> {
        let actions = &self.actions;
        assert!(
            *actions == expected,
            "{} does something else\n  expected {expected:#?}\n  but got {actions:#?}",
            P::NAME
        );
        self.given
    }

    /// Nothing.
    ///
    /// # Panics
    /// If it is not so.
    pub fn then_nothing(self) -> GivenProcess<P> {
        self.then(Actions::none())
    }

    /// Whatever `check` asserts of the actions.
    pub fn then_actions(self, check: impl FnOnce(&[Action])) -> GivenProcess<P> {
        check(self.actions.as_slice());
        self.given
    }

    /// This step ([`Process::step`]), besides what else is asked.
    ///
    /// # Panics
    /// If it is not so.
    pub fn and_step(self, step: &str) -> Self {
        assert!(
            self.given.state.step() == step,
            "{} is at step `{}`, expected `{step}`",
            P::NAME,
            self.given.state.step()
        );
        self
    }
}

/// A commit of somebody's command to one instance of `A`, as processes read it.
///
/// # Panics
/// If command or events do not survive their JSON form.
pub fn committed<A: Aggregate>(
    key: A::Key,
    command: A::Command,
    events: impl IntoIterator<Item = A::Event>,
) -> Outcome<A> {
    let events: Vec<_> = events.into_iter().collect();
    let data: Vec<_> = events
        .iter()
        .map(|event| to_raw(|s| event.write(s)).unwrap_or_else(|e| panic!("{}: {e}", event.event_type())))
        .collect();
    let views = events.iter().zip(&data);
    let views = views.map(|(event, data)| (event.event_type(), event.schema(), &**data));
    outcome(&key, &command, Ok(views.collect()), false)
}

/// A refusal of the process's own command (it reads no others) to one instance of `A`.
///
/// # Panics
/// If the command does not survive its JSON form, or the rejection cannot be written.
pub fn refused<A: Aggregate>(key: A::Key, command: A::Command, rejection: A::Rejection) -> Outcome<A> {
    let code = rejection.code().to_owned();
    let detail = to_raw(|s| rejection.write_detail(s)).unwrap_or_else(|error| panic!("{code}: {error}"));
    outcome(&key, &command, Err(Refusal { code, detail }), true)
}

/// The same outcome as the answer to a command that the process itself sent.
pub fn own<A: Aggregate>(mut outcome: Outcome<A>) -> Outcome<A> {
    outcome.own = true;
    outcome
}

fn outcome<A: Aggregate>(
    key: &A::Key,
    command: &A::Command,
    result: Result<Vec<(&str, u32, &serde_json::value::RawValue)>, Refusal>,
    own: bool,
) -> Outcome<A> {
    let category = Category::try_from(A::CATEGORY).expect("a category of the grammar of categories");
    let name = command.name();
    let data = to_raw(|s| command.write(s)).unwrap_or_else(|error| panic!("command {name}: {error}"));
    let record = RecordView {
        stream: &StreamId::new(&category, &key.to_key()),
        command: name,
        data: &data,
        version: Version::new(1),
        result,
        own,
    };
    Outcome::read(&record).unwrap_or_else(|error| panic!("a record of {name} does not read: {error}"))
}
