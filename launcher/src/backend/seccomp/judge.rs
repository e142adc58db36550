//! The judge: one decision per action, recorded before it takes effect.

use std::sync::{Arc, Mutex};

use gait_agent::action::Action;
use gait_agent::endpoint::Operation;
use gait_agent::gate::{Decision, Limit, Verdict};
use gait_agent::policy::CompiledPolicy;

use super::supervisor::{Stop, errno_of, lock};
use crate::approval::Desk;
use crate::backend::rate::Rate;
use crate::exec::event::{Approval, Event};
use crate::session_config::decide;
use crate::sys::Errno;
use crate::sys::ring::Producer;

/// Who made a call, and in what state it is judged.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend) struct Caller {
    pub(in crate::backend) tid: u32,
    /// When the call was received, nanoseconds since 1970.
    pub(in crate::backend) at_ns: u64,
    /// Whether the judging thread may wait for an answer.
    pub(in crate::backend) may_block: bool,
    /// Whether the object is known not to exist.
    pub(in crate::backend) absent: bool,
}

/// Decides and records.
#[derive(Debug)]
pub(in crate::backend) struct Judge {
    pub(in crate::backend) policy: Arc<CompiledPolicy>,
    /// Paths that the workload may not even read, each with everything below it.
    pub(in crate::backend) hidden: Vec<Vec<u8>>,
    /// Nothing is stopped; records say so.
    pub(in crate::backend) simulate: bool,
    pub(in crate::backend) events: Mutex<Producer>,
    pub(in crate::backend) desk: Desk,
    /// `exec.limits.actions_per_second`.
    pub(in crate::backend) rate: Option<Rate>,
}

impl Judge {
    /// Judges the actions of one call.
    ///
    /// # Errors
    /// See [`super::supervisor::Worker::judge`].
    pub(in crate::backend) fn judge(
        &self,
        call: Caller,
        actions: &[Action<'_>],
        message: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        if let Some(rate) = &self.rate
            && !self.within(rate, actions)
        {
            return self.exceed(call, actions, Limit::ActionsPerSecond, message);
        }
        // Nearly every call is one action that is allowed.
        if let [action] = actions {
            let decision = self.decide(action);
            if decision.verdict() == Verdict::Allow {
                return self.record(call, action, decision, Approval::None, message);
            }
        }
        let decisions: Vec<Decision> = actions.iter().map(|action| self.decide(action)).collect();
        let strictest = decisions.iter().map(|decision| decision.verdict()).max().unwrap_or(Verdict::Block);
        // All answers first, then all records: a call that must wait for an answer is handled again from the start.
        let mut approvals = vec![Approval::None; actions.len()];
        // Where another action of the call is blocked anyway, nobody is asked.
        if strictest == Verdict::RequireApproval && !self.simulate {
            for ((approval, action), decision) in approvals.iter_mut().zip(actions).zip(&decisions) {
                if decision.verdict() == strictest {
                    *approval = self.ask(action, *decision, call.may_block).inspect_err(|_slow| {
                        // The call comes again.
                        if let Some(rate) = &self.rate {
                            rate.give_back(actions.len());
                        }
                    })?;
                }
            }
        }
        let mut refused = None;
        for ((approval, action), decision) in approvals.into_iter().zip(actions).zip(decisions) {
            if decision.verdict() != Verdict::Allow && !approval.grants() {
                refused.get_or_insert(errno_of(action));
            }
            self.record(call, action, decision, approval, message)?;
        }
        match refused {
            Some(errno) if !self.simulate => Err(errno.into()),
            _ => Ok(()),
        }
    }

    /// Decides about one action.
    pub(in crate::backend) fn decide(&self, action: &Action<'_>) -> Decision {
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

    /// Takes the actions of a call. Those of an exec are taken when it has happened: before it was asked for room.
    fn within(&self, rate: &Rate, actions: &[Action<'_>]) -> bool {
        if actions.first().is_some_and(|action| action.operation == Operation::Exec) {
            rate.charge(actions.len());
            return true;
        }
        rate.take(actions.len())
    }

    /// Records actions that would go beyond a limit, and returns the errno of that: it may go better later.
    ///
    /// # Errors
    /// `EAGAIN`; none in a simulation.
    pub(in crate::backend) fn exceed(
        &self,
        call: Caller,
        actions: &[Action<'_>],
        limit: Limit,
        message: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        for action in actions {
            self.record(call, action, Decision::beyond(limit), Approval::None, message)?;
        }
        if self.simulate { Ok(()) } else { Err(Errno(libc::EAGAIN).into()) }
    }

    /// Records an action that never happens, whatever the policy says, and returns its errno.
    pub(in crate::backend) fn refuse(
        &self,
        call: Caller,
        action: &Action<'_>,
        message: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        self.record(call, action, Decision::NEVER, Approval::None, message)?;
        if self.simulate { Ok(()) } else { Err(errno_of(action).into()) }
    }

    /// Hands the record over; an allow is answered only after this.
    fn record(
        &self,
        call: Caller,
        action: &Action<'_>,
        decision: Decision,
        approval: Approval,
        message: &mut Vec<u8>,
    ) -> Result<(), Stop> {
        let event = Event {
            at_ns: call.at_ns,
            tid: call.tid,
            decision: decision.to_u64(),
            enforced: !self.simulate,
            absent: call.absent,
            approval,
            action: *action,
        };
        event.encode(message);
        // A journal that takes no more events blocks every action, the recorded ones too.
        lock(&self.events).push(message).map_err(|_closed| Stop::Errno(Errno(libc::EPERM)))
    }
}
