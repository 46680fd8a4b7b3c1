//! The rows of a feed: each with its key and version, in the order of the list, and one more than the limit if there
//! are more.

use std::fmt::Write;

use super::{Bind, Builder, Statement, place, sources};
use crate::request::{Prepared, Selection};

/// The alias of the rows.
const ROW: &str = "#t";

/// One line: the states, then `keys`, `versions` and `data`, arrays of one length.
pub(crate) fn live_statement(prepared: &Prepared) -> Statement {
    let mut builder = Builder::default();
    let states = sources(&mut builder, prepared);
    let resource = &prepared.resource;
    let access = &prepared.access;
    let json = builder.json(resource, access, ROW, &prepared.fields, &prepared.expand);
    let mut from = builder.from(resource, access);
    let rows = match &prepared.selection {
        Selection::Row(key) => {
            builder.is_key(&mut from, resource, key);
            format!("SELECT *, 1::bigint AS \"#ord\" {from}")
        }
        Selection::Page(page) => {
            builder.filters(&mut from, resource, &page.filters);
            let limit = builder.bind(Bind::Number(i64::from(page.limit)));
            builder.rows(resource, page, &from, limit)
        }
    };
    let joins = builder.joins(resource, ROW, &prepared.expand);
    let key = resource.key.iter().map(|&column| {
        let ty = resource.columns[column].ty;
        ty.exact(&place(resource, ROW, column))
    });
    let key = key.collect::<Vec<_>>().join(", ");
    let version = if resource.definition.versioned {
        format!("\"{ROW}\".\"_version\"")
    } else {
        "NULL::bigint".to_owned()
    };
    let of = |column: &str| format!("array_agg(\"#q\".\"{column}\" ORDER BY \"#q\".\"#ord\")");
    let _ = write!(
        builder.sql,
        "\"#l\".* FROM {states} CROSS JOIN (SELECT {}, {}, {} \
         FROM (SELECT concat_ws(',', {key}) AS \"#key\", {version} AS \"#version\", {json}::text AS \"#data\", \
         \"{ROW}\".\"#ord\" FROM ({rows}) AS \"{ROW}\"{joins}) AS \"#q\") AS \"#l\"",
        of("#key"),
        of("#version"),
        of("#data"),
    );
    Statement {
        sql: builder.sql,
        binds: builder.binds,
    }
}
