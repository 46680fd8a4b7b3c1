//! Where a private cluster lies: folders, owners, settings, the file that a running server keeps.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::ClusterError;
use super::programs::{Programs, postgres_user};

/// Where root's clusters lie.
const ROOTS_PARENT: &str = "/var/lib/annals";

/// Settings of a private server. fsync stays on: a power cut must not lose what was acknowledged. Given
/// on the command line, so that root writes no file into a folder that another user owns.
pub(super) const SETTINGS: [&str; 13] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "max_connections=200",
    "shared_buffers=256MB",
    "wal_buffers=16MB",
    "min_wal_size=256MB",
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "checkpoint_completion_target=0.9",
    "random_page_cost=1.1",
    "jit=off",
    "autovacuum_naptime=10s",
    "log_min_messages=warning",
];

/// The user that the server runs as, if it is not the one that we are.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The folders of one cluster.
#[derive(Debug)]
pub(super) struct Place {
    /// Private; holds the data folder and the log.
    home: PathBuf,
    data: PathBuf,
    /// Tells this cluster's socket folder from others'.
    hash: String,
    /// Who we are.
    uid: u32,
    user: Option<User>,
    made_by: Option<u32>,
}

impl Place {
    /// Makes the folders around the cluster, not the cluster.
    pub(super) async fn prepare(data_dir: &Path) -> Result<Self, ClusterError> {
        fs::create_dir_all(data_dir).map_err(ClusterError::file(data_dir))?;
        let data_dir = fs::canonicalize(data_dir).map_err(ClusterError::file(data_dir))?;
        let hash = hash(&data_dir);
        let uid = own_uid(&data_dir)?;
        let user = if uid == 0 {
            Some(postgres_user().await?)
        } else {
            None
        };
        let home = match user {
            Some(user) => roots_home(&hash, user)?,
            None => data_dir,
        };
        let data = home.join("postgres");
        let made_by = read_version(&data)?;
        Ok(Self {
            home,
            data,
            hash,
            uid,
            user,
            made_by,
        })
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn log(&self) -> PathBuf {
        self.home.join("postgres.log")
    }

    pub(super) fn user(&self) -> Option<User> {
        self.user
    }

    /// The major version that made the cluster, and where; `None` if there is none yet.
    pub(super) fn made_by(&self) -> Option<(u32, &Path)> {
        self.made_by.map(|major| (major, self.data.as_path()))
    }

    /// Makes the cluster under another name and renames it, so that one whose making was interrupted is
    /// never taken for complete.
    pub(super) async fn initialise(&self, programs: &Programs) -> Result<(), ClusterError> {
        let new = self.home.join("postgres.new");
        if new.exists() {
            fs::remove_dir_all(&new).map_err(ClusterError::file(&new))?;
        }
        programs.initdb(&new, &self.log()).await?;
        fs::rename(&new, &self.data).map_err(ClusterError::file(&self.data))
    }

    /// A private folder for the socket. Without root it lies in `/tmp`, where anyone might have made it
    /// before: it must be ours and closed to others.
    pub(super) fn make_socket_dir(&self) -> Result<PathBuf, ClusterError> {
        let dir = match self.user {
            Some(_) => self.home.join("socket"),
            None => PathBuf::from(format!("/tmp/annals-{}", self.hash)),
        };
        make_private(&dir)?;
        self.give(&dir)?;
        let owner = self.user.map_or(self.uid, |user| user.uid);
        let found = fs::symlink_metadata(&dir).map_err(ClusterError::file(&dir))?;
        if !found.is_dir() || found.uid() != owner || found.mode() & 0o077 != 0 {
            return Err(ClusterError::NotPrivate { path: dir });
        }
        Ok(dir)
    }

    /// Takes the socket's folder away after the server has stopped, if nothing is left in it.
    pub(super) fn remove_socket_dir(&self, dir: &Path) {
        if let Err(error) = fs::remove_dir(dir) {
            tracing::debug!(%error, dir = %dir.display(), "the socket's folder stays");
        }
    }

    /// Where the running server has its socket: the fifth line of the file that it keeps.
    /// Source: PostgreSQL, `src/include/utils/pidfile.h`.
    pub(super) fn running_socket(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let line = text.lines().nth(4)?.trim();
        (!line.is_empty()).then(|| PathBuf::from(line))
    }

    fn give(&self, path: &Path) -> Result<(), ClusterError> {
        match self.user {
            Some(user) => give(path, user),
            None => Ok(()),
        }
    }
}

fn give(path: &Path, user: User) -> Result<(), ClusterError> {
    // Never through a link that the other user may have laid.
    lchown(path, Some(user.uid), Some(user.gid)).map_err(ClusterError::file(path))
}

/// The first 16 hex digits of SHA-256 of an absolute path.
fn hash(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Who we are: the owner of a file that we make. (The standard library does not say it otherwise.)
fn own_uid(dir: &Path) -> Result<u32, ClusterError> {
    let probe = dir.join(format!(".owner-{}", std::process::id()));
    let made = fs::File::create(&probe).and_then(|file| file.metadata());
    let made = made.map_err(ClusterError::file(&probe))?;
    fs::remove_file(&probe).map_err(ClusterError::file(&probe))?;
    Ok(made.uid())
}

fn roots_home(hash: &str, user: User) -> Result<PathBuf, ClusterError> {
    let parent = Path::new(ROOTS_PARENT);
    fs::create_dir_all(parent).map_err(ClusterError::file(parent))?;
    // The user has to pass through, whatever our umask was.
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(parent, open).map_err(ClusterError::file(parent))?;
    let home = parent.join(hash);
    make_private(&home)?;
    give(&home, user)?;
    Ok(home)
}

/// Makes a folder that only its owner may enter, unless it is there.
fn make_private(dir: &Path) -> Result<(), ClusterError> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(ClusterError::file(dir)(error)),
    }
}

fn read_version(data: &Path) -> Result<Option<u32>, ClusterError> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ClusterError::file(&path)(error)),
    }
}
