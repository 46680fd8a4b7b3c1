//! Reading the grammar: exact headers, exact order, nothing else.

use super::{Claim, Close, Entry, Meta, RawHeader, RawRecord, Seen, Traceparent};
use crate::decimal;
use crate::hash::{Hash32, KeyHash};
use crate::id::{Epoch, RecordId, StreamId, Version};

/// The record's format: the number in its only `annals` header. `None` if it has no such header,
/// several, or one that is no number.
pub(super) fn format(headers: &[RawHeader]) -> Option<u64> {
    let mut found = headers.iter().filter(|h| h.name.as_ref() == b"annals");
    let value = found.next()?.value.as_deref()?;
    if found.next().is_some() || !decimal::is_integer(value) {
        return None;
    }
    // A number too large to hold is still a number that this program does not know.
    Some(decimal::parse(value).unwrap_or(u64::MAX))
}

/// Key and headers of a record of format 1; `None` outside the grammar.
pub(super) fn known(raw: &RawRecord) -> Option<(Option<StreamId>, Meta)> {
    let mut headers = Headers(&raw.headers);
    headers.take("annals")?;
    let kind = headers.take("kind")?;
    let id = RecordId::parse(headers.take("id")?)?;
    let epoch = decimal::parse(headers.take("epoch")?).map(Epoch::new)?;
    let meta = match kind {
        b"commit" => Meta::Commit(headers.entry(id, epoch)?),
        b"refusal" => Meta::Refusal(headers.entry(id, epoch).filter(|e| e.count == 0)?),
        b"claim" => Meta::Claim(headers.claim(id, epoch)?),
        b"close" => {
            let prev = Hash32::parse_hex(headers.take("prev")?)?;
            Meta::Close(Close { id, epoch, prev })
        }
        _ => return None,
    };
    headers.end()?;
    let stream = match (&meta, &raw.key) {
        (Meta::Commit(_) | Meta::Refusal(_), Some(key)) => Some(std::str::from_utf8(key).ok()?.parse().ok()?),
        (Meta::Claim(_) | Meta::Close(_), None) => None,
        _ => return None,
    };
    Some((stream, meta))
}

/// The headers that were not read yet. Since each is taken by name in the one right order, a
/// missing, repeated, moved or further header is noticed.
struct Headers<'a>(&'a [RawHeader]);

impl<'a> Headers<'a> {
    fn take(&mut self, name: &str) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_first()?;
        if first.name.as_ref() != name.as_bytes() {
            return None;
        }
        self.0 = rest;
        first.value.as_deref()
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    fn entry(&mut self, id: RecordId, epoch: Epoch) -> Option<Entry> {
        Some(Entry {
            id,
            epoch,
            prev: Hash32::parse_hex(self.take("prev")?)?,
            version: decimal::parse(self.take("version")?).map(Version::new)?,
            count: decimal::parse_u32(self.take("count")?)?,
            idempotency_key: Hash32::parse_base64url(self.take("idempotency-key")?).map(KeyHash::new)?,
            traceparent: match self.0 {
                [] => None,
                _ => Some(Traceparent::parse(self.take("traceparent")?)?),
            },
        })
    }

    fn claim(&mut self, id: RecordId, epoch: Epoch) -> Option<Claim> {
        Some(Claim {
            id,
            epoch,
            seen: seen(self.take("seen")?)?,
            genesis: Hash32::parse_hex(self.take("genesis")?)?,
        })
    }
}

fn seen(text: &[u8]) -> Option<Seen> {
    let colon = text.iter().position(|b| *b == b':')?;
    Some(Seen {
        accepted: decimal::parse(&text[..colon])?,
        chain: Hash32::parse_hex(&text[colon + 1..])?,
    })
}
