//! Files and directories that rules name: known to the kernel by their identity, so that no other path to them is a way
//! round the rule.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use gait_agent::policy::Lowered;

use super::{NamedPath, Refused};
use crate::sys::fs::{self, At, OpenHow};

/// How many of the files and directories that rules name may exist: each is kept open, so that its inode stays in
/// memory, by whose address the kernel knows it.
pub(crate) const NAMED_MAX: usize = 1 << 14;

/// Says whether what the rules name can be known by its identity.
///
/// # Errors
/// More of it exists than a session can keep open.
pub(crate) fn look_up_names(rules: &Lowered) -> Result<(), Refused> {
    let there = |path: &[u8]| std::fs::symlink_metadata(OsStr::from_bytes(path)).is_ok();
    let count = rules.literals.iter().filter(|literal| there(&literal.path)).count();
    if count > NAMED_MAX { Err(too_many_names(NAMED_MAX)) } else { Ok(()) }
}

fn too_many_names(most: usize) -> Refused {
    Refused {
        what: format!(
            "more than {most} files and directories that the policy names exist, and the kernel's tables hold {most}"
        ),
        remedy: "name the directories that they are in, or use --backend seccomp".to_owned(),
    }
}

/// Looks up what the rules name, without following a link: rules speak of resolved paths. `most` may exist.
pub(super) fn places(rules: &Lowered, most: usize) -> Result<(Vec<NamedPath>, Vec<OwnedFd>), Refused> {
    let (mut places, mut kept) = (Vec::new(), Vec::new());
    let how = OpenHow {
        flags: u64::from((libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC).cast_unsigned()),
        mode: 0,
        resolve: fs::NO_SYMLINKS,
    };
    for (name, literal) in (0..).zip(&rules.literals) {
        let Ok(path) = CString::new(literal.path.as_slice()) else { continue };
        let fd = match fs::openat2(At::Cwd, &path, &how) {
            Ok(fd) => fd,
            // It is there, and would go unknown.
            Err(error) if matches!(error.0, libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
                return Err(Refused {
                    what: format!("{} cannot be kept open: {error}", String::from_utf8_lossy(&literal.path)),
                    remedy: "raise the limit of open files (ulimit -Hn), or use --backend seccomp".to_owned(),
                });
            }
            // Nothing there has no identity, and neither has what this user cannot get at.
            Err(_) => continue,
        };
        if places.len() == most {
            return Err(too_many_names(most));
        }
        let descriptor = fd.as_raw_fd().unsigned_abs();
        places.push(NamedPath { descriptor, state: literal.state, name });
        kept.push(fd);
    }
    Ok((places, kept))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use gait_agent::intent::SessionFacts;
    use gait_agent::policy::{CompiledPolicy, LowerOptions, Policy, Vars};

    use super::*;

    fn rules(directory: &std::path::Path, names: usize) -> Lowered {
        let paths: Vec<String> =
            (0..names).map(|at| format!("\"{}/{at}/**\"", directory.display())).collect();
        let text = format!(
            "default_verdict: allow\nexec: {{protect: []}}\nrules:\n  - {{name: r, effect: block, match: {{paths: [{}]}}}}\n",
            paths.join(", ")
        );
        let policy = Policy::parse("named", &text).unwrap();
        let facts = SessionFacts { identity: "uid:1".into(), workspace: "/w".into(), run_id: "run_x".into() };
        let policy = CompiledPolicy::compile(&policy, &facts, &Vars::default()).unwrap();
        policy.lower(&[], LowerOptions::default()).unwrap()
    }

    #[test]
    fn only_what_is_there_counts() {
        let directory = tempfile::tempdir().unwrap();
        let rules = rules(directory.path(), 100);
        // The last of them.
        for at in [97, 98, 99] {
            std::fs::create_dir(directory.path().join(at.to_string())).unwrap();
        }
        let (places, kept) = self::places(&rules, 3).unwrap();
        let inode = |place: &NamedPath| {
            let link = format!("/proc/self/fd/{}", place.descriptor);
            std::fs::metadata(link).unwrap().ino()
        };
        let mut found: Vec<u64> = places.iter().map(inode).collect();
        let mut wanted: Vec<u64> = [97, 98, 99]
            .map(|at| std::fs::metadata(directory.path().join(at.to_string())).unwrap().ino())
            .to_vec();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!((found, kept.len()), (wanted, 3));
        for place in &places {
            let literal = &rules.literals[place.name as usize];
            assert_eq!(literal.state, place.state, "{:?}", literal.path);
        }
    }

    #[test]
    fn one_more_than_can_be_known_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for at in 0..4 {
            std::fs::create_dir(directory.path().join(at.to_string())).unwrap();
        }
        let rules = rules(directory.path(), 4);
        let refused = self::places(&rules, 3).unwrap_err();
        assert!(refused.what.starts_with("more than 3 files and directories"), "{}", refused.what);
        assert!(self::places(&rules, 4).is_ok());
        assert!(look_up_names(&rules).is_ok());
    }
}
