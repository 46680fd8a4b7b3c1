//! Servers on free ports: started, asked for tokens, ended by SIGTERM or SIGKILL, started again on the same data.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use annals_store::testing::TestDatabase;
use tempfile::TempDir;

use crate::api::Api;
use crate::program::{Ran, binary, root};

/// How long a start may take; it makes all tables, and the machine may be busy.
const START: Duration = Duration::from_secs(120);
/// How long an end may take: 10 s by contract, and what a busy machine adds.
const STOP: Duration = Duration::from_secs(30);
/// How much of a log is shown when a test fails.
const TAIL: usize = 60;

/// What outlives a server: its data dir and its database.
#[derive(Debug)]
pub struct Home {
    // Before the folder: what the database's drop needs is not in it.
    database: Option<TestDatabase>,
    dir: TempDir,
    environment: Mutex<Vec<(String, String)>>,
    tokens: Mutex<HashMap<(String, String), String>>,
}

impl Home {
    /// One with an empty database of its own; `None`: no server for tests was named, and that was said.
    #[must_use]
    pub fn with_database() -> Option<Arc<Self>> {
        let database = thread::scope(|scope| {
            let made = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime
                    .expect("a runtime can be made")
                    .block_on(TestDatabase::create_empty())
            });
            made.join()
                .expect("the database could not be made, as said above")
        })?;
        let url = database.url();
        let home = Self::make(Some(database));
        home.set("ANNALS_DATABASE_URL", &url);
        Some(home)
    }

    /// One whose server brings its own PostgreSQL.
    #[must_use]
    pub fn private() -> Arc<Self> {
        Self::make(None)
    }

    fn make(database: Option<TestDatabase>) -> Arc<Self> {
        Arc::new(Self {
            database,
            dir: TempDir::with_prefix("annals-test-").expect("a folder can be made"),
            // Bursts on a busy machine are what tests send: what is let in is the business of `system_limits` alone.
            environment: Mutex::new(vec![("ANNALS__COMMAND__QUEUE_MS".to_owned(), "60000".to_owned())]),
            tokens: Mutex::default(),
        })
    }

    /// Sets a variable for every program started from now on.
    pub fn set(&self, name: &str, value: &str) {
        lock(&self.environment).push((name.to_owned(), value.to_owned()));
    }

    /// Sets it no more.
    pub fn unset(&self, name: &str) {
        lock(&self.environment).retain(|(known, _)| known != name);
    }

    /// Its folder; the data dir is in it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data dir.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// Its database.
    ///
    /// # Panics
    /// If it has none of its own.
    #[must_use]
    pub fn database(&self) -> &TestDatabase {
        self.database.as_ref().expect("made with a database")
    }

    /// The program with these words, in the repository's folder, with no settings but this home's.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .current_dir(root())
            .args(words)
            .arg("--data-dir")
            .arg(self.data_dir());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ANNALS") {
                command.env_remove(name);
            }
        }
        command.envs(lock(&self.environment).iter().cloned());
        command
    }

    /// Runs a command of the program to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Ran {
        let mut command = self.command(words);
        let output = command.stdin(Stdio::null()).output().expect("the program starts");
        Ran::of(format!("commerce {}", words.join(" ")), &output)
    }

    /// The same with something on its standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run_with_input(&self, words: &[&str], input: &str) -> Ran {
        let mut command = self.command(words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("standard input is a pipe");
        // One that does not read its input ends it early, and is judged by its exit status.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("the program ends");
        Ran::of(format!("commerce {}", words.join(" ")), &output)
    }

    /// A token, by `commerce token`; asked for once.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn token(&self, roles: &str, subject: &str) -> String {
        let known = (roles.to_owned(), subject.to_owned());
        if let Some(token) = lock(&self.tokens).get(&known) {
            return token.clone();
        }
        let ran = self.run(&["token", "--role", roles, "--subject", subject]);
        let token = ran.exits(0).trim().to_owned();
        assert!(
            !token.is_empty() && !token.contains(char::is_whitespace),
            "a bare token: {token}"
        );
        lock(&self.tokens).insert(known, token.clone());
        token
    }

    /// Starts `commerce dev` on free ports.
    #[must_use]
    pub fn dev(self: &Arc<Self>) -> Server {
        self.dev_with(&[])
    }

    /// The same with more words.
    #[must_use]
    pub fn dev_with(self: &Arc<Self>, words: &[&str]) -> Server {
        let mut all = vec!["dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
        all.extend(words);
        Server::start(self, &all)
    }
}

/// A running server. Dropped, it is stopped as an operator would, and must end cleanly.
#[derive(Debug)]
pub struct Server {
    /// Its data.
    pub home: Arc<Home>,
    /// Where clients reach it.
    pub url: String,
    /// Where operators reach it.
    pub ops: String,
    log: PathBuf,
    pid: u32,
    ended: Mutex<Receiver<ExitStatus>>,
    running: bool,
}

impl Server {
    /// Starts the program with these words and waits until it says that it is ready.
    ///
    /// # Panics
    /// If it does not become ready; its log is printed.
    #[must_use]
    pub fn start(home: &Arc<Home>, words: &[&str]) -> Self {
        let number = uuid::Uuid::now_v7().simple();
        let log = home.dir().join(format!("{number}.log"));
        let file = File::create(&log).expect("a log file can be made");
        let mut command = home.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().expect("the program starts");
        let pid = child.id();
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let (said, ready) = mpsc::channel();
        let copy = log.with_extension("out");
        thread::spawn(move || follow(stdout, &copy, &said));
        let ended = Mutex::new(waiter(child));
        let mut server = Self {
            home: Arc::clone(home),
            url: String::new(),
            ops: String::new(),
            log,
            pid,
            ended,
            running: true,
        };
        match ready.recv_timeout(START) {
            Ok((url, ops)) => (server.url, server.ops) = (url, ops),
            Err(why) => {
                server.show_log();
                server.signal("KILL");
                server.running = false;
                let what = match why {
                    RecvTimeoutError::Timeout => "did not become ready in time",
                    RecvTimeoutError::Disconnected => "ended before it was ready",
                };
                panic!("`commerce {}` {what}; its log is above", words.join(" "));
            }
        }
        server
    }

    /// Requests as somebody of these roles (with commas), subject `tester`.
    #[must_use]
    pub fn api(&self, roles: &str) -> Api {
        self.api_as(roles, "tester")
    }

    /// Requests as this subject.
    #[must_use]
    pub fn api_as(&self, roles: &str, subject: &str) -> Api {
        Api::new(&self.url, Some(self.home.token(roles, subject)))
    }

    /// Requests without a token.
    #[must_use]
    pub fn nobody(&self) -> Api {
        Api::new(&self.url, None)
    }

    /// Requests to the operations listener.
    #[must_use]
    pub fn operations(&self, roles: Option<&str>) -> Api {
        Api::new(&self.ops, roles.map(|roles| self.home.token(roles, "tester")))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// All that it wrote so far, to standard output and to standard error.
    #[must_use]
    pub fn log(&self) -> String {
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        let mut bytes = read(&self.log.with_extension("out"));
        bytes.extend(read(&self.log));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Stops it by SIGTERM, as an operator would.
    ///
    /// # Panics
    /// If it does not end with status 0 in time, or a part of it panicked.
    pub fn stop(mut self) {
        self.end();
    }

    /// Kills it: nothing of it gets to run any more.
    pub fn kill(mut self) {
        self.signal("KILL");
        let ended = lock(&self.ended).recv_timeout(STOP);
        self.running = false;
        assert!(ended.is_ok(), "process {} survived SIGKILL", self.pid);
    }

    fn end(&mut self) {
        self.running = false;
        self.signal("TERM");
        let ended = lock(&self.ended).recv_timeout(STOP);
        let Ok(status) = ended else {
            self.show_log();
            self.signal("KILL");
            panic!("the server did not end within {STOP:?} of SIGTERM");
        };
        let log = self.log();
        if !status.success() || log.contains("panicked") {
            self.show_log();
            panic!("the server ended with {status} after SIGTERM; its log is above");
        }
    }

    fn signal(&self, name: &str) {
        // The shell's own: a minimal system has no program of this name.
        let _ = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -s {name} {}", self.pid))
            .status();
    }

    /// Prints the last lines of its log.
    pub fn show_log(&self) {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        eprintln!("--- the last lines of the server's log");
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            eprintln!("{line}");
        }
        eprintln!("---");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.running {
            return;
        }
        if thread::panicking() {
            self.show_log();
            self.signal("KILL");
            let _ = lock(&self.ended).recv_timeout(STOP);
        } else {
            self.end();
        }
    }
}

/// Copies what the program prints, and tells the line that says it is ready.
fn follow(stdout: impl std::io::Read, copy: &Path, said: &mpsc::Sender<(String, String)>) {
    let mut copy = File::create(copy).expect("a log file can be made");
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { return };
        let _ = writeln!(copy, "{line}");
        if let Some(addresses) = line.strip_prefix("ready ")
            && let Some((url, ops)) = addresses.split_once(" ops ")
        {
            let _ = said.send((url.to_owned(), ops.to_owned()));
        }
    }
}

/// Waits for a process in a thread, so that waiting for it can end.
fn waiter(mut child: Child) -> Receiver<ExitStatus> {
    let (tell, ended) = mpsc::channel();
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = tell.send(status);
        }
    });
    ended
}

/// A server that the tests of a file share: started by the first, ended with the last that is running.
#[derive(Debug, Default)]
pub struct Shared(Mutex<Weak<Server>>);

impl Shared {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The server; `None`: there is no database server for tests, and that was said.
    #[must_use]
    pub fn get(&self) -> Option<Guard> {
        let mut shared = lock(&self.0);
        if let Some(server) = shared.upgrade() {
            return Some(Guard(server));
        }
        let server = Arc::new(Home::with_database()?.dev());
        *shared = Arc::downgrade(&server);
        Some(Guard(server))
    }
}

/// One test's hold on a shared server; a test that fails prints the server's log.
#[derive(Debug)]
pub struct Guard(Arc<Server>);

impl std::ops::Deref for Guard {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.show_log();
        }
    }
}

/// The broker for tests; `None`, with a line on standard error, if none was named.
///
/// # Panics
/// If none was and `CI` is `true`.
#[must_use]
pub fn kafka_broker() -> Option<String> {
    let named = std::env::var("ANNALS_TEST_KAFKA")
        .ok()
        .filter(|broker| !broker.is_empty());
    if named.is_none() {
        let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(
            !required,
            "ANNALS_TEST_KAFKA is not set, and CI=true allows no skipped test"
        );
        eprintln!("skipped: ANNALS_TEST_KAFKA is not set");
    }
    named
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
