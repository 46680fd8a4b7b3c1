//! The short form of the fault runs: five real processes, a fault of each of the usual kinds, every promise checked.
//! The long form is `make fault`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use annals_tests::fault::plan::Kind;
use annals_tests::fault::{self, Options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_whatever_dies() {
    let mut options = Options {
        seconds: 25,
        faults: vec![Kind::Kill, Kind::Pause, Kind::Term, Kind::Postgres, Kind::Cut],
        lease_ms: 1_500,
        ..Options::default()
    };
    options.settle_seed();
    let report = fault::run(&options).await.unwrap();
    eprintln!("{}again: {}", report.table(), report.command());
    assert!(
        report.is_good(),
        "{}again: {}",
        report.complaint(),
        report.command()
    );
    assert!(
        report.sent.len() > 500,
        "{} commands are no load",
        report.sent.len()
    );
}
