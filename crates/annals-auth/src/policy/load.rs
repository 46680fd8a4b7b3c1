//! Reading policies, and finding at start what is wrong with them.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;

use cedar_policy::{Entities, PolicyId, PolicySet, Schema, SchemaFragment, ValidationMode, Validator};
use serde_json::Value;

use super::{Area, Surface, uid};

/// The policies' own schema, for editors and reviewers; what the program has decides.
const SCHEMA_FILE: &str = "schema.cedarschema";
/// The roles, and which roles have the rights of which others.
const ROLES_FILE: &str = "roles.json";
const POLICY_SUFFIX: &str = ".cedar";

/// What is wrong with the policies, in words, with the file where there is one.
#[derive(Debug, Clone, thiserror::Error)]
#[error("policies: {0}")]
pub struct PolicyError(String);

impl PolicyError {
    pub(super) fn wrong(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
    fn in_file(file: &str, what: impl fmt::Display) -> Self {
        Self(format!("{file}: {what}"))
    }
}

/// A folder of policies: `*.cedar`, `roles.json`, `schema.cedarschema`.
#[derive(Debug)]
pub struct Policies {
    set: PolicySet,
    entities: Entities,
    roles: Vec<String>,
    schema: Option<SchemaFragment>,
}

impl Policies {
    /// Reads the folder. Files of other names are passed over.
    ///
    /// # Errors
    /// [`PolicyError`]: a file that cannot be read or does not parse.
    pub fn from_dir(dir: &Path) -> Result<Self, PolicyError> {
        let failed = |what: std::io::Error| PolicyError::in_file(&dir.display().to_string(), what);
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.ends_with(POLICY_SUFFIX) || name == ROLES_FILE || name == SCHEMA_FILE {
                let text = fs::read_to_string(&path).map_err(|what| PolicyError::in_file(&name, what))?;
                files.push((name, text));
            }
        }
        files.sort_unstable();
        Self::from_files(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    /// The same from texts that a program holds, each with the name that its file would have.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn from_files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, PolicyError> {
        let mut set = PolicySet::new();
        let mut roles = None;
        let mut schema = None;
        for (file, text) in files {
            let wrong = |what: &dyn fmt::Display| PolicyError::in_file(file, what);
            if file == ROLES_FILE {
                roles = Some(Entities::from_json_str(text, None).map_err(|e| wrong(&chain(&e)))?);
            } else if file == SCHEMA_FILE {
                let (fragment, _) =
                    SchemaFragment::from_cedarschema_str(text).map_err(|e| wrong(&chain(&e)))?;
                schema = Some(fragment);
            } else {
                let parsed: PolicySet = text.parse().map_err(|e| wrong(&chain(&e)))?;
                if parsed.templates().next().is_some() {
                    return Err(wrong(&"templates are not used here"));
                }
                // Ids are numbers within a file: the file's name keeps them apart, and says where it is.
                for (number, policy) in parsed.policies().enumerate() {
                    let id = PolicyId::new(format!("{file}#{number}"));
                    set.add(policy.new_id(id)).map_err(|e| wrong(&chain(&e)))?;
                }
            }
        }
        let entities = roles.ok_or_else(|| {
            PolicyError::in_file(ROLES_FILE, "is missing: it lists the roles as Cedar entities")
        })?;
        Ok(Self {
            roles: role_names(&entities)?,
            set,
            entities,
            schema,
        })
    }

    pub(super) fn set(&self) -> &PolicySet {
        &self.set
    }
    pub(super) fn entities(&self) -> &Entities {
        &self.entities
    }
    pub(super) fn roles(&self) -> Vec<String> {
        self.roles.clone()
    }

    /// Finds policies that speak of what is not there, and a schema that forgets what is.
    pub(super) fn check(&self, surface: &Surface) -> Result<(), PolicyError> {
        let (schema, _) = Schema::from_cedarschema_str(&surface.schema())
            .map_err(|error| PolicyError::wrong(chain(&error)))?;
        if let Some(own) = &self.schema {
            let own = Schema::from_schema_fragments([own.clone()])
                .map_err(|error| PolicyError::in_file(SCHEMA_FILE, chain(&error)))?;
            same_actions(&own, &schema)?;
            self.validate(own)?;
        }
        self.validate(schema)?;
        self.check_roles()
    }

    fn validate(&self, schema: Schema) -> Result<(), PolicyError> {
        let result = Validator::new(schema).validate(&self.set, ValidationMode::Strict);
        let errors = result.validation_errors().map(ToString::to_string);
        // A policy that can never apply is a slip of the pen too.
        let warnings = result.validation_warnings().map(ToString::to_string);
        match errors.chain(warnings).next() {
            Some(found) => Err(PolicyError::wrong(found)),
            None => Ok(()),
        }
    }

    /// The schema cannot list roles, since a role may be in another one; so literals are compared by hand.
    fn check_roles(&self) -> Result<(), PolicyError> {
        for policy in self.set.policies() {
            let json = policy.to_json().map_err(PolicyError::wrong)?;
            let mut named = BTreeSet::new();
            role_literals(&json, &mut named);
            if let Some(role) = named.into_iter().find(|role| !self.roles.contains(role)) {
                return Err(PolicyError::in_file(
                    policy.id().as_ref(),
                    format!("role `{role}` is not in {ROLES_FILE}"),
                ));
            }
        }
        Ok(())
    }
}

/// An error with its causes: Cedar's outermost one often only says that something is wrong.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

fn role_names(entities: &Entities) -> Result<Vec<String>, PolicyError> {
    let role = uid("Role", "")?;
    let mut roles = Vec::new();
    for entity in entities.iter() {
        let id = entity.uid();
        if id.type_name() != role.type_name() {
            return Err(PolicyError::in_file(ROLES_FILE, format!("{id} is not a Role")));
        }
        roles.push(id.id().unescaped().to_owned());
    }
    roles.sort_unstable();
    Ok(roles)
}

fn role_literals(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::Object(map) => {
            if map.get("type").and_then(Value::as_str) == Some("Role")
                && let Some(id) = map.get("id").and_then(Value::as_str)
            {
                found.insert(id.to_owned());
            }
            map.values().for_each(|value| role_literals(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| role_literals(value, found)),
        _ => {}
    }
}

fn same_actions(own: &Schema, programs: &Schema) -> Result<(), PolicyError> {
    let names = |schema: &Schema| -> BTreeSet<String> {
        schema
            .actions()
            .map(|action| action.id().unescaped().to_owned())
            .collect()
    };
    let (own, programs) = (names(own), names(programs));
    if let Some(missing) = programs.difference(&own).next() {
        let what = format!("action \"{missing}\" is missing: this program has it");
        return Err(PolicyError::in_file(SCHEMA_FILE, what));
    }
    match own.difference(&programs).next() {
        Some(unknown) => {
            let what = format!("action \"{unknown}\" is not known: this program has no such command");
            Err(PolicyError::in_file(SCHEMA_FILE, what))
        }
        None => Ok(()),
    }
}

impl Surface {
    /// The Cedar schema of the program: what `schema.cedarschema` should be.
    #[must_use]
    pub fn schema(&self) -> String {
        let list = |names: &mut dyn Iterator<Item = String>| {
            let quoted: Vec<_> = names.map(|name| format!("  \"{name}\"")).collect();
            quoted.join(",\n")
        };
        let resources: BTreeSet<_> = self
            .commands
            .iter()
            .map(|(resource, _)| resource.clone())
            .chain(self.reads.clone())
            .collect();
        let mut text = String::from(
            "// What policies can speak of. Made from the program's commands and read models.\n\n\
             // roles.json lists the roles, and which has the rights of which others.\n\
             entity Role in [Role];\n\n\
             // What stands behind /v1/ in a path.\n",
        );
        let areas = Area::ALL.map(|area| format!("\"{}\"", area.name())).join(", ");
        // A program without any resource still needs a schema that parses.
        let resources = if resources.is_empty() {
            BTreeSet::from(["-".to_owned()])
        } else {
            resources
        };
        let _ = write!(
            text,
            "entity Resource enum [\n{}\n];\n\nentity Area enum [{areas}];\n\n\
             // `own`: the stream or row is the caller's own.\n\
             action \"read\", \"read-private\" appliesTo {{\n  principal: Role, resource: Resource, \
             context: {{ own: Bool }}\n}};\n\n\
             action \"enter\" appliesTo {{\n  principal: Role, resource: Area, context: {{ own: Bool }}\n}};\n",
            list(&mut resources.into_iter()),
        );
        if !self.commands.is_empty() {
            let actions = list(&mut self.commands.iter().map(|(r, c)| format!("{r}/{c}")));
            let _ = write!(
                text,
                "\naction\n{actions}\nappliesTo {{\n  principal: Role, resource: Resource, \
                 context: {{ own: Bool }}\n}};\n",
            );
        }
        text
    }
}
