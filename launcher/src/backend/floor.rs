//! The Landlock floor: a ruleset of the kernel that nobody in the session can exceed, the supervisor included.
//!
//! It is made from the policy and over-approximates what the gate may allow. The gate decides; the floor bounds what a
//! mistake of ours could do. Landlock cannot express a hole in an allowed tree, names of files, or operations.

use std::os::fd::BorrowedFd;
use std::path::Path;

use gait_agent::policy::Floor;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};

use crate::sys::Errno;

/// File access rights that the floor handles: those of Linux 6.2. Device ioctls (6.10) are left alone, since terminals
/// live on them.
const HANDLED: ABI = ABI::V3;

/// The floor could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("the Landlock floor could not be installed")]
pub(crate) struct FloorError(#[from] landlock::RulesetError);

/// Returns whether the running kernel enforces Landlock at all, by asking it.
pub(crate) fn is_available() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Returns whether the running kernel can keep signals and abstract sockets inside a domain (Linux 6.12).
pub(crate) fn can_scope() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal | Scope::AbstractUnixSocket)
        .and_then(Ruleset::create)
        .is_ok()
}

fn rights(read: bool, write: bool, delete: bool, exec: bool) -> landlock::BitFlags<AccessFs> {
    let mut rights = landlock::BitFlags::empty();
    if read {
        rights |= AccessFs::ReadFile | AccessFs::ReadDir;
    }
    if write {
        rights |= AccessFs::WriteFile
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::MakeSym
            | AccessFs::MakeSock
            | AccessFs::MakeFifo
            | AccessFs::Refer
            | AccessFs::Truncate;
    }
    if delete {
        rights |= AccessFs::RemoveFile | AccessFs::RemoveDir | AccessFs::Refer | AccessFs::Truncate;
    }
    if exec {
        rights |= AccessFs::Execute;
    }
    rights
}

/// What the supervisor needs for itself, whatever the policy says: to look at tasks.
const OWN_READS: &str = "/proc";

/// Puts the calling thread, and all it starts, under the floor.
///
/// # Errors
/// Where the kernel refuses a ruleset that it said it supports.
pub(crate) fn restrict(floor: &Floor) -> Result<bool, FloorError> {
    let all = AccessFs::from_all(HANDLED);
    let mut ruleset =
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?.create()?;
    let own = [OWN_READS.to_owned()];
    let lists: [(&[String], landlock::BitFlags<AccessFs>); 5] = [
        (&floor.read, rights(true, false, false, false)),
        (&floor.write, rights(false, true, false, false)),
        (&floor.delete, rights(false, false, true, false)),
        (&floor.exec, rights(false, false, false, true)),
        (&own, rights(true, false, false, false)),
    ];
    for (paths, rights) in lists {
        for path in paths {
            // A hierarchy that does not exist yet begins at its nearest ancestor: a floor may be wider, never narrower.
            let Some((fd, is_directory)) = nearest(Path::new(path)) else { continue };
            let rights = if is_directory { rights } else { rights & AccessFs::from_file(HANDLED) };
            if !rights.is_empty() {
                ruleset = ruleset.add_rule(PathBeneath::new(fd, rights))?;
            }
        }
    }
    Ok(holds(&ruleset.restrict_self()?))
}

fn nearest(path: &Path) -> Option<(PathFd, bool)> {
    path.ancestors().find_map(|ancestor| {
        let fd = PathFd::new(ancestor).ok()?;
        Some((fd, ancestor.is_dir()))
    })
}

fn holds(status: &RestrictionStatus) -> bool {
    status.ruleset != RulesetStatus::NotEnforced
}

/// Keeps the calling process, and all it starts, from signalling and reaching abstract sockets of anybody outside.
///
/// # Errors
/// As [`restrict`].
pub(crate) fn scope() -> Result<bool, FloorError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::MakeBlock)?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)?
        .create()?;
    Ok(holds(&ruleset.restrict_self()?))
}

/// Lets the calling thread make socket nodes below one directory only.
///
/// # Errors
/// `EACCES` where Landlock cannot see to that.
pub(crate) fn only_sockets_below(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::MakeSock)
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rule(PathBeneath::new(directory, AccessFs::MakeSock)))
        .and_then(landlock::RulesetCreated::restrict_self);
    match restricted {
        Ok(status) if holds(&status) => Ok(()),
        _ => Err(Errno(libc::EACCES)),
    }
}
