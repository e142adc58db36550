//! The checks, by topic. Each returns normally, or panics.

mod files;
mod images;
mod lifecycle;
mod numbers;
mod outward;
mod renames;
mod room;
mod tasks;
mod traps;
mod uring;

use std::fs;

use gait::kernel_programs::Programs;
use gait_ebpf::layout::{operation as op, verdict};

use super::tables::{Policy, but, every};

pub(crate) type Check = fn(&mut Programs);

/// With room as every session has it.
pub(crate) const ROOMY: &[&[(&str, Check)]] = &[
    lifecycle::CHECKS,
    files::CHECKS,
    renames::CHECKS,
    numbers::CHECKS,
    images::CHECKS,
    tasks::CHECKS,
    outward::CHECKS,
    uring::CHECKS,
    traps::CHECKS,
    room::ROOMY,
];
/// With room for [`room::MEMBERS`] tasks and a ring of [`room::RING_BYTES`].
pub(crate) const CRAMPED: &[&[(&str, Check)]] = &[room::CRAMPED];
pub(crate) use room::{MEMBERS, RING_BYTES};

const EACCES: i32 = -libc::EACCES;
const EPERM: i32 = -libc::EPERM;

/// A mask of operations.
fn bits(operations: &[u32]) -> u32 {
    operations.iter().fold(0, |bits, operation| bits | 1 << operation)
}

fn setup() {
    for directory in ["/tmp/t/pub/sub", "/tmp/t/secret/a/b", "/tmp/t/ro"] {
        fs::create_dir_all(directory).unwrap();
    }
    for file in ["/tmp/t/pub/f", "/tmp/t/secret/f", "/tmp/t/secret/a/b/g", "/tmp/t/ro/f"] {
        // Where a check failed, something else may be left there.
        if !fs::symlink_metadata(file).is_ok_and(|found| found.is_file()) {
            fs::remove_file(file).unwrap_or_default();
        }
        fs::write(file, "data").unwrap();
    }
}

fn secret() -> Policy {
    setup();
    let ro = but(every(verdict::BLOCK), &[op::READ, op::LIST], verdict::ALLOW);
    Policy::new(every(verdict::ALLOW))
        .rule("/tmp/t/ro", ro)
        .rule("/tmp/t/secret", every(verdict::BLOCK))
        .done()
}
