//! sched_setaffinity(2): where a held caller wakes up.
//!
//! A descriptor is put into the caller's table by the caller itself: `SECCOMP_IOCTL_NOTIF_ADDFD` wakes it, waits, and the
//! caller goes back to sleep. That wake-up is a plain one, so the scheduler sends the caller to whichever CPU idles, and
//! its answer comes back from there: two trips between CPUs, each of which ends an idle state. On a virtual machine with
//! two CPUs an open took 69 µs with them and 27 µs without. So the caller's mask is narrowed for the time of the
//! injection, in which it runs no code of its own, and put back before it is answered.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

/// A held task that wakes up on our CPU only, until this is dropped.
#[derive(Debug)]
pub(crate) struct Steered {
    task: Pid,
    here: CpuSet,
    before: CpuSet,
}

impl Steered {
    /// Narrows the mask of a task that is held in a call. `None` where that is neither possible nor of use.
    pub(crate) fn here(tid: u32) -> Option<Self> {
        // 0 would mean ourselves.
        let task = Pid::from_raw(i32::try_from(tid).ok().filter(|&tid| tid > 0)?);
        let cpu = sched_getcpu().ok()?;
        let mut here = CpuSet::new();
        here.set(cpu).ok()?;
        let before = sched_getaffinity(task).ok()?;
        // Where it may not run here it stays as it is, and where it may run nowhere else there is nothing to do.
        if before == here || !before.is_set(cpu).ok()? {
            return None;
        }
        sched_setaffinity(task, &here).ok()?;
        Some(Self { task, here, before })
    }
}

impl Drop for Steered {
    fn drop(&mut self) {
        // A mask that somebody else set meanwhile stands. Who is inside the tree is held when it tries; for others remains
        // what lies between the look and the change.
        if sched_getaffinity(self.task) == Ok(self.here) {
            // The task may have been killed.
            let _gone = sched_setaffinity(self.task, &self.before).is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> (std::process::Child, Pid) {
        let child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        (child, pid)
    }

    #[test]
    fn the_mask_is_narrowed_and_put_back() {
        let (mut child, pid) = sleeper();
        let before = sched_getaffinity(pid).unwrap();
        let steered = Steered::here(child.id());
        let within = sched_getaffinity(pid).unwrap();
        let cpus = (0..CpuSet::count()).filter(|&cpu| within.is_set(cpu).unwrap()).count();
        let had_one = (0..CpuSet::count()).filter(|&cpu| before.is_set(cpu).unwrap()).count() == 1;
        drop(steered);
        assert_eq!(sched_getaffinity(pid).unwrap(), before);
        assert!(cpus == 1 || !had_one && within == before, "{cpus} CPUs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_mask_that_somebody_set_meanwhile_stands() {
        let (mut child, pid) = sleeper();
        if let Some(steered) = Steered::here(child.id()) {
            let other =
                |&cpu: &usize| steered.before.is_set(cpu).unwrap() && !steered.here.is_set(cpu).unwrap();
            let mut theirs = CpuSet::new();
            theirs.set((0..CpuSet::count()).find(other).unwrap()).unwrap();
            sched_setaffinity(pid, &theirs).unwrap();
            drop(steered);
            assert_eq!(sched_getaffinity(pid).unwrap(), theirs);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn neither_we_nor_what_is_gone_is_steered() {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        assert!(Steered::here(0).is_none());
        assert!(Steered::here(u32::MAX).is_none());
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), before);
    }
}
