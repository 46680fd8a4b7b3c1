//! Nodes with single roles: settings, logins that may do their own work only, and the program's words run to their end.

use std::fmt::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::database::Database;
use crate::real::Server;

/// The database roles of nodes: the setting's name, which is also the end of the group's.
const LOGINS: [&str; 6] = ["command", "indexer", "projector", "process", "query", "audit"];

const NOBODY: &str = r#"permit (principal in Role::"admin", action == Action::"orders/place", resource);"#;

/// A database's logins, and a folder with the settings of all nodes and with read models of its own.
pub struct Site {
    binary: PathBuf,
    dir: tempfile::TempDir,
    prefix: String,
    pool: PgPool,
}

impl Site {
    /// Logins and settings on a migrated database with a log. Of the repository's read models only `projections`, without
    /// what they would show of others.
    ///
    /// # Errors
    /// Of the database, the folders, or the program.
    pub async fn make(binary: &Path, database: &Database, projections: &[&str]) -> anyhow::Result<Self> {
        let prefix = format!("annals_bench_{}", uuid::Uuid::new_v4().simple());
        let site = Self {
            binary: binary.to_owned(),
            dir: tempfile::tempdir()?,
            prefix,
            pool: database.pool(1).await?,
        };
        for role in LOGINS {
            let sql = format!("CREATE ROLE {}_{role} LOGIN IN ROLE annals_{role}", site.prefix);
            sqlx::query(AssertSqlSafe(sql)).execute(&site.pool).await?;
        }
        for name in projections {
            copy(&root().join("projections").join(name), &site.folder(name))?;
            let manifest = site.folder(name).join("projection.toml");
            let text = std::fs::read_to_string(&manifest)?;
            let lines = text.lines().filter(|line| !line.starts_with("expand"));
            std::fs::write(&manifest, lines.flat_map(|line| [line, "\n"]).collect::<String>())?;
        }
        // The repository's policies name what its read models show: here nobody asks for anything.
        let policies = site.dir.path().join("policies");
        std::fs::create_dir(&policies)?;
        std::fs::copy(root().join("policies/roles.json"), policies.join("roles.json"))?;
        std::fs::write(policies.join("bench.cedar"), NOBODY)?;
        site.settings(database)?;
        // Makes the development issuer, whose public keys the nodes read.
        site.run(&["token", "--role", "operator"], |_| {}).await?;
        Ok(site)
    }

    fn folder(&self, projection: &str) -> PathBuf {
        self.dir.path().join("projections").join(projection)
    }

    fn settings(&self, database: &Database) -> anyhow::Result<()> {
        let dir = self.dir.path();
        let mut text = String::from("[database]\n");
        let (_, rest) = database
            .url
            .split_once("://")
            .context("a database URL has a scheme")?;
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        for role in LOGINS {
            writeln!(text, "{role} = \"postgres://{}_{role}@{host}\"", self.prefix)?;
        }
        for (section, setting, file) in [
            ("node", "key_file", "node.key"),
            ("http", "cursor_key_file", "cursor.key"),
            ("auth", "subject_key_file", "subject.key"),
        ] {
            let path = dir.join(file);
            let mut options = std::fs::OpenOptions::new();
            let mut made = options.write(true).create_new(true).mode(0o600).open(&path)?;
            // 32 bytes, none of them white space.
            std::io::Write::write_all(&mut made, uuid::Uuid::new_v4().simple().to_string().as_bytes())?;
            writeln!(text, "[{section}]\n{setting} = \"{}\"", path.display())?;
        }
        write!(
            text,
            "jwks_file = \"{}\"\npolicies = \"{}\"\n[projection]\ndir = \"{}\"\nready_lag_ms = 3600000\n[commerce]\ngateway_url = \"http://127.0.0.1:9\"\n",
            dir.join("data/issuer.jwks").display(),
            dir.join("policies").display(),
            dir.join("projections").display()
        )?;
        std::fs::write(dir.join("annals.toml"), text)?;
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).current_dir(root());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ANNALS") {
                command.env_remove(name);
            }
        }
        command.arg("--data-dir").arg(self.dir.path().join("data"));
        command.arg("--config").arg(self.dir.path().join("annals.toml"));
        command
    }

    /// Starts a node of these roles.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn node(&self, roles: &str) -> anyhow::Result<Server> {
        let words = [
            "serve",
            "--roles",
            roles,
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
        ];
        Server::of(self.command(&words)).await
    }

    /// Runs words of the program to their end; `told` sees each line of its standard error. Gives its standard output.
    ///
    /// # Errors
    /// If it does not end with status 0.
    pub async fn run(&self, words: &[&str], told: impl Fn(&str)) -> anyhow::Result<String> {
        let mut command = self.command(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("a pipe")?).lines();
        let mut stdout = child.stdout.take().context("a pipe")?;
        let mut out = String::new();
        let mut last = String::new();
        let telling = async {
            while let Some(line) = lines.next_line().await? {
                told(&line);
                last = line;
            }
            anyhow::Ok(())
        };
        let (telling, reading) = tokio::join!(telling, stdout.read_to_string(&mut out));
        telling?;
        reading?;
        let status = child.wait().await?;
        if !status.success() {
            bail!("`{}` ended with {status}: {last}", words.join(" "));
        }
        Ok(out)
    }

    /// Drops the logins.
    ///
    /// # Errors
    /// Of the database.
    pub async fn end(self) -> anyhow::Result<()> {
        for role in LOGINS {
            let sql = format!("DROP ROLE {}_{role}", self.prefix);
            sqlx::query(AssertSqlSafe(sql)).execute(&self.pool).await?;
        }
        self.pool.close().await;
        Ok(())
    }
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => std::fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}
