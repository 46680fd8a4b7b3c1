//! The subcommand `demo`: TPC-H orders as real commands, and whether the sums come out equal.

use std::sync::Mutex;
use std::sync::PoisonError;

use annals::{Answer, ClientArgs, Context, Output, Progress, Subcommand, output};
use annals_client::Query;

use crate::demo::{self, DemoOptions, Stage};

/// Send TPC-H orders as real commands, and compare the sums
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// TPC-H's scale factor: 0.01 is 15,000 orders
    #[arg(long, default_value_t = 0.01)]
    scale: f64,
    #[command(flatten)]
    client: ClientArgs,
}

/// The one caller of every demo: idempotency keys are a caller's.
const SUBJECT: &str = "demo";
const ROLES: [&str; 2] = ["clerk", "warehouse"];

impl Subcommand for Demo {
    const NAME: &'static str = "demo";

    async fn run(self, cx: Context) -> anyhow::Result<Answer> {
        let client = cx.client(&self.client, SUBJECT, &ROLES)?;
        let options = DemoOptions {
            scale: self.scale,
            ..DemoOptions::default()
        };
        let bars = Bars::default();
        let report = demo::run(&client, &options, |progress| bars.show(&progress)).await;
        bars.finish();
        let report = report?;
        match cx.common.output {
            Output::Table => output::text(&report.to_string())?,
            other => other.print(&report)?,
        }
        if cx.in_dev {
            let page = client.page("orders", &Query::default(), None).await?;
            let page = page.map_err(|answer| anyhow::anyhow!("orders: {}", answer.summary()))?;
            output::text("\nthe first page of /v1/orders:")?;
            cx.common.output.print_all(&page.rows)?;
        }
        Ok(if report.is_equal() {
            Answer::Done
        } else {
            Answer::No
        })
    }
}

/// A bar, or a line now and then, for each stage.
#[derive(Default)]
struct Bars(Mutex<Option<(Stage, Progress)>>);

impl Bars {
    fn show(&self, news: &demo::Progress) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|(stage, _)| *stage != news.stage) {
            if let Some((_, bar)) = shown.take() {
                bar.finish();
            }
            *shown = Some((
                news.stage,
                Progress::new(format!("demo: {}", news.stage.name()), count(news.total)),
            ));
        }
        if let Some((_, bar)) = shown.as_mut() {
            bar.add(count(news.done).saturating_sub(bar.done()));
        }
    }

    fn finish(&self) {
        if let Some((_, bar)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish();
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
