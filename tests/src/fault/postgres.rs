//! A private PostgreSQL server of one run: crashed and started again, and, where root may mount, on a small disk.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use annals_store::cluster::Cluster;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// How large the small disk is, MiB: enough for a run's write-ahead log.
const DISK_MIB: u32 = 1_000;
/// The login roles that nodes use, each in the group of the same name.
pub(super) const LOGINS: [&str; 6] = ["command", "indexer", "projector", "process", "query", "audit"];
/// The database.
const DATABASE: &str = "faults";

/// The server.
#[derive(Debug)]
pub struct Postgres {
    dir: PathBuf,
    cluster: Cluster,
    /// Where the small disk is mounted.
    disk: Option<PathBuf>,
}

impl Postgres {
    /// Starts one under `dir`; on a small disk if that is wanted and may be mounted, else the reason why not is said.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start(dir: &Path, small: bool) -> (Self, Result<(), String>) {
        let cluster = Cluster::start(dir)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let mut this = Self {
            dir: dir.to_owned(),
            cluster,
            disk: None,
        };
        let mounted = match small {
            true => this.move_to_small_disk().await,
            false => Ok(()),
        };
        let made = this.cluster.database(DATABASE).await;
        made.unwrap_or_else(|error| panic!("{error}"));
        (this, mounted)
    }

    /// An empty server on a small disk takes the place of an empty one on a large disk.
    async fn move_to_small_disk(&mut self) -> Result<(), String> {
        let home = self
            .cluster
            .data()
            .parent()
            .expect("a cluster lies in a folder")
            .to_owned();
        if !home.starts_with("/var/lib/annals") {
            return Err("only root can mount a small disk".to_owned());
        }
        Cluster::stop_in(&self.dir)
            .await
            .map_err(|error| error.to_string())?;
        let mounted = run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("size={DISK_MIB}m,mode=0700"),
                "annals-faults",
                &home.display().to_string(),
            ],
        );
        if mounted.is_ok() {
            self.disk = Some(home.clone());
            run("chown", &["postgres:", &home.display().to_string()])?;
        }
        self.cluster = Cluster::start(&self.dir)
            .await
            .map_err(|error| error.to_string())?;
        mounted
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        let url = self.cluster.url(DATABASE).reveal().to_owned();
        let host = url
            .rsplit_once("host=")
            .map_or("", |(_, host)| host)
            .replace("%2F", "/");
        PathBuf::from(host).join(".s.PGSQL.5432")
    }

    /// The database's URL, as superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url(DATABASE).reveal().to_owned()
    }

    /// Makes the login roles of nodes. The tables are there already.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn make_logins(&self) {
        let mut connection = PgConnection::connect(&self.url()).await.expect("it runs");
        for role in LOGINS {
            let sql = format!("CREATE ROLE faults_{role} LOGIN IN ROLE annals_{role}");
            sqlx::query(AssertSqlSafe(sql))
                .execute(&mut connection)
                .await
                .expect("a login role can be made");
        }
    }

    /// The URL of a login role through a proxy.
    #[must_use]
    pub fn url_through(role: &str, address: std::net::SocketAddr) -> String {
        format!("postgres://faults_{role}@{address}/{DATABASE}")
    }

    /// Stops it in immediate mode: no checkpoint, no goodbye, recovery at the next start.
    ///
    /// # Panics
    /// If it does not stop.
    pub async fn crash(&self) {
        let Some(pid) = self.pid() else { return };
        // Source: PostgreSQL manual, "Shutting Down the Server": SIGQUIT is the immediate shutdown.
        run("sh", &["-c", &format!("kill -s QUIT {pid}")]).expect("the server runs");
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it if it does not run.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn heal(&mut self) {
        self.cluster = Cluster::start(&self.dir)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Fills its disk up. `false`: it has no disk of its own.
    #[must_use]
    pub fn fill_disk(&self) -> bool {
        let Some(disk) = &self.disk else { return false };
        let mut file = fs::File::create(disk.join("filler")).expect("a file can be made");
        // To the last byte, in ever smaller pieces.
        for size in [16 << 20, 64 << 10, 256, 1] {
            let piece = vec![1; size];
            while file.write_all(&piece).is_ok() {}
        }
        true
    }

    /// Makes room again.
    pub fn clear_disk(&self) {
        if let Some(disk) = &self.disk {
            let _ = fs::remove_file(disk.join("filler"));
        }
    }

    fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.cluster.data().join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// Stops it and takes its data away.
    pub async fn end(self) {
        self.clear_disk();
        let _ = Cluster::stop_in(&self.dir).await;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = run("sh", &["-c", &format!("kill -s QUIT {pid}")]);
            for _ in 0..500 {
                if !is_alive(pid) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        match &self.disk {
            Some(disk) => {
                let _ = run("umount", &[&disk.display().to_string()]);
                let _ = fs::remove_dir(disk);
            }
            None => {
                if let Some(home) = self.cluster.data().parent() {
                    let _ = fs::remove_dir_all(home);
                }
            }
        }
    }
}

fn is_alive(pid: u32) -> bool {
    // A zombie has ended: only its parent has not looked yet.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
