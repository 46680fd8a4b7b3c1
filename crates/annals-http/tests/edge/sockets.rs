//! Real sockets: both versions of HTTP, limits, compression, an end in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annals_http::serve::{App, serve};
use annals_http::settings::TlsFiles;
use annals_http::{Listener, Settings};
use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::harness::{Bank, ID};

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn running(bank: &Bank, settings: Settings) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let app = App::public(&bank.edge, &settings);
    let stopped = stop.clone();
    #[allow(clippy::disallowed_methods, reason = "the test awaits it")]
    let task = tokio::spawn(async move { serve(listener, app, &settings, "public", stopped).await.unwrap() });
    Running { address, stop, task }
}

/// Sends bytes and reads until the other side closes.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_on_one_port() {
    let bank = Bank::new();
    let running = running(&bank, Settings::default()).await;
    let target = format!("/v1/accounts/{ID}/close");
    let token = bank.token("ada", "teller");
    let one = raw(
        running.address,
        &format!("POST {target} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\nidempotency-key: k\r\nconnection: close\r\n\r\n"),
    )
    .await;
    assert!(one.starts_with("HTTP/1.1 201 "), "{one}");
    assert!(one.contains("x-content-type-options: nosniff"), "{one}");

    let socket = TcpStream::connect(running.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(socket),
    )
    .await
    .unwrap();
    #[allow(clippy::disallowed_methods, reason = "it ends with its sender")]
    let driver = tokio::spawn(connection);
    let request = Request::post(format!("http://x{target}"))
        .version(Version::HTTP_2)
        .header("authorization", &token)
        .header("idempotency-key", "k")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let got = sender.send_request(request).await.unwrap();
    assert_eq!((got.status().as_u16(), got.version()), (201, Version::HTTP_2));
    drop(sender);
    driver.await.unwrap().unwrap();
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn large_answers_are_compressed_and_small_ones_are_not() {
    let bank = Bank::new();
    let running = running(&bank, Settings::default()).await;
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n")
    };
    let large = raw(running.address, &get("/v1/openapi.json")).await;
    assert!(large.contains("content-encoding: gzip"), "{}", &large[..300]);
    let small = raw(running.address, &get("/v1/accounts")).await;
    assert!(
        small.starts_with("HTTP/1.1 401 ") && !small.contains("content-encoding"),
        "{small}"
    );
    let plain = raw(running.address, &get("/v1/openapi.json").replace("gzip", "br")).await;
    assert!(plain.contains("vary: accept-encoding") && !plain.contains("content-encoding"));
    let none = get("/v1/accounts").replace("gzip", "identity;q=0");
    let none = raw(running.address, &none).await;
    assert!(
        none.starts_with("HTTP/1.1 406 "),
        "RFC 9110, section 12.5.3: {none}"
    );
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn origins_are_answered_only_if_configured() {
    let bank = Bank::new();
    let preflight = "OPTIONS /v1/accounts HTTP/1.1\r\nhost: x\r\norigin: https://shop.example\r\n\
        access-control-request-method: GET\r\nconnection: close\r\n\r\n";
    let off = running(&bank, Settings::default()).await;
    let answer = raw(off.address, preflight).await;
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && !answer.contains("access-control"),
        "{answer}"
    );
    let origins = vec!["https://shop.example".to_owned()];
    let on = running(
        &bank,
        Settings {
            cors_origins: origins,
            ..Settings::default()
        },
    )
    .await;
    let answer = raw(on.address, preflight).await;
    assert!(
        answer.contains("access-control-allow-origin: https://shop.example"),
        "{answer}"
    );
    let other = raw(on.address, &preflight.replace("shop", "evil")).await;
    assert!(!other.contains("access-control-allow-origin"), "{other}");
    for running in [off, on] {
        running.stop.cancel();
        running.task.await.unwrap();
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let bank = Bank::new();
    let running = running(
        &bank,
        Settings {
            request_ms: 100,
            ..Settings::default()
        },
    )
    .await;
    for beginning in ["GET /v1/acc", "", "P"] {
        let answer = tokio::time::timeout(Duration::from_secs(10), raw(running.address, beginning)).await;
        assert!(answer.is_ok(), "{beginning:?} keeps the connection");
    }
    running.stop.cancel();
    running.task.await.unwrap();
}

/// Sends requests and, once they are answered, the beginning of another; how long the connection stays then.
async fn stays(address: SocketAddr, requests: &str, beginning: &str) -> Duration {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(requests.as_bytes()).await.unwrap();
    assert!(socket.read(&mut [0; 4_096]).await.unwrap() > 0, "it is answered");
    let began = tokio::time::Instant::now();
    socket.write_all(beginning.as_bytes()).await.unwrap();
    socket.read_to_end(&mut Vec::new()).await.unwrap();
    began.elapsed()
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_more_is_closed_and_not_too_early() {
    let bank = Bank::new();
    let settings = Settings {
        request_ms: 100,
        ..Settings::default()
    };
    let running = running(&bank, settings).await;
    let request = "GET /problems/rejected HTTP/1.1\r\nhost: x\r\n\r\n";
    for beginning in ["", "GET /v1/acc"] {
        let stays = tokio::time::timeout(
            Duration::from_secs(20),
            stays(running.address, request, beginning),
        );
        let stays = stays.await.unwrap();
        assert!(stays >= Duration::from_millis(590), "{beginning:?}: {stays:?}");
    }
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn a_quiet_stream_is_not_idle() {
    let bank = Bank::new();
    bank.follows(|_, _, _| {
        let late = futures_util::stream::once(async {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            crate::live::event("{\"key\":\"late\"}")
        });
        Ok(crate::live::live(late))
    });
    let settings = Settings {
        request_ms: 100,
        ..Settings::default()
    };
    let running = running(&bank, settings).await;
    let token = bank.token("ada", "teller");
    let request = format!(
        "GET /v1/accounts HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\naccept: text/event-stream\r\n\r\n"
    );
    let mut socket = TcpStream::connect(running.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("late") {
        assert_ne!(
            socket.read_buf(&mut seen).await.unwrap(),
            0,
            "{}",
            String::from_utf8_lossy(&seen)
        );
    }
    drop(socket);
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn more_connections_than_allowed_wait() {
    let bank = Bank::new();
    let running = running(
        &bank,
        Settings {
            connections: 1,
            ..Settings::default()
        },
    )
    .await;
    let mut first = TcpStream::connect(running.address).await.unwrap();
    first
        .write_all(b"GET /problems/rejected HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(first.read(&mut [0; 64]).await.unwrap() > 0, "the first is served");
    let request = "GET /problems/rejected HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let second = raw(running.address, request);
    tokio::pin!(second);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), second.as_mut())
            .await
            .is_err()
    );
    drop(first);
    assert!(second.await.starts_with("HTTP/1.1 200 "));
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn a_shutdown_lets_idle_connections_go_at_once() {
    let bank = Bank::new();
    let running = running(&bank, Settings::default()).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /problems/rejected HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(idle.read(&mut [0; 4_096]).await.unwrap() > 0);
    running.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), running.task)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

/// A certificate for `localhost` that signs itself; it guards nothing.
const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/edge/tls/cert.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/edge/tls/key.pem");

#[tokio::test]
async fn tls_offers_both_versions() {
    let bank = Bank::new();
    let tls = TlsFiles {
        certificates: CERTIFICATE.into(),
        key: KEY.into(),
    };
    let running = running(
        &bank,
        Settings {
            tls: Some(tls),
            ..Settings::default()
        },
    )
    .await;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(CERTIFICATE).unwrap())
        .unwrap();
    for version in [&b"h2"[..], b"http/1.1"] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![version.to_vec()];
        let socket = TcpStream::connect(running.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector
            .connect("localhost".try_into().unwrap(), socket)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(version));
        if version == b"http/1.1" {
            let request = "GET /problems/rejected HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
    }
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn tls_without_its_files_is_an_error_that_names_them() {
    let bank = Bank::new();
    for (certificates, key) in [("/none.pem", KEY), (CERTIFICATE, "/none.pem"), (KEY, KEY)] {
        let tls = TlsFiles {
            certificates: certificates.into(),
            key: key.into(),
        };
        let settings = Settings {
            tls: Some(tls),
            ..Settings::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let router = bank.edge.router(Listener::Public);
        let error = serve(listener, router, &settings, "public", CancellationToken::new())
            .await
            .unwrap_err();
        assert!(error.to_string().starts_with("http.tls"), "{error}");
    }
}

/// Live changes without an end, in large pieces; tells when nobody follows them any more.
fn endless(bank: &Bank) -> Arc<()> {
    let held = Arc::new(());
    let given = Arc::clone(&held);
    bank.follows(move |_, _, _| {
        let given = Arc::clone(&given);
        let events = futures_util::stream::repeat_with(move || {
            let _given = &given;
            crate::live::event(&format!("{{\"key\":\"{}\"}}", "x".repeat(100_000)))
        });
        Ok(crate::live::live(events))
    });
    held
}

#[tokio::test]
async fn whoever_takes_nothing_is_cut() {
    let bank = Bank::new();
    let held = endless(&bank);
    let settings = Settings {
        request_ms: 300,
        ..Settings::default()
    };
    let running = running(&bank, settings).await;
    let mut socket = TcpStream::connect(running.address).await.unwrap();
    let token = bank.token("ada", "teller");
    let request = format!(
        "GET /v1/accounts HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\naccept: text/event-stream\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    // One is here, one in the bank, one with the connection, which goes with it.
    let cut = async {
        let mut begun = false;
        loop {
            let count = Arc::strong_count(&held);
            begun |= count > 2;
            if begun && count == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), cut).await.unwrap();
    running.stop.cancel();
    running.task.await.unwrap();
}

#[tokio::test]
async fn live_changes_end_with_the_listener_and_say_so() {
    let bank = Bank::new();
    bank.follows(|_, _, _| Ok(crate::live::live(futures_util::stream::pending())));
    let running = running(&bank, Settings::default()).await;
    let mut socket = TcpStream::connect(running.address).await.unwrap();
    let token = bank.token("ada", "teller");
    let request = format!(
        "GET /v1/accounts HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\naccept: text/event-stream\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("retry: 1000") {
        assert_ne!(socket.read_buf(&mut seen).await.unwrap(), 0);
    }
    running.stop.cancel();
    // Long before connections are cut.
    let ending = async {
        socket.read_to_end(&mut seen).await.unwrap();
        running.task.await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(5), ending)
        .await
        .unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(
        seen.contains("event: end\ndata: {") && seen.contains("\"code\":\"overloaded\""),
        "{seen}"
    );
}
