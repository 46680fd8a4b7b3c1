//! Starts and stops the private PostgreSQL server of a folder: `annals-postgres start|stop DIR`.
//!
//! `start` prints the server's URL on standard output; the server goes on after it. Exit status: 0 done,
//! 2 wrong usage, 3 could not be done.
#![allow(clippy::print_stderr)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use annals_store::cluster::{Cluster, ClusterError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [verb, dir] = arguments.as_slice() else {
        return usage();
    };
    let dir = PathBuf::from(dir);
    let done = match verb.to_str() {
        Some("start") => start(dir).await,
        Some("stop") => Cluster::stop_in(&dir).await.map(|_| ()),
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("annals-postgres: {error}");
            ExitCode::from(3)
        }
    }
}

async fn start(dir: PathBuf) -> Result<(), ClusterError> {
    let cluster = Cluster::start(&dir).await?;
    let url = cluster.url("postgres");
    writeln!(std::io::stdout(), "{}", url.reveal()).map_err(|source| ClusterError::File {
        path: PathBuf::from("standard output"),
        source,
    })
}

fn usage() -> ExitCode {
    eprintln!("usage: annals-postgres start|stop DIR");
    ExitCode::from(2)
}
