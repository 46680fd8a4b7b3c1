//! Records to and from librdkafka's messages, byte for byte.

use std::panic::{AssertUnwindSafe, catch_unwind};

use annals_record::record::{RawHeader, RawRecord, Record};
use bytes::{Bytes, BytesMut};
use rdkafka::Timestamp;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Headers, Message, OwnedHeaders};

/// The headers as librdkafka wants them.
pub(super) fn headers(record: &Record) -> OwnedHeaders {
    let count = usize::try_from(record.meta.header_count()).unwrap_or(9);
    let mut headers = Some(OwnedHeaders::new_with_capacity(count));
    record.meta.visit_headers(|name, value| {
        headers = headers.take().map(|headers| {
            headers.insert(Header {
                key: name,
                value: Some(value),
            })
        });
    });
    headers.unwrap_or_default()
}

/// What is stored, exactly: an empty key, value or header is not a null one.
///
/// One exception, which the client's interface forces: a header whose name is not UTF-8 reads as the name
/// `FF FF` with a null value. Such a record is foreign in any case, and every reader reads it the same.
pub(super) fn raw(message: &BorrowedMessage<'_>) -> RawRecord {
    let timestamp_ms = match message.timestamp() {
        Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => ms,
        Timestamp::NotAvailable => -1,
    };
    RawRecord {
        key: message.key().map(Bytes::copy_from_slice),
        timestamp_ms,
        value: message.payload().map(Bytes::copy_from_slice),
        headers: message.headers().map(raw_headers).unwrap_or_default(),
    }
}

/// The names of the grammar need no memory; all else shares one allocation.
fn raw_headers(stored: &BorrowedHeaders) -> Vec<RawHeader> {
    let all: Vec<(&[u8], Option<&[u8]>)> = (0..stored.count()).map(|index| header(stored, index)).collect();
    let bytes = all
        .iter()
        .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len));
    let mut kept = BytesMut::with_capacity(bytes.sum());
    all.into_iter()
        .map(|(name, value)| RawHeader {
            name: known_name(name).unwrap_or_else(|| keep(&mut kept, name)),
            value: value.map(|value| keep(&mut kept, value)),
        })
        .collect()
}

fn keep(kept: &mut BytesMut, bytes: &[u8]) -> Bytes {
    kept.extend_from_slice(bytes);
    kept.split().freeze()
}

fn header(stored: &BorrowedHeaders, index: usize) -> (&[u8], Option<&[u8]>) {
    // The client panics on a name that is not UTF-8, and gives no other way to read headers.
    match catch_unwind(AssertUnwindSafe(|| stored.try_get(index))) {
        Ok(Some(header)) => (header.key.as_bytes(), header.value),
        Ok(None) | Err(_) => (b"\xff\xff", None),
    }
}

fn known_name(name: &[u8]) -> Option<Bytes> {
    const NAMES: [&[u8]; 11] = [
        b"annals",
        b"kind",
        b"id",
        b"epoch",
        b"prev",
        b"version",
        b"count",
        b"idempotency-key",
        b"traceparent",
        b"seen",
        b"genesis",
    ];
    NAMES
        .iter()
        .find(|known| **known == name)
        .map(|known| Bytes::from_static(known))
}
