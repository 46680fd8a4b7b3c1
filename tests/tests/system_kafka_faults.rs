//! The real program on an Apache Kafka of a test's own: frozen, cut, replaced; and behind TLS and a login.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_tests::api::shard_of;
use annals_tests::kafka::Cluster;
use annals_tests::{Api, Home, Server, Shop, unique};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

struct Place {
    home: Arc<Home>,
    topic: String,
    brokers: String,
}

impl Place {
    fn make(cluster: &Cluster) -> Option<Self> {
        let home = Home::with_database()?;
        let topic = unique("faults.");
        home.set("ANNALS__LOG__TOPIC", &topic);
        home.set("ANNALS__COMMAND__STALL_MS", "1500");
        home.set("ANNALS__COMMAND__DEADLINE_MS", "2000");
        Some(Self {
            home,
            topic,
            brokers: cluster.brokers.clone(),
        })
    }

    fn dev(&self) -> Server {
        self.home
            .dev_with(&["--log", "kafka", "--brokers", &self.brokers])
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .create()
            .unwrap()
    }
}

/// What `/readyz` says, once it is as wished.
async fn readiness(server: &Server, what: &str, wished: impl Fn(u16, &str) -> bool) -> String {
    let ops = Api::new(&server.ops, None);
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let answer = ops.get("/readyz").await;
        let text = answer.text();
        if wished(answer.status, &text) {
            return text;
        }
        assert!(Instant::now() < until, "never {what}: {} {text}", answer.status);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn receive() -> Value {
    json!({"quantity": 1, "reference": "delivery"})
}

#[tokio::test]
async fn a_frozen_broker_is_a_stall_and_its_return_ends_it_without_a_restart() {
    let Some(cluster) = Cluster::start(1, "", None) else {
        return;
    };
    let Some(place) = Place::make(&cluster) else {
        return;
    };
    let server = place.dev();
    let shop = Shop::of(&server);
    let sku = shop.product(100, 10).await;
    let path = format!("/v1/products/{sku}/receive");
    cluster.signal(1, "STOP");
    let open = unique("k");
    let unknown = shop.admin.post_with_key(&path, &open, &receive()).await;
    unknown.problem(504, "outcome-unknown");
    let shard = shard_of(&format!("product-{sku}"));
    let reason = format!("shard {shard} waits for the log");
    readiness(&server, "stalled", |status, text| {
        status == 503 && text.contains(&reason)
    })
    .await;
    let began = Instant::now();
    let refused = unique("k");
    let answer = shop.admin.post_with_key(&path, &refused, &receive()).await;
    answer.problem(503, "log-unavailable");
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "at once: {:?}",
        began.elapsed()
    );
    let metrics = Api::new(&server.ops, None).get("/metrics").await.text();
    assert!(
        metrics.contains(&format!("annals_shard_stalled{{shard=\"{shard}\"}} 1")),
        "{metrics}"
    );
    cluster.signal(1, "CONT");
    readiness(&server, "ready again", |status, _| status == 200).await;
    // The one without an answer happened once, the refused one not at all before now.
    shop.admin.post_for_good(&path, &open, &receive()).await.is(200);
    shop.admin
        .post_for_good(&path, &refused, &receive())
        .await
        .is(200);
    shop.product_is(&sku, 12, 0).await;
    server.stop();
}

#[tokio::test]
async fn a_log_that_was_cut_or_replaced_behind_its_back_halts_and_check_says_where_and_why() {
    let Some(cluster) = Cluster::start(1, "", None) else {
        return;
    };
    let Some(place) = Place::make(&cluster) else {
        return;
    };
    let server = place.dev();
    let shop = Shop::of(&server);
    let sku = shop.product(100, 10).await;
    // The read model has it: what is cut off now, it will not read any more.
    shop.product_is(&sku, 10, 0).await;
    let shard = shard_of(&format!("product-{sku}"));
    let mut list = TopicPartitionList::new();
    let partition = i32::try_from(shard).unwrap();
    list.add_partition_offset(&place.topic, partition, Offset::Offset(2))
        .unwrap();
    place
        .admin()
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();
    let halted = format!("shard {shard} is halted");
    readiness(&server, "halted", |_, text| text.contains(&halted)).await;
    let path = format!("/v1/products/{sku}/receive");
    shop.admin
        .post(&path, &receive())
        .await
        .problem(503, "shard-halted");
    shop.admin.get(&format!("/v1/products/{sku}")).await.is(200);
    let checked = place.home.run(&["log", "check", "--output", "json"]);
    let reports: Value = serde_json::from_str(checked.exits(1)).unwrap();
    let of_shard = &reports[usize::try_from(shard).unwrap()];
    assert!(
        of_shard["wrong"][0]
            .as_str()
            .unwrap()
            .contains("begins at offset 2"),
        "{of_shard}"
    );
    let log = server.log();
    assert!(log.contains("begins at offset 2"), "{log}");

    // Now all of it: deleted and made again, as long and as wide.
    place
        .admin()
        .delete_topics(&[&place.topic], &AdminOptions::new())
        .await
        .unwrap();
    let longest = i64::MAX.to_string();
    let new = NewTopic::new(&place.topic, 16, TopicReplication::Fixed(1))
        .set("retention.ms", "-1")
        .set("message.timestamp.after.max.ms", &longest)
        .set("message.timestamp.before.max.ms", &longest);
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let made = place
            .admin()
            .create_topics([&new], &AdminOptions::new())
            .await
            .unwrap();
        if made[0].is_ok() {
            break;
        }
        assert!(Instant::now() < until, "{made:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let all = |_, text: &str| (0..16).all(|shard| text.contains(&format!("shard {shard} is halted")));
    readiness(&server, "all halted", all).await;
    let checked = place.home.run(&["log", "check", "--output", "json"]);
    let reports: Value = serde_json::from_str(checked.exits(1)).unwrap();
    let cut = reports[0]["wrong"][0].as_str().unwrap();
    assert!(
        cut.contains("ends at offset 0 with chain") && cut.contains("folded up to"),
        "{cut}"
    );
    server.stop();
}

/// Keys and certificates for one test, by openssl: an authority, a broker, a client.
fn make_keys(dir: &Path) {
    let openssl = |words: &[&str]| {
        let output = Command::new("openssl")
            .current_dir(dir)
            .args(words)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "openssl {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    for authority in ["ca", "other"] {
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test authority",
            "-keyout",
            &format!("{authority}.key"),
            "-out",
            &format!("{authority}.pem"),
        ]);
    }
    std::fs::write(dir.join("san"), "subjectAltName=DNS:localhost").unwrap();
    for name in ["broker", "client"] {
        let (key, csr, pem, p12) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.pem"),
            format!("{name}.p12"),
        );
        openssl(&[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &key,
            "-out",
            &csr,
        ]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "san",
            "-out",
            &pem,
        ]);
        openssl(&[
            "pkcs12",
            "-export",
            "-in",
            &pem,
            "-inkey",
            &key,
            "-certfile",
            "ca.pem",
            "-name",
            name,
            "-out",
            &p12,
            "-passout",
            "pass:keystore",
        ]);
    }
    let keytool = Command::new("keytool")
        .current_dir(dir)
        .args([
            "-importcert",
            "-noprompt",
            "-alias",
            "ca",
            "-file",
            "ca.pem",
            "-keystore",
            "trust.p12",
            "-storetype",
            "PKCS12",
            "-storepass",
            "keystore",
        ])
        .output()
        .unwrap();
    assert!(
        keytool.status.success(),
        "keytool: {}",
        String::from_utf8_lossy(&keytool.stderr)
    );
}

#[tokio::test]
async fn tls_client_certificates_and_scram_work_and_their_failures_say_so() {
    let home = Home::private();
    let dir = home.dir();
    make_keys(dir);
    let [tls, login] = [0; 2].map(|_| annals_tests::kafka::free_port());
    let at = |file: &str| dir.join(file).display().to_string();
    let extra = format!(
        "listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}},TLS://127.0.0.1:{tls},\
         LOGIN://127.0.0.1:{login}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},TLS://localhost:{tls},LOGIN://localhost:{login}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,LOGIN:SASL_SSL\n\
         ssl.keystore.type=PKCS12\nssl.keystore.location={}\nssl.keystore.password=keystore\n\
         ssl.truststore.type=PKCS12\nssl.truststore.location={}\nssl.truststore.password=keystore\n\
         listener.name.tls.ssl.client.auth=required\n\
         listener.name.login.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.login.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
         listener.name.login.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n",
        at("broker.p12"),
        at("trust.p12"),
    );
    let Some(_cluster) = Cluster::start(1, &extra, Some("annals=secret")) else {
        return;
    };
    let check = |name: &str, port: u16, more: &str| {
        let file = dir.join(format!("{name}.toml"));
        let text = format!(
            "[log]\nkind = \"kafka\"\nbrokers = \"localhost:{port}\"\nallow_single_replica = true\ntls = true\n\
             tls_ca_file = {:?}\n{more}\n",
            at("ca.pem")
        );
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        home.run(&[
            "log",
            "check",
            "--broker",
            "--replication",
            "1",
            "--output",
            "json",
            "--config",
            &file,
        ])
    };
    let certificate = format!(
        "tls_certificate_file = {:?}\ntls_key_file = {:?}\n",
        at("client.pem"),
        at("client.key")
    );
    let scram = |mechanism: &str, password: &str| {
        format!(
            "sasl_mechanism = \"{mechanism}\"\nsasl_username = \"annals\"\nsasl_password = \"{password}\"\n"
        )
    };
    let good = [
        ("client certificate", tls, certificate.clone()),
        ("SCRAM-SHA-256", login, scram("SCRAM-SHA-256", "secret")),
        ("SCRAM-SHA-512", login, scram("SCRAM-SHA-512", "secret")),
    ];
    for (name, port, more) in &good {
        let promises = check(&name.replace(' ', "-"), *port, more).json();
        let promises = promises.as_array().unwrap();
        assert!(promises.len() > 10, "{name}: {promises:?}");
        assert!(
            promises.iter().all(|promise| promise["kept"] == true),
            "{name}: {promises:?}"
        );
    }
    let bad = [
        ("no-certificate", tls, String::new(), "bad certificate"),
        (
            "wrong-password",
            login,
            scram("SCRAM-SHA-512", "wrong"),
            "uthentication",
        ),
    ];
    let bearer = check("bearer", login, "sasl_mechanism = \"OAUTHBEARER\"\n");
    assert_eq!(bearer.code, Some(2), "{}", bearer.stderr);
    assert!(bearer.stderr.contains("does not work yet"), "{}", bearer.stderr);
    for (name, port, more, why) in &bad {
        let failed = check(name, *port, more);
        assert_eq!(failed.code, Some(3), "{name}: {}", failed.stderr);
        assert!(failed.stderr.contains(why), "{name}: {}", failed.stderr);
    }
    let other = check("other-authority", login, &scram("SCRAM-SHA-512", "secret"));
    other.exits(0);
    let file = dir.join("other-authority.toml");
    let text = std::fs::read_to_string(&file)
        .unwrap()
        .replace("/ca.pem", "/other.pem");
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let stranger = home.run(&[
        "log",
        "check",
        "--broker",
        "--replication",
        "1",
        "--config",
        &file,
    ]);
    assert_eq!(stranger.code, Some(3), "{}", stranger.stderr);
    assert!(stranger.stderr.contains("certificate"), "{}", stranger.stderr);
}
