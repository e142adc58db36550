//! The caps of `exec.limits` that are kept while the workload runs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gait_agent::policy::ExecLimits;
use rustc_hash::FxHashMap;

use crate::exec::reaper;

/// Longest time that a call which was let through may take to make its process, as far as can be seen from outside.
const MAKING: Duration = Duration::from_secs(1);

/// The caps of a session.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) rate: Option<Rate>,
    pub(crate) population: Option<Population>,
}

impl Limits {
    /// Makes the caps for the tree below a process, where there is one.
    pub(crate) fn new(limits: ExecLimits, tree: Option<u32>) -> Self {
        let population = limits.processes.zip(tree).map(|(most, tree)| Population::new(most, tree));
        Self { rate: limits.actions_per_second.map(Rate::new), population }
    }
}

/// Actions per second, with one second's worth in advance.
///
/// A call with several actions goes through while there is anything left, and may leave a debt: otherwise it could never go
/// through where the cap is lower than the number of its actions.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u64,
    /// Billionths of an action that are left, and since when.
    left: Mutex<(i128, Instant)>,
}

const ACTION: i128 = 1_000_000_000;

impl Rate {
    fn new(per_second: u64) -> Self {
        Self { per_second, left: Mutex::new((i128::from(per_second) * ACTION, Instant::now())) }
    }

    fn state(&self, now: Instant) -> MutexGuard<'_, (i128, Instant)> {
        let mut state = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(state.1).as_nanos().min(10 * ACTION.unsigned_abs());
        let gained = i128::try_from(passed).unwrap_or(0) * i128::from(self.per_second);
        state.0 = (state.0 + gained).min(i128::from(self.per_second) * ACTION);
        state.1 = state.1.max(now);
        state
    }

    fn take_at(&self, now: Instant, actions: usize) -> bool {
        let mut state = self.state(now);
        if state.0 < ACTION {
            return false;
        }
        state.0 -= i128::try_from(actions).unwrap_or(i128::MAX / ACTION) * ACTION;
        true
    }

    /// Takes the actions of one call; returns whether the call is within the cap.
    pub(crate) fn take(&self, actions: usize) -> bool {
        self.take_at(Instant::now(), actions)
    }

    /// Returns whether a call would be within the cap.
    pub(crate) fn has_room(&self) -> bool {
        self.state(Instant::now()).0 >= ACTION
    }

    /// Takes the actions of a call that was let through already.
    pub(crate) fn charge(&self, actions: usize) {
        self.state(Instant::now()).0 -= i128::try_from(actions).unwrap_or(0) * ACTION;
    }

    /// Gives back what a call took that did not happen yet.
    pub(crate) fn give_back(&self, actions: usize) {
        self.state(Instant::now()).0 += i128::try_from(actions).unwrap_or(0) * ACTION;
    }
}

/// The number of living processes and threads below a process.
///
/// The kernel counts per user or per cgroup, and neither is the workload alone for somebody without rights; nobody else is
/// told when a process ends. So what is kept is an upper bound: each one that is let through adds to it, and only when it
/// reaches the cap the living are counted, by a look at `/proc`. What was let through and may not be there yet is added.
#[derive(Debug)]
pub(crate) struct Population {
    most: u64,
    tree: u32,
    state: Mutex<Counted>,
}

#[derive(Debug)]
struct Counted {
    /// At least as many as there are.
    upper: u64,
    /// Threads that were let make another, and when.
    making: FxHashMap<u32, Instant>,
}

impl Population {
    fn new(most: u64, tree: u32) -> Self {
        // The first process of the workload is there before anybody can ask.
        Self { most, tree, state: Mutex::new(Counted { upper: 1, making: FxHashMap::default() }) }
    }

    /// Returns whether a thread may make one more.
    pub(crate) fn admits(&self, tid: u32) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // It asks again, so it is done with the last one.
        state.making.remove(&tid);
        if state.upper >= self.most {
            // First who is done, then the look: what they made is there to be seen, or over.
            state.making.retain(|&tid, since| since.elapsed() < MAKING && may_be_making(tid));
            state.upper = reaper::population(self.tree) + state.making.len() as u64;
            if state.upper >= self.most {
                return false;
            }
        }
        state.upper += 1;
        state.making.insert(tid, Instant::now());
        true
    }
}

/// Returns whether a thread may still be in the call that makes another: not if it is gone, or sleeps in another call.
fn may_be_making(tid: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{tid}/syscall")) else {
        return std::fs::exists(format!("/proc/{tid}")).unwrap_or(true);
    };
    let number = text.split(' ').next().and_then(|word| word.trim().parse::<i64>().ok());
    // A thread that runs, in the kernel or not, shows no number.
    number.is_none_or(|number| [libc::SYS_clone, libc::SYS_fork, libc::SYS_vfork].contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_second_is_in_advance_and_then_the_rate_holds() {
        let rate = Rate::new(100);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let taken = |ms| (0..1000).filter(|_| rate.take_at(at(ms), 1)).count();
        assert_eq!(taken(0), 100);
        assert_eq!(taken(9), 0);
        assert_eq!(taken(20), 2);
        assert_eq!(taken(520), 50);
        assert_eq!(taken(60_000), 100, "no more than one second is saved up");
        assert_eq!(taken(10), 0, "a clock that goes back gives nothing");
    }

    #[test]
    fn a_call_of_many_actions_goes_through_and_is_paid_for() {
        let rate = Rate::new(1);
        let start = Instant::now();
        assert!(rate.take_at(start, 4));
        assert!(!rate.take_at(start + Duration::from_secs(3), 1));
        assert!(rate.take_at(start + Duration::from_secs(4), 1));
    }

    #[test]
    fn what_lives_below_a_process_is_counted_with_its_threads() {
        let before = reaper::population(std::process::id());
        let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        assert_eq!(reaper::population(child.id()), 0);
        assert!(reaper::population(std::process::id()) > before, "other tests may have children too");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
