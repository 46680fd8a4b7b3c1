//! Reading a projection's folder, and every check that needs no database.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use annals_record::Hash32;
use sha2::{Digest, Sha256};

use super::file::{ManifestFile, ResourceFile, TableFile};
use super::{
    Build, BuildId, Expand, Handler, Manifest, ManifestError, Name, Resource, Rows, Statement,
    StreamTemplate, Table, is_identifier, sql,
};

type Checked<T> = Result<T, ManifestError>;

/// The files of a folder by their path in it, `on/order.placed.sql`; not its tests.
pub(super) type Files = BTreeMap<String, String>;

const TOML: &str = "projection.toml";
const SCHEMA: &str = "schema.sql";
const LINEAGE: &str = "lineage.sql";

pub(super) fn load(dir: &Path) -> Checked<Manifest> {
    let mut files = Files::new();
    for name in [TOML, SCHEMA] {
        files.insert(name.to_owned(), read(&dir.join(name))?);
    }
    for path in list(&dir.join("on"), "sql")? {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        files.insert(format!("on/{name}"), read(&path)?);
    }
    let lineage = dir.join(LINEAGE);
    if lineage.exists() {
        files.insert(LINEAGE.to_owned(), read(&lineage)?);
    }
    let mut manifest = parse(dir, files)?;
    let name = manifest.id.name.as_str();
    if dir.file_name().is_some_and(|folder| folder != name) {
        let what = format!("key `name`: `{name}` must be the folder's name");
        return Err(ManifestError::new(dir.join(TOML), what));
    }
    manifest.tests = list(&dir.join("tests"), "json")?;
    Ok(manifest)
}

/// Checks files that are read already; `dir` is where errors say that they are.
pub(super) fn parse(dir: &Path, files: Files) -> Checked<Manifest> {
    let toml_path = dir.join(TOML);
    let file: ManifestFile = toml::from_str(text_of(&files, TOML, dir)?)
        .map_err(|error| ManifestError::new(&toml_path, error.to_string()))?;
    let id = id_of(&file, &toml_path)?;
    let tables = tables_of(&file, &toml_path)?;
    let resources = resources_of(&file, &tables, &toml_path)?;
    let schema_sql = text_of(&files, SCHEMA, dir)?.to_owned();
    sql::check_schema(&schema_sql).map_err(|what| ManifestError::new(dir.join(SCHEMA), what))?;

    let mut on = statements_of(dir, &tables, &files)?;
    for (event, settings) in &file.on {
        let Some(handler) = on.get_mut(event) else {
            let what =
                format!("key `on.\"{event}\"`: there is no file on/{event}.sql; write it or remove the key");
            return Err(ManifestError::new(&toml_path, what));
        };
        handler.repeat = settings.repeat;
    }
    let lineage_sql = files
        .get(LINEAGE)
        .map(|text| sql::check_query(text))
        .transpose()
        .map_err(|what| ManifestError::new(dir.join(LINEAGE), what))?;
    Ok(Manifest {
        id,
        doc: file.doc,
        rows: file.rows,
        tables,
        resources,
        on,
        schema_sql,
        lineage_sql,
        digest: digest(&files),
        dir: dir.to_owned(),
        tests: Vec::new(),
        files,
    })
}

fn text_of<'a>(files: &'a Files, name: &str, dir: &Path) -> Checked<&'a str> {
    let text = files.get(name).map(String::as_str);
    text.ok_or_else(|| ManifestError::new(dir.join(name), "is missing"))
}

fn id_of(file: &ManifestFile, path: &Path) -> Checked<BuildId> {
    let wrong = |what: String| ManifestError::new(path, what);
    let name = Name::parse(&file.name).ok_or_else(|| {
        wrong(format!(
            "key `name`: `{}` must be 1 to 48 of a-z, 0-9 and _, beginning with a letter",
            file.name
        ))
    })?;
    let build = Build::new(file.build)
        .ok_or_else(|| wrong(format!("key `build`: {} must be 1 or more", file.build)))?;
    Ok(BuildId { name, build })
}

fn tables_of(file: &ManifestFile, path: &Path) -> Checked<Vec<Table>> {
    if file.tables.is_empty() {
        let what = "add a [[table]] for each table of schema.sql; there is none";
        return Err(ManifestError::new(path, what));
    }
    let mut names = BTreeSet::new();
    let mut tables = Vec::new();
    for table in &file.tables {
        let checked = table_of(table, file.rows)
            .map_err(|what| ManifestError::new(path, format!("table `{}`, {what}", table.name)))?;
        if !names.insert(checked.name.clone()) {
            let what = format!("table `{}` is there twice: remove one", checked.name);
            return Err(ManifestError::new(path, what));
        }
        tables.push(checked);
    }
    Ok(tables)
}

fn table_of(table: &TableFile, rows: Rows) -> Result<Table, String> {
    identifier("name", &table.name)?;
    if table.key.is_empty() {
        return Err("key `key`: name at least one column".to_owned());
    }
    columns("key", &table.key)?;
    columns("private", &table.private)?;
    if let Some(owner) = &table.owner {
        identifier("owner", owner)?;
    }
    let stream = match (&table.stream, rows) {
        (Some(text), Rows::Stream) => Some(StreamTemplate::parse(text).ok_or_else(|| {
            format!("key `stream`: `{text}` must be a category, a hyphen and one column in braces, as in `order-{{order_id}}`")
        })?),
        (None, Rows::Stream) => {
            return Err("key `stream` is missing: with rows = \"stream\" say how a row names its stream, as in `order-{order_id}`".to_owned());
        }
        (Some(_), Rows::Shared) => {
            return Err("key `stream`: rows = \"shared\" have no stream of their own; remove it".to_owned());
        }
        (None, Rows::Shared) => None,
    };
    if let Some(column) = table.private.iter().find(|column| table.key.contains(column)) {
        return Err(format!(
            "key `private`: `{column}` is of the key, which is shown to everybody; keys never hold personal data"
        ));
    }
    Ok(Table {
        name: table.name.clone(),
        key: table.key.clone(),
        stream,
        owner: table.owner.clone(),
        private: table.private.clone(),
    })
}

fn resources_of(file: &ManifestFile, tables: &[Table], path: &Path) -> Checked<Vec<Resource>> {
    let checked = file.resources.iter().map(|(name, resource)| {
        resource_of(name, resource, tables)
            .map_err(|what| ManifestError::new(path, format!("resource `{name}`, {what}")))
    });
    checked.collect()
}

fn resource_of(name: &str, resource: &ResourceFile, tables: &[Table]) -> Result<Resource, String> {
    identifier("name", name)?;
    let Some(table) = tables.iter().find(|table| table.name == resource.table) else {
        return Err(format!(
            "key `table`: there is no [[table]] named `{}`",
            resource.table
        ));
    };
    columns("filter", &resource.filter)?;
    columns("sort", &resource.sort)?;
    for column in &resource.filter {
        if table.private.contains(column) {
            return Err(format!(
                "key `filter`: `{column}` is private, and a filter would give it away; remove it"
            ));
        }
    }
    for column in &resource.sort {
        if table.private.contains(column) {
            return Err(format!(
                "key `sort`: `{column}` is private, and an order would give it away; remove it"
            ));
        }
    }
    let condition =
        sql::check_condition(&resource.condition).map_err(|what| format!("key `where`: {what}"))?;
    let mut expand = BTreeMap::new();
    for (name, target) in &resource.expand {
        let parsed = target.split_once('.').filter(|(resource, column)| {
            is_identifier(name) && is_identifier(resource) && is_identifier(column)
        });
        let Some((resource, column)) = parsed else {
            return Err(format!(
                "key `expand.{name}`: `{target}` must be a resource, a dot and its key column, as in `customers.customer_id`"
            ));
        };
        let target = Expand {
            resource: resource.to_owned(),
            column: column.to_owned(),
        };
        expand.insert(name.clone(), target);
    }
    Ok(Resource {
        name: name.to_owned(),
        table: resource.table.clone(),
        condition,
        filter: resource.filter.clone(),
        sort: resource.sort.clone(),
        expand,
    })
}

/// `on/{type}.sql` and `on/{type}.{table}.sql`. A type has one dot, so a second one begins the table.
fn statements_of(dir: &Path, tables: &[Table], files: &Files) -> Checked<BTreeMap<String, Handler>> {
    let mut on: BTreeMap<String, Handler> = BTreeMap::new();
    for (file, text) in files {
        let Some(stem) = file
            .strip_prefix("on/")
            .and_then(|name| name.strip_suffix(".sql"))
        else {
            continue;
        };
        let wrong = |what: String| ManifestError::new(dir.join(file), what);
        let parts: Vec<&str> = stem.split('.').collect();
        let (event, table) = match parts.as_slice() {
            [category, name] => (format!("{category}.{name}"), None),
            [category, name, table] => (format!("{category}.{name}"), Some(*table)),
            _ => {
                let what = "name the file after its event, `order.placed.sql`, or event and table, `order.placed.order_lines.sql`";
                return Err(wrong(what.to_owned()));
            }
        };
        let table = match table {
            None => tables.first().map(|table| table.name.clone()).unwrap_or_default(),
            Some(name) if tables.iter().any(|table| table.name == name) => name.to_owned(),
            Some(name) => {
                return Err(wrong(format!(
                    "there is no [[table]] named `{name}` in projection.toml"
                )));
            }
        };
        let sql = sql::check_statement(text).map_err(wrong)?;
        let file = file.clone();
        let handler = on.entry(event).or_insert(Handler {
            repeat: false,
            statements: Vec::new(),
        });
        handler.statements.push(Statement { file, table, sql });
    }
    if on.is_empty() {
        let what = "write a file for at least one event, as in `order.placed.sql`; there is none";
        return Err(ManifestError::new(dir.join("on"), what));
    }
    // `order.placed.sql` before `order.placed.order_lines.sql`, whatever the file system says.
    for handler in on.values_mut() {
        handler
            .statements
            .sort_by_key(|statement| (statement.file.matches('.').count(), statement.file.clone()));
    }
    Ok(on)
}

fn identifier(key: &str, text: &str) -> Result<(), String> {
    if is_identifier(text) {
        return Ok(());
    }
    Err(format!(
        "key `{key}`: `{text}` must be 1 to 63 of a-z, 0-9 and _, not beginning with a digit"
    ))
}

fn columns(key: &str, names: &[String]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        identifier(key, name)?;
        if !seen.insert(name) {
            return Err(format!("key `{key}`: `{name}` is there twice; remove one"));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Checked<String> {
    fs::read_to_string(path).map_err(|error| ManifestError::new(path, format!("cannot be read: {error}")))
}

/// The files of a folder with this extension, by name; none if there is no such folder. Any other file is an
/// error: a slip in its name would else go unnoticed. Hidden files and notes (`*.md`) are passed over.
fn list(dir: &Path, extension: &str) -> Checked<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let failed = |error: std::io::Error| ManifestError::new(dir, format!("cannot be read: {error}"));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.extension().is_some_and(|ext| ext == extension) {
            found.push(path);
        } else if !name.starts_with('.') && !name.ends_with(".md") {
            let what = format!("only files ending in `.{extension}` belong here; rename or remove it");
            return Err(ManifestError::new(path, what));
        }
    }
    found.sort();
    Ok(found)
}

/// SHA-256("annals/projection/v1" ‖ 0x00 ‖ for each file by path: u32be length and bytes of path and content), without
/// `lineage.sql`: it explains rows and makes none, so it may be added to tables that are there.
fn digest(files: &Files) -> Hash32 {
    let mut hash = Sha256::new();
    hash.update(b"annals/projection/v1\0");
    for (path, text) in files.iter().filter(|(path, _)| *path != LINEAGE) {
        for part in [path, text] {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            hash.update(length.to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    Hash32::from(<[u8; 32]>::from(hash.finalize()))
}
