//! The append-only log: three dumb logs behind one trait, one fenced writer, one folding reader, the journal.
//!
//! *Invariant:* nothing here decides what counts; [`annals_record::fold`] does, for every reader alike.
//! *Invariant:* no other crate names rdkafka, or the tables `journal`, `log_meta`, `log_head`, `snapshot` and `checkpoint`.

mod checkpoint;
mod log;
pub mod reader;
mod store;
pub mod writer;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use log::{
    Appended, Appending, Description, Durability, Log, LogError, LogKind, Placed, ReadLimits, SettingCheck,
};
pub use reader::{Accepted, Actor, Batch, DecodedEvent, Entry};
pub use store::{KeyTrail, LoadRequest, Loaded, Snapshot, StoreError, StreamStore};
