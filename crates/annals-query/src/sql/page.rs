//! A page of a list, begun right behind the last row of the page before.
//!
//! "Behind" is one comparison of rows, `(sort, key) > (…, …)`, which a btree index over these columns begins at: page
//! 10,000 costs what page 1 costs. The key goes in the direction of the sort, so one index serves both.
//!
//! Nulls come last in both directions, which no single scan of an index gives. So where the sort column can be
//! null, rows with a value come from one scan, and only if these do not fill the page, rows without one from a
//! second: `IS NULL` is an index condition too.
//!
//! Source: PostgreSQL manual, "Row and Array Comparisons"; Winand, "SQL Performance Explained", 2012.

use std::fmt::Write;

use super::{Bind, Builder, Statement, place};
use crate::request::{Filter, Operator, Order, Page, Prepared, Test};
use crate::resource::Resource;

/// The alias of the page's rows.
const ROW: &str = "#t";

/// Which rows of a nullable sort column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The column is never null.
    Whole,
    /// Rows with a value.
    Values,
    /// Rows without one.
    Nulls,
}

/// Only the rows that a page's filters let through, counted: for looking at its plan.
pub(super) fn filtered(prepared: &Prepared, page: &Page) -> Statement {
    let mut builder = Builder::default();
    let mut from = builder.from(&prepared.resource, &prepared.access);
    builder.filters(&mut from, &prepared.resource, &page.filters);
    Statement {
        sql: format!("SELECT count(*) {from}"),
        binds: builder.binds,
    }
}

impl Builder {
    /// `data, rows, last, count FROM …`: one line. `rows` is one more than the limit if there is a next page; `last`
    /// has the order's values of the page's last row then.
    pub(super) fn page(&mut self, prepared: &Prepared, page: &Page, states: &str) {
        let resource = &prepared.resource;
        let json = self.json(
            resource,
            &prepared.access,
            ROW,
            &prepared.fields,
            &prepared.expand,
        );
        let filtered = {
            let mut sql = self.from(resource, &prepared.access);
            self.filters(&mut sql, resource, &page.filters);
            sql
        };
        let limit = self.bind(Bind::Number(i64::from(page.limit)));
        let rows = self.rows(resource, page, &filtered, limit);
        let joins = self.joins(resource, ROW, &prepared.expand);
        let exact = page.order.columns.iter().map(|&column| {
            let ty = resource.columns[column].ty;
            ty.exact(&place(resource, ROW, column))
        });
        let exact = exact.collect::<Vec<_>>().join(", ");
        let count = if page.count {
            format!("(SELECT count(*) {filtered})")
        } else {
            "NULL::bigint".to_owned()
        };
        let _ = write!(
            self.sql,
            "\"#l\".*, {count} FROM {states} CROSS JOIN (\
             SELECT coalesce(json_agg(\"#q\".\"#data\" ORDER BY \"#q\".\"#ord\") \
                    FILTER (WHERE \"#q\".\"#ord\" <= ${limit}), '[]')::text AS \"#data\", \
             count(*) AS \"#rows\", max(\"#q\".\"#at\") FILTER (WHERE \"#q\".\"#ord\" = ${limit}) AS \"#last\" \
             FROM (SELECT {json} AS \"#data\", \"{ROW}\".\"#ord\", ARRAY[{exact}] AS \"#at\" \
             FROM ({rows}) AS \"{ROW}\"{joins}) AS \"#q\") AS \"#l\""
        );
    }

    /// The rows of the page and one more, numbered in order as `#ord`.
    pub(super) fn rows(&mut self, resource: &Resource, page: &Page, filtered: &str, limit: usize) -> String {
        let order = &page.order;
        let first = order.columns[0];
        // A list without a sort goes by its key, which is never null.
        let nullable = !resource.columns[first].not_null;
        let in_nulls = page.after.as_ref().is_some_and(|after| after[0].is_none());
        let sorted = |alias: &str| sorted(resource, order, alias);
        if !nullable {
            let part = self.part(resource, page, filtered, limit, Part::Whole);
            return format!(
                "SELECT *, row_number() OVER ({}) AS \"#ord\" FROM ({part}) AS \"#u\"",
                sorted("#u")
            );
        }
        if in_nulls {
            let part = self.part(resource, page, filtered, limit, Part::Nulls);
            return format!(
                "SELECT *, row_number() OVER ({}) AS \"#ord\" FROM ({part}) AS \"#u\"",
                sorted("#u")
            );
        }
        let values = self.part(resource, page, filtered, limit, Part::Values);
        let nulls = self.part(resource, page, filtered, limit, Part::Nulls);
        let order_by = sorted("#u");
        let order_by = order_by.trim_start_matches("ORDER BY ");
        format!(
            "WITH \"#a\" AS MATERIALIZED ({values}), \"#b\" AS MATERIALIZED ({nulls}) \
             SELECT *, row_number() OVER (ORDER BY \"#u\".\"#part\", {order_by}) AS \"#ord\" \
             FROM (SELECT 0 AS \"#part\", * FROM \"#a\" UNION ALL SELECT 1, * FROM \"#b\") AS \"#u\""
        )
    }

    /// One scan: at most one row more than the limit, in order.
    fn part(&mut self, resource: &Resource, page: &Page, filtered: &str, limit: usize, part: Part) -> String {
        let table = resource.definition.table.as_str();
        let order = &page.order;
        let first = place(resource, table, order.columns[0]);
        let mut sql = format!("SELECT \"{table}\".* {filtered}");
        let after = page.after.as_deref();
        // Within the nulls only the key counts.
        let from = usize::from(part == Part::Nulls);
        match part {
            Part::Whole => {}
            Part::Values => {
                let _ = write!(sql, " AND {first} IS NOT NULL");
            }
            Part::Nulls => {
                let _ = write!(sql, " AND {first} IS NULL");
            }
        }
        // A page that ended among the values has all nulls before it, and the other way round.
        let inside = after.filter(|after| after[0].is_none() == (part == Part::Nulls));
        if let Some(values) = inside {
            let comparison = self.behind(resource, order, values, from);
            let _ = write!(sql, " AND {comparison}");
        } else if part == Part::Nulls {
            let _ = write!(sql, " AND (SELECT count(*) FROM \"#a\") <= ${limit}");
        }
        // The sort column stays in the order of the nulls: only so does the planner see that its index gives it.
        let _ = write!(sql, " {} LIMIT ${limit} + 1", sorted(resource, order, table));
        sql
    }

    /// `(a, b) > ($1, $2)`, from the `from`-th column of the order on. Values that are null are skipped by the
    /// caller.
    fn behind(
        &mut self,
        resource: &Resource,
        order: &Order,
        values: &[Option<String>],
        from: usize,
    ) -> String {
        let table = resource.definition.table.as_str();
        let columns = &order.columns[from..];
        let left: Vec<_> = columns
            .iter()
            .map(|&column| place(resource, table, column))
            .collect();
        let right: Vec<_> = columns
            .iter()
            .zip(&values[from..])
            .map(|(&column, value)| self.value(resource, column, value.as_deref().unwrap_or_default()))
            .collect();
        let sign = if order.descending { '<' } else { '>' };
        format!("({}) {sign} ({})", left.join(", "), right.join(", "))
    }

    pub(super) fn filters(&mut self, sql: &mut String, resource: &Resource, filters: &[Filter]) {
        let table = resource.definition.table.as_str();
        for filter in filters {
            let column = place(resource, table, filter.column);
            let condition = match &filter.test {
                Test::Compare(operator, value) => {
                    let value = self.value(resource, filter.column, value);
                    format!("{column} {} {value}", sign(*operator))
                }
                Test::In(values) => {
                    let at = self.bind(Bind::Texts(values.clone()));
                    let cast = resource.columns[filter.column].ty.cast();
                    format!("{column} = ANY(${at}::text[]::{cast}[])")
                }
                Test::IsNull(true) => format!("{column} IS NULL"),
                Test::IsNull(false) => format!("{column} IS NOT NULL"),
            };
            let _ = write!(sql, " AND {condition}");
        }
    }
}

/// `ORDER BY a DESC, b DESC`. Without `NULLS LAST`: it is about columns, or parts of them, without nulls, and an
/// index in its usual order serves it.
fn sorted(resource: &Resource, order: &Order, alias: &str) -> String {
    let direction = if order.descending { " DESC" } else { "" };
    let columns = order.columns.iter();
    let columns: Vec<_> = columns
        .map(|&column| format!("{}{direction}", place(resource, alias, column)))
        .collect();
    format!("ORDER BY {}", columns.join(", "))
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Ne => "<>",
        Operator::Gt => ">",
        Operator::Gte => ">=",
        Operator::Lt => "<",
        Operator::Lte => "<=",
        Operator::Eq | Operator::In | Operator::Is => "=",
    }
}
