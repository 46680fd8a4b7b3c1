//! The gate of a build: batches pass it together, whoever needs the build to stand still passes it alone.
//!
//! *Invariant:* while somebody is in the gate alone, no batch of the build is under way and none begins. Advisory
//! locks of a transaction: they end with it, however it ends.

use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use crate::manifest::BuildId;

/// The key of a build's advisory lock: the first eight bytes of SHA-256("annals/parking/v1" ‖ 0x00 ‖ build).
pub(crate) fn key(id: &BuildId) -> i64 {
    let hash = Sha256::digest(format!("annals/parking/v1\0{id}"));
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(bytes)
}

/// Waits for the batches under way, and keeps others out until the transaction ends. Those that come later wait
/// behind it, so it gets in.
pub(crate) async fn alone(connection: &mut PgConnection, id: &BuildId) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(key(id))
        .execute(connection)
        .await
        .map(drop)
}
