//! The application builder: configuration, command line, telemetry, node roles, development mode.
