//! PostgreSQL's server programs: where they are, and running them as a user that they accept.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use super::ClusterError;
use super::files::{SETTINGS, User};

const OLDEST_MAJOR: u32 = 14;

/// The programs of one version, and the user they run as (`None`: the one that we are).
#[derive(Debug)]
pub(super) struct Programs {
    /// `None`: they are in PATH.
    bin: Option<PathBuf>,
    user: Option<User>,
}

impl Programs {
    /// Those of major version `wanted`, or the newest if there are no data yet.
    pub(super) async fn find(wanted: Option<(u32, &Path)>, user: Option<User>) -> Result<Self, ClusterError> {
        let mut found: Vec<(u32, Option<PathBuf>)> = Vec::new();
        for bin in candidates().await {
            if let Some(major) = major_of(bin.as_deref()).await {
                found.push((major, bin));
            }
        }
        let newest = found
            .iter()
            .map(|(major, _)| *major)
            .max()
            .ok_or(ClusterError::NotInstalled)?;
        let major = wanted.map_or(newest, |(major, _)| major);
        if major < OLDEST_MAJOR {
            return Err(ClusterError::TooOld { found: major });
        }
        match (found.into_iter().find(|(found, _)| *found == major), wanted) {
            (Some((_, bin)), _) => Ok(Self { bin, user }),
            (None, Some((major, data))) => Err(ClusterError::OtherVersion {
                data: data.to_owned(),
                major,
            }),
            (None, None) => Err(ClusterError::NotInstalled),
        }
    }

    /// Makes a cluster. `-N`: its files are on disk with the first checkpoint, not at once.
    pub(super) async fn initdb(&self, data: &Path, log: &Path) -> Result<(), ClusterError> {
        let mut failure = None;
        // C.UTF-8 knows letters beyond ASCII; where the system lacks it, C will do.
        for locale in ["C.UTF-8", "C"] {
            let output = self
                .run("initdb", |command| {
                    command
                        .args(["-N", "-U", "postgres", "-A", "trust", "-E", "UTF8"])
                        .arg(format!("--locale={locale}"))
                        .arg("-D")
                        .arg(data);
                })
                .await?;
            if output.status.success() {
                return Ok(());
            }
            failure = Some(failed("initdb", &output, log));
        }
        Err(failure.unwrap_or(ClusterError::NotInstalled))
    }

    pub(super) async fn is_running(&self, data: &Path) -> Result<bool, ClusterError> {
        let output = self
            .run("pg_ctl", |command| {
                command.arg("status").arg("-D").arg(data);
            })
            .await?;
        Ok(output.status.success())
    }

    pub(super) async fn start(
        &self,
        data: &Path,
        socket_dir: &Path,
        log: &Path,
        within: Duration,
    ) -> Result<(), ClusterError> {
        let settings = SETTINGS.iter().map(|setting| format!("-c {setting}"));
        let mut options: Vec<String> = settings.collect();
        // A shell reads these: no setting and no socket folder (names of ours and hex digits) needs quotes.
        options.push(format!("-k {}", socket_dir.display()));
        let output = self
            .run("pg_ctl", |command| {
                command
                    .args(["start", "-w", "-t"])
                    .arg(within.as_secs().to_string());
                command.arg("-D").arg(data).arg("-l").arg(log);
                command.arg("-o").arg(options.join(" "));
            })
            .await?;
        succeeded("pg_ctl", &output, log)
    }

    pub(super) async fn stop(&self, data: &Path, log: &Path) -> Result<(), ClusterError> {
        let output = self
            .run("pg_ctl", |command| {
                command.args(["stop", "-w", "-m", "fast", "-D"]).arg(data);
            })
            .await?;
        succeeded("pg_ctl", &output, log)
    }

    async fn run(
        &self,
        program: &'static str,
        arguments: impl FnOnce(&mut Command),
    ) -> Result<Output, ClusterError> {
        let mut command = command(self.bin.as_deref(), program);
        arguments(&mut command);
        // The user may not be able to enter the folder that we are in.
        command.current_dir("/").stdin(Stdio::null());
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid);
        }
        let path = self.bin.clone().unwrap_or_default().join(program);
        command.output().await.map_err(ClusterError::file(&path))
    }
}

/// The user `postgres`, whom root lets the server run as. `id` knows users of every source.
pub(super) async fn postgres_user() -> Result<User, ClusterError> {
    let id = async |option: &str| -> Option<u32> {
        let output = Command::new("id")
            .arg(option)
            .arg("postgres")
            .output()
            .await
            .ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    match (id("-u").await, id("-g").await) {
        (Some(uid), Some(gid)) => Ok(User { uid, gid }),
        _ => Err(ClusterError::NoPostgresUser),
    }
}

/// Folders where the programs may be: PATH (`None`), the usual ones, pg_config's. Debian keeps the
/// server's programs out of PATH.
async fn candidates() -> Vec<Option<PathBuf>> {
    let mut bins = vec![None];
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ] {
        let Ok(entries) = std::fs::read_dir(parent) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                bins.push(Some(entry.path().join("bin")));
            }
        }
    }
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await
        && let Ok(bin) = String::from_utf8(output.stdout)
        && !bin.trim().is_empty()
    {
        bins.push(Some(PathBuf::from(bin.trim())));
    }
    bins
}

/// The major version of the programs in a folder, if both that we need are there.
async fn major_of(bin: Option<&Path>) -> Option<u32> {
    let initdb = command(bin, "initdb").arg("--version").output().await.ok()?;
    command(bin, "pg_ctl").arg("--version").output().await.ok()?;
    parse_major(&String::from_utf8(initdb.stdout).ok()?)
}

/// `initdb (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → 15; also `17beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn command(bin: Option<&Path>, program: &str) -> Command {
    match bin {
        Some(bin) => Command::new(bin.join(program)),
        None => Command::new(program),
    }
}

fn succeeded(program: &'static str, output: &Output, log: &Path) -> Result<(), ClusterError> {
    if output.status.success() {
        return Ok(());
    }
    Err(failed(program, output, log))
}

fn failed(program: &'static str, output: &Output, log: &Path) -> ClusterError {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    ClusterError::Program {
        program,
        output: lines[lines.len().saturating_sub(8)..].join("\n"),
        log: log.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_major_version() {
        assert_eq!(
            parse_major("initdb (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(parse_major("initdb (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("initdb 15"), None);
    }
}
