//! The table of error codes for people: one page a code, and `docs/errors.md`.

use std::fmt::Write;

use super::Code;

/// The page behind a problem's `type`.
#[must_use]
pub fn page(code: Code) -> String {
    let entry = code.entry();
    let mut members = String::new();
    for (name, meaning) in entry.members {
        let _ = write!(members, "<dt><code>{name}</code></dt><dd>{meaning}</dd>");
    }
    if !members.is_empty() {
        members = format!("<h2>Further members</h2><dl>{members}</dl>");
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}</title></head><body>\
         <h1>{title}</h1><p><code>{name}</code>, status {status}</p><p>{detail}</p>\
         <h2>What to do</h2><p>{remedy}</p>{members}</body></html>\n",
        name = entry.name,
        title = entry.title,
        status = entry.status,
        detail = entry.detail,
        remedy = entry.remedy,
    )
}

/// `docs/errors.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Errors\n\nGenerated from `crates/annals-http/src/problem/table.rs`; a test compares it and says how to \
         write it anew.\n\nEvery error is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, \
         `detail`, `instance`, `code`, `correlation_id`\nand the members named here. `GET /problems/{code}` shows \
         each row as a page.\n\n| status | code | when | what to do | members |\n|---|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let entry = code.entry();
        let members: Vec<_> = entry
            .members
            .iter()
            .map(|(name, meaning)| format!("`{name}`: {meaning}"))
            .collect();
        let _ = writeln!(
            text,
            "| {} | `{}` | {} | {} | {} |",
            entry.status,
            entry.name,
            entry.detail,
            entry.remedy,
            members.join("; "),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_errors_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        if option_env!("ANNALS_WRITE_DOCS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap_or_default(),
            markdown(),
            "write it anew: ANNALS_WRITE_DOCS=1 cargo test -p annals-http errors"
        );
    }

    #[test]
    fn every_code_has_its_own_name_and_an_error_status() {
        for code in Code::ALL {
            assert_eq!(Code::named(code.name()), Some(*code));
            assert!((400..600).contains(&code.entry().status));
            assert_eq!(code.status().as_u16(), code.entry().status);
            assert!(page(*code).contains(code.entry().title));
        }
        assert_eq!(Code::named("no-such-code"), None);
    }
}
