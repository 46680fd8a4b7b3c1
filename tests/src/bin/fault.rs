//! `make fault`: breaks a running cluster on purpose, for as long as one likes. Exit status: 0 every promise was kept,
//! 1 one was not (what, and the command that repeats it, is printed), 3 it could not be run.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of the command line"
)]

use std::process::ExitCode;

use annals_tests::fault::{self, Options};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let mut options = Options::parse();
    let seed = options.settle_seed();
    eprintln!("fault: seed {seed}, {} s on {}", options.seconds, options.log);
    // Whoever interrupts it leaves nothing behind: what runs ends with the future that is dropped.
    let run = async {
        tokio::select! {
            report = fault::run(&options) => report,
            () = interrupted() => Err("interrupted".to_owned()),
        }
    };
    match run.await {
        Err(what) => {
            eprintln!("fault: {what}");
            ExitCode::from(3)
        }
        Ok(report) => {
            print!("{}", report.table());
            if report.is_good() {
                println!("every promise was kept; again: {}", report.command());
                return ExitCode::SUCCESS;
            }
            print!("{}", report.complaint());
            println!("a promise was broken; again: {}", report.command());
            ExitCode::from(1)
        }
    }
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
