//! What a seed draws before its first step: which log, how many nodes, which limits, which faults and how often.

use annals_command::EngineSettings;
use annals_log::Plays;
use annals_log::writer::WriterSettings;

use super::rng::Rng;

/// What becomes of the log itself, past every rule of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It loses its end, as after an unclean fail-over or a restore.
    Truncated,
    /// Another record stands where one was accepted.
    Replaced,
    /// A newer program has written to it, in a format that is not known here.
    Newer,
}

/// How often things go wrong, of a thousand chances each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// An append is answered with Unknown: before, while or after it happens.
    pub(crate) unknown: usize,
    /// What is left of an append whose answer was given never happens.
    pub(crate) dropped: usize,
    /// Nothing is written, and the answer says so.
    pub(crate) not_written: usize,
    /// Kafka: a record of an append is missing, and what follows it lands.
    pub(crate) hole: usize,
    /// Kafka: a record lands twice.
    pub(crate) duplicate: usize,
    /// Kafka: somebody else's bytes in the topic.
    pub(crate) foreign: usize,
    /// A node goes away without a word.
    pub(crate) crash: usize,
    /// A node stands still for a while, and goes on as a zombie.
    pub(crate) pause: usize,
    /// The lease moves to another node.
    pub(crate) lease: usize,
    /// A node is told a lease that is not so.
    pub(crate) lie: usize,
    /// A node's clock jumps.
    pub(crate) skew: usize,
    /// An operator ends the shard with a close, once.
    pub(crate) close: usize,
    /// Journal reads and snapshots fail.
    pub(crate) store: usize,
    /// What was read from the journal takes longer to arrive.
    pub(crate) slow: usize,
}

/// Everything that a run is about.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) plays: Plays,
    pub(crate) nodes: usize,
    pub(crate) streams: usize,
    pub(crate) open_commands: usize,
    pub(crate) steps: usize,
    pub(crate) settings: EngineSettings,
    pub(crate) faults: Faults,
    /// How the log is tampered with, and in front of which step.
    pub(crate) cut: Option<(Cut, usize)>,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let plays = rng.pick(&[Plays::Kafka, Plays::Kafka, Plays::Postgres]);
        // One run in ten is without any fault: what fails there is plain.
        let calm = rng.chance(100);
        let mut rate = |often: &[usize]| if calm { 0 } else { rng.pick(often) };
        let mut faults = Faults {
            unknown: rate(&[0, 20, 60]),
            dropped: rate(&[0, 200, 500]),
            not_written: rate(&[0, 0, 20]),
            hole: rate(&[0, 0, 40]),
            duplicate: rate(&[0, 0, 20]),
            foreign: rate(&[0, 0, 8]),
            crash: rate(&[0, 2, 6]),
            pause: rate(&[0, 4, 10]),
            lease: rate(&[0, 8, 24]),
            lie: rate(&[0, 0, 200]),
            skew: rate(&[0, 10, 30]),
            close: rate(&[0, 0, 0, 0, 3]),
            store: rate(&[0, 0, 100]),
            slow: rate(&[0, 0, 900]),
        };
        if plays == Plays::Postgres {
            (faults.hole, faults.duplicate, faults.foreign) = (0, 0, 0);
        }
        // Seldom, since it ends the run: nothing is promised beyond a halt.
        let cut = if rng.chance(80) {
            let cut = if plays == Plays::Postgres {
                Cut::Truncated
            } else {
                rng.pick(&[Cut::Truncated, Cut::Replaced, Cut::Newer])
            };
            Some((cut, 60 + rng.below(90)))
        } else {
            None
        };
        Self {
            plays,
            nodes: rng.pick(&[1, 2, 2, 3]),
            streams: rng.pick(&[1, 1, 2, 3]),
            open_commands: rng.pick(&[1, 3, 5]),
            steps: rng.pick(&[150, 250, 400]),
            settings: settings(rng, plays),
            faults,
            cut,
        }
    }
}

/// Small limits, so that a short run reaches them.
fn settings(rng: &mut Rng, plays: Plays) -> EngineSettings {
    EngineSettings {
        mailbox: rng.pick(&[2, 1_024, 1_024]),
        inflight_bytes: rng.pick(&[1_500, 1 << 20, 1 << 20]),
        tail_bytes: rng.pick(&[6_000, 1 << 20, 1 << 20]),
        cache_bytes: rng.pick(&[1, 1, 2_000, 1 << 20]),
        snapshot_every: rng.pick(&[1, 2, 5, 100]),
        key_lifetime_s: rng.pick(&[1, 2, 86_400]),
        keys_per_stream: rng.pick(&[2, 4, 1_000, 1_000]),
        load_streams: rng.pick(&[1, 256]),
        loads_in_flight: rng.pick(&[1, 2]),
        verify_loads: rng.pick(&[0, 2]),
        writer: WriterSettings {
            appends_in_flight: rng.pick(&[1, 2, 3]),
            append_records: rng.pick(&[1, 2, 100]),
            append_bytes: 1 << 20,
            idle_ms: rng.pick(&[500, 600_000]),
            keep_tail: plays == Plays::Kafka,
        },
        ..EngineSettings::default()
    }
}
