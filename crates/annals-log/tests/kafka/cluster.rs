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
        let dir = TempDir::with_prefix("annals-kafka-").unwrap();
        let mut cluster = Self {
            brokers: String::new(),
            dir,
        };
        let file = cluster.dir.path().join("given.properties");
        std::fs::write(&file, extra).unwrap();
        let count = nodes.to_string();
        let mut words = vec!["--nodes", &count, "--extra", file.to_str().unwrap()];
        if let Some(scram) = scram {
            words.extend(["--scram", scram]);
        }
        cluster.brokers = cluster.script("start", &words);
        Some(cluster)
    }

    fn script(&self, action: &str, words: &[&str]) -> String {
        let mut command = Command::new(root().join("deploy/kafka/broker"));
        command.arg(action).arg(self.dir.path()).args(words);
        let output = command.stderr(std::process::Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "broker {action}: {:?}", output.status);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Starts the nodes that are down, and waits until they serve.
    pub fn start_missing(&self) {
        assert_eq!(self.script("start", &[]), self.brokers);
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
        self.script("stop", &[]);
    }
}

impl Cluster {
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
