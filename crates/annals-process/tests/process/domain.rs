//! Jobs, which take from accounts: two aggregates and a process between them, and one effect.

use std::time::Duration;

use annals_domain::{
    Actions, Aggregate, Catalog, Command, Context, Effect, EffectFuture, Event, Outcome, Owner, Process,
    ProcessContext, Rejection, ensure, text_key,
};
use annals_record::AppName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

text_key!(
    /// A job's name.
    pub struct JobKey(max = 64);
);
text_key!(
    /// An account's name.
    pub struct AccountKey(max = 64);
);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    pub account: String,
    pub takes: Vec<i64>,
    /// When it expires, ms after it began; 0: never.
    pub wait_ms: u64,
    /// Whom to ask; empty: nobody.
    pub ask: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Note {
    pub text: String,
}

#[derive(Clone, Debug, Command)]
pub enum JobCommand {
    /// It begins.
    Begin(Begin),
    /// All its takes are answered.
    Finish(Note),
    /// It took too long.
    Expire,
    /// It has longer, by what it had at first.
    Extend,
    /// What the one asked said.
    Answer(Note),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Began {
    account: String,
    takes: Vec<i64>,
    wait_ms: u64,
    ask: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Said {
    text: String,
}

#[derive(Clone, Debug, Event)]
#[event(category = "job")]
pub enum JobEvent {
    /// It began.
    Began(Began),
    /// It is over.
    Finished(Said),
    /// It took too long.
    Expired,
    /// It has longer.
    Extended,
    /// An answer came.
    Answered(Said),
}

#[derive(Clone, Debug, Rejection)]
pub enum JobRejection {
    AlreadyBegun,
    Over,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    begun: bool,
    over: bool,
}

impl Aggregate for Job {
    const CATEGORY: &'static str = "job";
    const RESOURCE: &'static str = "jobs";
    const REVISION: u32 = 1;
    type Key = JobKey;
    type Command = JobCommand;
    type Event = JobEvent;
    type Rejection = JobRejection;

    fn decide(&self, command: &JobCommand, _: &Context<'_, Self>) -> Result<Vec<JobEvent>, JobRejection> {
        if let JobCommand::Begin(_) = command {
            ensure(!self.begun, JobRejection::AlreadyBegun)?;
        } else {
            ensure(!self.over, JobRejection::Over)?;
        }
        Ok(vec![match command.clone() {
            JobCommand::Begin(Begin {
                account,
                takes,
                wait_ms,
                ask,
            }) => JobEvent::Began(Began {
                account,
                takes,
                wait_ms,
                ask,
            }),
            JobCommand::Finish(note) => JobEvent::Finished(Said { text: note.text }),
            JobCommand::Expire => JobEvent::Expired,
            JobCommand::Extend => JobEvent::Extended,
            JobCommand::Answer(note) => JobEvent::Answered(Said { text: note.text }),
        }])
    }

    fn owner(&self, _: &JobKey, _: &JobCommand) -> Option<Owner> {
        None
    }

    fn evolve(&mut self, event: &JobEvent) {
        match event {
            JobEvent::Began(_) => self.begun = true,
            JobEvent::Finished(_) | JobEvent::Expired => self.over = true,
            JobEvent::Extended | JobEvent::Answered(_) => {}
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Take {
    pub job: String,
    pub amount: i64,
}

#[derive(Clone, Debug, Command)]
pub enum AccountCommand {
    /// Takes; nothing happens for 0, and more than [`MOST`] is refused.
    Take(Take),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    amount: i64,
}

#[derive(Clone, Debug, Event)]
#[event(category = "account")]
pub enum AccountEvent {
    /// Something was taken.
    Taken(Taken),
}

#[derive(Clone, Debug, Rejection)]
pub enum AccountRejection {
    TooMuch,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    taken: i64,
}

pub const MOST: i64 = 99;

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    const RESOURCE: &'static str = "accounts";
    const REVISION: u32 = 1;
    type Key = AccountKey;
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn decide(
        &self,
        command: &AccountCommand,
        _: &Context<'_, Self>,
    ) -> Result<Vec<AccountEvent>, AccountRejection> {
        let AccountCommand::Take(take) = command;
        ensure(take.amount <= MOST, AccountRejection::TooMuch)?;
        Ok(if take.amount == 0 {
            vec![]
        } else {
            vec![AccountEvent::Taken(Taken { amount: take.amount })]
        })
    }

    fn owner(&self, _: &AccountKey, _: &AccountCommand) -> Option<Owner> {
        None
    }

    fn evolve(&mut self, event: &AccountEvent) {
        let AccountEvent::Taken(take) = event;
        self.taken += take.amount;
    }
}

#[derive(Debug, annals_domain::Input)]
pub enum Input {
    Job(Outcome<Job>),
    Account(Outcome<Account>),
    #[input(timer)]
    TimedOut(JobKey),
}

/// What a job's process has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Work {
    pub takes: usize,
    pub wait_ms: u64,
    /// The answers to its own takes, in the order in which it saw them: `5`, `0 changed nothing`, `100 refused`.
    pub answers: Vec<String>,
    /// What others did to its account in its name, with events.
    pub others: usize,
    /// What no process may see: others' refusals and commits without events.
    pub disturbed: usize,
    pub extended: usize,
    pub fired: usize,
    pub asked: Vec<String>,
    pub over: String,
}

impl Process for Work {
    const NAME: &'static str = "work";
    type Id = JobKey;
    type Input = Input;
    type Settings = ();

    fn instance(input: &Input) -> Option<JobKey> {
        match input {
            Input::Job(job) => Some(job.key.clone()),
            Input::Account(account) => {
                let AccountCommand::Take(take) = &account.command;
                annals_domain::AggregateKey::parse(&take.job).ok()
            }
            Input::TimedOut(job) => Some(job.clone()),
        }
    }

    fn react(&mut self, input: &Input, ctx: &ProcessContext<'_, Self>) -> Actions {
        match input {
            Input::Job(job) => self.on_job(job, ctx.id),
            Input::Account(account) => self.on_account(account, ctx.id),
            Input::TimedOut(_) => {
                self.fired += 1;
                Actions::none().send::<Job>(ctx.id, JobCommand::Expire)
            }
        }
    }

    fn step(&self) -> &'static str {
        if self.over.is_empty() { "working" } else { "over" }
    }
}

impl Work {
    fn on_job(&mut self, job: &Outcome<Job>, id: &JobKey) -> Actions {
        let mut actions = Actions::none();
        let Ok(events) = &job.result else {
            self.disturbed += usize::from(!job.own);
            return actions;
        };
        for event in events {
            match event {
                JobEvent::Began(begin) => {
                    let account: AccountKey = annals_domain::AggregateKey::parse(&begin.account).unwrap();
                    (self.takes, self.wait_ms) = (begin.takes.len(), begin.wait_ms);
                    for amount in &begin.takes {
                        let take = Take {
                            job: annals_domain::AggregateKey::to_key(id).to_string(),
                            amount: *amount,
                        };
                        actions = actions.send::<Account>(&account, AccountCommand::Take(take));
                    }
                    if begin.wait_ms > 0 {
                        actions = actions.wake(Input::TIMED_OUT, Duration::from_millis(begin.wait_ms));
                    }
                    if !begin.ask.is_empty() {
                        let job = annals_domain::AggregateKey::to_key(id).to_string();
                        actions = actions.perform::<Ask>(&Question {
                            job,
                            whom: begin.ask.clone(),
                        });
                    }
                }
                JobEvent::Extended => {
                    self.extended += 1;
                    if self.wait_ms > 0 {
                        actions = actions.wake(Input::TIMED_OUT, Duration::from_millis(self.wait_ms));
                    }
                }
                JobEvent::Answered(note) => self.asked.push(note.text.clone()),
                JobEvent::Finished(note) => {
                    note.text.clone_into(&mut self.over);
                    actions = actions.withdraw_timer(Input::TIMED_OUT).withdraw_effect::<Ask>();
                }
                JobEvent::Expired => {
                    "expired".clone_into(&mut self.over);
                    actions = actions.withdraw_effect::<Ask>();
                }
            }
        }
        actions
    }

    fn on_account(&mut self, account: &Outcome<Account>, id: &JobKey) -> Actions {
        let AccountCommand::Take(take) = &account.command;
        if !account.own {
            match &account.result {
                Ok(events) if !events.is_empty() => self.others += 1,
                _ => self.disturbed += 1,
            }
            return Actions::none();
        }
        self.answers.push(told(take.amount));
        let said = match &account.result {
            Ok(events) if events.is_empty() => format!("{} changed nothing", take.amount),
            Ok(_) => take.amount.to_string(),
            Err(_) => format!("{} refused", take.amount),
        };
        assert_eq!(said, told(take.amount));
        if self.answers.len() < self.takes {
            return Actions::none();
        }
        let text = self.answers.join(", ");
        Actions::none().send::<Job>(id, JobCommand::Finish(Note { text }))
    }
}

/// What the process is to see of a take.
pub fn told(amount: i64) -> String {
    match amount {
        0 => "0 changed nothing".to_owned(),
        amount if amount > MOST => format!("{amount} refused"),
        amount => amount.to_string(),
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    pub job: String,
    pub whom: String,
}

type Asking = dyn Fn(&Question, &str) -> EffectFuture<'static> + Send + Sync;

/// Asks whom a test has put there.
pub struct Ask(pub std::sync::Arc<Asking>);

impl Effect for Ask {
    const NAME: &'static str = "ask";
    type Payload = Question;

    fn target(&self, question: &Question) -> String {
        question.whom.clone()
    }

    fn perform<'a>(&'a self, question: &'a Question, key: &'a str) -> EffectFuture<'a> {
        (self.0)(question, key)
    }
}

pub fn catalog() -> Catalog {
    let app = AppName::try_from("test").unwrap();
    Catalog::builder(app)
        .aggregate::<Job>()
        .aggregate::<Account>()
        .build()
        .unwrap()
}
