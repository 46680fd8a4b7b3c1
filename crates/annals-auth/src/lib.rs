//! Tokens to callers, policies to decisions, keys of data subjects.
//!
//! Knows nothing of HTTP: the edge hands in a bearer token and gets a caller or a reason. In reading order:
//!
//! - [`token`]: a bearer token (JWT) becomes an [`token::Identity`], or a reason for a 401;
//! - [`issuer`]: the issuer of tokens that development has;
//! - [`node`]: the tokens with which nodes call each other;
//! - [`policy`]: Cedar policies, evaluated once at start into a table: role × command, role × read model;
//! - [`subject`]: the keys of data subjects: made, kept, rewrapped, destroyed;
//! - [`seal`]: the exact bytes of a sealed personal value;
//! - [`command`]: a checked command becomes what a record holds, and its fingerprint;
//! - [`open`]: many sealed values read at once;
//! - [`security`]: security events;
//! - [`metrics`]: names of what is counted here.
//!
//! *Invariant:* all that is not allowed is denied: an unknown role, command, resource, key, algorithm or claim.
//!
//! *Invariant:* no error, log line or label holds a token, a key, or a personal value.

pub mod command;
pub mod issuer;
pub mod key_file;
pub mod metrics;
pub mod node;
pub mod open;
pub mod policy;
pub mod seal;
pub mod security;
pub mod subject;
pub mod token;

pub use command::{CommandSealer, SealError, Sealed};
pub use issuer::{DevIssuer, Grant};
pub use node::{NodeIdentity, NodeKey};
pub use open::{Opened, Opener};
pub use policy::{Area, Decision, Policies, PolicyTable, Reach, ReadAccess, Surface};
pub use security::{SecurityEvent, SecurityLog};
pub use subject::{KeyError, KeyRing, SubjectKey, SubjectKeys};
pub use token::{Identity, LastToken, TokenError, TokenVerifier};
