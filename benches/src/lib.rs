//! Benchmarks of Annals.
