//! The edge: HTTP to typed calls, answers to HTTP.
