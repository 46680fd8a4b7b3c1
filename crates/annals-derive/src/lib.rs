//! Derive macros for commands, events, rejections, states and inputs: data and tables, never control flow.
