//! Regression: what a recorded run did, held against what a policy says of it now, or against what the same command
//! does now.
//!
//! [`normalise`] takes out of targets what differs between two runs of one command without meaning anything. Nothing
//! here runs a program or reads a clock.

mod normalise;

pub use normalise::{Places, normalise};
