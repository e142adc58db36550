//! Sessions of `gait exec`: what of them is the incident, and stays the same when it happens again.
//!
//! A build opens 100,000 files, and which of them depends on caches, on scheduling and on what the model felt like.
//! None of that is the incident. So, where something was stopped, only that is fingerprinted: a set of classes with
//! verdicts, targets without what is volatile, and reasons. A session in which nothing was stopped is known by what it
//! ran and whom it talked to. `docs/signal.md` has the rules as a table.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::contract::{NamedRun, Weights, counted, identifier, posture};
use super::driver::Fixture;
use super::evidence::Attached;
use super::fingerprint::Facts;
use super::sensitivity::{privilege, sensitivity};
use crate::endpoint::EndpointClass;
use crate::gate::Verdict;
use crate::regress::{Places, normalise};
use crate::sign::Digest;
use crate::trace::{Circumstances, TraceTarget};

/// More entries of one directory than this are told as the directory.
const SIBLINGS: usize = 8;
/// Fixtures that a run may suggest.
const FIXTURES: usize = 3;
/// What stands for entries of a directory, or names of a domain, that are too many to name.
const MANY: &str = "*";

/// Of a session's trace record, what the signal needs.
#[derive(Debug, Deserialize)]
pub(super) struct Decided {
    pub(super) tool_name: String,
    pub(super) intent_digest: Digest,
    verdict: Verdict,
    #[serde(default)]
    pub(super) violations: Vec<String>,
    #[serde(default)]
    reason_codes: Vec<String>,
    #[serde(default)]
    matched_rule: Option<String>,
    #[serde(default)]
    enforced: Option<bool>,
    #[serde(default)]
    simulated_verdict: Option<Verdict>,
    pub(super) target: Option<TraceTarget>,
}

impl Decided {
    /// Returns what the policy said, carried out or not: the cause is the same.
    pub(super) fn judged(&self) -> Verdict {
        self.simulated_verdict.unwrap_or(self.verdict)
    }
}

/// What a session amounts to.
pub(super) struct SessionSignal {
    pub(super) facts: Facts,
    pub(super) weights: Weights,
    pub(super) stopped: bool,
    pub(super) fixtures: Vec<Fixture>,
    /// By the contract's formula.
    pub(super) named: (Facts, Weights),
}

/// Collects what a session amounts to, decision by decision, in memory that grows with what was stopped only.
#[derive(Default)]
pub(super) struct SessionRun {
    circumstances: Circumstances,
    named: NamedRun,
    stopped: Side,
    quiet: Side,
    reasons: BTreeSet<String>,
    fixtures: BTreeMap<FixtureKey, Fixture>,
}

/// Stable name, action and digest of the intent, verdict, rule: what tells two stopped actions apart.
type FixtureKey = (String, String, String, Verdict, Option<String>);

/// One half of a session: what was stopped, or what was let through.
#[derive(Default)]
struct Side {
    steps: BTreeSet<String>,
    classes: BTreeSet<EndpointClass>,
    targets: BTreeMap<EndpointClass, BTreeSet<String>>,
    sensitivity: u32,
}

impl Side {
    fn add(&mut self, verdict: Verdict, target: &TraceTarget, stable: String) {
        let class = target.endpoint_class;
        self.steps.insert(format!("{verdict} {class}"));
        self.classes.insert(class);
        self.targets.entry(class).or_default().insert(stable);
        self.sensitivity = self.sensitivity.max(sensitivity(target));
    }
}

impl SessionRun {
    /// Begins a session that took place under these circumstances.
    pub(super) fn new(circumstances: Circumstances) -> Self {
        Self { circumstances, ..Self::default() }
    }

    pub(super) fn decision(&mut self, decided: &Decided) {
        self.named.intent(&decided.tool_name);
        // As the results of the runpack are derived, which the contract's formula looks at.
        let went_through = decided.verdict == Verdict::Allow || decided.enforced == Some(false);
        self.named.result(if went_through { "ok" } else { "error" });
        let Some(target) = &decided.target else { return };
        let verdict = decided.judged();
        if verdict == Verdict::Allow {
            // Which files a program opens on its way depends on caches; whom it runs and reaches does not.
            let class = target.endpoint_class;
            if !matches!(class, EndpointClass::FsRead | EndpointClass::FsWrite | EndpointClass::FsDelete) {
                self.quiet.add(verdict, target, self.stable(target));
            }
            return;
        }
        let stable = self.stable(target);
        self.fixture(decided, target, verdict, &stable);
        self.stopped.add(verdict, target, stable);
        self.reasons.insert(format!("trace_verdict_{verdict}"));
        self.reasons.extend(decided.reason_codes.iter().map(|code| identifier(code)));
        let violations = decided.violations.iter();
        self.reasons.extend(violations.map(|one| format!("violation_{}", identifier(one))));
    }

    /// Returns the target without what differs from run to run and from person to person.
    fn stable(&self, target: &TraceTarget) -> String {
        let Circumstances { workspace, home, tmp, run_dir, .. } = &self.circumstances;
        let tmp = if tmp.is_empty() { "/tmp" } else { tmp };
        let mut places = Places { workspace, home, tmp, run_dir };
        if home.is_empty() {
            places.home = home_of(&target.value);
        }
        normalise(&places, &target.kind, &target.value)
    }

    /// Keeps the first few stopped actions, in the order of their stable names.
    fn fixture(&mut self, decided: &Decided, target: &TraceTarget, verdict: Verdict, stable: &str) {
        let action = format!("{} {}", target.operation, target.value);
        let digest = decided.intent_digest.to_string();
        let name = format!("{} {stable}", target.endpoint_class);
        let key = (name, action, digest, verdict, decided.matched_rule.clone());
        if self.fixtures.len() >= FIXTURES
            && self.fixtures.last_key_value().is_some_and(|(last, _)| *last <= key)
        {
            return;
        }
        self.fixtures.entry(key).or_insert_with(|| {
            Fixture::new(target, verdict, decided.matched_rule.clone(), decided.intent_digest)
        });
        if self.fixtures.len() > FIXTURES {
            self.fixtures.pop_last();
        }
    }

    /// Finishes with how the session ended, such as `exited:0`, and with what other files say.
    pub(super) fn finish(self, ending: &str, attached: &Attached) -> SessionSignal {
        let stopped = !self.stopped.steps.is_empty();
        let mut reasons = self.reasons;
        if !stopped {
            // What was stopped is the incident; how the program took it is its own affair.
            reasons.extend(ending_reason(ending).map(str::to_owned));
        }
        reasons.extend(attached.reasons.iter().cloned());
        let side = if stopped { self.stopped } else { self.quiet };
        let mut targets = BTreeSet::new();
        for (class, names) in side.targets {
            targets.extend(collapsed(names).into_iter().map(|name| format!("{class}:{name}")));
        }
        let facts = Facts {
            action_sequence: side.steps.into_iter().collect(),
            tool_classes: sorted(&side.classes),
            target_systems: targets.into_iter().collect(),
            reason_code_vector: reasons.into_iter().collect(),
            ref_receipt_digests: Vec::new(),
        };
        let said = &facts.reason_code_vector;
        let weights = Weights {
            privilege: side.classes.iter().map(|class| privilege(*class)).max().unwrap_or(1),
            sensitivity: side.sensitivity.max(1),
            posture: if stopped { 2 } else { posture(said) },
            reasons: counted(said.len()),
        };
        let fixtures = self.fixtures.into_values().collect();
        SessionSignal { facts, weights, stopped, fixtures, named: self.named.finish(attached) }
    }
}

/// Names classes in the order of their names, as the contract's lists are.
fn sorted(classes: &BTreeSet<EndpointClass>) -> Vec<String> {
    let names: BTreeSet<&str> = classes.iter().map(|class| class.as_str()).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Returns what an ending says of a session in which nothing was stopped.
fn ending_reason(ending: &str) -> Option<&'static str> {
    match ending.split_once(':') {
        Some(("exited", "0")) => None,
        Some(("exited", _)) => Some("ending_exit_status"),
        Some(("killed", _)) => Some("ending_signal"),
        _ if ending == "aborted" => Some("ending_aborted"),
        _ => Some("ending_unknown"),
    }
}

/// Returns the home directory that a path lies in, for a session that does not say whose it was.
fn home_of(path: &str) -> &str {
    if let Some(rest) = path.strip_prefix("/home/") {
        let name = rest.split('/').next().unwrap_or_default();
        return path.get(.."/home/".len() + name.len()).filter(|_| !name.is_empty()).unwrap_or_default();
    }
    let is_root = path.strip_prefix("/root").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if is_root { "/root" } else { "" }
}

/// Tells more than [`SIBLINGS`] entries of one directory as the directory, from the leaves up.
fn collapsed(names: BTreeSet<String>) -> BTreeSet<String> {
    let depth_of = |name: &str| name.matches('/').count();
    // A name, and whether it stands for many below it.
    let mut told: BTreeMap<String, bool> = names.into_iter().map(|name| (name, false)).collect();
    for depth in (1..=told.keys().map(|name| depth_of(name)).max().unwrap_or_default()).rev() {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in told.keys().filter(|name| depth_of(name) == depth) {
            if let Some((parent, _)) = name.rsplit_once('/') {
                groups.entry(parent.to_owned()).or_default().push(name.clone());
            }
        }
        for (parent, group) in groups.into_iter().filter(|(_, group)| group.len() > SIBLINGS) {
            for name in &group {
                told.remove(name);
            }
            told.insert(parent, true);
        }
    }
    // What lies in no directory: peers, names, calls.
    let loose = |name: &str, many: bool| !many && !name.contains('/');
    if told.iter().filter(|(name, many)| loose(name, **many)).count() > SIBLINGS {
        told.retain(|name, many| !loose(name, *many));
        told.insert(MANY.to_owned(), false);
    }
    told.into_iter().map(|(name, many)| if many { format!("{name}/{MANY}") } else { name }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(list: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        list.into_iter().collect()
    }

    #[test]
    fn many_entries_are_told_as_their_directory() {
        let few = names((0..8).map(|at| format!("/etc/ssl/{at}")));
        assert_eq!(collapsed(few.clone()), few);
        let mut many = names((0..9).map(|at| format!("/etc/ssl/{at}")));
        many.insert("/etc/hosts".into());
        assert_eq!(Vec::from_iter(collapsed(many)), ["/etc/hosts", "/etc/ssl/*"]);
        let nested = names((0..9).flat_map(|a| (0..9).map(move |b| format!("/srv/{a}/{b}"))));
        assert_eq!(Vec::from_iter(collapsed(nested)), ["/srv/*"]);
        let roots = names((0..9).map(|at| format!("/{at}")));
        assert_eq!(Vec::from_iter(collapsed(roots)), ["/*"]);
        let hosts = names((0..9).map(|at| format!("host{at}:443")));
        assert_eq!(Vec::from_iter(collapsed(hosts)), ["*"]);
    }

    #[test]
    fn whose_home_it_was_does_not_matter() {
        for (path, home) in [
            ("/home/me/.ssh/id", "/home/me"),
            ("/home/me", "/home/me"),
            ("/home/", ""),
            ("/home", ""),
            ("/root/.ssh", "/root"),
            ("/rootfs", ""),
            ("/etc", ""),
        ] {
            assert_eq!(home_of(path), home, "{path}");
        }
    }

    fn decided(class: &str, value: &str, verdict: &str, more: &str) -> Decided {
        let kind = if class.starts_with("net") { "host" } else { "path" };
        let text = format!(
            r#"{{"tool_name":"os.{class}","intent_digest":"{:064}","verdict":"{verdict}",
                "target":{{"kind":"{kind}","value":"{value}","operation":"x","endpoint_class":"{class}"}}{more}}}"#,
            0
        );
        serde_json::from_str(&text).unwrap()
    }

    fn finished(decisions: &[Decided], ending: &str) -> SessionSignal {
        let mut run = SessionRun::default();
        decisions.iter().for_each(|one| run.decision(one));
        run.finish(ending, &Attached::default())
    }

    const CODES: &str = r#","reason_codes":["matched_rule_x"],"violations":["secret_access"]"#;

    #[test]
    fn one_incident_is_one_fingerprint_whatever_happened_beside_it() {
        let mine = [
            decided("proc.exec", "/usr/bin/python3", "allow", ""),
            decided("fs.write", "/home/me/w/__pycache__/a.pyc", "allow", ""),
            decided("fs.read", "/home/me/.ssh/id_ed25519", "block", CODES),
            decided("fs.write", "/tmp/tmpab12cd34/x", "block", CODES),
        ];
        let theirs = [
            decided("fs.write", "/tmp/tmpzz99yy88/x", "block", CODES),
            decided("fs.read", "/home/them/.ssh/id_ed25519", "block", CODES),
            decided("net.http", "127.0.0.1:40000", "allow", ""),
        ];
        let (mine, theirs) = (finished(&mine, "exited:0"), finished(&theirs, "exited:1"));
        assert_eq!(mine.facts, theirs.facts);
        assert_eq!(mine.facts.action_sequence, ["block fs.read", "block fs.write"]);
        assert_eq!(
            mine.facts.target_systems,
            ["fs.read:${home}/.ssh/id_ed25519", "fs.write:${tmp}/tmp${random}/x"]
        );
        let said = ["matched_rule_x", "trace_verdict_block", "violation_secret_access"];
        assert_eq!(mine.facts.reason_code_vector, said);
        // 3 for writing, 3 for credentials, 2 for being stopped, 3 reasons.
        assert_eq!(mine.weights.score(), 3 * 30 + 3 * 15 + 2 * 10 + 3);
        let other = finished(&[decided("fs.read", "/home/me/.netrc", "block", CODES)], "exited:0");
        assert_ne!(other.facts, theirs.facts);
    }

    #[test]
    fn the_places_of_a_session_are_named() {
        let in_workspace = |workspace: &str| {
            let circumstances = Circumstances {
                workspace: workspace.into(),
                home: "/srv/people/me".into(),
                ..Circumstances::default()
            };
            let mut run = SessionRun::new(circumstances);
            run.decision(&decided("fs.write", &format!("{workspace}/.git/hooks/x"), "block", CODES));
            run.decision(&decided("fs.read", "/srv/people/me/.netrc", "block", CODES));
            run.decision(&decided("fs.read", "/home/other/.netrc", "block", CODES));
            run.finish("exited:0", &Attached::default()).facts
        };
        let facts = in_workspace("/srv/people/me/w");
        let targets =
            ["fs.read:${home}/.netrc", "fs.read:/home/other/.netrc", "fs.write:${workspace}/.git/hooks/x"];
        assert_eq!(facts.target_systems, targets);
        assert_eq!(facts, in_workspace("/build/17"));
    }

    #[test]
    fn what_was_only_observed_has_the_cause_of_what_was_stopped() {
        let observed = r#","enforced":false,"simulated_verdict":"block","reason_codes":["matched_rule_x"]"#;
        let observed = finished(&[decided("fs.delete", "/etc", "allow", observed)], "exited:0");
        let stopped = r#","enforced":true,"reason_codes":["matched_rule_x"]"#;
        let stopped = finished(&[decided("fs.delete", "/etc", "block", stopped)], "exited:0");
        assert!(observed.stopped && stopped.stopped);
        assert_eq!(observed.facts, stopped.facts);
    }

    #[test]
    fn a_quiet_session_is_known_by_programs_and_peers_and_by_how_it_ended() {
        let quiet = |file: &str, ending| {
            let decisions = [
                decided("proc.exec", "/usr/bin/git", "allow", ""),
                decided("fs.read", file, "allow", ""),
                decided("net.http", "127.0.0.1:40000", "allow", ""),
            ];
            finished(&decisions, ending)
        };
        let one = quiet("/a", "exited:0");
        assert_eq!(one.facts, quiet("/b", "exited:0").facts);
        assert_eq!(one.facts.target_systems, ["net.http:127.0.0.1:${port}", "proc.exec:/usr/bin/git"]);
        assert!(one.facts.reason_code_vector.is_empty() && !one.stopped && one.fixtures.is_empty());
        for (ending, reason) in [
            ("exited:2", "ending_exit_status"),
            ("killed:9", "ending_signal"),
            ("aborted", "ending_aborted"),
            ("unfinished", "ending_unknown"),
        ] {
            assert_eq!(quiet("/a", ending).facts.reason_code_vector, [reason]);
        }
    }

    #[test]
    fn the_contracts_formula_is_kept_beside() {
        let decisions = [decided("fs.read", "/a", "allow", ""), decided("fs.delete", "/etc", "block", CODES)];
        let (facts, weights) = finished(&decisions, "exited:0").named;
        assert_eq!(facts.action_sequence, ["os.fs.read", "os.fs.delete"]);
        assert_eq!(facts.tool_classes, ["destructive", "read"]);
        assert_eq!(facts.reason_code_vector, ["result_status_error"]);
        assert_eq!(weights.score(), 4 * 30 + 15 + 1);
    }

    proptest! {
        /// Threads and processes reach the kernel in any order.
        #[test]
        fn the_order_of_decisions_does_not_matter(
            decisions in prop::collection::vec((0_usize..4, 0_usize..30, 0_usize..3), 0..40).prop_shuffle(),
        ) {
            let all: Vec<Decided> = decisions.iter().map(|(class, value, verdict)| decided(
                ["fs.read", "fs.write", "proc.exec", "net.http"][*class],
                &format!("/srv/{}/{value}", value % 3),
                ["allow", "block", "require_approval"][*verdict],
                CODES,
            )).collect();
            let forth = finished(&all, "exited:0");
            let mut run = SessionRun::default();
            all.iter().rev().for_each(|one| run.decision(one));
            let back = run.finish("exited:0", &Attached::default());
            prop_assert_eq!(forth.facts, back.facts);
            prop_assert_eq!(forth.fixtures, back.fixtures);
        }
    }
}
