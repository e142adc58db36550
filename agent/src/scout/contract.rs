//! The words and weights of contract §20.1 for runs that a caller describes.

use std::collections::BTreeSet;

use super::evidence::Attached;
use super::fingerprint::Facts;
use crate::runpack::Refs;
use crate::sign::Digest;

/// Longer locators are cut: the contract's number.
const LOCATOR_BYTES: usize = 48;
/// More reasons than this do not raise the score.
const COUNTED_REASONS: usize = 9;

/// The contract's tool classes by what a name contains, first match first, with what each weighs.
const TOOL_CLASSES: [(&str, &[&str], u32); 3] = [
    ("destructive", &["delete", "drop", "destroy", "remove", "purge"], 4),
    ("write", &["write", "update", "save", "send", "export", "create"], 3),
    ("read", &["read", "list", "get", "search", "fetch"], 1),
];
/// What no word gives away is taken for an execution.
const OTHER_CLASS: (&str, u32) = ("execute", 2);

const VERY_SENSITIVE: &[&str] = &["prod", "payment", "finance", "customer", "pii", "db"];
const SENSITIVE: &[&str] = &["internal", "staging", "queue"];
const OF_POLICY: &[&str] = &["policy", "approval", "blocked", "credential"];

/// Returns whether the text contains one of the words.
pub(super) fn contains_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// Makes an identifier of a text; one that comes out empty is replaced by a digest.
pub(super) fn identifier(text: &str) -> String {
    let lower = text.trim().to_lowercase();
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    let mapped: String = lower.chars().map(plain).collect();
    let trimmed = mapped.trim_matches('_');
    if !trimmed.is_empty() {
        return trimmed.to_owned();
    }
    let mut digest = Digest::sha256(lower.as_bytes()).to_string();
    digest.truncate(16);
    digest
}

/// Returns the class of a tool and its weight.
pub(super) fn tool_class(name: &str) -> (&'static str, u32) {
    let lower = name.to_lowercase();
    let found = TOOL_CLASSES.into_iter().find(|(_, words, _)| contains_any(&lower, words));
    found.map_or(OTHER_CLASS, |(class, _, weight)| (class, weight))
}

/// What the severity is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Weights {
    pub(super) privilege: u32,
    pub(super) sensitivity: u32,
    pub(super) posture: u32,
    pub(super) reasons: u32,
}

impl Weights {
    /// The contract's weights of a run that is known by names.
    pub(super) fn of_names(facts: &Facts, privilege: u32) -> Self {
        let targets = &facts.target_systems;
        let any = |words| targets.iter().any(|target| contains_any(target, words));
        let sensitivity = if any(VERY_SENSITIVE) {
            3
        } else if any(SENSITIVE) {
            2
        } else {
            1
        };
        let reasons = &facts.reason_code_vector;
        Self {
            privilege: privilege.max(1),
            sensitivity,
            posture: posture(reasons),
            reasons: counted(reasons.len()),
        }
    }

    /// Returns the score.
    pub(super) const fn score(self) -> u32 {
        self.privilege * 30 + self.sensitivity * 15 + self.posture * 10 + self.reasons
    }
}

/// Returns what the reasons weigh for their subject.
pub(super) fn posture(reasons: &[String]) -> u32 {
    if reasons.iter().any(|reason| contains_any(&reason.to_lowercase(), OF_POLICY)) { 2 } else { 0 }
}

/// Returns what the reasons weigh for their number.
pub(super) fn counted(reasons: usize) -> u32 {
    // At most nine.
    reasons.min(COUNTED_REASONS) as u32
}

/// Names the severity of a score.
pub(super) const fn level(score: u32) -> &'static str {
    match score {
        150.. => "critical",
        110.. => "high",
        70.. => "medium",
        _ => "low",
    }
}

/// Collects the five facts of a run, and the weight of its most privileged tool, from what its runpack lists.
#[derive(Debug, Default)]
pub(super) struct NamedRun {
    sequence: Vec<String>,
    classes: BTreeSet<&'static str>,
    targets: BTreeSet<String>,
    reasons: BTreeSet<String>,
    digests: BTreeSet<String>,
    privilege: u32,
}

impl NamedRun {
    pub(super) fn intent(&mut self, tool_name: &str) {
        let name = tool_name.trim();
        if name.is_empty() {
            return;
        }
        let (class, weight) = tool_class(name);
        self.classes.insert(class);
        self.privilege = self.privilege.max(weight);
        self.sequence.push(name.to_owned());
    }

    pub(super) fn result(&mut self, status: &str) {
        let status = identifier(status);
        if status != "ok" && status != "success" {
            self.reasons.insert(format!("result_status_{status}"));
        }
    }

    pub(super) fn refs(&mut self, refs: &Refs) {
        for receipt in &refs.receipts {
            let mut locator = identifier(&receipt.source_locator);
            locator.truncate(LOCATOR_BYTES);
            self.targets.insert(format!("{}:{locator}", identifier(&receipt.source_type)));
            let digest = receipt.content_digest.trim().to_lowercase();
            if digest.len() == 64 {
                self.digests.insert(digest);
            }
        }
    }

    /// Returns the facts and their weights, with the reasons that other files give.
    pub(super) fn finish(mut self, attached: &Attached) -> (Facts, Weights) {
        self.reasons.extend(attached.reasons.iter().cloned());
        let facts = Facts {
            action_sequence: self.sequence,
            tool_classes: self.classes.into_iter().map(str::to_owned).collect(),
            target_systems: self.targets.into_iter().collect(),
            reason_code_vector: self.reasons.into_iter().collect(),
            ref_receipt_digests: self.digests.into_iter().collect(),
        };
        let weights = Weights::of_names(&facts, self.privilege);
        (facts, weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_the_contracts() {
        assert_eq!(identifier(" Prod-Customers "), "prod_customers");
        assert_eq!(identifier("tool.fetch"), "tool_fetch");
        assert_eq!(identifier("_a__b_"), "a__b");
        assert_eq!(identifier(""), "e3b0c44298fc1c14");
        assert_eq!(identifier("--"), Digest::sha256(b"--").to_string()[..16]);
    }

    #[test]
    fn the_first_word_that_matches_gives_the_class() {
        for (name, class) in [
            ("tool.Delete", ("destructive", 4)),
            ("get_and_update", ("write", 3)),
            ("http.fetch", ("read", 1)),
            ("tool.summarize", ("execute", 2)),
        ] {
            assert_eq!(tool_class(name), class, "{name}");
        }
    }

    #[test]
    fn levels_begin_where_the_contract_says() {
        let levels = [0, 69, 70, 109, 110, 149, 150].map(level);
        assert_eq!(levels, ["low", "low", "medium", "medium", "high", "high", "critical"]);
    }

    #[test]
    fn empty_words_of_a_receipt_and_a_result_are_digests() {
        let mut run = NamedRun::default();
        run.result("");
        run.refs(&Refs { receipts: vec![crate::runpack::Receipt::default()], ..Refs::default() });
        run.intent("  ");
        let (facts, weights) = run.finish(&Attached::default());
        assert_eq!(facts.reason_code_vector, ["result_status_e3b0c44298fc1c14"]);
        assert_eq!(facts.target_systems, ["e3b0c44298fc1c14:e3b0c44298fc1c14"]);
        assert_eq!((facts.action_sequence.len(), weights.privilege), (0, 1));
    }
}
