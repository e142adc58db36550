//! Approvals: a question to the person at the terminal, and what was answered before.
//!
//! The supervisor's [`Desk`] holds the caller and sends the question over a socket to the guard, which owns the terminal
//! ([`prompt`]). Answers for the session stay at the desk.

pub(crate) mod prompt;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gait_agent::action::{Action, Object};
use gait_agent::endpoint::Operation;
use gait_agent::gate::Decision;
use gait_agent::policy::{ApprovalScope, Explanation};
use rustc_hash::FxHashMap;

use crate::exec::event::Approval;
use crate::sys::process;

/// How long a question waits for its answer where the rule says nothing.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Longest question that is sent to the guard.
pub(crate) const QUESTION_MAX: usize = 16 << 10;

/// What an answer for the session covers, as `approval.scope` of the rule has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Reach {
    /// The very same action.
    Action(Subject),
    /// Everything that the same rule asks about.
    Rule(u64),
}

/// The same operation on the same object, with the same arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    operation: Operation,
    object: String,
    argv: Vec<u8>,
}

impl Subject {
    fn of(action: &Action<'_>) -> Self {
        Self {
            operation: action.operation,
            object: object_text(&action.object),
            argv: action.argv.unwrap_or_default().to_vec(),
        }
    }
}

/// Writes an object as a person reads it.
pub(crate) fn object_text(object: &Object<'_>) -> String {
    match object {
        Object::Path(path) => gait_agent::intent::path_text(path).into_owned(),
        Object::Host(host) => {
            let address = host.address.map(|a| if a.is_ipv6() { format!("[{a}]") } else { a.to_string() });
            let name = host.name.map(str::to_owned).or(address).unwrap_or_default();
            if host.address.is_none() { name } else { format!("{name}:{}", host.port) }
        }
        Object::Other(text) => (*text).to_owned(),
    }
}

/// The supervisor's side.
#[derive(Debug)]
pub(crate) struct Desk {
    /// To the guard; `None` where there is no terminal to ask at.
    line: Option<OwnedFd>,
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Answers for the session, with the uses they have left; `None` without end.
    session: FxHashMap<Reach, Option<u32>>,
    answers: FxHashMap<u64, Approval>,
}

impl Desk {
    pub(crate) fn new(line: Option<OwnedFd>) -> Self {
        Self { line, state: Mutex::default(), answered: Condvar::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the answer that stands already: one for the session, or that nobody can be asked.
    pub(crate) fn known(&self, action: &Action<'_>, decision: Decision) -> Option<Approval> {
        if self.line.is_none() {
            return Some(Approval::Unavailable);
        }
        let mut state = self.state();
        for reach in [Reach::Rule(decision.to_u64()), Reach::Action(Subject::of(action))] {
            match state.session.get_mut(&reach) {
                None => {}
                Some(None) => return Some(Approval::Session),
                Some(Some(0)) => {
                    state.session.remove(&reach);
                }
                Some(Some(left)) => {
                    *left -= 1;
                    return Some(Approval::Session);
                }
            }
        }
        None
    }

    /// Asks and waits.
    pub(crate) fn ask(&self, action: &Action<'_>, decision: Decision, why: &Explanation) -> Approval {
        let Some(line) = &self.line else { return Approval::Unavailable };
        let number = {
            let mut state = self.state();
            state.next += 1;
            state.next
        };
        let mut message = number.to_ne_bytes().to_vec();
        message.extend_from_slice(question(action, why).as_bytes());
        message.truncate(QUESTION_MAX);
        if process::write(line.as_fd(), &message).is_err() {
            return Approval::Unavailable;
        }
        let answer = self.wait(number, timeout_of(why));
        if answer == Approval::Session {
            let terms = why.approval.as_ref();
            let reach = match terms.and_then(|terms| terms.scope) {
                Some(ApprovalScope::Rule) => Reach::Rule(decision.to_u64()),
                Some(ApprovalScope::Intent) | None => Reach::Action(Subject::of(action)),
            };
            // This use is the first one.
            let left = terms.and_then(|terms| terms.uses).map(|uses| uses.saturating_sub(1));
            self.state().session.insert(reach, left);
        }
        answer
    }

    fn wait(&self, number: u64, timeout: Duration) -> Approval {
        let until = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            if let Some(answer) = state.answers.remove(&number) {
                return answer;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Approval::TimedOut;
            }
            state = self.answered.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes an answer from the guard.
    pub(crate) fn deliver(&self, number: u64, answer: Approval) {
        self.state().answers.insert(number, answer);
        self.answered.notify_all();
    }

    /// Returns the line to the guard.
    pub(crate) fn line(&self) -> Option<&OwnedFd> {
        self.line.as_ref()
    }
}

fn timeout_of(why: &Explanation) -> Duration {
    why.approval.as_ref().and_then(|approval| approval.timeout_s).map_or(TIMEOUT, Duration::from_secs)
}

fn question(action: &Action<'_>, why: &Explanation) -> String {
    let mut text = format!("{} {}", action.class(), object_text(&action.object));
    if let Some(argv) = action.argv {
        let words: Vec<_> = argv
            .split(|&b| b == 0)
            .filter(|w| !w.is_empty())
            .map(|w| gait_agent::intent::path_text(w))
            .collect();
        text.push_str(&format!("\n  command: {}", words.join(" ")));
    }
    if !action.image.is_empty() {
        text.push_str(&format!("\n  by: {}", gait_agent::intent::path_text(action.image)));
    }
    if let Some(rule) = &why.matched_rule {
        text.push_str(&format!("\n  rule: {rule}"));
    }
    if let Some(justification) = &why.justification {
        text.push_str(&format!("\n  {justification}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gait_agent::intent::SessionFacts;
    use gait_agent::policy::{CompiledPolicy, Policy, Vars};

    use super::*;

    fn policy(terms: &str) -> CompiledPolicy {
        let text = format!(
            "default_verdict: block\nrules:\n  - name: ask\n    priority: 1\n    effect: require_approval\n    \
             match: {{endpoint_classes: [fs.write], paths: ['/k/**']}}\n    approval: {terms}\n"
        );
        let facts = SessionFacts {
            identity: "uid:1".to_owned(),
            workspace: "/w".to_owned(),
            run_id: "run_t".to_owned(),
        };
        CompiledPolicy::compile(&Policy::parse("t.yaml", &text).unwrap(), &facts, &Vars::default()).unwrap()
    }

    fn write(path: &[u8]) -> Action<'_> {
        Action { operation: Operation::Write, object: Object::Path(path), image: b"/bin/x", argv: None }
    }

    /// Asks about one action with a guard that answers "for this session".
    fn asked(policy: &CompiledPolicy) -> Arc<Desk> {
        let (line, guard) = process::socketpair().unwrap();
        let desk = Arc::new(Desk::new(Some(line)));
        let answering = Arc::clone(&desk);
        let guard = std::thread::spawn(move || {
            let mut question = vec![0; QUESTION_MAX];
            let length = process::read(guard.as_fd(), &mut question).unwrap();
            assert!(String::from_utf8_lossy(&question[8..length]).contains("fs.write /k/a"));
            answering.deliver(u64::from_ne_bytes(question[..8].try_into().unwrap()), Approval::Session);
        });
        let action = write(b"/k/a");
        let decision = policy.decide(&action);
        assert_eq!(desk.known(&action, decision), None);
        assert_eq!(desk.ask(&action, decision, &policy.explain(decision)), Approval::Session);
        guard.join().unwrap();
        desk
    }

    fn known(desk: &Desk, policy: &CompiledPolicy, path: &[u8]) -> Option<Approval> {
        let action = write(path);
        desk.known(&action, policy.decide(&action))
    }

    #[test]
    fn an_answer_for_the_session_covers_the_same_action_only() {
        let policy = policy("{timeout: 5s}");
        let desk = asked(&policy);
        assert_eq!(known(&desk, &policy, b"/k/a"), Some(Approval::Session));
        assert_eq!(known(&desk, &policy, b"/k/a"), Some(Approval::Session));
        assert_eq!(known(&desk, &policy, b"/k/b"), None);
    }

    #[test]
    fn an_answer_for_the_rule_covers_all_it_asks_about() {
        let policy = policy("{timeout: 5s, scope: rule}");
        assert_eq!(known(&asked(&policy), &policy, b"/k/b"), Some(Approval::Session));
    }

    #[test]
    fn an_answer_is_used_up() {
        let policy = policy("{timeout: 5s, uses: 2}");
        let desk = asked(&policy);
        assert_eq!(known(&desk, &policy, b"/k/a"), Some(Approval::Session));
        assert_eq!(known(&desk, &policy, b"/k/a"), None, "the first use was the question itself");
    }

    #[test]
    fn without_a_terminal_nobody_is_asked() {
        let policy = policy("{timeout: 5s}");
        assert_eq!(known(&Desk::new(None), &policy, b"/k/a"), Some(Approval::Unavailable));
    }
}
