//! The gateway's way over HTTP against the sandbox, on the loopback.

use std::time::Duration;

use annals_domain::Retry;
use tokio::task::JoinSet;

use super::*;
use crate::fixture::{order, usd_money};
use crate::gateway::http::{HttpGateway, Settings};
use crate::gateway::{Gateway, Verdict};
use crate::limits::PaymentMethod;

struct Running {
    gateway: HttpGateway,
    stop: CancellationToken,
    tasks: JoinSet<io::Result<()>>,
}

async fn running(timeout: Duration) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, stop.clone()));
    let settings = Settings {
        timeout,
        ..Settings::default()
    };
    let gateway = HttpGateway::new(&url, &settings).unwrap();
    Running { gateway, stop, tasks }
}

impl Running {
    async fn authorize(&self, payment: u128, method: &str, key: &str) -> Result<Verdict, Retry> {
        let ask = Authorize {
            payment: order(payment),
            amount: usd_money(500),
            method: PaymentMethod::new(method).unwrap(),
        };
        let verdict = self.gateway.authorize(&ask, key).await;
        verdict.map_err(|error| error.retry)
    }

    async fn tell(&self, notice: Notice, key: &str) -> Result<(), Retry> {
        let told = self.gateway.tell(&notice, key).await;
        told.map_err(|error| error.retry)
    }

    async fn stopped(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

fn authorized(payment: u128) -> Result<Verdict, Retry> {
    let reference = Reference::new(format!("sandbox-{}", order(payment))).unwrap();
    Ok(Verdict::Authorized { reference })
}

fn declined(reason: &str) -> Result<Verdict, Retry> {
    let reason = Reason::new(reason).unwrap();
    Ok(Verdict::Declined { reason })
}

const PATIENT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn does_as_the_token_says() {
    let sandbox = running(PATIENT).await;
    assert_eq!(sandbox.authorize(1, "tok_ok", "a").await, authorized(1));
    assert_eq!(
        sandbox.authorize(2, "tok_declined", "b").await,
        declined("insufficient_funds")
    );
    assert_eq!(
        sandbox.authorize(3, "tok_gold", "c").await,
        declined("unknown_method")
    );
    sandbox.stopped().await;
}

#[tokio::test]
async fn a_key_gets_its_first_answer_again() {
    let sandbox = running(PATIENT).await;
    assert_eq!(sandbox.authorize(1, "tok_ok", "a").await, authorized(1));
    let void = Notice::Void { payment: order(1) };
    assert_eq!(sandbox.tell(void, "v").await, Ok(()));
    assert_eq!(sandbox.authorize(1, "tok_ok", "a").await, authorized(1));
    assert_eq!(sandbox.authorize(1, "tok_ok", "b").await, declined("voided"));
    assert_eq!(sandbox.authorize(2, "tok_ok", "a").await, Err(Retry::Never));
    sandbox.stopped().await;
}

#[tokio::test]
async fn a_refund_that_overtakes_its_capture_comes_later() {
    let sandbox = running(PATIENT).await;
    assert_eq!(sandbox.authorize(1, "tok_ok", "a").await, authorized(1));
    let (payment, amount) = (order(1), usd_money(500));
    let refund = Notice::Refund { payment, amount };
    assert_eq!(sandbox.tell(refund.clone(), "r").await, Err(Retry::Later));
    let capture = Notice::Capture { payment, amount };
    assert_eq!(sandbox.tell(capture, "c").await, Ok(()));
    assert_eq!(sandbox.tell(refund, "r").await, Ok(()));
    sandbox.stopped().await;
}

#[tokio::test]
async fn a_restarted_sandbox_takes_what_it_has_forgotten() {
    let sandbox = running(PATIENT).await;
    let (payment, amount) = (order(1), usd_money(500));
    let capture = Notice::Capture { payment, amount };
    assert_eq!(sandbox.tell(capture, "c").await, Ok(()));
    sandbox.stopped().await;
}

#[tokio::test]
async fn flaky_authorizes_in_the_end_and_once() {
    let sandbox = running(PATIENT).await;
    let mut failures = 0;
    for payment in 1..=20 {
        let key = format!("flaky-{payment}");
        loop {
            match sandbox.authorize(payment, "tok_flaky", &key).await {
                Err(Retry::Unknown) => failures += 1,
                verdict => break assert_eq!(verdict, authorized(payment)),
            }
            assert!(failures < 200, "it never answers");
        }
        // Held once: a capture of more than one authorization's money is refused.
        let (payment, twice) = (order(payment), usd_money(1_000));
        let too_much = Notice::Capture {
            payment,
            amount: twice,
        };
        assert_eq!(
            sandbox.tell(too_much, &format!("{key}-c")).await,
            Err(Retry::Never)
        );
    }
    assert!(failures > 0, "it is not flaky");
    sandbox.stopped().await;
}

#[tokio::test]
async fn a_hanging_request_ends_with_its_time_and_does_not_hold_up_the_end() {
    let sandbox = running(Duration::from_millis(200)).await;
    assert_eq!(sandbox.authorize(1, "tok_hang", "a").await, Err(Retry::Unknown));
    let patient = HttpGateway::new(
        &format!("http://{}", sandbox.gateway.target()),
        &Settings::default(),
    );
    let patient = patient.unwrap();
    let ask = Authorize {
        payment: order(2),
        amount: usd_money(500),
        method: PaymentMethod::new("tok_hang").unwrap(),
    };
    let (hung, ()) = tokio::join!(patient.authorize(&ask, "b"), sandbox.stopped());
    // The stop comes before or while the request hangs: not done in either case.
    assert_ne!(hung.unwrap_err().retry, Retry::Never);
}

#[tokio::test]
async fn a_request_without_a_key_or_of_another_shape_is_refused() {
    let sandbox = running(PATIENT).await;
    let url = format!("http://{}/voids", sandbox.gateway.target());
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({ "payment": order(1) });
    let without = http.post(&url).json(&body).send().await.unwrap();
    assert_eq!(without.status().as_u16(), 400);
    let other = http
        .post(&url)
        .header("idempotency-key", "k")
        .json(&json!({ "order": 1 }));
    assert_eq!(other.send().await.unwrap().status().as_u16(), 422);
    drop(http);
    sandbox.stopped().await;
}
