//! The given-when-then kit: a rule's test reads as the rule does, and cannot be misordered.
