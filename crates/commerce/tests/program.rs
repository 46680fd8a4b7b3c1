//! The program's command line, its example of settings, and its exit statuses.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::path::Path;
use std::process::{Command, Output};

/// The program in an empty folder, so that no settings of this machine are found.
fn commerce(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_commerce"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANNALS_")) {
        command.env_remove(name);
    }
    command.current_dir(dir).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The commands that `--help` lists, in its order.
fn listed(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| line.starts_with("  "));
    lines
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn help_lists_what_there_is_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let help = commerce(dir.path(), &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let commands = [
        "dev",
        "serve",
        "migrate",
        "send",
        "import",
        "get",
        "tail",
        "log",
        "processes",
        "projections",
        "schemas",
        "audit",
        "token",
        "config",
        "bench",
        "demo",
        "help",
    ];
    assert_eq!(listed(&text(&help.stdout)), commands);
    for (command, expected) in [
        ("log", &["create", "describe", "check", "copy"][..]),
        ("processes", &["list", "show", "resume"]),
        (
            "projections",
            &[
                "list", "check", "status", "rebuild", "switch", "rollback", "explain", "resume", "drop",
            ],
        ),
        ("schemas", &["write", "check"]),
        ("audit", &["history", "attest", "state"]),
        ("migrate", &["up", "down", "status"]),
    ] {
        let help = commerce(dir.path(), &[command, "--help"]);
        let found = listed(&text(&help.stdout));
        assert_eq!(found[..found.len() - 1], *expected, "{command}");
    }
}

#[test]
fn wrong_usage_and_wrong_settings_are_2_and_what_cannot_be_done_is_3() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = commerce(dir.path(), arguments);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    assert_eq!(run(&["dance"]).0, 2);
    assert_eq!(run(&[]).0, 2);
    let (code, error) = run(&["get", "orders"]);
    assert!(
        code == 2 && error.contains("--token") && error.contains(".annals"),
        "{error}"
    );
    let (code, error) = run(&["serve", "--config", "nowhere.toml"]);
    assert!(code == 2 && error.contains("nowhere.toml"), "{error}");
    let (code, error) = run(&["serve", "--roles", "cook"]);
    assert!(code == 2 && error.contains("`cook`"), "{error}");
    let (code, error) = run(&["migrate", "status"]);
    assert!(code == 2 && error.contains("ANNALS_DATABASE_URL"), "{error}");
    let (code, error) = run(&[
        "send", "orders", "o", "place", "--token", "t", "--data", "@nowhere",
    ]);
    assert!(code == 2 && error.contains("nowhere"), "{error}");
    std::fs::write(
        dir.path().join("annals.toml"),
        "[database]\nurl = \"postgres://127.0.0.1:1/none\"\n",
    )
    .unwrap();
    let (code, error) = run(&["migrate", "status"]);
    assert!(
        code == 3 && error.contains("127.0.0.1:1") && error.contains("refused"),
        "{error}"
    );
}

#[test]
fn settings_say_where_they_came_from_and_hide_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let file = "[database]\nurl = \"postgres://u:hunter2@h/d\"\n[commerce]\ncheckout_timeout_s = 5\n";
    std::fs::write(dir.path().join("annals.toml"), file).unwrap();
    let output = commerce(dir.path(), &["config", "--explain"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!shown.contains("hunter2"), "{shown}");
    let line = |key: &str| {
        let line = shown
            .lines()
            .find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("no {key} in {shown}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("database.url"), "database.url ******** annals.toml");
    assert_eq!(
        line("commerce.checkout_timeout_s"),
        "commerce.checkout_timeout_s 5 annals.toml"
    );
    assert_eq!(line("log.kind"), "log.kind postgres default");
}

#[test]
fn the_example_of_settings_is_what_the_program_prints() {
    let dir = tempfile::tempdir().unwrap();
    let example = commerce(dir.path(), &["config", "--example"]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../annals.example.toml");
    assert_eq!(
        std::fs::read_to_string(file).unwrap(),
        text(&example.stdout),
        "write it again with: commerce config --example >annals.example.toml"
    );
}

#[test]
fn a_token_is_bare_and_its_public_key_is_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let output = commerce(
        dir.path(),
        &["token", "--role", "clerk,warehouse", "--ttl", "90s"],
    );
    let token = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(token.trim_end().split('.').count(), 3, "{token}");
    assert!(dir.path().join(".annals/issuer.jwks").exists());
    assert_eq!(
        commerce(dir.path(), &["token", "--role", "system"]).status.code(),
        Some(2)
    );
}

#[test]
fn schemas_are_as_the_files_have_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = commerce(&root, &["schemas", "check"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let dir = tempfile::tempdir().unwrap();
    let output = commerce(dir.path(), &["schemas", "check", "--output", "ndjson"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("{\"file\":\"events/order.placed/1.json\",\"what\":\"missing\"}"));
}
