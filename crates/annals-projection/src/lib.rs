//! Read models as SQL folders: waves, checkpoints, parking, builds beside each other.
//!
//! In reading order: [`manifest`] (what a folder says), [`build`] (its tables are made), [`lifecycle`] (which builds
//! there are, and which one is live), [`waves`] (how a batch is split), [`apply`] (a batch becomes rows, with its
//! checkpoints), [`parking`] (what cannot be applied), `gate` (what keeps batches and others apart), [`runner`] (a
//! node's part of it), [`mod@status`], `refold` (the log again, up to where a build is), [`mod@compare`], [`mod@diff`],
//! [`mod@attest`], [`lineage`], [`mod@check`] (tests of read models), [`metrics`].
//!
//! *Invariant:* nothing here answers queries; nothing here names the tables of the log.

pub mod apply;
pub mod attest;
pub mod build;
pub mod check;
pub mod compare;
pub mod diff;
pub mod fragment;
mod gate;
pub mod lifecycle;
pub mod lineage;
pub mod manifest;
pub mod metrics;
pub mod parking;
mod refold;
pub mod runner;
pub mod status;
pub mod waves;

pub use apply::{Applied, ApplyError, Closed, Delivery, Event, Limits, OpenError, OpenPersonal, Projector};
pub use build::{BuildError, Column, Columns, describe_columns};
pub use manifest::{
    Build, BuildId, Expand, Manifest, ManifestError, Name, Projections, Resource, Rows, StreamTemplate, Table,
};
pub use refold::{RefoldError, Source};
pub use runner::{Parts, Progress, ProjectionRunner, RunnerSettings};
