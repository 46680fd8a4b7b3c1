//! Time and randomness as one injected struct, so that tests and simulations decide both.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use annals_record::RecordId;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Where time and randomness come from. The real one lives in the composition root.
pub trait AmbientSource: Send + Sync {
    /// Milliseconds since 1970, UTC.
    fn now_ms(&self) -> i64;
    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);
}

/// Time and randomness. Cheap to clone.
#[derive(Clone)]
pub struct Ambient(Arc<dyn AmbientSource>);

impl Ambient {
    /// From any source.
    pub fn new(source: impl AmbientSource + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// A source that repeats itself: time begins at `now_ms` and stands until [`Fixed::advance_ms`] moves it,
    /// random bytes follow from `seed`. For tests and simulations.
    pub fn fixed(now_ms: i64, seed: u64) -> (Self, Arc<Fixed>) {
        let fixed = Arc::new(Fixed {
            now_ms: AtomicI64::new(now_ms),
            state: AtomicU64::new(seed),
        });
        (Self::new(fixed.clone()), fixed)
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    /// The time, in whole milliseconds.
    ///
    /// # Panics
    /// If the clock is some 260,000 years off.
    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.now_ms()).expect("a clock within chrono's range")
    }

    /// Random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    /// A new record id: UUIDv7 of now.
    pub fn record_id(&self) -> RecordId {
        RecordId::from_parts(u64::try_from(self.now_ms()).unwrap_or(0), self.random())
    }

    /// A random UUID (version 4).
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.random()).into_uuid()
    }
}

impl fmt::Debug for Ambient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ambient")
    }
}

/// A clock that stands and a generator that repeats itself.
pub struct Fixed {
    now_ms: AtomicI64,
    state: AtomicU64,
}

impl Fixed {
    /// Moves the clock; backwards too, as real clocks do.
    pub fn advance_ms(&self, by: i64) {
        self.now_ms.fetch_add(by, Ordering::Relaxed);
    }
}

impl AmbientSource for Arc<Fixed> {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let state = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes()[..chunk.len()]);
        }
    }
}
