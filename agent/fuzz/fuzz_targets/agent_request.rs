#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gait::untrusted::agent_request(data));

// The bodies are there under `--cfg fuzzing` only, which cargo-fuzz sets.
#[cfg(not(fuzzing))]
fn main() {}
