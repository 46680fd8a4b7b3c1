//! One request from its head to its response.
//!
//! Requests are judged in this order, and the first failure is the answer: 401, 404 or 405, 421, 403 (roles), 429
//! (quota; none is configured so far), 415, 413, 400, 422, 403 (object), a replay's first answer, 429 (refusal
//! budget), the stream's state. From 403 (object) on it is the engine that judges.
//!
//! 431 comes before all of that, since a head that is too large is not looked into. Everything that needs no
//! token is listed in `route`; all else needs one, also what there is not.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use annals_auth::{LastToken, NodeKey, PolicyTable, SecurityEvent, SecurityLog, TokenVerifier};
use annals_domain::{Ambient, Catalog};
use annals_query::Definition;
use annals_record::{StreamId, Traceparent};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Body as _;
use uuid::Uuid;

use crate::audit::AuditRoute;
use crate::authenticate::Who;
use crate::body::{Inbound, Outbound};
use crate::command::Call;
use crate::ports::{Audits, Commands, Peers, Reads, Seal};
use crate::problem::{Code, Problem, Scene};
use crate::refusals::Refusals;
use crate::reply::{CORRELATION_ID, TRACEPARENT};
use crate::request::Request as Current;
use crate::route::Route;
use crate::settings::Settings;
use crate::{batch, body, metrics, route, target};

/// Which listener a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The clients'.
    Public,
    /// The nodes': every request carries a node token, and none is forwarded.
    Internal,
}

/// What an edge is made of.
pub struct Parts {
    /// Limits.
    pub settings: Settings,
    /// Every aggregate.
    pub catalog: Catalog,
    /// Clients' tokens.
    pub tokens: Arc<TokenVerifier>,
    /// Who may what.
    pub policies: Arc<PolicyTable>,
    /// Where refused requests are recorded.
    pub security: Arc<SecurityLog>,
    /// Time and randomness.
    pub ambient: Ambient,
    /// The engine; `None` without the node role `command`.
    pub commands: Option<Engine>,
    /// Every resource of the read models, whether or not this node serves them.
    pub definitions: Vec<Arc<Definition>>,
    /// The read models; `None` without the node role `query`.
    pub reads: Option<Arc<dyn Reads>>,
    /// The auditors' side; `None` without the node role `audit`.
    pub audits: Option<Arc<dyn Audits>>,
    /// This node among nodes; `None` if there are no others.
    pub node: Option<Node>,
}

/// What a node with the role `command` has.
#[derive(Clone)]
pub struct Engine {
    /// The engine.
    pub commands: Arc<dyn Commands>,
    /// The sealer.
    pub sealer: Arc<dyn Seal>,
}

/// This node among nodes.
#[derive(Clone)]
pub struct Node {
    /// Its id.
    pub id: Arc<str>,
    /// The cluster's key.
    pub key: Arc<NodeKey>,
    /// The others.
    pub peers: Arc<dyn Peers>,
}

/// The edge. Cheap to clone.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) catalog: Catalog,
    pub(crate) tokens: Arc<TokenVerifier>,
    pub(crate) policies: Arc<PolicyTable>,
    pub(crate) security: Arc<SecurityLog>,
    pub(crate) ambient: Ambient,
    pub(crate) commands: Option<Engine>,
    /// By the resource's name.
    pub(crate) definitions: BTreeMap<String, Arc<Definition>>,
    pub(crate) reads: Option<Arc<dyn Reads>>,
    pub(crate) audits: Option<Arc<dyn Audits>>,
    pub(crate) node: Option<Node>,
    pub(crate) counted: metrics::Requests,
    pub(crate) refusals: Refusals,
    /// `/v1/openapi.json`, made when it is first asked for.
    pub(crate) description: OnceLock<Bytes>,
}

/// A request's ids, known before anything else.
pub(crate) struct Ids {
    pub(crate) correlation: Arc<str>,
    /// Why the client's own correlation id is not used: 400, once it is its turn.
    pub(crate) refused: Option<Problem>,
    pub(crate) traceparent: Option<Traceparent>,
}

impl Edge {
    /// Puts an edge together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            settings: parts.settings,
            catalog: parts.catalog,
            tokens: parts.tokens,
            policies: parts.policies,
            security: parts.security,
            ambient: parts.ambient,
            commands: parts.commands,
            definitions: parts
                .definitions
                .into_iter()
                .map(|d| (d.resource.clone(), d))
                .collect(),
            reads: parts.reads,
            audits: parts.audits,
            node: parts.node,
            counted: metrics::Requests::new(),
            refusals: Refusals::default(),
            description: OnceLock::new(),
        }))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// What a listener serves.
    pub fn router(&self, listener: Listener) -> Router {
        let edge = self.clone();
        Router::new().fallback(move |request: Request<Body>| {
            let edge = edge.clone();
            async move {
                let request = request.map(Either::Right);
                edge.serve(listener, request, None).await.map(Body::new)
            }
        })
    }

    /// Answers a request; `last` is its connection's.
    pub(crate) async fn serve(
        &self,
        listener: Listener,
        request: Request<Inbound>,
        last: Option<&LastToken>,
    ) -> Response<Outbound> {
        let began = tokio::time::Instant::now();
        let (head, mut body) = request.into_parts();
        let ids = self.0.ids(&head.headers);
        let template = route::template(head.uri.path(), &head.method);
        let current = Current {
            method: head.method.clone(),
            route: route::TEMPLATES[template],
            correlation: Arc::clone(&ids.correlation),
        };
        let handled = {
            let handling = self.handle(listener, &head, &ids, last, &mut body);
            let mut handling = pin!(AssertUnwindSafe(handling).catch_unwind());
            current.around(handling.as_mut()).await
        };
        let scene = Scene {
            instance: head.uri.path(),
            correlation: &ids.correlation,
        };
        let mut response = match handled {
            Ok(Ok(response)) => response,
            Ok(Err(problem)) => problem.response(scene).map(Either::Right),
            Err(_) => {
                ::metrics::counter!(metrics::PANICS).increment(1);
                current.scope(|| tracing::error!("a handler panicked"));
                Problem::new(Code::Internal).response(scene).map(Either::Right)
            }
        };
        if !body.is_end_stream() {
            Box::pin(body::discard(&head.headers, &mut body)).await;
        }
        if head.method == Method::HEAD {
            response = without_body(response);
        }
        finish(&mut response, &ids);
        let (counted, status) = (&self.0.counted, response.status());
        counted.count(template, &head.method, status, began.elapsed());
        if self.0.settings.access_log {
            let (status, ms) = (status.as_u16(), began.elapsed().as_millis());
            current.scope(|| tracing::info!(target: "annals::access", status, ms, "request"));
        }
        response
    }

    // What is not on a command's usual way is boxed: a future is moved a few times, with room for all that it may await.
    async fn handle(
        &self,
        listener: Listener,
        head: &Head,
        ids: &Ids,
        last: Option<&LastToken>,
        body: &mut Inbound,
    ) -> Result<Response<Outbound>, Problem> {
        let inner = &self.0;
        let any = |response: Response| response.map(Either::Right);
        inner.check_head(head)?;
        if let Some(open) = route::open(head.uri.path()) {
            return inner.open(&head.method, open).map(any);
        }
        let who = inner.authenticate(listener, &head.headers, last).await?;
        let forwards = who.forwards(listener, &head.headers);
        match inner.route(&head.method, head.uri.path())? {
            Route::Options { allow } => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static(allow));
                Ok(any(response))
            }
            Route::Command { aggregate, name, key } => {
                let engine = inner.engine()?;
                let permission = inner.permission(&who, aggregate.resource(), name)?;
                let settings = &inner.settings;
                let body =
                    body::read(&head.headers, body, settings.body_bytes, settings.request_time()).await?;
                target::no_parameters(head.uri.query())?;
                let command = crate::command::head::read(&head.headers, listener, &who, ids, settings)?;
                let key = Call::key(inner, aggregate, key, &who, &command)?;
                let call = Call {
                    inner,
                    engine,
                    aggregate,
                    name,
                    stream: StreamId::new(aggregate.category(), &key),
                    key,
                    who: &who,
                    permission,
                    head: command,
                    body,
                };
                let scene = Scene {
                    instance: head.uri.path(),
                    correlation: &ids.correlation,
                };
                Ok(call.run(forwards, scene).await.into_outbound())
            }
            Route::Batch => {
                target::no_parameters(head.uri.query())?;
                let body = body::take(body);
                batch::run(Arc::clone(inner), forwards, who, ids, &head.headers, body).map(any)
            }
            Route::Audit(name) => {
                let path: Vec<_> = name.iter().map(|segment| &**segment).collect();
                let route = AuditRoute::of(&path).ok_or(Code::UnknownResource)?;
                Box::pin(inner.audit(&who, route, head, ids)).await.map(any)
            }
            Route::Query { definition, key } => {
                let answering = Box::pin(inner.query(&who, definition, key, head, ids));
                answering.await.map(any)
            }
        }
    }
}

impl Inner {
    pub(crate) fn ids(&self, headers: &HeaderMap) -> Ids {
        let (correlation, refused) = match crate::command::head::correlation(headers) {
            Ok(Some(given)) => (given, None),
            Ok(None) => (self.made(), None),
            Err(problem) => (self.made(), Some(problem)),
        };
        // One that cannot be read is as good as none: W3C Trace Context, section 3.2.2.
        let traceparent = headers
            .get(&TRACEPARENT)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        Ids {
            correlation,
            refused,
            traceparent,
        }
    }

    /// A correlation id.
    fn made(&self) -> Arc<str> {
        let mut text = Uuid::encode_buffer();
        let uuid = self.ambient.uuid();
        Arc::from(&*uuid.hyphenated().encode_lower(&mut text))
    }

    fn check_head(&self, head: &Head) -> Result<(), Problem> {
        let target = head
            .uri
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4);
        let limit = self.settings.header_bytes;
        if target + headers.sum::<usize>() > limit {
            let detail = format!("Target and headers have more than {limit} bytes.");
            return Err(Problem::because(Code::HeadersTooLarge, detail).with("limit", limit));
        }
        Ok(())
    }

    pub(crate) fn engine(&self) -> Result<&Engine, Problem> {
        let missing = || Problem::new(Code::Misdirected).with("role", "command");
        self.commands.as_ref().ok_or_else(missing)
    }

    pub(crate) fn permission(
        &self,
        who: &Who,
        resource: &str,
        command: &str,
    ) -> Result<annals_domain::Permission, Problem> {
        let decision = self.policies.permission(&who.caller.roles, resource, command);
        decision.permission().ok_or_else(|| {
            self.security.record(&SecurityEvent::ForbiddenRole {
                sub: &who.caller.sub,
                what: &format!("{resource}/{command}"),
            });
            Problem::new(Code::Forbidden)
        })
    }
}

/// What every response carries.
pub(crate) fn finish<B>(response: &mut Response<B>, ids: &Ids) {
    let headers = response.headers_mut();
    if let Ok(correlation) = HeaderValue::from_str(&ids.correlation) {
        headers.insert(CORRELATION_ID, correlation);
    }
    if let Some(traceparent) = ids.traceparent
        && let Ok(traceparent) = HeaderValue::from_str(&traceparent.to_string())
    {
        headers.insert(TRACEPARENT, traceparent);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Answers are of one caller; a cache in between may keep them only to ask again.
    let private = HeaderValue::from_static("private, no-cache");
    headers.entry(CACHE_CONTROL).or_insert(private);
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(nothing);
}

fn without_body(response: Response<Outbound>) -> Response<Outbound> {
    let (mut head, body) = response.into_parts();
    if let Some(bytes) = body.size_hint().exact() {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    Response::from_parts(head, Either::Left(Full::default()))
}
