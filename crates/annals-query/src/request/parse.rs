//! Reads the parameters of a query string and the key of a path.

use std::collections::BTreeSet;

use super::{Filter, Operator, Request, Test};
use crate::resource::Resource;
use crate::value::SqlType;
use crate::{Limits, QueryError};

/// At most so many filters: each is planned, and may be sent by anybody.
const MAX_FILTERS: usize = 50;

/// At most so many values of one `in`.
const MAX_IN: usize = 500;

/// What the parameters say.
pub(super) struct Parameters {
    pub(super) limit: u32,
    pub(super) cursor: Option<String>,
    /// Column, and whether it is descending.
    pub(super) sort: Option<(usize, bool)>,
    pub(super) filters: Vec<Filter>,
    pub(super) fields: Vec<usize>,
    pub(super) expand: BTreeSet<String>,
}

impl Parameters {
    pub(super) fn read(resource: &Resource, request: &Request, limits: &Limits) -> Result<Self, QueryError> {
        let list = request.key.is_none();
        let (mut limit, mut cursor, mut sort, mut fields) = (None, None, None, None);
        let mut filters = Vec::new();
        let mut expand = BTreeSet::new();
        for (name, value) in &request.parameters {
            match name.as_str() {
                "limit" if list => once(&mut limit, name, read_limit(value, limits)?)?,
                "cursor" if list => once(&mut cursor, name, value.clone())?,
                "sort" if list => once(&mut sort, name, read_sort(resource, value)?)?,
                "fields" => once(&mut fields, name, read_fields(resource, value)?)?,
                "expand" => expand.extend(value.split(',').map(str::to_owned)),
                _ if list => filters.push(read_filter(resource, name, value)?),
                _ => return Err(unknown(resource, name, list)),
            }
            if filters.len() > MAX_FILTERS {
                let expected = format!("one of at most {MAX_FILTERS} filters");
                return Err(QueryError::invalid(name, expected));
            }
        }
        Ok(Self {
            limit: limit.unwrap_or(limits.default_page),
            cursor,
            sort,
            filters,
            fields: fields.unwrap_or_else(|| (0..resource.columns.len()).collect()),
            expand,
        })
    }
}

/// The values of a key in a path, parts with commas between; `None` if it cannot be a key of this table.
pub(super) fn key(resource: &Resource, text: &str) -> Option<Vec<String>> {
    let types = || resource.key.iter().map(|&at| resource.columns[at].ty);
    if let [only] = resource.key.as_slice() {
        return Some(vec![resource.columns[*only].ty.parse(text)?]);
    }
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() != resource.key.len() {
        return None;
    }
    types().zip(parts).map(|(ty, part)| ty.parse(part)).collect()
}

pub(super) fn name(operator: Operator) -> &'static str {
    match operator {
        Operator::Eq => "eq",
        Operator::Ne => "ne",
        Operator::Gt => "gt",
        Operator::Gte => "gte",
        Operator::Lt => "lt",
        Operator::Lte => "lte",
        Operator::In => "in",
        Operator::Is => "is",
    }
}

const OPERATORS: [Operator; 8] = [
    Operator::Eq,
    Operator::Ne,
    Operator::Gt,
    Operator::Gte,
    Operator::Lt,
    Operator::Lte,
    Operator::In,
    Operator::Is,
];

fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), QueryError> {
    if slot.replace(value).is_some() {
        return Err(QueryError::invalid(name, "given once"));
    }
    Ok(())
}

fn read_limit(value: &str, limits: &Limits) -> Result<u32, QueryError> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let limit = value
        .parse()
        .ok()
        .filter(|limit| digits && (1..=limits.max_page).contains(limit));
    limit.ok_or_else(|| {
        let expected = format!("an integer from 1 to {}", limits.max_page);
        QueryError::invalid("limit", expected)
    })
}

fn read_sort(resource: &Resource, value: &str) -> Result<(usize, bool), QueryError> {
    let (name, descending) = match value.strip_prefix('-') {
        Some(name) => (name, true),
        None => (value, false),
    };
    let column = resource
        .sort
        .iter()
        .copied()
        .find(|&at| resource.columns[at].name == name);
    column.map(|column| (column, descending)).ok_or_else(|| {
        let offered: Vec<_> = resource
            .sort
            .iter()
            .map(|&at| resource.columns[at].name.as_str())
            .collect();
        let expected = match offered.as_slice() {
            [] => "left out: nothing can be sorted by here".to_owned(),
            names => format!("one of: {} (with - in front: descending)", names.join(", ")),
        };
        QueryError::invalid("sort", expected)
    })
}

fn read_fields(resource: &Resource, value: &str) -> Result<Vec<usize>, QueryError> {
    let mut fields = BTreeSet::new();
    for name in value.split(',') {
        let Some(at) = resource.column(name) else {
            let known: Vec<_> = resource
                .columns
                .iter()
                .map(|column| column.name.as_str())
                .collect();
            let expected = format!("of: {}, with commas between", known.join(", "));
            return Err(QueryError::invalid("fields", expected));
        };
        fields.insert(at);
    }
    Ok(fields.into_iter().collect())
}

fn read_filter(resource: &Resource, parameter: &str, value: &str) -> Result<Filter, QueryError> {
    let (column, operator) = parameter.split_once('.').unwrap_or((parameter, "eq"));
    let found = resource
        .filter
        .iter()
        .copied()
        .find(|&at| resource.columns[at].name == column);
    let operator = OPERATORS.into_iter().find(|known| name(*known) == operator);
    let (Some(column), Some(operator)) = (found, operator) else {
        return Err(unknown(resource, parameter, true));
    };
    let ty = resource.columns[column].ty;
    let test = read_test(ty, operator, value);
    let test = test.map_err(|expected| QueryError::invalid(parameter, expected))?;
    Ok(Filter { column, test })
}

fn read_test(ty: SqlType, operator: Operator, value: &str) -> Result<Test, String> {
    let one = |text: &str| ty.parse(text).ok_or_else(|| ty.expects().to_owned());
    match operator {
        Operator::Is => match value {
            "null" => Ok(Test::IsNull(true)),
            "not_null" => Ok(Test::IsNull(false)),
            _ => Err("null or not_null".to_owned()),
        },
        Operator::In => {
            let values = value.split(',').map(one).collect::<Result<BTreeSet<_>, _>>();
            match values {
                Ok(values) if values.len() <= MAX_IN => Ok(Test::In(values.into_iter().collect())),
                Ok(_) => Err(format!("at most {MAX_IN} values with commas between")),
                Err(expected) => Err(format!("values with commas between, each {expected}")),
            }
        }
        Operator::Eq | Operator::Ne | Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte => {
            Ok(Test::Compare(operator, one(value)?))
        }
    }
}

fn unknown(resource: &Resource, parameter: &str, list: bool) -> QueryError {
    let mut known: Vec<String> = ["fields", "expand"].map(str::to_owned).to_vec();
    if list {
        known.extend(["limit", "cursor", "sort"].map(str::to_owned));
        for &at in &resource.filter {
            let column = &resource.columns[at].name;
            known.push(column.clone());
            known.extend(OPERATORS.map(|operator| format!("{column}.{}", name(operator))));
        }
    }
    let parameter: String = parameter.chars().take(80).collect();
    let near = known
        .into_iter()
        .map(|candidate| (distance(&parameter, &candidate), candidate))
        .min_by_key(|(distance, _)| *distance);
    let close = near.filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3);
    QueryError::UnknownParameter {
        name: parameter,
        nearest: close.map(|(_, candidate)| candidate),
    }
}

/// Edits from one text to the other: characters put in, left out or replaced.
///
/// Source: Wagner and Fischer, "The String-to-String Correction Problem", 1974.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (from, to, edits) in [
            ("", "abc", 3),
            ("status", "stats", 1),
            ("total.gt", "total.gte", 1),
            ("a", "b", 1),
        ] {
            assert_eq!(distance(from, to), edits);
            assert_eq!(distance(to, from), edits);
        }
    }
}
