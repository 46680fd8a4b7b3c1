//! What is a record and what is not, header by header.

use annals_record::hash::{raw_record_hash, slot_hash};
use annals_record::{
    Claim, Close, Entry, Epoch, Hash32, KeyHash, Meta, RawRecord, Record, RecordId, Seen, Slot, Traceparent,
    Version,
};
use bytes::Bytes;
use proptest::prelude::*;

use crate::fixture::{claim, close, commit, foreign, header, refusal};

fn is_foreign(raw: &RawRecord) -> bool {
    matches!(Slot::parse(raw.clone()), Slot::Foreign(back) if back == *raw)
}

fn set(raw: &mut RawRecord, name: &str, value: &str) {
    let found = raw.headers.iter_mut().find(|h| h.name == name.as_bytes());
    found.unwrap().value = Some(Bytes::copy_from_slice(value.as_bytes()));
}

#[test]
fn one_record_of_each_kind_comes_back() {
    for record in [commit(), refusal(), claim(), close()] {
        let raw = record.to_raw();
        assert_eq!(Slot::parse(raw.clone()), Slot::Known(record.clone()));
        let size: usize = raw
            .headers
            .iter()
            .map(|h| h.name.len() + h.value.as_ref().unwrap().len())
            .sum();
        let size = size + raw.key.as_ref().map_or(0, Bytes::len) + raw.value.as_ref().unwrap().len();
        assert_eq!(record.stored_bytes(), size);
        assert_eq!(
            record.meta.header_count(),
            u32::try_from(raw.headers.len()).unwrap()
        );
    }
}

#[test]
fn headers_come_in_one_order_none_twice_none_missing_none_more() {
    for record in [commit(), refusal(), claim(), close()] {
        let raw = record.to_raw();
        let headers = raw.headers.len();
        for i in 0..headers {
            let mut missing = raw.clone();
            let taken = missing.headers.remove(i);
            let optional = taken.name == "traceparent";
            assert_eq!(is_foreign(&missing), !optional, "without {taken:?}");

            let mut twice = raw.clone();
            twice.headers.insert(i, taken.clone());
            assert!(is_foreign(&twice), "twice {taken:?}");

            let mut null = raw.clone();
            null.headers[i].value = None;
            assert!(is_foreign(&null), "null {taken:?}");

            let mut renamed = raw.clone();
            renamed.headers[i].name = Bytes::from(taken.name.to_ascii_uppercase());
            assert!(is_foreign(&renamed), "renamed {taken:?}");

            let mut empty = raw.clone();
            empty.headers[i].value = Some(Bytes::new());
            assert!(is_foreign(&empty), "empty {taken:?}");

            for j in 0..i {
                let mut swapped = raw.clone();
                swapped.headers.swap(i, j);
                assert!(is_foreign(&swapped), "swapped {i} and {j}");
            }
        }
        for i in 0..=headers {
            let mut more = raw.clone();
            more.headers.insert(i, header(b"extra", b"1"));
            assert!(is_foreign(&more), "one more at {i}");
        }
    }
}

#[test]
fn values_have_one_spelling() {
    let hash = "84fd9bac333ad79154348296204fa7f8c537a96e08983e5f73b3f5aca8e8edf7";
    let upper = hash.to_uppercase();
    let padded = format!("{}=", KeyHash::of("k"));
    let wrong = [
        ("kind", "Commit"),
        ("kind", "claim"),
        ("kind", "close"),
        ("kind", "commit "),
        ("id", "018BCFE5-687B-7ABC-8DEF-0123456789AB"),
        ("id", "018bcfe5687b7abc8def0123456789ab"),
        ("id", "018bcfe5-687b-4abc-8def-0123456789ab"),
        ("epoch", "07"),
        ("epoch", "+7"),
        ("epoch", "-7"),
        ("epoch", " 7"),
        ("epoch", "7.0"),
        ("epoch", "9223372036854775808"),
        ("prev", &hash[1..]),
        ("prev", &upper),
        ("version", "05"),
        ("version", "-1"),
        ("version", "9223372036854775808"),
        ("count", "02"),
        ("count", "4294967296"),
        ("idempotency-key", &padded),
        ("idempotency-key", "a"),
        ("idempotency-key", hash),
        (
            "traceparent",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        (
            "traceparent",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ),
        (
            "traceparent",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
        ),
    ];
    for (name, value) in wrong {
        let mut raw = commit().to_raw();
        set(&mut raw, name, value);
        assert!(is_foreign(&raw), "{name}: {value}");
    }
    for seen in ["", ":", "41", "41:", "041:", "+41:", "-1:", "41-"] {
        let mut raw = claim().to_raw();
        let text = if seen.ends_with([':', '-']) {
            format!("{seen}{hash}")
        } else {
            seen.into()
        };
        if seen == "41:" {
            set(&mut raw, "seen", &text);
            assert!(!is_foreign(&raw));
            set(&mut raw, "seen", &format!("41:{upper}"));
            assert!(is_foreign(&raw));
            continue;
        }
        set(&mut raw, "seen", &text);
        assert!(is_foreign(&raw), "seen: {text}");
    }
}

#[test]
fn a_refusal_has_no_events() {
    let mut raw = refusal().to_raw();
    set(&mut raw, "count", "1");
    assert!(is_foreign(&raw));
    set(&mut raw, "kind", "commit");
    assert!(!is_foreign(&raw));
    set(&mut raw, "count", "0");
    assert!(!is_foreign(&raw), "a commit may have none either");
}

#[test]
fn entries_have_a_stream_as_key_and_claims_and_closes_have_none() {
    for record in [commit(), refusal()] {
        for key in [None, Some(""), Some("order"), Some("Order-1"), Some("order-ä")] {
            let mut raw = record.to_raw();
            raw.key = key.map(|k| Bytes::copy_from_slice(k.as_bytes()));
            assert!(is_foreign(&raw), "{key:?}");
        }
        let mut raw = record.to_raw();
        raw.key = Some(Bytes::from_static(b"order-\xff"));
        assert!(is_foreign(&raw));
    }
    for record in [claim(), close()] {
        for key in ["", "order-1"] {
            let mut raw = record.to_raw();
            raw.key = Some(Bytes::from_static(key.as_bytes()));
            assert!(is_foreign(&raw), "{key:?}");
        }
    }
}

#[test]
fn a_null_value_is_foreign_and_an_empty_one_is_not() {
    for record in [commit(), refusal(), claim(), close()] {
        let mut raw = record.to_raw();
        raw.value = Some(Bytes::new());
        assert!(!is_foreign(&raw));
        let empty = raw_record_hash(&raw);
        raw.value = None;
        assert!(is_foreign(&raw));
        assert_ne!(raw_record_hash(&raw), empty);
    }
}

#[test]
fn a_format_of_the_future_is_never_mistaken_for_a_stranger() {
    let format = |value: &str| {
        let mut raw = commit().to_raw();
        set(&mut raw, "annals", value);
        match Slot::parse(raw) {
            Slot::UnknownFormat { format, .. } => Some(format),
            Slot::Known(_) | Slot::Foreign(_) => None,
        }
    };
    assert_eq!(format("2"), Some(2));
    assert_eq!(format("0"), Some(0));
    assert_eq!(format("99999999999999999999999"), Some(u64::MAX));
    for text in ["01", "02", "+2", "2 ", "", "two", "1.0"] {
        let mut raw = commit().to_raw();
        set(&mut raw, "annals", text);
        assert!(is_foreign(&raw), "{text:?}");
    }

    let mut alone = foreign();
    assert!(is_foreign(&alone), "no annals header at all");
    alone.headers.push(header(b"annals", b"2"));
    assert!(matches!(
        Slot::parse(alone.clone()),
        Slot::UnknownFormat { format: 2, .. }
    ));
    alone.headers.push(header(b"annals", b"2"));
    assert!(is_foreign(&alone), "twice");
}

fn hashes() -> impl Strategy<Value = Hash32> {
    any::<[u8; 32]>().prop_map(Hash32::new)
}

fn ids() -> impl Strategy<Value = RecordId> {
    any::<(u64, [u8; 10])>().prop_map(|(ms, random)| RecordId::from_parts(ms, random))
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![0..20u64, 0..=i64::MAX.unsigned_abs()]
}

prop_compose! {
    fn entries(refusal: bool)(
        id in ids(), epoch in numbers(), prev in hashes(), version in numbers(),
        count in any::<u32>(), key in hashes(),
        trace in any::<Option<([u8; 16], [u8; 8], u8)>>(),
    ) -> Entry {
        Entry {
            id, prev,
            epoch: Epoch::new(epoch),
            version: Version::new(version),
            count: if refusal { 0 } else { count },
            idempotency_key: KeyHash::new(key),
            traceparent: trace.and_then(|(t, p, f)| Traceparent::new(t, p, f)),
        }
    }
}

fn records() -> impl Strategy<Value = Record> {
    let claims = (ids(), numbers(), numbers(), hashes(), hashes()).prop_map(
        |(id, epoch, accepted, chain, genesis)| {
            let (epoch, seen) = (Epoch::new(epoch), Seen { accepted, chain });
            Meta::Claim(Claim {
                id,
                epoch,
                seen,
                genesis,
            })
        },
    );
    let closes = (ids(), numbers(), hashes()).prop_map(|(id, epoch, prev)| {
        let epoch = Epoch::new(epoch);
        Meta::Close(Close { id, epoch, prev })
    });
    let metas = prop_oneof![
        entries(false).prop_map(Meta::Commit),
        entries(true).prop_map(Meta::Refusal),
        claims,
        closes,
    ];
    let value = prop::collection::vec(any::<u8>(), 0..200);
    (
        metas,
        "[a-z][a-z0-9_]{0,63}-[A-Za-z0-9._~-]{1,128}",
        any::<i64>(),
        value,
    )
        .prop_map(|(meta, stream, timestamp_ms, value)| Record {
            stream: matches!(meta, Meta::Commit(_) | Meta::Refusal(_)).then(|| stream.parse().unwrap()),
            timestamp_ms,
            meta,
            value: value.into(),
        })
}

proptest! {
    #[test]
    fn every_record_comes_back_byte_for_byte(record in records()) {
        let raw = record.to_raw();
        let slot = Slot::parse(raw.clone());
        prop_assert_eq!(slot_hash(&slot), raw_record_hash(&raw));
        prop_assert_eq!(slot.known().map(Record::to_raw), Some(raw));
        prop_assert_eq!(slot, Slot::Known(record));
    }

    #[test]
    fn whatever_is_read_as_a_record_is_written_as_the_same_bytes(
        record in records(), which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut raw = record.to_raw();
        let header = which.get_mut(&mut raw.headers);
        let mut value = header.value.take().unwrap().to_vec();
        let i = at.index(value.len());
        value[i] = byte;
        header.value = Some(value.into());
        let hash = raw_record_hash(&raw);
        match Slot::parse(raw.clone()) {
            Slot::Known(back) => {
                prop_assert_eq!(back.to_raw(), raw);
                prop_assert_eq!(annals_record::hash::record_hash(&back), hash);
            }
            Slot::UnknownFormat { raw: back, .. } | Slot::Foreign(back) => prop_assert_eq!(back, raw),
        }
    }
}
