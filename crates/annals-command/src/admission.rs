//! How many commands an engine's task lets in, so that what is let in is not late: above its capacity a node says no at
//! once instead of slowing down.
//!
//! Measured is how long answers take, over windows of [`WINDOW_MS`] in which something was open, and the fastest append of
//! late, which no queue made slower. Where the rest of the time is more than `command.queue_ms`, no more is let in than would be answered
//! within it: by Little's law what is open, and the time, shrink together. Where it is less than half of that, half as much
//! again. So commands queue behind the log as long as they share its appends, and no longer. A log that stood still (it
//! hiccups, its leader moves, a shard is being claimed) says nothing of the capacity: the mailbox alone bounds that.
//!
//! Decides without a clock or a lock; [`Gate`] is the one number that senders look at.
//!
//! Source: Little, "A proof for the queuing formula L = λW", 1961; that what is under way is no queue, Nichols and Jacobson,
//! "Controlling queue delay", 2012.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How long a window is at least, ms.
const WINDOW_MS: u64 = 100;
/// A log that answered nothing for so long, ms, and for four times `command.queue_ms`, stood still.
const SILENT_MS: u64 = 1_000;
/// Windows that say nothing after that: what came meanwhile is answered in them.
const AFTER_SILENCE: u32 = 2;
/// So many windows an append is remembered at least: a log may be moved farther away.
const EPOCH: u32 = 64;
/// So many are always let in: fewer would not fill an append.
const LEAST: usize = 32;

/// Finds how many commands may be open.
#[derive(Debug)]
pub(crate) struct Admission {
    most: usize,
    queue_ms: u64,
    limit: usize,
    /// How long a command may wait now: `queue_ms`, and what an append takes.
    target_ms: u64,
    /// When it was told last, and what was open since then.
    told: Option<(i64, usize)>,
    /// How long something has been open without any answer, ms.
    silent_ms: u64,
    /// So many windows are not looked at.
    skip: u32,
    fastest: Fastest,
    window: Window,
}

#[derive(Debug, Default, Clone, Copy)]
struct Window {
    /// How long something was open, ms.
    busy_ms: u64,
    /// What was open, times how long, commands × ms.
    area: u64,
    answered: Spent,
}

/// The fastest append of this epoch, ms, and of the one before it.
#[derive(Debug, Default, Clone, Copy)]
struct Fastest {
    now_ms: Option<u64>,
    before_ms: Option<u64>,
    windows: u32,
}

impl Fastest {
    fn take(&mut self, append_ms: Option<u64>) {
        self.now_ms = append_ms.into_iter().chain(self.now_ms).min();
    }

    fn ms(&self) -> u64 {
        self.now_ms.into_iter().chain(self.before_ms).min().unwrap_or(0)
    }

    fn window_ends(&mut self) {
        self.windows += 1;
        if self.windows == EPOCH {
            *self = Self {
                now_ms: None,
                before_ms: self.now_ms,
                windows: 0,
            };
        }
    }
}

/// Commands, and a time that each of them spent.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Spent {
    /// How many.
    pub(crate) count: u64,
    /// Their times added up, ms.
    pub(crate) ms: u64,
}

impl Spent {
    pub(crate) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.ms = self.ms.saturating_add(other.ms);
    }

    fn mean_ms(self) -> u64 {
        self.ms / self.count.max(1)
    }
}

impl Admission {
    /// Lets in `most` until more is known.
    pub(crate) fn new(most: usize, queue_ms: u64) -> Self {
        Self {
            most,
            queue_ms,
            limit: most,
            target_ms: queue_ms,
            told: None,
            silent_ms: 0,
            skip: 0,
            fastest: Fastest::default(),
            window: Window::default(),
        }
    }

    /// Takes in that `open` commands are open now, and what has ended since the last time: answers with the time since
    /// their commands came, and the fastest append. Returns how many may be open.
    pub(crate) fn observe(
        &mut self,
        now_ms: i64,
        open: usize,
        answered: Spent,
        append_ms: Option<u64>,
    ) -> usize {
        let (since_ms, was_open) = self.told.replace((now_ms, open)).unwrap_or((now_ms, 0));
        let passed = match was_open {
            0 => 0,
            _ => u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or(0),
        };
        let window = &mut self.window;
        window.busy_ms = window.busy_ms.saturating_add(passed);
        window.area = window
            .area
            .saturating_add(number(was_open).saturating_mul(passed));
        window.answered.add(answered);
        self.fastest.take(append_ms);
        self.silent_ms = self.silent_ms.saturating_add(passed);
        if answered.count > 0 {
            if self.silent_ms >= SILENT_MS.max(self.queue_ms.saturating_mul(4)) {
                self.skip = AFTER_SILENCE;
            }
            self.silent_ms = 0;
        }
        if window.busy_ms >= WINDOW_MS && window.answered.count > 0 {
            let window = std::mem::take(window);
            self.fastest.window_ends();
            match self.skip {
                0 => self.conclude(&window),
                _ => self.skip -= 1,
            }
        }
        self.limit
    }

    fn conclude(&mut self, window: &Window) {
        self.target_ms = self.queue_ms.saturating_add(self.fastest.ms());
        let waited_ms = window.answered.mean_ms();
        if waited_ms > self.target_ms {
            let fits = (window.area / window.busy_ms).saturating_mul(self.target_ms) / waited_ms;
            let fits = usize::try_from(fits).unwrap_or(usize::MAX);
            self.limit = fits.max(LEAST).min(self.limit.max(LEAST)).min(self.most);
        } else if waited_ms <= self.target_ms / 2 {
            self.limit = self.limit.saturating_add(self.limit / 2 + 1).min(self.most);
        }
    }

    /// Whether a command that has come so long ago and is not decided yet is better refused: only while more is open
    /// than may be, since it was let in before that was known.
    pub(crate) fn is_late(&self, waited_ms: i64, open: usize) -> bool {
        open > self.limit && u64::try_from(waited_ms).unwrap_or(0) > self.target_ms
    }
}

/// Commands that are open at a task, and how many may be.
#[derive(Debug)]
pub(crate) struct Gate {
    open: AtomicUsize,
    limit: AtomicUsize,
}

/// A command's place among them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entered<'a>(&'a Gate);

impl Gate {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        }
    }

    /// Lets a command in, or says no.
    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        let entered = Entered(self);
        // Dropped, it gives back what it took.
        (before < self.limit.load(Ordering::Acquire)).then_some(entered)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.open() >= self.limit.load(Ordering::Acquire)
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Release);
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A log that takes what waits in one append at a time: so long for each append, and for each command in it.
    struct Server {
        admission: Admission,
        base_us: u64,
        each_us: u64,
        now_ms: i64,
        /// When they came.
        waiting: VecDeque<i64>,
        under_way: Vec<i64>,
        ends_us: u64,
        began_ms: i64,
        waits_ms: Vec<i64>,
        shed: usize,
    }

    impl Server {
        fn new(queue_ms: u64, base_us: u64, each_us: u64) -> Self {
            Self {
                admission: Admission::new(1_024, queue_ms),
                base_us,
                each_us,
                now_ms: 0,
                waiting: VecDeque::new(),
                under_way: Vec::new(),
                ends_us: 0,
                began_ms: 0,
                waits_ms: Vec::new(),
                shed: 0,
            }
        }

        fn open(&self) -> usize {
            self.waiting.len() + self.under_way.len()
        }

        /// One ms in which so many come.
        fn step(&mut self, come: usize, stands: bool) {
            self.now_ms += 1;
            let now_us = u64::try_from(self.now_ms).expect("positive") * 1_000;
            let (mut answered, mut append_ms) = (Spent::default(), None);
            if stands {
                self.ends_us += 1_000;
            } else if !self.under_way.is_empty() && self.ends_us <= now_us {
                let count = number(self.under_way.len());
                let took = u64::try_from(self.now_ms - self.began_ms).expect("positive");
                append_ms = Some(took);
                let waits: Vec<i64> = self.under_way.drain(..).map(|came| self.now_ms - came).collect();
                let ms = u64::try_from(waits.iter().sum::<i64>()).expect("positive");
                answered = Spent { count, ms };
                self.waits_ms.extend(waits);
            }
            let limit = self
                .admission
                .observe(self.now_ms, self.open(), answered, append_ms);
            for _ in 0..come {
                match self.open() < limit {
                    true => self.waiting.push_back(self.now_ms),
                    false => self.shed += 1,
                }
            }
            if self.under_way.is_empty() && !self.waiting.is_empty() && !stands {
                self.under_way = self.waiting.drain(..).collect();
                self.began_ms = self.now_ms;
                self.ends_us = now_us + self.base_us + self.each_us * number(self.under_way.len());
            }
        }

        fn run(&mut self, ms: usize, a_ms: usize) {
            for _ in 0..ms {
                self.step(a_ms, false);
            }
        }
    }

    #[test]
    fn at_three_times_the_capacity_what_is_let_in_is_not_late_and_the_capacity_is_used() {
        // 1,000 commands a second; 3,000 come.
        let mut server = Server::new(100, 2_000, 1_000);
        server.run(3_000, 3);
        server.waits_ms.clear();
        server.shed = 0;
        server.run(10_000, 3);
        let worst = server.waits_ms.iter().max().copied().unwrap_or(0);
        assert!(worst <= 300, "{worst} ms");
        let done = server.waits_ms.len();
        assert!(done >= 9_000, "{done} in 10 s");
        assert!(server.shed >= 19_000, "{} were shed", server.shed);
    }

    #[test]
    fn a_log_whose_appends_grow_with_the_load_is_not_taken_for_one_that_is_far_away() {
        // 80 commands a second, 12 ms each, as a thin line to the log has it; 250 come.
        let mut server = Server::new(800, 5_000, 12_000);
        for n in 0..30_000 {
            server.step(usize::from(n % 4 == 0), false);
            if n == 10_000 {
                server.waits_ms.clear();
            }
        }
        let worst = server.waits_ms.iter().max().copied().unwrap_or(0);
        assert!(worst <= 2_400, "{worst} ms");
        let done = server.waits_ms.len();
        assert!(done >= 1_500, "{done} in 20 s");
    }

    #[test]
    fn a_burst_that_fits_the_mailbox_and_a_log_that_stands_still_for_a_while_shed_nothing() {
        let mut server = Server::new(100, 2_000, 100);
        server.run(2_000, 1);
        server.step(800, false);
        server.run(2_000, 1);
        assert_eq!(server.shed, 0, "a burst");
        // 300 commands come meanwhile.
        for n in 0..3_000 {
            server.step(usize::from(n % 10 == 0), true);
        }
        server.run(2_000, 1);
        assert_eq!(server.shed, 0, "a log that stands still");
    }

    #[test]
    fn a_log_that_is_far_away_is_no_queue() {
        // 80 ms there and back, however many.
        let mut server = Server::new(100, 80_000, 1);
        server.run(10_000, 5);
        assert_eq!(server.shed, 0);
        let worst = server.waits_ms.iter().max().copied().unwrap_or(0);
        assert!(worst <= 165, "{worst} ms: the append under way, and its own");
    }

    #[test]
    fn when_the_load_goes_everything_is_let_in_again() {
        let mut server = Server::new(100, 2_000, 1_000);
        server.run(3_000, 3);
        for n in 0..4_000 {
            server.step(usize::from(n % 10 == 0), false);
        }
        assert_eq!(server.admission.limit, 1_024);
    }

    #[test]
    fn what_was_let_in_before_too_much_was_known_to_be_too_much_is_late() {
        let mut admission = Admission::new(1_024, 100);
        assert!(!admission.is_late(5_000, 1_000), "nothing is known");
        admission.observe(0, 1_000, Spent::default(), None);
        let slow = Spent { count: 1, ms: 5_000 };
        assert_eq!(admission.observe(200, 990, slow, None), LEAST);
        assert!(admission.is_late(101, 990));
        assert!(!admission.is_late(100, 990), "in time");
        assert!(!admission.is_late(5_000, LEAST), "what is left has to be done");
    }

    #[test]
    fn a_gate_lets_in_as_many_as_it_says() {
        let gate = Gate::new(2);
        let (first, second) = (gate.enter(), gate.enter());
        assert!(first.is_some() && second.is_some() && gate.is_full());
        assert!(gate.enter().is_none());
        drop(first);
        assert!(!gate.is_full());
        gate.set_limit(1);
        assert!(gate.enter().is_none());
        drop(second);
        assert!(gate.enter().is_some());
        assert_eq!(gate.open(), 0);
    }
}
