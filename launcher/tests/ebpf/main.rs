//! The kernel programs on a real kernel: what they let through, stop, hold and tell.
//!
//! It needs a kernel to itself, as root: `GAIT_KERNEL_TESTS=1` says that it has one (`ebpf/vmtest` does). Without that it
//! says so and ends. One process loads the programs once; each check has a session of its own.

#![expect(
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "system calls on what the line itself makes, in processes of this test's own"
)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot set up must fail loudly"
)]

mod checks;
mod cost;
mod tables;
mod tree;

use gait::kernel_programs::{LoadOptions, Programs};

fn main() {
    if std::env::var_os("GAIT_KERNEL_TESTS").is_none() {
        println!("not run: needs a kernel to itself, see the first lines of tests/ebpf/main.rs");
        return;
    }
    if std::env::args().nth(1).as_deref() == Some("cost") {
        return cost::measure();
    }
    let only = std::env::args().nth(1);
    let known = |wanted: &str| {
        let groups = checks::ROOMY.iter().chain(checks::CRAMPED).copied();
        groups.flatten().any(|(name, _)| *name == wanted)
    };
    assert!(only.as_deref().is_none_or(known), "there is no check of that name");
    let cramped =
        LoadOptions { members: checks::MEMBERS, ring_bytes: checks::RING_BYTES, ..LoadOptions::default() };
    let failed = check(checks::ROOMY, &LoadOptions::default(), only.as_deref())
        + check(checks::CRAMPED, &cramped, only.as_deref());
    assert_eq!(failed, 0, "checks failed");
}

/// Loads the programs and makes the checks, or the one of them that is wanted. Returns how many failed.
fn check(groups: &[&[(&str, checks::Check)]], options: &LoadOptions, only: Option<&str>) -> u32 {
    let chosen: Vec<_> =
        groups.iter().copied().flatten().filter(|(name, _)| only.is_none_or(|only| only == *name)).collect();
    if chosen.is_empty() {
        return 0;
    }
    let started = std::time::Instant::now();
    let mut programs = match Programs::load(options) {
        Ok(programs) => programs,
        Err(error) => panic!("{error}\n{}", error.remedy()),
    };
    println!("{} hooks attached in {:?}", programs.attached(), started.elapsed());
    let mut failed = 0;
    for (name, check) in chosen {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&mut programs)));
        println!("{} {name}", if result.is_ok() { "ok    " } else { "FAILED" });
        failed += u32::from(result.is_err());
    }
    failed
}
