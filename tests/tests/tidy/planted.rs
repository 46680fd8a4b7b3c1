//! Every rule finds a violation that was planted for it, with its line, and leaves its neighbour alone.

use super::rules::{self, Breach, File};

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
        executable: false,
    }
}

#[track_caller]
fn finds(rule: fn(&File) -> Vec<Breach>, path: &str, text: &str, start: &str) {
    let told: Vec<String> = rule(&file(path, text)).iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with(start), "{told:?}");
}

#[track_caller]
fn passes(rule: fn(&File) -> Vec<Breach>, path: &str, text: &str) {
    let told: Vec<String> = rule(&file(path, text)).iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_module_without_its_sentence_is_found() {
    finds(
        rules::module_docs,
        "crates/x/src/a.rs",
        "use std::fmt;\n",
        "crates/x/src/a.rs:1: begin the module",
    );
    finds(
        rules::module_docs,
        "crates/x/src/a.rs",
        "",
        "crates/x/src/a.rs:1: begin the module",
    );
    finds(
        rules::module_docs,
        "crates/x/src/a.rs",
        "#![allow(x)]\n\nmod b;\n",
        "crates/x/src/a.rs:3: begin the module",
    );
    finds(
        rules::module_docs,
        "crates/x/src/a.rs",
        "//! Stuff\n\nmod b;\n",
        "crates/x/src/a.rs:1: let the module's",
    );
    passes(
        rules::module_docs,
        "crates/x/src/a.rs",
        "//! What a reader needs\n//! of it.\n//!\n//! | more |\n",
    );
    passes(
        rules::module_docs,
        "crates/x/src/a.rs",
        "#![allow(x)]\n//! What it is for.\n",
    );
    passes(rules::module_docs, "crates/x/tests/ui/wrong.rs", "fn main() {}\n");
    passes(rules::module_docs, "docs/a.md", "text");
}

#[test]
fn a_module_named_after_nothing_is_found() {
    finds(
        rules::names,
        "crates/x/src/a/mod.rs",
        "",
        "crates/x/src/a/mod.rs:1: name it after its folder",
    );
    finds(
        rules::names,
        "crates/x/src/utils.rs",
        "",
        "crates/x/src/utils.rs:1: `utils` says nothing",
    );
    finds(
        rules::names,
        "crates/x/tests/common/a.rs",
        "",
        "crates/x/tests/common/a.rs:1: `common` says nothing",
    );
    passes(rules::names, "crates/x/src/commons.rs", "");
    passes(rules::names, "docs/common/page.md", "");
}

#[test]
fn a_long_file_is_found() {
    finds(
        rules::length,
        "crates/x/src/a.rs",
        &"\n".repeat(501),
        "crates/x/src/a.rs:501: 501 lines are more than 500",
    );
    let script = format!("#!/bin/bash\n{}", "\n".repeat(500));
    finds(rules::length, "deploy/x", &script, "deploy/x:501: 501 lines");
    passes(rules::length, "crates/x/src/a.rs", &"\n".repeat(500));
    passes(rules::length, "docs/a.md", &"\n".repeat(501));
}

#[test]
fn sql_on_another_crates_table_is_found() {
    let query = "//! Reads.\n\"SELECT 1 FROM annals.journal WHERE true\"\n";
    let told = "crates/annals-query/src/a.rs:2: annals-query names annals.journal, which annals-log owns";
    finds(rules::tables, "crates/annals-query/src/a.rs", query, told);
    finds(
        rules::tables,
        "projections/orders/a.sql",
        "DELETE FROM annals.parked;",
        "projections/orders/a.sql:1: a projection",
    );
    finds(
        rules::tables,
        "crates/annals-log/src/a.rs",
        "DELETE FROM lease\n",
        "crates/annals-log/src/a.rs:1: annals-log",
    );
    passes(rules::tables, "crates/annals-log/src/a.rs", query);
    passes(rules::tables, "crates/annals-store/src/testing.rs", query);
    passes(rules::tables, "crates/annals-query/tests/a.rs", query);
    passes(rules::tables, "migrations/1.sql", query);
    passes(
        rules::tables,
        "crates/annals-query/src/a.rs",
        "// read FROM journal, annals.journal\n",
    );
    passes(
        rules::tables,
        "crates/annals-query/src/a.rs",
        "FROM journal_view, other_annals.journal, annals.journal.x\n",
    );
    passes(rules::tables, "crates/annals-query/src/a.rs", "annals.toml\n");
}

#[test]
fn a_table_without_an_owner_is_found() {
    let new = "-- why\nCREATE TABLE annals.novelty (\n";
    finds(
        rules::created_tables,
        "migrations/9.up.sql",
        new,
        "migrations/9.up.sql:2: annals.novelty has no owner",
    );
    passes(
        rules::created_tables,
        "migrations/9.up.sql",
        "CREATE TABLE annals.journal (\n",
    );
}

#[test]
fn a_registry_or_a_machines_path_is_found() {
    let path = format!("see /{}/main\n", "work");
    finds(rules::places, "docs/a.md", &path, "docs/a.md:1: `/");
    let host = format!("\nfetch https://index.crates.{}/x\n", "io");
    finds(rules::places, "deploy/a.toml", &host, "deploy/a.toml:2: `index");
    passes(rules::places, "Cargo.lock", &host);
    passes(
        rules::places,
        "docs/a.md",
        &format!("src/{0}/a.rs frame{0}/ ${{dir}}/{0}/\n", "work"),
    );
}

#[test]
fn a_script_that_cannot_run_is_found() {
    finds(
        rules::scripts,
        "deploy/x",
        "#!/usr/bin/env bash\n",
        "deploy/x:1: a script that cannot be executed",
    );
    passes(rules::scripts, "crates/x/src/lib.rs", "#![allow(x)]\n");
    let script = File {
        executable: true,
        ..file("deploy/x", "#!/usr/bin/env bash\n")
    };
    assert!(rules::scripts(&script).is_empty());
}

#[test]
fn work_left_undone_is_found() {
    for mark in [
        format!("to{}!()", "do"),
        format!("unimple{}!()", "mented"),
        format!("#[ig{}]", "nore = \"slow\""),
    ] {
        finds(
            rules::undone,
            "crates/x/src/a.rs",
            &format!("//! A.\n    {mark}\n"),
            "crates/x/src/a.rs:2: `",
        );
        passes(rules::undone, "docs/a.md", &mark);
    }
    passes(rules::undone, "crates/x/src/a.rs", "fn todo_list() {}\n");
}

#[test]
fn a_missing_and_a_strange_entry_at_the_top_are_found() {
    let complete = || {
        [
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
            "benches/a",
            "clippy.toml",
            "crates/a",
            "deploy/a",
            "docs/decisions/a",
            "docs/errors.md",
            "migrations/a",
            "policies/a",
            "projections/a",
            "schemas/a",
            "tests/a",
        ]
        .map(|path| file(path, ""))
        .into_iter()
    };
    assert!(rules::layout(&complete().collect::<Vec<_>>()).is_empty());
    let without: Vec<File> = complete()
        .filter(|file| !file.path.starts_with("benches"))
        .collect();
    assert_eq!(
        rules::layout(&without)[0].to_string(),
        "benches/:1: the architecture asks for it, and it is missing"
    );
    let with: Vec<File> = complete().chain([file("scratch/x", "")]).collect();
    assert!(
        rules::layout(&with)[0]
            .to_string()
            .starts_with("scratch:1: has no place at the top")
    );
}

#[test]
fn alerts_on_metrics_that_do_not_exist() {
    let code = file("crates/a/src/metrics.rs", "const A: &str = \"annals_a_total\";");
    let alert = |text| file("deploy/prometheus/alerts.yml", text);
    let good = alert("expr: rate(annals_a_total[5m]) > annals_a_total_count");
    assert!(rules::alerts(&[code, good]).is_empty());
    let bad = alert("groups:\n  expr: annals_gone_total > 0");
    assert_eq!(
        rules::alerts(&[bad])[0].to_string(),
        "deploy/prometheus/alerts.yml:2: no metric is called annals_gone_total: nothing would ever alarm"
    );
}
