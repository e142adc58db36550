//! `gait policy test`, `validate` and `init`.

use std::io::ErrorKind;

use gait_agent::gate::{Verdict, evaluate};
use gait_agent::policy::PolicyError;
use gait_agent::schema;
use gait_agent::timestamp::Timestamp;
use serde::Serialize;

use super::args::{PolicyInit, PolicyTest, PolicyValidate};
use super::gate::read_intent;
use super::{Answer, CliError, ErrorCode};
use crate::atomic_file::{Existing, Staged};
use crate::policy_source::{InvalidPolicy, load_policy, shipped_policies};

const TEST_SCHEMA: &str = "gait.policytest.result";
const VALIDATE_SCHEMA: &str = "gait.policyvalidate.result";
/// The contract's limit for a summary.
const SUMMARY_CHARS: usize = 240;

/// Returns the exit code of a verdict.
pub(super) const fn verdict_exit(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Allow | Verdict::DryRun => 0,
        Verdict::Block => ErrorCode::PolicyBlocked.exit(),
        Verdict::RequireApproval => ErrorCode::ApprovalRequired.exit(),
    }
}

#[derive(Serialize)]
struct TestReport {
    schema_id: &'static str,
    schema_version: &'static str,
    created_at: Timestamp,
    policy_digest: String,
    intent_digest: String,
    verdict: &'static str,
    matched_rule: Option<String>,
    reason_codes: Vec<String>,
    violations: Vec<String>,
    summary: String,
}

/// Judges an intent by the policy alone: no approvals, rate limits, credentials or traces.
///
/// # Errors
///
/// A bad policy or intent.
pub(super) fn test(args: &PolicyTest) -> Result<Answer, CliError> {
    let policy = load_policy(&args.policy)?;
    let intent = read_intent(&args.intent)?;
    let outcome = evaluate(&policy, &intent);
    let listed = |codes: &[String]| if codes.is_empty() { "none".to_owned() } else { codes.join(",") };
    let mut summary = format!(
        "policy test verdict={} reasons={} violations={}",
        outcome.verdict,
        outcome.reason_codes.join(","),
        listed(&outcome.violations)
    );
    if let Some((cut, _)) = summary.char_indices().nth(SUMMARY_CHARS) {
        summary.truncate(cut);
    }
    let report = TestReport {
        schema_id: TEST_SCHEMA,
        schema_version: schema::VERSION,
        created_at: intent.created_at(),
        policy_digest: policy.digest().to_string(),
        intent_digest: intent.intent_digest().to_string(),
        verdict: outcome.verdict.as_str(),
        matched_rule: outcome.matched_rule,
        reason_codes: outcome.reason_codes,
        violations: outcome.violations,
        summary: summary.clone(),
    };
    Ok(Answer::ok(&report, summary)?.exit(verdict_exit(outcome.verdict)))
}

#[derive(Serialize)]
struct ValidateReport {
    schema_id: &'static str,
    schema_version: &'static str,
    policy: String,
    policy_digest: String,
    default_verdict: &'static str,
    rule_count: usize,
    summary: String,
}

#[derive(Serialize)]
struct InvalidReport<'a> {
    policy: &'a str,
    findings: Vec<Finding>,
}

/// One mistake, for editors.
#[derive(Serialize)]
struct Finding {
    file: String,
    line: u32,
    column: u32,
    message: String,
}

fn findings(invalid: &InvalidPolicy) -> Vec<Finding> {
    let finding = |error: &PolicyError| Finding {
        file: error.file.clone(),
        line: error.line,
        column: error.column,
        message: error.message.clone(),
    };
    invalid.errors.errors().iter().map(finding).collect()
}

/// Checks a policy.
///
/// # Errors
///
/// Everything that is wrong with it, at once.
pub(super) fn validate(args: &PolicyValidate) -> Result<Answer, CliError> {
    let policy = match load_policy(&args.policy) {
        Ok(policy) => policy,
        Err(error) => {
            let findings = findings(&error);
            let report = InvalidReport { policy: &args.policy, findings };
            return Ok(Answer::ok(&report, "")?.failed(error.into()));
        }
    };
    let (rules, default) = (policy.rules().len(), policy.default_verdict());
    let summary = format!("policy validate ok: {} rules={rules} default={default}", args.policy);
    let report = ValidateReport {
        schema_id: VALIDATE_SCHEMA,
        schema_version: schema::VERSION,
        policy: args.policy.clone(),
        policy_digest: policy.digest().to_string(),
        default_verdict: default.as_str(),
        rule_count: rules,
        summary: summary.clone(),
    };
    Answer::ok(&report, summary)
}

#[derive(Serialize)]
struct InitReport {
    template: String,
    policy_path: String,
    next_commands: Vec<String>,
}

/// Writes a shipped policy.
///
/// # Errors
///
/// A template that does not exist, a file that does, or one that cannot be written.
pub(super) fn init(args: &PolicyInit) -> Result<Answer, CliError> {
    let shipped = shipped_policies();
    // The short names are the contract's aliases.
    let name = match args.template.as_str() {
        "lowrisk" | "low" => "baseline-lowrisk",
        "mediumrisk" | "medium" => "baseline-mediumrisk",
        "highrisk" | "high" => "baseline-highrisk",
        name => name,
    };
    let Some((_, text)) = shipped.iter().find(|(known, _)| *known == name) else {
        let names: Vec<_> = shipped.iter().map(|(known, _)| *known).collect();
        return Err(CliError::input(format!("unknown template {:?}", args.template))
            .hint(format!("choose one of {}", names.join(", "))));
    };
    let path = args.out.display().to_string();
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    Staged::write(&args.out, text.as_bytes()).and_then(|staged| staged.commit(existing)).map_err(
        |error| {
            if error.kind() == ErrorKind::AlreadyExists {
                CliError::input(format!("{path} exists already"))
                    .hint("choose another --out, or replace it with --force")
            } else {
                CliError::io(format!("write {path}")).because(error)
            }
        },
    )?;
    let next_commands =
        vec![format!("gait policy validate {path}"), format!("gait exec --policy {path} -- CMD")];
    let text = format!("policy init ok: {path} from {name}\nnext: {}", next_commands.join("\nnext: "));
    Answer::ok(&InitReport { template: name.to_owned(), policy_path: path, next_commands }, text)
}
