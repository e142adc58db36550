//! Sessions that are recorded, sealed, read and verified, and every way of tampering with the result.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod bad_input;
mod diff;
mod reference;
mod session;
mod session_kit;
mod tamper;
