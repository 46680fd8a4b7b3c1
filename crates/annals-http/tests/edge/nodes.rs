//! Nodes among themselves: forwarding once, the internal listener, process managers.

use std::sync::Arc;
use std::time::Duration;

use annals_command::SendError;
use annals_http::edge::Node;
use annals_http::ports::PeerError;
use annals_http::process::ProcessCommands;
use annals_http::{Listener, Place};
use annals_process::{CommandSender, Outgoing, Sent};
use bytes::Bytes;
use http::{Method, Response};
use serde_json::json;
use serde_json::value::RawValue;

use crate::harness::{Ask, Bank, ID};

const OWNER: &str = "http://10.0.0.2:7000";

fn answered(status: u16, body: &'static str) -> Response<Bytes> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("etag", "\"7\"")
        .header("annals-position", "5:1")
        .header("location", "/v1/accounts/x")
        .header("connection", "close")
        .header("correlation-id", "of the other node")
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap()
}

#[tokio::test]
async fn a_command_goes_to_its_owner_once_with_its_body_unparsed() {
    let bank = Bank::new();
    *bank.ports.place.lock().unwrap() = Place::At(OWNER.to_owned());
    *bank.ports.calling.lock().unwrap() = Box::new(|_, _| Ok(answered(201, r#"{"from":"owner"}"#)));
    let body = r#"{ "amount" : 5, "amount" : "not looked at here" }"#;
    let ask = bank
        .deposit()
        .body(body)
        .with("if-match", "\"3\"")
        .with("correlation-id", "c-1");
    let got = bank.get(ask).await;
    assert_eq!((got.status.as_u16(), got.json()), (201, json!({"from": "owner"})));
    assert_eq!(
        (
            got.header("etag"),
            got.header("annals-position"),
            got.header("location")
        ),
        ("\"7\"", "5:1", "/v1/accounts/x")
    );
    assert_eq!(
        (got.header("correlation-id"), got.header("connection")),
        ("c-1", "")
    );
    let calls = bank.ports.calls.lock().unwrap();
    let (url, sent) = &calls[0];
    assert_eq!(
        (calls.len(), url.as_str(), sent.uri().path()),
        (1, OWNER, format!("/v1/accounts/{ID}/deposit").as_str())
    );
    assert_eq!(sent.body(), body);
    let header = |name: &str| sent.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("authorization"), bank.token("ada", "teller"));
    assert_eq!(
        (
            header("idempotency-key"),
            header("if-match"),
            header("correlation-id")
        ),
        ("\"k1\"".to_owned(), "\"3\"".to_owned(), "c-1".to_owned())
    );
    let node = bank.node_key.verify(&header("annals-node-token")).unwrap();
    assert_eq!((&*node.node, node.process), ("n1", None));
    assert!(bank.ports.commands.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_the_owner_understands_is_what_was_sent() {
    let (here, there) = (Bank::new(), Bank::new());
    *here.ports.place.lock().unwrap() = Place::At(OWNER.to_owned());
    *here.ports.calling.lock().unwrap() = Box::new(|_, _| Ok(answered(200, "{}")));
    let ask = Ask::new(Method::POST, "/v1/accounts/open")
        .with("authorization", &here.token("ada", "teller"))
        .with("idempotency-key", r#""a \"k\"""#)
        .with("if-none-match", "*")
        .with("annals-metadata", r#"{"é":1}"#)
        .json(r#"{"owner":"ada"}"#);
    assert_eq!(here.get(ask).await.status, 200);
    let (_, sent) = here.ports.calls.lock().unwrap().pop().unwrap();
    let mut ask = Ask::new(Method::POST, sent.uri().path()).body(sent.body().clone());
    for name in [
        "content-type",
        "idempotency-key",
        "if-none-match",
        "annals-metadata",
        "correlation-id",
    ] {
        ask = ask.with(
            name,
            std::str::from_utf8(sent.headers()[name].as_bytes()).unwrap(),
        );
    }
    let ask = ask
        .with("authorization", &there.token("ada", "teller"))
        .with("annals-node-token", &there.node_key.issue("n1", None));
    assert_eq!(there.get_from(Listener::Internal, ask).await.status, 201);
    let got = there.ports.commands.lock().unwrap().pop().unwrap();
    assert_eq!(got.idempotency_key, annals_record::KeyHash::of("a \"k\""));
    assert_eq!(
        (got.precondition.canonical().as_str(), got.metadata.unwrap().get()),
        ("*", r#"{"é":1}"#)
    );
}

#[tokio::test]
async fn an_owner_found_late_is_asked_too_and_silence_is_told_from_refusal() {
    let bank = Bank::new();
    bank.answers(|_| {
        Err(SendError::NotOwner {
            url: OWNER.to_owned(),
        })
    });
    *bank.ports.calling.lock().unwrap() = Box::new(|_, _| Ok(answered(200, "{}")));
    assert_eq!(bank.get(bank.deposit()).await.status, 200);
    for (error, status, code) in [
        (PeerError::NotSent, 503, "shard-unavailable"),
        (PeerError::Unknown, 504, "outcome-unknown"),
    ] {
        *bank.ports.calling.lock().unwrap() = Box::new(move |_, _| Err(error));
        assert_eq!(
            bank.get(bank.deposit()).await.problem(),
            (status, code.to_owned())
        );
    }
    let alone = Bank::with(|parts| parts.node = None);
    *alone.ports.place.lock().unwrap() = Place::At(OWNER.to_owned());
    assert_eq!(
        alone.get(alone.deposit()).await.problem(),
        (503, "shard-unavailable".to_owned())
    );
}

#[tokio::test]
async fn a_forwarded_request_is_authenticated_again_and_never_forwarded_again() {
    let bank = Bank::new();
    let node = bank.node_key.issue("n2", None);
    let forwarded = || bank.deposit().with("annals-node-token", &node);
    assert_eq!(bank.get_from(Listener::Internal, forwarded()).await.status, 201);
    for ask in [
        bank.deposit(),
        bank.deposit().with("annals-node-token", "nonsense"),
    ] {
        assert_eq!(
            bank.get_from(Listener::Internal, ask).await.problem(),
            (401, "unauthenticated".to_owned())
        );
    }
    let nobody = forwarded().without("authorization");
    assert_eq!(bank.get_from(Listener::Internal, nobody).await.status, 401);
    *bank.ports.place.lock().unwrap() = Place::At(OWNER.to_owned());
    let got = bank.get_from(Listener::Internal, forwarded()).await;
    assert_eq!(got.problem(), (503, "shard-unavailable".to_owned()));
    *bank.ports.place.lock().unwrap() = Place::Here { owner: true };
    bank.answers(|_| {
        Err(SendError::NotOwner {
            url: OWNER.to_owned(),
        })
    });
    assert_eq!(bank.get_from(Listener::Internal, forwarded()).await.status, 503);
    assert!(bank.ports.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn process_managers_come_in_by_the_internal_listener_only() {
    let bank = Bank::new();
    let token = bank.node_key.issue("n2", Some("checkout"));
    let ask = || {
        bank.deposit()
            .without("authorization")
            .with("annals-node-token", &token)
            .with("annals-causation", "3:7")
    };
    assert_eq!(bank.get_from(Listener::Internal, ask()).await.status, 201);
    let sent = bank.ports.commands.lock().unwrap().pop().unwrap();
    assert_eq!(
        (&*sent.caller.sub, sent.caller.is_system()),
        ("process:checkout", true)
    );
    assert_eq!(sent.causation.as_deref(), Some("3:7"));
    assert_eq!(bank.get(ask()).await.status, 401);
    // A client's token beside it changes nothing about a client.
    bank.get(
        bank.deposit()
            .with("annals-node-token", &token)
            .with("annals-causation", "3:7"),
    )
    .await;
    let sent = bank.ports.commands.lock().unwrap().pop().unwrap();
    assert_eq!((&*sent.caller.sub, sent.causation), ("ada", None));
}

fn outgoing() -> Outgoing {
    Outgoing {
        process: "checkout".to_owned(),
        resource: "accounts".to_owned(),
        key: ID.to_owned(),
        command: "deposit".to_owned(),
        data: RawValue::from_string(r#"{"amount":5}"#.to_owned()).unwrap(),
        idempotency_key: "checkout:1".to_owned(),
        causation: Some("3:7".to_owned()),
        deadline: Duration::from_secs(5),
    }
}

fn way(bank: &Bank) -> ProcessCommands {
    let node = Node {
        id: "n1".into(),
        key: bank.node_key.clone(),
        peers: bank.ports.clone(),
    };
    ProcessCommands::new(bank.edge.clone(), node, Arc::new(|| Some(OWNER.to_owned())))
}

#[tokio::test]
async fn a_process_managers_command_is_judged_here_and_sent_on_once() {
    let bank = Bank::new();
    assert_eq!(way(&bank).send(outgoing()).await, Sent::OnRecord);
    let sent = bank.ports.commands.lock().unwrap().pop().unwrap();
    assert_eq!(
        (&*sent.caller.sub, sent.causation.as_deref()),
        ("process:checkout", Some("3:7"))
    );

    *bank.ports.place.lock().unwrap() = Place::At(OWNER.to_owned());
    *bank.ports.calling.lock().unwrap() = Box::new(|_, _| Ok(answered(200, "{}")));
    assert_eq!(way(&bank).send(outgoing()).await, Sent::OnRecord);
    let (url, request) = bank.ports.calls.lock().unwrap().pop().unwrap();
    let header = |name: &str| request.headers()[name].to_str().unwrap();
    let node = bank.node_key.verify(header("annals-node-token")).unwrap();
    assert_eq!(
        (url.as_str(), &*node.process.unwrap().sub),
        (OWNER, "process:checkout")
    );
    assert_eq!(
        (header("annals-causation"), header("annals-forwarded")),
        ("3:7", "1")
    );

    let mut again = Ask::new(Method::POST, request.uri().path()).body(request.body().clone());
    for name in [
        "content-type",
        "idempotency-key",
        "annals-node-token",
        "annals-causation",
        "annals-forwarded",
    ] {
        again = again.with(name, header(name));
    }
    assert_eq!(
        bank.get_from(Listener::Internal, again).await.problem().1,
        "shard-unavailable"
    );
}

#[tokio::test]
async fn what_came_of_a_process_managers_command_is_told_by_its_answer() {
    let bank = Bank::new();
    let later = |s| Sent::Later {
        after: Some(Duration::from_secs(s)),
    };
    let cases = [
        (SendError::Overloaded, later(1)),
        (SendError::ShardHalted, later(60)),
        (SendError::OutcomeUnknown, Sent::Unknown),
        (SendError::Internal, Sent::Unknown),
    ];
    for (error, expected) in cases {
        bank.answers(move |_| Err(error.clone()));
        assert_eq!(way(&bank).send(outgoing()).await, expected);
    }
    let never = async |command: Outgoing, code: &str| match way(&bank).send(command).await {
        Sent::Never { why } => assert!(why.starts_with(code), "{why}"),
        other => panic!("{other:?}"),
    };
    let data = RawValue::from_string("{}".to_owned()).unwrap();
    never(Outgoing { data, ..outgoing() }, "invalid").await;
    never(
        Outgoing {
            command: "close".to_owned(),
            ..outgoing()
        },
        "forbidden",
    )
    .await;
    never(
        Outgoing {
            key: "no uuid".to_owned(),
            ..outgoing()
        },
        "its resource",
    )
    .await;

    let elsewhere = Bank::with(|parts| parts.commands = None);
    assert_eq!(
        way(&elsewhere).send(outgoing()).await,
        Sent::Later { after: None }
    );
    *elsewhere.ports.calling.lock().unwrap() = Box::new(|_, _| Err(PeerError::Unknown));
    assert_eq!(way(&elsewhere).send(outgoing()).await, Sent::Unknown);
}
