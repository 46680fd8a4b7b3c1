//! Lineage: the records behind a row, found by folding its streams again, event by event.
//!
//! A row of one stream has that stream behind it; a row of several has the streams that `lineage.sql` names. They are
//! folded into tables that only one transaction sees, and that is rolled back: nothing is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use annals_log::{LoadRequest, MemoryStore, PgStreamStore, StoreError, StreamStore, reader};
use annals_record::record::Record;
use annals_record::{Hash32, Offset, Shard, ShardCount, StreamId};
use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::apply::{BoundColumns, Event, Projector, columns_read, relation_from};
use crate::build::{self, Columns, quote};
use crate::compare::{Difference, text_of};
use crate::manifest::{Manifest, Name, Table, sql};
use crate::parking::{self, Place};
use crate::refold::{Readers, RefoldError, Source, checkpoints};

/// At most so many records are read with one statement.
const PAGE: u32 = 1_000;

/// The journal, for whole streams.
#[async_trait]
pub trait History: Send + Sync {
    /// Every commit and refusal of a stream, by offset.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn records(
        &self,
        shard: Shard,
        stream: &StreamId,
    ) -> Result<Vec<(Offset, Arc<Record>)>, StoreError>;
}

#[async_trait]
impl History for PgStreamStore {
    async fn records(
        &self,
        _: Shard,
        stream: &StreamId,
    ) -> Result<Vec<(Offset, Arc<Record>)>, StoreError> {
        let (mut all, mut from) = (Vec::new(), Offset::new(0));
        loop {
            let page = self.page_of_stream(stream, from, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(all);
            };
            from = last.next();
            all.extend(page.into_iter().map(|(offset, record)| (offset, Arc::new(record))));
        }
    }
}

#[async_trait]
impl History for MemoryStore {
    async fn records(
        &self,
        shard: Shard,
        stream: &StreamId,
    ) -> Result<Vec<(Offset, Arc<Record>)>, StoreError> {
        let request = LoadRequest {
            shard,
            stream: stream.clone(),
            fingerprint: Hash32::new([0; 32]),
            in_full: true,
        };
        let loaded = self.load(&[request]).await?;
        Ok(loaded.into_iter().flat_map(|loaded| loaded.rows).collect())
    }
}

/// What is behind a row.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The projection.
    pub name: String,
    /// Its build.
    pub build: i32,
    /// The table.
    pub table: String,
    /// The row's key, its columns joined by a comma.
    pub key: String,
    /// The streams behind it.
    pub streams: Vec<String>,
    /// What changed it, in order.
    pub steps: Vec<ExplainedStep>,
    /// Whether what the records make is what the table holds.
    pub matches: bool,
    /// Where it is not.
    pub differences: Vec<Difference>,
    /// Events of these streams that are parked: left out.
    pub parked_events: usize,
}

/// One event that changed the row.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedStep {
    /// `shard:offset`.
    pub position: String,
    /// The record.
    pub record: String,
    /// When.
    pub time: chrono::DateTime<chrono::Utc>,
    /// Who.
    pub actor: String,
    /// The stream.
    pub stream: String,
    /// The stream's version with the event.
    pub version: String,
    /// The event's type.
    pub event: String,
    /// Column by column: what it was, and what it is.
    pub changes: BTreeMap<String, (Value, Value)>,
}

/// What a row is looked for with.
pub struct Question<'a> {
    /// The live build.
    pub manifest: &'a Manifest,
    /// The table.
    pub table: &'a str,
    /// The row's key, its columns joined by a comma.
    pub key: &'a str,
}

/// Explains a row; `None` if the table has no such row.
///
/// # Errors
/// [`RefoldError`]; [`RefoldError::Refused`] if the key does not fit, or a shared table has no `lineage.sql`.
pub async fn explain(
    pool: &PgPool,
    source: &Source,
    journal: &dyn History,
    question: Question<'_>,
) -> Result<Option<Explanation>, RefoldError> {
    let manifest = question.manifest;
    let table = manifest
        .table(question.table)
        .ok_or_else(|| RefoldError::Refused(format!("there is no table `{}`", question.table)))?;
    let columns = build::describe_columns(pool, manifest).await?;
    let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let key = Key::read(table, &columns, question.key)?;
    let Some(stored) = key.row(&mut tx, manifest).await? else {
        return Ok(None);
    };
    let at = checkpoints(&mut tx, &manifest.id).await?;
    let next = at
        .iter()
        .map(|(shard, at)| (*shard, at.head.next))
        .collect::<BTreeMap<_, _>>();
    let parked: BTreeSet<Place> = parking::places(&mut *tx, &manifest.id)
        .await?
        .into_iter()
        .collect();

    let mut scratch = manifest.clone();
    scratch.id.name = Name::scratch("explain", &manifest.id.name);
    let scratch = Arc::new(scratch);
    let opener = Arc::clone(&source.opener);
    let projector = Projector::with_columns(
        pool.clone(),
        Arc::clone(&scratch),
        &columns,
        opener,
        source.limits,
    );
    let shards = source.log.describe().await?.shards;
    let streams = match &table.stream {
        Some(template) => {
            let stream = format!("{}-{}", template.category, text_of(stored.get(&template.column)));
            BTreeSet::from([stream])
        }
        None => named(&mut tx, source, &projector, &question, &next).await?,
    };
    let mut left_out = 0;
    let mut events = Vec::new();
    for event in load(source, journal, &streams, shards, &projector).await? {
        let folded = next.get(&event.shard).is_some_and(|next| event.offset < *next);
        if !folded {
            continue;
        }
        match parked.contains(&event.place()?) {
            true => left_out += 1,
            false => events.push(event),
        }
    }
    build::make_unseen(&mut tx, &scratch).await?;
    projector.enter(&mut tx, None).await?;
    let steps = follow(&mut tx, &projector, &key, &scratch, events).await?;
    let made = key.row(&mut tx, &scratch).await?;
    tx.rollback().await?;
    let differences = differences(table, question.key, made.as_ref(), &stored);
    Ok(Some(Explanation {
        name: manifest.id.name.to_string(),
        build: manifest.id.build.get(),
        table: table.name.clone(),
        key: question.key.to_owned(),
        streams: streams.into_iter().collect(),
        steps,
        matches: differences.is_empty(),
        differences,
        parked_events: left_out,
    }))
}

type Row = Map<String, Value>;

/// A row's key: a condition and its values.
struct Key<'a> {
    table: &'a Table,
    condition: String,
    values: Vec<String>,
}

impl<'a> Key<'a> {
    fn read(table: &'a Table, columns: &Columns, text: &str) -> Result<Self, RefoldError> {
        let values: Vec<String> = text.split(',').map(str::to_owned).collect();
        if values.len() != table.key.len() {
            return Err(RefoldError::Refused(format!(
                "`{text}` is no key of `{}`: it has {} columns, joined by a comma: {}",
                table.name,
                table.key.len(),
                table.key.join(",")
            )));
        }
        let parts = table.key.iter().zip(1..).map(|(column, number)| {
            let kind = columns
                .get(&table.name)
                .and_then(|of_table| of_table.get(column))
                .map_or("text", |column| column.sql_type.as_str());
            format!("t.{} = ${number}::text::{kind}", quote(column))
        });
        let condition = parts.collect::<Vec<_>>().join(" AND ");
        Ok(Self {
            table,
            condition,
            values,
        })
    }

    async fn row(
        &self,
        connection: &mut PgConnection,
        manifest: &Manifest,
    ) -> Result<Option<Row>, RefoldError> {
        let sql = format!(
            "SELECT to_jsonb(t) FROM {}.{} AS t WHERE {}",
            quote(&manifest.id.schema()),
            quote(&self.table.name),
            self.condition
        );
        let mut query = sqlx::query_scalar(AssertSqlSafe(sql));
        for value in &self.values {
            query = query.bind(value);
        }
        let row: Result<Option<Json<Row>>, _> = query.fetch_optional(connection).await;
        match row {
            Ok(row) => Ok(row.map(|Json(row)| row)),
            Err(error) => {
                let error = annals_store::Error::from(error);
                match error.class() {
                    annals_store::ErrorClass::Data => Err(RefoldError::Refused(format!(
                        "the key is not of the types of `{}`: {error}",
                        self.table.name
                    ))),
                    _ => Err(RefoldError::Build(error.into())),
                }
            }
        }
    }
}

/// The streams that `lineage.sql` names: from the tables alone, or, if it reads `events`, from the whole log up to the
/// build's checkpoints.
async fn named(
    connection: &mut PgConnection,
    source: &Source,
    projector: &Projector,
    question: &Question<'_>,
    next: &BTreeMap<Shard, Offset>,
) -> Result<BTreeSet<String>, RefoldError> {
    let manifest = question.manifest;
    let Some(lineage) = &manifest.lineage_sql else {
        let text = format!(
            "rows of `{}` come from several streams, and its folder has no lineage.sql that says from which",
            question.table
        );
        return Err(RefoldError::Refused(text));
    };
    let path = format!("{}, pg_temp", quote(&manifest.id.schema()));
    sqlx::query("SELECT set_config('search_path', $1, true)")
        .bind(path)
        .execute(&mut *connection)
        .await?;
    let mut streams = BTreeSet::new();
    if !sql::names(lineage, "events") {
        let found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(lineage.clone()))
            .bind(question.key)
            .fetch_all(connection)
            .await?;
        streams.extend(found);
        return Ok(streams);
    }
    let read = columns_read(lineage);
    let text: Arc<str> = sql::with_events(lineage, &relation_from(2, &read)).into();
    let mut readers = Readers::new(source.clone());
    for (shard, to) in next {
        while let Some(delivery) = readers.next(*shard, None, *to).await? {
            let mut events = Vec::new();
            delivery.collect(&projector.plan, &mut events);
            let prepared = projector.prepare(events).await?;
            let all: Vec<usize> = (0..prepared.events.len()).collect();
            let columns = BoundColumns::of(&prepared, &all)?;
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&text))).bind(question.key);
            let rows = columns.bind_to(query, &read).fetch_all(&mut *connection).await?;
            for row in rows {
                streams.insert(sqlx::Row::try_get(&row, 0)?);
            }
        }
    }
    Ok(streams)
}

/// The events of some streams that concern the projection, in the order of time; of one stream in its own.
async fn load(
    source: &Source,
    journal: &dyn History,
    streams: &BTreeSet<String>,
    shards: ShardCount,
    projector: &Projector,
) -> Result<Vec<Event>, RefoldError> {
    let wrong = |stream: &String| RefoldError::Refused(format!("`{stream}` is no stream's id"));
    let mut events = Vec::new();
    for name in streams {
        let stream: StreamId = name.parse().map_err(|_| wrong(name))?;
        let shard = shards.shard_of(&stream);
        for (offset, record) in journal.records(shard, &stream).await? {
            let entry = reader::decode(&source.catalog, &record)
                .map_err(|error| parking::FetchError(error.to_string()))?;
            let Some(entry) = entry.map(Arc::new) else { continue };
            let count = entry.outcome.as_ref().map_or(0, Vec::len);
            events.extend((0..count).map(|index| Event {
                entry: Arc::clone(&entry),
                index,
                shard,
                offset,
            }));
        }
    }
    events.retain(|event| {
        let category = event.entry.stream.category();
        event
            .decoded()
            .is_some_and(|decoded| projector.plan.concerns(category, &decoded.event_type))
    });
    // Stable, and times never fall within a shard: a stream keeps its order.
    events.sort_by_key(|event| (event.entry.time, event.shard, event.offset));
    Ok(events)
}

async fn follow(
    connection: &mut PgConnection,
    projector: &Projector,
    key: &Key<'_>,
    scratch: &Manifest,
    events: Vec<Event>,
) -> Result<Vec<ExplainedStep>, RefoldError> {
    let prepared = projector.prepare(events).await?;
    let mut steps = Vec::new();
    let mut before: Option<Row> = None;
    for (at, event) in prepared.events.iter().enumerate() {
        projector.apply_set(connection, &prepared, &[at]).await?;
        let after = key.row(connection, scratch).await?;
        if after == before {
            continue;
        }
        let changes = changes(key.table, before.as_ref(), after.as_ref());
        before = after;
        let Some(decoded) = event.decoded() else { continue };
        steps.push(ExplainedStep {
            position: format!("{}:{}", event.shard, event.offset),
            record: event.entry.record.to_string(),
            time: event.entry.time,
            actor: event.entry.actor.sub.to_string(),
            stream: event.entry.stream.to_string(),
            version: decoded.version.to_string(),
            event: decoded.event_type.to_string(),
            changes,
        });
    }
    Ok(steps)
}

fn shown(table: &Table, column: &String, value: Option<&Value>) -> Value {
    match value {
        Some(value) if table.private.contains(column) && !value.is_null() => Value::from("(private)"),
        Some(value) => value.clone(),
        None => Value::Null,
    }
}

fn changes(table: &Table, before: Option<&Row>, after: Option<&Row>) -> BTreeMap<String, (Value, Value)> {
    let names: BTreeSet<&String> = before
        .iter()
        .chain(after.iter())
        .flat_map(|row| row.keys())
        .collect();
    let changed = names.into_iter().filter_map(|column| {
        let (was, is) = (
            before.and_then(|row| row.get(column)),
            after.and_then(|row| row.get(column)),
        );
        let same = was.unwrap_or(&Value::Null) == is.unwrap_or(&Value::Null);
        (!same).then(|| {
            let pair = (shown(table, column, was), shown(table, column, is));
            (column.clone(), pair)
        })
    });
    changed.collect()
}

fn differences(table: &Table, key: &str, made: Option<&Row>, stored: &Row) -> Vec<Difference> {
    let difference = |column: Option<&String>, expected: Option<Value>, actual: Option<Value>| Difference {
        table: table.name.clone(),
        key: key.to_owned(),
        column: column.cloned(),
        expected,
        actual,
    };
    let Some(made) = made else {
        let actual = stored
            .iter()
            .map(|(column, value)| (column.clone(), shown(table, column, Some(value))))
            .collect();
        return vec![difference(None, None, Some(Value::Object(actual)))];
    };
    made.iter()
        .filter(|(column, value)| stored.get(*column) != Some(value))
        .map(|(column, value)| {
            let (expected, actual) = (
                shown(table, column, Some(value)),
                shown(table, column, stored.get(column)),
            );
            difference(Some(column), Some(expected), Some(actual))
        })
        .collect()
}
