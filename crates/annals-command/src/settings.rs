//! The limits of command handling, each with its unit and default.

use annals_log::writer::WriterSettings;

/// Section `command` of the configuration, and what of `log` concerns the engine.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Commands that are open at one engine task, from their arrival to their answer; beyond it 503 `overloaded`.
    pub mailbox: usize,
    /// How much longer than an append answers may take, ms; beyond it 503 `overloaded`.
    pub queue_ms: u64,
    /// Bytes of a shard's records that are decided and not settled; beyond it 503 `overloaded`.
    pub inflight_bytes: usize,
    /// Bytes of a shard's accepted records that the journal does not have; beyond it 503 `shard-unavailable`.
    pub tail_bytes: usize,
    /// How long the log may owe a shard an answer, ms; beyond it new commands get 503 `log-unavailable`.
    pub stall_ms: u64,
    /// Bytes of streams in memory, a node.
    pub cache_bytes: usize,
    /// Records of a stream between two snapshots.
    pub snapshot_every: u32,
    /// How long an idempotency key is remembered, seconds of log time.
    pub key_lifetime_s: u32,
    /// For how many records of its stream a key is remembered.
    pub keys_per_stream: usize,
    /// How many refusals a minute refill a caller's bucket.
    pub refusals_per_minute: u32,
    /// How many refusals fit it.
    pub refusal_burst: u32,
    /// The largest record that the log takes, bytes.
    pub record_bytes: usize,
    /// At most this many streams in one cold load.
    pub load_streams: usize,
    /// At most this many cold loads at once.
    pub loads_in_flight: usize,
    /// One cold load in so many is replayed in full and compared; 0: none.
    pub verify_loads: u64,
    /// A shard that comes back is read on from where this node was, unless so many records are missing.
    pub catch_up_records: u64,
    /// Of each shard's writer.
    pub writer: WriterSettings,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            mailbox: 1024,
            queue_ms: 100,
            inflight_bytes: 16 << 20,
            tail_bytes: 64 << 20,
            stall_ms: 5_000,
            cache_bytes: 256 << 20,
            snapshot_every: 100,
            key_lifetime_s: 86_400,
            keys_per_stream: 65_536,
            refusals_per_minute: 600,
            refusal_burst: 5_000,
            record_bytes: 900 << 10,
            load_streams: 256,
            loads_in_flight: 2,
            verify_loads: 1_000,
            catch_up_records: 10_000,
            writer: WriterSettings::default(),
        }
    }
}

impl EngineSettings {
    /// Says what is wrong with a setting, by its name.
    ///
    /// # Errors
    /// The first setting that cannot work, and what could.
    pub fn validate(&self) -> Result<(), String> {
        let positive = [
            ("command.mailbox", self.mailbox),
            ("command.inflight_bytes", self.inflight_bytes),
            ("command.tail_bytes", self.tail_bytes),
            ("command.cache_bytes", self.cache_bytes),
            ("command.keys_per_stream", self.keys_per_stream),
            ("log.record_bytes", self.record_bytes),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(format!("{name} must be at least 1")),
            None if self.snapshot_every == 0 => Err("command.snapshot_every must be at least 1".to_owned()),
            None if self.queue_ms == 0 => Err("command.queue_ms must be at least 1".to_owned()),
            None if self.stall_ms == 0 => Err("command.stall_ms must be at least 1".to_owned()),
            None => Ok(()),
        }
    }
}
