//! The rules, each a pure function from a file to its breaches.

use std::fmt;

/// A text file of the repository: its path from the root with `/`, and what it holds.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) executable: bool,
}

/// One place that breaks a rule. Lines count from 1.
#[derive(Debug)]
pub(crate) struct Breach {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Lines a file may have. Files with more need a reason, in `LONG`.
const MOST_LINES: usize = 500;

/// Files that may be longer, each with its reason.
const LONG: [(&str, &str); 0] = [];

/// Names that say nothing of what a module holds.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "helper", "misc"];

/// Each table of schema `annals` and the one crate whose SQL may name it.
const OWNERS: [(&str, &str); 15] = [
    ("journal", "annals-log"),
    ("log_meta", "annals-log"),
    ("log_head", "annals-log"),
    ("snapshot", "annals-log"),
    ("checkpoint", "annals-log"),
    ("lease", "annals-store"),
    ("subject_key", "annals-auth"),
    ("projection", "annals-projection"),
    ("parked", "annals-projection"),
    ("process_held", "annals-process"),
    ("process_instance", "annals-process"),
    ("process_outbox", "annals-process"),
    ("timer", "annals-process"),
    ("audit_record", "annals-audit"),
    ("audit_shape", "annals-audit"),
];

/// What may lie at the top of the repository.
const TOP: [&str; 27] = [
    ".cargo",
    ".ci",
    ".editorconfig",
    ".gitattributes",
    ".gitignore",
    ".sqlx",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "annals.example.toml",
    "benches",
    "clippy.toml",
    "crates",
    "deny.toml",
    "deploy",
    "docs",
    "migrations",
    "policies",
    "projections",
    "rustfmt.toml",
    "schemas",
    "tests",
];

/// What must be there; a folder is there when a file lies in it.
const REQUIRED: [&str; 22] = [
    ".ci/run",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "annals.example.toml",
    "benches/",
    "clippy.toml",
    "crates/",
    "deploy/",
    "docs/decisions/",
    "docs/errors.md",
    "migrations/",
    "policies/",
    "projections/",
    "schemas/",
    "tests/",
];

/// Package registries and paths of one machine. Written in two halves, or this file would break its own rule.
const PLACES: [&str; 14] = [
    concat!("static.crates", ".io"),
    concat!("index.crates", ".io"),
    concat!("repo1.maven", ".org"),
    concat!("repo.maven.", "apache.org"),
    concat!("registry.npmjs", ".org"),
    concat!("pypi", ".org"),
    concat!("files.pythonhosted", ".org"),
    concat!("deb.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/fa", "rm/"),
    concat!("/Us", "ers/"),
];

const UNDONE: [&str; 3] = [
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("#[", "ignore"),
];

impl File {
    fn breach(&self, line: usize, what: impl Into<String>) -> Breach {
        Breach {
            path: self.path.clone(),
            line,
            what: what.into(),
        }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Cases for the compiler's own messages are not modules.
    fn is_compiler_case(&self) -> bool {
        self.path.contains("/tests/ui/")
    }

    fn is_script(&self) -> bool {
        self.text.starts_with("#!/")
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Lines that are not comments of their own.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let marker = if self.is_rust() { "//" } else { "--" };
        self.lines()
            .filter(move |(_, line)| !line.trim_start().starts_with(marker))
    }

    /// The crate in whose sources this file lies.
    fn crate_name(&self) -> Option<&str> {
        let (name, rest) = self.path.strip_prefix("crates/")?.split_once('/')?;
        rest.starts_with("src/").then_some(name)
    }
}

/// A module starts with `//!` and a paragraph that is a sentence. Attributes may stand before it.
pub(crate) fn module_docs(file: &File) -> Vec<Breach> {
    if !file.is_rust() || file.is_compiler_case() {
        return Vec::new();
    }
    let mut lines = file
        .lines()
        .skip_while(|(_, line)| line.is_empty() || line.starts_with("#!["));
    let first = lines.by_ref().next();
    let Some((line, Some(text))) = first.map(|(line, text)| (line, text.strip_prefix("//! "))) else {
        let line = first.map_or(1, |(line, _)| line);
        return vec![file.breach(
            line,
            "begin the module with `//!` and one sentence on what it is for",
        )];
    };
    let rest = lines.map_while(|(_, line)| line.strip_prefix("//! "));
    let last = rest.last().unwrap_or(text).trim_end();
    if last.ends_with(['.', ':', '?', '!']) {
        return Vec::new();
    }
    vec![file.breach(
        line,
        "let the module's first paragraph be a sentence, with its full stop",
    )]
}

/// `foo.rs` lies beside `foo/`, and no module is called after nothing.
pub(crate) fn names(file: &File) -> Vec<Breach> {
    if !file.is_rust() {
        return Vec::new();
    }
    let stem = file.path.trim_end_matches(".rs");
    if stem.ends_with("/mod") {
        return vec![file.breach(
            1,
            "name it after its folder, beside the folder: `foo.rs`, not `foo/mod.rs`",
        )];
    }
    let empty = stem.split('/').find(|part| EMPTY_NAMES.contains(part));
    empty
        .map(|name| {
            file.breach(
                1,
                format!("`{name}` says nothing: name the module after what it holds"),
            )
        })
        .into_iter()
        .collect()
}

/// A file has one idea and at most `MOST_LINES` lines.
pub(crate) fn length(file: &File) -> Vec<Breach> {
    let lines = file.text.lines().count();
    let excused = LONG.iter().any(|(path, _)| *path == file.path);
    if lines <= MOST_LINES || excused || !(file.is_rust() || file.is_script()) {
        return Vec::new();
    }
    vec![file.breach(
        MOST_LINES + 1,
        format!("{lines} lines are more than {MOST_LINES}: split it by its ideas"),
    )]
}

fn owner(table: &str) -> Option<&'static str> {
    OWNERS
        .iter()
        .find(|(name, _)| *name == table)
        .map(|(_, owner)| *owner)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The word that follows each whole-word `marker`.
fn words_after<'a>(line: &'a str, marker: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(marker).filter_map(move |(at, _)| {
        let (before, after) = (&line[..at], &line[at + marker.len()..]);
        let end = after.find(|c| !is_word(c)).unwrap_or(after.len());
        let alone = !before.ends_with(is_word) && !after[end..].starts_with('.') && end > 0;
        alone.then(|| &after[..end])
    })
}

/// The tables that a line of SQL names, with their schema or after the keywords that a table follows.
fn tables_named(line: &str) -> Vec<&str> {
    let markers = ["annals.", "FROM ", "JOIN ", "INTO ", "UPDATE ", "TABLE ", "ONLY "];
    let mut named: Vec<&str> = markers
        .iter()
        .flat_map(|marker| words_after(line, marker))
        .collect();
    named.retain(|word| owner(word).is_some());
    named.sort_unstable();
    named.dedup();
    named
}

/// SQL on a table is in the one crate that owns it. The migrations and the tests' databases are outside.
pub(crate) fn tables(file: &File) -> Vec<Breach> {
    let holder = match file.crate_name() {
        Some(name) if !file.path.starts_with("crates/annals-store/src/testing") => name,
        None if file.path.starts_with("projections/") && file.path.ends_with(".sql") => "a projection",
        _ => return Vec::new(),
    };
    let mut breaches = Vec::new();
    for (number, line) in file.code() {
        for table in tables_named(line) {
            let owner = owner(table).expect("only tables with an owner are listed");
            if owner != holder {
                let what = format!("{holder} names annals.{table}, which {owner} owns: call {owner} instead");
                breaches.push(file.breach(number, what));
            }
        }
    }
    breaches
}

/// A table that a migration creates is in the map of owners.
pub(crate) fn created_tables(file: &File) -> Vec<Breach> {
    if !file.path.starts_with("migrations/") {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for (number, line) in file.code() {
        for marker in [
            "CREATE TABLE annals.",
            "CREATE UNLOGGED TABLE annals.",
            "CREATE TABLE IF NOT EXISTS annals.",
        ] {
            for table in words_after(line, marker).filter(|table| owner(table).is_none()) {
                let what =
                    format!("annals.{table} has no owner: enter it in OWNERS of tests/tests/tidy/rules.rs");
                breaches.push(file.breach(number, what));
            }
        }
    }
    breaches
}

/// No registry host, no path of somebody's machine: they are wrong everywhere else.
pub(crate) fn places(file: &File) -> Vec<Breach> {
    // Cargo writes the registry into the lock file itself.
    if file.path == "Cargo.lock" {
        return Vec::new();
    }
    let mut breaches = Vec::new();
    for (number, line) in file.lines() {
        for place in PLACES {
            let found = line.match_indices(place).any(|(at, _)| {
                // `src/work/x` is a path within something, `https://index…` is a host.
                !line[..at].ends_with(|c| is_word(c) || c == '.' || c == '-' || c == '}')
            });
            if found {
                breaches.push(file.breach(
                    number,
                    format!("`{place}` is a place of one machine or a registry: leave it out"),
                ));
            }
        }
    }
    breaches
}

/// What starts with `#!` can be executed.
pub(crate) fn scripts(file: &File) -> Vec<Breach> {
    if !file.is_script() || file.executable {
        return Vec::new();
    }
    vec![file.breach(
        1,
        "a script that cannot be executed: `git update-index --chmod=+x` and `chmod +x`",
    )]
}

/// Nothing is left for later in code, and no test is switched off.
pub(crate) fn undone(file: &File) -> Vec<Breach> {
    if !file.is_rust() {
        return Vec::new();
    }
    let found = file.code().flat_map(|(number, line)| {
        let marks = UNDONE.iter().filter(move |mark| line.contains(*mark));
        marks.map(move |mark| {
            file.breach(
                number,
                format!("`{mark}`: do it, or take it out and file an issue"),
            )
        })
    });
    found.collect()
}

/// The top of the repository is as the architecture lists it.
pub(crate) fn layout(files: &[File]) -> Vec<Breach> {
    let top = |message: String, path: &str| Breach {
        path: path.to_owned(),
        line: 1,
        what: message,
    };
    let missing = REQUIRED.iter().filter(|required| {
        !files.iter().any(|file| {
            file.path == **required || required.ends_with('/') && file.path.starts_with(**required)
        })
    });
    let mut breaches: Vec<Breach> = missing
        .map(|path| top("the architecture asks for it, and it is missing".to_owned(), path))
        .collect();
    let mut strangers: Vec<&str> = files
        .iter()
        .map(|file| file.path.split('/').next().unwrap_or_default())
        .collect();
    strangers.sort_unstable();
    strangers.dedup();
    strangers.retain(|entry| !TOP.contains(entry));
    breaches.extend(strangers.iter().map(|entry| {
        top(
            "has no place at the top: move it into a folder that is listed".to_owned(),
            entry,
        )
    }));
    breaches
}

/// Alerts look at metrics that the program has. (The ending of a histogram's parts aside.)
pub(crate) fn alerts(files: &[File]) -> Vec<Breach> {
    let code: Vec<&File> = files.iter().filter(|file| file.path.ends_with(".rs")).collect();
    let known = |name: &str| {
        let endings = ["_bucket", "_count", "_sum"];
        let base = endings.iter().find_map(|ending| name.strip_suffix(ending));
        [Some(name), base]
            .into_iter()
            .flatten()
            .any(|name| code.iter().any(|file| file.text.contains(&format!("\"{name}\""))))
    };
    let mut breaches = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.path.starts_with("deploy/prometheus/"))
    {
        for (line, text) in (1..).zip(file.text.lines()) {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for name in words.filter(|word| word.starts_with("annals_") && !known(word)) {
                breaches.push(Breach {
                    path: file.path.clone(),
                    line,
                    what: format!("no metric is called {name}: nothing would ever alarm"),
                });
            }
        }
    }
    breaches
}
