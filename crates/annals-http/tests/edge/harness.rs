//! An edge with real tokens and policies, over an engine, read models and nodes that answer what a test says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_audit::{AuditError, Fresh};
use annals_auth::token::{self, KeySource};
use annals_auth::{
    DevIssuer, Grant, NodeKey, Policies, PolicyTable, SealError, Sealed, SecurityLog, Surface, TokenVerifier,
};
use annals_command::{Answer, EventRef, Outcome, SendError};
use annals_domain::catalog::{AggregateType, AnyCommand};
use annals_domain::{Ambient, CommandRequest, Fixed, Precondition, personal};
use annals_http::edge::{Engine, Node};
use annals_http::ports::{Audited, Live, PeerError, Question, Read};
use annals_http::{Audits, Commands, Edge, Listener, Parts, Peers, Place, Reads, Seal, Settings};
use annals_query::value::SqlType;
use annals_query::{Column, Definition, LiveId, QueryError, Request as QueryRequest};
use annals_record::{
    EventId, Generation, Key, Offset, Position, RecordId, Shard, StreamId, Version, hash::sha256,
};
use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

pub(crate) const ID: &str = "0192f1c0-0000-7000-8000-000000000001";
pub(crate) const NOW_MS: i64 = 1_790_000_000_000;

const ROLES: &str = r#"[
  {"uid": {"type": "Role", "id": "teller"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Role", "id": "customer"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Role", "id": "nobody"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Role", "id": "auditor"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Role", "id": "operator"}, "attrs": {}, "parents": []},
  {"uid": {"type": "Role", "id": "system"}, "attrs": {}, "parents": []}
]"#;
const POLICIES: &str = r#"
permit (principal in Role::"teller", action in
  [Action::"accounts/open", Action::"accounts/deposit", Action::"accounts/close", Action::"coins/mint"], resource);
permit (principal in Role::"system", action == Action::"accounts/deposit", resource);
permit (principal in Role::"customer", action == Action::"accounts/deposit", resource) when { context.own };
permit (principal in Role::"teller", action in [Action::"read", Action::"read-private"], resource);
permit (principal in Role::"customer", action == Action::"read", resource == Resource::"accounts")
  when { context.own };
permit (principal in Role::"auditor", action == Action::"enter", resource == Area::"audit");
permit (principal in Role::"operator", action == Action::"enter", resource == Area::"operations");
"#;

type Answering = Box<dyn FnMut(&CommandRequest) -> Result<Answer, SendError> + Send>;
type Reading = Box<dyn FnMut(&QueryRequest, Option<&str>) -> Result<Read, QueryError> + Send>;
type Following = Box<dyn FnMut(&QueryRequest, &str, Option<&LiveId>) -> Result<Live, QueryError> + Send>;
type Auditing = Box<dyn FnMut(&Question) -> Result<Bytes, AuditError> + Send>;
type Calling = Box<dyn FnMut(&str, &Request<Bytes>) -> Result<Response<Bytes>, PeerError> + Send>;

/// What all three ports answer, and what they saw.
pub(crate) struct Ports {
    pub(crate) place: Mutex<Place>,
    pub(crate) full: AtomicBool,
    pub(crate) answering: Mutex<Answering>,
    pub(crate) reading: Mutex<Reading>,
    pub(crate) following: Mutex<Following>,
    pub(crate) calling: Mutex<Calling>,
    pub(crate) auditing: Mutex<Auditing>,
    pub(crate) commands: Mutex<Vec<CommandRequest>>,
    pub(crate) queries: Mutex<Vec<QueryRequest>>,
    pub(crate) questions: Mutex<Vec<(Question, Vec<Position>, Duration)>>,
    pub(crate) calls: Mutex<Vec<(String, Request<Bytes>)>>,
}

impl Commands for Ports {
    fn is_full(&self, _: &StreamId) -> bool {
        self.full.load(Ordering::SeqCst)
    }
    fn place(&self, _: &StreamId) -> Place {
        self.place.lock().unwrap().clone()
    }
    fn send(&self, request: CommandRequest, _: Duration) -> BoxFuture<'_, Result<Answer, SendError>> {
        let answer = (self.answering.lock().unwrap())(&request);
        self.commands.lock().unwrap().push(request);
        Box::pin(std::future::ready(answer))
    }
}

impl Seal for Ports {
    fn seal<'a>(
        &'a self,
        _: &'a AggregateType,
        _: &'a Key,
        command: AnyCommand,
        sub: &'a str,
        precondition: &'a Precondition,
    ) -> BoxFuture<'a, Result<Sealed, SealError>> {
        let data = personal::in_the_clear(|| command.canonical()).unwrap();
        let said = [sub.as_bytes(), precondition.canonical().as_bytes(), &data].concat();
        let sealed = Sealed {
            fingerprint: sha256(&said),
            command,
            data,
        };
        Box::pin(std::future::ready(Ok(sealed)))
    }
}

impl Reads for Ports {
    fn columns(&self, resource: &str) -> Vec<Column> {
        let column = |name: &str, ty, private| Column {
            name: name.to_owned(),
            ty,
            not_null: true,
            private,
        };
        match resource {
            "accounts" => vec![
                column("account_id", SqlType::Uuid, false),
                column("balance", SqlType::BigInt, false),
                column("name", SqlType::Text, true),
            ],
            _ => Vec::new(),
        }
    }
    fn read(&self, request: QueryRequest, tags: Option<String>) -> BoxFuture<'_, Result<Read, QueryError>> {
        let read = (self.reading.lock().unwrap())(&request, tags.as_deref());
        self.queries.lock().unwrap().push(request);
        Box::pin(std::future::ready(read))
    }
    fn follow<'a>(
        &'a self,
        request: QueryRequest,
        caller: &'a str,
        last: Option<LiveId>,
    ) -> BoxFuture<'a, Result<Live, QueryError>> {
        let live = (self.following.lock().unwrap())(&request, caller, last.as_ref());
        self.queries.lock().unwrap().push(request);
        Box::pin(std::future::ready(live))
    }
}

impl Audits for Ports {
    fn ask(
        &self,
        question: Question,
        after: Vec<Position>,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Audited, AuditError>> {
        let answer = (self.auditing.lock().unwrap())(&question);
        self.questions.lock().unwrap().push((question, after, wait));
        let fresh = Fresh {
            positions: vec!["0:7".parse().unwrap(), "3:1042".parse().unwrap()],
            oldest_missing_ms: Some(NOW_MS - 250),
        };
        Box::pin(std::future::ready(answer.map(|body| Audited { body, fresh })))
    }
}

impl Peers for Ports {
    fn call(&self, url: &str, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, PeerError>> {
        let answer = (self.calling.lock().unwrap())(url, &request);
        self.calls.lock().unwrap().push((url.to_owned(), request));
        Box::pin(std::future::ready(answer))
    }
}

/// An edge with everything around it.
pub(crate) struct Bank {
    pub(crate) edge: Edge,
    pub(crate) ports: Arc<Ports>,
    pub(crate) node_key: Arc<NodeKey>,
    pub(crate) clock: Arc<Fixed>,
    issuer: DevIssuer,
    _dir: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
    /// Status and code, after a look at everything that a problem document must have.
    pub(crate) fn problem(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(self.header("content-type"), "application/problem+json", "{json}");
        let code = json["code"].as_str().unwrap().to_owned();
        assert_eq!(json["type"], format!("/problems/{code}"));
        assert_eq!(json["status"], self.status.as_u16());
        assert_eq!(json["correlation_id"], self.header("correlation-id"));
        for member in ["title", "detail", "instance"] {
            assert!(
                json[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member} of {json}"
            );
        }
        (self.status.as_u16(), code)
    }
}

/// A request being put together.
pub(crate) struct Ask(Request<Body>);

impl Ask {
    pub(crate) fn new(method: Method, target: &str) -> Self {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().unwrap();
        Self(request)
    }
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.0
            .headers_mut()
            .append(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }
    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.0.headers_mut().remove(name);
        self
    }
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        *self.0.body_mut() = Body::from(body.into());
        self
    }
    pub(crate) fn json(self, body: impl Into<Bytes>) -> Self {
        self.with("content-type", "application/json").body(body)
    }
}

impl Bank {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Parts)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ambient, clock) = Ambient::fixed(NOW_MS, 7);
        let issuer = DevIssuer::open_or_create(dir.path(), "bank", ambient.clone()).unwrap();
        let settings = token::Settings::new(KeySource::File(issuer.jwks_file().to_owned()), "bank");
        let catalog = crate::bank::catalog();
        let policies = Policies::from_files([("bank.cedar", POLICIES), ("roles.json", ROLES)]).unwrap();
        let surface = Surface::new(&catalog, ["accounts", "ledger"]);
        let node_key =
            Arc::new(NodeKey::open_or_create(&dir.path().join("node.key"), ambient.clone()).unwrap());
        let ports = Arc::new(Ports {
            place: Mutex::new(Place::Here { owner: true }),
            full: AtomicBool::new(false),
            answering: Mutex::new(Box::new(|request| Ok(committed(request, 1)))),
            reading: Mutex::new(Box::new(|_, _| Err(QueryError::NotFound))),
            following: Mutex::new(Box::new(|_, _, _| Err(QueryError::NotFound))),
            calling: Mutex::new(Box::new(|_, _| Err(PeerError::NotSent))),
            commands: Mutex::default(),
            auditing: Mutex::new(Box::new(|_| Ok(Bytes::from_static(b"{\"data\":[]}")))),
            queries: Mutex::default(),
            questions: Mutex::default(),
            calls: Mutex::default(),
        });
        let mut parts = Parts {
            settings: Settings::default(),
            catalog,
            tokens: Arc::new(TokenVerifier::new(settings, ambient.clone()).unwrap()),
            policies: Arc::new(PolicyTable::build(&policies, &surface).unwrap()),
            security: Arc::new(SecurityLog::new(ambient.clone())),
            ambient,
            commands: Some(Engine {
                commands: ports.clone(),
                sealer: ports.clone(),
            }),
            definitions: vec![Arc::new(definition("accounts")), Arc::new(definition("ledger"))],
            reads: Some(ports.clone()),
            audits: Some(ports.clone()),
            node: Some(Node {
                id: "n1".into(),
                key: node_key.clone(),
                peers: ports.clone(),
            }),
        };
        change(&mut parts);
        Self {
            edge: Edge::new(parts),
            ports,
            node_key,
            clock,
            issuer,
            _dir: dir,
        }
    }

    pub(crate) fn token(&self, sub: &str, role: &str) -> String {
        let grant = Grant {
            sub,
            roles: &[role],
            ttl_s: 900,
            owner: None,
        };
        format!("Bearer {}", self.issuer.issue(&grant).unwrap())
    }

    /// A request of a teller.
    pub(crate) fn ask(&self, method: Method, target: &str) -> Ask {
        Ask::new(method, target).with("authorization", &self.token("ada", "teller"))
    }

    /// A command of a teller that is right in every way.
    pub(crate) fn deposit(&self) -> Ask {
        self.ask(Method::POST, &format!("/v1/accounts/{ID}/deposit"))
            .with("idempotency-key", "k1")
            .json(r#"{"amount":5}"#)
    }

    pub(crate) async fn get(&self, ask: Ask) -> Got {
        self.get_from(Listener::Public, ask).await
    }

    /// The response as it comes, its body not read.
    pub(crate) async fn open(&self, ask: Ask) -> axum::response::Response {
        self.edge.router(Listener::Public).oneshot(ask.0).await.unwrap()
    }

    pub(crate) async fn get_from(&self, listener: Listener, ask: Ask) -> Got {
        let response = self.edge.router(listener).oneshot(ask.0).await.unwrap();
        got(response).await
    }

    pub(crate) fn answers(
        &self,
        answer: impl FnMut(&CommandRequest) -> Result<Answer, SendError> + Send + 'static,
    ) {
        *self.ports.answering.lock().unwrap() = Box::new(answer);
    }

    pub(crate) fn reads(
        &self,
        read: impl FnMut(&QueryRequest, Option<&str>) -> Result<Read, QueryError> + Send + 'static,
    ) {
        *self.ports.reading.lock().unwrap() = Box::new(read);
    }

    pub(crate) fn follows(
        &self,
        follow: impl FnMut(&QueryRequest, &str, Option<&LiveId>) -> Result<Live, QueryError> + Send + 'static,
    ) {
        *self.ports.following.lock().unwrap() = Box::new(follow);
    }
}

pub(crate) async fn got(response: axum::response::Response) -> Got {
    let (head, body) = response.into_parts();
    Got {
        status: head.status,
        headers: head.headers,
        bytes: body.collect().await.unwrap().to_bytes(),
    }
}

pub(crate) fn record() -> RecordId {
    RecordId::from_parts(1_790_000_000_000, [7; 10])
}

pub(crate) fn answer(request: &CommandRequest, version: u64, outcome: Outcome) -> Answer {
    Answer {
        record: record(),
        stream: request.stream.clone(),
        position: Position::new(Generation::FIRST, Shard::new(3), Offset::new(1042)),
        version: Version::new(version),
        outcome,
        replayed: false,
    }
}

/// One event, which brings the stream to `version`.
pub(crate) fn committed(request: &CommandRequest, version: u64) -> Answer {
    let event = EventRef {
        id: EventId::of(record(), 0),
        event_type: "account.deposited".to_owned(),
        version: Version::new(version),
    };
    answer(request, version, Outcome::Committed(vec![event]))
}

fn definition(resource: &str) -> Definition {
    Definition {
        resource: resource.to_owned(),
        projection: resource.to_owned(),
        build: 1,
        digest: [0; 32],
        doc: format!("All {resource}."),
        table: resource.to_owned(),
        key: vec!["account_id".to_owned()],
        versioned: true,
        owner: Some("owner".to_owned()),
        private: vec!["name".to_owned()],
        condition: String::new(),
        filter: vec!["balance".to_owned()],
        sort: vec!["balance".to_owned()],
        expand: std::collections::BTreeMap::new(),
    }
}
