//! History, states by replay and the search table of records.
