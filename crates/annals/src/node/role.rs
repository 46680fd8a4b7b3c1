//! Node roles: what a node does.

use annals_store::roles::DatabaseRole;

use crate::config::ConfigError;

/// What a node does. (Not a database role, and not a caller's.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Command,
    Projector,
    Process,
    Query,
    Audit,
}

impl Role {
    pub(crate) const ALL: [Self; 5] = [
        Self::Command,
        Self::Projector,
        Self::Process,
        Self::Query,
        Self::Audit,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Projector => "projector",
            Self::Process => "process",
            Self::Query => "query",
            Self::Audit => "audit",
        }
    }

    /// As whom it works on the database.
    pub(crate) fn database(self) -> DatabaseRole {
        match self {
            Self::Command => DatabaseRole::Command,
            Self::Projector => DatabaseRole::Projector,
            Self::Process => DatabaseRole::Process,
            Self::Query => DatabaseRole::Query,
            Self::Audit => DatabaseRole::Audit,
        }
    }
}

/// The roles of `node.roles`, each once; all of them if none is named.
pub(crate) fn parse(names: &[String]) -> Result<Vec<Role>, ConfigError> {
    if names.is_empty() {
        return Ok(Role::ALL.to_vec());
    }
    let mut roles = Vec::new();
    for name in names {
        let found = Role::ALL.into_iter().find(|role| role.name() == name);
        roles.push(found.ok_or_else(|| {
            let all = Role::ALL.map(Role::name).join(", ");
            ConfigError(format!(
                "node.roles: there is no node role `{name}`; there are {all}"
            ))
        })?);
    }
    roles.sort_unstable();
    roles.dedup();
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_by_name_each_once() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(parse(&[]).unwrap(), Role::ALL);
        assert_eq!(
            parse(&names(&["query", "command", "query"])).unwrap(),
            [Role::Command, Role::Query]
        );
        let error = parse(&names(&["projectors"])).unwrap_err();
        assert!(
            error.0.contains("`projectors`") && error.0.contains("projector,"),
            "{error}"
        );
    }
}
