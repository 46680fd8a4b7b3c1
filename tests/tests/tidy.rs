//! Tidy rules: what reviews would otherwise have to repeat, checked on every file of the repository.
//!
//! Each rule is a pure function over a path and a text in `tidy/rules.rs`, tried on planted violations in
//! `tidy/planted.rs`. A breach is told as `path:line: what is wrong, and what to do`.

#[path = "tidy/planted.rs"]
mod planted;
#[path = "tidy/rules.rs"]
mod rules;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rules::{Breach, File};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the workspace")
}

/// What git knows or would add; outside a git checkout, everything but the folders that git ignores.
fn paths() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    match listed {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).expect("paths are UTF-8");
            text.split_terminator('\0').map(PathBuf::from).collect()
        }
        _ => walk(Path::new("")),
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).expect("a readable folder") {
        let entry = entry.expect("a readable entry");
        let path = folder.join(entry.file_name());
        if entry.file_type().expect("a file type").is_dir() {
            if !["target", ".git", ".annals", "wt"]
                .iter()
                .any(|skipped| path.ends_with(skipped))
            {
                found.extend(walk(&path));
            }
        } else {
            found.push(path);
        }
    }
    found
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_: &Path) -> bool {
    true
}

/// Every text file that exists. (A file that was removed but is still in git's index does not.)
fn files() -> Vec<File> {
    let mut files = Vec::new();
    for path in paths() {
        let full = root().join(&path);
        let Ok(bytes) = fs::read(&full) else { continue };
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        let path = path.to_str().expect("paths are UTF-8").replace('\\', "/");
        files.push(File {
            path,
            text,
            executable: is_executable(&full),
        });
    }
    assert!(
        files.len() > 50,
        "only {} files were found: the listing is wrong",
        files.len()
    );
    files
}

fn assert_none(breaches: &[Breach]) {
    let told: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "\n{}\n", told.join("\n"));
}

fn check(rule: fn(&File) -> Vec<Breach>) {
    assert_none(&files().iter().flat_map(rule).collect::<Vec<_>>());
}

#[test]
fn every_module_starts_with_a_sentence() {
    check(rules::module_docs);
}

#[test]
fn modules_are_named_after_what_they_hold() {
    check(rules::names);
}

#[test]
fn files_stay_short() {
    check(rules::length);
}

#[test]
fn each_table_is_named_by_its_owner_only() {
    check(rules::tables);
}

#[test]
fn every_table_has_an_owner() {
    check(rules::created_tables);
}

#[test]
fn no_file_names_a_registry_host_or_a_path_of_one_machine() {
    check(rules::places);
}

#[test]
fn scripts_can_be_executed() {
    check(rules::scripts);
}

#[test]
fn nothing_is_left_undone_or_ignored() {
    check(rules::undone);
}

#[test]
fn the_top_level_is_as_the_architecture_says() {
    assert_none(&rules::layout(&files()));
}

#[test]
fn alerts_look_at_metrics_that_exist() {
    assert_none(&rules::alerts(&files()));
}
