//! Deliberate mistakes, one at a time, so that the simulation can show that it finds each of them.
//!
//! Without the feature `planted`, which only the tests switch on, there are none: [`planted`] is then constantly false,
//! and the compiler removes every place that asks. What each one breaks is in `docs/simulation.md`.

/// One mistake. Each is asked for at the place that makes it, by [`planted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// A sender is answered when its record has landed, before the fold has accepted it.
    AcknowledgeBeforeFold,
    /// After Unknown a command is decided again without a claim in between.
    BlindRetry,
    /// An Unknown answer is ignored.
    IgnoreUnknown,
    /// What landed is folded whatever landed before it.
    NoGapCheck,
    /// A claimer is owner once its claim has landed, knowing the log up to the end seen before.
    ClaimReadToTheEnd,
    /// A claim of the wanted epoch is taken for one's own, whoever wrote it.
    ClaimByEpoch,
    /// Landings are taken for the oldest appends that are open.
    LandingsByOrder,
    /// The fold accepts what an earlier owner writes.
    EpochNotCompared,
    /// A rule's no is answered without a record.
    RefusalUnlogged,
    /// A failed precondition is answered without a record.
    MismatchUnlogged,
    /// "Nothing changed" is answered without a record.
    NothingUnlogged,
    /// A cold stream is put together without the writer's tail.
    LoadWithoutTail,
    /// A snapshot is taken while records are in flight.
    SpeculativeSnapshot,
    /// The rows behind a snapshot are chosen by version: refusals are lost.
    RowsByVersion,
    /// The tail may have been trimmed beyond what a load has read.
    LoadRacesTrim,
    /// A loaded stream takes in again what the journal held already.
    LoadedAheadOfFold,
    /// Pending commands are handed on before the fold has settled them.
    ForwardUnsettled,
    /// Keys age by the node's clock.
    KeysByWallClock,
    /// A stream is kept though a record of its own did not count.
    KeepAfterGhost,
    /// A stream is kept though another node's record of it counts.
    KeepAfterOther,
    /// A log that ends below what was folded is claimed all the same.
    ClaimShortLog,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::AcknowledgeBeforeFold,
        Self::BlindRetry,
        Self::IgnoreUnknown,
        Self::NoGapCheck,
        Self::ClaimReadToTheEnd,
        Self::ClaimByEpoch,
        Self::LandingsByOrder,
        Self::EpochNotCompared,
        Self::RefusalUnlogged,
        Self::MismatchUnlogged,
        Self::NothingUnlogged,
        Self::LoadWithoutTail,
        Self::SpeculativeSnapshot,
        Self::RowsByVersion,
        Self::LoadRacesTrim,
        Self::LoadedAheadOfFold,
        Self::ForwardUnsettled,
        Self::KeysByWallClock,
        Self::KeepAfterGhost,
        Self::KeepAfterOther,
        Self::ClaimShortLog,
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Plant;

    thread_local! {
        static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
    }

    /// Plants a mistake in everything that this thread runs from now on, or none.
    pub fn plant(plant: Option<Plant>) {
        PLANTED.set(plant);
    }

    /// Whether this thread is to make this mistake.
    #[must_use]
    pub fn planted(plant: Plant) -> bool {
        PLANTED.get() == Some(plant)
    }
}

#[cfg(feature = "planted")]
pub use switch::{plant, planted};

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "planted"))]
#[inline]
#[must_use]
pub const fn planted(_: Plant) -> bool {
    false
}
