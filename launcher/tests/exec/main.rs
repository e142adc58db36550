//! Black-box tests of `gait exec`: the built binary against real programs and against attacks.
//!
//! `conformance` plays scenario files (one per row of the mapping table at least); `escape`, `races` and `supervisor`
//! attack; `session` and `terminal` check that a workload notices nothing else; `command_line` what gait says itself;
//! `tools` runs what people run. All of them go through `harness`. The probes are C, built by `cc` at test time, because they need exact control over system calls.
//! Everything acts on a temporary directory, on loopback and on processes of the test's own.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot be set up must fail loudly")]
#![expect(clippy::print_stderr, reason = "a skipped check says so on the test's own output")]

mod command_line;
mod conformance;
mod dns;
mod escape;
mod evidence;
mod harness;
mod kernel;
mod keys;
mod limits;
mod probes;
mod races;
mod reads;
mod regress;
mod scripted;
mod seal;
mod session;
mod supervisor;
mod terminal;
mod tools;
