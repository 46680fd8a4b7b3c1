//! The local broker of `make kafka`, under the data dir.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;

/// Where the script is, from the folder in which `dev` is started.
const SCRIPT: &str = "deploy/kafka/broker";

/// A broker that runs.
pub(crate) struct Broker {
    pub(crate) address: String,
    dir: PathBuf,
}

impl Broker {
    /// Starts it, or finds it running.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(
            Path::new(SCRIPT).exists(),
            "no broker: give --brokers host:port; without it, {SCRIPT} starts a local one, and there is none from here"
        );
        eprintln!("starting a local Apache Kafka under {}", dir.display());
        let mut run = Command::new(SCRIPT);
        run.arg("start")
            .arg(dir)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        let output = run
            .output()
            .await
            .with_context(|| format!("{SCRIPT} cannot be run"))?;
        anyhow::ensure!(
            output.status.success(),
            "the local Apache Kafka does not start (above); or give --brokers"
        );
        let address = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self {
            address,
            dir: dir.to_owned(),
        })
    }

    /// Stops it.
    pub(crate) async fn stop(self) {
        let run = Command::new(SCRIPT)
            .arg("stop")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .status()
            .await;
        if !run.is_ok_and(|status| status.success()) {
            tracing::warn!("the local Apache Kafka did not stop; the next start finds it");
        }
    }
}
