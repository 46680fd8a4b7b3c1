//! How a snapshot's keys and state share the column `state`.
//!
//! ```text
//! 0x01 ‖ u32be(number of keys) ‖ for each key, oldest first: u64be(hash) ‖ u64be(offset) ‖ i64be(time ms) ‖ state as JSON
//! ```

use annals_record::Offset;
use bytes::Bytes;

use crate::KeyTrail;

/// The form above.
const FORM: u8 = 1;
const KEY_BYTES: usize = 24;

/// The column's bytes.
pub(super) fn encode(keys: &[KeyTrail], state: &[u8]) -> Vec<u8> {
    let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    // A stream remembers 65,536 keys; if there were ever more than 4 billion, the newest are kept.
    let keys = &keys[keys.len() - usize::try_from(count).unwrap_or(keys.len())..];
    let mut bytes = Vec::with_capacity(5 + KEY_BYTES * keys.len() + state.len());
    bytes.push(FORM);
    bytes.extend_from_slice(&count.to_be_bytes());
    for key in keys {
        bytes.extend_from_slice(&key.hash.to_be_bytes());
        bytes.extend_from_slice(&key.offset.get().to_be_bytes());
        bytes.extend_from_slice(&key.time_ms.to_be_bytes());
    }
    bytes.extend_from_slice(state);
    bytes
}

/// Keys and state; `None` if the bytes are of no form that this program knows. Such a snapshot is passed over.
pub(super) fn decode(bytes: &[u8]) -> Option<(Vec<KeyTrail>, Bytes)> {
    let (&[FORM], rest) = bytes.split_first_chunk::<1>()? else {
        return None;
    };
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
    let (keys, state) = rest.split_at_checked(count.checked_mul(KEY_BYTES)?)?;
    let keys = keys.as_chunks::<KEY_BYTES>().0.iter().map(key).collect();
    Some((keys, Bytes::copy_from_slice(state)))
}

fn key(bytes: &[u8; KEY_BYTES]) -> KeyTrail {
    let [mut hash, mut offset, mut time] = [[0; 8]; 3];
    hash.copy_from_slice(&bytes[..8]);
    offset.copy_from_slice(&bytes[8..16]);
    time.copy_from_slice(&bytes[16..]);
    KeyTrail {
        hash: u64::from_be_bytes(hash),
        offset: Offset::new(u64::from_be_bytes(offset)),
        time_ms: i64::from_be_bytes(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_into_a_column_and_back() {
        let keys = [3, u64::MAX].map(|hash| KeyTrail {
            hash,
            offset: Offset::new(hash - 1),
            time_ms: -7,
        });
        for keys in [&keys[..], &[]] {
            let (decoded, state) = decode(&encode(keys, b"{\"a\":1}")).unwrap();
            assert_eq!((decoded.as_slice(), &state[..]), (keys, &b"{\"a\":1}"[..]));
        }
    }

    #[test]
    fn other_forms_and_torn_ones_are_passed_over() {
        for bytes in [&b""[..], b"{\"a\":1}", &[2, 0, 0, 0, 0], &[1, 0, 0, 0, 1, 9]] {
            assert_eq!(decode(bytes), None);
        }
    }
}
