//! `gait gate eval`: judges one intent, with everything around the pure gate, and leaves signed evidence.
//!
//! Order of work: read every input; evaluate; count; ask for approvals; ask for credentials; rewrite a simulation;
//! write the evidence; answer. Nothing is counted or issued before all inputs are known to be good.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gait_agent::gate::{GateOutcome, Verdict, evaluate};
use gait_agent::intent::{Intent, IntentRequest};
use gait_agent::policy::Policy;
use gait_agent::sign::{SigningKey, VerifyKey};
use gait_agent::trace::TraceRecord;
use serde::Serialize;

use super::args::{BrokerKind, GateEval, GateProfile};
use super::dispatch::Call;
use super::{Answer, CliError, ErrorCode};
use crate::atomic_file::{Existing, Staged};
use crate::input;
use crate::keyring::{DevKey, KeyMode, PrivateSource, VerifySource, signing_key};
use crate::policy_source::load_policy;
use crate::run_id::now;
use crate::toolgate::approval_token::{self, Approvals, AuditRecord, PresentedToken, Required};
use crate::toolgate::credential::{Broker, CredentialRecord, Issued, Request};
use crate::toolgate::rate_limit::{self, Counted, Limited};

const INTENT_BYTES: u64 = 8 << 20;
/// The variable that asks for exit 0 on a block.
const EXIT_VARIABLE: &str = "GAIT_GATE_EVAL_EXIT";

/// Everything that is read before anything happens.
struct Inputs {
    policy: Policy,
    intent: Intent,
    key: SigningKey,
    approval_key: Option<VerifyKey>,
    tokens: Vec<PresentedToken>,
    broker: Option<Broker>,
    warnings: Vec<String>,
}

/// What the gate and everything around it came to.
struct Judged {
    verdict: Verdict,
    reasons: BTreeSet<String>,
    violations: BTreeSet<String>,
    outcome: GateOutcome,
    latency_ms: f64,
    counted: Option<Counted>,
    approvals: Option<Approvals>,
    issued: Option<Issued>,
    simulated: Option<(Verdict, Vec<String>)>,
}

#[derive(Serialize)]
struct Report {
    profile: &'static str,
    verdict: &'static str,
    reason_codes: Vec<String>,
    violations: Vec<String>,
    approval_ref: Option<String>,
    required_approvals: Option<usize>,
    valid_approvals: Option<usize>,
    approval_audit_path: Option<String>,
    trace_id: String,
    trace_path: String,
    policy_digest: String,
    intent_digest: String,
    matched_rule: Option<String>,
    rate_limit_scope: Option<String>,
    rate_limit_key: Option<String>,
    rate_limit_used: Option<u64>,
    rate_limit_remaining: Option<u64>,
    credential_issuer: Option<String>,
    credential_ref: Option<String>,
    credential_evidence_path: Option<String>,
    simulate_mode: Option<bool>,
    would_have_blocked: Option<bool>,
    simulated_verdict: Option<&'static str>,
    simulated_reason_codes: Vec<String>,
}

/// Judges an intent.
///
/// # Errors
///
/// Any input that is bad, an unmet precondition of the profile, evidence that cannot be written.
pub(super) fn eval(args: &GateEval, call: &Call) -> Result<Answer, CliError> {
    let inputs = read_inputs(args)?;
    let judged = judge(args, &inputs)?;
    let evidence = write_evidence(args, &inputs, &judged, call)?;
    let exit = exit_code(&judged);
    let report = report(args, &inputs, judged, evidence);
    let text = text(&report);
    Ok(Answer::ok(&report, text)?.exit(exit).warn(inputs.warnings))
}

fn read_inputs(args: &GateEval) -> Result<Inputs, CliError> {
    let production = args.profile == GateProfile::OssProd;
    let (key_mode, key_source) = args.key.source();
    if production && args.simulate {
        return Err(precondition("does not allow --simulate"));
    }
    if production && key_mode != KeyMode::Prod {
        return Err(precondition("needs --key-mode prod and a private key"));
    }
    let policy = load_policy(&args.policy)?;
    let broker = broker(args)?;
    if production {
        check_rules(&policy, broker.is_some())?;
    }
    let intent = read_intent(&args.intent)?;
    let (key, warning) = signing_key(key_mode, &key_source, DevKey::Ephemeral)?;
    let approval_source = VerifySource {
        public_path: args.approval_public_key.clone(),
        public_env: args.approval_public_key_env.clone(),
        private: PrivateSource {
            path: args.approval_private_key.clone(),
            env: args.approval_private_key_env.clone(),
        },
    };
    let approval_key = approval_source.load()?;
    let paths = args.approval_token.iter().chain(&args.approval_token_chain);
    let tokens = paths.map(|path| approval_token::read(path)).collect::<Result<Vec<_>, _>>()?;
    let warnings = warning.into_iter().map(str::to_owned).collect();
    Ok(Inputs { policy, intent, key, approval_key, tokens, broker, warnings })
}

/// Reads and normalises an intent file.
///
/// # Errors
///
/// Fails if it cannot be read, parsed or normalised.
pub(super) fn read_intent(path: &Path) -> Result<Intent, CliError> {
    let bytes = input::read("intent", path, INTENT_BYTES)?;
    IntentRequest::from_json(&bytes)
        .and_then(IntentRequest::normalise)
        .map_err(|error| CliError::input(format!("intent {}", path.display())).because(error))
}

fn precondition(text: &str) -> CliError {
    CliError::input(format!("profile oss-prod {text}"))
}

/// The rules that oss-prod wants to see credentials for.
fn check_rules(policy: &Policy, has_broker: bool) -> Result<(), CliError> {
    let risky = policy.rules().iter().filter(|rule| {
        rule.effect != Verdict::Block
            && rule.base.risk_classes.iter().any(|class| class == "high" || class == "critical")
    });
    for rule in risky {
        if !rule.broker.as_ref().is_some_and(|broker| broker.required) {
            let text = format!(
                "needs require_broker_credential on high-risk rules: {} at {} has none",
                rule.name, rule.origin
            );
            return Err(precondition(&text).hint("add require_broker_credential: true to the rule"));
        }
        if !has_broker {
            let text = format!("needs a credential broker: rule {} requires a credential", rule.name);
            return Err(precondition(&text).hint("give --credential-broker"));
        }
    }
    Ok(())
}

fn broker(args: &GateEval) -> Result<Option<Broker>, CliError> {
    Ok(match args.credential_broker {
        BrokerKind::Off => None,
        BrokerKind::Stub => Some(Broker::Stub),
        BrokerKind::Env => Some(Broker::Env { prefix: args.credential_env_prefix.clone() }),
        BrokerKind::Command => {
            let arguments = args.credential_command_args.clone();
            Some(Broker::command(args.credential_command.as_deref(), arguments)?)
        }
    })
}

fn judge(args: &GateEval, inputs: &Inputs) -> Result<Judged, CliError> {
    let started = Instant::now();
    let outcome = evaluate(&inputs.policy, &inputs.intent);
    let latency_ms = started.elapsed().as_secs_f64() * 1e3;
    let asks = outcome.verdict == Verdict::RequireApproval;
    if asks && args.profile == GateProfile::OssProd && inputs.approval_key.is_none() {
        return Err(precondition("needs a key to verify approvals with").hint("give --approval-public-key"));
    }
    let mut judged = Judged {
        verdict: outcome.verdict,
        reasons: outcome.reason_codes.iter().cloned().collect(),
        violations: outcome.violations.iter().cloned().collect(),
        outcome,
        latency_ms,
        counted: None,
        approvals: None,
        issued: None,
        simulated: None,
    };
    apply_rate_limit(&mut judged, args, inputs)?;
    apply_approvals(&mut judged, inputs);
    apply_broker(&mut judged, args, inputs);
    if args.simulate {
        let reasons = judged.reasons.iter().cloned().collect();
        judged.reasons.insert("simulate_mode_non_enforcing".to_owned());
        judged.reasons.insert(format!("simulated_{}", judged.verdict));
        judged.simulated = Some((judged.verdict, reasons));
        judged.verdict = Verdict::Allow;
    }
    Ok(judged)
}

fn apply_rate_limit(judged: &mut Judged, args: &GateEval, inputs: &Inputs) -> Result<(), CliError> {
    let Some(limit) = judged.outcome.rate_limit.as_ref().filter(|limit| limit.requests > 0) else {
        return Ok(());
    };
    let limited = Limited {
        requests: limit.requests,
        window: &limit.window,
        scope: &limit.scope,
        tool: inputs.intent.tool_name(),
        identity: &inputs.intent.context().identity,
    };
    let counted = rate_limit::count(&args.rate_limit_state, &limited, now())?;
    if !counted.within {
        judged.verdict = Verdict::Block;
        judged.reasons.insert("rate_limit_exceeded".to_owned());
        judged.violations.insert("rate_limit_exceeded".to_owned());
    }
    judged.counted = Some(counted);
    Ok(())
}

fn required<'a>(judged: &Judged, inputs: &'a Inputs, key: &'a VerifyKey) -> Required<'a> {
    Required {
        intent: &inputs.intent,
        policy_digest: inputs.policy.digest(),
        approvals: usize::try_from(judged.outcome.min_approvals).unwrap_or(usize::MAX),
        distinct: judged.outcome.require_distinct_approvers,
        now: now(),
        key,
    }
}

fn apply_approvals(judged: &mut Judged, inputs: &Inputs) {
    if judged.verdict != Verdict::RequireApproval {
        return;
    }
    let key = inputs.approval_key.unwrap_or_else(|| inputs.key.verify_key());
    let approvals = approval_token::judge(&inputs.tokens, &required(judged, inputs, &key));
    judged.reasons.extend(approvals.reason_codes.iter().cloned());
    if approvals.granted {
        judged.verdict = Verdict::Allow;
    } else {
        judged.violations.insert("approval_not_granted".to_owned());
    }
    judged.approvals = Some(approvals);
}

/// The reference and the scopes that a credential is asked for with.
fn credential_terms(args: &GateEval, outcome: &GateOutcome) -> (String, Vec<String>) {
    let rule = outcome.broker.clone().unwrap_or_default();
    let reference = args.credential_ref.clone().unwrap_or(rule.reference);
    if args.credential_scopes.is_empty() {
        return (reference, rule.scopes);
    }
    let scopes: BTreeSet<_> =
        args.credential_scopes.iter().map(|scope| scope.trim().to_lowercase()).collect();
    (reference, scopes.into_iter().filter(|scope| !scope.is_empty()).collect())
}

fn apply_broker(judged: &mut Judged, args: &GateEval, inputs: &Inputs) {
    let required = judged.outcome.broker.as_ref().is_some_and(|broker| broker.required);
    if judged.verdict != Verdict::Allow || !required {
        return;
    }
    let (reference, scopes) = credential_terms(args, &judged.outcome);
    let request = Request::new(&inputs.intent, &reference, &scopes);
    let (issued, reason) = match &inputs.broker {
        None => (None, "broker_credential_required"),
        Some(broker) => match broker.issue(&request) {
            None => (None, "broker_credential_missing"),
            issued => (issued, "broker_credential_present"),
        },
    };
    judged.reasons.insert(reason.to_owned());
    if issued.is_none() {
        judged.verdict = Verdict::Block;
        judged.violations.insert("broker_credential_missing".to_owned());
    }
    judged.issued = issued;
}

/// What was written, and under which names.
struct Evidence {
    trace_id: String,
    trace_path: String,
    audit_path: Option<String>,
    credential_path: Option<String>,
    approval_ref: Option<String>,
}

/// Writes trace, approval audit and credential evidence: all of them or, short of a failing rename, none.
fn write_evidence(
    args: &GateEval,
    inputs: &Inputs,
    judged: &Judged,
    call: &Call,
) -> Result<Evidence, CliError> {
    let mut record = TraceRecord::new(inputs.policy.digest(), &inputs.intent, judged.verdict);
    let approval_ref = approval_ref(args, judged);
    record.correlation_id = Some(call.correlation_id.clone());
    record.violations = judged.violations.iter().cloned().collect();
    record.latency_ms = Some(judged.latency_ms);
    record.approval_token_ref.clone_from(&approval_ref);
    record.reason_codes = judged.reasons.iter().cloned().collect();
    record.matched_rule.clone_from(&judged.outcome.matched_rule);
    if let Some((verdict, _)) = judged.simulated {
        record.enforced = Some(false);
        record.simulated_verdict = Some(verdict);
    }
    let internal = |what: &'static str| {
        move |error: Box<dyn std::error::Error + Send + Sync>| {
            CliError::new(ErrorCode::InternalFailure, what).because(error)
        }
    };
    record.sign(&inputs.key).map_err(|error| internal("sign the trace")(error.into()))?;
    let trace_id = record.trace_id;
    let text = record.to_file_text().map_err(|error| internal("write the trace")(error.into()))?;
    let named = |given: &Option<PathBuf>, stem: &str| {
        given.clone().unwrap_or_else(|| PathBuf::from(format!("{stem}_{trace_id}.json")))
    };
    let trace_path = named(&args.trace_out, "trace");
    let mut staged = vec![(stage(&trace_path, &text)?, trace_path.clone())];

    let mut audit_path = None;
    if let Some(approvals) = &judged.approvals {
        let key = inputs.approval_key.unwrap_or_else(|| inputs.key.verify_key());
        let required = required(judged, inputs, &key);
        let path = named(&args.approval_audit_out, "approval_audit");
        let text = pretty(&AuditRecord::new(trace_id, &required, approvals))?;
        staged.push((stage(&path, &text)?, path.clone()));
        audit_path = Some(path.display().to_string());
    }
    let mut credential_path = None;
    if let (Some(issued), Some(broker)) = (&judged.issued, &inputs.broker) {
        let (reference, scopes) = credential_terms(args, &judged.outcome);
        let request = Request::new(&inputs.intent, &reference, &scopes);
        let created_at = inputs.intent.created_at();
        let path = named(&args.credential_evidence_out, "credential_evidence");
        let text = pretty(&CredentialRecord::new(created_at, trace_id, broker, &request, issued))?;
        staged.push((stage(&path, &text)?, path.clone()));
        credential_path = Some(path.display().to_string());
    }
    for (file, path) in staged {
        file.commit(Existing::Replace).map_err(|error| unwritable(&path, error))?;
    }
    Ok(Evidence {
        trace_id: trace_id.to_string(),
        trace_path: trace_path.display().to_string(),
        audit_path,
        credential_path,
        approval_ref,
    })
}

fn approval_ref(args: &GateEval, judged: &Judged) -> Option<String> {
    let ids = judged.approvals.as_ref().map(|approvals| approvals.token_ids.join(",")).unwrap_or_default();
    if ids.is_empty() { args.approval_token_ref.clone() } else { Some(ids) }
}

fn pretty(document: &impl Serialize) -> Result<String, CliError> {
    let mut text = serde_json::to_string_pretty(document)
        .map_err(|error| CliError::new(ErrorCode::InternalFailure, "write evidence").because(error))?;
    text.push('\n');
    Ok(text)
}

fn stage(path: &Path, text: &str) -> Result<Staged, CliError> {
    Staged::write(path, text.as_bytes()).map_err(|error| unwritable(path, error))
}

fn unwritable(path: &Path, error: std::io::Error) -> CliError {
    CliError::io(format!("write {}", path.display())).because(error)
}

fn exit_code(judged: &Judged) -> u8 {
    if judged.simulated.is_some() {
        return 0;
    }
    match judged.verdict {
        Verdict::Block if env::var_os(EXIT_VARIABLE).is_some_and(|value| value == "reference") => 0,
        verdict => super::policy::verdict_exit(verdict),
    }
}

fn report(args: &GateEval, inputs: &Inputs, judged: Judged, evidence: Evidence) -> Report {
    let counted = judged.counted.as_ref();
    let issued = judged.issued.as_ref();
    let approvals = judged.approvals.as_ref();
    let needed = usize::try_from(judged.outcome.min_approvals).unwrap_or(usize::MAX).max(1);
    let simulated = judged.simulated.as_ref();
    let stops = |verdict: Verdict| matches!(verdict, Verdict::Block | Verdict::RequireApproval);
    Report {
        profile: match args.profile {
            GateProfile::Standard => "standard",
            GateProfile::OssProd => "oss-prod",
        },
        verdict: judged.verdict.as_str(),
        approval_ref: evidence.approval_ref,
        required_approvals: approvals.map(|_| needed),
        valid_approvals: approvals.map(|approvals| approvals.valid),
        approval_audit_path: evidence.audit_path,
        trace_id: evidence.trace_id,
        trace_path: evidence.trace_path,
        policy_digest: inputs.policy.digest().to_string(),
        intent_digest: inputs.intent.intent_digest().to_string(),
        rate_limit_scope: judged
            .outcome
            .rate_limit
            .as_ref()
            .filter(|_| counted.is_some())
            .map(|l| l.scope.clone()),
        rate_limit_key: counted.map(|counted| counted.key.clone()),
        rate_limit_used: counted.map(|counted| counted.used),
        rate_limit_remaining: counted.map(|counted| counted.remaining),
        credential_issuer: issued.map(|issued| issued.issued_by.clone()),
        credential_ref: issued.map(|issued| issued.credential_ref.clone()),
        credential_evidence_path: evidence.credential_path,
        simulate_mode: simulated.map(|_| true),
        would_have_blocked: simulated.map(|(verdict, _)| stops(*verdict)),
        simulated_verdict: simulated.map(|(verdict, _)| verdict.as_str()),
        simulated_reason_codes: simulated.map(|(_, reasons)| reasons.clone()).unwrap_or_default(),
        reason_codes: judged.reasons.into_iter().collect(),
        violations: judged.violations.into_iter().collect(),
        matched_rule: judged.outcome.matched_rule,
    }
}

fn text(report: &Report) -> String {
    let mut lines =
        vec![format!("gate eval: verdict={}", report.verdict), format!("trace: {}", report.trace_path)];
    if !report.reason_codes.is_empty() {
        lines.push(format!("reasons: {}", report.reason_codes.join(",")));
    }
    if !report.violations.is_empty() {
        lines.push(format!("violations: {}", report.violations.join(",")));
    }
    if let (Some(valid), Some(required)) = (report.valid_approvals, report.required_approvals) {
        lines.push(format!("approvals: {valid}/{required}"));
    }
    if let Some(path) = &report.approval_audit_path {
        lines.push(format!("approval audit: {path}"));
    }
    lines.join("\n")
}
