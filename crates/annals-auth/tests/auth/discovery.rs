//! An issuer's keys by discovery, against a small issuer on a real socket.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use annals_auth::token::{KeySource, Settings};
use annals_auth::{TokenError, TokenVerifier};
use annals_domain::Ambient;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::forge::{AUDIENCE, Forge, claims_with, clock, jwks};

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

#[derive(Default)]
struct Pages {
    /// Status line's number and body.
    pages: HashMap<String, (u16, String)>,
    asked: Vec<String>,
}

struct Issuer {
    url: String,
    pages: Arc<Mutex<Pages>>,
    _server: JoinSet<()>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pages = Arc::new(Mutex::new(Pages::default()));
        let mut server = JoinSet::new();
        let of_server = pages.clone();
        server.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                answer(stream, &of_server).await;
            }
        });
        let issuer = Self {
            url: url.clone(),
            pages,
            _server: server,
        };
        issuer.serve(
            WELL_KNOWN,
            &json!({"issuer": url, "jwks_uri": format!("{url}/keys")}),
        );
        issuer
    }

    fn serve(&self, path: &str, json: &Value) {
        self.serve_raw(path, 200, json.to_string());
    }
    fn serve_raw(&self, path: &str, status: u16, body: String) {
        let mut pages = self.pages.lock().unwrap();
        pages.pages.insert(path.to_owned(), (status, body));
    }
    fn asked(&self) -> usize {
        self.pages.lock().unwrap().asked.len()
    }
    fn verifier(&self, ambient: Ambient) -> TokenVerifier {
        TokenVerifier::new(
            Settings::new(KeySource::Issuer(self.url.clone()), AUDIENCE),
            ambient,
        )
        .unwrap()
    }
    fn token(&self, forge: &Forge) -> String {
        forge.token(&claims_with(json!({"iss": self.url})))
    }
}

async fn answer(mut stream: TcpStream, pages: &Mutex<Pages>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_err() {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let (status, body) = {
        let mut pages = pages.lock().unwrap();
        pages.asked.push(path.clone());
        pages.pages.get(&path).cloned().unwrap_or((404, String::new()))
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // A client that has read enough may be gone.
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn keys_are_discovered_once_and_renewed_for_unknown_ones_at_most_every_half_minute() {
    let (old, new) = (Forge::ed("old"), Forge::ec("new"));
    let issuer = Issuer::start().await;
    issuer.serve("/keys", &jwks(&[&old]));
    let (ambient, time) = clock();
    let verifier = issuer.verifier(ambient);
    verifier.verify(&issuer.token(&old)).await.unwrap();
    assert_eq!(issuer.asked(), 2);
    verifier
        .verify(&old.token(&claims_with(json!({"iss": issuer.url, "sub": "bob"}))))
        .await
        .unwrap();
    assert_eq!(issuer.asked(), 2, "keys are cached");
    issuer.serve("/keys", &jwks(&[&old, &new]));
    for _ in 0..20 {
        let stranger = Forge::ed("never");
        assert_eq!(
            verifier.verify(&issuer.token(&stranger)).await.unwrap_err(),
            TokenError::UnknownKey
        );
        assert_eq!(
            verifier.verify(&issuer.token(&new)).await.unwrap_err(),
            TokenError::UnknownKey
        );
    }
    assert_eq!(issuer.asked(), 2, "strangers cannot make us ask");
    time.advance_ms(30_000);
    verifier.verify(&issuer.token(&new)).await.unwrap();
    assert_eq!(issuer.asked(), 4);
    assert_eq!(
        verifier
            .verify(&new.token(&claims_with(json!({}))))
            .await
            .unwrap_err(),
        TokenError::Issuer
    );
}

#[tokio::test]
async fn a_crowd_at_the_start_asks_once() {
    let forge = Forge::ed("a");
    let issuer = Issuer::start().await;
    issuer.serve("/keys", &jwks(&[&forge]));
    let verifier = Arc::new(issuer.verifier(clock().0));
    let mut crowd = JoinSet::new();
    for n in 0..20 {
        let token = forge.token(&claims_with(json!({"iss": issuer.url, "sub": format!("c{n}")})));
        let verifier = verifier.clone();
        crowd.spawn(async move { verifier.verify(&token).await.map(drop) });
    }
    assert!(crowd.join_all().await.into_iter().all(|one| one == Ok(())));
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn an_issuer_that_answers_wrongly_gives_no_keys_and_its_tokens_wait() {
    let forge = Forge::ed("a");
    let good = jwks(&[&forge]).to_string();
    for (why, path, status, body) in [
        (
            "another issuer",
            WELL_KNOWN,
            200,
            json!({"issuer": "https://evil.example", "jwks_uri": "https://evil.example/k"}).to_string(),
        ),
        (
            "keys without TLS",
            WELL_KNOWN,
            200,
            "{\"issuer\": \"ISSUER\", \"jwks_uri\": \"http://evil.example/k\"}".to_owned(),
        ),
        (
            "no keys named",
            WELL_KNOWN,
            200,
            "{\"issuer\": \"ISSUER\"}".to_owned(),
        ),
        ("a redirect", "/keys", 302, String::new()),
        ("an error", "/keys", 500, good.clone()),
        ("no JSON", "/keys", 200, "keys".to_owned()),
        (
            "too large",
            "/keys",
            200,
            format!("{}{good}", " ".repeat(300_000)),
        ),
        (
            "too many keys",
            "/keys",
            200,
            json!({"keys": vec![forge.jwk(); 65]}).to_string(),
        ),
    ] {
        let issuer = Issuer::start().await;
        issuer.serve("/elsewhere", &jwks(&[&forge]));
        issuer.serve("/keys", &jwks(&[&forge]));
        issuer.serve_raw(path, status, body.replace("ISSUER", &issuer.url));
        let (ambient, time) = clock();
        let verifier = issuer.verifier(ambient);
        assert!(verifier.refresh().await.is_err(), "{why}");
        let token = issuer.token(&forge);
        assert_eq!(
            verifier.verify(&token).await.unwrap_err(),
            TokenError::KeysUnavailable,
            "{why}"
        );
        // And when it answers rightly again, all is well.
        issuer.serve(
            WELL_KNOWN,
            &json!({"issuer": issuer.url, "jwks_uri": format!("{}/keys", issuer.url)}),
        );
        issuer.serve_raw("/keys", 200, good.clone());
        time.advance_ms(1_000);
        assert!(verifier.verify(&token).await.is_ok(), "{why}");
    }
}

#[test]
fn settings_that_cannot_be_safe_are_refused() {
    let wrong = |change: fn(&mut Settings)| {
        let mut settings = Settings::new(KeySource::File("x".into()), AUDIENCE);
        change(&mut settings);
        settings.validate().unwrap_err()
    };
    assert!(wrong(|s| s.keys = KeySource::Issuer("http://id.example".to_owned())).contains("https"));
    assert!(wrong(|s| s.keys = KeySource::Issuer("id".to_owned())).contains("auth.issuer"));
    assert!(wrong(|s| s.audience.clear()).contains("audience"));
    assert!(wrong(|s| s.algorithms.clear()).contains("algorithms"));
    assert!(wrong(|s| s.roles_claim = "roles".to_owned()).contains("roles_claim"));
    assert!(wrong(|s| s.leeway_s = 61).contains("leeway"));
}
