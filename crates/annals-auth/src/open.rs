//! Many sealed values read at once: for projections with private columns, and for who may decrypt.

use std::collections::{HashMap, HashSet};

use annals_domain::{DataSubject, personal};
use metrics::counter;
use serde_json::Value;

use crate::metrics as names;
use crate::seal::SealedValue;
use crate::subject::{KeyError, SubjectKey, SubjectKeys};

/// What became of a sealed value.
#[derive(Debug, Clone, PartialEq)]
pub enum Opened {
    /// It reads.
    Plain(Value),
    /// Its data subject's key was destroyed.
    Erased,
    /// It does not read although nothing was erased: tampered with, another key's, or not a sealed value at all.
    /// In an audit report that is an exception.
    Wrong,
}

/// How many sealed values became what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Replaced by their plain value.
    pub plain: usize,
    /// Replaced by null: their key was destroyed.
    pub erased: usize,
    /// Replaced by null: they do not read.
    pub wrong: usize,
}

/// Opens sealed values. Cheap to clone.
#[derive(Clone)]
pub struct Opener {
    keys: SubjectKeys,
}

impl Opener {
    /// With keys over a pool whose database role may read them.
    #[must_use]
    pub fn new(keys: SubjectKeys) -> Self {
        Self { keys }
    }

    /// Opens sealed texts, with one statement for all keys that are not cached. One answer a text, in order.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn open_many(&self, texts: &[&str]) -> Result<Vec<Opened>, KeyError> {
        let sealed: Vec<_> = texts.iter().map(|text| SealedValue::parse(text)).collect();
        let keys = self.keys_of(sealed.iter().flatten()).await?;
        Ok(sealed.iter().map(|value| open(value.as_ref(), &keys)).collect())
    }

    /// Replaces every sealed value in stored JSON by its plain value, or by null where it is erased or wrong.
    ///
    /// Cancel safe: either all of `documents` are changed or none.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn open_in(&self, documents: &mut [Value]) -> Result<Tally, KeyError> {
        let mut texts = HashSet::new();
        documents.iter().for_each(|value| sealed_texts(value, &mut texts));
        let sealed: HashMap<String, SealedValue> = texts
            .into_iter()
            .filter_map(|text| SealedValue::parse(text).map(|value| (text.to_owned(), value)))
            .collect();
        let keys = self.keys_of(sealed.values()).await?;
        let mut tally = Tally::default();
        let mut replace = |text: &str| match open(sealed.get(text), &keys) {
            Opened::Plain(value) => {
                tally.plain += 1;
                Some(value)
            }
            Opened::Erased => {
                tally.erased += 1;
                None
            }
            Opened::Wrong => {
                tally.wrong += 1;
                None
            }
        };
        for document in documents {
            personal::replace_sealed(document, &mut replace);
        }
        Ok(tally)
    }

    async fn keys_of<'a>(
        &self,
        sealed: impl Iterator<Item = &'a SealedValue>,
    ) -> Result<HashMap<DataSubject, SubjectKey>, KeyError> {
        let subjects: HashSet<_> = sealed.map(|value| value.subject().clone()).collect();
        self.keys.get_many(subjects).await
    }
}

fn open(sealed: Option<&SealedValue>, keys: &HashMap<DataSubject, SubjectKey>) -> Opened {
    let opened = sealed.and_then(|value| match keys.get(value.subject())? {
        SubjectKey::Live(key) => value.open(key).map(Opened::Plain),
        SubjectKey::Destroyed => Some(Opened::Erased),
    });
    opened.unwrap_or_else(|| {
        counter!(names::WRONG_SEALS).increment(1);
        Opened::Wrong
    })
}

/// The texts that [`personal::replace_sealed`] will ask for.
fn sealed_texts<'a>(value: &'a Value, found: &mut HashSet<&'a str>) {
    match value {
        Value::Object(map) => {
            if map.len() == 1
                && let Some(Value::String(text)) = map.get(personal::SEALED_MEMBER)
            {
                found.insert(text);
            }
            map.values().for_each(|member| sealed_texts(member, found));
        }
        Value::Array(list) => list.iter().for_each(|item| sealed_texts(item, found)),
        _ => {}
    }
}
