//! Loading: reading files, following `extends`, merging, and checking the examples of every rule.

use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

use super::bound::BoundRule;
use super::decode::{self, Document};
use super::decode_exec::ExecDocument;
use super::decode_rule::DecodedRule;
use super::digest;
use super::example::Example;
use super::model::{Policy, Rule};
use super::pattern::Bindings;
use super::shipped::{SHIPPED, decoded, exec_defaults, shipped};
use super::source::{PolicyError, PolicyErrors, Reporter, Source};
use super::syntax::{self, Place};
use crate::gate::{Verdict, rule_matches};

/// How large a policy file may be. The largest shipped one has less than a hundredth of it; lists that a program wrote
/// are longer.
pub const MAX_POLICY_BYTES: usize = 4 << 20;

/// How many rules a policy may have with everything it extends. A decision names its rule in 16 bits, and the index of
/// paths one of a rule's two lists.
pub const MAX_RULES: usize = 1 << 14;

/// Reads a file for the loader.
pub type ReadFile<'r> = dyn FnMut(&Path) -> io::Result<Vec<u8>> + 'r;

impl Policy {
    /// Loads a policy: a shipped one by its name, or a file.
    ///
    /// A name without `/` and without a suffix `.yaml` or `.yml` that is shipped means the shipped policy.
    ///
    /// # Errors
    ///
    /// Fails with everything that is wrong in the policy and in what it extends.
    pub fn load(name: &str) -> Result<Self, PolicyErrors> {
        Self::load_with(name, &mut read_limited)
    }

    /// Loads a policy, reading files through `read`, which is also given the files of `extends`.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn load_with(name: &str, read: &mut ReadFile<'_>) -> Result<Self, PolicyErrors> {
        let mut loader = Loader::new(read);
        let merged = match Locator::parse(name, None) {
            Locator::Shipped(name, text) => loader.load(Locator::Shipped(name, text)),
            Locator::File(path) => match loader.read_text(&path) {
                Ok(text) => loader.text(name.to_owned(), Identity::File(clean(&path)), Some(&path), text),
                Err(message) => {
                    loader.errors.push(PolicyError::of_file(name, message));
                    Merged::default()
                }
            },
        };
        loader.finish(name, merged)
    }

    /// Parses the text of a policy. What it extends must be shipped policies.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyErrors> {
        let mut refuse = |_: &Path| Err(io::Error::new(io::ErrorKind::Unsupported, "no files here"));
        let mut loader = Loader::new(&mut refuse);
        let identity = Identity::File(PathBuf::from(name));
        let merged = loader.text(name.to_owned(), identity, None, text.to_owned());
        loader.finish(name, merged)
    }
}

/// Reads a policy file, one byte more than allowed at most.
fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_POLICY_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a name of a policy stands for.
enum Locator {
    Shipped(&'static str, &'static str),
    File(PathBuf),
}

impl Locator {
    /// `base` is the file that mentions the name.
    fn parse(name: &str, base: Option<&Path>) -> Self {
        if let Some((name, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
            return Self::Shipped(name, text);
        }
        let directory = base.and_then(Path::parent).unwrap_or_else(|| Path::new(""));
        Self::File(directory.join(name))
    }
}

/// Removes `.` and `..` by name alone, so that a file is known again by another spelling.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// By what a policy is known again, so that cycles end and nothing is merged twice.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    Shipped(String),
    File(PathBuf),
}

/// What one policy and everything that it extends come to.
#[derive(Default)]
struct Merged {
    default_verdict: Option<Verdict>,
    fail_closed: Option<super::model::FailClosed>,
    rules: Vec<Rule>,
    exec: ExecDocument,
}

struct Loader<'r> {
    read: &'r mut ReadFile<'r>,
    bindings: Bindings,
    open: Vec<Identity>,
    merged: Vec<Identity>,
    errors: Vec<PolicyError>,
}

impl<'r> Loader<'r> {
    fn new<'f: 'r>(read: &'r mut ReadFile<'f>) -> Self {
        Self {
            // The two lifetimes of the trait object need not be told apart here.
            read: shorten(read),
            bindings: Bindings::placeholders(),
            open: Vec::new(),
            merged: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn load(&mut self, locator: Locator) -> Merged {
        match locator {
            Locator::Shipped(name, text) => {
                let identity = Identity::Shipped(name.to_owned());
                let source = Source { name: format!("builtin:{name}"), text: text.to_owned() };
                match decoded(name) {
                    // Its text was checked when the form was made, and its examples with it.
                    Some(document) => self.document(document, identity, None, Reporter::new(&source)),
                    None => self.text(source.name, identity, None, source.text),
                }
            }
            Locator::File(path) => {
                let shown = path.display().to_string();
                match self.read_text(&path) {
                    Ok(text) => self.text(shown, Identity::File(clean(&path)), Some(&path), text),
                    Err(message) => {
                        self.errors.push(PolicyError::of_file(&shown, message));
                        Merged::default()
                    }
                }
            }
        }
    }

    fn read_text(&mut self, path: &Path) -> Result<String, String> {
        let bytes = match (self.read)(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let bare = path.components().count() == 1 && path.extension().is_none();
                let known: Vec<_> = SHIPPED.iter().map(|(name, _)| *name).collect();
                let hint =
                    if bare { format!("; shipped policies are {}", known.join(", ")) } else { String::new() };
                return Err(format!("cannot read the policy: {error}{hint}"));
            }
        };
        if bytes.len() > MAX_POLICY_BYTES {
            return Err(format!("the policy is larger than {MAX_POLICY_BYTES} bytes"));
        }
        String::from_utf8(bytes).map_err(|error| format!("the policy is not UTF-8: {}", error.utf8_error()))
    }

    fn text(&mut self, name: String, identity: Identity, path: Option<&Path>, text: String) -> Merged {
        if text.len() > MAX_POLICY_BYTES {
            self.errors.push(PolicyError::of_file(
                &name,
                format!("the policy is larger than {MAX_POLICY_BYTES} bytes"),
            ));
            return Merged::default();
        }
        let source = Source { name, text };
        let mut reporter = Reporter::new(&source);
        let root = match syntax::parse(&source.text) {
            Ok(root) => root,
            Err(error) => {
                reporter.report(error.at, error.message);
                self.errors.append(&mut reporter.errors);
                return Merged::default();
            }
        };
        let document = decode::document(&root, &self.bindings, &mut reporter);
        for decoded in &document.rules {
            check_examples(decoded, &self.bindings, &mut reporter);
        }
        self.document(document, identity, path, reporter)
    }

    /// Takes a decoded document, and what was reported of it.
    fn document(
        &mut self,
        document: Document,
        identity: Identity,
        path: Option<&Path>,
        mut reporter: Reporter<'_>,
    ) -> Merged {
        self.open.push(identity.clone());
        let merged = self.extend(document, path, &mut reporter);
        self.open.pop();
        self.merged.push(identity);
        // What is said of the whole file comes last.
        reporter.errors.sort_by_key(|error| (error.line == 0, error.line, error.column));
        self.errors.append(&mut reporter.errors);
        merged
    }

    /// Merges what the document extends, then the document itself.
    fn extend(&mut self, document: Document, path: Option<&Path>, reporter: &mut Reporter<'_>) -> Merged {
        let mut merged = Merged::default();
        for (name, at) in &document.extends {
            let locator = Locator::parse(name, path);
            let identity = match &locator {
                Locator::Shipped(name, _) => Identity::Shipped((*name).to_owned()),
                Locator::File(path) => Identity::File(clean(path)),
            };
            if self.open.contains(&identity) {
                reporter.report(*at, format!("`{name}` extends itself, here or through others"));
                continue;
            }
            if self.merged.contains(&identity) {
                continue;
            }
            if let Locator::File(file) = &locator
                && let Err(message) = self.read_text(file)
            {
                reporter.report(*at, message);
                continue;
            }
            let parent = self.load(locator);
            merged.default_verdict = parent.default_verdict.or(merged.default_verdict);
            merged.fail_closed = parent.fail_closed.or(merged.fail_closed);
            merged.rules.extend(parent.rules);
            merged.exec.overlay(&parent.exec);
        }
        merged.default_verdict = document.default_verdict.or(merged.default_verdict);
        merged.fail_closed = document.fail_closed.or(merged.fail_closed);
        merged.rules.extend(document.rules.into_iter().map(|decoded| decoded.rule));
        merged.exec.overlay(&document.exec);
        merged
    }

    fn finish(mut self, name: &str, merged: Merged) -> Result<Policy, PolicyErrors> {
        let Merged { default_verdict, fail_closed, mut rules, exec } = merged;
        if rules.len() > MAX_RULES {
            self.errors
                .push(PolicyError::of_file(name, format!("a policy may have {MAX_RULES} rules at most")));
        }
        if !self.errors.is_empty() {
            return Err(PolicyErrors(self.errors));
        }
        rules.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        let default_verdict = default_verdict.unwrap_or(Verdict::RequireApproval);
        let fail_closed = fail_closed.unwrap_or_default();
        let digest = digest::digest(default_verdict, &fail_closed, &rules, &exec)
            .map_err(|error| PolicyErrors(vec![PolicyError::of_file(name, error.to_string())]))?;
        let exec = exec.settle(exec_defaults());
        let (rules, exec) = (rules.into(), exec.into());
        Ok(Policy { name: name.to_owned(), default_verdict, fail_closed, rules, exec, digest })
    }
}

fn shorten<'short, 'long: 'short>(read: &'short mut ReadFile<'long>) -> &'short mut ReadFile<'short> {
    // A closure that lives longer may stand where one that lives shorter is asked for.
    read
}

/// Runs the examples of a rule against its match.
fn check_examples(decoded: &DecodedRule, bindings: &Bindings, reporter: &mut Reporter<'_>) {
    let rule = &decoded.rule;
    // A pattern that is no good was reported where it stands, and then the rule has fewer than it was given.
    let Ok(bound) = BoundRule::bind(rule, bindings) else { return };
    if !reporter.errors.is_empty() {
        return;
    }
    let wanted = rule.examples.matches.iter().map(|text| (text, true));
    let unwanted = rule.examples.not_match.iter().map(|text| (text, false));
    let unknown = Place { line: rule.origin.line, column: 1, width: 1 };
    for (index, (text, want)) in wanted.chain(unwanted).enumerate() {
        let at = decoded.example_places.get(index).copied().unwrap_or(unknown);
        let example = match Example::parse(text, bindings) {
            Ok(example) => example,
            Err(error) => {
                reporter.report(at, format!("not an example: {error}"));
                continue;
            }
        };
        let (intent, action) = example.intent(bindings);
        let facts = action.as_ref().map(crate::gate::Facts::of).unwrap_or_default();
        if rule_matches(rule, &bound, &intent, facts) != want {
            let name = &rule.name;
            reporter.report(
                at,
                if want {
                    format!("the rule `{name}` does not match this example")
                } else {
                    format!("the rule `{name}` matches this example, which it must not")
                },
            );
        }
    }
}

/// Returns whether a name stands for a shipped policy.
#[must_use]
pub fn is_shipped(name: &str) -> bool {
    shipped(name).is_some()
}
