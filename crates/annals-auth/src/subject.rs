//! The keys of data subjects: made before a command is decided, kept for at most a minute, rewrapped, destroyed.
//!
//! A key is 32 random bytes of the system's generator. Table `annals.subject_key` holds it wrapped by the
//! key-encryption key ([`KeyRing`]); row `''` is the app's own key, with which fingerprints of commands without
//! personal data are made: it is rewrapped, never replaced and never destroyed. A destroyed key leaves its row
//! behind, so that it is never made anew.
//!
//! *Invariant:* this crate alone names the table `subject_key`.

mod ring;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use annals_domain::{Ambient, DataSubject};
use aws_lc_rs::hmac;
use metrics::counter;
use sqlx::{PgConnection, PgPool};
use zeroize::Zeroizing;

use crate::{key_file, metrics as names};
pub use ring::{KeyRing, MAX_WRAPPING_KEYS};

/// How long a key is kept in memory, in ms. After that much time no node can hold a destroyed key any more.
pub const CACHED_MS: i64 = 60_000;
/// How many keys are kept in memory, unless said otherwise.
pub const CACHED_KEYS: u64 = 100_000;
/// The name of the app's own key.
const APP: &str = "";
/// How many rows one statement of a rewrapping reads.
const REWRAP_ROWS: i64 = 1_000;

/// Carries every key, wrapped as it is, and every row of a destroyed one, to the database of a copy of the log: its
/// records are read, and its fingerprints compared, with the same keys. Returns how many there are.
///
/// # Errors
/// Postgres.
pub async fn carry(from: &mut PgConnection, to: &mut PgConnection) -> Result<u64, annals_store::Error> {
    annals_store::carry::table(from, to, "subject_key").await
}

/// A data subject's key. Wiped from memory when the last holder lets it go.
pub struct Key {
    bytes: Zeroizing<[u8; 32]>,
    fingerprint: hmac::Key,
}

impl Key {
    fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self {
            fingerprint: hmac::Key::new(hmac::HMAC_SHA256, &*bytes),
            bytes,
        }
    }
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
    /// The same key, ready for HMAC-SHA-256.
    pub(crate) fn hmac(&self) -> &hmac::Key {
        &self.fingerprint
    }
    #[cfg(test)]
    pub(crate) fn of(byte: u8) -> Self {
        Self::new(Zeroizing::new([byte; 32]))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What there is of a data subject's key.
#[derive(Debug, Clone)]
pub enum SubjectKey {
    /// It can be used.
    Live(Arc<Key>),
    /// It was destroyed: what it sealed is erased.
    Destroyed,
}

/// Why a key cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// Postgres does not answer: 503, nothing happened. (A key that was being made may have been made: harmless.)
    #[error("the keys of data subjects cannot be read now: {0}")]
    Unavailable(Arc<annals_store::Error>),
    /// Postgres answers, and refuses.
    #[error("the keys of data subjects cannot be read: {0}")]
    Refused(Arc<annals_store::Error>),
    /// The row is wrapped by a key-encryption key that `auth.subject_key_file` does not hold.
    #[error("a key is wrapped by a key-encryption key that is not in auth.subject_key_file")]
    UnknownWrappingKey,
    /// The row was changed, or belongs to another data subject.
    #[error("a row of annals.subject_key is damaged or of another data subject")]
    Damaged,
    /// The app's own key may not be destroyed.
    #[error("the app's own key cannot be destroyed")]
    AppKey,
}

impl KeyError {
    /// Whether the same request may succeed later (503).
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<sqlx::Error> for KeyError {
    fn from(error: sqlx::Error) -> Self {
        // A pool is closed when this node ends: another one will answer.
        let ending = matches!(error, sqlx::Error::PoolClosed);
        let error = annals_store::Error::from(error);
        match ending || error.is_transient() {
            true => Self::Unavailable(Arc::new(error)),
            false => Self::Refused(Arc::new(error)),
        }
    }
}

/// The keys of all data subjects, over one pool. Cheap to clone.
#[derive(Clone)]
pub struct SubjectKeys(Arc<Shared>);

struct Shared {
    pool: PgPool,
    ring: RwLock<Arc<KeyRing>>,
    cache: moka::sync::Cache<Arc<str>, Kept>,
    ambient: Ambient,
}

#[derive(Clone)]
struct Kept {
    key: SubjectKey,
    since_ms: i64,
}

type Row = (Option<Vec<u8>>,);

impl SubjectKeys {
    /// Keys in the database of `pool`, wrapped by `ring`. The pool's database role needs SELECT on the table, to
    /// make keys INSERT, to destroy and rewrap them UPDATE.
    #[must_use]
    pub fn new(pool: PgPool, ring: KeyRing, cached_keys: u64, ambient: Ambient) -> Self {
        // The second bound counts on a clock that nobody sets back.
        let kept = Duration::from_millis(CACHED_MS.unsigned_abs());
        Self(Arc::new(Shared {
            pool,
            ring: RwLock::new(Arc::new(ring)),
            cache: moka::sync::Cache::builder()
                .max_capacity(cached_keys)
                .time_to_live(kept)
                .build(),
            ambient,
        }))
    }

    pub(crate) fn ambient(&self) -> &Ambient {
        &self.0.ambient
    }

    /// A data subject's key, made if there is none. To be called before the command is decided. Cached: no
    /// Postgres; else one read, and for a new data subject an insert.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn get_or_create(&self, subject: &DataSubject) -> Result<SubjectKey, KeyError> {
        self.get_or_make(subject.as_str()).await
    }

    /// The app's own key, made if there is none.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn app_key(&self) -> Result<Arc<Key>, KeyError> {
        match self.get_or_make(APP).await? {
            SubjectKey::Live(key) => Ok(key),
            SubjectKey::Destroyed => Err(KeyError::Damaged),
        }
    }

    /// The keys of many data subjects with one statement for those that are not cached. A data subject without a
    /// row is not in the answer.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn get_many(
        &self,
        subjects: impl IntoIterator<Item = DataSubject>,
    ) -> Result<HashMap<DataSubject, SubjectKey>, KeyError> {
        let mut keys = HashMap::new();
        let mut missing = Vec::new();
        for subject in subjects {
            match self.cached(subject.as_str()) {
                Some(key) => drop(keys.insert(subject, key)),
                None => missing.push(subject.as_str().to_owned()),
            }
        }
        if missing.is_empty() {
            return Ok(keys);
        }
        missing.sort_unstable();
        missing.dedup();
        let since_ms = self.0.ambient.now_ms();
        counter!(names::SUBJECT_KEY_READS).increment(1);
        let rows: Vec<(String, Option<Vec<u8>>)> = sqlx::query_as(
            "SELECT data_subject, wrapped_key FROM annals.subject_key WHERE data_subject = ANY($1)",
        )
        .bind(missing)
        .fetch_all(&self.0.pool)
        .await?;
        for (subject, wrapped) in rows {
            let key = self.keep(&subject, wrapped, since_ms)?;
            keys.insert(DataSubject::from_text(&subject), key);
        }
        Ok(keys)
    }

    /// Destroys a data subject's key for good; one that never had a key will never get one. Other nodes use the
    /// key for at most [`CACHED_MS`] more. Doing it twice does nothing twice.
    ///
    /// # Errors
    /// [`KeyError`]; `Unavailable` may have happened: do it again.
    pub async fn destroy(&self, subject: &DataSubject) -> Result<(), KeyError> {
        if subject.as_str() == APP {
            return Err(KeyError::AppKey);
        }
        sqlx::query(
            "INSERT INTO annals.subject_key (data_subject, wrapped_key, destroyed_at) VALUES ($1, NULL, now())
             ON CONFLICT (data_subject) DO UPDATE SET wrapped_key = NULL,
                 destroyed_at = coalesce(subject_key.destroyed_at, excluded.destroyed_at)",
        )
        .bind(subject.as_str())
        .execute(&self.0.pool)
        .await?;
        counter!(names::SUBJECT_KEYS_DESTROYED).increment(1);
        self.forget(subject);
        Ok(())
    }

    /// Drops a key from this node's memory.
    pub fn forget(&self, subject: &DataSubject) {
        self.0.cache.invalidate(subject.as_str());
    }

    /// Takes the key-encryption keys of `ring` from now on.
    pub fn use_ring(&self, ring: KeyRing) {
        *self.0.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Wraps every key that another key-encryption key wraps with the ring's first one. Once the former
    /// key-encryption key is thrown away, copies of its rows in backups cannot be read any more. How to rotate
    /// while nodes run: see [`KeyRing`].
    ///
    /// Can be repeated, and may run while keys are made and destroyed. Returns how many were wrapped anew.
    ///
    /// # Errors
    /// [`KeyError`]; what was done stays done.
    pub async fn rewrap(&self) -> Result<u64, KeyError> {
        let ring = self.ring();
        let mut done = 0;
        let mut after: Option<String> = None;
        loop {
            let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
                "SELECT data_subject, wrapped_key FROM annals.subject_key
                 WHERE wrapped_key IS NOT NULL AND ($1::text IS NULL OR data_subject > $1)
                 ORDER BY data_subject LIMIT $2",
            )
            .bind(after.as_deref())
            .bind(REWRAP_ROWS)
            .fetch_all(&self.0.pool)
            .await?;
            let Some((last, _)) = rows.last() else {
                return Ok(done);
            };
            after = Some(last.clone());
            done += self.rewrap_rows(&ring, rows).await?;
        }
    }

    async fn rewrap_rows(&self, ring: &KeyRing, rows: Vec<(String, Vec<u8>)>) -> Result<u64, KeyError> {
        let (mut subjects, mut former, mut wrapped) = (Vec::new(), Vec::new(), Vec::new());
        for (subject, old) in rows {
            if ring.is_current(&old) {
                continue;
            }
            wrapped.push(ring.wrap(&subject, &*ring.unwrap(&subject, &old)?));
            subjects.push(subject);
            former.push(old);
        }
        // Compared with what was read, so that a key destroyed meanwhile stays destroyed.
        let updated = sqlx::query(
            "UPDATE annals.subject_key AS row SET wrapped_key = new.wrapped
             FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS new (data_subject, former, wrapped)
             WHERE row.data_subject = new.data_subject AND row.wrapped_key = new.former",
        )
        .bind(subjects)
        .bind(former)
        .bind(wrapped)
        .execute(&self.0.pool)
        .await?;
        Ok(updated.rows_affected())
    }

    async fn get_or_make(&self, subject: &str) -> Result<SubjectKey, KeyError> {
        if let Some(key) = self.cached(subject) {
            return Ok(key);
        }
        let since_ms = self.0.ambient.now_ms();
        if let Some((wrapped,)) = self.read(subject).await? {
            return self.keep(subject, wrapped, since_ms);
        }
        let fresh = Zeroizing::new(key_file::random());
        let made: Option<Row> = sqlx::query_as(
            "INSERT INTO annals.subject_key (data_subject, wrapped_key) VALUES ($1, $2)
             ON CONFLICT (data_subject) DO NOTHING RETURNING wrapped_key",
        )
        .bind(subject)
        .bind(self.ring().wrap(subject, &fresh))
        .fetch_optional(&self.0.pool)
        .await?;
        let wrapped = match made {
            Some((wrapped,)) => {
                counter!(names::SUBJECT_KEYS_MADE).increment(1);
                wrapped
            }
            // Another was faster: its key is the key. Rows are never deleted, so it is there.
            None => self.read(subject).await?.ok_or(KeyError::Damaged)?.0,
        };
        self.keep(subject, wrapped, since_ms)
    }

    async fn read(&self, subject: &str) -> Result<Option<Row>, KeyError> {
        counter!(names::SUBJECT_KEY_READS).increment(1);
        let row = sqlx::query_as("SELECT wrapped_key FROM annals.subject_key WHERE data_subject = $1")
            .bind(subject)
            .fetch_optional(&self.0.pool)
            .await?;
        Ok(row)
    }

    fn ring(&self) -> Arc<KeyRing> {
        self.0.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cached(&self, subject: &str) -> Option<SubjectKey> {
        let kept = self.0.cache.get(subject)?;
        let age_ms = self.0.ambient.now_ms().saturating_sub(kept.since_ms);
        (0..CACHED_MS).contains(&age_ms).then_some(kept.key)
    }

    fn keep(&self, subject: &str, wrapped: Option<Vec<u8>>, since_ms: i64) -> Result<SubjectKey, KeyError> {
        let key = match wrapped {
            Some(wrapped) => SubjectKey::Live(Arc::new(Key::new(self.ring().unwrap(subject, &wrapped)?))),
            None => SubjectKey::Destroyed,
        };
        let kept = Kept {
            key: key.clone(),
            since_ms,
        };
        self.0.cache.insert(subject.into(), kept);
        Ok(key)
    }
}
