//! What a session recorded, turned back into actions that a policy can judge.
//!
//! Limits: `image` is the program of a decision's first event, later ones may have come from others; arguments are known
//! in raw capture only. What is not known is said ([`Recorded::unknown`]) and never guessed.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::action::{Action, Host, Object};
use crate::endpoint::{EndpointClass, Operation, TargetKind};
use crate::gate::{Verdict, reason};
use crate::intent::SessionFacts;
use crate::policy::{Unknown, Vars};
use crate::runpack::{ReadError, Runpack};
use crate::sign::Digest;
use crate::timestamp::Timestamp;
use crate::trace::{Circumstances, Line, LineKind, TraceTarget, intent_id};

/// A recording cannot be judged again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordedError {
    /// The runpack cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The runpack is not that of a session.
    #[error("the runpack is not that of a session of `gait exec`")]
    NotASession,
    /// The runpack is of an earlier gait.
    #[error("the runpack does not say for which workspace and user its actions were judged")]
    NoCircumstances,
    /// A decision has no target or one of a kind that this version does not know.
    #[error("{0} has no target that can be judged")]
    Target(String),
}

/// The frame of a recorded session.
#[derive(Debug, Clone)]
pub struct Session {
    /// The run.
    pub run_id: String,
    /// When it began.
    pub started_at: Timestamp,
    /// What its policy was bound to.
    pub circumstances: Circumstances,
    /// The digest of that policy.
    pub policy_digest: Option<Digest>,
    /// The digest of the command, each argument ended by NUL.
    pub command_digest: Option<Digest>,
    /// How the workload ended.
    pub ending: Option<String>,
    /// What the journal tells of each decision, in the order of their numbers.
    told: Vec<Told>,
}

/// What the journal tells of a decision.
#[derive(Debug, Clone)]
struct Told {
    image: Arc<str>,
    address: Option<IpAddr>,
    count: u64,
}

/// What of a line of the journal is needed for every decision; reading all of it takes three times as long.
#[derive(Deserialize)]
struct Part<'a> {
    kind: LineKind,
    #[serde(default, borrow)]
    image: Option<Cow<'a, str>>,
    #[serde(default)]
    address: Option<IpAddr>,
}

/// What of a trace record is needed; its digests and signature were verified before.
#[derive(Deserialize)]
struct Trace {
    verdict: Verdict,
    target: Option<TraceTarget>,
    #[serde(default)]
    enforced: Option<bool>,
    #[serde(default)]
    simulated_verdict: Option<Verdict>,
    #[serde(default)]
    approval: Option<IgnoredAny>,
    #[serde(default)]
    matched_rule: Option<String>,
    #[serde(default)]
    reason_codes: Vec<String>,
    #[serde(default)]
    args: Option<Map<String, Value>>,
}

/// A recorded decision as an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its number, counted from 1.
    pub number: u64,
    /// How often it was made.
    pub count: u64,
    /// What was done.
    pub operation: Operation,
    /// The contract's kind of the target.
    pub kind: String,
    /// The target.
    pub value: String,
    /// What the policy said; what was answered to a question, or that nothing was enforced, is not in it.
    pub verdict: Verdict,
    /// The rule that said so, or the reason codes where no rule did.
    pub by: String,
    /// Whether a question was skipped because another action of the same call was blocked anyway, or may have been.
    pub(super) perhaps_unasked: bool,
    /// Whether gait itself never lets this happen.
    pub(super) never: bool,
    /// What is not known.
    pub unknown: Unknown,
    image: Arc<str>,
    name: Option<String>,
    address: Option<IpAddr>,
    port: u16,
    argv: Option<Vec<u8>>,
}

impl Session {
    /// Reads the journal of a runpack, which the caller has verified.
    ///
    /// # Errors
    ///
    /// Fails if the runpack cannot be read or is not that of a session that says what it was bound to.
    pub fn read(runpack: &mut Runpack) -> Result<Self, RecordedError> {
        if !runpack.is_session() {
            return Err(RecordedError::NotASession);
        }
        let mut start: Option<Line> = None;
        let mut ending = None;
        let mut told: Vec<Told> = Vec::new();
        let mut last: Arc<str> = Arc::from("");
        runpack.journal_lines(|bytes| {
            let line: Part<'_> = serde_json::from_slice(bytes)?;
            match line.kind {
                LineKind::SessionStart => start = Some(Line::parse(bytes)?),
                LineKind::SessionEnd => ending = Line::parse(bytes)?.ending,
                LineKind::Record => {
                    // Most neighbours are of one program; sharing its name keeps a long session small.
                    let image = line.image.as_deref().unwrap_or_default();
                    if *last != *image {
                        last = Arc::from(image);
                    }
                    told.push(Told { image: Arc::clone(&last), address: line.address, count: 1 });
                }
                LineKind::Event => add(&mut told, Line::parse(bytes)?.intent.unwrap_or_default(), 1),
                LineKind::Repeat => {
                    let counts = Line::parse(bytes)?.counts.unwrap_or_default();
                    counts.into_iter().for_each(|one| add(&mut told, one.intent, one.count));
                }
                LineKind::Approval | LineKind::Loss | LineKind::Note => {}
            }
            Ok(())
        })?;
        let start = start.ok_or(RecordedError::NoCircumstances)?;
        Ok(Self {
            run_id: start.run_id.unwrap_or_default(),
            started_at: start.at,
            circumstances: start.circumstances.ok_or(RecordedError::NoCircumstances)?,
            policy_digest: start.policy_digest,
            command_digest: start.command_digest,
            ending,
            told,
        })
    }

    /// Hands the decisions to `each`, in the order of their first occurrence.
    ///
    /// # Errors
    ///
    /// Fails if a line cannot be read or has no target that can be judged.
    pub fn decisions(
        &self,
        runpack: &mut Runpack,
        mut each: impl FnMut(Recorded),
    ) -> Result<(), RecordedError> {
        let mut number = 0;
        let mut failed = None;
        runpack.trace_lines(|bytes| {
            number += 1;
            if failed.is_some() {
                return Ok(());
            }
            let told = usize::try_from(number - 1).ok().and_then(|at| self.told.get(at));
            match Recorded::new(number, serde_json::from_slice(bytes)?, told) {
                Some(recorded) => each(recorded),
                None => failed = Some(number),
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), |number| Err(RecordedError::Target(intent_id(number))))
    }

    /// Returns what a policy is compiled for to judge this session's actions.
    #[must_use]
    pub fn bindings(&self) -> (SessionFacts, Vars) {
        let about = &self.circumstances;
        let facts = SessionFacts {
            identity: about.identity.clone(),
            workspace: about.workspace.clone(),
            run_id: self.run_id.clone(),
        };
        let vars = Vars {
            home: about.home.clone(),
            tmp: about.tmp.clone(),
            run_dir: about.run_dir.clone(),
            uid: about.uid.parse().unwrap_or(u32::MAX),
            protect: about.protect.clone(),
        };
        (facts, vars)
    }

    /// Returns the number of decisions.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.told.len()
    }

    /// Returns whether nothing was decided.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

fn add(told: &mut [Told], intent: u64, count: u64) {
    let at = usize::try_from(intent).unwrap_or(usize::MAX).wrapping_sub(1);
    if let Some(one) = told.get_mut(at) {
        one.count = one.count.saturating_add(count);
    }
}

impl Recorded {
    fn new(number: u64, record: Trace, told: Option<&Told>) -> Option<Self> {
        let target = record.target?;
        let operation = operation(target.endpoint_class, &target.operation, &target.kind)?;
        let asked = record.approval.is_some();
        let verdict = match (record.enforced, record.simulated_verdict) {
            (Some(false), Some(simulated)) => simulated,
            _ if asked => Verdict::RequireApproval,
            _ => record.verdict,
        };
        let (mut name, mut address, mut port) = (None, told.and_then(|told| told.address), 0);
        if operation.target_kind() == TargetKind::Host {
            (name, address, port) = peer(&target.value, operation, address);
        }
        let argv = record.args.as_ref().and_then(arguments);
        let unknown = Unknown {
            argv: operation == Operation::Exec && argv.is_none(),
            address: operation != Operation::Resolve && name.is_some() && address.is_none(),
        };
        Some(Self {
            number,
            count: told.map_or(1, |told| told.count),
            operation,
            by: record.matched_rule.unwrap_or_else(|| record.reason_codes.join(",")),
            verdict,
            perhaps_unasked: verdict == Verdict::Block && !asked,
            never: record.reason_codes.iter().any(|code| code == reason::NEVER_ALLOWED),
            unknown,
            image: told.map_or_else(|| Arc::from(""), |told| Arc::clone(&told.image)),
            kind: target.kind,
            value: target.value,
            name,
            address,
            port,
            argv,
        })
    }

    /// Returns the class.
    #[must_use]
    pub const fn class(&self) -> EndpointClass {
        self.operation.class()
    }

    /// Returns the id of the decision.
    #[must_use]
    pub fn intent_id(&self) -> String {
        intent_id(self.number)
    }

    /// Returns the action, as the held call had it.
    ///
    /// Patterns are compared with the text form of paths, which is its own text form.
    #[must_use]
    pub fn action(&self) -> Action<'_> {
        let object = match self.operation.target_kind() {
            TargetKind::Path => Object::Path(self.value.as_bytes()),
            TargetKind::Host => {
                Object::Host(Host { name: self.name.as_deref(), address: self.address, port: self.port })
            }
            TargetKind::Other => Object::Other(&self.value),
        };
        Action { operation: self.operation, object, image: self.image.as_bytes(), argv: self.argv.as_deref() }
    }
}

/// Finds the operation of a target. Those that the contract spells alike within a class are judged alike.
fn operation(class: EndpointClass, name: &str, kind: &str) -> Option<Operation> {
    Operation::ALL.iter().copied().find(|operation| {
        operation.class() == class && operation.as_str() == name && operation.target_kind().as_str() == kind
    })
}

/// Splits a host's value into name, address and port; the address behind a name stands in the journal.
fn peer(value: &str, operation: Operation, told: Option<IpAddr>) -> (Option<String>, Option<IpAddr>, u16) {
    if let Ok(peer) = value.parse::<SocketAddr>() {
        return (None, Some(peer.ip()), peer.port());
    }
    let split = value.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
    match split {
        // A query has a name alone; a name server has an address.
        _ if operation == Operation::Resolve && told.is_none() => (Some(value.to_owned()), None, 0),
        Some(("unknown", port)) if told.is_none() => (None, None, port),
        Some((name, port)) => (Some(name.to_owned()), told, port),
        None => (Some(value.to_owned()), told, 0),
    }
}

/// Returns the arguments, each ended by NUL, if they were kept and are those of the digest beside them.
fn arguments(args: &Map<String, Value>) -> Option<Vec<u8>> {
    let digest: Digest = args.get("argv_sha256")?.as_str()?.parse().ok()?;
    let words = args.get("argv")?.as_array()?;
    let words: Vec<&str> = words.iter().map(Value::as_str).collect::<Option<_>>()?;
    let joined = |word: fn(&str) -> Vec<u8>| {
        let mut bytes = Vec::new();
        for one in &words {
            bytes.extend(word(one));
            bytes.push(0);
        }
        (Digest::sha256(&bytes) == digest).then_some(bytes)
    };
    // Bytes that are not UTF-8 were written as `\xNN`, and so is that text itself: the digest tells which it was.
    joined(|word| word.as_bytes().to_vec()).or_else(|| joined(unescaped))
}

/// Reads the text form of [`crate::intent::path_text`] back: `\xNN` as the byte that it stands for.
///
/// Only bytes that the text form escapes are read so; one that the text had literally cannot be told apart from it.
#[must_use]
pub fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = rest
            .strip_prefix(b"\\x")
            .and_then(|after| after.get(..2))
            .filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        let byte = byte.filter(|&byte| byte >= 0x80 || char::from(byte).is_whitespace());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { rest.get(4..).unwrap_or_default() } else { tail };
    }
    bytes
}
