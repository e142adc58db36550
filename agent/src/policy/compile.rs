//! Compilation: a policy and a session become what `gait exec` asks for every action.
//!
//! Everything that is the same for all actions of one operation in one session is settled here, by asking the
//! reference evaluation itself; what is left per operation is a short list of steps. A property test holds `decide`
//! equal to the reference.

mod partial;
mod subject;

use std::net::IpAddr;

pub use partial::{Knowledge, Unknown};
use subject::Subject;

use super::bound::{BindError, BoundPolicy, BoundRule, EndpointGlobs, clean_path};
use super::glob::Glob;
use super::matcher::{NameSet, OperationMask, PathIndex, Set, Sets};
use super::model::{ExecSettings, Policy, Rule};
use super::pattern::{ArgvPattern, Vars};
use super::source::Origin;
use super::{Floor, floor};
use crate::action::{Action, Host, Object};
use crate::endpoint::{EndpointClass, Operation, TargetKind};
use crate::gate::reason::Hits;
use crate::gate::{Decision, GateOutcome, Ground, Verdict, base_may_match, outcome};
use crate::intent::{Capture, Intent, SessionFacts, path_text};

/// A policy cannot be used by `gait exec`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A pattern does not fit the session.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The rule asks for what only a tool-call gate has.
    #[error(
        "{origin}: rule `{rule}` asks for {what}, which `gait exec` cannot enforce; name tools in its `match`"
    )]
    Unenforceable {
        /// Where the rule stands.
        origin: Origin,
        /// The rule.
        rule: String,
        /// What it asks for.
        what: &'static str,
    },
}

/// A policy, bound to a session and made fast. Immutable; share it by reference between threads.
#[derive(Debug, Clone)]
pub struct CompiledPolicy {
    policy: Policy,
    pub(super) rules: Vec<CompiledRule>,
    pub(super) programs: Vec<Program>,
    index: PathIndex,
    pub(super) protect: Vec<Vec<Glob>>,
    floor: Floor,
}

/// What the rules of a policy say about one operation.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// The policy fails closed on every action of the operation.
    pub(super) fail_closed: bool,
    pub(super) steps: Vec<Step>,
    /// Those of them that ask for no path.
    pathless: Vec<Step>,
    /// Whether the last step matches whatever comes.
    pub(super) total: bool,
}

/// One rule that may match an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) rule: u16,
    /// Whether anything but the sets of paths is left to check.
    more: bool,
}

/// What of a rule depends on the action.
#[derive(Debug, Clone)]
pub(super) struct CompiledRule {
    pub(super) effect: Verdict,
    /// The set of `paths`, and that of `not_paths`.
    pub(super) path_set: Option<Set>,
    pub(super) not_path_set: Option<Set>,
    pub(super) path_globs: Option<Vec<Glob>>,
    pub(super) not_path_globs: Vec<Glob>,
    pub(super) values: Vec<Vec<String>>,
    pub(super) executables: Option<Vec<Glob>>,
    pub(super) argv: Option<ArgvPattern>,
    names: Option<NameSet>,
    endpoint: Option<EndpointGlobs>,
    /// Whether the rule asks for more than paths.
    pub(super) narrow: bool,
}

/// What a decision means, for people and for records.
pub type Explanation = GateOutcome;

impl CompiledPolicy {
    /// Compiles a policy for a session.
    ///
    /// # Errors
    ///
    /// Fails if a variable's value makes a pattern useless, if a rule that may match an action of the kernel asks for
    /// a rate limit or a credential.
    pub fn compile(policy: &Policy, facts: &SessionFacts, vars: &Vars) -> Result<Self, CompileError> {
        let BoundPolicy { rules, protect, .. } = BoundPolicy::new(policy, facts, vars)?;
        let mut compiled = Self {
            policy: policy.clone(),
            rules: Vec::with_capacity(rules.len()),
            programs: Vec::with_capacity(Operation::ALL.len()),
            index: PathIndex::default(),
            protect,
            floor: Floor::default(),
        };
        let masks = compiled.programs(facts)?;
        compiled.sets(rules, &masks);
        for (program, operation) in compiled.programs.iter_mut().zip(Operation::ALL) {
            program.finish(&compiled.rules, operation.class());
        }
        compiled.floor = floor::floor(&compiled.programs, &compiled.rules, policy.default_verdict());
        Ok(compiled)
    }

    /// Finds out which rules may match which operations.
    fn programs(&mut self, facts: &SessionFacts) -> Result<Vec<u64>, CompileError> {
        let mut masks = vec![0_u64; self.policy.rules().len()];
        for &operation in Operation::ALL {
            let intent = Intent::from_action(facts, &sample(operation), Capture::Reference);
            let closed = self.policy.fail_closed();
            let fail_closed = closed.enabled
                && closed.risk_classes.contains(&intent.context().risk_class)
                && operation.class() == EndpointClass::Other;
            let mut steps = Vec::new();
            for (index, rule) in self.policy.rules().iter().enumerate() {
                if !may_match(rule, operation, &intent) {
                    continue;
                }
                enforceable(rule)?;
                if let Some(mask) = masks.get_mut(index) {
                    *mask |= OperationMask::of(operation).0;
                }
                steps.push(Step { rule: u16::try_from(index).unwrap_or(u16::MAX), more: true });
            }
            self.programs.push(Program { fail_closed, steps, pathless: Vec::new(), total: false });
        }
        Ok(masks)
    }

    /// Numbers the sets of path patterns and files the patterns.
    fn sets(&mut self, bound: Vec<BoundRule>, masks: &[u64]) {
        let changing = Operation::ALL.iter().filter(|operation| {
            operation.target_kind() == TargetKind::Path
                && matches!(operation.class(), EndpointClass::FsWrite | EndpointClass::FsDelete)
        });
        let mask = OperationMask(changing.map(|&operation| OperationMask::of(operation).0).sum());
        for glob in self.protect.iter().flatten() {
            self.index.insert(glob, Set::PROTECT, mask);
        }
        for (number, ((rule, bound), &mask)) in (0..).zip(self.policy.rules().iter().zip(bound).zip(masks)) {
            let mut file = |globs: &[Glob], set: Set| {
                if globs.is_empty() || mask == 0 {
                    return None;
                }
                for glob in globs {
                    self.index.insert(glob, set, OperationMask(mask));
                }
                Some(set)
            };
            let path_set = file(bound.paths.as_deref().unwrap_or_default(), Set::paths(number));
            let not_path_set = file(&bound.not_paths, Set::not_paths(number));
            let base = &rule.base;
            let values: Vec<Vec<String>> = [&base.target_values, &base.destination_values]
                .into_iter()
                .filter(|list| !list.is_empty())
                .cloned()
                .collect();
            let facts = &rule.facts;
            let narrow = !values.is_empty()
                || bound.executables.is_some()
                || bound.argv.is_some()
                || facts.names_host();
            self.rules.push(CompiledRule {
                effect: rule.effect,
                path_set,
                not_path_set,
                path_globs: bound.paths,
                not_path_globs: bound.not_paths,
                values,
                executables: bound.executables,
                argv: bound.argv,
                names: bound.domains.as_ref().map(|globs| NameSet::new(globs)),
                endpoint: bound.endpoint,
                narrow,
            });
        }
    }

    /// Judges an action. Allocates nothing unless the path is not plain text or a rule has base endpoint lists.
    #[must_use]
    pub fn decide(&self, action: &Action<'_>) -> Decision {
        let (program, subject, sets) = match self.begin(action) {
            Ok(begun) => begun,
            Err(decision) => return decision,
        };
        for step in program.steps_for(&self.rules, &sets) {
            match self.step(step, &subject, &sets) {
                None => {}
                Some(decision) => return decision,
            }
        }
        self.fall_through(&subject)
    }

    /// Decides what no rule has a say in, and otherwise prepares the action for the rules.
    #[inline]
    fn begin<'a>(&self, action: &'a Action<'a>) -> Result<(&Program, Subject<'a>, Sets), Decision> {
        let operation = action.operation;
        let program = self.programs.get(usize::from(operation as u8)).ok_or(block(Ground::FailClosed))?;
        let subject = match (action.object, operation.target_kind()) {
            (Object::Path(path), TargetKind::Path) => Subject::path(action, path),
            (Object::Host(host), TargetKind::Host) => Subject::host(action, host),
            (Object::Other(_), TargetKind::Other) => Subject::new(action),
            // A backend that contradicts the table is not believed.
            _ => return Err(block(Ground::FailClosed)),
        };
        let mut sets = Sets::default();
        if let Some(path) = subject.path.as_deref()
            && self.index.concerns(operation)
        {
            let bytes = path.as_bytes();
            if self.index.lookup(bytes, operation, &mut sets).is_err() {
                sets.clear();
                // A cleaned path is clean.
                let cleaned = clean_path(path);
                let _clean = self.index.lookup(cleaned.as_bytes(), operation, &mut sets);
            }
            if sets.has(Set::PROTECT) {
                return Err(block(Ground::Protect(self.protector(path))));
            }
        }
        if program.fail_closed { Err(block(Ground::FailClosed)) } else { Ok((program, subject, sets)) }
    }

    /// Decides by one rule, if it matches.
    #[inline]
    fn step(&self, step: Step, subject: &Subject<'_>, sets: &Sets) -> Option<Decision> {
        let index = usize::from(step.rule);
        let (Some(rule), Some(source)) = (self.rules.get(index), self.policy.rules().get(index)) else {
            return Some(block(Ground::FailClosed));
        };
        if rule.path_set.is_some_and(|set| !sets.has(set))
            || rule.not_path_set.is_some_and(|set| sets.has(set))
            || (step.more && !rule.matches(source, subject))
        {
            return None;
        }
        let (verdict, hits) = rule.constrained(source, subject);
        Some(Decision { verdict, ground: Ground::Rule(step.rule), hits })
    }

    /// Decides where no rule matches.
    fn fall_through(&self, subject: &Subject<'_>) -> Decision {
        let default = self.policy.default_verdict();
        match subject.action.class() {
            EndpointClass::Other => block(Ground::DefaultOther),
            EndpointClass::NetHttp if default < Verdict::RequireApproval && subject.is_private() => {
                block(Ground::DefaultPrivate)
            }
            _ => Decision { verdict: default, ground: Ground::Default, hits: Hits::default() },
        }
    }

    /// Returns the number of the first protected pattern that a path matches.
    fn protector(&self, path: &str) -> u16 {
        let path = clean_path(path);
        let hit = |globs: &Vec<Glob>| globs.iter().any(|glob| glob.is_match(path.as_bytes()));
        u16::try_from(self.protect.iter().position(hit).unwrap_or(usize::MAX)).unwrap_or(u16::MAX)
    }

    /// Puts a decision into words. The decision must be one of this policy's.
    #[must_use]
    pub fn explain(&self, decision: Decision) -> Explanation {
        outcome(&self.policy, decision)
    }

    /// Returns the policy.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns what `gait exec` needs and does.
    #[must_use]
    pub fn exec(&self) -> &ExecSettings {
        self.policy.exec()
    }

    /// Returns the directories outside of which everything is blocked.
    #[must_use]
    pub const fn floor(&self) -> &Floor {
        &self.floor
    }

    /// Returns whether some action of the operation would not be allowed.
    #[must_use]
    pub fn can_block(&self, operation: Operation) -> bool {
        let Some(program) = self.programs.get(usize::from(operation as u8)) else { return true };
        let class = operation.class();
        let changes = matches!(class, EndpointClass::FsWrite | EndpointClass::FsDelete);
        let stops = |step: &Step| {
            let rule = self.policy.rules().get(usize::from(step.rule));
            rule.is_none_or(|rule| {
                rule.effect != Verdict::Allow || rule.endpoint.is_some() || rule.dataflow.is_some()
            })
        };
        let falls_through = !program.total
            && (self.policy.default_verdict() != Verdict::Allow
                || matches!(class, EndpointClass::Other | EndpointClass::NetHttp));
        program.fail_closed
            || (changes && !self.protect.is_empty())
            || program.steps.iter().any(stops)
            || falls_through
    }

    /// Returns whether some action of the operation would not be blocked.
    #[must_use]
    pub fn can_allow(&self, operation: Operation) -> bool {
        let Some(program) = self.programs.get(usize::from(operation as u8)) else { return false };
        let lets = |step: &Step| {
            let rule = self.policy.rules().get(usize::from(step.rule));
            rule.is_some_and(|rule| rule.effect != Verdict::Block)
        };
        let falls_through = !program.total
            && self.policy.default_verdict() != Verdict::Block
            && operation.class() != EndpointClass::Other;
        !program.fail_closed && (program.steps.iter().any(lets) || falls_through)
    }

    /// Returns whether some action of the class would not be allowed.
    #[must_use]
    pub fn can_block_class(&self, class: EndpointClass) -> bool {
        Operation::ALL.iter().any(|&operation| operation.class() == class && self.can_block(operation))
    }

    /// Returns whether a rule looks at arguments, so that they must be read before a program runs.
    #[must_use]
    pub fn has_argv_rules(&self) -> bool {
        let exec = self.programs.get(usize::from(Operation::Exec as u8));
        exec.is_some_and(|program| {
            let rules = program.steps.iter().filter_map(|step| self.rules.get(usize::from(step.rule)));
            rules.into_iter().any(|rule| rule.argv.is_some())
        })
    }
}

impl Program {
    /// Drops what is never reached, once the rules are known.
    fn finish(&mut self, rules: &[CompiledRule], class: EndpointClass) {
        let mut kept = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let Some(rule) = rules.get(usize::from(step.rule)) else { continue };
            // Connections to private addresses pass by an allowing rule, which only `matches` sees.
            let guarded = class == EndpointClass::NetHttp && rule.effect == Verdict::Allow;
            let more = rule.narrow || guarded;
            kept.push(Step { rule: step.rule, more });
            if rule.path_set.is_none() && rule.not_path_set.is_none() && !more {
                self.total = true;
                break;
            }
        }
        let pathless =
            |step: &&Step| rules.get(usize::from(step.rule)).is_none_or(|rule| rule.path_set.is_none());
        self.pathless = kept.iter().filter(pathless).copied().collect();
        self.steps = kept;
    }

    /// Returns the steps that may match a path in these sets, in order: their number has no part in what that takes.
    fn steps_for<'a>(&'a self, rules: &'a [CompiledRule], sets: &Sets) -> impl Iterator<Item = Step> + 'a {
        let last = self.steps.last().map_or(0, |step| step.rule);
        // The index holds a rule's paths for the operations of its programs only.
        let mut named = sets.rules().into_iter().take_while(move |&rule| rule <= last).peekable();
        let mut pathless = self.pathless.iter().copied().peekable();
        std::iter::from_fn(move || match (named.peek(), pathless.peek()) {
            (Some(&rule), next) if next.is_none_or(|step| rule < step.rule) => {
                named.next();
                // Paths are named for no operation whose steps need more than what the rule itself asks for.
                let more = rules.get(usize::from(rule)).is_none_or(|rule| rule.narrow);
                Some(Step { rule, more })
            }
            _ => pathless.next(),
        })
    }
}

const fn block(ground: Ground) -> Decision {
    Decision { verdict: Verdict::Block, ground, hits: Hits(0) }
}

impl CompiledRule {
    /// Returns whether `not_paths` takes matches away.
    pub(super) const fn takes_away(&self) -> bool {
        self.not_path_set.is_some()
    }

    /// Returns whether everything but the paths holds.
    fn matches(&self, source: &Rule, subject: &Subject<'_>) -> bool {
        let wants = &source.facts;
        let http = subject.action.class() == EndpointClass::NetHttp;
        if http && self.effect == Verdict::Allow && wants.addresses.is_none() && subject.is_private() {
            return false;
        }
        if !self.values.is_empty() {
            let value = subject.target().value;
            if !self.values.iter().all(|list| list.contains(&value)) {
                return false;
            }
        }
        if let Some(globs) = &self.executables {
            let image = path_text(subject.action.image);
            if !globs.iter().any(|glob| glob.is_match(image.as_bytes())) {
                return false;
            }
        }
        if let Some(pattern) = &self.argv
            && !subject.unknown.argv
        {
            let program = subject.path.as_deref().unwrap_or_default();
            if !subject.action.argv.is_some_and(|argv| pattern.is_match(program.as_bytes(), argv)) {
                return false;
            }
        }
        if let Some(names) = &self.names
            && !subject.name.as_deref().is_some_and(|name| names.has(name.as_bytes()))
        {
            return false;
        }
        let inside = |address: IpAddr| {
            wants
                .addresses
                .iter()
                .flatten()
                .any(|network| network.contains(&address) || network.contains(&address.to_canonical()))
        };
        let address = subject.host.and_then(|host| host.address);
        if wants.addresses.is_some() && !subject.unknown.address && !address.is_some_and(inside) {
            return false;
        }
        let port = subject.host.map(|host| host.port);
        let listed =
            |port: u16| wants.ports.iter().flatten().any(|&(low, high)| (low..=high).contains(&port));
        wants.ports.is_none() || port.is_some_and(listed)
    }

    fn constrained(&self, source: &Rule, subject: &Subject<'_>) -> (Verdict, Hits) {
        if source.dataflow.is_none() && source.endpoint.is_none() {
            return (self.effect, Hits::default());
        }
        let mut verdict = self.effect;
        let mut hits = Hits::default();
        let target = subject.target();
        if let Some(dataflow) = &source.dataflow {
            // What the kernel sees comes from the system.
            let tainted = dataflow.tainted_sources.iter().any(|name| name == "system");
            if tainted
                && dataflow.reaches(target.kind.as_str(), &target.operation, || (&*target.value).into())
            {
                hits.add(Hits::DATAFLOW);
                verdict = verdict.max(dataflow.action);
            }
        }
        if let (Some(endpoint), Some(globs)) = (&source.endpoint, &self.endpoint) {
            let mut found = Hits::default();
            let path = subject.path.as_deref();
            let class = target.endpoint_class;
            globs.check(endpoint, path, &target.endpoint_domain, class, target.destructive, &mut found);
            if found.endpoint() {
                hits.add(found);
                verdict = verdict.max(endpoint.effect(found));
            }
        }
        (verdict, hits)
    }
}

/// An action of the operation, of which only what all such actions share is used.
const fn sample(operation: Operation) -> Action<'static> {
    let object = match operation.target_kind() {
        TargetKind::Path => Object::Path(b"/"),
        TargetKind::Host => Object::Host(Host { name: Some("sample"), address: None, port: 1 }),
        TargetKind::Other => Object::Other("sample"),
    };
    Action { operation, object, image: b"", argv: None }
}

/// Returns whether a rule can match actions of an operation in this session.
fn may_match(rule: &Rule, operation: Operation, intent: &Intent) -> bool {
    let facts = &rule.facts;
    let kind = operation.target_kind();
    base_may_match(rule, intent)
        && facts.operations.as_ref().is_none_or(|list| list.iter().any(|name| name == operation.as_str()))
        && ((facts.paths.is_none() && facts.not_paths.is_none()) || kind == TargetKind::Path)
        && (!facts.names_host() || kind == TargetKind::Host)
        && (facts.argv.is_none() || operation.class() == EndpointClass::ProcExec)
}

fn enforceable(rule: &Rule) -> Result<(), CompileError> {
    let what = if rule.rate_limit.is_some() {
        "a rate limit"
    } else if rule.broker.as_ref().is_some_and(|broker| broker.required) {
        "a credential"
    } else if rule.min_approvals > 1 && rule.effect != Verdict::Block {
        "more than one approval"
    } else {
        return Ok(());
    };
    Err(CompileError::Unenforceable { origin: rule.origin.clone(), rule: rule.name.clone(), what })
}
