//! What a node does next, from the rows of the table, its folder, and what it runs. Pure.

use std::collections::BTreeSet;

use annals_record::Hash32;

use crate::lifecycle::{BuildRow, State};
use crate::manifest::BuildId;

/// One thing to be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Make the first build of a projection, from the folder.
    First(BuildId),
    /// Make the tables of a build that was asked for.
    Make(BuildId),
    /// Store the folder's files with a build that has none.
    Keep(BuildId),
    /// Say that the folder has other files than the build of its number.
    OtherFiles(BuildId),
    /// Feed a build; `beside`: it is not live, and has all of the log before it.
    Feed {
        /// Which.
        id: BuildId,
        /// Whether in large batches.
        beside: bool,
    },
    /// Feed it no longer.
    Stop(BuildId),
    /// Drop its tables; nothing of it runs here.
    Drop(BuildId),
    /// Replay what is parked.
    Resume(BuildId),
    /// Make the views of the live build.
    Views(BuildId),
}

/// The steps, in an order in which they can be done. `jobs` are builds for which one is under way still.
pub(super) fn steps(
    folder: &[(BuildId, Hash32)],
    rows: &[BuildRow],
    running: &BTreeSet<BuildId>,
    jobs: &BTreeSet<BuildId>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (id, digest) in folder {
        let of_name = || rows.iter().filter(|row| row.id.name == id.name);
        match of_name().find(|row| row.id == *id) {
            Some(row) if row.digest != digest.as_ref() => steps.push(Step::OtherFiles(id.clone())),
            Some(row) if !row.has_files => steps.push(Step::Keep(id.clone())),
            None if of_name().next().is_none() => steps.push(Step::First(id.clone())),
            Some(_) | None => {}
        }
    }
    for id in running {
        let fed = rows.iter().any(|row| row.id == *id && row.fed);
        if !fed {
            steps.push(Step::Stop(id.clone()));
        }
    }
    for row in rows {
        let id = || row.id.clone();
        let runs = running.contains(&row.id);
        if row.state == State::Asked {
            steps.push(Step::Make(id()));
        }
        if row.fed && !runs {
            let beside = row.state == State::Building;
            steps.push(Step::Feed { id: id(), beside });
        }
        if row.state == State::Dropping && !runs {
            steps.push(Step::Drop(id()));
        }
        if row.resume_asked_at.is_some() && row.fed && !jobs.contains(&row.id) {
            steps.push(Step::Resume(id()));
        }
        if row.views_due && row.live {
            steps.push(Step::Views(id()));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::{Build, Name};

    fn id(build: i32) -> BuildId {
        BuildId {
            name: Name::parse("orders").unwrap(),
            build: Build::new(build).unwrap(),
        }
    }

    fn digest(of: u8) -> Hash32 {
        Hash32::new([of; 32])
    }

    fn row(build: i32, state: State) -> BuildRow {
        BuildRow {
            id: id(build),
            digest: vec![u8::try_from(build).unwrap(); 32],
            state,
            live: state == State::Running,
            fed: matches!(state, State::Building | State::Running | State::Retired),
            has_files: true,
            views_due: false,
            resume_asked_at: None,
            resume_stream: None,
            switched_at: None,
        }
    }

    fn plan(folder: i32, rows: &[BuildRow], running: &[i32]) -> Vec<Step> {
        let folder = [(id(folder), digest(u8::try_from(folder).unwrap()))];
        let running = running.iter().map(|build| id(*build)).collect();
        steps(&folder, rows, &running, &BTreeSet::new())
    }

    #[test]
    fn the_first_build_is_made_by_itself_and_no_later_one() {
        assert_eq!(plan(1, &[], &[]), [Step::First(id(1))]);
        assert_eq!(plan(2, &[row(1, State::Running)], &[1]), []);
    }

    #[test]
    fn what_is_to_be_fed_is_fed_whatever_the_folder_says() {
        let mut retired = row(1, State::Retired);
        let rows = [retired.clone(), row(2, State::Running), row(3, State::Building)];
        let feed = |build, beside| Step::Feed {
            id: id(build),
            beside,
        };
        assert_eq!(
            plan(9, &rows, &[]),
            [feed(1, false), feed(2, false), feed(3, true)]
        );
        assert_eq!(plan(9, &rows, &[1, 2, 3]), []);
        retired.fed = false; // its grace has ended
        assert_eq!(
            plan(9, &[retired, row(2, State::Running)], &[1, 2]),
            [Step::Stop(id(1))]
        );
    }

    #[test]
    fn a_build_is_dropped_only_when_nothing_of_it_runs_here() {
        let rows = [row(1, State::Running), row(2, State::Dropping)];
        assert_eq!(plan(1, &rows, &[1, 2]), [Step::Stop(id(2))]);
        assert_eq!(plan(1, &rows, &[1]), [Step::Drop(id(2))]);
    }

    #[test]
    fn what_was_asked_is_made_and_resumed_once() {
        let mut live = row(1, State::Running);
        live.resume_asked_at = chrono::DateTime::from_timestamp_millis(1);
        live.views_due = true;
        let rows = [live, row(2, State::Asked)];
        assert_eq!(
            plan(1, &rows, &[1]),
            [Step::Resume(id(1)), Step::Views(id(1)), Step::Make(id(2))]
        );
        let running = BTreeSet::from([id(1)]);
        let busy = steps(&[], &rows, &running, &running);
        assert!(!busy.contains(&Step::Resume(id(1))));
    }

    #[test]
    fn other_files_under_a_taken_number_are_told_and_missing_files_kept() {
        let folder = [(id(1), digest(7))];
        let told = steps(
            &folder,
            &[row(1, State::Running)],
            &BTreeSet::from([id(1)]),
            &BTreeSet::new(),
        );
        assert_eq!(told, [Step::OtherFiles(id(1))]);
        let mut old = row(1, State::Running);
        old.has_files = false;
        assert_eq!(plan(1, &[old], &[1]), [Step::Keep(id(1))]);
    }
}
