//! Clients of a server: where it is, as whom; and tokens of the development issuer.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_auth::{DevIssuer, Grant, issuer};
use annals_client::{Client, Fixed, Retries, Settings, Token, TokenSource};
use annals_domain::Ambient;
use anyhow::Context as _;

use crate::app::App;
use crate::cli::args::{ClientArgs, Common, TokenArgs};
use crate::cli::output;
use crate::exit::{Answer, Usage};

/// What a subcommand of the domain's own runs with.
#[derive(Clone)]
pub struct Context {
    pub(crate) app: Arc<App>,
    /// Options of every command.
    pub common: Common,
    /// Whether `dev` runs it, in its own process.
    pub in_dev: bool,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("common", &self.common)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// A client as somebody of these roles: with the given token, else with one of the development issuer, renewed
    /// in time.
    ///
    /// # Errors
    /// If there is neither.
    pub fn client(&self, args: &ClientArgs, sub: &str, roles: &[&str]) -> anyhow::Result<Client> {
        client_as(&self.common, args, sub, roles)
    }

    /// The app's name.
    #[must_use]
    pub fn app_name(&self) -> &'static str {
        self.app.name()
    }
}

/// How long a person at a terminal waits for a server that is away.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long before its end a token is renewed, and how long it is good, in seconds.
const RENEW_BEFORE_S: i64 = 120;
const TTL_S: u32 = 900;

/// Tokens of the development issuer, each renewed before it expires.
struct Renewed {
    issuer: DevIssuer,
    sub: String,
    roles: Vec<String>,
    ambient: Ambient,
    current: Mutex<Option<(Token, i64)>>,
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewed")
            .field("sub", &self.sub)
            .finish_non_exhaustive()
    }
}

impl TokenSource for Renewed {
    fn token(&self) -> Result<Option<Token>, String> {
        let now_s = self.ambient.now_ms().div_euclid(1_000);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, until_s)) = &*current
            && now_s + RENEW_BEFORE_S < *until_s
        {
            return Ok(Some(token.clone()));
        }
        let roles: Vec<&str> = self.roles.iter().map(String::as_str).collect();
        let grant = Grant {
            sub: &self.sub,
            roles: &roles,
            ttl_s: TTL_S,
            owner: None,
        };
        let token = Token::new(self.issuer.issue(&grant).map_err(|error| error.to_string())?);
        *current = Some((token.clone(), now_s + i64::from(TTL_S)));
        Ok(Some(token))
    }
}

/// A client as the development issuer's `dev`, role `admin`, unless a token is given.
pub(crate) fn client(common: &Common, args: &ClientArgs) -> anyhow::Result<Client> {
    let client = client_as(common, args, "dev", &["admin"])?;
    Ok(client.with_retries(Retries {
        patience: PATIENCE,
        ..Retries::default()
    }))
}

fn client_as(common: &Common, args: &ClientArgs, sub: &str, roles: &[&str]) -> anyhow::Result<Client> {
    crate::telemetry::client();
    let tokens: Arc<dyn TokenSource> = match &args.token {
        Some(token) => Arc::new(Fixed(Token::new(token))),
        None => dev_tokens(&common.data_dir, crate::dev::AUDIENCE, sub, roles)?,
    };
    Ok(Client::new(&args.url, tokens, Settings::default()).map_err(|error| Usage(error.to_string()))?)
}

/// Tokens of the development issuer whose key is in `data_dir`.
pub(crate) fn dev_tokens(
    data_dir: &Path,
    audience: &str,
    sub: &str,
    roles: &[&str],
) -> anyhow::Result<Arc<dyn TokenSource>> {
    if !data_dir.join(issuer::KEY_FILE).exists() {
        let what = format!(
            "no token: give --token or ANNALS_TOKEN; there is no development issuer's key in {} either (--data-dir)",
            data_dir.display()
        );
        return Err(Usage(what).into());
    }
    let ambient = crate::ambient::system();
    let issuer = DevIssuer::open(data_dir, audience, ambient.clone())?;
    Ok(Arc::new(Renewed {
        issuer,
        sub: sub.to_owned(),
        roles: roles.iter().map(|&role| role.to_owned()).collect(),
        ambient,
        current: Mutex::default(),
    }))
}

/// `token`: prints a bare token.
pub(crate) fn token(common: &Common, args: &TokenArgs) -> anyhow::Result<Answer> {
    let dir = &common.data_dir;
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let issuer = DevIssuer::open_or_create(dir, &args.audience, crate::ambient::system())?;
    let roles: Vec<&str> = args.role.iter().map(String::as_str).collect();
    let ttl_s = u32::try_from(args.ttl.as_secs()).unwrap_or(u32::MAX).max(1);
    let grant = Grant {
        sub: &args.subject,
        roles: &roles,
        ttl_s,
        owner: None,
    };
    let token = issuer.issue(&grant).map_err(|error| Usage(error.to_string()))?;
    output::text(&token)?;
    Ok(Answer::Done)
}
