//! The contract's digest of a policy (`reference_contract.md` section 4.8), and what is added to it.
//!
//! An additive key enters only where it is set, so that a policy of base keys has the reference's digest. What a
//! policy extends is merged and its own variables are written out first; variables of the session stay names.

use serde_json::{Map, Value, json};

use super::decode_exec::ExecDocument;
use super::model::{Dataflow, EndpointRule, FactMatch, FailClosed, Rule};
use crate::gate::Verdict;
use crate::schema;
use crate::sign::{CanonError, Digest, digest_of_tree};

pub(super) fn digest(
    default_verdict: Verdict,
    fail_closed: &FailClosed,
    rules: &[Rule],
    exec: &ExecDocument,
) -> Result<Digest, CanonError> {
    let mut root = json!({
        "SchemaID": schema::POLICY,
        "SchemaVersion": schema::VERSION,
        "DefaultVerdict": default_verdict.as_str(),
        "FailClosed": {
            "Enabled": fail_closed.enabled,
            "RiskClasses": fail_closed.risk_classes,
            "RequiredFields": fail_closed.required_fields,
        },
        "Rules": rules.iter().map(rule).collect::<Vec<_>>(),
    });
    if *exec != ExecDocument::default()
        && let Some(root) = root.as_object_mut()
    {
        root.insert("Exec".to_owned(), exec_section(exec));
    }
    digest_of_tree(&root)
}

/// A mapping to which only what is set is added.
struct Payload(Map<String, Value>);

impl Payload {
    fn list(&mut self, key: &str, list: &[String]) {
        if !list.is_empty() {
            self.0.insert(key.to_owned(), json!(list));
        }
    }

    fn some<T: serde::Serialize>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), json!(value));
        }
    }

    fn flag(&mut self, key: &str, flag: bool) {
        self.some(key, flag.then_some(true));
    }
}

fn rule(rule: &Rule) -> Value {
    let mut payload = Payload(Map::new());
    payload.some("Name", Some(&rule.name));
    payload.some("Priority", Some(rule.priority));
    payload.some("Effect", Some(rule.effect.as_str()));
    payload.some("Match", Some(matches(rule)));
    payload.some("ReasonCodes", Some(&rule.reason_codes));
    payload.some("Violations", Some(&rule.violations));
    payload.some("MinApprovals", (rule.min_approvals > 0).then_some(rule.min_approvals));
    payload.flag("RequireDistinctApprovers", rule.require_distinct_approvers);
    if let Some(broker) = &rule.broker {
        payload.flag("RequireBrokerCredential", broker.required);
        payload.some("BrokerReference", (!broker.reference.is_empty()).then_some(&broker.reference));
        payload.list("BrokerScopes", &broker.scopes);
    }
    let limit = rule.rate_limit.as_ref();
    payload.some(
        "RateLimit",
        limit.map(|limit| json!({"Requests": limit.requests, "Window": limit.window, "Scope": limit.scope})),
    );
    payload.some("Dataflow", rule.dataflow.as_ref().map(dataflow));
    payload.some("Endpoint", rule.endpoint.as_ref().map(endpoint));
    payload.some("Justification", rule.justification.as_ref());
    let mut examples = Payload(Map::new());
    examples.list("Match", &rule.examples.matches);
    examples.list("NotMatch", &rule.examples.not_match);
    payload.some("Examples", (!examples.0.is_empty()).then_some(examples.0));
    if let Some(approval) = &rule.approval {
        let mut inner = Payload(Map::new());
        inner.some("TimeoutSeconds", approval.timeout_s);
        inner.some("Uses", approval.uses);
        inner.some("Scope", approval.scope.map(super::model::ApprovalScope::as_str));
        payload.some("Approval", Some(inner.0));
    }
    Value::Object(payload.0)
}

fn matches(rule: &Rule) -> Value {
    let base = &rule.base;
    let mut payload = Payload(Map::new());
    payload.some("ToolNames", Some(&base.tool_names));
    payload.some("RiskClasses", Some(&base.risk_classes));
    payload.some("TargetKinds", Some(&base.target_kinds));
    payload.some("TargetValues", Some(&base.target_values));
    payload.some("ProvenanceSources", Some(&base.provenance_sources));
    payload.some("Identities", Some(&base.identities));
    payload.some("WorkspacePrefixes", Some(&base.workspace_prefixes));
    let classes: Vec<_> = base.endpoint_classes.iter().map(|class| class.as_str().to_owned()).collect();
    payload.list("EndpointClasses", &classes);
    payload.list("SkillPublishers", &base.skill_publishers);
    payload.list("SkillSources", &base.skill_sources);
    payload.list("DataClasses", &base.data_classes);
    payload.list("DestinationKinds", &base.destination_kinds);
    payload.list("DestinationValues", &base.destination_values);
    payload.list("DestinationOps", &base.destination_operations);
    facts(&mut payload, &rule.facts);
    Value::Object(payload.0)
}

fn facts(payload: &mut Payload, facts: &FactMatch) {
    payload.some("Paths", facts.paths.as_ref());
    payload.some("NotPaths", facts.not_paths.as_ref());
    payload.some("Operations", facts.operations.as_ref());
    payload.some("Executables", facts.executables.as_ref());
    payload.some("Argv", facts.argv.as_ref());
    payload.some("Domains", facts.domains.as_ref());
    let networks = facts.addresses.as_ref();
    payload.some("Addresses", networks.map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>()));
    let ports = facts.ports.as_ref();
    payload.some(
        "Ports",
        ports.map(|list| list.iter().map(|(low, high)| format!("{low}-{high}")).collect::<Vec<_>>()),
    );
}

fn dataflow(dataflow: &Dataflow) -> Value {
    let mut payload = Payload(Map::new());
    payload.some("Enabled", Some(dataflow.enabled));
    payload.some("TaintedSources", Some(&dataflow.tainted_sources));
    payload.list("DestinationKinds", &dataflow.destination_kinds);
    payload.list("DestinationValues", &dataflow.destination_values);
    payload.list("DestinationOperations", &dataflow.destination_operations);
    payload.some("Action", Some(dataflow.action.as_str()));
    payload.some("ReasonCode", Some(&dataflow.reason_code));
    payload.some("Violation", Some(&dataflow.violation));
    Value::Object(payload.0)
}

fn endpoint(endpoint: &EndpointRule) -> Value {
    json!({
        "Enabled": endpoint.enabled,
        "PathAllowlist": endpoint.path_allowlist,
        "PathDenylist": endpoint.path_denylist,
        "DomainAllowlist": endpoint.domain_allowlist,
        "DomainDenylist": endpoint.domain_denylist,
        "EgressClasses": endpoint.egress_classes,
        "Action": endpoint.action.as_str(),
        "DestructiveAction": endpoint.destructive_action.map_or("", Verdict::as_str),
        "ReasonCode": endpoint.reason_code,
        "Violation": endpoint.violation,
    })
}

fn exec_section(exec: &ExecDocument) -> Value {
    let mut payload = Payload(Map::new());
    if !exec.require.is_empty() {
        let require: Map<_, _> = exec
            .require
            .iter()
            .map(|(class, requirement)| (class.as_str().to_owned(), json!(requirement.as_str())))
            .collect();
        payload.some("Require", Some(require));
    }
    payload.some("Backend", exec.backend.map(super::model::BackendChoice::as_str));
    payload.some("EvidenceReads", exec.reads.map(super::model::ReadEvidence::as_str));
    payload.some("EvidenceRepeat", exec.repeat.map(super::model::RepeatEvidence::as_str));
    payload.some("EnvAllow", exec.env_allow.as_ref());
    payload.some("EnvDeny", exec.env_deny.as_ref());
    payload.some("EnvSet", (!exec.env_set.is_empty()).then_some(&exec.env_set));
    // As text: canonical JSON knows no integers beyond 2^53.
    payload.some("LimitProcesses", exec.limits.processes.map(|limit| limit.to_string()));
    payload.some("LimitOpenFiles", exec.limits.open_files.map(|limit| limit.to_string()));
    payload.some("LimitActionsPerSecond", exec.limits.actions_per_second.map(|limit| limit.to_string()));
    payload.some("Protect", exec.protect.as_ref());
    Value::Object(payload.0)
}
