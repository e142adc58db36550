//! What a policy says, after parsing and checking: the types that evaluator, compiler and digest read.
//!
//! Lists of the base grammar are normalised as the contract asks: trimmed, lower-case where it says so, sorted,
//! unique. Patterns still hold the variables of the session (`${workspace}` …); those of the document are written out.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::glob::{Glob, Separator};
use super::source::Origin;
use crate::endpoint::{EndpointClass, Operation};
use crate::gate::Verdict;
use crate::sign::Digest;

/// A policy: parsed, checked, and merged with the policies that it extends. Copies share the rules.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) name: String,
    pub(crate) default_verdict: Verdict,
    pub(crate) fail_closed: FailClosed,
    pub(crate) rules: Arc<[Rule]>,
    pub(crate) exec: Arc<ExecSettings>,
    pub(crate) digest: Digest,
}

impl Policy {
    /// Returns the name that the policy was loaded by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the verdict where no rule matches.
    #[must_use]
    pub const fn default_verdict(&self) -> Verdict {
        self.default_verdict
    }

    /// Returns the rules in the order of evaluation.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns whether unknown classes and missing fields block risky intents.
    #[must_use]
    pub const fn fail_closed(&self) -> &FailClosed {
        &self.fail_closed
    }

    /// Returns what `gait exec` needs and does.
    #[must_use]
    pub fn exec(&self) -> &ExecSettings {
        &self.exec
    }

    /// Returns the contract's digest of the policy.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

/// When intents that say too little are blocked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailClosed {
    /// Whether any of it applies.
    pub enabled: bool,
    /// The risk classes it applies to.
    pub risk_classes: Vec<String>,
    /// What an intent of these classes must say.
    pub required_fields: Vec<String>,
}

/// One rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// Lower comes first.
    #[serde(default)]
    pub priority: i64,
    /// What it says.
    pub effect: Verdict,
    /// What it says it about: the contract's keys.
    #[serde(default)]
    pub base: BaseMatch,
    /// What it says it about: facts that only the kernel knows.
    #[serde(default)]
    pub facts: FactMatch,
    /// The configured reason codes.
    #[serde(default)]
    pub reason_codes: Vec<String>,
    /// The configured violations.
    #[serde(default)]
    pub violations: Vec<String>,
    /// How many people must approve.
    #[serde(default)]
    pub min_approvals: u32,
    /// Whether they must differ.
    #[serde(default)]
    pub require_distinct_approvers: bool,
    /// The credential that the call must come with.
    pub broker: Option<Broker>,
    /// How often it may happen.
    pub rate_limit: Option<RateLimit>,
    /// What tainted arguments may reach.
    pub dataflow: Option<Dataflow>,
    /// Which endpoints it may reach.
    pub endpoint: Option<EndpointRule>,
    /// What is said to whom the rule stops.
    pub justification: Option<String>,
    /// Actions that it must and must not match.
    #[serde(default)]
    pub examples: Examples,
    /// How approvals of held calls work.
    pub approval: Option<Approval>,
    /// Where it stands.
    pub origin: Origin,
}

impl Rule {
    /// Returns the reason codes that a decision by this rule carries before its constraints add theirs.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        if !self.reason_codes.is_empty() {
            return self.reason_codes.clone();
        }
        let mut name = serde_json::to_string(&self.name).unwrap_or_else(|_| self.name.clone());
        name.retain(|c| c != '"');
        let sanitised: String = name.chars().map(|c| if matches!(c, ' ' | '-') { '_' } else { c }).collect();
        vec![format!("matched_rule_{}", sanitised.to_lowercase())]
    }
}

/// The contract's match keys. An empty list asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BaseMatch {
    /// Names of tools.
    pub tool_names: Vec<String>,
    /// Risk classes.
    pub risk_classes: Vec<String>,
    /// Kinds of target.
    pub target_kinds: Vec<String>,
    /// Exact targets.
    pub target_values: Vec<String>,
    /// Endpoint classes.
    pub endpoint_classes: Vec<EndpointClass>,
    /// Sensitivities.
    pub data_classes: Vec<String>,
    /// Kinds of target, again.
    pub destination_kinds: Vec<String>,
    /// Exact targets, again.
    pub destination_values: Vec<String>,
    /// Operations of targets.
    pub destination_operations: Vec<String>,
    /// Publishers of skills.
    pub skill_publishers: Vec<String>,
    /// Sources of skills.
    pub skill_sources: Vec<String>,
    /// Sources of arguments.
    pub provenance_sources: Vec<String>,
    /// Identities.
    pub identities: Vec<String>,
    /// Prefixes of the workspace.
    pub workspace_prefixes: Vec<String>,
}

/// The additive match keys. All of them must hold for one and the same target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FactMatch {
    /// Path patterns.
    pub paths: Option<Vec<String>>,
    /// Path patterns that take matches away.
    pub not_paths: Option<Vec<String>>,
    /// Operations.
    pub operations: Option<Vec<String>>,
    /// Path patterns of the acting program.
    pub executables: Option<Vec<String>>,
    /// Token patterns of the new program's arguments.
    pub argv: Option<Vec<String>>,
    /// Name patterns.
    pub domains: Option<Vec<String>>,
    /// Networks.
    pub addresses: Option<Vec<IpNet>>,
    /// Ports, both ends included.
    pub ports: Option<Vec<(u16, u16)>>,
}

impl FactMatch {
    /// Returns whether no additive key is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether the rule speaks of a target by a fact of the file system or the network.
    #[must_use]
    pub const fn names_host(&self) -> bool {
        self.domains.is_some() || self.addresses.is_some() || self.ports.is_some()
    }
}

/// A credential that a call must come with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Broker {
    /// Whether it must.
    pub required: bool,
    /// Which one.
    pub reference: String,
    /// For what.
    pub scopes: Vec<String>,
}

/// How often something may happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// How many times per window.
    pub requests: u64,
    /// `minute` or `hour`.
    pub window: String,
    /// `tool`, `identity` or `tool_identity`.
    pub scope: String,
}

/// What tainted arguments may not reach without more ado.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataflow {
    /// Off only where it was said to be.
    pub enabled: bool,
    /// Sources whose arguments are tainted.
    pub tainted_sources: Vec<String>,
    /// Kinds of destination.
    pub destination_kinds: Vec<String>,
    /// Exact destinations.
    pub destination_values: Vec<String>,
    /// Operations.
    pub destination_operations: Vec<String>,
    /// What happens: block or `require_approval`.
    pub action: Verdict,
    /// Its reason code.
    pub reason_code: String,
    /// Its violation.
    pub violation: String,
}

/// Which endpoints a rule's intents may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRule {
    /// Off only where it was said to be.
    pub enabled: bool,
    /// Paths that may be reached.
    pub path_allowlist: Vec<String>,
    /// Paths that may not.
    pub path_denylist: Vec<String>,
    /// Domains that may be reached.
    pub domain_allowlist: Vec<String>,
    /// Domains that may not.
    pub domain_denylist: Vec<String>,
    /// Network classes that may be used.
    pub egress_classes: Vec<String>,
    /// What happens otherwise: block or `require_approval`.
    pub action: Verdict,
    /// What happens to destructive intents.
    pub destructive_action: Option<Verdict>,
    /// An additional reason code.
    pub reason_code: String,
    /// An additional violation.
    pub violation: String,
}

/// Actions that a rule must and must not match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Examples {
    /// Must match.
    pub matches: Vec<String>,
    /// Must not match.
    pub not_match: Vec<String>,
}

/// How approvals of held calls work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// How long a held call waits, in seconds.
    pub timeout_s: Option<u64>,
    /// How many calls one approval is good for.
    pub uses: Option<u32>,
    /// What one approval is good for.
    pub scope: Option<ApprovalScope>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident; $( $(#[$vdoc:meta])* $variant:ident = $text:literal, )*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub enum $name { $( $(#[$vdoc])* $variant, )* }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// Returns the spelling in a policy.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }
        }
    };
}

words! {
    /// What one approval is good for.
    ApprovalScope;
    /// The intent with exactly this digest.
    #[default]
    Intent = "intent",
    /// Everything the rule matches, for this session.
    Rule = "rule",
}

words! {
    /// What the backend must be able to do with a class.
    Requirement;
    /// Stop what the policy blocks.
    #[default]
    Enforced = "enforced",
    /// Record it.
    Observed = "observed",
    /// Nothing.
    Absent = "absent",
}

words! {
    /// The backend that the policy asks for.
    BackendChoice;
    /// The best that this host has.
    #[default]
    Auto = "auto",
    /// Kernel programs.
    Ebpf = "ebpf",
    /// Held system calls.
    Seccomp = "seccomp",
    /// Stopped system calls.
    Ptrace = "ptrace",
}

words! {
    /// How good the evidence of reads must be.
    ReadEvidence;
    /// The recorded access is the access.
    #[default]
    Exact = "exact",
    /// Judged and recorded by name, bounded by the floor.
    Named = "named",
    /// The floor alone decides, nothing is recorded.
    Off = "off",
}

words! {
    /// What is recorded of repetitions.
    RepeatEvidence;
    /// The first in full, the rest as a count.
    #[default]
    Distinct = "distinct",
    /// Every event.
    All = "all",
}

/// What `gait exec` needs and does.
#[derive(Debug, Clone, Default)]
pub struct ExecSettings {
    /// What the backend must be able to do, where the policy says so; every other class follows from the rules.
    pub require: BTreeMap<EndpointClass, Requirement>,
    /// The backend.
    pub backend: BackendChoice,
    /// How good the evidence of reads must be.
    pub reads: ReadEvidence,
    /// What is recorded of repetitions.
    pub repeat: RepeatEvidence,
    /// The workload's environment.
    pub env: EnvSettings,
    /// Caps.
    pub limits: ExecLimits,
    /// Patterns of what the workload never changes.
    pub protect: Vec<String>,
}

/// What the workload's environment holds.
#[derive(Debug, Clone, Default)]
pub struct EnvSettings {
    /// Names that stay although a pattern of `deny` matches them.
    pub allow: Vec<String>,
    /// Names that go.
    pub deny: Vec<String>,
    /// Variables that are set.
    pub set: BTreeMap<String, String>,
}

impl EnvSettings {
    /// Returns what tells which variables stay. Ask once for a whole environment.
    #[must_use]
    pub fn keeper(&self) -> EnvKeeper {
        // The patterns were parsed when the policy was loaded.
        let globs = |patterns: &[String]| {
            patterns
                .iter()
                .filter_map(|pattern| Glob::parse(pattern, Separator::None).ok())
                .flatten()
                .collect()
        };
        EnvKeeper { allow: globs(&self.allow), deny: globs(&self.deny) }
    }
}

/// The patterns of [`EnvSettings`], parsed.
#[derive(Debug, Clone)]
pub struct EnvKeeper {
    allow: Vec<Glob>,
    deny: Vec<Glob>,
}

impl EnvKeeper {
    /// Returns whether a variable of this name stays.
    #[must_use]
    pub fn keeps(&self, name: &[u8]) -> bool {
        let listed = |globs: &[Glob]| globs.iter().any(|glob| glob.is_match(name));
        listed(&self.allow) || !listed(&self.deny)
    }
}

/// Caps on the workload. `None` is generous: what the host gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecLimits {
    /// How many processes at a time.
    pub processes: Option<u64>,
    /// How many open files per process.
    pub open_files: Option<u64>,
    /// How many judged actions per second.
    pub actions_per_second: Option<u64>,
}

/// Returns whether an operation of this spelling exists.
pub(crate) fn is_operation(text: &str) -> bool {
    Operation::ALL.iter().any(|operation| operation.as_str() == text)
}
