//! What differs between two runs (contract §18.4), and, for sessions, which decisions are new, vanished or changed.
//!
//! Records of described runs are compared by intent id; ids of runs, times and producers do not count. The ids of a
//! session number its decisions in the order of their first occurrence, which two equal runs need not share: sessions
//! are compared by what was done to what, and with which verdicts. Arguments of programs and the number of
//! occurrences do not count there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::manifest::{Manifest, REFS, RUN, TRACES};
use super::read::{ReadError, Runpack, Told};
use super::record::{IntentEntry, Receipt, Refs, ResultEntry, Run, RunRecord};
use crate::endpoint::EndpointClass;
use crate::gate::Verdict;
use crate::sign::{Digest, canonical};
use crate::trace::intent_id;

/// How much of the runs a diff looks at and shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privacy {
    /// Everything.
    #[default]
    Full,
    /// No arguments, no results, no receipts but their number, no targets.
    Metadata,
}

impl Privacy {
    /// Returns the spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Metadata => "metadata",
        }
    }
}

/// What was done to what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DecisionKey {
    /// The class.
    #[serde(serialize_with = "spelt")]
    pub endpoint_class: EndpointClass,
    /// What the target is.
    pub kind: String,
    /// The target; empty where privacy asks for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// What was done.
    pub operation: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn spelt<S: Serializer>(class: &EndpointClass, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(class.as_str())
}

/// A verdict, and what it would have been where nothing was enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// What the policy said, where it was not enforced.
    pub simulated: Option<Verdict>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict.as_str())?;
        self.simulated.map_or(Ok(()), |simulated| write!(f, " (simulated {})", simulated.as_str()))
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Something that was decided in one run only, or differently.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ChangedDecision {
    /// What was done to what.
    #[serde(flatten)]
    pub key: DecisionKey,
    /// The verdicts on the left, sorted; empty if it is new.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Outcome>,
    /// The verdicts on the right, sorted; empty if it vanished.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub right: Vec<Outcome>,
}

/// The difference between the decisions of two sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DecisionDiff {
    /// The policy on the left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_digest_left: Option<Digest>,
    /// The policy on the right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_digest_right: Option<Digest>,
    /// What is the same on both sides.
    pub unchanged_count: usize,
    /// How much is on the right only.
    pub new_count: usize,
    /// How much is on the left only.
    pub vanished_count: usize,
    /// How much has other verdicts.
    pub changed_count: usize,
    /// On the right only, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<ChangedDecision>,
    /// On the left only, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vanished: Vec<ChangedDecision>,
    /// With other verdicts, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<ChangedDecision>,
}

/// The difference between two runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[expect(missing_docs, reason = "the fields of the contract")]
pub struct Diff {
    pub run_id_left: String,
    pub run_id_right: String,
    pub manifest_changed: bool,
    /// Entries that only one side has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files_changed: Vec<String>,
    /// Environment or timeline, but for times; additive.
    pub run_changed: bool,
    pub intents_changed: bool,
    pub results_changed: bool,
    pub refs_changed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_only_intents: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub right_only_intents: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_only_results: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub right_only_results: Vec<String>,
    /// For two sessions; additive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decisions: Option<DecisionDiff>,
}

impl Diff {
    /// Returns whether anything differs.
    #[must_use]
    pub const fn changed(&self) -> bool {
        self.manifest_changed
            || !self.files_changed.is_empty()
            || self.run_changed
            || self.intents_changed
            || self.results_changed
            || self.refs_changed
    }
}

/// Returns the entries that comparing these two reads besides their manifests; `None` if it may be any.
#[must_use]
pub fn compared_entries(left: &Runpack, right: &Runpack) -> Option<[&'static str; 3]> {
    (left.is_session() && right.is_session()).then_some([REFS, RUN, TRACES])
}

/// Compares two runs.
///
/// # Errors
///
/// Fails if one of them cannot be read.
pub fn diff(left: &mut Runpack, right: &mut Runpack, privacy: Privacy) -> Result<Diff, ReadError> {
    let manifests = (left.manifest()?, right.manifest()?);
    let names = |manifest: &Manifest| -> BTreeSet<String> {
        manifest.files.iter().map(|file| file.path.clone()).collect()
    };
    let (left_names, right_names) = (names(&manifests.0), names(&manifests.1));
    let mut found = Diff {
        files_changed: left_names.symmetric_difference(&right_names).cloned().collect(),
        run_changed: !same_run(&left.run()?, &right.run()?),
        refs_changed: !same_refs(&left.refs()?, &right.refs()?, privacy),
        ..Diff::default()
    };
    if left.is_session() && right.is_session() {
        sessions(left, right, privacy, &mut found)?;
    } else {
        let sides = (left.record()?, right.record()?);
        records(&sides.0, &sides.1, privacy, &mut found);
    }
    found.manifest_changed = !same_manifest(&manifests.0, &manifests.1);
    (found.run_id_left, found.run_id_right) = (manifests.0.run_id, manifests.1.run_id);
    Ok(found)
}

/// Ids, times, producers, keys and digests do not count.
fn same_manifest(left: &Manifest, right: &Manifest) -> bool {
    let paths = |manifest: &Manifest| -> Vec<String> {
        manifest.files.iter().map(|file| file.path.clone()).collect()
    };
    (&left.schema_id, &left.schema_version, &left.capture_mode)
        == (&right.schema_id, &right.schema_version, &right.capture_mode)
        && paths(left) == paths(right)
}

fn same_run(left: &Run, right: &Run) -> bool {
    let timeline = |run: &Run| -> Vec<(String, String)> {
        let events = run.timeline.iter().flatten();
        events.map(|event| (event.event.clone(), event.reference.clone())).collect()
    };
    left.env == right.env && timeline(left) == timeline(right)
}

fn same_refs(left: &Refs, right: &Refs, privacy: Privacy) -> bool {
    if privacy == Privacy::Metadata {
        return left.receipts.len() == right.receipts.len();
    }
    let plain = |refs: &Refs| -> Vec<Receipt> {
        refs.receipts.iter().map(|receipt| Receipt { retrieved_at: None, ..receipt.clone() }).collect()
    };
    let schema = |refs: &Refs| (refs.schema_id.clone(), refs.schema_version.clone());
    schema(left) == schema(right) && same_form(&plain(left), &plain(right))
}

/// Equal up to the spelling of numbers.
fn same_form<T: PartialEq + Serialize>(left: &T, right: &T) -> bool {
    left == right || matches!((canonical(left), canonical(right)), (Ok(left), Ok(right)) if left == right)
}

fn records(left: &RunRecord, right: &RunRecord, privacy: Privacy, found: &mut Diff) {
    let payload = |value: &Option<Value>| value.clone().filter(|_| privacy == Privacy::Full);
    let intents = |record: &RunRecord| -> BTreeMap<String, IntentEntry> {
        let plain = |intent: &IntentEntry| IntentEntry {
            run_id: String::new(),
            producer_version: String::new(),
            created_at: None,
            args: payload(&intent.args),
            ..intent.clone()
        };
        record.intents.iter().map(|intent| (intent.intent_id.clone(), plain(intent))).collect()
    };
    let results = |record: &RunRecord| -> BTreeMap<String, ResultEntry> {
        let plain = |result: &ResultEntry| ResultEntry {
            run_id: String::new(),
            producer_version: String::new(),
            created_at: None,
            result: payload(&result.result),
            ..result.clone()
        };
        record.results.iter().map(|result| (result.intent_id.clone(), plain(result))).collect()
    };
    (found.intents_changed, found.left_only_intents, found.right_only_intents) =
        keyed(&intents(left), &intents(right));
    (found.results_changed, found.left_only_results, found.right_only_results) =
        keyed(&results(left), &results(right));
}

/// Whether anything differs, and the keys that only one side has.
fn keyed<T: PartialEq + Serialize>(
    left: &BTreeMap<String, T>,
    right: &BTreeMap<String, T>,
) -> (bool, Vec<String>, Vec<String>) {
    let only = |one: &BTreeMap<String, T>, other: &BTreeMap<String, T>| -> Vec<String> {
        one.keys().filter(|key| !other.contains_key(*key)).cloned().collect()
    };
    let (left_only, right_only) = (only(left, right), only(right, left));
    let differs = left.iter().any(|(key, it)| right.get(key).is_some_and(|other| !same_form(it, other)));
    (differs || !left_only.is_empty() || !right_only.is_empty(), left_only, right_only)
}

/// The decisions of one session by what they are about.
#[derive(Default)]
struct Decided {
    policy: Option<Digest>,
    keys: HashMap<Box<str>, Seen>,
}

/// The number of the first decision about something, and all verdicts as bits.
#[derive(Clone, Copy)]
struct Seen {
    first: u64,
    outcomes: u32,
}

const WAYS: usize = Verdict::ALL.len() + 1;

fn outcome_bit(verdict: Verdict, simulated: Option<Verdict>) -> u32 {
    1 << (verdict as usize * WAYS + simulated.map_or(0, |verdict| verdict as usize + 1))
}

fn outcomes(bits: u32) -> Vec<Outcome> {
    let simulated = || std::iter::once(None).chain(Verdict::ALL.into_iter().map(Some));
    let all = Verdict::ALL
        .into_iter()
        .flat_map(|verdict| simulated().map(move |simulated| Outcome { verdict, simulated }));
    all.filter(|one| bits & outcome_bit(one.verdict, one.simulated) != 0).collect()
}

/// No part but the target, which comes last, can have a NUL.
const SEPARATOR: char = '\0';

impl Decided {
    fn read(runpack: &mut Runpack) -> Result<Self, ReadError> {
        let mut decided = Self::default();
        let (mut number, mut key) = (0, String::new());
        runpack.told(|told: Told<'_>| {
            number += 1;
            decided.policy = decided.policy.or(told.policy_digest);
            let Some(target) = told.target else { return };
            key.clear();
            for part in [&*target.endpoint_class, &*target.kind, &*target.operation] {
                key.push_str(part);
                key.push(SEPARATOR);
            }
            key.push_str(&target.value);
            let bit = outcome_bit(told.verdict, told.simulated_verdict);
            match decided.keys.get_mut(key.as_str()) {
                Some(seen) => seen.outcomes |= bit,
                None => {
                    decided.keys.insert(key.as_str().into(), Seen { first: number, outcomes: bit });
                }
            }
        })?;
        Ok(decided)
    }
}

fn decision_key(text: &str) -> DecisionKey {
    let mut parts = text.splitn(4, SEPARATOR).map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (class, kind, operation) = (next(), next(), next());
    DecisionKey {
        endpoint_class: EndpointClass::from_str(&class).unwrap_or(EndpointClass::Other),
        kind,
        target: next(),
        operation,
    }
}

fn sessions(
    left: &mut Runpack,
    right: &mut Runpack,
    privacy: Privacy,
    found: &mut Diff,
) -> Result<(), ReadError> {
    let (left, right) = std::thread::scope(|scope| {
        let other = scope.spawn(|| Decided::read(right));
        let one = Decided::read(left);
        (one, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (left, right) = (left?, right?);
    let mut decisions = DecisionDiff {
        policy_digest_left: left.policy,
        policy_digest_right: right.policy,
        ..DecisionDiff::default()
    };
    let (mut left_only, mut right_only) = (Vec::new(), Vec::new());
    let row = |text: &str, left: u32, right: u32| ChangedDecision {
        key: decision_key(text),
        left: outcomes(left),
        right: outcomes(right),
    };
    for (text, seen) in &left.keys {
        match right.keys.get(text) {
            None => {
                left_only.push(seen.first);
                decisions.vanished.push(row(text, seen.outcomes, 0));
            }
            Some(other) if other.outcomes != seen.outcomes => {
                decisions.changed.push(row(text, seen.outcomes, other.outcomes));
            }
            Some(_) => decisions.unchanged_count += 1,
        }
    }
    for (text, seen) in right.keys.iter().filter(|(text, _)| !left.keys.contains_key(*text)) {
        right_only.push(seen.first);
        decisions.new.push(row(text, 0, seen.outcomes));
    }
    for list in [&mut decisions.new, &mut decisions.vanished, &mut decisions.changed] {
        list.sort_unstable();
    }
    decisions.new_count = decisions.new.len();
    decisions.vanished_count = decisions.vanished.len();
    decisions.changed_count = decisions.changed.len();
    found.left_only_intents = ids(left_only);
    found.right_only_intents = ids(right_only);
    found.intents_changed = decisions.new_count + decisions.vanished_count > 0;
    found.results_changed = found.intents_changed || decisions.changed_count > 0;
    found.left_only_results.clone_from(&found.left_only_intents);
    found.right_only_results.clone_from(&found.right_only_intents);
    if privacy == Privacy::Metadata {
        for list in [&mut decisions.new, &mut decisions.vanished, &mut decisions.changed] {
            list.clear();
        }
    }
    found.decisions = Some(decisions);
    Ok(())
}

fn ids(mut numbers: Vec<u64>) -> Vec<String> {
    numbers.sort_unstable();
    numbers.into_iter().map(intent_id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_bit_of_its_own() {
        let all = outcomes(u32::MAX);
        assert_eq!(all.len(), Verdict::ALL.len() * WAYS);
        for one in &all {
            assert_eq!(outcomes(outcome_bit(one.verdict, one.simulated)), [*one]);
        }
        assert!(all.is_sorted());
    }

    #[test]
    fn a_key_is_read_back_whatever_the_target_holds() {
        let key = decision_key("fs.read\0path\0read\0/a\0b");
        assert_eq!((key.endpoint_class, key.target.as_str()), (EndpointClass::FsRead, "/a\0b"));
    }
}
