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
    let started = std::time::Instant::now();
    let mut programs = match Programs::load(&LoadOptions::default()) {
        Ok(programs) => programs,
        Err(error) => panic!("{error}\n{}", error.remedy()),
    };
    println!("{} hooks attached in {:?}", programs.attached(), started.elapsed());
    let only = std::env::args().nth(1);
    let mut failed = 0;
    for (name, check) in checks::ALL {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&mut programs)));
        println!("{} {name}", if result.is_ok() { "ok    " } else { "FAILED" });
        failed += u32::from(result.is_err());
    }
    assert_eq!(failed, 0, "checks failed");
}
