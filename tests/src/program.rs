//! The program under test: where it is, whether it is new enough, and running one of its commands to its end.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The repository's top folder: where the program finds `projections/` and `policies/`.
#[must_use]
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the package lies in the repository")
        .to_owned()
}

/// The program, built by the same profile as this test. It is built first if it is not there or older than its
/// sources, so that `cargo test -p annals-tests` alone never tests yesterday's.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("a running test has a path");
        let folder = test.parent().expect("tests lie in {target}/{profile}/deps");
        // A program of this package lies in {target}/{profile} itself.
        let profile = match folder.ends_with("deps") {
            true => folder.parent().expect("tests lie in {target}/{profile}/deps"),
            false => folder,
        };
        let binary = profile.join("commerce");
        if !is_fresh(&binary) {
            build(profile);
        }
        assert!(binary.exists(), "{} was not built", binary.display());
        binary
    })
}

/// Whether it is newer than all that Cargo's list of its sources names.
fn is_fresh(binary: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    let Some(built) = changed(binary) else {
        return false;
    };
    let Ok(list) = std::fs::read_to_string(binary.with_extension("d")) else {
        return false;
    };
    let Some((_, sources)) = list.split_once(": ") else {
        return false;
    };
    let newer = |source: &str| changed(Path::new(source)).is_none_or(|time: SystemTime| time > built);
    !sources.split_whitespace().any(newer)
}

/// Cargo takes its own lock: tests that run at once build once.
fn build(profile: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let name = profile
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("debug");
    let target = profile
        .parent()
        .expect("a profile's folder lies in the target folder");
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--package",
        "commerce",
        "--bin",
        "commerce",
        "--target-dir",
    ]);
    command.arg(target).current_dir(root());
    if name != "debug" {
        command.args(["--profile", name]);
    }
    let status = command.status().expect("cargo runs: it runs this test");
    assert!(status.success(), "the program could not be built");
}

/// What a command of the program did.
#[derive(Debug)]
pub struct Ran {
    /// The words it was run with.
    pub command: String,
    /// Its exit status; `None`: a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Of a finished process.
    #[must_use]
    pub fn of(command: String, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            command,
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Its standard output, if it ended with this status.
    ///
    /// # Panics
    /// If it ended otherwise.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &str {
        assert_eq!(
            self.code,
            Some(code),
            "`{}`\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.stdout,
            self.stderr
        );
        &self.stdout
    }

    /// Its standard output as JSON, if it ended with 0.
    ///
    /// # Panics
    /// If it ended otherwise or is not JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let text = self.exits(0);
        serde_json::from_str(text).unwrap_or_else(|error| panic!("`{}`: {error}: {text}", self.command))
    }
}
