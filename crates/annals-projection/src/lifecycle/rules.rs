//! What may be done to which build, decided from the rows alone. Pure.

use annals_record::Offset;
use annals_record::Shard;

use super::{BuildRow, Direction};
use crate::build::{self, BuildError};
use crate::manifest::{Build, BuildId, Manifest};

/// Where a build is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Asked for; its tables are not there yet.
    Asked,
    /// Fed beside the live one.
    Building,
    /// The live one.
    Running,
    /// It was live; fed on until its grace ends, so that going back is instant.
    Retired,
    /// Its tables could not be made.
    Failed,
    /// Its tables are about to go.
    Dropping,
}

/// No, as things stand: the code is a word, the text says what would be needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// `not_caught_up`.
    pub code: &'static str,
    /// In words, without a full stop.
    pub text: String,
}

/// What a wish for a new build comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rebuild {
    /// It is being built already.
    UnderWay(Build),
    /// It failed: once more.
    Again(Build),
    /// A new one.
    New(Build),
}

impl State {
    /// As the table has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "asked" => Some(Self::Asked),
            "building" => Some(Self::Building),
            "running" => Some(Self::Running),
            "retired" => Some(Self::Retired),
            "failed" => Some(Self::Failed),
            "dropping" => Some(Self::Dropping),
            _ => None,
        }
    }
}

impl Refusal {
    pub(super) fn live(id: &BuildId) -> Self {
        Self {
            code: "live",
            text: format!("build {id} is the live one: switch to another build first"),
        }
    }

    pub(super) fn behind(id: &BuildId, behind: &[(Shard, u64)]) -> Self {
        let records: u64 = behind.iter().map(|(_, records)| records).sum();
        let furthest = behind.iter().max_by_key(|(_, records)| *records);
        let at = furthest.map_or(String::new(), |(shard, records)| {
            format!(", {records} of them on shard {shard}")
        });
        Self {
            code: "not_caught_up",
            text: format!(
                "build {id} is {records} records behind the live one{at}: wait until it has caught up, as `projections status` shows"
            ),
        }
    }

    pub(super) fn parked(id: &BuildId, streams: &[String]) -> Self {
        Self {
            code: "parked",
            text: format!(
                "build {id} has parked {} streams that the live one has not, the first is {}: mend what parked them and `projections resume`, or drop the build",
                streams.len(),
                streams.first().map_or("", String::as_str)
            ),
        }
    }
}

/// Which build a wish for a new one means.
pub(super) fn rebuild(manifest: &Manifest, rows: &[BuildRow]) -> Result<Rebuild, RebuildError> {
    let same = |row: &&BuildRow| row.digest == manifest.digest.as_ref();
    let under_way = rows
        .iter()
        .find(|row| matches!(row.state, State::Asked | State::Building));
    if let Some(row) = under_way {
        if same(&row) {
            return Ok(Rebuild::UnderWay(row.id.build));
        }
        let text = format!(
            "build {} is being built from other files: switch to it, or drop it first",
            row.id
        );
        return Err(RebuildError::Refused(Refusal {
            code: "being_built",
            text,
        }));
    }
    let highest = rows.iter().map(|row| row.id.build).max();
    let next = highest.and_then(|highest| Build::new(highest.get().saturating_add(1)));
    match rows.iter().find(|row| row.id.build == manifest.id.build) {
        Some(row) if !same(&row) && row.state != State::Failed => {
            let highest = highest.unwrap_or(manifest.id.build);
            Err(RebuildError::Files(build::other_files(
                manifest,
                &row.digest,
                highest,
            )))
        }
        Some(row) if row.state == State::Failed && same(&row) => Ok(Rebuild::Again(row.id.build)),
        // Of these very files there is a build: the same once more, under a number of its own.
        Some(_) => Ok(Rebuild::New(next.unwrap_or(manifest.id.build))),
        None if highest.is_none_or(|highest| highest < manifest.id.build) => {
            Ok(Rebuild::New(manifest.id.build))
        }
        None => Ok(Rebuild::New(next.unwrap_or(manifest.id.build))),
    }
}

/// Why there is no new build.
#[derive(Debug)]
pub(super) enum RebuildError {
    Refused(Refusal),
    Files(BuildError),
}

impl From<RebuildError> for super::LifecycleError {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Refused(refusal) => refusal.into(),
            RebuildError::Files(error) => error.into(),
        }
    }
}

/// The live build, and the one that is to be it.
pub(super) fn target(rows: &[BuildRow], direction: Direction) -> Result<(&BuildRow, &BuildRow), Refusal> {
    let refuse = |code, text: &str| Refusal {
        code,
        text: text.to_owned(),
    };
    let Some(live) = rows.iter().find(|row| row.live) else {
        return Err(refuse(
            "not_built",
            "no build is live yet: the first one goes live by itself",
        ));
    };
    let others = || rows.iter().filter(|row| !row.live);
    let target = match direction {
        Direction::To(build) => others().find(|row| row.id.build == build),
        Direction::Forward => others()
            .filter(|row| matches!(row.state, State::Building | State::Asked))
            .max_by_key(|row| row.id.build),
        Direction::Back => others()
            .filter(|row| row.state == State::Retired)
            .max_by_key(|row| row.switched_at),
    };
    let Some(target) = target else {
        return Err(match direction {
            Direction::To(build) if live.id.build == build => refuse("live", "it is the live build already"),
            Direction::To(_) => refuse("not_built", "there is no build of that number"),
            Direction::Forward => refuse(
                "not_built",
                "no new build is there: ask for one with `projections rebuild`",
            ),
            Direction::Back => refuse("no_former", "no former build is there to go back to"),
        });
    };
    match target.state {
        State::Building | State::Running | State::Retired => Ok((live, target)),
        State::Asked => Err(refuse("not_caught_up", "its tables are not made yet")),
        State::Failed => Err(refuse("not_built", "its tables could not be made")),
        State::Dropping => Err(refuse("not_built", "it is being dropped")),
    }
}

/// By how many records one build is behind another, by shard; only where it is.
pub(super) fn behind(of: &[(Shard, Offset)], than: &[(Shard, Offset)]) -> Vec<(Shard, u64)> {
    let at = |shard: Shard| {
        let found = of.iter().find(|(other, _)| *other == shard);
        found.map_or(0, |(_, next)| next.get())
    };
    than.iter()
        .map(|(shard, next)| (*shard, next.get().saturating_sub(at(*shard))))
        .filter(|(_, records)| *records > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::manifest::Name;

    fn manifest(build: i32, table: &str) -> Manifest {
        let toml = format!(
            "name = \"x\"\nbuild = {build}\nrows = \"shared\"\n[[table]]\nname = \"{table}\"\nkey = [\"k\"]\n"
        );
        let files = BTreeMap::from([
            ("projection.toml".to_owned(), toml),
            (
                "schema.sql".to_owned(),
                format!("CREATE TABLE {table} (k text PRIMARY KEY);"),
            ),
            (
                "on/a.b.sql".to_owned(),
                format!("INSERT INTO {table} SELECT key FROM events"),
            ),
        ]);
        let id = BuildId {
            name: Name::parse("x").unwrap(),
            build: Build::new(build).unwrap(),
        };
        Manifest::of_files(&id, files).unwrap()
    }

    fn row(of: &Manifest, build: i32, state: State) -> BuildRow {
        BuildRow {
            id: BuildId {
                name: of.id.name.clone(),
                build: Build::new(build).unwrap(),
            },
            digest: of.digest.as_ref().to_vec(),
            state,
            live: state == State::Running,
            fed: true,
            has_files: true,
            views_due: false,
            resume_asked_at: None,
            resume_stream: None,
            switched_at: None,
        }
    }

    fn number(build: i32) -> Build {
        Build::new(build).unwrap()
    }

    #[test]
    fn a_new_number_is_a_new_build_and_the_same_files_get_the_next_one() {
        let (old, new) = (manifest(1, "t"), manifest(2, "t"));
        let rows = [row(&old, 1, State::Running)];
        assert_eq!(rebuild(&new, &rows).unwrap(), Rebuild::New(number(2)));
        assert_eq!(rebuild(&old, &rows).unwrap(), Rebuild::New(number(2)));
        let rows = [row(&old, 1, State::Running), row(&new, 2, State::Building)];
        assert_eq!(rebuild(&new, &rows).unwrap(), Rebuild::UnderWay(number(2)));
        let rows = [row(&old, 1, State::Retired), row(&new, 2, State::Running)];
        assert_eq!(rebuild(&new, &rows).unwrap(), Rebuild::New(number(3)));
        let rows = [row(&old, 1, State::Running), row(&new, 2, State::Failed)];
        assert_eq!(rebuild(&new, &rows).unwrap(), Rebuild::Again(number(2)));
        assert_eq!(rebuild(&new, &[]).unwrap(), Rebuild::New(number(2)));
    }

    #[test]
    fn other_files_under_a_taken_number_are_refused_with_one_that_is_free() {
        let (one, other) = (manifest(1, "t"), manifest(1, "u"));
        let rows = [row(&one, 1, State::Retired), row(&one, 4, State::Running)];
        let Err(RebuildError::Files(error)) = rebuild(&other, &rows) else {
            panic!("it was not refused");
        };
        assert!(error.to_string().contains("projection.toml to 5"), "{error}");
        let rows = [row(&one, 1, State::Running), row(&one, 2, State::Building)];
        let Err(RebuildError::Refused(refusal)) = rebuild(&manifest(3, "u"), &rows) else {
            panic!("two builds at once");
        };
        assert_eq!(refusal.code, "being_built");
    }

    #[test]
    fn a_switch_goes_to_the_newest_and_a_rollback_to_the_one_before() {
        let of = manifest(1, "t");
        let mut rows = vec![
            row(&of, 1, State::Retired),
            row(&of, 2, State::Retired),
            row(&of, 3, State::Running),
            row(&of, 4, State::Building),
        ];
        rows[0].switched_at = chrono::DateTime::from_timestamp_millis(1_000);
        rows[1].switched_at = chrono::DateTime::from_timestamp_millis(2_000);
        let to = |direction| target(&rows, direction).map(|(live, to)| (live.id.build, to.id.build));
        assert_eq!(to(Direction::Forward), Ok((number(3), number(4))));
        assert_eq!(to(Direction::Back), Ok((number(3), number(2))));
        assert_eq!(to(Direction::To(number(1))), Ok((number(3), number(1))));
        assert_eq!(to(Direction::To(number(3))).unwrap_err().code, "live");
        assert_eq!(to(Direction::To(number(9))).unwrap_err().code, "not_built");
        let rows = [row(&of, 1, State::Running)];
        assert_eq!(target(&rows, Direction::Back).unwrap_err().code, "no_former");
        assert_eq!(target(&rows, Direction::Forward).unwrap_err().code, "not_built");
    }

    #[test]
    fn behind_is_what_any_shard_lacks() {
        let at = |places: &[(u32, u64)]| -> Vec<(Shard, Offset)> {
            places
                .iter()
                .map(|(shard, next)| (Shard::new(*shard), Offset::new(*next)))
                .collect()
        };
        assert!(behind(&at(&[(0, 5), (1, 9)]), &at(&[(0, 5), (1, 7)])).is_empty());
        assert_eq!(
            behind(&at(&[(0, 5)]), &at(&[(0, 6), (1, 3)])),
            [(Shard::new(0), 1), (Shard::new(1), 3)]
        );
    }
}
