//! Resources over read models: filters, cursors, waiting for freshness.
