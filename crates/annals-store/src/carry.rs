//! Carrying whole tables from one database to another, row for row: what a copy of a log takes along.
//!
//! Both databases have the same migrations, so columns stand in the same order. Rows never pass through Rust types:
//! the server's own binary format goes from one `COPY` into the other.

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::Error;

/// Puts every row of `table` of one database into the other, in place of what is there. Returns how many there are.
///
/// Call it inside a transaction of each: a consistent snapshot of several tables needs one on the source.
///
/// # Errors
/// As the driver says. Then the caller rolls back.
///
/// # Panics
/// If `table` is no plain name in schema `annals`: names come from the crates that own the tables.
pub async fn table(from: &mut PgConnection, to: &mut PgConnection, table: &str) -> Result<u64, Error> {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    assert!(
        !table.is_empty() && table.chars().all(plain),
        "`{table}` is no table's name"
    );
    let name = format!("annals.{table}");
    sqlx::query(AssertSqlSafe(format!("DELETE FROM {name}")))
        .execute(&mut *to)
        .await?;
    let mut rows = from
        .copy_out_raw(&format!("COPY {name} TO STDOUT (FORMAT binary)"))
        .await?;
    let mut copy = to
        .copy_in_raw(&format!("COPY {name} FROM STDIN (FORMAT binary)"))
        .await?;
    while let Some(bytes) = rows.try_next().await? {
        copy.send(bytes).await?;
    }
    Ok(copy.finish().await?)
}
