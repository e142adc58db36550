//! From the tree to a document: keys, kinds, words and patterns are checked, and every mistake is reported.
//!
//! Called by `load` once per file. What it cannot see is left to `load`: other files, and the examples of rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fields::{Case, Fields, list, sorted, text, unknown};
use super::model::{FailClosed, is_operation};
use super::pattern::{ArgvPattern, BUILT_IN, Bindings, PatternError, domain_globs, path_globs, substitute};
use super::source::Reporter;
use super::syntax::{Node, Place, Value};
use super::{decode_exec, decode_rule};
use crate::gate::Verdict;
use crate::schema;

/// Keys of a document.
pub(super) const DOCUMENT_KEYS: [&str; 8] =
    ["schema_id", "schema_version", "default_verdict", "fail_closed", "rules", "extends", "vars", "exec"];
/// Keys of `fail_closed`.
pub(super) const FAIL_CLOSED_KEYS: [&str; 3] = ["enabled", "risk_classes", "required_fields"];
/// What `required_fields` may name.
pub(super) const REQUIRED_FIELDS: [&str; 3] = ["targets", "arg_provenance", "endpoint_class"];

/// One file, before the policies that it extends are merged in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Document {
    pub(super) default_verdict: Option<Verdict>,
    pub(super) fail_closed: Option<FailClosed>,
    pub(super) rules: Vec<decode_rule::DecodedRule>,
    pub(super) extends: Vec<(String, Place)>,
    pub(super) exec: decode_exec::ExecDocument,
}

/// What a decoder needs besides the tree.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) vars: BTreeMap<String, String>,
    pub(super) bindings: &'a Bindings,
}

impl Scope<'_> {
    /// Writes the document's variables out; those of the session stay.
    fn expand(&self, pattern: &str) -> Result<String, PatternError> {
        substitute(pattern, &|name| match self.vars.get(name) {
            Some(value) => Some(value.clone()),
            None => BUILT_IN.contains(&name).then(|| format!("${{{name}}}")),
        })
    }

    /// Reads patterns and reports those that are no good.
    fn patterns(
        &self,
        texts: Vec<(String, Place)>,
        check: &dyn Fn(&str) -> Result<(), PatternError>,
        reporter: &mut Reporter<'_>,
    ) -> Vec<String> {
        let mut good = Vec::with_capacity(texts.len());
        for (text, at) in texts {
            match self.expand(&text).and_then(|expanded| check(&expanded).map(|()| expanded)) {
                Ok(expanded) => good.push(expanded),
                Err(error) => reporter.report(at, error.to_string()),
            }
        }
        good
    }

    pub(super) fn paths(&self, texts: Vec<(String, Place)>, reporter: &mut Reporter<'_>) -> Vec<String> {
        sorted(self.patterns(texts, &|text| path_globs(text, self.bindings).map(drop), reporter))
    }

    pub(super) fn domains(&self, texts: Vec<(String, Place)>, reporter: &mut Reporter<'_>) -> Vec<String> {
        let lower = texts.into_iter().map(|(text, at)| (lower_pattern(&text), at)).collect();
        sorted(self.patterns(lower, &|text| domain_globs(&[text.to_owned()]).map(drop), reporter))
    }

    /// Reads token patterns, whose order counts.
    pub(super) fn tokens(&self, texts: Vec<(String, Place)>, reporter: &mut Reporter<'_>) -> Vec<String> {
        let check = |text: &str| ArgvPattern::bind(&[text.to_owned()], self.bindings).map(drop);
        self.patterns(texts, &check, reporter)
    }

    /// Reads texts that may hold variables and are no patterns themselves.
    pub(super) fn texts(&self, texts: Vec<(String, Place)>, reporter: &mut Reporter<'_>) -> Vec<String> {
        self.patterns(texts, &|_| Ok(()), reporter)
    }
}

/// Lower-cases what is not a variable's name.
fn lower_pattern(text: &str) -> String {
    if text.contains("${") { text.to_owned() } else { text.to_lowercase() }
}

/// Decodes a document. Its variables are its own: neither what it extends nor what extends it sees them.
pub(super) fn document(root: &Node, bindings: &Bindings, reporter: &mut Reporter<'_>) -> Document {
    let Some(fields) = Fields::open(root, &DOCUMENT_KEYS, reporter) else { return Document::default() };
    for (key, want) in [("schema_id", schema::POLICY), ("schema_version", schema::VERSION)] {
        if let Some(given) = fields.text(key, reporter)
            && !given.is_empty()
            && given != want
            && let Some(node) = fields.get(key)
        {
            reporter.report(node.at, format!("unsupported `{key}` `{given}`, expected `{want}`"));
        }
    }
    let mut scope = Scope { vars: BTreeMap::new(), bindings };
    if let Some(node) = fields.get("vars") {
        vars(node, &mut scope, reporter);
    }
    let mut rules = Vec::new();
    if let Some(items) = fields.get("rules").and_then(|node| list(node, reporter)) {
        rules.extend(items.iter().filter_map(|item| decode_rule::rule(item, &scope, reporter)));
    }
    let exec = match fields.get("exec") {
        Some(node) => decode_exec::exec(node, &scope, reporter),
        None => decode_exec::ExecDocument::default(),
    };
    Document {
        default_verdict: fields.verdict("default_verdict", reporter),
        fail_closed: fields.get("fail_closed").and_then(|node| fail_closed(node, reporter)),
        rules,
        extends: fields.texts("extends", reporter).unwrap_or_default(),
        exec,
    }
}

fn vars(node: &Node, scope: &mut Scope<'_>, reporter: &mut Reporter<'_>) {
    let Value::Map(entries) = &node.value else {
        reporter.report(node.at, format!("expected a mapping, found {}", node.value.kind()));
        return;
    };
    let mut seen = Vec::new();
    for (key, value) in entries {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if BUILT_IN.contains(&key.text.as_str()) {
            reporter.report(key.at, format!("the variable `{}` is bound by the session", key.text));
        } else if key.text.is_empty() || !key.text.chars().all(plain) {
            reporter.report(key.at, "a variable's name is made of letters, digits and `_`");
        } else if seen.contains(&&key.text) {
            reporter.report(key.at, format!("the variable `{}` is given twice", key.text));
        } else if let Some(given) = text(value, reporter) {
            seen.push(&key.text);
            match scope.expand(&given) {
                Ok(expanded) => {
                    scope.vars.insert(key.text.clone(), expanded);
                }
                Err(error) => reporter.report(value.at, error.to_string()),
            }
        }
    }
}

fn fail_closed(node: &Node, reporter: &mut Reporter<'_>) -> Option<FailClosed> {
    let fields = Fields::open(node, &FAIL_CLOSED_KEYS, reporter)?;
    let enabled = fields.flag("enabled", reporter).unwrap_or(false);
    let mut risk_classes = fields.set("risk_classes", Case::Lower, reporter);
    if enabled && risk_classes.is_empty() {
        risk_classes = vec!["critical".to_owned(), "high".to_owned()];
    }
    for (name, at) in fields.texts("required_fields", reporter).unwrap_or_default() {
        if !REQUIRED_FIELDS.contains(&name.to_lowercase().as_str()) {
            reporter.report(at, unknown("field", &name, &REQUIRED_FIELDS));
        }
    }
    // The second reading reports nothing new: the list was well-formed or reported above.
    let mut quiet = Reporter::new(reporter.source);
    let required_fields = fields.set("required_fields", Case::Lower, &mut quiet);
    Some(FailClosed { enabled, risk_classes, required_fields })
}

/// Checks the names of operations.
pub(super) fn operations(texts: Vec<(String, Place)>, reporter: &mut Reporter<'_>) -> Vec<String> {
    let mut good = Vec::new();
    for (given, at) in texts {
        let lower = given.to_lowercase();
        if is_operation(&lower) {
            good.push(lower);
        } else {
            let mut known: Vec<_> =
                crate::endpoint::Operation::ALL.iter().map(|operation| operation.as_str()).collect();
            known.sort_unstable();
            known.dedup();
            reporter.report(at, unknown("operation", &given, &known));
        }
    }
    sorted(good)
}
