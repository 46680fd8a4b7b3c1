//! The short forms of the fault runs: real processes, some faults of the usual kinds, every promise checked.
//! The long form is `make fault`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use annals_tests::fault::plan::Kind;
use annals_tests::fault::report::Report;
use annals_tests::fault::{self, Options};
use annals_tests::server::kafka_broker;

async fn kept(mut options: Options) -> Report {
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
        report.sent.len() > 300,
        "{} commands are no load",
        report.sent.len()
    );
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_whatever_dies() {
    let kinds = [
        Kind::Kill,
        Kind::Pause,
        Kind::Term,
        Kind::Postgres,
        Kind::Cut,
        Kind::Isolate,
    ];
    kept(Options {
        seconds: 25,
        faults: kinds.to_vec(),
        lease_ms: 1_500,
        ..Options::default()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_three_brokers_that_die_too_every_checkout_ends_rightly() {
    // Brokers of its own, wherever tests have one at all.
    if kafka_broker().is_none() {
        return;
    }
    let report = kept(Options {
        seconds: 30,
        // Of the first two at least one hits a broker, however slow the machine is.
        faults: vec![Kind::BrokerKill, Kind::BrokerPause, Kind::Process],
        log: "kafka".to_owned(),
        lease_ms: 1_500,
        orders: 2,
        ..Options::default()
    })
    .await;
    let checkouts = report.checkouts.unwrap();
    assert!(checkouts.orders.len() > 10, "{:?}", checkouts.statuses);
    assert!(report.leaders_moved.is_some_and(|moved| moved > 0));
}
