//! The policies of `policies/` against the table "Who may send and read what", written out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_auth::{Area, Decision, Policies, PolicyTable, Reach, Surface};

/// Every command of the reference domain.
const COMMANDS: [(&str, &[&str]); 4] = [
    (
        "products",
        &[
            "register",
            "reprice",
            "receive",
            "adjust",
            "reserve",
            "release",
            "ship",
            "discontinue",
            "reinstate",
        ],
    ),
    (
        "customers",
        &["register", "change-contact", "admit", "block", "unblock", "erase"],
    ),
    (
        "orders",
        &[
            "place", "confirm", "reject", "cancel", "ship", "deliver", "return",
        ],
    ),
    (
        "payments",
        &["request", "authorize", "decline", "capture", "void", "refund"],
    ),
];

const READS: [&str; 6] = [
    "orders",
    "order_lines",
    "products",
    "payments",
    "customers",
    "daily_sales",
];

const ROLES: [&str; 9] = [
    "customer",
    "clerk",
    "warehouse",
    "finance",
    "auditor",
    "privacy",
    "operator",
    "admin",
    "system",
];

/// A row is a command, a column a role in the order of [`ROLES`]: `A` any, `o` own only, `-` no.
const MATRIX: &str = "
    products/register         - A - - - - - A -
    products/reprice          - A - - - - - A -
    products/receive          - - A - - - - A -
    products/adjust           - - A - - - - A -
    products/reserve          - - - - - - - - A
    products/release          - - - - - - - - A
    products/ship             - - - - - - - - A
    products/discontinue      - A - - - - - A -
    products/reinstate        - A - - - - - A -
    customers/register        o A - - - - - A -
    customers/change-contact  o A - - - - - A -
    customers/admit           - - - - - - - - A
    customers/block           - A - - - - - A -
    customers/unblock         - A - - - - - A -
    customers/erase           - - - - - A - A -
    orders/place              o A - - - - - A -
    orders/confirm            - - - - - - - - A
    orders/reject             - - - - - - - - A
    orders/cancel             o A - - - - - A A
    orders/ship               - - A - - - - A -
    orders/deliver            - - A - - - - A -
    orders/return             o - A - - - - A -
    payments/request          - - - - - - - - A
    payments/authorize        - - - - - - - - A
    payments/decline          - - - - - - - - A
    payments/capture          - - - A - - - A A
    payments/void             - - - A - - - A A
    payments/refund           - - - A - - - A A";

/// The same for read models: rows, then private columns.
const READ_MATRIX: &str = "
    orders       oo AA A- A- A- -- -- AA --
    order_lines  oo AA A- -- A- -- -- AA --
    products     A- AA A- A- A- -- -- AA --
    payments     oo AA -- A- A- -- -- AA --
    customers    oo AA -- -- A- AA -- AA --
    daily_sales  -- AA -- A- A- -- -- AA --";

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

fn surface() -> Surface {
    let commands = COMMANDS
        .iter()
        .flat_map(|(resource, names)| names.iter().map(move |name| (*resource, *name)));
    Surface::of_names(commands, READS)
}

fn roles(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn table() -> PolicyTable {
    PolicyTable::build(&Policies::from_dir(&dir()).unwrap(), &surface()).unwrap()
}

fn letter(reach: Reach) -> char {
    match reach {
        Reach::All => 'A',
        Reach::Own => 'o',
        Reach::None => '-',
    }
}

#[test]
fn every_role_may_send_exactly_the_commands_of_the_design() {
    let table = table();
    let mut rows = MATRIX.trim().lines();
    for (resource, commands) in COMMANDS {
        let mut expected: Vec<_> = rows.by_ref().take(commands.len()).map(str::trim).collect();
        let mut found: Vec<_> = commands
            .iter()
            .map(|command| {
                let decisions =
                    ROLES.map(
                        |role| match table.permission(&roles(&[role]), resource, command) {
                            Decision::Allow => "A",
                            Decision::IfOwner => "o",
                            Decision::Deny => "-",
                        },
                    );
                format!("{:<24}  {}", format!("{resource}/{command}"), decisions.join(" "))
            })
            .collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
    assert_eq!(rows.next(), None);
}

#[test]
fn every_role_reads_exactly_what_the_design_says() {
    let table = table();
    for (resource, row) in READS.iter().zip(READ_MATRIX.trim().lines()) {
        let row: Vec<_> = row.split_whitespace().collect();
        let found = ROLES.map(|role| {
            let access = table.read_access(&roles(&[role]), resource);
            format!("{}{}", letter(access.rows), letter(access.private))
        });
        assert_eq!(
            (*resource, &found[..]),
            (
                row[0],
                &row[1..].iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]
            )
        );
    }
}

#[test]
fn areas_are_for_their_roles_and_for_admin() {
    let table = table();
    for (area, of) in [
        (Area::Audit, "auditor"),
        (Area::Operations, "operator"),
        (Area::Personal, "privacy"),
    ] {
        for role in ROLES {
            let expected = role == of || role == "admin";
            assert_eq!(
                table.may_enter(&roles(&[role]), area),
                expected,
                "{role} in {area:?}"
            );
        }
    }
}

#[test]
fn roles_add_up_and_what_is_not_known_is_denied() {
    let table = table();
    let both = roles(&["customer", "warehouse"]);
    assert_eq!(table.permission(&both, "orders", "return"), Decision::Allow);
    assert_eq!(table.permission(&both, "orders", "place"), Decision::IfOwner);
    assert_eq!(table.permission(&[], "orders", "place"), Decision::Deny);
    assert_eq!(
        table.permission(&roles(&["root"]), "orders", "place"),
        Decision::Deny
    );
    assert_eq!(
        table.permission(&roles(&["Admin"]), "orders", "place"),
        Decision::Deny
    );
    assert_eq!(
        table.permission(&roles(&["admin"]), "orders", "explode"),
        Decision::Deny
    );
    assert_eq!(
        table.permission(&roles(&["admin"]), "unknown", "place"),
        Decision::Deny
    );
    let read = table.read_access(&roles(&["admin"]), "unknown");
    assert_eq!((read.rows, read.private), (Reach::None, Reach::None));
    assert!(!table.may_enter(&roles(&["root"]), Area::Audit));
    // Private columns never reach beyond the rows, and both come from any role.
    let read = table.read_access(&roles(&["auditor", "customer"]), "customers");
    assert_eq!((read.rows, read.private), (Reach::All, Reach::Own));
}

#[test]
fn the_schema_in_the_folder_is_the_one_of_the_program() {
    let path = dir().join("schema.cedarschema");
    let expected = surface().schema();
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if found != expected {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schema.cedarschema");
        std::fs::write(&new, &expected).unwrap();
        panic!(
            "policies/schema.cedarschema is not up to date: copy {}",
            new.display()
        );
    }
}

const TWO_ROLES: &str = r#"[{"uid": {"type": "Role", "id": "a"}, "attrs": {}, "parents": []},
                            {"uid": {"type": "Role", "id": "b"}, "attrs": {}, "parents": []}]"#;

fn built(policy: &str) -> Result<PolicyTable, String> {
    let files = [("roles.json", TWO_ROLES), ("x.cedar", policy)];
    let policies = Policies::from_files(files).map_err(|error| error.to_string())?;
    PolicyTable::build(&policies, &surface()).map_err(|error| error.to_string())
}

#[test]
fn policies_that_speak_of_what_is_not_there_are_refused_at_start() {
    for (policy, says) in [
        (
            r#"permit(principal in Role::"a", action == Action::"orders/explode", resource);"#,
            "explode",
        ),
        (
            r#"permit(principal in Role::"c", action == Action::"orders/place", resource);"#,
            "`c`",
        ),
        (
            r#"permit(principal, action == Action::"orders/place", resource) when { principal == Role::"c" };"#,
            "`c`",
        ),
        (
            r#"permit(principal in Role::"a", action == Action::"read", resource == Resource::"oders");"#,
            "oders",
        ),
        (
            r#"permit(principal, action == Action::"read", resource) when { [Resource::"oders"].contains(resource) };"#,
            "oders",
        ),
        // Can never apply: a command has no area.
        (
            r#"permit(principal in Role::"a", action == Action::"orders/place", resource == Area::"audit");"#,
            "x.cedar#0",
        ),
        (
            r#"permit(principal in Role::"a", action, resource) when { context.owm };"#,
            "owm",
        ),
        (r#"permit(principal in Role::"a", action, resource"#, "x.cedar"),
        (
            r#"permit(principal in ?principal, action, resource);"#,
            "templates",
        ),
    ] {
        let error = built(policy).expect_err(policy);
        assert!(error.contains(says), "{policy}\n{error}");
    }
    assert!(
        Policies::from_files([("x.cedar", "")])
            .unwrap_err()
            .to_string()
            .contains("roles.json")
    );
}

#[test]
fn a_schema_that_forgets_a_command_is_refused() {
    let schema = surface().schema().replace("\"orders/cancel\",\n", "");
    let files = [("roles.json", TWO_ROLES), ("schema.cedarschema", &schema)];
    let error = PolicyTable::build(&Policies::from_files(files).unwrap(), &surface()).unwrap_err();
    assert!(error.to_string().contains("orders/cancel"), "{error}");
}

#[test]
fn forbid_takes_from_one_role_and_wins_over_its_permits() {
    let table = built(
        r#"permit(principal, action == Action::"orders/place", resource);
           forbid(principal in Role::"a", action, resource) unless { context.own };"#,
    )
    .unwrap();
    assert_eq!(
        table.permission(&roles(&["a"]), "orders", "place"),
        Decision::IfOwner
    );
    assert_eq!(
        table.permission(&roles(&["b"]), "orders", "place"),
        Decision::Allow
    );
    assert_eq!(
        table.permission(&roles(&["a", "b"]), "orders", "place"),
        Decision::Allow
    );
    // A right to what is not one's own only is none.
    let table =
        built(r#"permit(principal, action == Action::"orders/place", resource) unless { context.own };"#)
            .unwrap();
    assert_eq!(
        table.permission(&roles(&["a"]), "orders", "place"),
        Decision::Deny
    );
}

#[test]
fn a_surface_is_what_the_catalog_and_the_read_models_have() {
    let surface = Surface::new(&crate::people::catalog(), ["people", "notes"]);
    let schema = surface.schema();
    for name in [
        "\"people/register\"",
        "\"people/note\"",
        "\"notes\"",
        "\"people\"",
    ] {
        assert!(schema.contains(name), "{schema}");
    }
    let policy = r#"permit(principal in Role::"a", action == Action::"people/note", resource);"#;
    let policies = Policies::from_files([("roles.json", TWO_ROLES), ("x.cedar", policy)]).unwrap();
    let table = PolicyTable::build(&policies, &surface).unwrap();
    assert_eq!(
        table.permission(&roles(&["a"]), "people", "note"),
        Decision::Allow
    );
    assert_eq!(
        table.permission(&roles(&["a"]), "people", "register"),
        Decision::Deny
    );
    // A program without commands and read models has a schema too.
    let nothing = Policies::from_files([("roles.json", TWO_ROLES)]).unwrap();
    assert!(PolicyTable::build(&nothing, &Surface::default()).is_ok());
}

#[test]
fn without_policies_everything_is_denied() {
    let table = built("").unwrap();
    for (resource, commands) in COMMANDS {
        for command in commands {
            assert_eq!(
                table.permission(&roles(&["a", "b"]), resource, command),
                Decision::Deny
            );
        }
    }
    assert_eq!(table.read_access(&roles(&["a"]), "orders").rows, Reach::None);
}
