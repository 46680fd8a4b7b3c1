//! Apache Kafka of a test's own, by `deploy/kafka/broker`: nodes that may be killed, paused and started again.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

#[derive(Debug)]
pub struct Cluster {
    /// `host:port`, several with commas.
    pub brokers: String,
    dir: TempDir,
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut above = manifest.ancestors();
    above
        .find(|dir| dir.join("deploy/kafka/broker").exists())
        .unwrap()
        .to_owned()
}

impl Cluster {
    /// `None`, with a line on standard error, where tests have no broker at all or no Java to run one.
    pub fn start(nodes: u32, extra: &str, scram: Option<&str>) -> Option<Self> {
        let wanted = std::env::var("ANNALS_TEST_KAFKA").is_ok_and(|text| !text.is_empty());
        let java = Command::new("java").arg("-version").output().is_ok();
        if !wanted || !java {
            let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(
                !required,
                "no broker or no Java, and CI=true allows no skipped test"
            );
            eprintln!("skipped: ANNALS_TEST_KAFKA is not set, or Java is missing");
            return None;
        }
        Some(Self::launch(nodes, extra, scram, &[]).unwrap())
    }

    /// Starts one wherever Java is. `places`: of each node the address that it serves on, and the network namespace that
    /// it runs in; none: the loopback.
    pub fn launch(
        nodes: u32,
        extra: &str,
        scram: Option<&str>,
        places: &[(String, String)],
    ) -> Result<Self, String> {
        let dir = TempDir::with_prefix("annals-kafka-").map_err(|error| error.to_string())?;
        let mut cluster = Self {
            brokers: String::new(),
            dir,
        };
        let file = cluster.dir.path().join("given.properties");
        std::fs::write(&file, extra).map_err(|error| error.to_string())?;
        let count = nodes.to_string();
        let file = file.display().to_string();
        let mut words = vec!["--nodes", &count, "--extra", &file];
        if let Some(scram) = scram {
            words.extend(["--scram", scram]);
        }
        let lines: Vec<String> = places
            .iter()
            .map(|(host, netns)| format!("{host} {netns}\n"))
            .collect();
        let given = cluster.dir.path().join("given.places");
        let given_name = given.display().to_string();
        if !lines.is_empty() {
            std::fs::write(&given, lines.concat()).map_err(|error| error.to_string())?;
            words.extend(["--places", &given_name]);
        }
        cluster.brokers = cluster.script("start", &words)?;
        Ok(cluster)
    }

    fn script(&self, action: &str, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(root().join("deploy/kafka/broker"));
        command.arg(action).arg(self.dir.path()).args(words);
        let output = command.stderr(std::process::Stdio::inherit()).output();
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("broker {action}: {:?}", output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Starts the nodes that are down, and waits until they serve.
    pub fn start_missing(&self) {
        assert_eq!(self.script("start", &[]).as_ref(), Ok(&self.brokers));
    }

    /// Sends a signal to a node, counted from 1: `KILL`, `STOP`, `CONT`, `TERM`. After `STOP` each of its threads stands still.
    pub fn signal(&self, node: u32, signal: &str) {
        let pid = std::fs::read_to_string(self.dir.path().join(node.to_string()).join("pid")).unwrap();
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(pid.trim())
            .status()
            .unwrap();
        assert!(sent.success());
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while signal == "STOP" && !stands_still(pid.trim()) {
            assert!(std::time::Instant::now() < until, "node {node} does not stop");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// Whether every thread of a process is stopped. Source: proc(5), the field behind the name is the state.
fn stands_still(pid: &str) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .is_none_or(|(_, state)| state.trim_start().starts_with('T'))
    })
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A paused one hears nothing.
        for node in 1..=3 {
            if self.dir.path().join(node.to_string()).join("pid").exists() {
                self.signal_quietly(node);
            }
        }
        if let Err(why) = self.script("stop", &[]) {
            eprintln!("{why}");
        }
    }
}

impl Cluster {
    /// Waits until a node's process is gone; `false`: it is still there.
    pub fn is_gone_within(&self, node: u32, within: std::time::Duration) -> bool {
        let until = std::time::Instant::now() + within;
        let pid = std::fs::read_to_string(self.dir.path().join(node.to_string()).join("pid")).unwrap();
        // One whose parent has not looked yet has no command line any more.
        let is_there = || {
            let line = std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
            !line.is_empty()
        };
        while is_there() {
            if std::time::Instant::now() > until {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        true
    }

    fn signal_quietly(&self, node: u32) {
        let pid = std::fs::read_to_string(self.dir.path().join(node.to_string()).join("pid")).unwrap();
        Command::new("kill").arg("-CONT").arg(pid.trim()).output().ok();
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
