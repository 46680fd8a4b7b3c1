//! Rebuilds this crate when a migration changes: `sqlx::migrate!` alone does not notice a new file.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
}
