//! Which command comes next: every order's way to its goal, from whatever was there before. No I/O, no clock.
//!
//! ```text
//! nothing ─place─► placed ··checkout··► confirmed ─ship─► shipped ─deliver─► delivered ··capture··► done
//!                                          └ done, if TPC-H says O or P
//! ```
//!
//! The dots are what others do, and this reads. An order is *open* from its `place` until it is done; so many are
//! open at most. News may come late and out of order (a page of a list is older than an answer): an order never goes
//! back.

use std::collections::{BTreeSet, VecDeque};

use crate::order::Status;

use super::plan::Goal;

/// A step of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `orders/place`.
    Place,
    /// `orders/ship`.
    Ship,
    /// `orders/deliver`.
    Deliver,
}

/// A command to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Which order of the plan.
    pub order: usize,
    /// What to do with it.
    pub step: Step,
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Accepted, or `already_placed`.
    Yes,
    /// `wrong_status`: the order is there.
    Is(Status),
    /// Another rejection, by its code.
    No(String),
}

/// How far an order is known to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Nothing,
    Placed,
    Confirmed,
    Shipped,
    Delivered,
    /// Rejected, cancelled, returned, or refused a step: it goes no further.
    Off,
}

impl From<Status> for Seen {
    fn from(status: Status) -> Self {
        match status {
            Status::Placed => Self::Placed,
            Status::Confirmed => Self::Confirmed,
            Status::Shipped => Self::Shipped,
            Status::Delivered => Self::Delivered,
            Status::Rejected | Status::Cancelled | Status::Returned => Self::Off,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Case {
    goal: Goal,
    seen: Seen,
    captured: bool,
    open: bool,
}

impl Case {
    fn is_done(&self) -> bool {
        match self.goal {
            _ if self.seen == Seen::Off => true,
            Goal::Confirmed => self.seen >= Seen::Confirmed,
            Goal::Delivered => self.seen >= Seen::Delivered && self.captured,
        }
    }

    /// The step that is due, if the next one is ours.
    fn due(&self) -> Option<Step> {
        match (self.goal, self.seen) {
            (_, Seen::Nothing) => Some(Step::Place),
            (Goal::Delivered, Seen::Confirmed) => Some(Step::Ship),
            (Goal::Delivered, Seen::Shipped) => Some(Step::Deliver),
            (Goal::Confirmed | Goal::Delivered, _) => None,
        }
    }
}

/// All orders on their way.
#[derive(Debug)]
pub struct Desk {
    cases: Vec<Case>,
    most_open: usize,
    open: usize,
    done: usize,
    /// No order before this one is still to be placed, but for those under way.
    next_place: usize,
    /// Due steps after `place`, in the order in which they fell due.
    due: VecDeque<Job>,
    /// Orders that wait for the checkout.
    unconfirmed: BTreeSet<usize>,
    /// Delivered orders that wait for their money.
    uncaptured: BTreeSet<usize>,
    refusals: Vec<(Job, String)>,
}

impl Desk {
    /// Orders of which nothing is known yet.
    pub fn new(goals: impl IntoIterator<Item = Goal>, most_open: usize) -> Self {
        let case = |goal| Case {
            goal,
            seen: Seen::Nothing,
            captured: false,
            open: false,
        };
        Self {
            cases: goals.into_iter().map(case).collect(),
            most_open,
            open: 0,
            done: 0,
            next_place: 0,
            due: VecDeque::new(),
            unconfirmed: BTreeSet::new(),
            uncaptured: BTreeSet::new(),
            refusals: Vec::new(),
        }
    }

    /// An order was read with this status. True if that is news.
    pub fn saw(&mut self, order: usize, status: Status) -> bool {
        self.advance(order, |case| case.seen = case.seen.max(status.into()))
    }

    /// An order's payment was read as `captured`. True if that is news.
    pub fn saw_captured(&mut self, order: usize) -> bool {
        self.advance(order, |case| case.captured = true)
    }

    /// The next command to send; each is given out once.
    pub fn next_job(&mut self) -> Option<Job> {
        while let Some(job) = self.due.pop_front() {
            // Somebody else may have done it meanwhile.
            if self.cases[job.order].due() == Some(job.step) {
                return Some(job);
            }
        }
        while self.open < self.most_open && self.next_place < self.cases.len() {
            let order = self.next_place;
            self.next_place += 1;
            let case = &mut self.cases[order];
            if case.seen == Seen::Nothing {
                case.open = true;
                self.open += 1;
                return Some(Job {
                    order,
                    step: Step::Place,
                });
            }
        }
        None
    }

    /// What came of a job. A status short of the step's own says that the step can never be done.
    pub fn answered(&mut self, job: Job, done: &Done) {
        let reached = match job.step {
            Step::Place => Seen::Placed,
            Step::Ship => Seen::Shipped,
            Step::Deliver => Seen::Delivered,
        };
        let seen = match done {
            Done::Yes => reached,
            Done::Is(status) if Seen::from(*status) >= reached => (*status).into(),
            Done::Is(status) => {
                self.refusals.push((job, format!("wrong_status {status:?}")));
                Seen::Off
            }
            Done::No(code) => {
                self.refusals.push((job, code.clone()));
                Seen::Off
            }
        };
        self.advance(job.order, |case| case.seen = case.seen.max(seen));
    }

    fn advance(&mut self, order: usize, change: impl FnOnce(&mut Case)) -> bool {
        let before = self.cases[order];
        change(&mut self.cases[order]);
        let case = self.cases[order];
        if case.seen == before.seen && case.captured == before.captured {
            return false;
        }
        if case.seen != before.seen
            && let Some(step @ (Step::Ship | Step::Deliver)) = case.due()
        {
            self.due.push_back(Job { order, step });
        }
        let open = case.seen != Seen::Nothing && !case.is_done();
        self.open = self.open + usize::from(open) - usize::from(before.open);
        self.cases[order].open = open;
        self.done += usize::from(case.is_done()) - usize::from(before.is_done());
        keep(&mut self.unconfirmed, order, case.seen == Seen::Placed);
        keep(
            &mut self.uncaptured,
            order,
            case.seen == Seen::Delivered && !case.is_done(),
        );
        true
    }

    /// Orders to read until they are confirmed, or turned down.
    pub fn unconfirmed(&self) -> impl Iterator<Item = usize> {
        self.unconfirmed.iter().copied()
    }
    /// Delivered orders whose payments are to be read until they are captured.
    pub fn uncaptured(&self) -> impl Iterator<Item = usize> {
        self.uncaptured.iter().copied()
    }
    /// How many checkouts are open.
    pub fn open(&self) -> usize {
        self.open
    }
    /// How many orders are done, however they ended.
    pub fn done(&self) -> usize {
        self.done
    }
    /// Whether all are.
    pub fn is_done(&self) -> bool {
        self.done == self.cases.len()
    }
    /// Steps that were refused, with the code.
    pub fn refusals(&self) -> &[(Job, String)] {
        &self.refusals
    }
}

fn keep(set: &mut BTreeSet<usize>, order: usize, kept: bool) {
    if kept {
        set.insert(order);
    } else {
        set.remove(&order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Goal = Goal::Delivered;
    const O: Goal = Goal::Confirmed;

    fn job(order: usize, step: Step) -> Option<Job> {
        Some(Job { order, step })
    }

    /// Does every job and lets the others do theirs, until nothing is left; the jobs in their order.
    fn run(desk: &mut Desk) -> Vec<Job> {
        let mut jobs = Vec::new();
        while !desk.is_done() {
            let before = (jobs.len(), desk.done());
            while let Some(job) = desk.next_job() {
                assert!(desk.open() <= desk.most_open);
                jobs.push(job);
                desk.answered(job, &Done::Yes);
            }
            for order in desk.unconfirmed().collect::<Vec<_>>() {
                assert!(desk.saw(order, Status::Confirmed));
            }
            for order in desk.uncaptured().collect::<Vec<_>>() {
                assert!(desk.saw_captured(order));
            }
            assert_ne!(before, (jobs.len(), desk.done()), "it stands still");
        }
        assert_eq!((desk.open(), desk.next_job()), (0, None));
        jobs
    }

    #[test]
    fn takes_each_order_to_its_goal() {
        let mut desk = Desk::new([F, O], 500);
        assert_eq!(desk.next_job(), job(0, Step::Place));
        assert_eq!(desk.next_job(), job(1, Step::Place));
        assert_eq!(desk.next_job(), None);
        for order in [0, 1] {
            let step = Step::Place;
            desk.answered(Job { order, step }, &Done::Yes);
        }
        assert_eq!(desk.unconfirmed().collect::<Vec<_>>(), [0, 1]);
        desk.saw(0, Status::Confirmed);
        desk.saw(1, Status::Confirmed);
        assert_eq!((desk.open(), desk.done()), (1, 1));
        let ship = desk.next_job().unwrap();
        assert_eq!(Some(ship), job(0, Step::Ship));
        assert_eq!(desk.next_job(), None);
        desk.answered(ship, &Done::Yes);
        let deliver = desk.next_job().unwrap();
        assert_eq!(Some(deliver), job(0, Step::Deliver));
        // A late page does not take it back.
        assert!(!desk.saw(0, Status::Placed));
        desk.answered(deliver, &Done::Yes);
        assert!(!desk.is_done());
        assert_eq!(desk.uncaptured().collect::<Vec<_>>(), [0]);
        desk.saw_captured(0);
        assert!(desk.is_done());
    }

    #[test]
    fn goes_on_from_whatever_was_read() {
        use Status::{Confirmed, Delivered, Placed, Shipped};
        let found = [
            None,
            Some(Placed),
            Some(Confirmed),
            Some(Shipped),
            Some(Delivered),
        ];
        for captured in [false, true] {
            for (at, status) in found.into_iter().enumerate() {
                let mut desk = Desk::new([F, O], 500);
                if let Some(status) = status {
                    desk.saw(0, status);
                    if captured {
                        desk.saw_captured(0);
                    }
                }
                let jobs = run(&mut desk);
                let steps: Vec<Step> = jobs
                    .iter()
                    .filter(|job| job.order == 0)
                    .map(|job| job.step)
                    .collect();
                let left: &[Step] = match at {
                    0 => &[Step::Place, Step::Ship, Step::Deliver],
                    1 | 2 => &[Step::Ship, Step::Deliver],
                    3 => &[Step::Deliver],
                    _ => &[],
                };
                assert_eq!(steps, left, "{status:?}");
            }
        }
    }

    #[test]
    fn a_second_run_over_what_is_done_sends_nothing() {
        let mut desk = Desk::new([F, O, F], 500);
        run(&mut desk);
        let mut again = Desk::new([F, O, F], 500);
        for (order, status) in [Status::Delivered, Status::Confirmed, Status::Delivered]
            .into_iter()
            .enumerate()
        {
            again.saw(order, status);
        }
        assert_eq!(again.next_job(), None);
        again.saw_captured(0);
        again.saw_captured(2);
        assert!(again.is_done());
    }

    #[test]
    fn keeps_no_more_open_than_it_may() {
        let goals = (0..50).map(|n| if n % 3 == 0 { F } else { O });
        let mut desk = Desk::new(goals, 7);
        for order in 10..20 {
            desk.saw(order, Status::Placed);
        }
        // What a killed run left open comes first.
        assert_eq!((desk.open(), desk.next_job()), (10, None));
        for order in 10..20 {
            desk.saw(order, Status::Rejected);
        }
        assert_eq!(
            run(&mut desk)
                .iter()
                .filter(|job| job.step == Step::Place)
                .count(),
            40
        );
        assert_eq!(desk.done(), 50);
    }

    #[test]
    fn what_was_done_before_counts_as_done() {
        let mut desk = Desk::new([F], 1);
        let place = desk.next_job().unwrap();
        desk.answered(place, &Done::Yes);
        desk.saw(0, Status::Confirmed);
        let ship = desk.next_job().unwrap();
        desk.answered(ship, &Done::Is(Status::Delivered));
        assert_eq!((desk.next_job(), desk.uncaptured().count()), (None, 1));
        desk.saw_captured(0);
        assert!(desk.is_done() && desk.refusals().is_empty());
    }

    #[test]
    fn an_order_that_goes_wrong_holds_up_nothing_and_is_told() {
        let mut desk = Desk::new([F, F, F], 1);
        let first = desk.next_job().unwrap();
        desk.answered(first, &Done::No("date_in_future".to_owned()));
        let second = desk.next_job().unwrap();
        desk.answered(second, &Done::Yes);
        desk.saw(1, Status::Rejected);
        let third = desk.next_job().unwrap();
        desk.answered(third, &Done::Yes);
        desk.saw(2, Status::Confirmed);
        let ship = desk.next_job().unwrap();
        desk.answered(ship, &Done::Is(Status::Placed));
        assert!(desk.is_done());
        let codes: Vec<_> = desk
            .refusals()
            .iter()
            .map(|(job, code)| (job.order, code.as_str()))
            .collect();
        assert_eq!(codes, [(0, "date_in_future"), (2, "wrong_status Placed")]);
    }
}
