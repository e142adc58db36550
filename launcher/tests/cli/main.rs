//! Golden tests of the command line: text, JSON and exit code of every verb, success and failure.
//!
//! Each test runs the real binary in an empty directory with an empty environment and compares the whole story with a
//! snapshot. To accept changes: `INSTA_UPDATE=always cargo test -p gait --test cli`, then read the diff.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set up its case has to fail")]

mod agent;
mod bad_input;
mod base;
mod docs;
mod evidence;
mod gate;
mod guard;
mod inventory;
mod keys;
mod policy;
mod receipt;
mod regress;
mod run;
mod sandbox;
mod schemas;
mod scout;
mod written;
