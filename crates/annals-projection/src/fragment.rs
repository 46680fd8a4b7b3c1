//! Pieces of SQL about builds and what is parked, for queries that must have one snapshot with their rows. What is put
//! in is SQL made by the program, never a caller's value.

/// All live builds of the projections in `$1` (`text[]`): name, build.
pub const LIVE_BUILDS: &str = "SELECT name, build FROM annals.projection WHERE live AND name = ANY($1)";

/// `FROM … AS p`: the live builds as a relation with the columns `name` and `build`.
#[must_use]
pub fn live_relation() -> &'static str {
    "FROM (SELECT name, build FROM annals.projection WHERE live) AS p"
}

/// A scalar: the number of the live build, null if there is none. `name` is an expression.
#[must_use]
pub fn live_build(name: &str) -> String {
    format!(
        "(SELECT \"#p\".build FROM annals.projection AS \"#p\" WHERE \"#p\".name = {name} AND \"#p\".live)"
    )
}

/// A scalar: `streams|events` that are parked, null if there are none. Both are expressions. Where nothing is parked,
/// which is usual, it costs one probe.
#[must_use]
pub fn parked(name: &str, build: &str) -> String {
    let from =
        format!("FROM annals.parked AS \"#k\" WHERE \"#k\".projection = {name} AND \"#k\".build = {build}");
    format!(
        "CASE WHEN EXISTS (SELECT {from}) \
         THEN (SELECT count(DISTINCT \"#k\".stream) || '|' || count(*) {from}) END"
    )
}
