//! Judging an action of which not everything was recorded: every decision that it could have been.

use super::{CompiledPolicy, Ground, block};
use crate::action::Action;
use crate::endpoint::EndpointClass;
use crate::gate::{Decision, Verdict};
use crate::policy::pattern::ArgvPattern;

/// What is not known of a recorded action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unknown {
    /// The arguments of the new program: only their digest was kept.
    pub argv: bool,
    /// The address of a peer whose name is known.
    pub address: bool,
}

impl Unknown {
    /// Everything is known.
    pub const NOTHING: Self = Self { argv: false, address: false };
}

/// What a record says of arguments that were not kept: which patterns matched them and which did not.
#[derive(Debug, Clone, Default)]
pub struct Knowledge<'p>(Vec<(&'p ArgvPattern, bool)>);

impl Knowledge<'_> {
    fn of(&self, pattern: &ArgvPattern) -> Option<bool> {
        self.0.iter().find(|(known, _)| *known == pattern).map(|(_, matched)| *matched)
    }
}

/// A rule that may decide, or the decision where none does.
struct Candidate<'p> {
    decision: Decision,
    /// The rule, and the pattern over arguments that it hangs on.
    rule: Option<(&'p str, Option<&'p ArgvPattern>)>,
}

impl CompiledPolicy {
    /// Returns every decision that [`Self::decide`] could make of an action, whatever the unknown parts of it are.
    ///
    /// Rules are taken in their order; one whose match hangs on something unknown is possible, and the next is too.
    #[must_use]
    pub fn possible(&self, action: &Action<'_>, unknown: Unknown, known: &Knowledge<'_>) -> Vec<Decision> {
        if unknown == Unknown::NOTHING {
            return vec![self.decide(action)];
        }
        let mut found = Vec::new();
        for candidate in self.candidates(action, unknown) {
            let pattern = candidate.rule.and_then(|(_, pattern)| pattern);
            match pattern.and_then(|pattern| known.of(pattern)) {
                Some(false) => {}
                Some(true) => {
                    found.push(candidate.decision);
                    break;
                }
                None => found.push(candidate.decision),
            }
        }
        found
    }

    /// Returns what it says of unknown arguments that this policy decided by `by`, a rule or the reason code of the
    /// default: rules before it did not match. Nothing, if this policy cannot have decided so.
    #[must_use]
    pub fn learn(&self, action: &Action<'_>, unknown: Unknown, by: &str) -> Knowledge<'_> {
        let mut learnt = Vec::new();
        if !unknown.argv || unknown.address {
            return Knowledge::default();
        }
        for candidate in self.candidates(action, unknown) {
            let Some((name, pattern)) = candidate.rule else {
                let default = self.explain(candidate.decision).reason_codes.join(",");
                return if default == by { Knowledge(learnt) } else { Knowledge::default() };
            };
            learnt.extend(pattern.map(|pattern| (pattern, name == by)));
            if name == by {
                return Knowledge(learnt);
            }
        }
        Knowledge::default()
    }

    fn candidates<'p>(&'p self, action: &Action<'_>, unknown: Unknown) -> Vec<Candidate<'p>> {
        let (program, mut subject, sets) = match self.begin(action) {
            Ok(begun) => begun,
            Err(decision) => return vec![Candidate { decision, rule: None }],
        };
        subject.unknown = unknown;
        let http = action.class() == EndpointClass::NetHttp;
        let mut found = Vec::new();
        for step in program.steps_for(&self.rules, &sets) {
            let Some(decision) = self.step(step, &subject, &sets) else { continue };
            let index = usize::from(step.rule);
            let (Some(rule), Some(source)) = (self.rules.get(index), self.policy.rules().get(index)) else {
                found.push(Candidate { decision, rule: None });
                return found;
            };
            let pattern = rule.argv.as_ref().filter(|_| unknown.argv);
            found.push(Candidate { decision, rule: Some((&source.name, pattern)) });
            // A rule that allows lets nobody through to a private address that it does not name.
            let guarded = http && rule.effect == Verdict::Allow;
            let by_address = unknown.address && (source.facts.addresses.is_some() || guarded);
            if !by_address && pattern.is_none() {
                return found;
            }
        }
        let decision = self.fall_through(&subject);
        found.push(Candidate { decision, rule: None });
        let lax = decision.ground == Ground::Default && decision.verdict < Verdict::RequireApproval;
        if http && unknown.address && lax {
            found.push(Candidate { decision: block(Ground::DefaultPrivate), rule: None });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::action::{Host, Object};
    use crate::endpoint::Operation;
    use crate::intent::SessionFacts;
    use crate::policy::{DEFAULT, Policy, SHIPPED, Vars};

    fn compiled(name: &str) -> Option<CompiledPolicy> {
        let policy = Policy::load(name).unwrap();
        let facts =
            SessionFacts { identity: "uid:1000".into(), workspace: "/w".into(), run_id: String::new() };
        CompiledPolicy::compile(&policy, &facts, &Vars::default()).ok()
    }

    #[test]
    fn whatever_the_arguments_are_the_decision_is_a_possible_one() {
        let mut several = 0;
        for (name, _) in SHIPPED {
            let Some(policy) = compiled(name) else { continue };
            for program in ["/usr/bin/git", "/usr/bin/su", "/usr/bin/curl", "/bin/sh", "/w/x"] {
                let action = |argv| Action {
                    operation: Operation::Exec,
                    object: Object::Path(program.as_bytes()),
                    image: b"",
                    argv,
                };
                let possible = policy.possible(
                    &action(None),
                    Unknown { argv: true, address: false },
                    &Knowledge::default(),
                );
                several += usize::from(possible.len() > 1);
                for argv in [
                    &b"git\0push\0--force\0"[..],
                    b"git\0push\0-f\0",
                    b"git\0status\0",
                    b"git\0config\0--global\0x\0",
                    b"su\0",
                    b"sh\0-c\0x\0",
                    b"",
                ] {
                    let decision = policy.decide(&action(Some(argv)));
                    assert!(possible.contains(&decision), "{name} {program} {argv:?} {decision:?}");
                    // That it was decided so says enough of the arguments to decide it again.
                    let why = policy.explain(decision);
                    let by = why.matched_rule.unwrap_or_else(|| why.reason_codes.join(","));
                    let unknown = Unknown { argv: true, address: false };
                    let known = policy.learn(&action(None), unknown, &by);
                    assert_eq!(policy.possible(&action(None), unknown, &known), [decision]);
                }
            }
        }
        assert!(several > 0, "no shipped policy looks at arguments, so this test shows nothing");
    }

    #[test]
    fn whatever_the_address_is_the_decision_is_a_possible_one() {
        let mut several = 0;
        for (name, _) in SHIPPED {
            let Some(policy) = compiled(name) else { continue };
            for port in [22, 80, 443] {
                let action = |address| Action {
                    operation: Operation::Connect,
                    object: Object::Host(Host { name: Some("pypi.org"), address, port }),
                    image: b"",
                    argv: None,
                };
                let possible = policy.possible(
                    &action(None),
                    Unknown { argv: false, address: true },
                    &Knowledge::default(),
                );
                several += usize::from(possible.len() > 1);
                for address in
                    ["1.1.1.1", "127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "2606:4700::1111"]
                {
                    let address: IpAddr = address.parse().unwrap();
                    let decision = policy.decide(&action(Some(address)));
                    assert!(
                        possible.contains(&decision),
                        "{name} {address}:{port} {decision:?} {possible:?}"
                    );
                }
            }
        }
        assert!(several > 0, "no shipped policy looks at addresses, so this test shows nothing");
    }

    #[test]
    fn what_is_known_is_decided_as_ever() {
        let policy = compiled(DEFAULT).unwrap();
        let action =
            Action { operation: Operation::Read, object: Object::Path(b"/w/a"), image: b"", argv: None };
        let both = Unknown { argv: true, address: true };
        assert_eq!(policy.possible(&action, both, &Knowledge::default()), [policy.decide(&action)]);
        assert_eq!(
            policy.possible(&action, Unknown::NOTHING, &Knowledge::default()),
            [policy.decide(&action)]
        );
    }
}
