//! The commerce backend.
fn main() {}
