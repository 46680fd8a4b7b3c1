//! What goes to a gateway, and what its answers become.

use std::task::{Context, Poll, Waker};

use serde_json::{Value, json};

use super::*;
use crate::fixture::{order, usd, usd_money};

/// Answers at once, with what it was asked and the key in its words.
struct Echo;

impl Gateway for Echo {
    fn target(&self) -> String {
        "gateway.example".to_owned()
    }
    fn authorize<'a>(&'a self, ask: &'a Authorize, key: &'a str) -> GatewayFuture<'a, Verdict> {
        let verdict = if ask.method.as_str() == "tok_ok" {
            Verdict::Authorized {
                reference: Reference::new(key).unwrap(),
            }
        } else {
            Verdict::Declined {
                reason: Reason::new(ask.method.as_str()).unwrap(),
            }
        };
        Box::pin(std::future::ready(Ok(verdict)))
    }
    fn tell<'a>(&'a self, _: &'a Notice, _: &'a str) -> GatewayFuture<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn now(mut future: EffectFuture<'_>) -> Option<SendCommand> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.unwrap(),
        Poll::Pending => panic!("the gateway of this test answers at once"),
    }
}

fn ask(method: &str) -> Authorize {
    Authorize {
        payment: order(1),
        amount: usd_money(3000),
        method: PaymentMethod::new(method).unwrap(),
    }
}

#[test]
fn a_verdict_comes_back_as_a_command_to_the_payment() {
    let effect = AuthorizePayment(Arc::new(Echo));
    assert_eq!(effect.target(&ask("tok_ok")), "gateway.example");
    for (method, command, data) in [
        ("tok_ok", "authorize", json!({ "reference": "key-1" })),
        ("tok_declined", "decline", json!({ "reason": "tok_declined" })),
    ] {
        let sent = now(effect.perform(&ask(method), "key-1")).unwrap();
        assert_eq!((sent.resource, sent.command), ("payments", command));
        assert_eq!(sent.key.as_str(), order(1).to_string());
        assert_eq!(serde_json::from_str::<Value>(sent.data.get()).unwrap(), data);
    }
}

#[test]
fn a_notice_has_no_answer() {
    let effect = TellGateway(Arc::new(Echo));
    assert!(now(effect.perform(&Notice::Void { payment: order(1) }, "key-1")).is_none());
}

#[test]
fn payloads_keep_their_form_in_the_outbox() {
    let notices = [
        (
            Notice::Void { payment: order(1) },
            json!({ "notice": "void", "payment": order(1) }),
        ),
        (
            Notice::Refund {
                payment: order(1),
                amount: usd_money(7),
            },
            json!({ "notice": "refund", "payment": order(1), "amount": usd(7) }),
        ),
        (
            Notice::Capture {
                payment: order(1),
                amount: usd_money(7),
            },
            json!({ "notice": "capture", "payment": order(1), "amount": usd(7) }),
        ),
    ];
    for (notice, json) in notices {
        assert_eq!(serde_json::to_value(&notice).unwrap(), json);
        assert_eq!(serde_json::from_value::<Notice>(json).unwrap(), notice);
    }
    let json = json!({ "payment": order(1), "amount": usd(3000), "method": "tok_ok" });
    assert_eq!(serde_json::to_value(ask("tok_ok")).unwrap(), json);
    assert_eq!(serde_json::from_value::<Authorize>(json).unwrap(), ask("tok_ok"));
}
