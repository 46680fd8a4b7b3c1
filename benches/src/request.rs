//! Commands as the edge hands them to the engine: parsed, canonical, with the caller and the fingerprint that it would have.

use std::sync::Arc;

use annals_domain::{Caller, Catalog, CommandRequest, Permission, Precondition};
use annals_record::{Fingerprint, KeyHash, StreamId, hash};
use anyhow::{Context, anyhow};

/// One command; `idempotency_key` is its correlation too.
///
/// # Errors
/// If the catalog has no such resource, or the key or the body is not one's.
pub fn request(
    catalog: &Catalog,
    resource: &str,
    key: &str,
    command: &str,
    idempotency_key: &str,
    body: &str,
) -> anyhow::Result<CommandRequest> {
    let aggregate = catalog
        .resource(resource)
        .with_context(|| format!("the catalog has no {resource}"))?;
    let key = aggregate.parse_key(key).map_err(|error| anyhow!("{error}"))?;
    let parsed = aggregate
        .parse(&key, command, body.as_bytes())
        .map_err(|error| anyhow!("{error:?}"))?;
    let data = parsed.canonical()?;
    let caller = Caller {
        sub: "bench".into(),
        roles: Arc::from(["clerk".into()]),
        owner: None,
    };
    let print = hash::sha256(&[caller.sub.as_bytes(), b"\0", command.as_bytes(), b"\0\0", &data].concat());
    Ok(CommandRequest {
        stream: StreamId::new(aggregate.category(), &key),
        command: parsed,
        data: serde_json::from_slice(&data)?,
        fingerprint: Fingerprint::new(print),
        idempotency_key: KeyHash::of(idempotency_key),
        precondition: Precondition::None,
        caller,
        permission: Permission::Allow,
        correlation: idempotency_key.to_owned(),
        causation: None,
        traceparent: None,
        metadata: None,
    })
}
