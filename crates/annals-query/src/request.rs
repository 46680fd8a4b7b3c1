//! A request's parameters, read strictly: what is unknown or of the wrong type is an error, never ignored.
//!
//! | parameter | value |
//! |---|---|
//! | `limit` | 1 to the limit's maximum; 50 without it |
//! | `cursor` | from the page before, with the same filters and sort |
//! | `sort` | one offered column, with `-` in front for descending; nulls come last in both directions |
//! | `{column}` | equal to |
//! | `{column}.{operator}` | `eq ne gt gte lt lte` one value; `in` values with commas between; `is` `null` or `not_null` |
//! | `fields` | columns to show, with commas between |
//! | `expand` | offered expansions, with commas between |
//!
//! A filter may be repeated: all must hold. As in SQL, a row without a value is neither equal nor unequal to one.

mod parse;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use annals_record::Position;
use aws_lc_rs::digest;

use crate::access::{Access, Private, Rows, Scope};
use crate::cursor::Fingerprint;
use crate::resource::{Resource, Resources};
use crate::{Limits, QueryError};

/// What a caller asks for, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The resource's name in the path.
    pub resource: String,
    /// The key in the path (`1996-01-02,USD`), decoded; `None`: the list.
    pub key: Option<String>,
    /// The query string's parameters, decoded, in order.
    pub parameters: Vec<(String, String)>,
    /// What the caller may see.
    pub scope: Scope,
    /// Answer at least as fresh as all of these.
    pub after: Vec<Position>,
    /// How long to wait for that at most.
    pub wait: Duration,
    /// Count all rows that the filters let through (lists only).
    pub count: bool,
}

impl Request {
    /// The list of a resource.
    pub fn list(resource: impl Into<String>, scope: Scope) -> Self {
        Self {
            resource: resource.into(),
            key: None,
            parameters: Vec::new(),
            scope,
            after: Vec::new(),
            wait: Duration::from_secs(2),
            count: false,
        }
    }

    /// One row of a resource.
    pub fn row(resource: impl Into<String>, key: impl Into<String>, scope: Scope) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::list(resource, scope)
        }
    }

    /// The same with one more parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operator {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    In,
    Is,
}

/// One condition; `column` is a place in the resource's columns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Filter {
    pub(crate) column: usize,
    pub(crate) test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Test {
    /// Any operator of one value.
    Compare(Operator, String),
    /// One of these.
    In(Vec<String>),
    /// Whether it has no value.
    IsNull(bool),
}

/// The order of a list: these columns, all in one direction. The key is among them, so it is total.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) columns: Vec<usize>,
    pub(crate) descending: bool,
}

/// Which rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The row with this key, a value for each of its columns.
    Row(Vec<String>),
    /// A page.
    Page(Page),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) limit: u32,
    pub(crate) filters: Vec<Filter>,
    pub(crate) order: Order,
    /// The values of the order's columns in the last row of the page before.
    pub(crate) after: Option<Vec<Option<String>>>,
    pub(crate) count: bool,
}

/// A row of another resource that is shown in place.
#[derive(Debug, Clone)]
pub(crate) struct Expanded {
    pub(crate) name: String,
    pub(crate) resource: Arc<Resource>,
    /// The column here.
    pub(crate) column: usize,
    pub(crate) access: Access,
}

/// A request that was understood, against the builds that were live then.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(crate) request: Arc<Request>,
    pub(crate) resource: Arc<Resource>,
    pub(crate) access: Access,
    pub(crate) selection: Selection,
    /// Places of the columns to show, in the table's order.
    pub(crate) fields: Vec<usize>,
    pub(crate) expand: Vec<Expanded>,
    /// Stands for resource, filters, sort and scope: cursors are bound to it.
    pub(crate) query: Fingerprint,
    /// Stands for all of it: entity tags and the cache go by it.
    pub(crate) whole: Fingerprint,
}

impl Prepared {
    /// Understands a request. Never touches the database.
    ///
    /// # Errors
    /// What the caller did wrong; [`QueryError::NotFound`] for a key that cannot be one.
    pub(crate) fn new(
        request: Arc<Request>,
        resources: &Resources,
        cursors: &crate::CursorKey,
        limits: &Limits,
    ) -> Result<Self, QueryError> {
        let resource = resources.get(&request.resource)?;
        let access = request.scope.of(&request.resource);
        let read = parse::Parameters::read(&resource, &request, limits)?;
        let expand = expanded(&read.expand, &resource, resources, &request.scope)?;
        let mut fingerprint = Digest::new();
        fingerprint.text(&resource.definition.resource);
        fingerprint.access(&access);
        let (selection, query) = match &request.key {
            Some(key) => {
                let key = parse::key(&resource, key).ok_or(QueryError::NotFound)?;
                fingerprint.text("row");
                key.iter().for_each(|value| fingerprint.text(value));
                (Selection::Row(key), fingerprint.clone().finish())
            }
            None => {
                let order = order(&resource, read.sort);
                fingerprint.text("list");
                fingerprint.page(&resource, &read.filters, &order);
                let query = fingerprint.clone().finish();
                let after = match &read.cursor {
                    Some(cursor) => Some(after(cursors, &query, cursor, &resource, &order)?),
                    None => None,
                };
                let page = Page {
                    limit: read.limit,
                    filters: read.filters,
                    order,
                    after,
                    count: request.count,
                };
                (Selection::Page(page), query)
            }
        };
        // Not of the query: cursors outlive a new build of the manifest, entity tags and the cache do not.
        fingerprint.bytes(&resource.definition.digest);
        fingerprint.text(if request.count { "count" } else { "" });
        fingerprint.text(&read.limit.to_string());
        fingerprint.text(read.cursor.as_deref().unwrap_or_default());
        for &field in &read.fields {
            fingerprint.text(&resource.columns[field].name);
        }
        for expanded in &expand {
            fingerprint.text("expand");
            fingerprint.text(&expanded.name);
            fingerprint.bytes(&expanded.resource.definition.digest);
            fingerprint.access(&expanded.access);
        }
        Ok(Self {
            resource,
            access,
            selection,
            fields: read.fields,
            expand,
            query,
            whole: fingerprint.finish(),
            request,
        })
    }

    /// The projections that the answer comes from, the resource's own first, each once.
    pub(crate) fn sources(&self) -> Vec<(&str, i32)> {
        let mut sources: Vec<(&str, i32)> = Vec::with_capacity(1 + self.expand.len());
        let expanded = self.expand.iter().map(|expanded| &expanded.resource);
        for resource in std::iter::once(&self.resource).chain(expanded) {
            let name = resource.definition.projection.as_str();
            if sources.iter().all(|(known, _)| *known != name) {
                sources.push((name, resource.build));
            }
        }
        sources
    }
}

/// The sort column, then the key's columns that it is not one of, all in its direction.
fn order(resource: &Resource, sort: Option<(usize, bool)>) -> Order {
    let mut columns: Vec<usize> = sort.iter().map(|(column, _)| *column).collect();
    columns.extend(
        resource
            .key
            .iter()
            .filter(|key| sort.is_none_or(|(column, _)| column != **key)),
    );
    Order {
        columns,
        descending: sort.is_some_and(|(_, descending)| descending),
    }
}

/// Opens a cursor, and checks its values against the columns: a build may have changed their types since.
fn after(
    cursors: &crate::CursorKey,
    query: &Fingerprint,
    cursor: &str,
    resource: &Resource,
    order: &Order,
) -> Result<Vec<Option<String>>, QueryError> {
    let values = cursors.open(query, cursor).ok_or(QueryError::InvalidCursor)?;
    let fits = |(value, &column): (&Option<String>, &usize)| {
        let column = &resource.columns[column];
        match value {
            None => !column.not_null,
            Some(value) => column.ty.parse(value).is_some(),
        }
    };
    let all = values.len() == order.columns.len() && values.iter().zip(&order.columns).all(fits);
    all.then_some(values).ok_or(QueryError::InvalidCursor)
}

fn expanded(
    names: &BTreeSet<String>,
    resource: &Resource,
    resources: &Resources,
    scope: &Scope,
) -> Result<Vec<Expanded>, QueryError> {
    let mut expand = Vec::new();
    for name in names {
        let Some(expansion) = resource.definition.expand.get(name) else {
            let offered: Vec<_> = resource.definition.expand.keys().map(String::as_str).collect();
            let expected = match offered.as_slice() {
                [] => "left out: nothing can be expanded here".to_owned(),
                names => format!("of: {}", names.join(", ")),
            };
            return Err(QueryError::invalid("expand", expected));
        };
        let target = resources.get(&expansion.resource)?;
        let column = resource.column(&expansion.column).ok_or(QueryError::NotFound)?;
        expand.push(Expanded {
            name: name.clone(),
            access: scope.of(&expansion.resource),
            resource: target,
            column,
        });
    }
    Ok(expand)
}

/// SHA-256 over pieces, each with its length before it.
#[derive(Clone)]
struct Digest(digest::Context);

impl Digest {
    fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.0.update(&length.to_be_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn access(&mut self, access: &Access) {
        match &access.rows {
            Rows::None => self.text("no rows"),
            Rows::All => self.text("all rows"),
            Rows::Own(owner) => {
                self.text("own rows");
                self.text(owner);
            }
        }
        match &access.private {
            Private::None => self.text("no private columns"),
            Private::All => self.text("all private columns"),
            Private::Own(owner) => {
                self.text("own private columns");
                self.text(owner);
            }
        }
    }

    /// The order of filters does not matter.
    fn page(&mut self, resource: &Resource, filters: &[Filter], order: &Order) {
        let mut sorted: Vec<&Filter> = filters.iter().collect();
        sorted.sort();
        for filter in sorted {
            self.text(&resource.columns[filter.column].name);
            match &filter.test {
                Test::Compare(operator, value) => {
                    self.text(parse::name(*operator));
                    self.text(value);
                }
                Test::In(values) => {
                    self.text("in");
                    self.text(&values.len().to_string());
                    values.iter().for_each(|value| self.text(value));
                }
                Test::IsNull(yes) => self.text(if *yes { "is null" } else { "is not null" }),
            }
        }
        self.text(if order.descending { "desc" } else { "asc" });
        for &column in &order.columns {
            self.text(&resource.columns[column].name);
        }
    }

    fn finish(self) -> Fingerprint {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(self.0.finish().as_ref());
        fingerprint
    }
}

impl Prepared {
    /// Makes it a later page, behind a row that need not be there: for looking at plans.
    pub(crate) fn begin_behind_something(&mut self) {
        if let Selection::Page(page) = &mut self.selection {
            let value = |&at: &usize| Some(crate::check::some_value(self.resource.columns[at].ty).to_owned());
            page.after = Some(page.order.columns.iter().map(value).collect());
        }
    }
}
