//! Every key of the machinery, its default, and what it means. Source: 6-cli-and-running.md, "Configuration".

use std::path::PathBuf;

use annals_log::writer::WriterSettings;

use crate::config::value::{Bytes, Secret};
use crate::section;

section! {
    /// This process among the nodes.
    pub struct Node in "node" {
        /// The node's name, new at every start; unset: `{host}-{random}`.
        id: Option<String> = None,
        /// Where other nodes reach this one; port 0 takes a free one. It is published in the node's lease, so in a
        /// cluster it is an address that the others can connect to.
        internal_listen: String = "127.0.0.1:0".to_owned(),
        /// 32 random bytes that all nodes share: they sign what nodes say to each other. Needed outside `dev`.
        key_file: Option<PathBuf> = None,
        /// How long a node that is told to end answers on after it said that it is not ready, if others take over.
        drain_ms: u64 = 1_000,
        /// What this node does: command, projector, process, query, audit; empty: all of it.
        roles: Vec<String> = Vec::new(),
    }
}

section! {
    /// PostgreSQL, a URL for each database role.
    pub struct Database in "database" {
        /// For every role that has no URL of its own. Enough in `dev`; elsewhere each role has its own login.
        url: Option<Secret> = None,
        /// Owns the tables: `migrate`, `log create`.
        migrator: Option<Secret> = None,
        /// Decides commands.
        command: Option<Secret> = None,
        /// Fills the journal from Kafka.
        indexer: Option<Secret> = None,
        /// Fills the read models.
        projector: Option<Secret> = None,
        /// Runs the process managers.
        process: Option<Secret> = None,
        /// Reads.
        query: Option<Secret> = None,
        /// Fills the auditors' search table.
        audit: Option<Secret> = None,
    }
}

section! {
    /// The append-only log.
    pub struct Log in "log" {
        /// Where it is: postgres or kafka.
        kind: String = "postgres".to_owned(),
        /// Into how many totally ordered parts it is split; fixed when the log is created.
        shards: u32 = 16,
        /// The largest record.
        record_bytes: Bytes = Bytes::kib(900),
        /// Kafka: producers a process.
        producers: usize = 2,
        /// Kafka: the most producers a process.
        producers_max: usize = 8,
        /// Kafka: `host:port`, several with commas.
        brokers: Option<String> = None,
        /// Kafka: the topic.
        topic: String = "{app}.log".to_owned(),
        /// Kafka: how many appends of a shard may be under way at once; with one, the next gathers what comes meanwhile.
        appends_in_flight: usize = WriterSettings::KAFKA.appends_in_flight,
        /// Kafka: encrypt the connections.
        tls: bool = false,
        /// Kafka: the authorities to trust (PEM); unset: the system's.
        tls_ca_file: Option<PathBuf> = None,
        /// Kafka: this client's certificate (PEM).
        tls_certificate_file: Option<PathBuf> = None,
        /// Kafka: its key (PEM).
        tls_key_file: Option<PathBuf> = None,
        /// Kafka: the key's password.
        tls_key_password: Option<Secret> = None,
        /// Kafka: SCRAM-SHA-256 or SCRAM-SHA-512; unset: no login.
        sasl_mechanism: Option<String> = None,
        /// Kafka: the login's name.
        sasl_username: Option<String> = None,
        /// Kafka: the login's password.
        sasl_password: Option<Secret> = None,
        /// Kafka: take a topic with one replica, which one lost disk destroys.
        allow_single_replica: bool = false,
        /// Postgres: take a standby that is not synchronous: losing the server may lose what was acknowledged.
        allow_async_standby: bool = false,
    }
}

section! {
    /// Deciding commands.
    pub struct Command in "command" {
        /// Commands that are open at one task of the engine, until their answer; beyond it 503 `overloaded`.
        mailbox: usize = 1_024,
        /// How much longer than an append answers may take on average; beyond it fewer commands are let in, the rest get 503
        /// `overloaded`. Above what an append takes.
        queue_ms: u64 = 100,
        /// Bytes of a shard's records that are decided and not settled; beyond it 503 `overloaded`.
        inflight_bytes: Bytes = Bytes::mib(16),
        /// Bytes of a shard's records that the journal does not have yet; beyond it 503 `shard-unavailable`.
        tail_bytes: Bytes = Bytes::mib(64),
        /// Bytes of streams in memory.
        cache_bytes: Bytes = Bytes::mib(256),
        /// How long the log may owe a shard an answer; beyond it new commands get 503 `log-unavailable`.
        stall_ms: u64 = 5_000,
        /// After this a command's outcome is not known (504).
        deadline_ms: u64 = 5_000,
        /// Records of a stream between two snapshots.
        snapshot_every: u32 = 100,
        /// How long an idempotency key is remembered, in seconds of the log's time.
        key_lifetime_s: u32 = 86_400,
        /// For how many records of its stream a key is remembered.
        keys_per_stream: usize = 65_536,
        /// How many refusals a minute a caller gets back.
        refusals_per_minute: u32 = 600,
        /// How many refusals a caller may have at once.
        refusal_burst: u32 = 5_000,
    }
}

section! {
    /// Who should do what.
    pub struct Lease in "lease" {
        /// How long a lease lasts without renewal: what a crash costs until another node takes over.
        ttl_ms: u64 = 10_000,
    }
}

section! {
    /// Read models.
    pub struct Projection in "projection" {
        /// The folder with a folder for each projection.
        dir: PathBuf = "projections".into(),
        /// At most about so many events in one transaction.
        batch_events: usize = 2_000,
        /// At most about so many bytes of records read ahead for one projection.
        batch_bytes: Bytes = Bytes::mib(4),
        /// The same as `batch_events` for a build that is being built beside the live one.
        rebuild_events: usize = 10_000,
        /// The same as `batch_bytes` for such a build.
        rebuild_bytes: Bytes = Bytes::mib(16),
        /// From one transaction's begin to the next one's, unless a batch is full before.
        batch_ms: u64 = 50,
        /// Connections, opened when they are needed; 0: two for each read model, its live build and one beside it, and two
        /// more. With fewer, builds that are fed at once wait for each other, live ones too. At least 2.
        pool: u32 = 0,
        /// The server ends a statement that takes longer.
        statement_timeout_ms: u64 = 30_000,
        /// How long a build is fed on after another one was switched to, in seconds.
        grace_s: u64 = 3_600,
        /// A node that queries or projects is not ready (`/readyz`) while a live build is further behind, in ms.
        ready_lag_ms: u64 = 60_000,
    }
}

section! {
    /// Process managers.
    pub struct Process in "process" {
        /// At most so many records in one transaction.
        batch: usize = 500,
        /// The longest pause before something that failed is tried again.
        retry_max_s: u64 = 60,
    }
}

section! {
    /// The edge.
    pub struct Http in "http" {
        /// Where clients reach this node; port 0 takes a free one.
        listen: String = "127.0.0.1:8080".to_owned(),
        /// Operations: liveness, readiness, metrics, administration. Not public.
        ops_listen: String = "127.0.0.1:8081".to_owned(),
        /// The largest body of a command.
        body_bytes: Bytes = Bytes::kib(256),
        /// How deep a body may be nested.
        json_depth: usize = 32,
        /// The largest head of a request.
        header_bytes: Bytes = Bytes::kib(16),
        /// How long a request may take.
        request_ms: u64 = 10_000,
        /// The most connections of one listener.
        connections: usize = 4_096,
        /// Which origins browsers may call from; empty: none.
        cors_origins: Vec<String> = Vec::new(),
        /// 32 random bytes that all query nodes share: they seal the cursors of pages. Needed outside `dev`.
        cursor_key_file: Option<PathBuf> = None,
        /// The chain of certificates (PEM), the server's own first; unset: plain HTTP.
        tls_certificate_file: Option<PathBuf> = None,
        /// The certificate's key (PEM).
        tls_key_file: Option<PathBuf> = None,
    }
}

section! {
    /// Queries.
    pub struct Query in "query" {
        /// The largest page.
        limit_max: u32 = 500,
        /// Connections for queries; two more are the node's own.
        pool: u32 = 16,
        /// The server ends a statement that takes longer.
        statement_timeout_ms: u64 = 2_000,
        /// Answers kept in memory.
        cache_bytes: Bytes = Bytes::mib(64),
        /// How many live changes (`Accept: text/event-stream`) this node serves at once; beyond it 503 `overloaded`.
        live_connections: usize = 1_024,
        /// How many of these may be one caller's; beyond it 429 `quota-exceeded`.
        live_per_caller: usize = 32,
        /// How many rows one of them may follow.
        live_rows: u32 = 1_000,
        /// Changes remembered for those who read slowly or come back, beside the newest ones.
        live_bytes: Bytes = Bytes::mib(64),
        /// How often a stream of live changes in which nothing happens says that it is there.
        live_heartbeat_ms: u64 = 15_000,
    }
}

section! {
    /// Who is calling, and what they may.
    pub struct Auth in "auth" {
        /// The issuer of tokens, by discovery. This or `jwks_file` is needed outside `dev`.
        issuer: Option<String> = None,
        /// The issuer's public keys as a file (JWK set). `dev` and `token` write `{data dir}/issuer.jwks`.
        jwks_file: Option<PathBuf> = None,
        /// What a token's `aud` must be or contain.
        audience: String = "annals".to_owned(),
        /// Which signatures are accepted.
        algorithms: Vec<String> = ["EdDSA", "ES256", "RS256"].map(str::to_owned).to_vec(),
        /// JSON Pointer to a token's roles.
        roles_claim: String = "/roles".to_owned(),
        /// JSON Pointer to the claim that owned rows and streams are compared with.
        owner_claim: String = "/sub".to_owned(),
        /// The key-encryption keys, which wrap the data subjects' keys. Needed outside `dev`.
        subject_key_file: Option<PathBuf> = None,
        /// The folder with the policies (Cedar).
        policies: PathBuf = "policies".into(),
    }
}

section! {
    /// Seals.
    pub struct Audit in "audit" {
        /// How often the sealer signs tree heads.
        round_ms: u64 = 1_000,
        /// The sealer's key.
        signing_key_file: Option<PathBuf> = None,
        /// Witnesses that cosign, by URL.
        witnesses: Vec<String> = Vec::new(),
    }
}

section! {
    /// Republishing events to other systems, in Kafka mode.
    pub struct Publish in "publish" {
        /// The topic.
        topic: String = "{app}.events".to_owned(),
        /// Publish personal fields too.
        personal: bool = false,
    }
}

section! {
    /// Logs, metrics, traces.
    pub struct Telemetry in "telemetry" {
        /// json or pretty.
        log_format: String = "json".to_owned(),
        /// One log line for each request.
        access_log: bool = false,
        /// Where traces go (OTLP); unset: nowhere.
        otlp: Option<String> = None,
    }
}
