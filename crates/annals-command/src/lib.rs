//! The shard engine: load, decide, append, answer.
