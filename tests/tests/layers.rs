//! The layers of crates: arrows go down only, never sideways, and each outside library has its owners.
//!
//! Reads the manifests and the lock file; runs no cargo. When one of these tests fails, its text says which
//! line of which manifest breaks which rule. Source: the layers in `ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use toml::{Table, Value};

/// Every package of the workspace and its layer. A dependency lies in a lower layer than its dependent.
const LAYERS: [(&str, u8); 17] = [
    ("annals-tests", 8),
    ("annals-benches", 8),
    ("commerce", 7),
    ("annals", 6),
    ("annals-http", 5),
    ("annals-process", 4),
    ("annals-query", 4),
    ("annals-audit", 4),
    ("annals-command", 3),
    ("annals-projection", 3),
    ("annals-log", 2),
    ("annals-auth", 2),
    ("annals-client", 2),
    ("annals-domain", 1),
    ("annals-record", 0),
    ("annals-store", 0),
    ("annals-derive", 0),
];

/// Libraries that only some crates may use. (Development dependencies are free of this.)
const OWNED: [(&str, &[&str], &str); 3] = [
    (
        "rdkafka",
        &["annals-log", "annals-tests", "annals-benches"],
        "annals-log is the sole owner of Kafka",
    ),
    (
        "anyhow",
        &["annals", "commerce", "annals-tests", "annals-benches"],
        "errors below the crate annals have types (thiserror)",
    ),
    (
        "clap",
        &["annals", "commerce", "annals-tests", "annals-benches"],
        "the command line is composition",
    ),
];

/// Libraries that a crate may not use, after the column "may not" of the architecture's table.
const FORBIDDEN: [(&str, &[&str], &str); 5] = [
    (
        "annals-domain",
        &["tokio", "sqlx", "reqwest", "axum", "hyper"],
        "the domain does no I/O and is not async",
    ),
    (
        "annals-command",
        &["axum", "http", "hyper", "reqwest", "tower-http"],
        "the engine does not know HTTP",
    ),
    (
        "annals-auth",
        &["axum", "http", "hyper", "tower-http"],
        "authorization does not know HTTP",
    ),
    (
        "annals-store",
        &["axum", "reqwest", "rdkafka"],
        "it knows Postgres and nothing else",
    ),
    (
        "commerce",
        &["sqlx", "rdkafka"],
        "a domain is rules and SQL files, no plumbing",
    ),
];

/// What must not be in the tree of `annals-record`, at any depth: a stranger checks a log with it.
const NOT_IN_RECORD: [&str; 12] = [
    "tokio",
    "mio",
    "rdkafka",
    "rdkafka-sys",
    "sqlx",
    "sqlx-core",
    "hyper",
    "http",
    "axum",
    "reqwest",
    "rustls",
    "openssl-sys",
];

struct Manifest {
    path: String,
    text: String,
    table: Table,
}

struct Dependency {
    name: String,
    dev: bool,
    line: usize,
}

impl Manifest {
    fn parse(path: &str, text: &str) -> Self {
        let table = text
            .parse()
            .expect("cargo accepts every manifest that is tested here");
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            table,
        }
    }

    fn package(&self) -> &str {
        self.table["package"]["name"]
            .as_str()
            .expect("a package's name is a string")
    }

    /// All dependencies, those for one platform included, by the names of their packages.
    fn dependencies(&self) -> Vec<Dependency> {
        let platforms = self
            .table
            .get("target")
            .and_then(Value::as_table)
            .into_iter()
            .flatten();
        let tables = platforms
            .filter_map(|(_, table)| table.as_table())
            .chain([&self.table]);
        let mut found = Vec::new();
        for table in tables {
            for (kind, dev) in [
                ("dependencies", false),
                ("build-dependencies", false),
                ("dev-dependencies", true),
            ] {
                for (key, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
                    let name = value.get("package").and_then(Value::as_str).unwrap_or(key);
                    found.push(Dependency {
                        name: name.to_owned(),
                        dev,
                        line: self.line_of(key),
                    });
                }
            }
        }
        found
    }

    fn line_of(&self, key: &str) -> usize {
        let names_it = |line: &str| {
            line.strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
                || line.starts_with('[') && line.trim_end_matches(']').ends_with(&format!(".{key}"))
        };
        self.text.lines().position(names_it).map_or(1, |index| index + 1)
    }
}

fn layer(package: &str) -> Option<u8> {
    LAYERS
        .iter()
        .find(|(name, _)| *name == package)
        .map(|(_, layer)| *layer)
}

/// Each breach of the layers, as `path:line: what, and what to do`.
fn broken_arrows(manifests: &[Manifest]) -> Vec<String> {
    let mut breaches = Vec::new();
    for manifest in manifests {
        let package = manifest.package();
        let Some(own) = layer(package) else {
            breaches.push(format!(
                "{}:1: {package} is in no layer; give it one in LAYERS",
                manifest.path
            ));
            continue;
        };
        for dependency in manifest.dependencies() {
            // A crate's tests may depend on the crate itself, to switch one of its features on.
            if dependency.dev && dependency.name == package {
                continue;
            }
            let Some(other) = layer(&dependency.name) else {
                continue;
            };
            if other >= own {
                let direction = if other == own { "sideways" } else { "up" };
                breaches.push(format!(
                    "{}:{}: {package} (layer {own}) may not depend on {} (layer {other}): the arrow goes \
                     {direction}; move what both need down, or let a trait of {package} be implemented above",
                    manifest.path, dependency.line, dependency.name
                ));
            }
        }
    }
    breaches
}

/// Each use of an outside library by a crate that may not have it.
fn misplaced_libraries(manifests: &[Manifest]) -> Vec<String> {
    let mut breaches = Vec::new();
    for manifest in manifests {
        let package = manifest.package();
        for dependency in manifest
            .dependencies()
            .iter()
            .filter(|dependency| !dependency.dev)
        {
            let name = dependency.name.as_str();
            let owned = OWNED
                .iter()
                .find(|(library, owners, _)| *library == name && !owners.contains(&package));
            let forbidden = FORBIDDEN
                .iter()
                .find(|(of, libraries, _)| *of == package && libraries.contains(&name));
            for reason in owned
                .map(|rule| rule.2)
                .into_iter()
                .chain(forbidden.map(|rule| rule.2))
            {
                let Manifest { path, .. } = manifest;
                breaches.push(format!(
                    "{path}:{}: {package} may not use {name}: {reason}",
                    dependency.line
                ));
            }
        }
    }
    breaches
}

/// The paths on which a forbidden package can be reached from `roots`, by the lock file.
fn reachable(lock: &str, roots: &[String], forbidden: &[&str]) -> Vec<String> {
    let lock: Table = lock.parse().expect("the lock file is TOML");
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("a lock file lists packages") {
        let name = package["name"]
            .as_str()
            .expect("a package's name is a string")
            .to_owned();
        let listed = package
            .get("dependencies")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        // "name", or "name version" where several versions are in the tree: those are taken together.
        let names = listed.filter_map(|entry| entry.as_str()?.split(' ').next().map(str::to_owned));
        edges.entry(name).or_default().extend(names);
    }
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<(String, String)> = roots.iter().map(|root| (root.clone(), root.clone())).collect();
    let mut found = Vec::new();
    while let Some((name, path)) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        if forbidden.contains(&name.as_str()) {
            found.push(path);
            continue;
        }
        for next in edges.get(&name).into_iter().flatten() {
            open.push((next.clone(), format!("{path} → {next}")));
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace")
}

fn workspace() -> Vec<Manifest> {
    let crates = fs::read_dir(root().join("crates")).expect("the workspace has crates/");
    let mut folders: Vec<_> = crates
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    folders.extend([root().join("tests"), root().join("benches")]);
    folders.sort();
    let manifests = folders
        .iter()
        .map(|folder| folder.join("Cargo.toml"))
        .filter(|path| path.exists());
    manifests
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a readable manifest");
            let shown = path
                .strip_prefix(root())
                .expect("below the root")
                .display()
                .to_string();
            Manifest::parse(&shown, &text)
        })
        .collect()
}

fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn arrows_between_crates_go_down_only() {
    assert_none(&broken_arrows(&workspace()));
}

#[test]
fn every_layered_package_exists() {
    let packages: BTreeSet<String> = workspace()
        .iter()
        .map(|manifest| manifest.package().to_owned())
        .collect();
    let layered: BTreeSet<String> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(packages, layered);
}

#[test]
fn outside_libraries_stay_with_their_owners() {
    assert_none(&misplaced_libraries(&workspace()));
}

#[test]
fn the_record_crate_has_no_io_in_its_tree() {
    let manifests = workspace();
    let record = manifests
        .iter()
        .find(|manifest| manifest.package() == "annals-record")
        .expect("it exists");
    let used = record
        .dependencies()
        .into_iter()
        .filter(|dependency| !dependency.dev);
    let roots: Vec<String> = used.map(|dependency| dependency.name).collect();
    assert!(!roots.is_empty(), "the manifest's dependencies were not read");
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is committed");
    let found = reachable(&lock, &roots, &NOT_IN_RECORD);
    let told: Vec<String> = found
        .iter()
        .map(|path| {
            format!(
                "{}: annals-record reaches {path}; drop that dependency",
                record.path
            )
        })
        .collect();
    assert_none(&told);
}

mod planted {
    use super::*;

    fn one(text: &str) -> Vec<Manifest> {
        vec![Manifest::parse("x/Cargo.toml", text)]
    }

    #[test]
    fn an_arrow_up_is_found_with_its_line() {
        let found = broken_arrows(&one(
            "[package]\nname = \"annals-log\"\n[dependencies]\nannals-record.workspace = true\nannals-http.workspace = true\n",
        ));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("x/Cargo.toml:5: annals-log (layer 2) may not depend on annals-http"));
        assert!(found[0].contains("goes up"));
    }

    #[test]
    fn an_arrow_sideways_is_found_also_for_tests_and_platforms_and_renamed() {
        for dependency in [
            "[dependencies]\nannals-auth = { path = \"y\" }",
            "[dev-dependencies]\nannals-auth.workspace = true",
            "[build-dependencies.annals-auth]\nworkspace = true",
            "[target.'cfg(unix)'.dependencies]\nannals-auth.workspace = true",
            "[dependencies]\nauth = { package = \"annals-auth\", path = \"y\" }",
        ] {
            let found = broken_arrows(&one(&format!("[package]\nname = \"annals-log\"\n{dependency}\n")));
            assert_eq!(found.len(), 1, "{dependency}: {found:?}");
            assert!(found[0].contains("goes sideways"), "{found:?}");
            assert!(!found[0].starts_with("x/Cargo.toml:1:"), "no line: {found:?}");
        }
    }

    #[test]
    fn arrows_down_are_fine_with_features_and_for_tests() {
        let found = broken_arrows(&one(
            "[package]\nname = \"annals-log\"\n[dev-dependencies]\nannals-store = { workspace = true, features = [\"testing\"] }\n",
        ));
        assert_none(&found);
    }

    #[test]
    fn a_crate_may_depend_on_itself_for_its_tests_only() {
        let own = "annals-store = { path = \".\", features = [\"testing\"] }";
        let package = "[package]\nname = \"annals-store\"\n";
        assert_none(&broken_arrows(&one(&format!(
            "{package}[dev-dependencies]\n{own}\n"
        ))));
        assert_eq!(
            broken_arrows(&one(&format!("{package}[dependencies]\n{own}\n"))).len(),
            1
        );
    }

    #[test]
    fn a_crate_without_a_layer_is_found() {
        let found = broken_arrows(&one("[package]\nname = \"annals-new\"\n"));
        assert!(found[0].contains("is in no layer"), "{found:?}");
    }

    #[test]
    fn a_library_in_the_wrong_crate_is_found() {
        let found = misplaced_libraries(&one(
            "[package]\nname = \"commerce\"\n[dependencies]\nsqlx = \"1\"\nrdkafka = \"1\"\nanyhow = \"1\"\n[dev-dependencies]\nrdkafka = \"1\"\n",
        ));
        // sqlx by one rule, rdkafka by two; anyhow is allowed there.
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(
            found[0].contains("rdkafka") || found[0].contains("sqlx"),
            "{found:?}"
        );
        assert!(
            found.iter().all(|told| told.starts_with("x/Cargo.toml:")),
            "{found:?}"
        );
    }

    #[test]
    fn a_hidden_dependency_is_found_with_its_path() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1\"\ndependencies = [\"b 2.0.0\"]\n\
                    [[package]]\nname = \"b\"\nversion = \"2\"\ndependencies = [\"tokio\"]\n\
                    [[package]]\nname = \"tokio\"\nversion = \"1\"\n";
        assert_eq!(reachable(lock, &["a".to_owned()], &["tokio"]), ["a → b → tokio"]);
        assert_none(&reachable(lock, &["a".to_owned()], &["sqlx"]));
    }
}
