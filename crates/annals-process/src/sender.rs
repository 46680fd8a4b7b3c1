//! Sending what the outbox lets go: commands over their way, effects over theirs, each with a bound on how many.
//!
//! What comes of a command is read from the log. Only an answer that is no record matters here: it parks the row.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use annals_domain::{Ambient, Backoff, EffectError, SendCommand};
use annals_record::RecordId;
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::effects::Effects;
use crate::outbox::{self, CommandRow, EffectRow};
use crate::{CommandSender, Outgoing, ProcessSettings, Sent, metrics};

/// How often a command that "nothing happened" to is sent again before it is left to its deadline.
const QUICK_TRIES: u32 = 8;

/// The result of an effect, for the runner to keep.
pub(crate) struct Performed {
    pub(crate) row: EffectRow,
    pub(crate) result: Result<Option<SendCommand>, EffectError>,
}

/// Sends commands and performs effects of one process.
pub(crate) struct Sender {
    process: &'static str,
    way: Arc<dyn CommandSender>,
    effects: Effects,
    pool: PgPool,
    ambient: Ambient,
    settings: ProcessSettings,
    sends: Arc<Semaphore>,
    performs: Arc<Semaphore>,
    under_way: BTreeSet<(String, i64)>,
    results: mpsc::UnboundedSender<Performed>,
    tasks: JoinSet<()>,
}

impl Sender {
    /// Results of effects come out of the receiver; at most as many as effects are under way.
    pub(crate) fn new(
        process: &'static str,
        way: Arc<dyn CommandSender>,
        effects: Effects,
        pool: PgPool,
        ambient: Ambient,
        settings: ProcessSettings,
    ) -> (Self, mpsc::UnboundedReceiver<Performed>) {
        let (results, performed) = mpsc::unbounded_channel();
        let sends = Arc::new(Semaphore::new(settings.sends));
        let performs = Arc::new(Semaphore::new(settings.performs));
        let (under_way, tasks) = (BTreeSet::new(), JoinSet::new());
        let sender = Self {
            process,
            way,
            effects,
            pool,
            ambient,
            settings,
            sends,
            performs,
            under_way,
            results,
            tasks,
        };
        (sender, performed)
    }

    pub(crate) fn backoff(settings: &ProcessSettings) -> Backoff {
        let max = Duration::from_secs(settings.retry_max_s.into());
        Backoff {
            first: Duration::from_millis(200),
            max,
        }
    }

    /// Sends commands, each in a task of its own.
    pub(crate) fn send(&mut self, rows: Vec<CommandRow>) {
        while self.tasks.try_join_next().is_some() {}
        for row in rows {
            let (way, sends, pool) = (Arc::clone(&self.way), Arc::clone(&self.sends), self.pool.clone());
            let (process, ambient, settings) = (self.process, self.ambient.clone(), self.settings.clone());
            self.tasks.spawn(async move {
                let Ok(_permit) = sends.acquire().await else {
                    return;
                };
                send(process, &*way, &pool, &ambient, &settings, row).await;
            });
        }
    }

    /// Performs effects, each in a task of its own; those under way are left alone.
    pub(crate) fn perform(&mut self, rows: Vec<EffectRow>) {
        for row in rows {
            if !self.under_way.insert((row.instance.clone(), row.seq)) {
                continue;
            }
            let (effects, performs) = (self.effects.clone(), Arc::clone(&self.performs));
            let results = self.results.clone();
            self.tasks.spawn(async move {
                let Ok(_permit) = performs.acquire().await else {
                    return;
                };
                let result = effects.perform(&row.effect, &row.payload, &row.key).await;
                // The runner may have ended: whoever runs next asks again, by the same key.
                results.send(Performed { row, result }).ok();
            });
        }
    }

    /// The runner has kept what came of an effect.
    pub(crate) fn kept(&mut self, row: &EffectRow) {
        self.under_way.remove(&(row.instance.clone(), row.seq));
    }
}

/// The record that a command follows from, which its key names; a timer's key names none.
fn cause(key: &str) -> Option<String> {
    key.split(':')
        .nth(1)
        .filter(|id| id.parse::<RecordId>().is_ok())
        .map(str::to_owned)
}

async fn send(
    process: &'static str,
    way: &dyn CommandSender,
    pool: &PgPool,
    ambient: &Ambient,
    settings: &ProcessSettings,
    row: CommandRow,
) {
    let backoff = Sender::backoff(settings);
    for attempt in 1..=QUICK_TRIES {
        let outgoing = Outgoing {
            process: process.to_owned(),
            resource: row.resource.clone(),
            key: row
                .stream
                .split_once('-')
                .map_or(String::new(), |(_, key)| key.to_owned()),
            command: row.command.clone(),
            data: row.payload.clone(),
            idempotency_key: row.key.clone(),
            causation: cause(&row.key),
            deadline: settings.deadline,
        };
        metrics::sent(process);
        match way.send(outgoing).await {
            Sent::OnRecord | Sent::Unknown => return,
            Sent::Later { after } => {
                let [jitter] = ambient.random();
                let pause = after
                    .unwrap_or(Duration::ZERO)
                    .max(backoff.after(attempt, jitter));
                tokio::time::sleep(pause.min(backoff.max)).await;
            }
            Sent::Never { why } => {
                metrics::parked(process);
                tracing::error!(process, instance = %row.instance, command = %row.command, %why, "a process's command is no record: parked");
                if let Err(error) = outbox::park(pool, process, &row.instance, row.seq, &why).await {
                    tracing::warn!(process, %error, "could not be parked; it will be found again after its deadline");
                }
                return;
            }
        }
    }
}
