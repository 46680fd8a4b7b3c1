//! System tests of Annals.
