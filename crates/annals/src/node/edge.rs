//! The listeners: clients', operations', other nodes'; and whether the node is ready.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annals_audit::Audit;
use annals_auth::token::{self, KeySource, SigningAlgorithm};
use annals_auth::{Policies, PolicyTable, SecurityLog, Surface, TokenVerifier};
use annals_client::Peers;
use annals_http::operations::{self, Operations};
use annals_http::ports::PeerError;
use annals_http::{Edge, Engine, Listener, Node, serve, settings::TlsFiles};
use annals_log::metrics::Invariant;
use annals_query::Queries;
use annals_query::resource::definitions;
use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::net::TcpListener;

use crate::config::{ConfigError, Settings};
use crate::node::Parts;
use crate::node::admin::NodeAdmin;
use crate::node::command::CommandPart;
use crate::node::readiness::Ready;
use crate::node::tasks::{Phase, Tasks};
use crate::telemetry;

/// How often the issuer's keys are read again.
const REFRESH_KEYS: Duration = Duration::from_secs(60);
/// How often the recorder of metrics tidies up.
const UPKEEP: Duration = Duration::from_secs(5);

/// The parts that the edge serves.
pub(crate) struct Served {
    pub(crate) commands: Option<CommandPart>,
    pub(crate) reads: Option<Arc<Queries>>,
    pub(crate) audits: Option<Arc<Audit>>,
}

/// Sockets that listen already.
pub(crate) struct Listeners {
    pub(crate) public: TcpListener,
    pub(crate) ops: TcpListener,
    pub(crate) internal: TcpListener,
}

/// What was started.
pub(crate) struct Started {
    pub(crate) public: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) ready: Ready,
}

/// Puts the edge together and opens the listeners.
pub(crate) async fn start(
    parts: &Parts,
    served: Served,
    listeners: Listeners,
    tasks: &mut Tasks,
) -> anyhow::Result<Started> {
    let settings = http_settings(&parts.settings)?;
    let tokens = Arc::new(tokens(parts)?);
    tokens
        .refresh()
        .await
        .context("the issuer's keys cannot be read")?;
    let commands = served.commands.as_ref().map(|part| part.commands.clone());
    let ready = Ready::start(parts, commands, tasks).await?;
    let engine = served.commands.map(|part| Engine {
        commands: Arc::new(part.commands),
        sealer: part.sealer,
    });
    let peers = Peers::new(Duration::from_millis(parts.settings.http.request_ms))?;
    let edge = Edge::new(annals_http::Parts {
        settings: settings.clone(),
        catalog: parts.catalog.clone(),
        tokens: Arc::clone(&tokens),
        policies: Arc::new(policies(parts)?),
        security: Arc::new(SecurityLog::new(parts.ambient.clone())),
        ambient: parts.ambient.clone(),
        commands: engine,
        definitions: parts
            .projections
            .iter()
            .flat_map(|manifest| definitions(manifest))
            .map(Arc::new)
            .collect(),
        reads: served
            .reads
            .map(|queries| -> Arc<dyn annals_http::Reads> { queries }),
        audits: served
            .audits
            .map(|audit| -> Arc<dyn annals_http::ports::Audits> { audit }),
        node: Some(Node {
            id: parts.id.as_str().into(),
            key: Arc::clone(&parts.keys.node),
            peers: Arc::new(NodePeers(peers)),
        }),
    });
    let started = Started {
        public: listeners.public.local_addr()?,
        ops: listeners.ops.local_addr()?,
        ready: ready.clone(),
    };
    let metrics = telemetry::recorder()?;
    Invariant::show_all();
    let upkeep = metrics.clone();
    let operations = Operations {
        readiness: Arc::new(move || {
            let now = ready.now();
            Box::pin(async move { now })
        }),
        metrics: Arc::new(move || metrics.render()),
        admin: Arc::new(NodeAdmin::new(parts).await?),
    };
    let public = serve::App::public(&edge, &settings);
    let plain = annals_http::Settings {
        tls: None,
        ..settings.clone()
    };
    listen(tasks, Phase::Edge, "public", listeners.public, public, settings);
    // Other nodes' commands and operators' questions are answered until the work ends.
    listen(
        tasks,
        Phase::Work,
        "internal",
        listeners.internal,
        edge.router(Listener::Internal),
        plain.clone(),
    );
    listen(
        tasks,
        Phase::Work,
        "ops",
        listeners.ops,
        operations::router(&edge, operations),
        plain,
    );
    every(tasks, "keys", REFRESH_KEYS, move || {
        let tokens = Arc::clone(&tokens);
        async move {
            if let Err(error) = tokens.refresh().await {
                tracing::warn!(%error, "the issuer's keys cannot be read again; the known ones stay in use");
            }
        }
    });
    every(tasks, "metrics", UPKEEP, move || {
        upkeep.run_upkeep();
        std::future::ready(())
    });
    Ok(started)
}

fn listen(
    tasks: &mut Tasks,
    phase: Phase,
    name: &'static str,
    listener: TcpListener,
    app: impl Into<serve::App>,
    settings: annals_http::Settings,
) {
    let (shutdown, app) = (tasks.token(phase), app.into());
    tasks.spawn(phase, name, async move {
        if let Err(error) = serve::serve(listener, app, &settings, name, shutdown).await {
            tracing::error!(%error, listener = name, "a listener cannot serve");
        }
    });
}

fn every<F: Future<Output = ()> + Send + 'static>(
    tasks: &mut Tasks,
    name: &'static str,
    period: Duration,
    mut run: impl FnMut() -> F + Send + 'static,
) {
    let stop = tasks.token(Phase::Work);
    tasks.spawn(Phase::Work, name, async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(period) => run().await,
            }
        }
    });
}

fn http_settings(settings: &Settings) -> Result<annals_http::Settings, ConfigError> {
    let http = &settings.http;
    let tls = match (&http.tls_certificate_file, &http.tls_key_file) {
        (Some(certificates), Some(key)) => Some(TlsFiles {
            certificates: certificates.clone(),
            key: key.clone(),
        }),
        (None, None) => None,
        _ => {
            let what = "http.tls_certificate_file and http.tls_key_file belong together";
            return Err(ConfigError(what.to_owned()));
        }
    };
    let edge = annals_http::Settings {
        body_bytes: http.body_bytes.usize(),
        json_depth: http.json_depth,
        header_bytes: http.header_bytes.usize(),
        request_ms: http.request_ms,
        deadline_ms: settings.command.deadline_ms,
        connections: http.connections,
        cors_origins: http.cors_origins.clone(),
        tls,
        live_heartbeat_ms: settings.query.live_heartbeat_ms,
        access_log: settings.telemetry.access_log,
        ..annals_http::Settings::default()
    };
    edge.validate().map_err(ConfigError)?;
    Ok(edge)
}

fn tokens(parts: &Parts) -> Result<TokenVerifier, ConfigError> {
    let auth = &parts.settings.auth;
    let keys = match (&auth.jwks_file, &auth.issuer) {
        (Some(file), _) => KeySource::File(file.clone()),
        (None, Some(issuer)) => KeySource::Issuer(issuer.clone()),
        (None, None) => {
            return Err(ConfigError(
                "no issuer of tokens: set auth.issuer (a URL with discovery) or auth.jwks_file (its public keys)".to_owned(),
            ));
        }
    };
    let mut settings = token::Settings::new(keys, &auth.audience);
    settings.issuer.clone_from(&auth.issuer);
    settings.roles_claim.clone_from(&auth.roles_claim);
    settings.owner_claim.clone_from(&auth.owner_claim);
    settings.algorithms = auth
        .algorithms
        .iter()
        .map(|name| algorithm(name))
        .collect::<Result<_, _>>()?;
    TokenVerifier::new(settings, parts.ambient.clone()).map_err(ConfigError)
}

fn algorithm(name: &str) -> Result<SigningAlgorithm, ConfigError> {
    match name {
        "EdDSA" => Ok(SigningAlgorithm::EdDsa),
        "ES256" => Ok(SigningAlgorithm::Es256),
        "RS256" => Ok(SigningAlgorithm::Rs256),
        other => Err(ConfigError(format!(
            "auth.algorithms: `{other}` is none of EdDSA, ES256, RS256"
        ))),
    }
}

fn policies(parts: &Parts) -> Result<PolicyTable, ConfigError> {
    let dir = &parts.settings.auth.policies;
    let wrong =
        |error: &dyn std::fmt::Display| ConfigError(format!("auth.policies: {}: {error}", dir.display()));
    let policies = Policies::from_dir(dir).map_err(|error| wrong(&error))?;
    let reads = parts
        .projections
        .resources()
        .map(|(_, resource)| resource.name.as_str());
    let surface = Surface::new(&parts.catalog, reads);
    PolicyTable::build(&policies, &surface).map_err(|error| wrong(&error))
}

/// Other nodes, as the edge calls them.
struct NodePeers(Peers);

impl annals_http::Peers for NodePeers {
    fn call(&self, url: &str, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, PeerError>> {
        let url = url.to_owned();
        Box::pin(async move {
            self.0
                .call(&url, request)
                .await
                .map_err(|error| match error.is_not_sent() {
                    true => PeerError::NotSent,
                    false => PeerError::Unknown,
                })
        })
    }
}
