//! The reference evaluation: an intent against a policy, rule by rule, in the contract's order.
//!
//! `gait gate eval` and `gait policy test` call it directly; the compiled matcher of `gait exec` is held equal to it by
//! a property test. Written to be read, not to be fast.

use super::reason::{self, Hits};
use super::{Decision, GateOutcome, Ground, Verdict};
use crate::action::{Action, Host, Object};
use crate::endpoint::EndpointClass;
use crate::intent::{Intent, Kind, Target};
use crate::policy::{BoundPolicy, BoundRule, Policy, Rule, Vars, clean_path, is_private};

/// What the kernel knows of an action and an intent has no place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts<'a> {
    /// The resolved path of the acting process's image; empty where it is not known.
    pub image: &'a [u8],
    /// The arguments of the new program, each ended by NUL.
    pub argv: Option<&'a [u8]>,
    /// The peer.
    pub host: Option<Host<'a>>,
}

impl<'a> Facts<'a> {
    /// Returns the facts of an action.
    #[must_use]
    pub const fn of(action: &Action<'a>) -> Self {
        let host = match action.object {
            Object::Host(host) => Some(host),
            Object::Path(_) | Object::Other(_) => None,
        };
        Self { image: action.image, argv: action.argv, host }
    }
}

/// Evaluates an intent that came without a session.
///
/// `${workspace}` is the intent's own; the other variables of the session have the values of [`Vars::default`].
#[must_use]
pub fn evaluate(policy: &Policy, intent: &Intent) -> GateOutcome {
    match BoundPolicy::of_intent(policy, intent, &Vars::default()) {
        Ok(bound) => evaluate_bound(&bound, intent, Facts::default()),
        Err(_unbound) => GateOutcome {
            verdict: Verdict::Block,
            matched_rule: None,
            origin: None,
            reason_codes: vec![reason::POLICY_UNBOUND.to_owned()],
            violations: Vec::new(),
            min_approvals: 0,
            require_distinct_approvers: false,
            broker: None,
            rate_limit: None,
            approval: None,
            justification: None,
        },
    }
}

/// Evaluates an intent of a session.
#[must_use]
pub fn evaluate_bound(bound: &BoundPolicy<'_>, intent: &Intent, facts: Facts<'_>) -> GateOutcome {
    let (decision, missing) = ruling(bound, intent, facts);
    let mut outcome = outcome(bound.policy, decision);
    if decision.ground == Ground::FailClosed {
        (outcome.reason_codes, outcome.violations) = fail_closed_codes(&missing, has_unknown_class(intent));
    }
    outcome
}

/// Names what is missing, sorted.
fn fail_closed_codes(missing: &[&str], unknown_class: bool) -> (Vec<String>, Vec<String>) {
    let mut reasons: Vec<_> = missing.iter().map(|field| format!("fail_closed_missing_{field}")).collect();
    let mut violations: Vec<_> = missing.iter().map(|field| format!("missing_{field}")).collect();
    if unknown_class {
        reasons.push(reason::CLASS_UNKNOWN.to_owned());
        violations.push(reason::VIOLATION_CLASS_UNKNOWN.to_owned());
    }
    reasons.sort();
    violations.sort();
    (reasons, violations)
}

/// Puts a decision into words.
pub(crate) fn outcome(policy: &Policy, decision: Decision) -> GateOutcome {
    let rule = match decision.ground {
        Ground::Rule(index) => policy.rules().get(usize::from(index)),
        _ => None,
    };
    let (reason_codes, violations) = match (rule, decision.ground) {
        (Some(rule), _) => rule_codes(rule, decision.hits),
        (None, Ground::Never) => (vec![reason::NEVER_ALLOWED.to_owned()], Vec::new()),
        (None, Ground::Limit(limit)) => (vec![reason::of_limit(limit).to_owned()], Vec::new()),
        (None, Ground::DefaultOther) => (vec![reason::DEFAULT_BLOCK_OTHER.to_owned()], Vec::new()),
        (None, Ground::DefaultPrivate) => (vec![reason::DEFAULT_BLOCK_PRIVATE.to_owned()], Vec::new()),
        (None, Ground::Protect(_)) => {
            (vec![reason::PROTECTED_PATH.to_owned()], vec![reason::PROTECTED_PATH.to_owned()])
        }
        // An action has a target and comes from the system; only its class can be unknown.
        (None, Ground::FailClosed) => {
            let required = &policy.fail_closed().required_fields;
            let missing = required.iter().map(String::as_str).filter(|field| *field == "endpoint_class");
            fail_closed_codes(&missing.collect::<Vec<_>>(), true)
        }
        (None, Ground::Default | Ground::Rule(_)) => {
            (vec![reason::of_default(decision.verdict).to_owned()], Vec::new())
        }
    };
    let asks = decision.verdict == Verdict::RequireApproval;
    let min_approvals = if asks { rule.map_or(1, |rule| rule.min_approvals.max(1)) } else { 0 };
    GateOutcome {
        verdict: decision.verdict,
        matched_rule: rule.map(|rule| rule.name.clone()),
        origin: rule.map(|rule| rule.origin.clone()),
        reason_codes,
        violations,
        min_approvals,
        require_distinct_approvers: asks && rule.is_some_and(|rule| rule.require_distinct_approvers),
        broker: rule.and_then(|rule| rule.broker.clone()),
        rate_limit: rule.and_then(|rule| rule.rate_limit.clone()),
        approval: rule.and_then(|rule| rule.approval.clone()),
        justification: rule.and_then(|rule| rule.justification.clone()),
    }
}

fn rule_codes(rule: &Rule, hits: Hits) -> (Vec<String>, Vec<String>) {
    let (mut reasons, mut violations) = (rule.reasons(), rule.violations.clone());
    let mut add = |reason: &str, violation: &str| {
        reasons.push(reason.to_owned());
        violations.push(violation.to_owned());
    };
    if let Some(dataflow) = rule.dataflow.as_ref().filter(|_| hits.has(Hits::DATAFLOW)) {
        add(&dataflow.reason_code, &dataflow.violation);
    }
    if let Some(endpoint) = rule.endpoint.as_ref().filter(|_| hits.endpoint()) {
        for (hit, reason, violation) in Hits::ENDPOINT {
            if hits.has(hit) {
                add(reason, violation);
            }
        }
        add(&endpoint.reason_code, &endpoint.violation);
    }
    for list in [&mut reasons, &mut violations] {
        list.sort();
        list.dedup();
    }
    (reasons, violations)
}

/// Finds what decides, and which required fields are missing.
fn ruling<'f>(bound: &BoundPolicy<'f>, intent: &Intent, facts: Facts<'_>) -> (Decision, Vec<&'f str>) {
    let policy = bound.policy;
    let decide = |verdict, ground| Decision { verdict, ground, hits: Hits::default() };
    let from_exec = intent.tool_name().starts_with("os.");
    if from_exec && let Some(index) = protected(bound, intent) {
        return (decide(Verdict::Block, Ground::Protect(index)), Vec::new());
    }
    let closed = policy.fail_closed();
    if closed.enabled && closed.risk_classes.contains(&intent.context().risk_class) {
        let missing: Vec<_> = missing(&closed.required_fields, intent).collect();
        if !missing.is_empty() || has_unknown_class(intent) {
            return (decide(Verdict::Block, Ground::FailClosed), missing);
        }
    }
    for (index, (rule, bound)) in policy.rules().iter().zip(&bound.rules).enumerate() {
        if rule_matches(rule, bound, intent, facts) {
            let (verdict, hits) = constrained(rule, bound, intent);
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            return (Decision { verdict, ground: Ground::Rule(index), hits }, Vec::new());
        }
    }
    let default = policy.default_verdict();
    let of_class = |class| intent.targets().iter().any(|target| target.endpoint_class == class);
    let private = facts.host.is_some_and(|host| host.address.is_some_and(is_private));
    let decision = if from_exec && of_class(EndpointClass::Other) {
        decide(Verdict::Block, Ground::DefaultOther)
    } else if default < Verdict::RequireApproval && private && of_class(EndpointClass::NetHttp) {
        decide(Verdict::Block, Ground::DefaultPrivate)
    } else {
        decide(default, Ground::Default)
    };
    (decision, Vec::new())
}

fn protected(bound: &BoundPolicy<'_>, intent: &Intent) -> Option<u16> {
    let changes = |target: &&Target| {
        target.kind == Kind::Path
            && matches!(target.endpoint_class, EndpointClass::FsWrite | EndpointClass::FsDelete)
    };
    let found = intent.targets().iter().filter(changes).find_map(|target| {
        let path = clean_path(&target.value);
        bound.protect.iter().position(|globs| globs.iter().any(|glob| glob.is_match(path.as_bytes())))
    })?;
    Some(u16::try_from(found).unwrap_or(u16::MAX))
}

fn missing<'f>(required: &'f [String], intent: &Intent) -> impl Iterator<Item = &'f str> {
    let no_targets = intent.targets().is_empty();
    let no_provenance = intent.arg_provenance().is_empty();
    let no_class = has_unknown_class(intent);
    required.iter().map(String::as_str).filter(move |field| match *field {
        "arg_provenance" => no_provenance,
        "targets" => no_targets,
        _ => no_class,
    })
}

fn has_unknown_class(intent: &Intent) -> bool {
    intent.targets().iter().any(|target| target.endpoint_class == EndpointClass::Other)
}

/// Returns whether everything that a rule asks for holds.
pub(crate) fn rule_matches(rule: &Rule, bound: &BoundRule, intent: &Intent, facts: Facts<'_>) -> bool {
    let guarded = rule.effect == Verdict::Allow && rule.facts.addresses.is_none();
    let private = facts.host.is_some_and(|host| host.address.is_some_and(is_private));
    if guarded
        && private
        && intent.targets().iter().any(|target| target.endpoint_class == EndpointClass::NetHttp)
    {
        return false;
    }
    if !base_matches(rule, intent) {
        return false;
    }
    rule.facts.is_empty()
        || intent.targets().iter().any(|target| facts_match(rule, bound, intent, target, facts))
}

/// Returns whether the contract's match keys hold.
fn base_matches(rule: &Rule, intent: &Intent) -> bool {
    let any = |list: &[String]| {
        list.is_empty() || intent.targets().iter().any(|target| list.contains(&target.value))
    };
    base_may_match(rule, intent) && any(&rule.base.target_values) && any(&rule.base.destination_values)
}

/// Returns whether all base keys hold but those that name targets one by one.
pub(crate) fn base_may_match(rule: &Rule, intent: &Intent) -> bool {
    let base = &rule.base;
    let one = |list: &[String], value: &str| list.is_empty() || list.iter().any(|item| item == value);
    let any = |list: &[String], value: &dyn Fn(&Target) -> &str| {
        list.is_empty() || intent.targets().iter().any(|target| list.iter().any(|item| item == value(target)))
    };
    let kind: &dyn Fn(&Target) -> &str = &|target| target.kind.as_str();
    let skill = |list: &[String], value: &dyn Fn(&crate::intent::Skill) -> String| {
        list.is_empty() || intent.skill_provenance().is_some_and(|skill| list.contains(&value(skill)))
    };
    let context = intent.context();
    one(&base.tool_names, intent.tool_name())
        && one(&base.risk_classes, &context.risk_class)
        && one(&base.identities, &context.identity)
        && (base.workspace_prefixes.is_empty()
            || base.workspace_prefixes.iter().any(|prefix| context.workspace.starts_with(prefix)))
        && (base.provenance_sources.is_empty()
            || intent
                .arg_provenance()
                .iter()
                .any(|from| base.provenance_sources.iter().any(|source| source == from.source.as_str())))
        && skill(&base.skill_publishers, &|skill| skill.publisher.to_lowercase())
        && skill(&base.skill_sources, &|skill| skill.source.clone())
        && any(&base.target_kinds, kind)
        && any(&base.destination_kinds, kind)
        && any(&base.destination_operations, &|target| &target.operation)
        && any(&base.data_classes, &|target| &target.sensitivity)
        && (base.endpoint_classes.is_empty()
            || intent.targets().iter().any(|target| base.endpoint_classes.contains(&target.endpoint_class)))
}

/// Returns whether all additive keys hold for this one target.
fn facts_match(rule: &Rule, bound: &BoundRule, intent: &Intent, target: &Target, facts: Facts<'_>) -> bool {
    let wants = &rule.facts;
    if wants.operations.as_ref().is_some_and(|list| !list.contains(&target.operation)) {
        return false;
    }
    if wants.paths.is_some() || wants.not_paths.is_some() {
        if target.kind != Kind::Path {
            return false;
        }
        let path = resolved(&target.value, intent);
        let hit = |globs: &[crate::policy::Glob]| globs.iter().any(|glob| glob.is_match(path.as_bytes()));
        if bound.paths.as_ref().is_some_and(|globs| !hit(globs)) || hit(&bound.not_paths) {
            return false;
        }
    }
    if let Some(globs) = &bound.executables {
        let image = crate::intent::path_text(facts.image);
        if !globs.iter().any(|glob| glob.is_match(image.as_bytes())) {
            return false;
        }
    }
    if let Some(pattern) = &bound.argv {
        let raw;
        let argv = match facts.argv {
            Some(argv) => argv,
            None => match raw_argv(intent) {
                Some(bytes) => {
                    raw = bytes;
                    &raw
                }
                None => return false,
            },
        };
        let runs = target.endpoint_class == EndpointClass::ProcExec;
        if !runs || !pattern.is_match(target.value.as_bytes(), argv) {
            return false;
        }
    }
    !wants.names_host() || host_matches(rule, bound, target, facts)
}

/// The arguments that a request or a raw capture carries.
fn raw_argv(intent: &Intent) -> Option<Vec<u8>> {
    let list = intent.args().get("argv")?.as_array()?;
    let mut bytes = Vec::new();
    for item in list {
        bytes.extend_from_slice(item.as_str()?.as_bytes());
        bytes.push(0);
    }
    Some(bytes)
}

fn host_matches(rule: &Rule, bound: &BoundRule, target: &Target, facts: Facts<'_>) -> bool {
    if !matches!(target.kind, Kind::Host | Kind::Url) {
        return false;
    }
    let peer = Peer::of(target, facts);
    let named = |globs: &[crate::policy::Glob]| {
        peer.name.as_deref().is_some_and(|name| globs.iter().any(|glob| glob.is_match(name.as_bytes())))
    };
    if bound.domains.as_ref().is_some_and(|globs| !named(globs)) {
        return false;
    }
    if let Some(networks) = &rule.facts.addresses {
        let inside = |address: std::net::IpAddr| {
            networks
                .iter()
                .any(|network| network.contains(&address) || network.contains(&address.to_canonical()))
        };
        if !peer.address.is_some_and(inside) {
            return false;
        }
    }
    let in_range =
        |port: u16, ranges: &[(u16, u16)]| ranges.iter().any(|&(low, high)| (low..=high).contains(&port));
    rule.facts.ports.as_ref().is_none_or(|ranges| peer.port.is_some_and(|port| in_range(port, ranges)))
}

/// What is known of a host: from the kernel, or else from the target's text.
struct Peer {
    name: Option<String>,
    address: Option<std::net::IpAddr>,
    port: Option<u16>,
}

impl Peer {
    fn of(target: &Target, facts: Facts<'_>) -> Self {
        if let Some(host) = facts.host {
            return Self {
                name: host.name.map(crate::policy::plain_name),
                address: host.address,
                port: Some(host.port),
            };
        }
        let domain = &target.endpoint_domain;
        let address: Option<std::net::IpAddr> = domain.parse().ok();
        let name = (address.is_none() && !domain.is_empty()).then(|| crate::policy::plain_name(domain));
        let authority = target.value.split_once("://").map_or(&*target.value, |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or(authority);
        let written = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let lower = target.value.to_ascii_lowercase();
        let implied = [("https:", 443), ("wss:", 443), ("http:", 80), ("ws:", 80)]
            .into_iter()
            .find_map(|(scheme, port)| lower.starts_with(scheme).then_some(port));
        Self { name, address, port: written.or(implied) }
    }
}

/// Makes a path absolute and clean; a relative one of a tool call is taken from the workspace.
fn resolved<'t>(value: &'t str, intent: &Intent) -> std::borrow::Cow<'t, str> {
    // What is not absolute although the kernel said it is no path of a file system, such as `pipe:[7]`.
    if value.starts_with('/') || intent.tool_name().starts_with("os.") {
        return clean_path(value);
    }
    clean_path(&format!("{}/{value}", intent.context().workspace)).into_owned().into()
}

/// Applies the constraints of the matching rule, which can only make its effect stricter.
fn constrained(rule: &Rule, bound: &BoundRule, intent: &Intent) -> (Verdict, Hits) {
    let mut verdict = rule.effect;
    let mut hits = Hits::default();
    if let Some(dataflow) = &rule.dataflow {
        let tainted = intent
            .arg_provenance()
            .iter()
            .any(|from| dataflow.tainted_sources.iter().any(|source| source == from.source.as_str()));
        let reached = |target: &Target| {
            dataflow.reaches(target.kind.as_str(), &target.operation, || target.value.as_str().into())
        };
        if tainted && intent.targets().iter().any(reached) {
            hits.add(Hits::DATAFLOW);
            verdict = verdict.max(dataflow.action);
        }
    }
    if let (Some(endpoint), Some(globs)) = (&rule.endpoint, &bound.endpoint) {
        let mut found = Hits::default();
        for target in intent.targets() {
            let path = (target.kind == Kind::Path).then_some(target.value.as_str());
            let class = target.endpoint_class;
            globs.check(endpoint, path, &target.endpoint_domain, class, target.destructive, &mut found);
        }
        if found.endpoint() {
            hits.add(found);
            verdict = verdict.max(endpoint.effect(found));
        }
    }
    (verdict, hits)
}
