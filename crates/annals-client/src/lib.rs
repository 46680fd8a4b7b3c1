//! The one HTTP client: command line, benches, system tests, node to node.
