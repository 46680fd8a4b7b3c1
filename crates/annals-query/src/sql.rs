//! Statements: rows, the live builds, their checkpoints and what is parked, all in one, hence in one snapshot.
//!
//! A single statement of READ COMMITTED has one snapshot. It names the build's own schema, and says which build is
//! live in that same snapshot; whoever runs it throws the rows away if that is another one.
//!
//! *Invariant:* no value of a caller is in the text, so a text is a shape, prepared once per connection.
//!
//! Names that begin with `#` cannot be columns, hence cannot be taken for one.

mod live;
mod page;
mod row;

use std::fmt::Write;

use annals_log::fragment as log_fragment;
use annals_projection::fragment as projection_fragment;
use sqlx::Postgres;
use sqlx::postgres::PgArguments;

use crate::access::{Access, Private, Rows};
use crate::request::{Expanded, Prepared, Selection};
use crate::resource::Resource;

pub(crate) use live::live_statement;

type PgQuery = sqlx::query::Query<'static, Postgres, PgArguments>;

/// A statement and its values, `$1` first.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) binds: Vec<Bind>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bind {
    /// Text that is cast where it is used.
    Text(String),
    /// The same for an array.
    Texts(Vec<String>),
    /// A bigint.
    Number(i64),
}

impl Bind {
    /// Adds the value to a query.
    pub(crate) fn add(query: PgQuery, bind: Self) -> PgQuery {
        match bind {
            Self::Text(text) => query.bind(text),
            Self::Texts(texts) => query.bind(texts),
            Self::Number(number) => query.bind(number),
        }
    }
}

/// The first columns of every statement: the state of each source, in the order of [`Prepared::sources`]. Then
/// `data`; for a row `version`; for a page `rows`, `last`, `count`.
pub(crate) fn statement(prepared: &Prepared) -> Statement {
    let mut builder = Builder::default();
    let states = sources(&mut builder, prepared);
    match &prepared.selection {
        Selection::Row(key) => builder.row(prepared, key, &states),
        Selection::Page(page) => builder.page(prepared, page, &states),
    }
    Statement {
        sql: builder.sql,
        binds: builder.binds,
    }
}

/// Writes `SELECT` and the state of each source, and gives what these come from.
fn sources(builder: &mut Builder, prepared: &Prepared) -> String {
    builder.sql.push_str("SELECT ");
    let mut states = String::new();
    for (at, (projection, build)) in prepared.sources().into_iter().enumerate() {
        let (columns, from) = state(at, projection, build);
        let _ = write!(builder.sql, "{columns}, ");
        let _ = write!(states, "{}{from}", if at == 0 { "" } else { " CROSS JOIN " });
    }
    states
}

/// Without order, limit and anything around it: whether the filters of a page have an index.
pub(crate) fn filters_alone(prepared: &Prepared) -> Statement {
    match &prepared.selection {
        Selection::Row(_) => statement(prepared),
        Selection::Page(page) => page::filtered(prepared, page),
    }
}

/// What entity tags and positions are made of: the columns of a [`crate::freshness::State`], and what they come from,
/// one line as `#c{at}`. The projection's name is plain. Arrays and an `EXISTS` in front of the counts: this is run
/// with every query, and texts took as long as all the rest (measured).
fn state(at: usize, projection: &str, build: i32) -> (String, String) {
    let name = format!("'{projection}'");
    let live = projection_fragment::live_build(&name);
    let reader = format!("'projection/{projection}/{build}'");
    state_of(at, &live, &name, &build.to_string(), &reader)
}

/// The same for a row `p` of the live builds.
pub(crate) fn state_of_row() -> (String, String) {
    let reader = "'projection/' || p.name || '/' || p.build";
    state_of(0, "p.build", "p.name", "p.build", reader)
}

fn state_of(at: usize, live: &str, name: &str, build: &str, reader: &str) -> (String, String) {
    let alias = format!("\"#c{at}\"");
    let parked = projection_fragment::parked(name, build);
    let columns = format!("{live}, {parked}, {alias}.shards, {alias}.nexts");
    let from = log_fragment::checkpoints(reader, &alias);
    (columns, from)
}

/// A statement under construction.
#[derive(Debug, Default)]
struct Builder {
    sql: String,
    binds: Vec<Bind>,
}

impl Builder {
    /// Adds a value, and gives the number of its parameter.
    fn bind(&mut self, bind: Bind) -> usize {
        self.binds.push(bind);
        self.binds.len()
    }

    /// A value of a column's type, as an expression.
    fn value(&mut self, resource: &Resource, column: usize, value: &str) -> String {
        let at = self.bind(Bind::Text(value.to_owned()));
        format!("${at}::{}", resource.columns[column].ty.cast())
    }

    /// `FROM … WHERE …` without what is asked for: the resource's condition, and the caller's rows.
    fn from(&mut self, resource: &Resource, access: &Access) -> String {
        let definition = &resource.definition;
        let mut sql = format!(
            "FROM {} AS \"{}\" WHERE ({})",
            resource.table_sql(),
            definition.table,
            definition.condition
        );
        match &access.rows {
            Rows::All => {}
            Rows::None => sql.push_str(" AND false"),
            Rows::Own(owner) => match self.is_owner(resource, &definition.table, owner) {
                Some(condition) => {
                    let _ = write!(sql, " AND {condition}");
                }
                None => sql.push_str(" AND false"),
            },
        }
        sql
    }

    /// Whether a row is this owner's; `None` if the table has no owner, or its owners cannot be called so.
    fn is_owner(&mut self, resource: &Resource, alias: &str, owner: &str) -> Option<String> {
        let column = resource.owner?;
        let owner = resource.columns[column].ty.parse(owner)?;
        let value = self.value(resource, column, &owner);
        Some(format!("{} = {value}", place(resource, alias, column)))
    }

    /// A row of `alias` as JSON: the columns to show, and the expansions joined as `#x0`, `#x1` …
    fn json(
        &mut self,
        resource: &Resource,
        access: &Access,
        alias: &str,
        fields: &[usize],
        expand: &[Expanded],
    ) -> String {
        let hidden = self.hidden(resource, access, alias, fields);
        let mut columns = Vec::with_capacity(fields.len() + expand.len());
        for &field in fields {
            let column = &resource.columns[field];
            let shown = column.ty.shown(&place(resource, alias, field));
            let shown = match (&hidden, column.private) {
                (Hidden::Nothing, _) | (_, false) => shown,
                (Hidden::Private, true) => "NULL".to_owned(),
                (Hidden::Unless(condition), true) => format!("CASE WHEN {condition} THEN {shown} END"),
            };
            columns.push(format!("{shown} AS \"{}\"", column.name));
        }
        for (at, expanded) in expand.iter().enumerate() {
            columns.push(format!("\"#x{at}\".\"#data\" AS \"{}\"", expanded.name));
        }
        format!(
            "(SELECT row_to_json(\"#d\") FROM (SELECT {}) AS \"#d\")",
            columns.join(", ")
        )
    }

    fn hidden(&mut self, resource: &Resource, access: &Access, alias: &str, fields: &[usize]) -> Hidden {
        if fields.iter().all(|&field| !resource.columns[field].private) {
            return Hidden::Nothing;
        }
        match (&access.private, &access.rows) {
            (Private::All, _) => Hidden::Nothing,
            (Private::None, _) => Hidden::Private,
            // Only own rows are there anyway.
            (Private::Own(owner), Rows::Own(rows)) if owner == rows => Hidden::Nothing,
            (Private::Own(owner), _) => match self.is_owner(resource, alias, owner) {
                Some(condition) => Hidden::Unless(condition),
                None => Hidden::Private,
            },
        }
    }

    /// Joins each expansion's row as JSON: at most one, since it is found by its whole key.
    fn joins(&mut self, resource: &Resource, alias: &str, expand: &[Expanded]) -> String {
        let mut sql = String::new();
        for (at, expanded) in expand.iter().enumerate() {
            let target = &expanded.resource;
            let table = target.definition.table.as_str();
            let all: Vec<usize> = (0..target.columns.len()).collect();
            let json = self.json(target, &expanded.access, table, &all, &[]);
            let from = self.from(target, &expanded.access);
            let there = place(target, table, target.key[0]);
            let here = place(resource, alias, expanded.column);
            let _ = write!(
                sql,
                " LEFT JOIN LATERAL (SELECT {json} AS \"#data\" {from} AND {there} = {here}) AS \"#x{at}\" ON true"
            );
        }
        sql
    }
}

/// Which columns are null for this caller.
enum Hidden {
    Nothing,
    Private,
    /// Private ones, unless this holds.
    Unless(String),
}

/// `"alias"."column"`.
fn place(resource: &Resource, alias: &str, column: usize) -> String {
    format!("\"{alias}\".\"{}\"", resource.columns[column].name)
}
