//! Process managers, timers, the outbox and effects.
