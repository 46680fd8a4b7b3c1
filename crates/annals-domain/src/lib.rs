//! What a domain developer writes: aggregates, processes, personal data, the given-when-then kit, the catalog.
