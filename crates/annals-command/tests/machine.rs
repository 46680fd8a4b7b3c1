//! The engine without its shell: one input at a time, each answer given by hand.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, missing_docs, unreachable_pub)]

#[path = "engine/support.rs"]
mod support;

use std::sync::Arc;

use annals_command::engine::{Claimant, Effect, Engine, Input, Lease};
use annals_command::{Answer, EngineSettings, SendError};
use annals_domain::Ambient;
use annals_log::writer::{self, Output};
use annals_log::{Log, MemoryLog, MemoryStore, Plays, StreamStore};
use annals_record::{Generation, Offset, Shard, ShardCount, StreamId};
use futures_util::FutureExt;
use support::{Ask, add};

const SHARD: Shard = Shard::new(0);
const NOW_MS: i64 = 1_790_000_000_000;

struct Machine {
    engine: Engine,
    log: Arc<MemoryLog>,
    store: Arc<MemoryStore>,
    replies: Vec<Result<Answer, SendError>>,
    dropped: Vec<String>,
    /// Streams that were asked for.
    loaded: usize,
    /// Whether fetches are kept open, and the one that is.
    keeps_fetch: bool,
    fetch: Option<Input>,
}

fn parts() -> (Arc<MemoryLog>, Arc<MemoryStore>) {
    let one = ShardCount::try_from(1u32).unwrap();
    let log = MemoryLog::new(support::catalog().app().clone(), one, Plays::Kafka);
    let log = Arc::new(log);
    let store = Arc::new(MemoryStore::new(Arc::clone(&log)));
    (log, store)
}

impl Machine {
    fn new(name: &str, log: &Arc<MemoryLog>, store: &Arc<MemoryStore>, settings: EngineSettings) -> Self {
        let (ambient, _) = Ambient::fixed(NOW_MS, u64::from(name.as_bytes()[0]));
        let claimant = Claimant {
            node: name.to_owned(),
            url: format!("http://{name}"),
            generation: Generation::default(),
            shards: ShardCount::try_from(1u32).unwrap(),
        };
        Self {
            engine: Engine::new(support::catalog(), settings, ambient, &claimant, [SHARD]),
            log: Arc::clone(log),
            store: Arc::clone(store),
            replies: Vec::new(),
            dropped: Vec::new(),
            loaded: 0,
            keeps_fetch: false,
            fetch: None,
        }
    }

    fn own(&mut self) {
        self.run(Input::Lease(SHARD, Lease::Ours));
        assert!(self.engine.is_owner(SHARD));
    }

    fn send(&mut self, ask: Ask) -> Result<Answer, SendError> {
        let request = Box::new(ask.request(&support::catalog()));
        self.run(Input::Command {
            token: 1,
            request,
            deadline_ms: NOW_MS + 1_000,
        });
        self.replies.pop().expect("everything is answered at once")
    }

    /// Steps, and gives every answer that the engine waits for.
    fn run(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            self.engine.step(NOW_MS, input);
            for effect in self.engine.flush(NOW_MS) {
                inputs.extend(self.carry_out(effect));
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Reply(_, result) => self.replies.push(result),
            Effect::Log { output, .. } => return self.to_log(output),
            Effect::Journal(shard) => {
                let at = now(self.store.checkpoint(shard)).unwrap();
                return Some(Input::Journal(shard, at));
            }
            Effect::Load { load, requests } => {
                self.loaded += requests.len();
                return Some(Input::Loaded(load, now(self.store.load(&requests))));
            }
            Effect::Fetch { fetch, shard, offset } => {
                let result = now(self.store.record_at(shard, offset));
                let fetched = Some(Input::Fetched { fetch, shard, result });
                if self.keeps_fetch {
                    self.fetch = fetched;
                    return None;
                }
                return fetched;
            }
            Effect::Snapshot(snapshot) => now(self.store.save_snapshots(vec![snapshot])).unwrap(),
            Effect::DropSnapshots(category) => self.dropped.push(category),
            Effect::Bounds(shard) => return Some(Input::Bounds(shard, now(self.log.bounds(shard)).ok())),
            Effect::AskLease(_) | Effect::Owner { .. } | Effect::Stalled { .. } | Effect::Halted { .. } => {}
        }
        None
    }

    fn to_log(&self, output: Output) -> Option<Input> {
        let input = match output {
            Output::End => writer::Input::End(now(self.log.end(SHARD)).unwrap()),
            Output::Read(from) => {
                // At the end there is nothing to wait for here.
                let slots = self.log.placed_from(SHARD, from);
                writer::Input::Read(Some(slots).filter(|slots| !slots.is_empty())?)
            }
            Output::Append { append, at, records } => writer::Input::Appended {
                append,
                result: now(self.log.append_hashed(SHARD, at, records)),
            },
            _ => return None,
        };
        Some(Input::Writer(SHARD, input))
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

/// A snapshot after each record, no stream kept in memory, every load checked.
fn settings() -> EngineSettings {
    let mut settings = EngineSettings {
        snapshot_every: 1,
        cache_bytes: 1,
        verify_loads: 1,
        ..EngineSettings::default()
    };
    settings.writer.keep_tail = true;
    settings
}

#[test]
fn a_snapshot_that_is_ahead_of_a_lagging_journal_is_not_wrong() {
    let (log, store) = parts();
    store.hold(SHARD, Offset::new(0));
    let mut machine = Machine::new("a", &log, &store, settings());
    machine.own();
    let stream = StreamId::try_from("counter-1").unwrap();
    for n in 1..=6 {
        let answer = machine.send(add("counter-1", n, 1)).unwrap();
        assert_eq!(answer.version.get(), n);
        // Another stream, so that the first is evicted and loaded again.
        machine.send(add("counter-2", n, 1)).unwrap();
    }
    assert!(
        store.snapshot(&stream).unwrap().offset > Offset::new(1),
        "it is ahead"
    );
    assert_eq!(machine.dropped, Vec::<String>::new());
}

#[test]
fn a_stream_takes_of_the_cache_what_its_state_takes_and_not_what_its_records_took() {
    const STREAMS: usize = 10;
    const RECORDS: usize = 80;
    let (log, store) = parts();
    let note = "x".repeat(1_000);
    // Beside a measure's worth of records each: a key a record, and the slot.
    let of_stream = 9_000 + RECORDS * 80 + 1_000;
    let settings = EngineSettings {
        snapshot_every: 1_000,
        cache_bytes: STREAMS * of_stream,
        verify_loads: 0,
        ..settings()
    };
    let mut machine = Machine::new("a", &log, &store, settings);
    machine.own();
    for n in 0..RECORDS {
        for stream in 0..STREAMS {
            let ask = Ask {
                body: format!(r#"{{"by":1,"note":"{note}"}}"#),
                ..add(&format!("counter-{stream}"), format!("{stream}-{n}"), 1)
            };
            machine.send(ask).unwrap();
        }
    }
    assert!(STREAMS * of_stream < STREAMS * RECORDS * note.len() / 4);
    assert_eq!(machine.loaded, STREAMS, "none was evicted");
}

#[test]
fn a_zombie_that_knows_a_record_from_a_snapshot_only_says_that_it_is_not_available() {
    let (log, store) = parts();
    store.hold(SHARD, Offset::new(0));
    let mut zombie = Machine::new("a", &log, &store, settings());
    zombie.own();
    let mut owner = Machine::new("b", &log, &store, settings());
    owner.own();
    owner.send(add("counter-1", "k", 1)).unwrap();
    let stream = StreamId::try_from("counter-1").unwrap();
    assert!(store.snapshot(&stream).is_some());
    assert!(
        zombie.engine.is_owner(SHARD),
        "it has not heard of the other claim"
    );
    assert_eq!(
        zombie.send(add("counter-1", "k", 1)).unwrap_err(),
        SendError::ShardUnavailable
    );
    assert!(owner.send(add("counter-1", "k", 1)).unwrap().replayed);
}

#[test]
fn a_record_that_came_into_the_tail_while_it_was_fetched_is_replayed() {
    let (log, store) = parts();
    store.hold(SHARD, Offset::new(0));
    let mut zombie = Machine::new("a", &log, &store, settings());
    zombie.own();
    let mut owner = Machine::new("b", &log, &store, settings());
    owner.own();
    let first = owner.send(add("counter-1", "k", 1)).unwrap();
    zombie.keeps_fetch = true;
    let request = Box::new(add("counter-1", "k", 1).request(&support::catalog()));
    zombie.run(Input::Command {
        token: 1,
        request,
        deadline_ms: NOW_MS + 1_000,
    });
    let fetched = zombie.fetch.take().expect("it asks the journal, which lags");
    // Another command makes it see that it has lost the shard, and all that counts meanwhile.
    let request = Box::new(add("counter-2", "l", 1).request(&support::catalog()));
    zombie.run(Input::Command {
        token: 2,
        request,
        deadline_ms: NOW_MS + 1_000,
    });
    assert!(!zombie.engine.is_owner(SHARD), "it has heard of the other claim");
    zombie.replies.clear();
    zombie.run(fetched);
    let again = zombie.replies.pop().expect("it answers").unwrap();
    assert!(again.replayed);
    assert_eq!((again.record, again.position), (first.record, first.position));
}
