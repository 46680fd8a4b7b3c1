//! The row with a key.

use std::fmt::Write;

use super::{Builder, place};
use crate::request::Prepared;
use crate::resource::Resource;

/// The alias of the row asked for.
const ROW: &str = "#t";

impl Builder {
    /// `data, version FROM …`: one line, with nulls if there is no such row.
    pub(super) fn row(&mut self, prepared: &Prepared, key: &[String], states: &str) {
        let resource = &prepared.resource;
        let json = self.json(
            resource,
            &prepared.access,
            ROW,
            &prepared.fields,
            &prepared.expand,
        );
        let version = if resource.definition.versioned {
            format!("\"{ROW}\".\"_version\"")
        } else {
            "NULL::bigint".to_owned()
        };
        let mut from = self.from(resource, &prepared.access);
        self.is_key(&mut from, resource, key);
        let joins = self.joins(resource, ROW, &prepared.expand);
        let _ = write!(
            self.sql,
            "\"#r\".\"#data\"::text, \"#r\".\"#version\" FROM {states} LEFT JOIN LATERAL \
             (SELECT {json} AS \"#data\", {version} AS \"#version\" FROM (SELECT * {from}) AS \"{ROW}\"{joins}) \
             AS \"#r\" ON true"
        );
    }

    /// Adds that the key is this one.
    pub(super) fn is_key(&mut self, sql: &mut String, resource: &Resource, key: &[String]) {
        for (&column, value) in resource.key.iter().zip(key) {
            let value = self.value(resource, column, value);
            let place = place(resource, &resource.definition.table, column);
            let _ = write!(sql, " AND {place} = {value}");
        }
    }
}
