//! `gait run replay --policy`: what a policy says now of what a session did then.
//!
//! One run of `gait regress run --policy`, with the same judge: nothing is executed, every recorded action is asked
//! about again.

use gait_agent::regress::{Group, Review};
use serde::Serialize;

use super::super::args::RunFrom;
use super::super::output::one_line;
use super::super::regress::replay::{judge, session, unreplayable, was};
use super::super::{Answer, CliError, ErrorCode};
use super::holding;
use crate::policy_source::load_policy;

/// How many groups of decisions the text shows; JSON has them all.
const SHOWN_GROUPS: usize = 40;

#[derive(Serialize)]
struct Report<'a> {
    run_id: String,
    mode: &'static str,
    policy: &'a str,
    policy_digest: String,
    recorded_policy_digest: Option<String>,
    /// Counts as decimal strings, as in the documents.
    decisions: String,
    same: String,
    stopped: String,
    loosened: String,
    tightened: String,
    open: String,
    changes: Vec<Group>,
}

/// Judges a session again.
///
/// # Errors
///
/// A bad policy; a runpack that is not there, does not hold, or is not that of a session.
pub(super) fn rejudge(run: &RunFrom, name: &str) -> Result<Answer, CliError> {
    let policy = load_policy(name)?;
    let verified = holding(run)?;
    let (session, mut runpack) = session(&verified.path)?;
    let was = was(&session, None)?;
    let judge = judge(&policy, was.as_ref(), &session, None)?;
    let mut review = Review::default();
    review.begin(&session, &verified.path.display().to_string());
    judge
        .replay(&session, &mut runpack, |recorded, judgement| {
            review.add(&session, &judge, recorded, judgement);
        })
        .map_err(|error| unreplayable(&verified.path, error))?;
    let total = review.total();
    let changed = total.stopped + total.loosened + total.tightened;
    let report = Report {
        run_id: session.run_id.clone(),
        mode: "policy",
        policy: name,
        policy_digest: policy.digest().to_string(),
        recorded_policy_digest: session.policy_digest.map(|digest| digest.to_string()),
        decisions: total.decisions.to_string(),
        same: (total.decisions - changed - total.open).to_string(),
        stopped: total.stopped.to_string(),
        loosened: total.loosened.to_string(),
        tightened: total.tightened.to_string(),
        open: total.open.to_string(),
        changes: review.groups(),
    };
    let outcome = if changed == 0 { "ok" } else { "changed" };
    let text = format!(
        "run replay {outcome}: run_id={} mode=policy policy={}\n{}",
        report.run_id,
        one_line(name),
        review.text(SHOWN_GROUPS)
    );
    let answer = Answer::ok(&report, text)?;
    if changed == 0 {
        return Ok(answer);
    }
    let message = format!("the policy decides {changed} of {} decisions otherwise", total.decisions);
    let failure = CliError::new(ErrorCode::VerificationFailed, message)
        .hint("`gait why` names the rule that decides; `gait regress run --policy` reviews many runs");
    Ok(answer.failed(failure))
}
