//! What is stored: the strict grammar of records, and everything else that a topic may hold.
//!
//! | kind | key | headers, in this order, none twice, no others |
//! |---|---|---|
//! | commit, refusal | stream id | `annals` = `1`, `kind`, `id`, `epoch`, `prev`, `version`, `count`, `idempotency-key`, then `traceparent` if there is one |
//! | claim | null | `annals`, `kind`, `id`, `epoch`, `seen`, `genesis` |
//! | close | null | `annals`, `kind`, `id`, `epoch`, `prev` |
//!
//! | header | spelling |
//! |---|---|
//! | `annals` | the format, an integer; this program knows `1` |
//! | `kind` | `commit`, `refusal`, `claim`, `close` |
//! | `id` | UUID of version 7, lower case, with hyphens |
//! | `epoch`, `version` | integer, at most 2^63 - 1 |
//! | `count` | integer, at most 2^32 - 1; `0` for a refusal |
//! | `prev`, `genesis` | 64 lower-case hexadecimal digits |
//! | `seen` | `{n}:{chain}`: an integer as above, a colon, 64 lower-case hexadecimal digits |
//! | `idempotency-key` | 43 characters of base64url without padding |
//! | `traceparent` | W3C Trace Context version `00` |
//!
//! Integers have no sign and no leading zero. Every well-formed record has one spelling, so a
//! [`Record`] gives back exactly the bytes that it was read from. The value is not null, and nothing
//! here looks into it. Source: the log's design, "Record".

mod parse;
mod traceparent;

use bytes::{Bytes, BytesMut};

pub use traceparent::{Traceparent, TraceparentError};

use crate::decimal;
use crate::hash::{Hash32, KeyHash};
use crate::id::{Epoch, RecordId, StreamId, Version};

/// The record format that this program reads and writes.
pub const FORMAT: u64 = 1;

/// Anything that can be on a Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// The key, or null.
    pub key: Option<Bytes>,
    /// `CreateTime`, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The value, or null.
    pub value: Option<Bytes>,
    /// The headers in stored order; Kafka allows repeated names.
    pub headers: Vec<RawHeader>,
}

/// One header as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawHeader {
    /// The name.
    pub name: Bytes,
    /// The value, or null.
    pub value: Option<Bytes>,
}

/// A well-formed record of the log. Whether it counts is the business of [`crate::fold`].
///
/// *Invariant,* kept by [`Slot::parse`] and by whoever builds one: `stream` is there exactly for
/// commits and refusals, and a refusal's `count` is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The stream, which is the key; none for claims and closes.
    pub stream: Option<StreamId>,
    /// The time of the decision, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// What the headers say.
    pub meta: Meta,
    /// JSON, exactly as written.
    pub value: Bytes,
}

/// What a record's headers say, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// One command's events.
    Commit(Entry),
    /// A rule's no.
    Refusal(Entry),
    /// The beginning of an ownership term.
    Claim(Claim),
    /// The end of the shard.
    Close(Close),
}

/// The headers of a commit or a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The record's id.
    pub id: RecordId,
    /// The writer's ownership term.
    pub epoch: Epoch,
    /// The chain before this record.
    pub prev: Hash32,
    /// The version of the first event; with `count` 0 the one that the next event will have.
    pub version: Version,
    /// How many events.
    pub count: u32,
    /// The hash of the client's idempotency key.
    pub idempotency_key: KeyHash,
    /// The trace that the command belongs to.
    pub traceparent: Option<Traceparent>,
}

/// The headers of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The record's id: how a claimer knows its own claim again.
    pub id: RecordId,
    /// The ownership term that this claim begins.
    pub epoch: Epoch,
    /// What the claimer had accepted when it wrote the claim.
    pub seen: Seen,
    /// c(0) of the shard.
    pub genesis: Hash32,
}

/// How many records a claimer had accepted, and the chain there. A count and not an offset: copying
/// a log drops ghosts and so moves offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// How many records were accepted.
    pub accepted: u64,
    /// The chain after them.
    pub chain: Hash32,
}

/// The headers of a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// The record's id.
    pub id: RecordId,
    /// The writer's ownership term.
    pub epoch: Epoch,
    /// The chain before this record.
    pub prev: Hash32,
}

/// The kind of a well-formed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One command's events.
    Commit,
    /// A rule's no.
    Refusal,
    /// The beginning of an ownership term.
    Claim,
    /// The end of the shard.
    Close,
}

/// What was found at one offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// A well-formed record.
    Known(Record),
    /// A record of a format that this program does not know: a reader must stop here.
    UnknownFormat {
        /// The record as it is stored.
        raw: RawRecord,
        /// Its `annals` header; a number beyond `u64` counts as `u64::MAX`.
        format: u64,
    },
    /// Anything else: not ours, or not within the grammar.
    Foreign(RawRecord),
}

impl Slot {
    /// Reads a stored record. Total: whatever is outside the grammar is [`Slot::Foreign`].
    ///
    /// A record with exactly one header `annals`, wherever it stands, whose value is an integer
    /// other than 1 is [`Slot::UnknownFormat`]: the rest of its grammar is not known here.
    #[must_use]
    pub fn parse(raw: RawRecord) -> Self {
        match parse::format(&raw.headers) {
            Some(FORMAT) => match (parse::known(&raw), &raw.value) {
                (Some((stream, meta)), Some(value)) => Self::Known(Record {
                    stream,
                    timestamp_ms: raw.timestamp_ms,
                    meta,
                    value: value.clone(),
                }),
                _ => Self::Foreign(raw),
            },
            Some(format) => Self::UnknownFormat { raw, format },
            None => Self::Foreign(raw),
        }
    }

    /// The well-formed record, if it is one.
    #[must_use]
    pub fn known(&self) -> Option<&Record> {
        match self {
            Self::Known(record) => Some(record),
            Self::UnknownFormat { .. } | Self::Foreign(_) => None,
        }
    }

    /// When it was written, milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(&self) -> i64 {
        match self {
            Self::Known(record) => record.timestamp_ms,
            Self::UnknownFormat { raw, .. } | Self::Foreign(raw) => raw.timestamp_ms,
        }
    }
}

impl Record {
    /// The record's id.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.meta.id()
    }

    /// The ownership term; of a claim, the one that it begins.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.meta.epoch()
    }

    /// The chain before this record; a claim does not say.
    #[must_use]
    pub fn prev(&self) -> Option<Hash32> {
        match &self.meta {
            Meta::Commit(entry) | Meta::Refusal(entry) => Some(entry.prev),
            Meta::Close(close) => Some(close.prev),
            Meta::Claim(_) => None,
        }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.meta.kind()
    }

    /// The headers of a commit or a refusal.
    #[must_use]
    pub fn entry(&self) -> Option<&Entry> {
        match &self.meta {
            Meta::Commit(entry) | Meta::Refusal(entry) => Some(entry),
            Meta::Claim(_) | Meta::Close(_) => None,
        }
    }

    /// The record as it is stored, byte for byte.
    #[must_use]
    pub fn to_raw(&self) -> RawRecord {
        RawRecord {
            key: self
                .stream
                .as_ref()
                .map(|stream| Bytes::copy_from_slice(stream.as_str().as_bytes())),
            timestamp_ms: self.timestamp_ms,
            value: Some(self.value.clone()),
            headers: self.meta.to_raw_headers(),
        }
    }

    /// Bytes of key, value, header names and header values: what size limits are about. A log adds
    /// some tens of bytes of its own.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        let key = self.stream.as_ref().map_or(0, |s| s.as_str().len());
        self.value.len() + key + self.meta.header_bytes()
    }
}

impl Kind {
    /// As the header `kind` says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Refusal => "refusal",
            Self::Claim => "claim",
            Self::Close => "close",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl Meta {
    /// The record's id.
    #[must_use]
    pub fn id(&self) -> RecordId {
        match self {
            Self::Commit(entry) | Self::Refusal(entry) => entry.id,
            Self::Claim(claim) => claim.id,
            Self::Close(close) => close.id,
        }
    }

    /// The ownership term; of a claim, the one that it begins.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Commit(entry) | Self::Refusal(entry) => entry.epoch,
            Self::Claim(claim) => claim.epoch,
            Self::Close(close) => close.epoch,
        }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Commit(_) => Kind::Commit,
            Self::Refusal(_) => Kind::Refusal,
            Self::Claim(_) => Kind::Claim,
            Self::Close(_) => Kind::Close,
        }
    }

    /// How many headers [`Meta::visit_headers`] shows.
    #[must_use]
    pub fn header_count(&self) -> u32 {
        match self {
            Self::Commit(entry) | Self::Refusal(entry) => 8 + u32::from(entry.traceparent.is_some()),
            Self::Claim(_) => 6,
            Self::Close(_) => 5,
        }
    }

    /// Bytes of what [`Meta::visit_headers`] shows, names and values, counted and not written: every queue and
    /// every cache that a record goes through asks for it.
    fn header_bytes(&self) -> usize {
        const HASH: usize = 64;
        const KEY_HASH: usize = 43;
        const UUID: usize = 36;
        let of = |name: &str, value: usize| name.len() + value;
        let number = |name: &str, number: u64| of(name, decimal::length(number));
        let common = number("annals", FORMAT)
            + of("kind", self.kind().as_str().len())
            + of("id", UUID)
            + number("epoch", self.epoch().get());
        common
            + match self {
                Self::Commit(entry) | Self::Refusal(entry) => {
                    let traceparent = entry
                        .traceparent
                        .map_or(0, |_| of("traceparent", Traceparent::BYTES));
                    of("prev", HASH)
                        + number("version", entry.version.get())
                        + number("count", entry.count.into())
                        + of("idempotency-key", KEY_HASH)
                        + traceparent
                }
                Self::Claim(claim) => {
                    number("seen", claim.seen.accepted) + ":".len() + HASH + of("genesis", HASH)
                }
                Self::Close(_) => of("prev", HASH),
            }
    }

    /// Shows each header's name and value in stored order, without allocating.
    #[inline(always)]
    pub fn visit_headers(&self, mut visit: impl FnMut(&'static str, &[u8])) {
        let mut digits = [0; decimal::DIGITS];
        let mut hex = [0; 64];
        let mut uuid = [0; 36];
        visit("annals", decimal::write(FORMAT, &mut digits));
        visit("kind", self.kind().as_str().as_bytes());
        let id = self.id().get();
        visit("id", id.as_hyphenated().encode_lower(&mut uuid).as_bytes());
        visit("epoch", decimal::write(self.epoch().get(), &mut digits));
        match self {
            Self::Commit(entry) | Self::Refusal(entry) => {
                visit("prev", entry.prev.write_hex(&mut hex));
                visit("version", decimal::write(entry.version.get(), &mut digits));
                visit("count", decimal::write(entry.count.into(), &mut digits));
                let mut key = [0; 43];
                let key = entry.idempotency_key.get().write_base64url(&mut key);
                visit("idempotency-key", key);
                if let Some(traceparent) = &entry.traceparent {
                    visit("traceparent", &traceparent.to_ascii());
                }
            }
            Self::Claim(claim) => {
                visit("seen", claim.seen.write(&mut [0; Seen::BYTES]));
                visit("genesis", claim.genesis.write_hex(&mut hex));
            }
            Self::Close(close) => visit("prev", close.prev.write_hex(&mut hex)),
        }
    }

    /// The headers as they are stored; their values share one allocation.
    #[must_use]
    pub fn to_raw_headers(&self) -> Vec<RawHeader> {
        let mut bytes = 0;
        self.visit_headers(|_, value| bytes += value.len());
        let mut all = BytesMut::with_capacity(bytes);
        self.visit_headers(|_, value| all.extend_from_slice(value));
        let mut all = all.freeze();
        let mut headers = Vec::with_capacity(9);
        self.visit_headers(|name, value| {
            headers.push(RawHeader {
                name: Bytes::from_static(name.as_bytes()),
                value: Some(all.split_to(value.len())),
            });
        });
        headers
    }
}

impl Seen {
    /// The longest spelling.
    const BYTES: usize = decimal::DIGITS + 1 + 64;

    fn write<'b>(&self, buffer: &'b mut [u8; Self::BYTES]) -> &'b [u8] {
        let mut digits = [0; decimal::DIGITS];
        let count = decimal::write(self.accepted, &mut digits);
        let colon = count.len();
        buffer[..colon].copy_from_slice(count);
        buffer[colon] = b':';
        let end = colon + 1 + 64;
        buffer[colon + 1..end].copy_from_slice(self.chain.write_hex(&mut [0; 64]));
        &buffer[..end]
    }
}

/// As the header `seen` says it: `{n}:{chain}`.
impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.accepted, self.chain)
    }
}
