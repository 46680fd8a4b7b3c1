//! The append-only log: three dumb logs behind one trait, one fenced writer, one folding reader, the journal.
//!
//! *Invariant:* nothing here decides what counts; [`annals_record::fold`] does, for every reader alike.
//! *Invariant:* no other crate names rdkafka, or the tables `journal`, `log_meta`, `log_head`, `snapshot` and `checkpoint`.

// Tests inside and outside of the crate share their helpers.
#[cfg(test)]
extern crate self as annals_log;

mod checkpoint;
pub mod conformance;
pub mod copy;
pub mod faulty;
pub mod fragment;
pub mod indexer;
mod kafka;
mod log;
mod memory;
pub mod metrics;
pub mod postgres;
pub mod reader;
mod recent;
mod store;
pub mod testing;
pub mod writer;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use indexer::{Indexed, Indexer, IndexerSettings, Stopped};
pub use kafka::{BearerToken, KafkaError, KafkaLog, KafkaSettings, Sasl, ScramMechanism, Tls, TokenSource};
pub use log::{
    Appended, Appending, Description, Durability, Hashed, Log, LogError, LogKind, Placed, ReadLimits,
    SettingCheck,
};
pub use memory::{MemoryLog, MemoryStore, Plays};
pub use postgres::{
    JournalHead, LogIdentity, PgStreamStore, PostgresLog, PostgresSettings, PostgresTask, Wakes,
};
pub use reader::{
    Accepted, Actor, Batch, DecodedEvent, Entry, HaltReason, Halted, ReaderError, ReaderSettings, ShardReader,
};
pub use store::{KeyTrail, LoadRequest, Loaded, Snapshot, StoreError, StreamStore};
