//! The kernel side of the eBPF backend.
//!
//! `kernel/` holds the programs in C, `layout` what they share with user space. The compiled object is part of the
//! repository, so that building gait needs no clang; a check of the repository compiles it anew and compares.
//!
//! Nothing here decides what a policy means: user space lowers a policy into tables (`gait_agent::policy::lower`), the
//! programs walk them.

#![no_std]

pub mod layout;

/// The compiled programs, at an address that suits the readers of object files.
pub static OBJECT: &[u8] = &ALIGNED.0;

#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static ALIGNED: Aligned<[u8; include_bytes!("../gait.bpf.o").len()]> =
    Aligned(*include_bytes!("../gait.bpf.o"));
