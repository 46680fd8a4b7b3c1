//! Read models as SQL folders: waves, checkpoints, parking.
