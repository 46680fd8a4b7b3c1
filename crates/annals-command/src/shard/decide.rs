//! Deciding one command on a loaded stream: owner, key, budget, precondition, rules, record.

use annals_domain::catalog::{Decision, EncodedEvent};
use annals_domain::{Permission, Refusal, VERSION_MISMATCH};
use annals_log::writer::{Draft, ShardWriter};
use annals_record::planted::{Plant, planted};
use annals_record::record::Record;
use annals_record::value::{
    ActorValue, CommandValue, EntryValue, EntryView, EventValue, OutcomeValue, RefusalValue,
};
use annals_record::{EventId, KeyHash, Offset, RecordId, Version};
use bytes::Bytes;
use chrono::DateTime;

use super::{Decided, Pending, ShardEngine, Shared, Waiting, reply};
use crate::answer::{Answer, EventRef, Outcome, SendError};
use crate::engine::Effect;
use crate::keys::{Seen, short};
use crate::metrics;
use crate::slot::{Live, Slot};

/// Beyond its headers, what a record takes in the log, about.
const HEADER_BYTES: usize = 512;

impl ShardEngine {
    /// Decides a command whose stream is loaded.
    pub(super) fn decide(&mut self, command: Waiting, cx: &mut Shared<'_>) {
        let Some(live) = live(&mut self.slots, &command) else {
            return reply(cx, command.token, Err(SendError::Internal));
        };
        if !is_permitted(live, &command) {
            return reply(cx, command.token, Err(SendError::Forbidden));
        }
        let Some(writer) = &self.writer else { return };
        let time_ms = writer.next_time(cx.now_ms);
        let after_ms = remembered_after_ms(time_ms, cx);
        let seen = live.keys.find(short(command.request.idempotency_key), after_ms);
        self.look_up(command, &seen, cx);
    }

    /// Compares with the records that the key may stand for, newest first; a key that stands for none is new.
    fn look_up(&mut self, command: Waiting, seen: &[Seen], cx: &mut Shared<'_>) {
        for seen in seen {
            match *seen {
                Seen::Pending(record) => match self.pending.get_mut(&record) {
                    Some(first)
                        if first.command.request.idempotency_key == command.request.idempotency_key =>
                    {
                        if self.watch.is_stalled() {
                            return reply(cx, command.token, Err(SendError::OutcomeUnknown));
                        }
                        first.repeats.push(command);
                        return;
                    }
                    Some(_) | None => {}
                },
                Seen::At(offset) => {
                    let tail = self
                        .writer
                        .as_ref()
                        .and_then(|writer| writer.tail().get(offset))
                        .cloned();
                    match tail {
                        Some(record) if is_of_key(&record, command.request.idempotency_key) => {
                            return self.replay(&command, &record, offset, cx);
                        }
                        Some(_) => {}
                        None => return self.fetch(command, offset, cx),
                    }
                }
            }
        }
        self.decide_new(command, cx);
    }

    fn fetch(&mut self, command: Waiting, offset: Offset, cx: &mut Shared<'_>) {
        self.next_fetch += 1;
        let fetch = self.next_fetch;
        cx.out.push(Effect::Fetch {
            fetch,
            shard: self.shard,
            offset,
        });
        self.fetches.insert(fetch, (command, offset));
    }

    /// A fetched record is the key's, or only shares 64 bits with it: then the next one that does, or none.
    pub(super) fn replay_or_decide(
        &mut self,
        command: Waiting,
        record: &Record,
        offset: Offset,
        cx: &mut Shared<'_>,
    ) {
        if is_of_key(record, command.request.idempotency_key) {
            return self.replay(&command, record, offset, cx);
        }
        let older = match live(&mut self.slots, &command) {
            Some(live) if self.writer.as_ref().is_some_and(ShardWriter::is_owner) => {
                live.keys.find(short(command.request.idempotency_key), i64::MIN)
            }
            // Dropped or lost meanwhile: from the start.
            Some(_) | None => return self.command(command, cx),
        };
        let older: Vec<Seen> = older
            .into_iter()
            .skip_while(|seen| *seen != Seen::At(offset))
            .skip(1)
            .collect();
        self.look_up(command, &older, cx);
    }

    /// Gives a first answer again, to the same caller and the same body only.
    pub(super) fn replay(&self, command: &Waiting, record: &Record, offset: Offset, cx: &mut Shared<'_>) {
        let same = EntryView::parse(&record.value)
            .map(|view| view.command.fingerprint == command.request.fingerprint);
        let result = match same {
            Ok(true) => {
                metrics::replayed();
                Answer::of_record(record, self.position(offset), true).map_err(|_| SendError::Internal)
            }
            Ok(false) => Err(SendError::KeyReused),
            Err(_) => Err(SendError::Internal),
        };
        reply(cx, command.token, result);
    }

    /// The first time that this command is seen.
    fn decide_new(&mut self, command: Waiting, cx: &mut Shared<'_>) {
        if self.watch.is_stalled() {
            return reply(cx, command.token, Err(SendError::LogUnavailable));
        }
        if self.pending_bytes > cx.settings.inflight_bytes {
            return reply(cx, command.token, Err(SendError::Overloaded));
        }
        let caller = &command.request.caller;
        let pays = !caller.is_system();
        if pays && let Err(retry_after) = cx.budgets.take(&caller.sub, cx.now_ms) {
            metrics::over_budget();
            let (burst, per_minute) = (cx.settings.refusal_burst, cx.settings.refusals_per_minute);
            let error = SendError::RefusalBudget {
                retry_after,
                burst,
                per_minute,
            };
            return reply(cx, command.token, Err(error));
        }
        let (Some(writer), Some(live)) = (&self.writer, live(&mut self.slots, &command)) else {
            return reply(cx, command.token, Err(SendError::Internal));
        };
        let time_ms = writer.next_time(cx.now_ms);
        let version = live.version;
        let decision = match decide(live, &command, time_ms) {
            Ok(decision) => decision,
            Err(error) => {
                tracing::error!(stream = %command.request.stream, %error, "a decision could not be written");
                return reply(cx, command.token, Err(SendError::Internal));
            }
        };
        if pays && decision.is_ok() {
            cx.budgets.give_back(&caller.sub);
        }
        let id = cx.ambient.record_id();
        if let Some(answer) = self.unlogged(&command, id, version, &decision) {
            return reply(cx, command.token, Ok(answer));
        }
        let refusal = decision.is_err();
        let (value, count, decided) = match write(&command, id, version, decision) {
            Ok(written) => written,
            Err(error) => return self.undo(&command, error, cx),
        };
        let bytes = value.len() + command.request.stream.as_str().len() + HEADER_BYTES;
        if bytes > cx.settings.record_bytes {
            let limit = cx.settings.record_bytes;
            return self.undo(&command, SendError::TooLarge { bytes, limit }, cx);
        }
        let draft = Draft {
            id,
            stream: command.request.stream.clone(),
            refusal,
            time_ms,
            version: version.next(),
            count,
            idempotency_key: command.request.idempotency_key,
            traceparent: command.request.traceparent,
            value,
        };
        self.submit(command, draft, decided, bytes, cx);
    }

    fn submit(
        &mut self,
        command: Waiting,
        draft: Draft,
        decided: Decided,
        bytes: usize,
        cx: &mut Shared<'_>,
    ) {
        let (id, time_ms, count) = (draft.id, draft.time_ms, draft.count);
        let Some(live) = live(&mut self.slots, &command) else {
            return;
        };
        let submitted = self.writer.as_mut().and_then(|writer| writer.submit(draft));
        debug_assert!(submitted.is_some(), "only an owner decides");
        let key = short(command.request.idempotency_key);
        live.version = live.version.plus(count.into());
        live.in_flight += 1;
        live.decided(bytes);
        live.keys.expire(remembered_after_ms(time_ms, cx));
        live.keys
            .push(key, Seen::Pending(id), time_ms, cx.settings.keys_per_stream);
        let estimate = live.estimate(&command.request.stream);
        cx.cache.bytes = (cx.cache.bytes + estimate).saturating_sub(live.bytes);
        live.bytes = estimate;
        self.pending_bytes += bytes;
        let incarnation = live.incarnation;
        self.pending.insert(
            id,
            Pending {
                command,
                incarnation,
                bytes,
                decided,
                repeats: Vec::new(),
            },
        );
    }

    /// The state was evolved, but there will be no record: the stream is loaded anew.
    fn undo(&mut self, command: &Waiting, error: SendError, cx: &mut Shared<'_>) {
        self.drop_stream(&command.request.stream, cx);
        reply(cx, command.token, Err(error));
        for held in std::mem::take(&mut self.waiting) {
            self.command(held, cx);
        }
    }
}

/// From when on a key is remembered by a record of this time: by log time, never by the node's clock.
fn remembered_after_ms(time_ms: i64, cx: &Shared<'_>) -> i64 {
    let time_ms = if planted(Plant::KeysByWallClock) {
        cx.now_ms
    } else {
        time_ms
    };
    time_ms - i64::from(cx.settings.key_lifetime_s) * 1_000
}

/// The loaded stream that a command is for.
fn live<'s>(
    slots: &'s mut std::collections::HashMap<annals_record::StreamId, Slot, foldhash::fast::FixedState>,
    command: &Waiting,
) -> Option<&'s mut Live> {
    match slots.get_mut(&command.request.stream) {
        Some(Slot::Live(live)) => Some(live),
        Some(Slot::Loading(_)) | None => None,
    }
}

fn is_permitted(live: &Live, command: &Waiting) -> bool {
    match command.request.permission {
        Permission::Allow => true,
        Permission::IfOwner => {
            let owner = live.state.owner(&command.request.command);
            match (owner, &command.request.caller.owner) {
                (Some(owner), Some(caller)) => owner.as_str() == &**caller,
                (None, _) | (_, None) => false,
            }
        }
    }
}

fn is_of_key(record: &Record, key: KeyHash) -> bool {
    record.entry().is_some_and(|entry| entry.idempotency_key == key)
}

/// Compares the precondition, then asks the rules. The state is evolved if they agree.
fn decide(live: &mut Live, command: &Waiting, time_ms: i64) -> Result<Decision, serde_json::Error> {
    let version = live.version;
    if !command.request.precondition.holds(version) {
        let detail = serde_json::value::to_raw_value(&CurrentVersion { current: version })?;
        return Ok(Err(Refusal {
            code: VERSION_MISMATCH.to_owned(),
            detail,
        }));
    }
    let time = DateTime::from_timestamp_millis(time_ms).unwrap_or_default();
    live.state.decide(&command.request.command, time, version)
}

#[derive(serde::Serialize)]
struct CurrentVersion {
    current: Version,
}

/// The record's value, how many events it has, and what its sender will be told.
fn write(
    command: &Waiting,
    id: RecordId,
    before: Version,
    decision: Decision,
) -> Result<(Bytes, u32, Decided), SendError> {
    let request = &command.request;
    let command = CommandValue {
        name: request.command.name(),
        fingerprint: request.fingerprint,
        actor: ActorValue {
            sub: &request.caller.sub,
            roles: &request.caller.roles,
        },
        data: &request.data,
    };
    let write = |outcome: OutcomeValue<'_>| {
        EntryValue {
            stream: &request.stream,
            command,
            outcome,
            metadata: request.metadata.as_deref(),
            correlation: &request.correlation,
            causation: request.causation.as_deref(),
        }
        .to_bytes()
    };
    match decision {
        Ok(events) => {
            let count = u32::try_from(events.len()).map_err(|_| SendError::Internal)?;
            let ids: Vec<EventId> = (0..count).map(|index| EventId::of(id, index)).collect();
            let values: Vec<EventValue<'_>> = ids
                .iter()
                .zip(&events)
                .map(|(id, event)| event_value(*id, event))
                .collect();
            let value = write(OutcomeValue::Events(&values));
            let refs = (1u64..)
                .zip(ids.iter().zip(&events))
                .map(|(n, (id, event))| EventRef {
                    id: *id,
                    event_type: event.event_type.to_owned(),
                    version: before.plus(n),
                });
            let decided = Decided {
                version: before.plus(count.into()),
                outcome: Outcome::Committed(refs.collect()),
            };
            Ok((value, count, decided))
        }
        Err(Refusal { code, detail }) => {
            metrics::refused();
            let value = write(OutcomeValue::Refusal(RefusalValue {
                code: &code,
                detail: &detail,
            }));
            let outcome = if code == VERSION_MISMATCH {
                Outcome::VersionMismatch { current: before }
            } else {
                Outcome::Rejected { code, detail }
            };
            let version = before;
            Ok((value, 0, Decided { version, outcome }))
        }
    }
}

fn event_value(id: EventId, event: &EncodedEvent) -> EventValue<'_> {
    EventValue {
        id,
        type_name: event.event_type,
        schema: event.schema,
        data: &event.data,
    }
}
