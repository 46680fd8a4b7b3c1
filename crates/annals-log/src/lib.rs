//! The append-only log on memory, Postgres and Kafka, its fenced writer, its reader, the journal and snapshots.
