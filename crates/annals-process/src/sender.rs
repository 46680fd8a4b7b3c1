//! Sending what the outbox lets go: commands over their way, effects over theirs, each with a bound on how many.
//!
//! What comes of a command is read from the log. Only an answer that is no record matters here: it parks the row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use annals_domain::{Ambient, Backoff, EffectError, SendCommand};
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use crate::effects::Effects;
use crate::outbox::{self, CommandRow, EffectRow};
use crate::react::causation;
use crate::{CommandSender, Outgoing, ProcessSettings, Sent, metrics};

/// How often a command that "nothing happened" to is sent again before it is left to its deadline.
const QUICK_TRIES: u32 = 8;
/// Before the second attempt.
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// The result of an effect, for the runner to keep.
pub(crate) struct Performed {
    pub(crate) row: EffectRow,
    pub(crate) result: Result<Option<SendCommand>, EffectError>,
}

/// A row of the outbox: instance and number.
type RowId = (String, i64);

/// Sends commands and performs effects of one process.
pub(crate) struct Sender {
    way: Arc<Way>,
    effects: Effects,
    sends: Arc<Semaphore>,
    performs: Arc<Semaphore>,
    /// Commands that a task of this runner still cares for: they are not late, whatever their rows say.
    sending: BTreeSet<RowId>,
    /// Effects that were asked for and are not kept yet, each by name and task.
    performing: BTreeMap<RowId, (String, AbortHandle)>,
    results: mpsc::UnboundedSender<Performed>,
    tasks: JoinSet<Option<RowId>>,
}

/// What the task of a command needs.
struct Way {
    process: &'static str,
    sender: Arc<dyn CommandSender>,
    pool: PgPool,
    ambient: Ambient,
    settings: ProcessSettings,
}

impl Sender {
    /// Results of effects come out of the receiver; at most as many as effects are under way.
    pub(crate) fn new(
        process: &'static str,
        sender: Arc<dyn CommandSender>,
        effects: Effects,
        pool: PgPool,
        ambient: Ambient,
        settings: ProcessSettings,
    ) -> (Self, mpsc::UnboundedReceiver<Performed>) {
        let (results, performed) = mpsc::unbounded_channel();
        let sends = Arc::new(Semaphore::new(settings.sends));
        let performs = Arc::new(Semaphore::new(settings.performs));
        let way = Arc::new(Way {
            process,
            sender,
            pool,
            ambient,
            settings,
        });
        let sender = Self {
            way,
            effects,
            sends,
            performs,
            sending: BTreeSet::new(),
            performing: BTreeMap::new(),
            results,
            tasks: JoinSet::new(),
        };
        (sender, performed)
    }

    pub(crate) fn backoff(settings: &ProcessSettings) -> Backoff {
        let max = Duration::from_secs(settings.retry_max_s.into());
        Backoff {
            first: FIRST_RETRY.min(max),
            max,
        }
    }

    /// Takes note of the tasks that have ended.
    ///
    /// # Panics
    /// With the panic of a task: it would otherwise go unseen, and its row never be sent again.
    pub(crate) fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            match ended {
                Ok(Some(row)) => {
                    self.sending.remove(&row);
                }
                Ok(None) => {}
                Err(error) => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    }

    /// Whether a task still cares for a command.
    pub(crate) fn is_sending(&self, row: &CommandRow) -> bool {
        self.sending.contains(&(row.instance.clone(), row.seq))
    }

    /// Sends commands, each in a task of its own.
    pub(crate) fn send(&mut self, rows: Vec<CommandRow>) {
        self.reap();
        for row in rows {
            let id = (row.instance.clone(), row.seq);
            if !self.sending.insert(id.clone()) {
                continue;
            }
            let (way, sends) = (Arc::clone(&self.way), Arc::clone(&self.sends));
            self.tasks.spawn(async move {
                way.send(row, &sends).await;
                Some(id)
            });
        }
    }

    /// Performs effects, each in a task of its own; those under way are left alone.
    pub(crate) fn perform(&mut self, rows: Vec<EffectRow>) {
        self.reap();
        for row in rows {
            let id = (row.instance.clone(), row.seq);
            if self.performing.contains_key(&id) {
                continue;
            }
            let (effects, performs) = (self.effects.clone(), Arc::clone(&self.performs));
            let (results, name) = (self.results.clone(), row.effect.clone());
            let task = self.tasks.spawn(async move {
                let _permit = performs.acquire().await.ok()?;
                let result = effects.perform(&row.effect, &row.payload, &row.key).await;
                // The runner may have ended: whoever runs next asks again, by the same key.
                results.send(Performed { row, result }).ok();
                None
            });
            self.performing.insert(id, (name, task));
        }
    }

    /// The runner has kept what came of an effect.
    pub(crate) fn kept(&mut self, row: &EffectRow) {
        self.performing.remove(&(row.instance.clone(), row.seq));
    }

    /// The rows of effects that are under way, by column.
    pub(crate) fn performing(&self) -> (Vec<&str>, Vec<i64>) {
        let ids = self.performing.keys();
        ids.map(|(instance, seq)| (instance.as_str(), *seq)).unzip()
    }

    /// Stops asking for effects of an instance below a number: they were withdrawn, their answers would not count.
    pub(crate) fn withdraw(&mut self, instance: &str, effect: &str, below: i64) {
        self.performing.retain(|(of, seq), (name, task)| {
            let withdrawn = of == instance && *seq < below && name == effect;
            if withdrawn {
                task.abort();
            }
            !withdrawn
        });
    }
}

impl Way {
    async fn send(&self, row: CommandRow, sends: &Semaphore) {
        let backoff = Sender::backoff(&self.settings);
        for attempt in 1..=QUICK_TRIES {
            let sent = {
                // Held only while asking: what waits for a shard that is away keeps nothing from the others.
                let Ok(_permit) = sends.acquire().await else {
                    return;
                };
                metrics::sent(self.process);
                self.sender.send(self.outgoing(&row)).await
            };
            match sent {
                Sent::OnRecord => return,
                Sent::Unknown => {
                    let deadline = self.settings.send_deadline();
                    if let Err(error) = outbox::put_off(&self.pool, self.process, &row, deadline).await {
                        tracing::warn!(process = self.process, %error, "a deadline could not be noted");
                    }
                    return;
                }
                Sent::Later { after } => {
                    let [jitter] = self.ambient.random();
                    let pause = after
                        .unwrap_or(Duration::ZERO)
                        .max(backoff.after(attempt, jitter));
                    tokio::time::sleep(pause.min(backoff.max)).await;
                }
                Sent::Never { why } => return self.park(&row, &why).await,
            }
        }
    }

    fn outgoing(&self, row: &CommandRow) -> Outgoing {
        let key = row.stream.split_once('-').map_or("", |(_, key)| key);
        Outgoing {
            process: self.process.to_owned(),
            resource: row.resource.clone(),
            key: key.to_owned(),
            command: row.command.clone(),
            data: row.payload.clone(),
            idempotency_key: row.key.clone(),
            causation: causation(&row.key).map(str::to_owned),
            deadline: self.settings.deadline,
        }
    }

    async fn park(&self, row: &CommandRow, why: &str) {
        let process = self.process;
        metrics::parked(process);
        tracing::error!(process, instance = %row.instance, command = %row.command, why, "a process's command is no record: parked");
        if let Err(error) = outbox::park(&self.pool, process, &row.instance, row.seq, why).await {
            tracing::warn!(process, %error, "could not be parked; it will be found again after its deadline");
        }
    }
}
