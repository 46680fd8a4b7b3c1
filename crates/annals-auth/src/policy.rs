//! Who may do what: Cedar policies, evaluated once at start into a table.
//!
//! A policy speaks of one *role* at a time: the principal is a `Role`, never a person, so a `forbid` means "this
//! role does not give it", and a caller may do what any one of its roles may. The only other thing that a policy
//! may ask is whether the object is the caller's own (`context.own`). So a decision is a function of role,
//! action and that one bit, and all of them fit into a table of bit masks: the hot path evaluates nothing.
//!
//! | request | action | resource |
//! |---|---|---|
//! | a command `orders/place` | `orders/place` | `Resource::"orders"` |
//! | a read model's rows, its private columns | `read`, `read-private` | `Resource::"orders"` |
//! | audit routes, operations, decrypting | `enter` | `Area::"audit"`, `"operations"`, `"personal"` |
//!
//! *Invariant:* what no policy permits is denied, and so is every role, resource and command that is not known.
//!
//! Source: the Cedar policy language, version 4.

mod load;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use annals_domain::{Catalog, Permission};
use cedar_policy::{Authorizer, Context, Entities, EntityUid, Request, RestrictedExpression};

pub use load::{Policies, PolicyError};

/// The most roles; a caller's roles are a bit mask of a `u64`.
const MAX_ROLES: usize = 64;

/// Everything that a program has which a policy can speak of.
#[derive(Debug, Clone, Default)]
pub struct Surface {
    /// Resource and command.
    commands: BTreeSet<(String, String)>,
    reads: BTreeSet<String>,
}

impl Surface {
    /// The commands of a catalog and the read models that have a resource.
    #[must_use]
    pub fn new<'a>(catalog: &Catalog, reads: impl IntoIterator<Item = &'a str>) -> Self {
        let of = |aggregate: &annals_domain::catalog::AggregateType| {
            let resource = aggregate.resource();
            let names = aggregate.commands().map(|command| command.command.name);
            names.map(|name| (resource, name)).collect::<Vec<_>>()
        };
        Self::of_names(catalog.aggregates().flat_map(of), reads)
    }

    /// The same by name.
    #[must_use]
    pub fn of_names<'a>(
        commands: impl IntoIterator<Item = (&'a str, &'a str)>,
        reads: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let commands = commands.into_iter();
        Self {
            commands: commands.map(|(r, c)| (r.to_owned(), c.to_owned())).collect(),
            reads: reads.into_iter().map(str::to_owned).collect(),
        }
    }
}

/// What the policies say of a caller's roles and a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Yes, on any stream.
    Allow,
    /// Yes, on a stream of the caller's own.
    IfOwner,
    /// No.
    Deny,
}

impl Decision {
    /// What the engine is told; `None` if the request ends here.
    #[must_use]
    pub fn permission(self) -> Option<Permission> {
        match self {
            Self::Allow => Some(Permission::Allow),
            Self::IfOwner => Some(Permission::IfOwner),
            Self::Deny => None,
        }
    }
}

/// How far a right reaches. Ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Nothing.
    None,
    /// The rows whose owner column is the caller's owner claim.
    Own,
    /// Everything.
    All,
}

/// What a caller sees of a read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAccess {
    /// Which rows. A read model without an owner column has no own rows.
    pub rows: Reach,
    /// In which of these rows the private columns, which hold personal data. Never beyond `rows`.
    pub private: Reach,
}

/// What is not a resource of the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Area {
    /// The audit routes: everything as stored.
    Audit,
    /// The operations listener's `/admin`.
    Operations,
    /// Personal fields in the clear where others see ciphertext. Each such read is a security event.
    Personal,
}

impl Area {
    const ALL: [Self; 3] = [Self::Audit, Self::Operations, Self::Personal];

    fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Operations => "operations",
            Self::Personal => "personal",
        }
    }
}

/// Which roles have a right everywhere, and which on what is the caller's own.
#[derive(Debug, Clone, Copy, Default)]
struct Right {
    all: u64,
    own: u64,
}

impl Right {
    fn reach(self, roles: u64) -> Reach {
        if self.all & roles != 0 {
            Reach::All
        } else if self.own & roles != 0 {
            Reach::Own
        } else {
            Reach::None
        }
    }
}

/// Every decision there is.
#[derive(Debug)]
pub struct PolicyTable {
    roles: HashMap<Box<str>, u64>,
    commands: HashMap<Box<str>, HashMap<Box<str>, Right>>,
    reads: HashMap<Box<str>, (Right, Right)>,
    areas: HashMap<Area, Right>,
}

impl PolicyTable {
    /// Checks the policies against the program and evaluates them for every role and everything in `surface`.
    ///
    /// # Errors
    /// [`PolicyError`]: a policy that speaks of what is not there, can never apply, or fails when evaluated; a
    /// command that the policies' own schema forgets; more than 64 roles.
    pub fn build(policies: &Policies, surface: &Surface) -> Result<Self, PolicyError> {
        policies.check(surface)?;
        let roles = policies.roles();
        if roles.len() > MAX_ROLES {
            return Err(PolicyError::wrong(format!("more than {MAX_ROLES} roles")));
        }
        let evaluation = Evaluation {
            policies,
            roles: &roles,
        };
        let mut commands: HashMap<Box<str>, HashMap<Box<str>, Right>> = HashMap::new();
        for (resource, command) in &surface.commands {
            let right = evaluation.right(&format!("{resource}/{command}"), "Resource", resource)?;
            commands
                .entry(resource.as_str().into())
                .or_default()
                .insert(command.as_str().into(), right);
        }
        let mut reads = HashMap::new();
        for resource in &surface.reads {
            let rows = evaluation.right("read", "Resource", resource)?;
            let private = evaluation.right("read-private", "Resource", resource)?;
            reads.insert(resource.as_str().into(), (rows, private));
        }
        let mut areas = HashMap::new();
        for area in Area::ALL {
            areas.insert(area, evaluation.right("enter", "Area", area.name())?);
        }
        let bits = roles
            .iter()
            .zip(0..)
            .map(|(role, bit)| (role.as_str().into(), 1 << bit));
        Ok(Self {
            roles: bits.collect(),
            commands,
            reads,
            areas,
        })
    }

    /// Whether callers with these roles may send a command, before any state is looked at.
    #[must_use]
    pub fn permission(&self, roles: &[Arc<str>], resource: &str, command: &str) -> Decision {
        let right = self.commands.get(resource).and_then(|of| of.get(command));
        match right.map_or(Reach::None, |right| right.reach(self.mask(roles))) {
            Reach::All => Decision::Allow,
            Reach::Own => Decision::IfOwner,
            Reach::None => Decision::Deny,
        }
    }

    /// What callers with these roles see of a read model.
    #[must_use]
    pub fn read_access(&self, roles: &[Arc<str>], resource: &str) -> ReadAccess {
        let mask = self.mask(roles);
        let (rows, private) = self.reads.get(resource).copied().unwrap_or_default();
        let rows = rows.reach(mask);
        ReadAccess {
            rows,
            private: private.reach(mask).min(rows),
        }
    }

    /// Whether callers with these roles may enter an area.
    #[must_use]
    pub fn may_enter(&self, roles: &[Arc<str>], area: Area) -> bool {
        let right = self.areas.get(&area).copied().unwrap_or_default();
        right.reach(self.mask(roles)) == Reach::All
    }

    /// Roles that no policy file knows are no bits: they give nothing.
    fn mask(&self, roles: &[Arc<str>]) -> u64 {
        roles
            .iter()
            .filter_map(|role| self.roles.get(&**role))
            .fold(0, |mask, bit| mask | bit)
    }
}

struct Evaluation<'a> {
    policies: &'a Policies,
    roles: &'a [String],
}

impl Evaluation<'_> {
    fn right(&self, action: &str, kind: &str, resource: &str) -> Result<Right, PolicyError> {
        let mut right = Right::default();
        for (role, bit) in self.roles.iter().zip(0..) {
            let own = self.allows(role, action, kind, resource, true)?;
            let foreign = self.allows(role, action, kind, resource, false)?;
            // A right to what is not one's own only makes no sense, and is none.
            right.own |= u64::from(own) << bit;
            right.all |= u64::from(own && foreign) << bit;
        }
        Ok(right)
    }

    fn allows(
        &self,
        role: &str,
        action: &str,
        kind: &str,
        resource: &str,
        own: bool,
    ) -> Result<bool, PolicyError> {
        let context = Context::from_pairs([("own".to_owned(), RestrictedExpression::new_bool(own))])
            .map_err(PolicyError::wrong)?;
        let request = Request::new(
            uid("Role", role)?,
            uid("Action", action)?,
            uid(kind, resource)?,
            context,
            None,
        )
        .map_err(PolicyError::wrong)?;
        let entities: &Entities = self.policies.entities();
        let answer = Authorizer::new().is_authorized(&request, self.policies.set(), entities);
        // An error inside a `forbid` would skip it: that must not pass for a permission.
        match answer.diagnostics().errors().next() {
            Some(error) => Err(PolicyError::wrong(error)),
            None => Ok(answer.decision() == cedar_policy::Decision::Allow),
        }
    }
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, PolicyError> {
    let kind = kind.parse().map_err(PolicyError::wrong)?;
    Ok(EntityUid::from_type_name_and_id(
        kind,
        cedar_policy::EntityId::new(id),
    ))
}
