//! Commands and options. Source: 6-cli-and-running.md, "Commands".

use std::path::PathBuf;
use std::time::Duration;

use annals_record::Position;
use clap::{Args, Parser, Subcommand};

use crate::cli::output::Output;
use crate::config::Layers;

/// The whole command line; the program's name and description come from the app.
#[derive(Debug, Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The file with the settings [default: annals.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder of `dev`: its database, its keys
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = ".annals",
        env = "ANNALS_DATA_DIR",
        hide_env = true
    )]
    pub data_dir: PathBuf,
    /// How data are printed
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Options of commands that talk to a server.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// The server
    #[arg(
        long,
        env = "ANNALS_URL",
        default_value = "http://127.0.0.1:8080",
        hide_env_values = true
    )]
    pub url: String,
    /// The bearer token; without one, the development issuer's key in the data dir signs one
    #[arg(long, env = "ANNALS_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything in one process, with a private PostgreSQL
    Dev(DevArgs),
    /// Start a node
    Serve(ServeArgs),
    /// Bring the database's tables up, down, or say how they stand
    Migrate {
        #[command(subcommand)]
        what: Migrate,
    },
    /// Send one command; prints the answer's body
    Send(SendArgs),
    /// Send a file of commands, one a line as in POST /v1/batch, with progress
    Import(ImportArgs),
    /// Read a row, or a list
    Get(GetArgs),
    /// Show accepted records
    Tail(TailArgs),
    /// The log
    Log {
        #[command(subcommand)]
        what: Log,
    },
    /// Process managers
    Processes {
        #[command(subcommand)]
        what: Processes,
    },
    /// Read models
    Projections {
        #[command(subcommand)]
        what: Projections,
    },
    /// JSON Schemas of every command and event
    Schemas {
        #[command(subcommand)]
        what: Schemas,
    },
    /// What auditors ask
    Audit {
        #[command(subcommand)]
        what: Audit,
    },
    /// A token of the development issuer
    Token(TokenArgs),
    /// The settings in effect
    Config {
        /// Say where each came from
        #[arg(long)]
        explain: bool,
        /// Print a file with every setting and its default
        #[arg(long, conflicts_with = "explain")]
        example: bool,
    },
    /// Load a server and measure it
    Bench(BenchArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DevArgs {
    /// Where clients reach it; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Operations [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ops_listen: Option<String>,
    /// Where the log is
    #[arg(long, value_parser = ["postgres", "kafka"])]
    pub(crate) log: Option<String>,
    /// Kafka's brokers, host:port with commas; without it a local one is started
    #[arg(long)]
    pub(crate) brokers: Option<String>,
    /// Run the demo once ready
    #[arg(long)]
    pub(crate) demo: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// What this node does, with commas: command, projector, process, query, audit [default: all]
    #[arg(long)]
    pub(crate) roles: Option<String>,
    /// Where clients reach it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Operations
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ops_listen: Option<String>,
    /// Take a topic with one replica, which one lost disk destroys
    #[arg(long)]
    pub(crate) allow_single_replica: bool,
    /// Take a standby that is not synchronous
    #[arg(long)]
    pub(crate) allow_async_standby: bool,
}

impl ServeArgs {
    /// The flags over the other layers.
    pub(crate) fn layers(&self, layers: Layers) -> Layers {
        layers
            .flag("node.roles", "--roles", self.roles.as_ref())
            .flag("http.listen", "--listen", self.listen.as_ref())
            .flag("http.ops_listen", "--ops-listen", self.ops_listen.as_ref())
            .flag(
                "log.allow_single_replica",
                "--allow-single-replica",
                self.allow_single_replica.then_some(true),
            )
            .flag(
                "log.allow_async_standby",
                "--allow-async-standby",
                self.allow_async_standby.then_some(true),
            )
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Apply every migration that is not applied
    Up,
    /// Take the last one back, with all that its tables hold
    Down {
        /// Down to this number; 0 takes back all
        #[arg(long, value_name = "NUMBER")]
        to: Option<i64>,
    },
    /// List them; exit status 1 if one is missing
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// The plural name: orders
    pub(crate) resource: String,
    /// The key
    pub(crate) key: String,
    /// The command's name: place
    pub(crate) command: String,
    /// Its data: JSON, @file, or - for standard input
    #[arg(long, default_value = "{}")]
    pub(crate) data: String,
    /// The same key again is the same command again [default: a new one]
    #[arg(long)]
    pub(crate) idempotency_key: Option<String>,
    /// Only if the stream is at this version, or *: only if it exists
    #[arg(long, value_name = "VERSION")]
    pub(crate) if_match: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file; - for standard input
    pub(crate) file: PathBuf,
    /// How many commands are under way at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) concurrency: u16,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The read model: orders
    pub(crate) resource: String,
    /// A row's key; without it, a list
    pub(crate) key: Option<String>,
    /// A parameter as in the address, repeated as needed: status=placed, total.gte=100, sort=-placed_at
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) filter: Vec<String>,
    /// At least as fresh as this position: 3:1042
    #[arg(long, value_name = "POSITION")]
    pub(crate) after: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Of one stream: order-0192f…
    #[arg(long, conflicts_with = "category")]
    pub(crate) stream: Option<String>,
    /// Of one category: order
    #[arg(long)]
    pub(crate) category: Option<String>,
    /// Go on as records come
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Make an empty log with as many shards as the settings say
    Create {
        /// Kafka: how many copies of each shard
        #[arg(long, default_value_t = 3)]
        replication: u16,
    },
    /// What it is, how durable, with which settings
    Describe,
    /// Its settings, and every shard folded from its first record: what does not count, and where a reader disagrees
    Check {
        /// Not the log but the brokers: make a topic, hold it to every promise that a log must keep, delete it
        #[arg(long)]
        broker: bool,
        /// With --broker: how many copies of each shard
        #[arg(long, default_value_t = 3, requires = "broker")]
        replication: u16,
    },
    /// Close a log and copy what it accepted to another place: the next generation. Stop every node first
    Copy(CopyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// The settings file of the log to be copied; neither the environment nor --config counts
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
    /// The settings file of the copy: another, migrated database, and where the log shall be
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Leave this shard's records from this offset on behind, and list each; for a shard that is halted
    #[arg(long, value_name = "SHARD:OFFSET")]
    pub(crate) until: Vec<Position>,
    /// Kafka: how many copies of each shard
    #[arg(long, default_value_t = 3)]
    pub(crate) replication: u16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Processes {
    /// How every process manager stands, and which instances are stuck
    List,
    /// One instance: its state, and what it sent
    Show {
        /// The process manager: checkout
        process: String,
        /// The instance
        instance: String,
    },
    /// Let a stuck instance go on
    Resume {
        /// The process manager
        process: String,
        /// The instance
        instance: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Projections {
    /// What the folders say
    List,
    /// Run their tests on a real PostgreSQL
    Check {
        /// Only this one
        name: Option<String>,
    },
    /// How far every build is
    Status,
    /// Build a read model anew beside the live build, and wait until it has caught up
    Rebuild {
        /// The projection: orders
        name: String,
        /// Then compare its rows with the live build's; exit status 1 if they differ
        #[arg(long)]
        diff: bool,
        /// Only ask for it; `status` shows how far it is
        #[arg(long, conflicts_with = "diff")]
        detach: bool,
    },
    /// Make the new build the live one
    Switch {
        /// The projection
        name: String,
        /// This build [default: the newest]
        #[arg(long)]
        build: Option<i32>,
        /// Compare first, and switch only if the rows are equal
        #[arg(long)]
        diff: bool,
    },
    /// Make the former build the live one again
    Rollback {
        /// The projection
        name: String,
    },
    /// The records behind a row
    Explain {
        /// The resource: orders
        resource: String,
        /// The row's key; several columns with commas
        key: String,
    },
    /// Replay parked streams; exit status 1 if one stays parked
    Resume {
        /// The projection
        name: String,
        /// Of this build [default: of every build that is fed]
        #[arg(long)]
        build: Option<i32>,
        /// Only this one
        #[arg(long)]
        stream: Option<String>,
    },
    /// Drop a build that is not live: its tables and all that is known of it
    Drop {
        /// The projection
        name: String,
        /// The build
        #[arg(long)]
        build: i32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Schemas {
    /// Write them
    Write {
        /// Where
        #[arg(long, default_value = "schemas")]
        dir: PathBuf,
    },
    /// Compare them with the files; exit status 1 if one differs
    Check {
        /// Where
        #[arg(long, default_value = "schemas")]
        dir: PathBuf,
        /// Compare also with this git revision: what it wrote must still be readable
        #[arg(long, value_name = "GIT_REV")]
        against: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// A stream's records: commands, events, refusals, actors, positions, hashes
    History {
        /// The stream: order-0192f…
        stream: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Fold the log again and compare a read model with it, row by row; exit status 1 if they differ
    Attest {
        /// The projection: orders
        name: String,
        /// This build [default: the live one]
        #[arg(long)]
        build: Option<i32>,
    },
    /// A stream's state, then or now, by replay
    State {
        /// The stream: order-0192f…
        stream: String,
        /// At this version
        #[arg(long, conflicts_with = "at")]
        version: Option<u64>,
        /// At this time: 2026-11-01T00:00:00Z
        #[arg(long)]
        at: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The roles, with commas
    #[arg(long, required = true, value_delimiter = ',')]
    pub(crate) role: Vec<String>,
    /// Whose token
    #[arg(long, default_value = "dev")]
    pub(crate) subject: String,
    /// How long it is good: 90s, 15m, 8h
    #[arg(long, default_value = "15m", value_parser = duration)]
    pub(crate) ttl: Duration,
    /// Its audience
    #[arg(long, default_value = "annals", hide = true)]
    pub(crate) audience: String,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// How many clients, each with one request under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) clients: u16,
    /// How long
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// So many requests a second, due whatever the server does [default: each client's next one is due at its answer]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,
    /// Raise the rate to the knee, from --rate or 250: the last one with p99 under 200 ms and under 0.1 % failed
    #[arg(long)]
    pub(crate) ramp: bool,
    /// How long each step of a ramp lasts
    #[arg(long, default_value = "5s", value_parser = duration, requires = "ramp")]
    pub(crate) step: Duration,
    /// What is sent, with weights: receive=9,get=1 [default: the app's first kind of load]
    #[arg(long)]
    pub(crate) mix: Option<String>,
    /// Over how many streams
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) streams: u32,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Reads `90s`, `15m`, `8h`, `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write 250ms, 90s, 15m or 8h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let found = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3_600).map(Duration::from_secs),
        _ => None,
    };
    found.filter(|found| !found.is_zero()).ok_or_else(wrong)
}
