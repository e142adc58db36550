//! `exec.limits.actions_per_second`.
//!
//! The number of processes is not limited here. Their making would have to be held, and a call that waits to be received
//! ends with `EINTR` where a signal comes whose handler does not restart calls; fork(2) never fails so, and a shell whose
//! last child has just ended takes it for the end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    pub(crate) fn new(per_second: u64) -> Self {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
