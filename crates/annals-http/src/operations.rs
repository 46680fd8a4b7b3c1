//! The operations listener, which is not public: liveness, readiness, metrics, and what operators do.
//!
//! `/livez`, `/readyz` and `/metrics` are open. `/admin/*` takes a token whose roles may enter the operations area,
//! and each such request is a security event.

use std::sync::Arc;

use annals_auth::{Area, SecurityEvent};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, LOCATION};
use http::request::Parts as Head;
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::edge::{Edge, Listener};
use crate::problem::{Code, Problem, Scene};
use crate::reply::Reply;
use crate::target::decode;

/// Whether this node can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot, for these reasons: shards without an owner, lag over its limit, shutting down.
    NotReady(Vec<String>),
}

/// What an operator can have done to a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectionAction {
    /// Build it anew beside the live build.
    Rebuild,
    /// Make the new build the live one.
    Switch,
    /// Make the former build the live one again.
    Rollback,
    /// Go on with parked streams.
    Resume,
}

/// Why an operator's request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// No such projection, process or instance.
    #[error("there is none of this name")]
    NotFound,
    /// Not now: the code is a word, the text says what would be needed. Fit to be sent.
    #[error("{code}: {text}")]
    Refused {
        /// `not_caught_up`.
        code: String,
        /// In words.
        text: String,
    },
    /// What is needed cannot be reached.
    #[error("the database cannot be reached")]
    Unavailable,
    /// A defect, which the composition root has logged.
    #[error("an internal error")]
    Internal,
}

/// What the composition root lets operators do. Statuses are JSON objects with a member `name`.
pub trait Admin: Send + Sync {
    /// How every build of every projection stands.
    fn projections(&self) -> BoxFuture<'_, Result<Vec<Value>, AdminError>>;
    /// Begins an action; its progress is in [`Self::projections`].
    fn act<'a>(&'a self, name: &'a str, action: ProjectionAction) -> BoxFuture<'a, Result<(), AdminError>>;
    /// How every process manager stands, with the instances that are stuck.
    fn processes(&self) -> BoxFuture<'_, Result<Vec<Value>, AdminError>>;
    /// Lets a stuck instance go on.
    fn resume<'a>(&'a self, name: &'a str, instance: &'a str) -> BoxFuture<'a, Result<(), AdminError>>;
}

/// What the operations listener is made of.
#[derive(Clone)]
pub struct Operations {
    /// Whether the node can serve.
    pub readiness: Arc<dyn Fn() -> BoxFuture<'static, Readiness> + Send + Sync>,
    /// The metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// What operators can do here.
    pub admin: Arc<dyn Admin>,
}

enum Route<'a> {
    Live,
    Ready,
    Metrics,
    Projections,
    Projection(&'a str),
    Act(&'a str, ProjectionAction),
    Processes,
    Resume(&'a str, &'a str),
}

/// The listener's routes.
pub fn router(edge: &Edge, operations: Operations) -> Router {
    let edge = edge.clone();
    Router::new().fallback(move |request: Request<Body>| {
        let (edge, operations) = (edge.clone(), operations.clone());
        async move {
            let (head, _) = request.into_parts();
            let ids = edge.inner().ids(&head.headers);
            let scene = Scene {
                instance: head.uri.path(),
                correlation: &ids.correlation,
            };
            let response = operations.handle(&edge, &head).await;
            let mut response = response.unwrap_or_else(|problem| problem.response(scene));
            crate::edge::finish(&mut response, &ids);
            response
        }
    })
}

impl Operations {
    async fn handle(&self, edge: &Edge, head: &Head) -> Result<Response, Problem> {
        let path = head.uri.path();
        let segments: Vec<_> = path
            .trim_start_matches('/')
            .split('/')
            .map(decode)
            .collect::<Option<_>>()
            .ok_or(Code::UnknownResource)?;
        let segments: Vec<_> = segments.iter().map(|segment| &**segment).collect();
        let admin = segments.first() == Some(&"admin");
        let who = match admin {
            true => Some(
                edge.inner()
                    .authenticate(Listener::Public, &head.headers, None)
                    .await?,
            ),
            false => None,
        };
        let route = route(&head.method, &segments)?;
        if let Some(who) = &who {
            let (security, caller) = (&edge.inner().security, &who.caller);
            let what = path.trim_start_matches("/admin/");
            if !edge.inner().policies.may_enter(&caller.roles, Area::Operations) {
                security.record(&SecurityEvent::ForbiddenRole {
                    sub: &caller.sub,
                    what: "operations",
                });
                return Err(Code::Forbidden.into());
            }
            security.record(&SecurityEvent::OperatorAction {
                sub: &caller.sub,
                action: what,
            });
        }
        self.answer(route).await
    }

    async fn answer(&self, route: Route<'_>) -> Result<Response, Problem> {
        let list = |items: Vec<Value>| json_response(StatusCode::OK, &json!({"data": items}));
        match route {
            Route::Live => Ok(text("text/plain; charset=utf-8", "live\n".to_owned())),
            Route::Metrics => Ok(text("text/plain; version=0.0.4; charset=utf-8", (self.metrics)())),
            Route::Ready => match (self.readiness)().await {
                Readiness::Ready => Ok(text("text/plain; charset=utf-8", "ready\n".to_owned())),
                Readiness::NotReady(why) => Err(Problem::because(
                    Code::ShardUnavailable,
                    format!("Not ready: {}.", why.join("; ")),
                )),
            },
            Route::Projections => Ok(list(self.admin.projections().await?)),
            Route::Projection(name) => {
                let all = self.admin.projections().await?;
                let of: Vec<_> = all.into_iter().filter(|status| status["name"] == name).collect();
                match of.is_empty() {
                    true => Err(Code::NotFound.into()),
                    false => Ok(list(of)),
                }
            }
            Route::Act(name, action) => {
                self.admin.act(name, action).await?;
                Ok(accepted(&format!("/admin/projections/{name}")))
            }
            Route::Processes => Ok(list(self.admin.processes().await?)),
            Route::Resume(name, instance) => {
                self.admin.resume(name, instance).await?;
                Ok(accepted("/admin/processes"))
            }
        }
    }
}

fn route<'a>(method: &Method, segments: &[&'a str]) -> Result<Route<'a>, Problem> {
    let get = |route| match *method {
        Method::GET | Method::HEAD => Ok(route),
        _ => Err(Problem::method_not_allowed("GET, HEAD")),
    };
    let post = |route| match *method {
        Method::POST => Ok(route),
        _ => Err(Problem::method_not_allowed("POST")),
    };
    match *segments {
        ["livez"] => get(Route::Live),
        ["readyz"] => get(Route::Ready),
        ["metrics"] => get(Route::Metrics),
        ["admin", "projections"] => get(Route::Projections),
        ["admin", "projections", name] => get(Route::Projection(name)),
        ["admin", "projections", name, action] => {
            let action = match action {
                "rebuild" => ProjectionAction::Rebuild,
                "switch" => ProjectionAction::Switch,
                "rollback" => ProjectionAction::Rollback,
                "resume" => ProjectionAction::Resume,
                _ => return Err(Code::UnknownResource.into()),
            };
            post(Route::Act(name, action))
        }
        ["admin", "processes"] => get(Route::Processes),
        ["admin", "processes", name, instance, "resume"] => post(Route::Resume(name, instance)),
        _ => Err(Code::UnknownResource.into()),
    }
}

impl From<AdminError> for Problem {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::NotFound => Code::NotFound.into(),
            AdminError::Refused { code, text } => Self::because(Code::Rejected, format!("{text}."))
                .with("rejection", json!({"code": code, "detail": {}})),
            AdminError::Unavailable => Code::LogUnavailable.into(),
            AdminError::Internal => Code::Internal.into(),
        }
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    Reply::json(status, body.to_string()).into_response()
}

/// 202 with the place where one sees how it goes.
fn accepted(status: &str) -> Response {
    let mut response = json_response(StatusCode::ACCEPTED, &json!({"status": status}));
    if let Ok(location) = HeaderValue::from_str(status) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn text(content: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}
