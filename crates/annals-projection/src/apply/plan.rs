//! A manifest's statements as they are sent: `events` in front, the build in a comment, versions raised by key.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::bind;
use crate::build::{Columns, VERSION_COLUMN, quote};
use crate::manifest::{self, BuildId, Manifest, Rows, sql};

/// What to run for which event.
pub(crate) struct Plan {
    pub(crate) reader: String,
    pub(crate) search_path: String,
    pub(crate) raises: Vec<Raise>,
    on: BTreeMap<String, Handler>,
    categories: HashSet<String>,
}

struct Handler {
    repeat: bool,
    statements: Vec<Statement>,
}

/// One statement as it is sent.
pub(crate) struct Statement {
    pub(crate) file: String,
    pub(crate) table: String,
    pub(crate) sql: Arc<str>,
    /// The columns of `events` that it reads, in their order: its arrays.
    pub(crate) read: Vec<&'static str>,
    /// Whether it names `_version`.
    pub(crate) versions: bool,
}

/// Raises `_version` in the rows of one table.
pub(crate) struct Raise {
    pub(crate) table: String,
    pub(crate) category: String,
    /// A stream has one row there at most.
    pub(crate) single: bool,
    pub(crate) sql: Arc<str>,
}

impl Plan {
    pub(crate) fn new(manifest: &Manifest, columns: &Columns) -> Self {
        let id = &manifest.id;
        let handler = |handler: &manifest::Handler| Handler {
            repeat: handler.repeat,
            statements: handler
                .statements
                .iter()
                .map(|statement| statement_of(id, statement))
                .collect(),
        };
        let raises: Vec<Raise> = match manifest.rows {
            Rows::Shared => Vec::new(),
            Rows::Stream => raises(manifest, columns),
        };
        Self {
            reader: id.reader(),
            search_path: format!("{}, pg_temp", quote(&id.schema())),
            categories: raises.iter().map(|raise| raise.category.clone()).collect(),
            raises,
            on: manifest
                .on
                .iter()
                .map(|(event, files)| (event.clone(), handler(files)))
                .collect(),
        }
    }

    /// Whether an event changes anything here: it has a statement, or moves the version of a row.
    pub(crate) fn concerns(&self, category: &str, event_type: &str) -> bool {
        self.categories.contains(category) || self.on.contains_key(event_type)
    }

    pub(crate) fn handles(&self, event_type: &str) -> bool {
        self.on.contains_key(event_type)
    }

    pub(crate) fn repeats(&self, event_type: &str) -> bool {
        self.on.get(event_type).is_some_and(|handler| handler.repeat)
    }

    pub(crate) fn statements(&self, event_type: &str) -> &[Statement] {
        self.on.get(event_type).map_or(&[], |handler| &handler.statements)
    }
}

fn statement_of(id: &BuildId, statement: &manifest::Statement) -> Statement {
    let read = bind::columns_read(&statement.sql);
    let sql = sql::with_events(&statement.sql, &bind::relation(&read));
    Statement {
        file: statement.file.clone(),
        table: statement.table.clone(),
        // Two builds may have the same text: the comment keeps their prepared statements apart.
        sql: format!("/* {id} */ {sql}").into(),
        read,
        versions: sql::names(&statement.sql, VERSION_COLUMN),
    }
}

/// The key is cast to the column's type, so that an index on the column serves.
fn raises(manifest: &Manifest, columns: &Columns) -> Vec<Raise> {
    let id = &manifest.id;
    let raise = |table: &manifest::Table| {
        let stream = table.stream.as_ref()?;
        let kind = columns.get(&table.name)?.get(&stream.column)?;
        let (name, column) = (quote(&table.name), quote(&stream.column));
        let sql = format!(
            "/* {id} */ UPDATE {name} AS t SET _version = e.version \
             FROM (SELECT k::{} AS key, version FROM UNNEST($1::text[], $2::bigint[]) AS u(k, version)) AS e \
             WHERE t.{column} = e.key AND t._version < e.version",
            kind.sql_type
        );
        Some(Raise {
            table: table.name.clone(),
            category: stream.category.to_string(),
            single: table.key == [stream.column.clone()],
            sql: sql.into(),
        })
    };
    manifest.tables.iter().filter_map(raise).collect()
}
