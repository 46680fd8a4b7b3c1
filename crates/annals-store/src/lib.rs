//! What any crate needs of Postgres in general: pools, database roles, migrations, leases, error
//! classes, coalesced notifications, and the private cluster of `dev` and the tests.
//!
//! Knows nothing of records, commands or projections. In reading order:
//!
//! - [`error`]: what a failure means: may it be tried again, may it have happened;
//! - [`pool`]: a pool with time-outs and one database role;
//! - [`migrate`]: the embedded migrations, up, down and their status;
//! - [`roles`]: database roles, and whether one may do more than its own work;
//! - [`lease`]: who should do what;
//! - [`clock`]: how far this machine's clock is off the database's;
//! - [`notify`]: coalesced notifications, and a listener that says when it may have missed some;
//! - [`cluster`]: a private PostgreSQL server in a folder;
//! - [`carry`]: whole tables from one database to another;
//! - [`metrics`]: names of what is counted here;
//! - `testing` (feature `testing`): a database of its own for each test.

pub mod carry;
pub mod clock;
pub mod cluster;
pub mod error;
pub mod lease;
pub mod metrics;
pub mod migrate;
pub mod notify;
pub mod pool;
pub mod roles;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Error, ErrorClass, Happened};
