//! From the tree to the `exec` section.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decode::Scope;
use super::fields::{Case, Fields, sorted, text};
use super::glob::{Glob, Separator};
use super::model::{
    BackendChoice, EnvSettings, ExecLimits, ExecSettings, ReadEvidence, RepeatEvidence, Requirement,
};
use super::source::Reporter;
use super::syntax::{Node, Value};
use crate::endpoint::EndpointClass;

/// Keys of `exec`.
pub(super) const EXEC_KEYS: [&str; 6] = ["require", "backend", "evidence", "env", "limits", "protect"];
/// Keys of `exec.evidence`.
pub(super) const EVIDENCE_KEYS: [&str; 2] = ["reads", "repeat"];
/// Keys of `exec.env`.
pub(super) const ENV_KEYS: [&str; 3] = ["allow", "deny", "set"];
/// Keys of `exec.limits`.
pub(super) const LIMITS_KEYS: [&str; 3] = ["processes", "open_files", "actions_per_second"];

/// The `exec` section of one file. What is `None` was not said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ExecDocument {
    pub(super) require: BTreeMap<EndpointClass, Requirement>,
    pub(super) backend: Option<BackendChoice>,
    pub(super) reads: Option<ReadEvidence>,
    pub(super) repeat: Option<RepeatEvidence>,
    pub(super) env_allow: Option<Vec<String>>,
    pub(super) env_deny: Option<Vec<String>>,
    pub(super) env_set: BTreeMap<String, String>,
    pub(super) limits: ExecLimits,
    pub(super) protect: Option<Vec<String>>,
}

impl ExecDocument {
    /// Merges the section of a policy that extends this one: single values replace, lists add up, and an empty list
    /// takes back what was inherited.
    pub(super) fn overlay(&mut self, own: &Self) {
        self.require.extend(own.require.iter().map(|(class, requirement)| (*class, *requirement)));
        self.backend = own.backend.or(self.backend);
        self.reads = own.reads.or(self.reads);
        self.repeat = own.repeat.or(self.repeat);
        add(&mut self.env_allow, own.env_allow.as_ref());
        add(&mut self.env_deny, own.env_deny.as_ref());
        add(&mut self.protect, own.protect.as_ref());
        self.env_set.extend(own.env_set.iter().map(|(name, value)| (name.clone(), value.clone())));
        self.limits.processes = own.limits.processes.or(self.limits.processes);
        self.limits.open_files = own.limits.open_files.or(self.limits.open_files);
        self.limits.actions_per_second = own.limits.actions_per_second.or(self.limits.actions_per_second);
    }

    /// Fills in what nobody said.
    pub(super) fn settle(&self, defaults: &Self) -> ExecSettings {
        let list = |own: &Option<Vec<String>>, default: &Option<Vec<String>>| {
            own.as_ref().or(default.as_ref()).cloned().unwrap_or_default()
        };
        ExecSettings {
            require: self.require.clone(),
            backend: self.backend.unwrap_or_default(),
            reads: self.reads.unwrap_or_default(),
            repeat: self.repeat.unwrap_or_default(),
            env: EnvSettings {
                allow: list(&self.env_allow, &None),
                deny: list(&self.env_deny, &defaults.env_deny),
                set: self.env_set.clone(),
            },
            limits: self.limits,
            protect: list(&self.protect, &defaults.protect),
        }
    }
}

fn add(inherited: &mut Option<Vec<String>>, own: Option<&Vec<String>>) {
    let Some(own) = own else { return };
    if own.is_empty() {
        *inherited = Some(Vec::new());
        return;
    }
    let mut all = inherited.take().unwrap_or_default();
    all.extend_from_slice(own);
    *inherited = Some(sorted(all));
}

pub(super) fn exec(node: &Node, scope: &Scope<'_>, reporter: &mut Reporter<'_>) -> ExecDocument {
    let mut exec = ExecDocument::default();
    let Some(fields) = Fields::open(node, &EXEC_KEYS, reporter) else { return exec };
    if let Some(node) = fields.get("require") {
        let known = EndpointClass::KERNEL.map(EndpointClass::as_str);
        if let Some(classes) = Fields::open(node, &known, reporter) {
            let words: Vec<_> = Requirement::ALL.iter().map(|word| (word.as_str(), *word)).collect();
            for class in EndpointClass::KERNEL {
                if let Some(requirement) = classes.word(class.as_str(), &words, reporter) {
                    exec.require.insert(class, requirement);
                }
            }
        }
    }
    let words: Vec<_> = BackendChoice::ALL.iter().map(|word| (word.as_str(), *word)).collect();
    exec.backend = fields.word("backend", &words, reporter);
    if let Some(evidence) =
        fields.get("evidence").and_then(|node| Fields::open(node, &EVIDENCE_KEYS, reporter))
    {
        let words: Vec<_> = ReadEvidence::ALL.iter().map(|word| (word.as_str(), *word)).collect();
        exec.reads = evidence.word("reads", &words, reporter);
        let words: Vec<_> = RepeatEvidence::ALL.iter().map(|word| (word.as_str(), *word)).collect();
        exec.repeat = evidence.word("repeat", &words, reporter);
    }
    if let Some(env) = fields.get("env").and_then(|node| Fields::open(node, &ENV_KEYS, reporter)) {
        exec.env_allow = names(&env, "allow", reporter);
        exec.env_deny = names(&env, "deny", reporter);
        if let Some(node) = env.get("set") {
            exec.env_set = settings(node, reporter);
        }
    }
    if let Some(limits) = fields.get("limits").and_then(|node| Fields::open(node, &LIMITS_KEYS, reporter)) {
        let mut limit =
            |key| limits.number(key, 1, reporter).map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        exec.limits = ExecLimits {
            processes: limit("processes"),
            open_files: limit("open_files"),
            actions_per_second: limit("actions_per_second"),
        };
    }
    exec.protect = fields.texts("protect", reporter).map(|texts| scope.paths(texts, reporter));
    exec
}

/// Reads patterns of variable names.
fn names(fields: &Fields<'_>, key: &str, reporter: &mut Reporter<'_>) -> Option<Vec<String>> {
    for (pattern, at) in fields.texts(key, reporter)? {
        if let Err(error) = Glob::parse(&pattern, Separator::None) {
            reporter.report(at, error.to_string());
        }
    }
    Some(fields.set(key, Case::Keep, &mut Reporter::new(reporter.source)))
}

fn settings(node: &Node, reporter: &mut Reporter<'_>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let Value::Map(entries) = &node.value else {
        reporter.report(node.at, format!("expected a mapping, found {}", node.value.kind()));
        return out;
    };
    for (key, value) in entries {
        let Some(value) = text(value, reporter) else { continue };
        if key.text.is_empty() || key.text.contains(['=', '\0']) {
            reporter.report(key.at, "the name of a variable cannot be empty or hold `=`");
        } else if out.insert(key.text.clone(), value).is_some() {
            reporter.report(key.at, format!("the variable `{}` is set twice", key.text));
        }
    }
    out
}
