//! Tokens from clients, of the development issuer, and of nodes.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use annals_auth::token::{KeySource, Settings, SigningAlgorithm};
use annals_auth::{DevIssuer, Grant, LastToken, NodeKey, TokenError, TokenVerifier, issuer, node};
use annals_domain::Ambient;
use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::forge::{AUDIENCE, Forge, NOW_S, b64, claims, claims_with, clock, jwks, message};

struct Keys {
    dir: TempDir,
}

impl Keys {
    fn of(json: &Value) -> Self {
        let keys = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        keys.write(json);
        keys
    }
    fn path(&self) -> PathBuf {
        self.dir.path().join("jwks.json")
    }
    fn write(&self, json: &Value) {
        std::fs::write(self.path(), json.to_string()).unwrap();
    }
    fn settings(&self) -> Settings {
        let mut settings = Settings::new(KeySource::File(self.path()), AUDIENCE);
        settings.issuer = Some("https://id.example".to_owned());
        settings
    }
    fn verifier(&self, ambient: Ambient) -> TokenVerifier {
        TokenVerifier::new(self.settings(), ambient).unwrap()
    }
}

#[tokio::test]
async fn a_good_token_of_each_algorithm_gives_its_caller() {
    let forges = [Forge::ed("a"), Forge::ec("b"), Forge::rsa("c")];
    let keys = Keys::of(&jwks(&[&forges[0], &forges[1], &forges[2]]));
    let verifier = keys.verifier(clock().0);
    for forge in &forges {
        let token = forge.token(&claims_with(json!({"roles": ["clerk", "auditor", "clerk"]})));
        assert!(verifier.cached(&token).is_none());
        let identity = verifier.verify(&token).await.unwrap();
        assert_eq!(&*identity.caller.sub, "ada");
        assert_eq!(identity.caller.owner.as_deref(), Some("ada"));
        let roles: Vec<_> = identity.caller.roles.iter().map(|role| &**role).collect();
        assert_eq!(roles, ["auditor", "clerk"]);
        assert_eq!(identity.expires_ms, (NOW_S + 600 + 5) * 1000);
        assert_eq!(verifier.cached(&token), Some(identity));
    }
    // Without a key id, the only key of the algorithm is meant.
    let token = forges[0].token_with(&json!({"alg": "EdDSA"}), &claims());
    assert!(verifier.verify(&token).await.is_ok());
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused_each_for_its_reason() {
    let forge = Forge::ed("a");
    let keys = Keys::of(&jwks(&[&forge]));
    let verifier = keys.verifier(clock().0);
    let many: Vec<_> = (0..33).map(|n| format!("role{n}")).collect();
    for (changes, expected) in [
        (json!({"exp": NOW_S - 5}), Err(TokenError::Expired)),
        (json!({"exp": NOW_S - 4}), Ok(())),
        (json!({"exp": NOW_S as f64 + 0.5}), Ok(())),
        (json!({"exp": null}), Err(TokenError::Expired)),
        (json!({"exp": "soon"}), Err(TokenError::Expired)),
        (json!({"exp": i64::MAX}), Err(TokenError::Expired)),
        (json!({"nbf": NOW_S + 5}), Ok(())),
        (json!({"nbf": NOW_S + 6}), Err(TokenError::NotYetValid)),
        (json!({"nbf": "soon"}), Err(TokenError::Claims)),
        (json!({"iss": "https://evil.example"}), Err(TokenError::Issuer)),
        (json!({"iss": ["https://id.example"]}), Err(TokenError::Issuer)),
        (json!({"iss": null}), Err(TokenError::Issuer)),
        (json!({"aud": "other"}), Err(TokenError::Audience)),
        (json!({"aud": null}), Err(TokenError::Audience)),
        (json!({"aud": []}), Err(TokenError::Audience)),
        (json!({"aud": ["other", AUDIENCE]}), Ok(())),
        (json!({"sub": null}), Err(TokenError::Claims)),
        (json!({"sub": ""}), Err(TokenError::Claims)),
        (json!({"sub": 7}), Err(TokenError::Claims)),
        (json!({"sub": "a\u{0}place"}), Err(TokenError::Claims)),
        (json!({"sub": "x".repeat(256)}), Err(TokenError::Claims)),
        (json!({"sub": "process:checkout"}), Err(TokenError::Reserved)),
        (json!({"roles": ["clerk", "system"]}), Err(TokenError::Reserved)),
        (json!({"roles": "clerk"}), Err(TokenError::Claims)),
        (json!({"roles": [1]}), Err(TokenError::Claims)),
        (json!({"roles": [""]}), Err(TokenError::Claims)),
        (json!({"roles": many}), Err(TokenError::Claims)),
        (json!({"roles": null}), Ok(())),
    ] {
        let found = verifier.verify(&forge.token(&claims_with(changes.clone()))).await;
        assert_eq!(found.map(drop), expected, "{changes}");
    }
}

#[tokio::test]
async fn roles_and_owner_are_where_the_settings_point() {
    let forge = Forge::ed("a");
    let keys = Keys::of(&jwks(&[&forge]));
    let mut settings = keys.settings();
    settings.roles_claim = "/realm_access/roles".to_owned();
    settings.owner_claim = "/customer".to_owned();
    let verifier = TokenVerifier::new(settings, clock().0).unwrap();
    let token = forge.token(&claims_with(
        json!({"realm_access": {"roles": ["clerk"]}, "customer": "c-1"}),
    ));
    let caller = verifier.verify(&token).await.unwrap().caller.clone();
    assert_eq!(
        (&*caller.roles[0], caller.owner.as_deref()),
        ("clerk", Some("c-1"))
    );
    let token = forge.token(&claims());
    let caller = verifier.verify(&token).await.unwrap().caller.clone();
    assert_eq!(
        (caller.roles.len(), caller.owner),
        (0, None),
        "no claim, no right"
    );
    let token = forge.token(&claims_with(json!({"customer": 5})));
    assert_eq!(verifier.verify(&token).await.unwrap_err(), TokenError::Claims);
}

#[tokio::test]
async fn no_character_of_a_token_can_be_changed() {
    let forge = Forge::ed("a");
    let keys = Keys::of(&jwks(&[&forge]));
    let verifier = keys.verifier(clock().0);
    let token = forge.token(&claims());
    verifier.verify(&token).await.unwrap();
    for place in 0..token.len() {
        let mut changed = token.clone();
        let other = if &token[place..=place] == "A" { "B" } else { "A" };
        changed.replace_range(place..=place, other);
        assert!(verifier.cached(&changed).is_none());
        assert!(verifier.verify(&changed).await.is_err(), "character {place}");
    }
    for cut in [0, 1, token.len() / 2, token.len() - 1] {
        assert!(verifier.verify(&token[..cut]).await.is_err());
    }
    let huge = format!("{token}{}", "A".repeat(8 * 1024));
    assert_eq!(verifier.verify(&huge).await.unwrap_err(), TokenError::TooLong);
}

#[tokio::test]
async fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let (ed, ec, rsa) = (Forge::ed("a"), Forge::ec("b"), Forge::rsa("c"));
    let mut set = jwks(&[&ed, &ec, &rsa]);
    // A symmetric key in a key set is everybody's: it is passed over.
    let oct = json!({"kty": "oct", "kid": "o", "alg": "HS256", "k": b64([7; 32])});
    set["keys"].as_array_mut().unwrap().push(oct);
    let keys = Keys::of(&set);
    let verifier = keys.verifier(clock().0);
    let hmac_with = |secret: &[u8], kid: &str| {
        let message = message(&json!({"alg": "HS256", "kid": kid}), &claims());
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        format!("{message}.{}", b64(hmac::sign(&key, message.as_bytes())))
    };
    let mut wrong = vec![
        format!("{}.", message(&json!({"alg": "none"}), &claims())),
        format!("{}.", message(&json!({"alg": "None", "kid": "a"}), &claims())),
        hmac_with(&[7; 32], "o"),
        hmac_with(&ed.public(), "a"),
        hmac_with(&rsa.public(), "c"),
        hmac_with(rsa.jwk()["n"].as_str().unwrap().as_bytes(), "c"),
    ];
    for alg in ["HS384", "RS512", "PS256", "ES384", "EdDSA2"] {
        wrong.push(ed.token_with(&json!({"alg": alg, "kid": "a"}), &claims()));
    }
    for token in wrong {
        assert_eq!(
            verifier.verify(&token).await.unwrap_err(),
            TokenError::Algorithm,
            "{token}"
        );
    }
    // One key's id with another key's algorithm fits no key; another key's signature fits no message.
    let crossed = ed.token_with(&json!({"alg": "ES256", "kid": "a"}), &claims());
    assert_eq!(
        verifier.verify(&crossed).await.unwrap_err(),
        TokenError::UnknownKey
    );
    let stolen = Forge::ed("a").token(&claims());
    assert_eq!(verifier.verify(&stolen).await.unwrap_err(), TokenError::Signature);
    // Not in the allow-list.
    let mut settings = keys.settings();
    settings.algorithms = vec![SigningAlgorithm::EdDsa];
    let strict = TokenVerifier::new(settings, clock().0).unwrap();
    assert!(strict.verify(&ed.token(&claims())).await.is_ok());
    assert_eq!(
        strict.verify(&rsa.token(&claims())).await.unwrap_err(),
        TokenError::Algorithm
    );
}

#[tokio::test]
async fn critical_headers_and_keys_inside_tokens_are_not_believed() {
    let forge = Forge::ed("a");
    let keys = Keys::of(&jwks(&[&forge]));
    let verifier = keys.verifier(clock().0);
    let header = json!({"alg": "EdDSA", "kid": "a", "crit": ["exp"], "exp": 1});
    let token = forge.token_with(&header, &claims());
    assert_eq!(verifier.verify(&token).await.unwrap_err(), TokenError::Malformed);
    let own = Forge::ed("a");
    let token = own.token_with(&json!({"alg": "EdDSA", "kid": "a", "jwk": own.jwk()}), &claims());
    assert_eq!(verifier.verify(&token).await.unwrap_err(), TokenError::Signature);
}

#[tokio::test]
async fn keys_that_say_they_are_for_something_else_are_passed_over() {
    for (member, value, usable) in [
        ("use", "enc", false),
        ("use", "sig", true),
        ("alg", "ES256", false),
        ("alg", "EdDSA", true),
        ("crv", "Ed448", false),
        ("x", "AAAA", false),
    ] {
        let (forge, other) = (Forge::ed("a"), Forge::ed("other"));
        let mut set = jwks(&[&forge, &other]);
        set["keys"][0][member] = value.into();
        let keys = Keys::of(&set);
        let verifier = keys.verifier(clock().0);
        let found = verifier.verify(&forge.token(&claims())).await;
        assert_eq!(found.is_ok(), usable, "{member} {value}");
        assert!(
            verifier.verify(&other.token(&claims())).await.is_ok(),
            "{member} {value}"
        );
    }
}

#[tokio::test]
async fn a_remembered_token_ends_when_it_expires() {
    let forge = Forge::ed("a");
    let keys = Keys::of(&jwks(&[&forge]));
    let (ambient, time) = clock();
    let verifier = keys.verifier(ambient);
    let token = forge.token(&claims());
    verifier.verify(&token).await.unwrap();
    time.advance_ms(604_999);
    assert!(verifier.cached(&token).is_some());
    time.advance_ms(1);
    assert!(verifier.cached(&token).is_none());
    assert_eq!(verifier.verify(&token).await.unwrap_err(), TokenError::Expired);
}

#[tokio::test]
async fn a_connections_last_token_stands_for_nobody_else_and_ends_like_any_other() {
    let forge = Forge::ed("a");
    let keys = Keys::of(&jwks(&[&forge]));
    let (ambient, time) = clock();
    let verifier = keys.verifier(ambient);
    let (ada, bob) = (
        forge.token(&claims()),
        forge.token(&claims_with(json!({"sub": "bob"}))),
    );
    let last = LastToken::default();
    assert!(
        verifier.cached_after(&last, &ada).is_none(),
        "nothing was verified yet"
    );
    for token in [&ada, &bob] {
        verifier.verify(token).await.unwrap();
    }
    for token in [&ada, &ada, &bob, &bob, &ada] {
        let after = verifier.cached_after(&last, token);
        assert!(after.is_some() && after == verifier.cached(token));
    }
    for wrong in [&ada[..ada.len() - 1], &format!("{ada}A"), ""] {
        assert!(verifier.cached_after(&last, wrong).is_none());
    }
    // A key that is withdrawn, and time, end it.
    let other = Forge::ed("b");
    keys.write(&jwks(&[&other]));
    time.advance_ms(1_000);
    verifier.refresh().await.unwrap();
    assert!(verifier.cached_after(&last, &ada).is_none());
    keys.write(&jwks(&[&forge]));
    time.advance_ms(1_000);
    verifier.refresh().await.unwrap();
    verifier.verify(&ada).await.unwrap();
    assert!(verifier.cached_after(&last, &ada).is_some());
    time.advance_ms(604_999 - 2_000);
    assert!(verifier.cached_after(&last, &ada).is_some());
    time.advance_ms(1);
    assert!(verifier.cached_after(&last, &ada).is_none());
}

#[tokio::test]
async fn a_new_key_in_the_file_is_found_and_a_withdrawn_one_ends_its_tokens() {
    let (old, new) = (Forge::ed("old"), Forge::ed("new"));
    let keys = Keys::of(&jwks(&[&old]));
    let (ambient, time) = clock();
    let verifier = keys.verifier(ambient);
    let (of_old, of_new) = (old.token(&claims()), new.token(&claims()));
    verifier.verify(&of_old).await.unwrap();
    assert_eq!(
        verifier.verify(&of_new).await.unwrap_err(),
        TokenError::UnknownKey
    );
    keys.write(&jwks(&[&new]));
    let limited = verifier.verify(&of_new).await;
    assert_eq!(
        limited.unwrap_err(),
        TokenError::UnknownKey,
        "the file is read once a second"
    );
    time.advance_ms(1_000);
    verifier.verify(&of_new).await.unwrap();
    assert!(verifier.cached(&of_old).is_none());
    assert_eq!(
        verifier.verify(&of_old).await.unwrap_err(),
        TokenError::UnknownKey
    );
    // A file that breaks leaves the keys in use.
    std::fs::write(keys.path(), "{").unwrap();
    assert!(verifier.refresh().await.is_err());
    assert!(verifier.cached(&of_new).is_some());
}

#[tokio::test]
async fn without_any_key_a_token_is_not_refused_but_postponed() {
    let keys = Keys::of(&json!({"keys": []}));
    let (ambient, time) = clock();
    let verifier = keys.verifier(ambient);
    assert!(verifier.refresh().await.is_err());
    let forge = Forge::ed("a");
    let token = forge.token(&claims());
    let error = verifier.verify(&token).await.unwrap_err();
    assert!(error.is_unavailable());
    keys.write(&jwks(&[&forge]));
    time.advance_ms(1_000);
    verifier.verify(&token).await.unwrap();
}

#[tokio::test]
async fn the_development_issuer_keeps_its_key_and_its_tokens_verify() {
    let dir = tempfile::tempdir().unwrap();
    let first = DevIssuer::open_or_create(dir.path(), AUDIENCE, clock().0).unwrap();
    let second = DevIssuer::open(dir.path(), AUDIENCE, clock().0).unwrap();
    let mode = |file: &str| {
        std::fs::metadata(dir.path().join(file))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode(issuer::KEY_FILE), mode(issuer::JWKS_FILE)), (0o600, 0o644));
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        2,
        "no drafts are left"
    );
    let mut settings = Settings::new(KeySource::File(first.jwks_file().to_owned()), AUDIENCE);
    settings.owner_claim = "/owner".to_owned();
    let verifier = TokenVerifier::new(settings, clock().0).unwrap();
    let grant = Grant {
        sub: "dev",
        roles: &["admin"],
        ttl_s: 900,
        owner: Some("c-1"),
    };
    for issuer in [first, second] {
        let identity = verifier.verify(&issuer.issue(&grant).unwrap()).await.unwrap();
        assert_eq!(
            (&*identity.caller.sub, identity.caller.owner.as_deref()),
            ("dev", Some("c-1"))
        );
        for (sub, roles) in [("process:x", ["admin"]), ("dev", ["system"]), ("", ["admin"])] {
            let refused = Grant {
                sub,
                roles: &roles,
                ..grant.clone()
            };
            assert!(issuer.issue(&refused).is_err(), "{sub} {roles:?}");
        }
    }
    let missing = tempfile::tempdir().unwrap();
    assert!(DevIssuer::open(missing.path(), AUDIENCE, clock().0).is_err());
    std::fs::write(dir.path().join(issuer::KEY_FILE), "no key").unwrap();
    assert!(DevIssuer::open_or_create(dir.path(), AUDIENCE, clock().0).is_err());
}

#[test]
fn many_makers_of_one_key_file_agree_on_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let public = || {
        let issuer = DevIssuer::open_or_create(dir.path(), AUDIENCE, clock().0).unwrap();
        std::fs::read(issuer.jwks_file()).unwrap()
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(public)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|one| *one == all[0]));
}

#[tokio::test]
async fn node_tokens_are_short_and_of_the_cluster_and_no_client_token() {
    let dir = tempfile::tempdir().unwrap();
    let (ambient, time) = clock();
    let path = dir.path().join("node.key");
    let ours = NodeKey::open_or_create(&path, ambient.clone()).unwrap();
    let peer = NodeKey::open(&path, ambient.clone()).unwrap();
    let stranger = NodeKey::open_or_create(&dir.path().join("other"), ambient.clone()).unwrap();
    let (plain, process) = (ours.issue("n1", None), ours.issue("n1", Some("checkout")));
    assert_eq!(peer.verify(&plain).unwrap().process, None);
    let found = peer.verify(&process).unwrap();
    assert_eq!(
        (&*found.node, found.process),
        ("n1", Some(node::process("checkout")))
    );
    assert!(node::process("checkout").is_system());
    assert_eq!(stranger.verify(&plain).unwrap_err(), TokenError::Signature);
    for place in 0..process.len() {
        let mut changed = process.clone();
        let other = if &process[place..=place] == "A" { "B" } else { "A" };
        changed.replace_range(place..=place, other);
        assert!(peer.verify(&changed).is_err(), "character {place}");
    }
    // Neither kind of token passes for the other.
    let forge = Forge::ed("a");
    let keys = Keys::of(&jwks(&[&forge]));
    let verifier = keys.verifier(ambient);
    assert_eq!(
        verifier.verify(&process).await.unwrap_err(),
        TokenError::Algorithm
    );
    assert_eq!(
        peer.verify(&forge.token(&claims())).unwrap_err(),
        TokenError::Algorithm
    );
    time.advance_ms(64_999);
    assert!(peer.verify(&plain).is_ok());
    time.advance_ms(1);
    assert_eq!(peer.verify(&plain).unwrap_err(), TokenError::Expired);
    time.advance_ms(-71_000);
    assert_eq!(peer.verify(&plain).unwrap_err(), TokenError::NotYetValid);
}
