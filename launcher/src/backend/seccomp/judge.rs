//! The judge: one decision per action, recorded before it takes effect.

use std::sync::Mutex;

use gait_agent::action::Action;
use gait_agent::gate::{Decision, Verdict};
use gait_agent::policy::CompiledPolicy;

use super::supervisor::{Stop, errno_of, lock};
use crate::approval::Desk;
use crate::exec::event::{Approval, Event};
use crate::session_config::decide;
use crate::sys::Errno;
use crate::sys::ring::Producer;

/// Actions that one call can be: a rename with something in its way.
const MOST_ACTIONS: usize = 4;

/// Decides and records.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) policy: CompiledPolicy,
    /// Paths that the workload may not even read, each with everything below it.
    pub(super) hidden: Vec<Vec<u8>>,
    /// Nothing is stopped; records say so.
    pub(super) simulate: bool,
    pub(super) events: Mutex<Producer>,
    pub(super) desk: Desk,
}

impl Judge {
    /// Judges the actions of one call.
    ///
    /// # Errors
    /// See [`super::supervisor::Worker::judge`].
    pub(super) fn judge<'b>(
        &self,
        tid: u32,
        at_ns: u64,
        actions: impl Iterator<Item = &'b Action<'b>> + Clone,
        may_block: bool,
        message: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let strictest = actions.clone().map(|action| self.decide(action).verdict()).max();
        let strictest = strictest.unwrap_or(Verdict::Block);
        // All answers first, then all records: a call that must wait for an answer is handled again from the start.
        let mut judged = [None; MOST_ACTIONS];
        for (slot, action) in judged.iter_mut().zip(actions) {
            let decision = self.decide(action);
            let verdict = decision.verdict();
            // Where another action of the call is blocked anyway, nobody is asked.
            let ask = verdict == Verdict::RequireApproval && strictest == verdict && !self.simulate;
            let approval = if ask { self.ask(action, decision, may_block)? } else { Approval::None };
            *slot = Some((action, decision, approval));
        }
        let mut refused = None;
        for (action, decision, approval) in judged.into_iter().flatten() {
            if decision.verdict() != Verdict::Allow && !approval.grants() {
                refused.get_or_insert(errno_of(action));
            }
            self.record(tid, at_ns, action, decision, approval, message)?;
        }
        match refused {
            Some(errno) if !self.simulate => Err(errno.into()),
            _ => Ok(()),
        }
    }

    /// Decides about one action.
    pub(super) fn decide(&self, action: &Action<'_>) -> Decision {
        decide(&self.policy, &self.hidden, action)
    }

    fn ask(&self, action: &Action<'_>, decision: Decision, may_block: bool) -> Result<Approval, Stop> {
        let explain = || self.policy.explain(decision);
        match self.desk.known(action, decision) {
            Some(approval) => Ok(approval),
            None if may_block => Ok(self.desk.ask(action, decision, &explain())),
            None => Err(Stop::Slow),
        }
    }

    /// Records an action that never happens, whatever the policy says, and returns its errno.
    pub(super) fn refuse(
        &self,
        tid: u32,
        at_ns: u64,
        action: &Action<'_>,
        message: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        self.record(tid, at_ns, action, Decision::NEVER, Approval::None, message)?;
        if self.simulate { Ok(()) } else { Err(errno_of(action).into()) }
    }

    /// Hands the record over; an allow is answered only after this.
    fn record(
        &self,
        tid: u32,
        at_ns: u64,
        action: &Action<'_>,
        decision: Decision,
        approval: Approval,
        message: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let event = Event {
            at_ns,
            tid,
            decision: decision.to_u64(),
            enforced: !self.simulate,
            approval,
            action: *action,
        };
        event.encode(message);
        // A journal that takes no more events blocks every action, the recorded ones too.
        lock(&self.events).push(message).map_err(|_closed| Stop::Errno(Errno(libc::EPERM)))
    }
}
