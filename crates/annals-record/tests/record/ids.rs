//! Names, numbers, positions and shards: one spelling each.

use std::collections::HashMap;

use annals_record::id::murmur2;
use annals_record::{
    AppName, Category, Epoch, EventId, Generation, Hash32, Key, Offset, Position, RecordId, Shard,
    ShardCount, StreamId, Version,
};

use crate::fixture::RECORD;

#[test]
fn murmur2_is_that_of_kafkas_clients() {
    // The cases of `UtilsTest.testMurmur2` of Kafka.
    let cases = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    for (text, hash) in cases {
        assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
    }
}

#[test]
fn streams_live_where_a_kafka_client_would_put_them() {
    // Computed outside this program, with a murmur2 in Python that agrees with Kafka's own cases.
    let cases: [(&str, [u32; 5]); 5] = [
        ("order-0192f1c0", [2, 1, 1, 321, 59633]),
        ("product-1", [0, 4, 11, 123, 56411]),
        ("customer-a-b", [2, 1, 6, 918, 58518]),
        ("payment-x~1", [1, 5, 1, 369, 39649]),
        ("order-7", [1, 1, 1, 857, 37377]),
    ];
    for (stream, expected) in cases {
        let stream: StreamId = stream.parse().unwrap();
        let shard_of = |n| ShardCount::try_from(n).unwrap().shard_of(&stream).get();
        assert_eq!([3, 7, 16, 1_000, 65_536].map(shard_of), expected, "{stream}");
    }
}

#[test]
fn a_stream_lives_in_one_shard() {
    let stream: StreamId = "order-0192f1c0".parse().unwrap();
    let hash = murmur2(b"order-0192f1c0") & 0x7fff_ffff;
    for count in [1, 2, 16, 65_536] {
        let shards = ShardCount::try_from(count).unwrap();
        let shard = shards.shard_of(&stream);
        assert_eq!(shard, Shard::new(hash % count));
        assert!(shards.contains(shard));
        assert!(!shards.contains(Shard::new(count)));
        assert_eq!(shards.shards().len(), usize::try_from(count).unwrap());
        assert_eq!(shards.shards().last(), Some(Shard::new(count - 1)));
    }
    assert!(ShardCount::try_from(0).is_err());
    assert!(ShardCount::try_from(65_537).is_err());
}

#[test]
fn a_stream_id_splits_at_the_first_hyphen() {
    let id: StreamId = "order-a-b~1.C".parse().unwrap();
    assert_eq!((id.category(), id.key()), ("order", "a-b~1.C"));
    let (category, key) = (id.category().parse().unwrap(), id.key().parse().unwrap());
    assert_eq!(StreamId::new(&category, &key), id);
    assert_eq!(id.clone().as_str(), "order-a-b~1.C");

    let longest = format!("{}-{}", "c".repeat(64), "k".repeat(128));
    assert_eq!(longest.parse::<StreamId>().unwrap().to_string(), longest);
    assert_eq!(longest.len(), StreamId::MAX_BYTES);

    let too_long = format!("{}-{}", "c".repeat(65), "k");
    let key_too_long = format!("c-{}", "k".repeat(129));
    for text in [
        "",
        "-",
        "order",
        "order-",
        "-a",
        "Order-a",
        "0rder-a",
        "or.der-a",
        "order-a b",
        "order-ä",
        "order-a/b",
        "order-a\0",
        &too_long,
        &key_too_long,
    ] {
        assert!(text.parse::<StreamId>().is_err(), "{text:?}");
    }
}

#[test]
fn names_keep_to_their_alphabet_and_length() {
    let long = "a".repeat(64);
    assert!(long.parse::<Category>().is_ok());
    assert!(long.parse::<AppName>().is_err());
    assert!(long[1..].parse::<AppName>().is_ok());
    assert!("my-app_2".parse::<AppName>().is_ok());
    assert!("my-category".parse::<Category>().is_err());
    for text in ["", "-a", "_a", "2a", "A", "aB", "a b", "é"] {
        assert!(text.parse::<AppName>().is_err(), "{text:?}");
        assert!(text.parse::<Category>().is_err(), "{text:?}");
    }
    assert!("A.b_c~-9".parse::<Key>().is_ok());
    assert!("a".repeat(129).parse::<Key>().is_err());
    let error = "".parse::<Key>().unwrap_err().to_string();
    assert_eq!(
        error,
        r#""" is not a stream key: 1 to 128 of A-Z, a-z, 0-9, . _ ~ and -"#
    );
    let hostile = "!".repeat(1_000_000).parse::<Key>().unwrap_err();
    assert!(hostile.to_string().len() < 200);
}

#[test]
fn a_map_by_id_can_be_asked_by_text() {
    let id: StreamId = "order-1".parse().unwrap();
    let map = HashMap::from([(id, 7)]);
    assert_eq!(map.get("order-1"), Some(&7));
}

#[test]
fn a_position_has_one_spelling() {
    let first = Position::new(Generation::FIRST, 3.into(), 1042.into());
    let copied = Position::new(Generation::try_from(2).unwrap(), 3.into(), 1042.into());
    assert_eq!(first.to_string(), "3:1042");
    assert_eq!(copied.to_string(), "3:1042~2");
    for position in [first, copied] {
        assert_eq!(position.to_string().parse(), Ok(position));
        let json = serde_json::to_string(&position).unwrap();
        assert_eq!(json, format!("\"{position}\""));
        assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
    }
    for text in [
        "",
        ":",
        "3",
        "3:",
        ":1",
        "03:1",
        "3:01",
        "+3:1",
        "3:-1",
        "3:1~",
        "3:1~0",
        "3:1~1",
        "3:1~02",
        "3:1~2~3",
        "3:1:2",
        " 3:1",
        "3:1 ",
        "3:9223372036854775808",
        "4294967296:1",
    ] {
        assert!(text.parse::<Position>().is_err(), "{text:?}");
    }
}

#[test]
fn numbers_convert_without_casts() {
    assert_eq!(Offset::new(7).next().get(), 8);
    assert_eq!(Offset::new(u64::MAX).next(), Offset::new(u64::MAX));
    assert_eq!(Offset::try_from(-1i64).ok(), None);
    assert_eq!(Version::try_from(7i64).unwrap(), Version::new(7));
    assert_eq!(i64::try_from(Epoch::new(7)), Ok(7));
    assert!(i64::try_from(Epoch::new(u64::MAX)).is_err());
    assert_eq!(i32::try_from(Shard::new(7)), Ok(7));
    assert_eq!(u64::from(Version::new(2).plus(3)), 5);
    assert_eq!(serde_json::to_string(&Offset::new(7)).unwrap(), "7");
    assert_eq!("7".parse(), Ok(Offset::new(7)));
    assert!("-7".parse::<Offset>().is_err());
    assert_eq!(Generation::default().get(), 1);
    assert!(Generation::try_from(0).is_err());
    assert!(serde_json::from_str::<Generation>("0").is_err());
}

#[test]
fn a_record_id_is_a_uuid_of_version_7_in_lower_case() {
    let id: RecordId = RECORD.parse().unwrap();
    assert_eq!(id.to_string(), RECORD);
    assert_eq!(RecordId::try_from(id.get()), Ok(id));
    for text in [
        "",
        "018BCFE5-687b-7abc-8def-0123456789ab",
        "018bcfe5687b7abc8def0123456789ab",
        "{018bcfe5-687b-7abc-8def-0123456789ab}",
        "urn:uuid:018bcfe5-687b-7abc-8def-0123456789ab",
        "018bcfe5-687b-4abc-8def-0123456789ab",
        "018bcfe5-687b-7abc-0def-0123456789ab",
        "018bcfe5-687b-7abc-cdef-0123456789ab",
        "018bcfe56-87b-7abc-8def-0123456789ab",
        "018bcfe5-687b-7abc-8def-0123456789a-",
    ] {
        assert!(text.parse::<RecordId>().is_err(), "{text:?}");
    }
    let built = RecordId::from_parts(0x018b_cfe5_687b, [0xff; 10]);
    assert_eq!(built.to_string(), "018bcfe5-687b-7fff-bfff-ffffffffffff");
    assert_eq!(built.to_string().parse(), Ok(built));
    let event = EventId::of(built, 0);
    assert_eq!(event.to_string().parse(), Ok(event));
}

#[test]
fn a_hash_has_one_spelling_in_each_alphabet() {
    let hash = Hash32::new([0xa5; 32]);
    assert_eq!(hash.to_string(), "a5".repeat(32));
    assert_eq!(hash.to_string().parse(), Ok(hash));
    assert!("A5".repeat(32).parse::<Hash32>().is_err());
    assert!("a5".repeat(31).parse::<Hash32>().is_err());
    assert!("a5".repeat(33).parse::<Hash32>().is_err());
    assert!("g5".repeat(32).parse::<Hash32>().is_err());

    let text = hash.to_base64url();
    assert_eq!(text, "paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU");
    assert_eq!(Hash32::from_base64url(&text), Ok(hash));
    // Spare bits, padding, another alphabet, another length.
    for wrong in ["V", "=", "+", ""] {
        let changed = format!("{}{wrong}", &text[..42]);
        assert!(Hash32::from_base64url(&changed).is_err(), "{changed}");
    }
    assert!(Hash32::from_base64url(&format!("{text}=")).is_err());
}
