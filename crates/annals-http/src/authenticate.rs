//! Who is calling: a client by its token, another node by its own, a process manager through a node.

use std::sync::Arc;

use annals_auth::{Identity, LastToken, SecurityEvent, TokenError};
use annals_domain::Caller;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::edge::{Inner, Listener};
use crate::problem::Problem;

/// The calling node's own token, on the internal listener.
pub const NODE_TOKEN: HeaderName = HeaderName::from_static("annals-node-token");
/// What a process manager's command follows from, on the internal listener.
pub const CAUSATION: HeaderName = HeaderName::from_static("annals-causation");

/// On a request that was sent on to a shard's owner: it is not sent on again.
pub const FORWARDED: HeaderName = HeaderName::from_static("annals-forwarded");

/// Who is calling.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) caller: Caller,
    /// When the token stops being good, ms since 1970; `None` for process managers, whose calls are single.
    pub(crate) expires_ms: Option<i64>,
    /// The client's own header, to be sent on with a forwarded request.
    pub(crate) authorization: Option<HeaderValue>,
}

impl Who {
    /// Whether this caller's request may be sent on to a shard's owner: a client's on the public listener, and a
    /// process manager's that has not been sent on before.
    pub(crate) fn forwards(&self, listener: Listener, headers: &HeaderMap) -> bool {
        match listener {
            Listener::Public => true,
            Listener::Internal => self.process().is_some() && !headers.contains_key(FORWARDED),
        }
    }

    /// The process manager's name, if it is one.
    pub(crate) fn process(&self) -> Option<&str> {
        let system = self.caller.is_system();
        self.caller.sub.strip_prefix("process:").filter(|_| system)
    }
}

impl Inner {
    /// Authenticates a request; `last` is its connection's.
    ///
    /// # Errors
    /// 401, each a security event; 503 if the token cannot be checked now.
    pub(crate) async fn authenticate(
        &self,
        listener: Listener,
        headers: &HeaderMap,
        last: Option<&LastToken>,
    ) -> Result<Who, Problem> {
        if listener == Listener::Internal
            && let Some(process) = self.node(headers)?
        {
            return Ok(Who {
                caller: process,
                expires_ms: None,
                authorization: None,
            });
        }
        let refused = |why: Option<TokenError>| {
            self.security.record(&SecurityEvent::Unauthenticated { why });
            why.map_or_else(|| Problem::unauthenticated(None), Problem::from)
        };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let header = values.next().ok_or_else(|| refused(None))?;
        if values.next().is_some() {
            return Err(refused(Some(TokenError::Malformed)));
        }
        let token = bearer(header).ok_or_else(|| refused(None))?;
        let cached = match last {
            Some(last) => self.tokens.cached_after(last, token),
            None => self.tokens.cached(token),
        };
        let identity: Arc<Identity> = match cached {
            Some(identity) => identity,
            None => match Box::pin(self.tokens.verify(token)).await {
                Ok(identity) => identity,
                Err(error) if error.is_unavailable() => return Err(error.into()),
                Err(error) => return Err(refused(Some(error))),
            },
        };
        Ok(Who {
            caller: identity.caller.clone(),
            expires_ms: Some(identity.expires_ms),
            authorization: Some(header.clone()),
        })
    }

    /// The process manager behind a call of another node, if it is one's.
    fn node(&self, headers: &HeaderMap) -> Result<Option<Caller>, Problem> {
        let refused = |why: Option<TokenError>| {
            self.security.record(&SecurityEvent::NodeTokenRefused { why });
            why.map_or_else(|| Problem::unauthenticated(None), Problem::from)
        };
        let token = headers
            .get(NODE_TOKEN)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| refused(None))?;
        let key = self.node.as_ref().ok_or_else(|| refused(None))?;
        let identity = key.key.verify(token).map_err(|why| refused(Some(why)))?;
        Ok(identity.process)
    }
}

/// The token of `Bearer …`; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
