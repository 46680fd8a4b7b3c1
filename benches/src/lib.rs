//! What the benchmarks share: how rounds are taken and printed, a load generator, a node without HTTP, and the
//! floors written by hand.
//!
//! There is one program a claim in `src/bin`. Each takes turns with its floor, ours and the floor's rounds one after
//! the other, and a ratio is taken of each such pair: on a shared machine a noisy minute is noisy for both. The median
//! of the ratios is what a claim is held to; absolute numbers are printed beside it and stand for this machine only.
//!
//! | module | has |
//! |---|---|
//! | [`args`] | `--short`, `--rounds N`, `--events N`, `--seconds N` |
//! | [`report`] | pairs of rounds, medians, spread, the tables |
//! | [`cpu`] | CPU seconds of processes |
//! | [`database`] | databases on the tests' server, or on a private one |
//! | [`load`] | clients over HTTP/1.1 that wait for each answer |
//! | [`products`] | the commands that are sent: `products/receive` over 10,000 products |
//! | [`orders`] | the reference backend's orders, to fill a log |
//! | [`node`] | an engine over a log, without HTTP |
//! | [`appender`] | the floor under the engine: the bytes of its records, appended by hand |
//! | [`floor`] | the whole path written by hand, over HTTP |
//! | [`real`] | the backend's own binary as a process |
//! | [`site`] | nodes of single roles |
//! | [`by_hand`] | a rebuild written by hand |
//! | [`side`] | one side of a comparison over HTTP, and what its rounds cost |

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "programs from outside: they have no composition root to ask, they print, and they turn counts to ratios"
)]

pub mod appender;
pub mod args;
pub mod by_hand;
pub mod cpu;
pub mod database;
pub mod floor;
pub mod load;
pub mod node;
pub mod orders;
pub mod products;
pub mod real;
pub mod report;
pub mod request;
pub mod side;
pub mod site;

/// The allocator of the backend's binary, for all that is measured beside it.
pub use mimalloc::MiMalloc as Allocator;
