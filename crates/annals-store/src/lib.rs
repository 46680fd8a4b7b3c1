//! What any crate needs of Postgres: pools, database roles, migrations, leases, errors, notifications.
