//! As much of SQL's grammar as is needed to refuse what is not a function of the events, and to put `events` in front.
//!
//! Source: PostgreSQL manual, "Lexical Structure". This is a guard against mistakes; a database role of little
//! right is the one against malice.

/// A piece of SQL that is neither space nor comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// A keyword or a name without quotes.
    Word(&'a str),
    /// `'…'`, with its quotes.
    Text(&'a str),
    /// A name in quotes, a number, a dollar-quoted text: of no interest.
    Other,
    /// One character of punctuation.
    Mark(char),
}

/// Functions that are not determined by their arguments. Refused where called.
const CALLS: &[&str] = &[
    "now",
    "clock_timestamp",
    "statement_timestamp",
    "transaction_timestamp",
    "timeofday",
    "random",
    "random_normal",
    "setseed",
    "gen_random_uuid",
    "gen_random_bytes",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "uuidv4",
    "uuidv7",
    "nextval",
    "currval",
    "lastval",
    "setval",
    "txid_current",
    "pg_current_xact_id",
    "pg_backend_pid",
    "pg_sleep",
    "pg_notify",
    "current_setting",
    "set_config",
    "dblink",
    "dblink_exec",
    "pg_read_file",
    "pg_read_binary_file",
    "lo_import",
    "lo_export",
    "inet_client_addr",
    "query_to_xml",
];

/// Words that stand for such a value without being called, or that make one.
const WORDS: &[&str] = &[
    "current_timestamp",
    "current_time",
    "current_date",
    "localtime",
    "localtimestamp",
    "current_user",
    "session_user",
    "serial",
    "bigserial",
    "smallserial",
    "serial4",
    "serial8",
    "identity",
    "tablesample",
];

/// Texts that Postgres reads as a time of its own choice.
const TIMES: &[&str] = &["'now'", "'today'", "'tomorrow'", "'yesterday'"];

/// Checks `schema.sql`: any number of statements, all of them determined.
pub(super) fn check_schema(sql: &str) -> Result<(), String> {
    let tokens = tokens(sql)?;
    refuse_undetermined(&tokens)?;
    for word in [
        "do", "call", "copy", "listen", "notify", "set", "begin", "commit", "rollback",
    ] {
        let starts = tokens.iter().enumerate().any(|(at, (token, _))| {
            matches!(token, Token::Word(found) if found.eq_ignore_ascii_case(word))
                && (at == 0 || matches!(tokens.get(at - 1), Some((Token::Mark(';'), _))))
        });
        if starts {
            return Err(format!(
                "`{}` does not belong into a build's schema: only make tables, indexes, types and functions",
                word.to_uppercase()
            ));
        }
    }
    Ok(())
}

/// Checks a statement of `on/`, and gives it back without a closing semicolon.
pub(super) fn check_statement(sql: &str) -> Result<String, String> {
    let (text, first) = single(sql)?;
    let begins = ["insert", "update", "delete", "merge", "with"];
    if !begins.iter().any(|word| first.eq_ignore_ascii_case(word)) {
        return Err(format!(
            "begins with `{first}`: write one INSERT, UPDATE, DELETE or MERGE, with its own WITH if it needs one"
        ));
    }
    let reads = tokens(sql)?
        .iter()
        .any(|(token, _)| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("events")));
    if !reads {
        return Err("does not read the relation `events`, so it does the same for every batch".to_owned());
    }
    Ok(text)
}

/// Checks a query, and gives it back without a closing semicolon.
pub(super) fn check_query(sql: &str) -> Result<String, String> {
    let (text, first) = single(sql)?;
    if ["select", "with"]
        .iter()
        .any(|word| first.eq_ignore_ascii_case(word))
    {
        return Ok(text);
    }
    Err(format!("begins with `{first}`: write one SELECT"))
}

/// Checks an SQL condition.
pub(super) fn check_condition(sql: &str) -> Result<String, String> {
    Ok(single(sql)?.0)
}

/// Puts the relation `events` in front of a checked statement: `relation` is its query.
#[must_use]
pub fn with_events(statement: &str, relation: &str) -> String {
    let Ok(tokens) = tokens(statement) else {
        return statement.to_owned(); // it was checked before: cannot happen
    };
    let word = |at: usize, wanted: &str| matches!(tokens.get(at), Some((Token::Word(word), _)) if word.eq_ignore_ascii_case(wanted));
    let after = |at: usize| tokens.get(at).map_or("", |(_, start)| &statement[*start..]);
    if !word(0, "with") {
        return format!("WITH events AS ({relation})\n{statement}");
    }
    if word(1, "recursive") {
        return format!("WITH RECURSIVE events AS ({relation}),\n{}", after(2));
    }
    format!("WITH events AS ({relation}),\n{}", after(1))
}

/// Which of these columns of `events` a checked statement may read: those that it names, or all if it could read
/// some without naming them (`*`, a whole row as a value, a name in quotes).
#[must_use]
pub fn columns_read<'a>(statement: &str, columns: &[&'a str]) -> Vec<&'a str> {
    let Ok(tokens) = tokens(statement) else {
        return columns.to_vec(); // it was checked before: cannot happen
    };
    let is = |token: Option<&(Token<'_>, usize)>, wanted: &[&str]| matches!(token, Some((Token::Word(word), _)) if wanted.iter().any(|name| word.eq_ignore_ascii_case(name)));
    let unnamed = tokens.iter().enumerate().any(|(at, (token, start))| match token {
        // `count(*)` and `a * b` read nothing by themselves.
        Token::Mark('*') => at.checked_sub(1).is_some_and(|before| {
            matches!(tokens.get(before), Some((Token::Mark(',' | '.'), _)))
                || is(tokens.get(before), &["select", "distinct", "all", "returning"])
        }),
        Token::Word(_) => is(tokens.get(at), WHOLE_ROWS),
        Token::Other => statement[*start..].starts_with('"'),
        Token::Text(_) | Token::Mark(_) => false,
    });
    let named = |column: &&&str| unnamed || tokens.iter().any(|token| is(Some(token), &[**column]));
    columns.iter().filter(named).copied().collect()
}

/// Whether a checked statement names a column.
#[must_use]
pub fn names(statement: &str, column: &str) -> bool {
    columns_read(statement, &[column]) == [column]
}

/// Functions and words that take a whole row as a value.
const WHOLE_ROWS: &[&str] = &[
    "table",
    "to_json",
    "to_jsonb",
    "row_to_json",
    "json_agg",
    "jsonb_agg",
    "array_agg",
    "row",
    "hstore",
    "natural",
];

/// The one statement of a text without its closing semicolon, and its first word.
fn single(sql: &str) -> Result<(String, &str), String> {
    let tokens = tokens(sql)?;
    refuse_undetermined(&tokens)?;
    let Some((first, _)) = tokens.first() else {
        return Err("is empty: write one statement".to_owned());
    };
    let end = tokens.iter().position(|(token, _)| *token == Token::Mark(';'));
    let end = match end {
        Some(at) if at + 1 < tokens.len() => {
            return Err("holds several statements: write one, or one file a table".to_owned());
        }
        Some(at) => tokens.get(at).map_or(sql.len(), |(_, start)| *start),
        None => sql.len(),
    };
    let first = match first {
        Token::Word(word) => word,
        _ => "",
    };
    Ok((sql.get(..end).unwrap_or(sql).trim().to_owned(), first))
}

fn refuse_undetermined(tokens: &[(Token<'_>, usize)]) -> Result<(), String> {
    for (at, (token, _)) in tokens.iter().enumerate() {
        let refused = match token {
            Token::Word(word) => {
                let called = matches!(tokens.get(at + 1), Some((Token::Mark('('), _)));
                let is = |list: &[&str]| list.iter().any(|name| word.eq_ignore_ascii_case(name));
                ((called && is(CALLS)) || is(WORDS)).then_some(*word)
            }
            Token::Text(text) => TIMES
                .iter()
                .any(|time| text.eq_ignore_ascii_case(time))
                .then_some(*text),
            Token::Other | Token::Mark(_) => None,
        };
        if let Some(found) = refused {
            return Err(format!(
                "`{found}` is refused: a row must follow from the events alone, so that a rebuild gives the same; \
                 take times from `occurred_at` and ids from the event"
            ));
        }
    }
    Ok(())
}

/// Tokens with the byte at which each begins.
fn tokens(sql: &str) -> Result<Vec<(Token<'_>, usize)>, String> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.is_empty()) {
        let (token, length) = next(rest)?;
        if let Some(token) = token {
            found.push((token, at));
        }
        at += length;
    }
    Ok(found)
}

/// The first token of a text that is not empty, and its length in bytes; no token for space and comments.
fn next(rest: &str) -> Result<(Option<Token<'_>>, usize), String> {
    let first = rest.chars().next().unwrap_or(' ');
    if first.is_whitespace() {
        return Ok((None, first.len_utf8()));
    }
    if rest.starts_with("--") {
        return Ok((None, rest.find('\n').unwrap_or(rest.len())));
    }
    if rest.starts_with("/*") {
        return Ok((None, comment(rest)?));
    }
    if first == '\'' {
        let length = quoted(rest, '\'', false)?;
        return Ok((Some(Token::Text(&rest[..length])), length));
    }
    if first == '"' {
        return Ok((Some(Token::Other), quoted(rest, '"', false)?));
    }
    if first == '$'
        && let Some(length) = dollar(rest)?
    {
        return Ok((Some(Token::Other), length));
    }
    if first.is_alphabetic() || first == '_' {
        let length = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
            .unwrap_or(rest.len());
        let word = &rest[..length];
        // E'…' has escapes by backslash; B, X, N and U& behave as plain ones here.
        if rest[length..].starts_with('\'') && word.eq_ignore_ascii_case("e") {
            return Ok((Some(Token::Other), length + quoted(&rest[length..], '\'', true)?));
        }
        return Ok((Some(Token::Word(word)), length));
    }
    if first.is_ascii_digit() {
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_'));
        return Ok((Some(Token::Other), length.unwrap_or(rest.len())));
    }
    Ok((Some(Token::Mark(first)), first.len_utf8()))
}

fn comment(rest: &str) -> Result<usize, String> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth.saturating_sub(1), at + 2);
            if depth == 0 {
                return Ok(at);
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    Err("has a comment that does not end: close it with */".to_owned())
}

/// The length of a quoted text; a doubled quote is one quote within it.
fn quoted(rest: &str, quote: char, backslash: bool) -> Result<usize, String> {
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if backslash && character == '\\' {
            characters.next();
        } else if character == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => {
                    characters.next();
                }
                _ => return Ok(at + 1),
            }
        }
    }
    Err(format!("has a text that does not end: close it with {quote}"))
}

/// The length of `$tag$…$tag$`; `None` if it is something else (`$1`).
fn dollar(rest: &str) -> Result<Option<usize>, String> {
    let Some(tag_end) = rest.get(1..).and_then(|rest| rest.find('$')) else {
        return Ok(None);
    };
    let tag = &rest[..tag_end + 2];
    let name = &tag[1..tag.len() - 1];
    let is_tag = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return Ok(None);
    }
    match rest[tag.len()..].find(tag) {
        Some(at) => Ok(Some(tag.len() + at + tag.len())),
        None => Err(format!("has a text that does not end: close it with {tag}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn refuses_what_does_not_follow_from_the_events() {
        let refused = [
            "INSERT INTO t SELECT NOW() FROM events",
            "INSERT INTO t SELECT current_timestamp FROM events",
            "INSERT INTO t SELECT gen_random_uuid () FROM events",
            "INSERT INTO t SELECT 'now'::timestamptz FROM events",
            "WITH x AS (SELECT random()) INSERT INTO t SELECT 1 FROM events",
            "INSERT INTO t SELECT pg_catalog.clock_timestamp() FROM events",
        ];
        for sql in refused {
            let error = check_statement(sql).unwrap_err();
            assert!(error.contains("refused"), "{sql}: {error}");
        }
        assert!(check_schema("CREATE TABLE t (id bigserial)").is_err());
        assert!(check_schema("CREATE TABLE t (at timestamptz DEFAULT now())").is_err());
        assert!(check_schema("CREATE TABLE t (id int); SET search_path = public").is_err());
    }

    #[test]
    fn names_comments_and_texts_are_not_calls() {
        let allowed = [
            "INSERT INTO t (now) SELECT 1 FROM events -- now()",
            "INSERT INTO t SELECT 'random()', $x$ now() $x$, \"now\" /* now() /* nested */ */ FROM events;",
            "UPDATE t SET a = 'it''s ; fine' FROM events",
            r"UPDATE t SET a = E'\'; now()' FROM events",
        ];
        for sql in allowed {
            check_statement(sql).unwrap();
        }
    }

    #[test]
    fn takes_one_statement_that_changes_rows() {
        assert!(check_statement("DELETE FROM a USING events; DELETE FROM b").is_err());
        assert!(check_statement("SELECT * FROM events").is_err());
        assert!(check_statement("TRUNCATE t").is_err());
        assert!(check_statement("DELETE FROM t").unwrap_err().contains("events"));
        assert!(check_statement(" -- nothing\n").is_err());
        assert!(check_statement("DELETE FROM t USING events 'open").is_err());
        assert_eq!(
            check_statement("-- why\nDELETE FROM t USING events ; -- done\n").unwrap(),
            "-- why\nDELETE FROM t USING events"
        );
    }

    #[test]
    fn knows_which_columns_a_statement_may_read() {
        let all = ["key", "version", "data"];
        let read = |sql| columns_read(sql, &all);
        assert_eq!(
            read("INSERT INTO t SELECT e.key, count(*), 2 * 3 FROM events e"),
            ["key"]
        );
        assert_eq!(
            read("UPDATE t SET a = e.DATA->>'version' FROM events e"),
            ["data"]
        );
        for sql in [
            "INSERT INTO t SELECT * FROM events",
            "INSERT INTO t SELECT e.* FROM events e",
            "INSERT INTO t SELECT to_jsonb(e) FROM events e",
            "INSERT INTO t SELECT \"key\" FROM events",
            "INSERT INTO t TABLE events",
        ] {
            assert_eq!(read(sql), all, "{sql}");
        }
        assert!(names("UPDATE t SET _version = 1 FROM events", "_version"));
        assert!(!names("UPDATE t SET version = 1 FROM events", "_version"));
    }

    #[test]
    fn puts_events_in_front_of_any_with() {
        assert_eq!(
            with_events("DELETE FROM t", "E"),
            "WITH events AS (E)\nDELETE FROM t"
        );
        assert_eq!(
            with_events("/* x */ with a AS (SELECT 1) DELETE FROM t", "E"),
            "WITH events AS (E),\na AS (SELECT 1) DELETE FROM t"
        );
        assert_eq!(
            with_events("WITH RECURSIVE a AS (SELECT 1) DELETE FROM t", "E"),
            "WITH RECURSIVE events AS (E),\na AS (SELECT 1) DELETE FROM t"
        );
    }
}
