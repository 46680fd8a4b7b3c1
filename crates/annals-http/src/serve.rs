//! Sockets: HTTP/1.1 and HTTP/2 on one listener, with or without TLS, within limits, and an end in order.
//!
//! Plain listeners take HTTP/2 with prior knowledge (h2c), TLS ones by ALPN. A connection that does not send its
//! head in time is closed, and so is one that takes nothing of what is written for as long, or that asks for nothing for
//! long. On shutdown no connection is taken any more, those that are open finish what they are doing, and what is left
//! after [`GRACE`] is cut.

mod pulse;
mod stall;
mod tls;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use annals_auth::LastToken;
use axum::Router;
use axum::body::Body;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::body::Outbound;
use crate::edge::{Edge, Listener};
use crate::metrics::CONNECTIONS;
use crate::settings::Settings;
use pulse::Pulse;
use stall::Stall;

pub use tls::TlsError;

/// How long open connections may go on after a shutdown began.
pub const GRACE: Duration = Duration::from_secs(8);
/// How long the pause is after a connection could not be accepted: too many open files, mostly.
const PAUSE: Duration = Duration::from_millis(50);
/// Answers above this are compressed, bytes.
const COMPRESSED_ABOVE: u64 = 1_024;
/// A connection may be idle so many times as long as a request may take, and up to once more.
const IDLE_FACTOR: u32 = 6;
/// The most streams of one HTTP/2 connection.
const STREAMS: u32 = 256;

/// What a listener serves: an edge, or any other router. Cheap to clone.
#[derive(Clone)]
pub struct App(Kind);

#[derive(Clone)]
enum Kind {
    /// An edge whose answers are compressed. No router and no layer is between a connection and it.
    Public(Edge),
    Router(Router),
}

impl App {
    /// An edge as clients see it: with compression, and CORS where it is configured.
    #[must_use]
    pub fn public(edge: &Edge, settings: &Settings) -> Self {
        Self(match cors(&settings.cors_origins) {
            Some(cors) => {
                let compression = CompressionLayer::new().compress_when(compressed());
                let router = edge.router(Listener::Public);
                Kind::Router(router.layer(compression).layer(cors))
            }
            None => Kind::Public(edge.clone()),
        })
    }

    async fn call(
        self,
        shutdown: Shutdown,
        last: Arc<LastToken>,
        mut request: Request<Incoming>,
    ) -> Response<Outbound> {
        // Only what is read may go on for ever.
        if request.method() != Method::POST {
            request.extensions_mut().insert(shutdown);
        }
        match self.0 {
            Kind::Public(edge) => {
                let accepted = Accepted::of(request.headers());
                let request = request.map(Either::Left);
                let response = edge.serve(Listener::Public, request, Some(&last)).await;
                match accepted.is_odd() || compressed().should_compress(&response) {
                    true => Box::pin(accepted.compress(response)).await,
                    false => response,
                }
            }
            Kind::Router(router) => {
                let Ok(response) = Box::pin(router.oneshot(request.map(Body::new))).await;
                response.map(Either::Right)
            }
        }
    }
}

impl From<Router> for App {
    fn from(router: Router) -> Self {
        Self(Kind::Router(router))
    }
}

/// Which answers are compressed.
fn compressed() -> impl Predicate {
    // A stream of lines must not wait in a compressor's buffer.
    SizeAbove::new(COMPRESSED_ABOVE)
        .and(NotForContentType::const_new(crate::batch::NDJSON))
        .and(NotForContentType::const_new(crate::live::EVENT_STREAM))
}

/// What a request says of encodings: all of its `Accept-Encoding`.
struct Accepted(HeaderMap);

impl Accepted {
    fn of(headers: &HeaderMap) -> Self {
        let mut accepted = HeaderMap::new();
        for value in headers.get_all(ACCEPT_ENCODING) {
            accepted.append(ACCEPT_ENCODING, value.clone());
        }
        Self(accepted)
    }

    /// Whether it weighs encodings, so that it may refuse even the plain form: then the layer judges answers of any
    /// size.
    fn is_odd(&self) -> bool {
        self.0.values().any(|value| value.as_bytes().contains(&b';'))
    }

    /// Sends an answer through the compression layer.
    async fn compress(self, response: Response<Outbound>) -> Response<Outbound> {
        let mut response = Some(response);
        let answer = move |_: Request<()>| {
            let response = response.take().expect("one request is answered once");
            std::future::ready(Ok::<_, Infallible>(response))
        };
        let layer = CompressionLayer::new().compress_when(compressed());
        let mut request = Request::new(());
        *request.headers_mut() = self.0;
        let Ok(response) = layer.layer(tower::service_fn(answer)).oneshot(request).await;
        response.map(|body| Either::Right(Body::new(body)))
    }
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let origins = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    };
    let names = |names: &[&'static str]| {
        names
            .iter()
            .map(|name| HeaderName::from_static(name))
            .collect::<Vec<_>>()
    };
    let sent = names(&[
        "accept",
        "annals-after",
        "annals-metadata",
        "authorization",
        "content-type",
        "correlation-id",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
        "prefer",
        "traceparent",
    ]);
    let seen = names(&[
        "annals-lag-ms",
        "annals-parked",
        "annals-position",
        "annals-version",
        "correlation-id",
        "etag",
        "idempotent-replayed",
        "link",
        "location",
        "preference-applied",
        "ratelimit",
        "ratelimit-policy",
        "retry-after",
        "traceparent",
        "www-authenticate",
    ]);
    let methods = [http::Method::GET, http::Method::HEAD, http::Method::POST];
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(methods)
        .allow_headers(sent);
    Some(layer.expose_headers(seen).max_age(Duration::from_secs(600)))
}

/// Serves an app until `shutdown`, then ends within [`GRACE`]. `name` is the listener's, for metrics.
///
/// # Errors
/// [`TlsError`] if certificate or key cannot be used; afterwards nothing ends it but `shutdown`.
pub async fn serve(
    listener: TcpListener,
    app: impl Into<App>,
    settings: &Settings,
    name: &'static str,
    shutdown: CancellationToken,
) -> Result<(), TlsError> {
    let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
    let server = Arc::new(Server {
        builder: builder(settings),
        app: app.into(),
        tls,
        head_time: Duration::from_millis(settings.request_ms),
        shutdown: shutdown.clone(),
        name,
    });
    let places = Arc::new(Semaphore::new(settings.connections));
    let mut connections = JoinSet::new();
    loop {
        // A place first: a connection that nobody could serve stays in the kernel's queue.
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            place = Arc::clone(&places).acquire_owned() => match place {
                Ok(place) => place,
                Err(_) => break,
            },
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                connections.spawn(Arc::clone(&server).connection(socket, place));
            }
            Err(error) => {
                tracing::warn!(%error, listener = name, "a connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    // Every connection knows of the shutdown, and ends itself once the grace is over.
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn builder(settings: &Settings) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let time = Duration::from_millis(settings.request_ms);
    // Above our own limit, so that it is us who answer 431 with a problem document; hyper's own bound is its cut.
    let cut = settings.header_bytes.saturating_mul(4).max(64 << 10);
    // How long heads may take is [`Pulse`]'s to judge: hyper would set a timer for each.
    builder.http1().header_read_timeout(None).max_buf_size(cut);
    let list = u32::try_from(cut).unwrap_or(u32::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(list)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(time);
    builder
}

/// Among the extensions of each request that is no `POST`: when the listener ends. What would go on for ever ends itself then.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(pub(crate) CancellationToken);

struct Server {
    builder: Builder<TokioExecutor>,
    app: App,
    tls: Option<tokio_rustls::TlsAcceptor>,
    head_time: Duration,
    shutdown: CancellationToken,
    name: &'static str,
}

impl Server {
    async fn connection(self: Arc<Self>, socket: TcpStream, place: OwnedSemaphorePermit) {
        let _place = place;
        let gauge = metrics::gauge!(CONNECTIONS, "listener" => self.name);
        gauge.increment(1.0);
        // Answers are small, and wait for nothing.
        let _ = socket.set_nodelay(true);
        let ended = match &self.tls {
            None => self.http(socket).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(self.head_time, tls.accept(socket)).await;
                match handshake.map_err(io::Error::other) {
                    Ok(Ok(stream)) => self.http(stream).await,
                    Ok(Err(error)) | Err(error) => Err(error.into()),
                }
            }
        };
        gauge.decrement(1.0);
        if let Err(error) = ended {
            tracing::debug!(%error, listener = self.name, "a connection ended early");
        }
    }

    async fn http<S>(&self, stream: S) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let pulse = Arc::new(Pulse::default());
        let app = self.app.clone();
        let shutdown = Shutdown(self.shutdown.clone());
        let (counted, last) = (Arc::clone(&pulse), Arc::new(LastToken::default()));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let open = counted.begin(request.version());
            let (app, shutdown, last) = (app.clone(), shutdown.clone(), Arc::clone(&last));
            async move {
                let response = app.call(shutdown, last, request).await;
                Ok::<_, Infallible>(response.map(|body| open.until_end_of(body)))
            }
        });
        let stream = Stall::new(stream, self.head_time);
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let silence = pulse.silence(self.head_time, IDLE_FACTOR);
        tokio::pin!(silence);
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = self.shutdown.cancelled() => {}
            () = silence => return Ok(()),
        }
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = tokio::time::timeout(GRACE, connection).await {
            return ended;
        }
        tracing::warn!(
            listener = self.name,
            "a connection is cut: it did not end in time"
        );
        Ok(())
    }
}
