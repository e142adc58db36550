//! From the tree to a rule.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::decode::{Scope, operations};
use super::fields::{Case, Fields, list, unknown};
use super::model::{
    Approval, ApprovalScope, BaseMatch, Broker, Dataflow, EndpointRule, Examples, FactMatch, RateLimit, Rule,
};
use super::source::{Origin, Reporter};
use super::syntax::{Node, Place, Value};
use crate::endpoint::EndpointClass;
use crate::gate::Verdict;

/// Keys of a rule.
pub(super) const RULE_KEYS: [&str; 17] = [
    "name",
    "priority",
    "effect",
    "match",
    "reason_codes",
    "violations",
    "min_approvals",
    "require_distinct_approvers",
    "require_broker_credential",
    "broker_reference",
    "broker_scopes",
    "rate_limit",
    "dataflow",
    "endpoint",
    "justification",
    "examples",
    "approval",
];
/// Keys of `match`.
pub(super) const MATCH_KEYS: [&str; 22] = [
    "tool_names",
    "risk_classes",
    "target_kinds",
    "target_values",
    "endpoint_classes",
    "data_classes",
    "destination_kinds",
    "destination_values",
    "destination_operations",
    "skill_publishers",
    "skill_sources",
    "provenance_sources",
    "identities",
    "workspace_prefixes",
    "paths",
    "not_paths",
    "operations",
    "executables",
    "argv",
    "domains",
    "addresses",
    "ports",
];
/// Keys of `rate_limit`.
pub(super) const RATE_LIMIT_KEYS: [&str; 3] = ["requests", "window", "scope"];
/// Keys of `dataflow`.
pub(super) const DATAFLOW_KEYS: [&str; 8] = [
    "enabled",
    "tainted_sources",
    "destination_kinds",
    "destination_values",
    "destination_operations",
    "action",
    "reason_code",
    "violation",
];
/// Keys of `endpoint`.
pub(super) const ENDPOINT_KEYS: [&str; 10] = [
    "enabled",
    "path_allowlist",
    "path_denylist",
    "domain_allowlist",
    "domain_denylist",
    "egress_classes",
    "action",
    "destructive_action",
    "reason_code",
    "violation",
];
/// Keys of `examples`.
pub(super) const EXAMPLES_KEYS: [&str; 2] = ["match", "not_match"];
/// Keys of `approval`.
pub(super) const APPROVAL_KEYS: [&str; 3] = ["timeout", "uses", "scope"];

const KINDS: [&str; 9] = ["path", "url", "host", "repo", "bucket", "table", "queue", "topic", "other"];

/// A rule, and the places of its examples.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct DecodedRule {
    pub(super) rule: Rule,
    #[serde(skip)]
    pub(super) example_places: Vec<Place>,
}

pub(super) fn rule(node: &Node, scope: &Scope<'_>, reporter: &mut Reporter<'_>) -> Option<DecodedRule> {
    let fields = Fields::open(node, &RULE_KEYS, reporter)?;
    let name = fields.text("name", reporter).filter(|name| !name.is_empty());
    if name.is_none() && fields.get("name").is_none_or(|node| matches!(node.value, Value::Text(_))) {
        reporter.report(node.at, "a rule needs a `name`");
    }
    let effect = fields.verdict("effect", reporter);
    if effect.is_none() && fields.get("effect").is_none() {
        reporter.report(node.at, "a rule needs an `effect`: allow, block, dry_run or require_approval");
    }
    let priority = fields.number("priority", i64::MIN, reporter).unwrap_or(0);
    let (base, facts) = match fields.get("match").and_then(|node| Fields::open(node, &MATCH_KEYS, reporter)) {
        Some(matches) => (base_match(&matches, reporter), fact_match(&matches, scope, reporter)),
        None => (BaseMatch::default(), FactMatch::default()),
    };
    let min_approvals = count(&fields, "min_approvals", reporter);
    let distinct = fields.flag("require_distinct_approvers", reporter).unwrap_or(false);
    let (examples, example_places) = examples(&fields, scope, reporter);
    let rule = Rule {
        priority,
        base,
        facts,
        reason_codes: fields.set("reason_codes", Case::Keep, reporter),
        violations: fields.set("violations", Case::Keep, reporter),
        min_approvals,
        require_distinct_approvers: distinct || min_approvals > 1,
        broker: broker(&fields, reporter),
        rate_limit: fields.get("rate_limit").and_then(|node| rate_limit(node, reporter)),
        dataflow: fields.get("dataflow").and_then(|node| dataflow(node, reporter)),
        endpoint: fields.get("endpoint").and_then(|node| endpoint(node, reporter)),
        justification: justification(&fields, reporter),
        examples,
        approval: fields.get("approval").and_then(|node| approval(node, reporter)),
        origin: Origin { file: reporter.source.name.as_str().into(), line: node.at.line.max(1) },
        name: name?,
        effect: effect?,
    };
    Some(DecodedRule { rule, example_places })
}

fn count(fields: &Fields<'_>, key: &str, reporter: &mut Reporter<'_>) -> u32 {
    let number = fields.number(key, 0, reporter).unwrap_or(0);
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn justification(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Option<String> {
    let given = fields.text("justification", reporter)?;
    let node = fields.get("justification")?;
    if given.is_empty() || given.chars().any(char::is_control) {
        reporter.report(node.at, "a justification is one line of text");
        return None;
    }
    Some(given)
}

fn base_match(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> BaseMatch {
    let mut endpoint_classes = Vec::new();
    for (given, at) in fields.texts("endpoint_classes", reporter).unwrap_or_default() {
        match given.to_lowercase().parse::<EndpointClass>() {
            Ok(class) => endpoint_classes.push(class),
            Err(_) => {
                let known = EndpointClass::ALL.map(EndpointClass::as_str);
                reporter.report(at, unknown("endpoint class", &given, &known));
            }
        }
    }
    endpoint_classes.sort_by_key(|class| class.as_str());
    endpoint_classes.dedup();
    for key in ["target_kinds", "destination_kinds"] {
        for (given, at) in fields.texts(key, reporter).unwrap_or_default() {
            if !KINDS.contains(&given.to_lowercase().as_str()) {
                reporter.report(at, unknown("kind of target", &given, &KINDS));
            }
        }
    }
    let mut quiet = Reporter::new(reporter.source);
    let kinds = |key, quiet: &mut Reporter<'_>| fields.set(key, Case::Lower, quiet);
    let (target_kinds, destination_kinds) =
        (kinds("target_kinds", &mut quiet), kinds("destination_kinds", &mut quiet));
    BaseMatch {
        tool_names: fields.set("tool_names", Case::Lower, reporter),
        risk_classes: fields.set("risk_classes", Case::Lower, reporter),
        target_kinds,
        target_values: fields.set("target_values", Case::Keep, reporter),
        endpoint_classes,
        data_classes: fields.set("data_classes", Case::Lower, reporter),
        destination_kinds,
        destination_values: fields.set("destination_values", Case::Keep, reporter),
        destination_operations: fields.set("destination_operations", Case::Lower, reporter),
        skill_publishers: fields.set("skill_publishers", Case::Lower, reporter),
        skill_sources: fields.set("skill_sources", Case::Lower, reporter),
        provenance_sources: fields.set("provenance_sources", Case::Lower, reporter),
        identities: fields.set("identities", Case::Keep, reporter),
        workspace_prefixes: fields.set("workspace_prefixes", Case::Keep, reporter),
    }
}

fn fact_match(fields: &Fields<'_>, scope: &Scope<'_>, reporter: &mut Reporter<'_>) -> FactMatch {
    let mut texts = |key: &str| {
        let texts = fields.texts(key, reporter)?;
        if texts.is_empty()
            && let Some(node) = fields.get(key)
            && matches!(&node.value, Value::List(list) if list.is_empty())
        {
            // An empty list could mean everything or nothing; a rule must not hang on the guess.
            reporter.report(node.at, format!("`{key}` is empty; leave it out, or name something"));
            return None;
        }
        Some(texts)
    };
    let (paths, not_paths, executables) = (texts("paths"), texts("not_paths"), texts("executables"));
    let (ops, argv, domains, addresses) =
        (texts("operations"), texts("argv"), texts("domains"), texts("addresses"));
    FactMatch {
        paths: paths.map(|texts| scope.paths(texts, reporter)),
        not_paths: not_paths.map(|texts| scope.paths(texts, reporter)),
        operations: ops.map(|texts| operations(texts, reporter)),
        executables: executables.map(|texts| scope.paths(texts, reporter)),
        argv: argv.map(|texts| scope.tokens(texts, reporter)),
        domains: domains.map(|texts| scope.domains(texts, reporter)),
        addresses: addresses.map(|texts| networks(texts, reporter)),
        ports: ports(fields, reporter),
    }
}

fn networks(texts: Vec<(String, Place)>, reporter: &mut Reporter<'_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (text, at) in texts {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match network {
            Ok(network) if network.trunc() != network => {
                let want = network.trunc();
                reporter
                    .report(at, format!("the network `{network}` has host bits set, did you mean `{want}`?"));
            }
            Ok(network) => networks.push(network),
            Err(_) => reporter
                .report(at, format!("`{text}` is neither an address nor a network such as 10.0.0.0/8")),
        }
    }
    networks.sort();
    networks.dedup();
    networks
}

fn ports(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Option<Vec<(u16, u16)>> {
    let node = fields.get("ports")?;
    let items = list(node, reporter)?;
    if items.is_empty() {
        reporter.report(node.at, "`ports` is empty; leave it out, or name something");
    }
    let mut ports = Vec::new();
    for item in items {
        let range = match &item.value {
            Value::Int(port) => u16::try_from(*port).ok().map(|port| (port, port)),
            Value::Text(text) => {
                let (low, high) = text.split_once('-').unwrap_or((text, text));
                match (low.trim().parse::<u16>(), high.trim().parse::<u16>()) {
                    (Ok(low), Ok(high)) if low <= high => Some((low, high)),
                    _ => None,
                }
            }
            _ => None,
        };
        match range {
            Some(range) => ports.push(range),
            None => reporter.report(item.at, "expected a port such as 443 or a range such as 8000-8999"),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

fn broker(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> Option<Broker> {
    if !fields.any(&["require_broker_credential", "broker_reference", "broker_scopes"]) {
        return None;
    }
    Some(Broker {
        required: fields.flag("require_broker_credential", reporter).unwrap_or(false),
        reference: fields.text("broker_reference", reporter).unwrap_or_default(),
        scopes: fields.set("broker_scopes", Case::Lower, reporter),
    })
}

fn rate_limit(node: &Node, reporter: &mut Reporter<'_>) -> Option<RateLimit> {
    let fields = Fields::open(node, &RATE_LIMIT_KEYS, reporter)?;
    let requests = fields.number("requests", 0, reporter).unwrap_or(0);
    let window =
        fields.word("window", &[("minute", "minute"), ("hour", "hour")], reporter).unwrap_or("minute");
    let scopes = [("tool", "tool"), ("identity", "identity"), ("tool_identity", "tool_identity")];
    let scope = fields.word("scope", &scopes, reporter).unwrap_or("tool_identity");
    let requests = u64::try_from(requests).unwrap_or(0);
    (requests > 0).then(|| RateLimit { requests, window: window.to_owned(), scope: scope.to_owned() })
}

fn dataflow(node: &Node, reporter: &mut Reporter<'_>) -> Option<Dataflow> {
    let fields = Fields::open(node, &DATAFLOW_KEYS, reporter)?;
    let mut tainted_sources = fields.set("tainted_sources", Case::Lower, reporter);
    let destination_kinds = fields.set("destination_kinds", Case::Lower, reporter);
    let destination_values = fields.set("destination_values", Case::Keep, reporter);
    let destination_operations = fields.set("destination_operations", Case::Lower, reporter);
    let lists = [&tainted_sources, &destination_kinds, &destination_values, &destination_operations];
    let enabled =
        fields.flag("enabled", reporter).unwrap_or(false) || lists.iter().any(|list| !list.is_empty());
    if !enabled {
        return None;
    }
    if tainted_sources.is_empty() {
        tainted_sources = vec!["external".to_owned(), "tool_output".to_owned()];
    }
    let text = |key, default: &str, reporter: &mut Reporter<'_>| {
        fields.text(key, reporter).filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    Some(Dataflow {
        enabled,
        tainted_sources,
        destination_kinds,
        destination_values,
        destination_operations,
        action: fields.restriction("action", reporter).unwrap_or(Verdict::RequireApproval),
        reason_code: text("reason_code", "dataflow_tainted_destination", reporter),
        violation: text("violation", "tainted_dataflow", reporter),
    })
}

fn endpoint(node: &Node, reporter: &mut Reporter<'_>) -> Option<EndpointRule> {
    let fields = Fields::open(node, &ENDPOINT_KEYS, reporter)?;
    let slashes = |list: Vec<String>| -> Vec<String> {
        super::fields::sorted(list.into_iter().map(|text| text.replace('\\', "/")).collect())
    };
    let path_allowlist = slashes(fields.set("path_allowlist", Case::Keep, reporter));
    let path_denylist = slashes(fields.set("path_denylist", Case::Keep, reporter));
    let domain_allowlist = fields.set("domain_allowlist", Case::Lower, reporter);
    let domain_denylist = fields.set("domain_denylist", Case::Lower, reporter);
    for (given, at) in fields.texts("egress_classes", reporter).unwrap_or_default() {
        if !["net.http", "net.dns"].contains(&given.to_lowercase().as_str()) {
            reporter.report(at, unknown("egress class", &given, &["net.http", "net.dns"]));
        }
    }
    let egress_classes = fields.set("egress_classes", Case::Lower, &mut Reporter::new(reporter.source));
    let action = fields.restriction("action", reporter);
    let destructive_action = fields.restriction("destructive_action", reporter);
    let lists = [&path_allowlist, &path_denylist, &domain_allowlist, &domain_denylist, &egress_classes];
    let enabled = fields.flag("enabled", reporter).unwrap_or(false)
        || lists.iter().any(|list| !list.is_empty())
        || action.is_some()
        || destructive_action.is_some();
    if !enabled {
        return None;
    }
    let code = |key, reporter: &mut Reporter<'_>| {
        let given = fields.text(key, reporter).filter(|text| !text.is_empty());
        given.unwrap_or_else(|| "endpoint_constraint_violation".to_owned())
    };
    Some(EndpointRule {
        enabled,
        path_allowlist,
        path_denylist,
        domain_allowlist,
        domain_denylist,
        egress_classes,
        action: action.unwrap_or(Verdict::Block),
        destructive_action,
        reason_code: code("reason_code", reporter),
        violation: code("violation", reporter),
    })
}

fn examples(fields: &Fields<'_>, scope: &Scope<'_>, reporter: &mut Reporter<'_>) -> (Examples, Vec<Place>) {
    let Some(node) = fields.get("examples") else { return (Examples::default(), Vec::new()) };
    let Some(fields) = Fields::open(node, &EXAMPLES_KEYS, reporter) else {
        return (Examples::default(), Vec::new());
    };
    let mut places = Vec::new();
    let mut read = |key: &str, reporter: &mut Reporter<'_>| {
        let texts = fields.texts(key, reporter).unwrap_or_default();
        let count = texts.len();
        let at: Vec<Place> = texts.iter().map(|(_, at)| *at).collect();
        let expanded = scope.texts(texts, reporter);
        if expanded.len() == count {
            places.extend(at);
            expanded
        } else {
            // Reported; without all of them the places would not fit.
            Vec::new()
        }
    };
    let examples = Examples { matches: read("match", reporter), not_match: read("not_match", reporter) };
    (examples, places)
}

fn approval(node: &Node, reporter: &mut Reporter<'_>) -> Option<Approval> {
    let fields = Fields::open(node, &APPROVAL_KEYS, reporter)?;
    let timeout_s = fields.get("timeout").and_then(|node| {
        let seconds = match &node.value {
            Value::Int(seconds) => u64::try_from(*seconds).ok(),
            Value::Text(text) => seconds(text),
            _ => None,
        };
        if seconds.is_none() {
            reporter.report(node.at, "expected a duration such as 30s, 5m or 1h");
        }
        seconds
    });
    let uses = fields.number("uses", 1, reporter).map(|uses| u32::try_from(uses).unwrap_or(u32::MAX));
    let words: Vec<_> = ApprovalScope::ALL.iter().map(|scope| (scope.as_str(), *scope)).collect();
    Some(Approval { timeout_s, uses, scope: fields.word("scope", &words, reporter) })
}

/// Reads a duration: one or more numbers, each with its unit.
fn seconds(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let unit = match rest.get(digits..)?.chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest.get(digits + 1..)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations() {
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("1h30m"), Some(5400));
        for wrong in ["", "5", "m", "5x", "5m3", "99999999999999999999s", "é"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
