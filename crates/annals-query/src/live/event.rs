//! Events and their ids.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use annals_record::Position;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Row;

/// The longest id that is read, bytes: 64 shards and more.
const MAX: usize = 4_096;

/// What a subscriber is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it holds once it has seen this.
    pub id: LiveId,
    /// What to do with the data.
    pub kind: Kind,
    /// JSON. `snapshot`: `{"data": [row…]}` in the order of the list; `change`: a row; `remove`: `{"key": "…"}`. A row is
    /// `{"key": "…", "version": 3, "data": {…}}`: the key as in the path, the version where each row comes from one
    /// stream.
    pub data: String,
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All rows: whatever was held before is forgotten.
    Snapshot,
    /// A row that is new or different.
    Change,
    /// A row that is gone, or no longer seen by this query and this caller.
    Remove,
}

impl Kind {
    /// `snapshot`, `change`, `remove`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Change => "change",
            Self::Remove => "remove",
        }
    }
}

impl Event {
    pub(crate) fn snapshot(id: LiveId, rows: &[Row]) -> Self {
        let length: usize = rows.iter().map(|row| row.data.len() + row.key.len() + 32).sum();
        let mut data = String::with_capacity(length + 16);
        data.push_str("{\"data\":[");
        for (at, row) in rows.iter().enumerate() {
            if at > 0 {
                data.push(',');
            }
            write_row(&mut data, row);
        }
        data.push_str("]}");
        let kind = Kind::Snapshot;
        Self { id, kind, data }
    }

    pub(crate) fn change(id: LiveId, row: &Row) -> Self {
        let mut data = String::with_capacity(row.data.len() + row.key.len() + 32);
        write_row(&mut data, row);
        let kind = Kind::Change;
        Self { id, kind, data }
    }

    pub(crate) fn remove(id: LiveId, key: &str) -> Self {
        let data = format!("{{\"key\":{}}}", json_text(key));
        let kind = Kind::Remove;
        Self { id, kind, data }
    }
}

fn write_row(data: &mut String, row: &Row) {
    data.push_str("{\"key\":");
    data.push_str(&json_text(&row.key));
    if let Some(version) = row.version {
        data.push_str(",\"version\":");
        data.push_str(&version.to_string());
    }
    data.push_str(",\"data\":");
    data.push_str(&row.data);
    data.push('}');
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What whoever has seen an event holds: `{positions};{digest}`, positions with commas between, the digest 16 bytes in
/// base64url.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveId {
    /// Of the snapshot of the database that the event came from.
    pub positions: Arc<[Position]>,
    pub(crate) digest: Digest,
}

/// A text that is no event's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of these events, which is `positions;digest` as in `0:1041,1:77;q83vEjRWeJCrze8SNFZ4kA`")]
pub struct LiveIdError;

impl fmt::Display for LiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, position) in self.positions.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{position}")?;
        }
        write!(f, ";{}", URL_SAFE_NO_PAD.encode(self.digest.0.to_be_bytes()))
    }
}

impl FromStr for LiveId {
    type Err = LiveIdError;

    fn from_str(text: &str) -> Result<Self, LiveIdError> {
        if text.len() > MAX {
            return Err(LiveIdError);
        }
        let (positions, digest) = text.split_once(';').ok_or(LiveIdError)?;
        let positions = positions.split(',').filter(|text| !text.is_empty());
        let positions: Result<Arc<[Position]>, _> = positions.map(Position::from_str).collect();
        let digest = URL_SAFE_NO_PAD.decode(digest).map_err(|_| LiveIdError)?;
        let digest: [u8; 16] = digest.try_into().map_err(|_| LiveIdError)?;
        Ok(Self {
            positions: positions.map_err(|_| LiveIdError)?,
            digest: Digest(u128::from_be_bytes(digest)),
        })
    }
}

/// Of one row: 16 bytes of a keyed hash of its resource, key, version and data.
pub(crate) type RowDigest = u128;

/// Of a set of rows: the sum of theirs modulo 2^128, so that one row more or less costs one addition. Nobody without the
/// key can make rows whose sums are alike.
///
/// **Source:** Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997 (AdHash); here keyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Digest(u128);

impl Digest {
    /// Of a set in which one row was exchanged; `None`: there is none.
    pub(crate) fn with(self, before: Option<RowDigest>, after: Option<RowDigest>) -> Self {
        Self(
            self.0
                .wrapping_sub(before.unwrap_or(0))
                .wrapping_add(after.unwrap_or(0)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        let ids = [
            "0:1041,1:77;q83vEjRWeJCrze8SNFZ4kA",
            ";AAAAAAAAAAAAAAAAAAAAAA",
            "3:5~2;AAAAAAAAAAAAAAAAAAAAAQ",
        ];
        for text in ids {
            assert_eq!(text.parse::<LiveId>().unwrap().to_string(), text);
        }
        let long = format!("{};AAAAAAAAAAAAAAAAAAAAAA", "0:1,".repeat(2_000));
        let wrong = ["", ";", "0:1", "0:1;", "0:1;AA", "x;AAAAAAAAAAAAAAAAAAAAAA", "0:1;AAAAAAAAAAAAAAAAAAAAAA;", &long];
        for text in wrong {
            assert_eq!(text.parse::<LiveId>(), Err(LiveIdError), "{text}");
        }
    }

    #[test]
    fn keys_are_escaped() {
        let id: LiveId = ";AAAAAAAAAAAAAAAAAAAAAA".parse().unwrap();
        assert_eq!(Event::remove(id, "a\"b").data, r#"{"key":"a\"b"}"#);
    }
}
