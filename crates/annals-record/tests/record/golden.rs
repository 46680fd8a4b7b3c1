//! Bytes that must never change. The expected values were computed outside this program, with
//! Python's `hashlib`, `struct` and `uuid`, from the formulas of the design alone.

use annals_record::hash::{chain, raw_record_hash, record_hash, record_hash_with, sha256, value_hash};
use annals_record::leaf::{LeafEntry, node_hash};
use annals_record::{EventId, Hash32, KeyHash, Offset, Record, Slot};

use crate::fixture::{c0, claim, close, commit, foreign, id, refusal};

const COMMIT: &str = "2d165f304a4a695ba3dd2ccdb050ea529897d31f0313491c02a58b1c12a8ba11";
const REFUSAL: &str = "6fdba06c5a84edd6371a0ab3fead5ab8e85a9117fe62d6efcbb51f6429393c01";
const CLAIM: &str = "5b7af058505f0d239685aa3b8d814582c065ff3390c1df18b8506952a97caf5a";
const CLOSE: &str = "8270ca754953b45743b883456275368e85307244beddc119f8b2d0d309490713";
const FOREIGN: &str = "5369569ff83d2383204150680fb9af71d80f8d6a4b2311e0643b5826acd7738f";

fn hash(hex: &str) -> Hash32 {
    hex.parse().unwrap()
}

fn check(record: &Record, expected: &str) {
    assert_eq!(record_hash(record), hash(expected));
    let apart = record_hash_with(record, value_hash(&record.value));
    assert_eq!(apart, hash(expected));
    assert_eq!(raw_record_hash(&record.to_raw()), hash(expected));
}

#[test]
fn record_hashes_of_every_kind() {
    check(&commit(), COMMIT);
    check(&refusal(), REFUSAL);
    check(&claim(), CLAIM);
    check(&close(), CLOSE);
    assert_eq!(raw_record_hash(&foreign()), hash(FOREIGN));
}

#[test]
fn genesis_and_chain() {
    let first = "62ac9a5c1c6931ea0d4703540a0254e46e4a8460ae7aa20673210919924941bf";
    assert_eq!(c0(), hash(first));
    let second = "22f726d3fc1a9fbc0844668966487c6267a38682625d10cce7afc70ea3fe36c0";
    assert_eq!(chain(c0(), hash(COMMIT)), hash(second));
}

#[test]
fn the_hash_of_a_client_key_is_base64url() {
    let text = "ZNvcOO3hm4XKyL7MwV1S3rsaMOQsL6FXFs6VrAkTrQk";
    assert_eq!(KeyHash::of("client-key-1").to_string(), text);
    assert_eq!(text.parse(), Ok(KeyHash::of("client-key-1")));
}

#[test]
fn event_ids_follow_from_record_and_index() {
    let of = |index| EventId::of(id(), index).to_string();
    assert_eq!(of(0), "6df2b93a-4707-55e8-aa85-8c47e01b2f58");
    assert_eq!(of(1), "c80114b0-1c0f-5448-830f-cb6b9bf28ab5");
    assert_eq!(of(10), "cf38024b-a137-5179-8467-181eb6fbe2f3");
}

#[test]
fn leaf_entries() {
    let leaf =
        |slot: Slot, offset: u64, hash, accepted| LeafEntry::new(&slot, Offset::new(offset), hash, accepted);
    let entry = leaf(Slot::Known(commit()), 1042, hash(COMMIT), true);
    let hex: String = entry.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let expected = "018100000000000004120000018bcfe5687b018bcfe5687b7abc8def0123456789ab\
                    50686a710fd63bbe3b3ada8365e9b8700000000000000005000000022d165f304a4a695ba3\
                    dd2ccdb050ea529897d31f0313491c02a58b1c12a8ba11";
    assert_eq!(hex, expected);
    let expected = "12a921a4d346846b7251c617fbf7921d213670427920ea16b556528834b51c21";
    assert_eq!(entry.hash(), hash(expected));

    let entry = leaf(Slot::Foreign(foreign()), 0, hash(FOREIGN), false);
    let expected = "7cbde512edc8c77a4e3dc7fd37395bedda3f68675acc36c19eecacac79643ed6";
    assert_eq!(entry.hash(), hash(expected));

    let entry = leaf(Slot::Known(claim()), 9, hash(CLAIM), false);
    let expected = "ef7cb2ff0a16b21f4ab0641647c62c707a86b285d948a27db51e206855809784";
    assert_eq!(entry.hash(), hash(expected));

    let expected = "a3ee6248b0b6ca41079ddb23d5486202d3674c54f082fe301eac1638803d17ed";
    assert_eq!(node_hash(sha256(b"l"), sha256(b"r")), hash(expected));
}

#[test]
fn accepted_leaves_differ_from_ignored_ones() {
    for (record, kind) in [(commit(), 1), (refusal(), 2), (claim(), 3), (close(), 4)] {
        let slot = Slot::Known(record);
        let of = |accepted| LeafEntry::new(&slot, Offset::new(1), c0(), accepted).as_bytes()[1];
        assert_eq!((of(false), of(true)), (kind, kind | 0x80));
    }
}
