//! What the claims of a token must be, and what is made of them. Pure.

use std::sync::Arc;

use annals_domain::Caller;
use serde_json::Value;

use super::{Identity, TokenError};

/// The longest `sub` and owner claim, in bytes.
const MAX_ID_BYTES: usize = 255;
/// The most roles of one caller. They are in every record that it writes.
const MAX_ROLES: usize = 32;
/// The longest role, in bytes.
const MAX_ROLE_BYTES: usize = 64;
/// What the ids of process managers begin with.
const PROCESS_PREFIX: &str = "process:";

/// What is compared with the claims.
pub(super) struct Rules {
    pub(super) issuer: Option<String>,
    pub(super) audience: String,
    pub(super) roles_claim: String,
    pub(super) owner_claim: String,
    pub(super) leeway_s: i64,
}

/// A name that no client's token may hold, or that is not of the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleBreak {
    Grammar,
    Reserved,
}

impl From<RuleBreak> for TokenError {
    fn from(wrong: RuleBreak) -> Self {
        match wrong {
            RuleBreak::Grammar => Self::Claims,
            RuleBreak::Reserved => Self::Reserved,
        }
    }
}

impl Rules {
    pub(super) fn identity(&self, claims: &Value, now_ms: i64) -> Result<Identity, TokenError> {
        let leeway_ms = self.leeway_s * 1000;
        let expires_ms = time_ms(&claims["exp"])
            .ok_or(TokenError::Expired)?
            .saturating_add(leeway_ms);
        if now_ms >= expires_ms {
            return Err(TokenError::Expired);
        }
        match &claims["nbf"] {
            Value::Null => {}
            from => {
                let from_ms = time_ms(from).ok_or(TokenError::Claims)?;
                if now_ms < from_ms.saturating_sub(leeway_ms) {
                    return Err(TokenError::NotYetValid);
                }
            }
        }
        if let Some(issuer) = &self.issuer
            && claims["iss"].as_str() != Some(issuer)
        {
            return Err(TokenError::Issuer);
        }
        if !self.is_audience(&claims["aud"]) {
            return Err(TokenError::Audience);
        }
        let sub = claims["sub"].as_str().ok_or(TokenError::Claims)?;
        check_sub(sub)?;
        Ok(Identity {
            caller: Caller {
                sub: sub.into(),
                roles: roles(claims.pointer(&self.roles_claim))?,
                owner: owner(claims.pointer(&self.owner_claim))?,
            },
            expires_ms,
        })
    }

    /// RFC 7519, section 4.1.3: a string, or an array of them.
    fn is_audience(&self, aud: &Value) -> bool {
        match aud {
            Value::String(one) => *one == self.audience,
            Value::Array(many) => many.iter().any(|one| one.as_str() == Some(&self.audience)),
            _ => false,
        }
    }
}

/// RFC 7519's NumericDate: seconds since 1970, with or without a fraction, which is cut off.
fn time_ms(claim: &Value) -> Option<i64> {
    let seconds = match claim.as_i64() {
        Some(whole) => whole,
        None => {
            let whole = claim.as_f64()?.floor();
            format!("{whole:.0}").parse().ok()?
        }
    };
    seconds.checked_mul(1000)
}

/// No control characters: 0x00 separates the parts of a fingerprint's input.
fn is_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

pub(crate) fn check_sub(sub: &str) -> Result<(), RuleBreak> {
    if sub.starts_with(PROCESS_PREFIX) {
        return Err(RuleBreak::Reserved);
    }
    is_id(sub).then_some(()).ok_or(RuleBreak::Grammar)
}

pub(crate) fn check_role(role: &str) -> Result<(), RuleBreak> {
    if role == Caller::SYSTEM {
        return Err(RuleBreak::Reserved);
    }
    let graphic = (1..=MAX_ROLE_BYTES).contains(&role.len()) && role.bytes().all(|b| b.is_ascii_graphic());
    graphic.then_some(()).ok_or(RuleBreak::Grammar)
}

fn roles(claim: Option<&Value>) -> Result<Arc<[Arc<str>]>, TokenError> {
    let listed = match claim {
        None | Some(Value::Null) => &[],
        Some(Value::Array(listed)) if listed.len() <= MAX_ROLES => listed.as_slice(),
        Some(_) => return Err(TokenError::Claims),
    };
    let mut roles = Vec::with_capacity(listed.len());
    for role in listed {
        let role = role.as_str().ok_or(TokenError::Claims)?;
        check_role(role)?;
        roles.push(Arc::<str>::from(role));
    }
    roles.sort_unstable();
    roles.dedup();
    Ok(roles.into())
}

fn owner(claim: Option<&Value>) -> Result<Option<Arc<str>>, TokenError> {
    match claim {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(owner)) if is_id(owner) => Ok(Some(owner.as_str().into())),
        Some(_) => Err(TokenError::Claims),
    }
}
