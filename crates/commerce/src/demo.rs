//! TPC-H as real commands over HTTP: products, stock, customers, orders, parcels; and whether the sums come out equal.
//!
//! | module | what it has |
//! |---|---|
//! | [`plan`] | what is to be done and what must come of it, from TPC-H: pure |
//! | [`desk`] | which command comes next, from whatever was there before: pure |
//! | [`sums`] | both sides of every sum, and what differs: pure |
//! | `shop` | commands and pages over HTTP |
//! | `walk` | the steps over HTTP |
//! | [`report`] | what is told in the end |
//!
//! A demo that was killed goes on: what is there is read and skipped, ids and idempotency keys are the same every
//! time. So its token must be of the same subject every time, with the roles clerk and warehouse.

pub mod desk;
pub mod plan;
pub mod report;
mod shop;
pub mod sums;
mod walk;

use std::time::Duration;

use annals_client::Client;
use tokio::time::Instant;

use self::plan::Plan;
pub use self::report::DemoReport;
use self::shop::Shop;
use self::walk::Demo;

/// How a demo goes.
#[derive(Debug, Clone, PartialEq)]
pub struct DemoOptions {
    /// TPC-H's scale factor, [`plan::MIN_SCALE`] to [`plan::MAX_SCALE`].
    pub scale: f64,
    /// How many commands are under way at a time.
    pub concurrency: usize,
    /// How many checkouts are open at a time.
    pub most_open: usize,
    /// Without any news for this long, it stops waiting for open checkouts, and lists them.
    pub patience: Duration,
    /// Read models fold shards each in its own time: differences are looked at again for so long.
    pub settle: Duration,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            scale: 0.01,
            concurrency: 64,
            most_open: 500,
            patience: Duration::from_secs(180),
            settle: Duration::from_secs(15),
        }
    }
}

/// What a demo is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Making the plan and reading what is there already.
    Reading,
    /// Products and their stock.
    Products,
    /// Customers.
    Customers,
    /// Orders, from placed to their goal.
    Orders,
    /// Both sides of every sum.
    Sums,
}

impl Stage {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reading => "reading what is there",
            Self::Products => "products",
            Self::Customers => "customers",
            Self::Orders => "orders",
            Self::Sums => "comparing sums",
        }
    }
}

/// How far a demo has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is at.
    pub stage: Stage,
    /// How many of `total` are done, those included that were there already.
    pub done: usize,
    /// How many there are; 0 where that is not known.
    pub total: usize,
    /// Checkouts that are open.
    pub open: usize,
    /// Commands that were answered so far.
    pub commands: u64,
}

/// Why a demo could not go to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The scale.
    #[error("scale {0} is not between {min} and {max}", min = plan::MIN_SCALE, max = plan::MAX_SCALE)]
    Scale(f64),
    /// The generator breaks TPC-H's rules.
    #[error("the TPC-H generator gave an impossible {0}")]
    Tpch(&'static str),
    /// No answer.
    #[error(transparent)]
    Client(#[from] annals_client::Error),
    /// An answer that is neither yes nor no.
    #[error("{what}: {summary}")]
    Answer {
        /// What was asked.
        what: String,
        /// What came back.
        summary: String,
    },
    /// A row that does not read.
    #[error("a row of {resource} is not of the contract")]
    Row {
        /// Of which read model.
        resource: &'static str,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
}

/// Does all that is left to do of the demo at this scale, and compares the sums.
///
/// May be dropped at any time and run again.
///
/// # Errors
/// [`DemoError`]. Orders that ended otherwise and sums that differ are no errors: they are in the report.
pub async fn run(
    client: &Client,
    options: &DemoOptions,
    progress: impl Fn(Progress) + Send + Sync,
) -> Result<DemoReport, DemoError> {
    let began = Instant::now();
    let demo = Demo {
        plan: make_plan(options.scale).await?,
        shop: Shop::new(client),
        options,
        progress: &progress,
    };
    demo.tell(Stage::Reading, 0, 0, 0);
    demo.products().await?;
    demo.customers().await?;
    let desk = demo.orders().await?;
    let took = began.elapsed();
    let mut comparison = demo.compare(&desk).await?;
    for (job, code) in desk.refusals() {
        let order = &demo.plan.orders()[job.order];
        comparison.differs(format!("order {}: {:?} was refused: {code}", order.id, job.step));
    }
    let sums = began.elapsed().saturating_sub(took);
    let commands = demo.shop.commands();
    Ok(DemoReport::new(options.scale, commands, took, sums, comparison))
}

/// Large scales take seconds, which other tasks of this program shall not wait for.
async fn make_plan(scale: f64) -> Result<Plan, DemoError> {
    match tokio::task::spawn_blocking(move || Plan::generate(scale)).await {
        Ok(plan) => plan,
        Err(_) => Err(DemoError::Tpch("row")),
    }
}
