//! From probes to checks, coverage and the outcome.

use std::collections::BTreeMap;
use std::path::Path;

use gait_agent::endpoint::EndpointClass;
use serde::Serialize;

use super::probe::{self, Found, PROBES, Probe};
use crate::keyring;

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Pass,
    /// Weaker or slower than it could be.
    Warn,
    /// `gait exec` cannot work.
    Fail,
}

/// One check, as the contract writes it.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) status: Outcome,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix_command: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) non_fixable: bool,
}

/// What a backend does with a class here.
#[derive(Debug, Serialize)]
pub(crate) struct BackendCoverage {
    pub(crate) classes: BTreeMap<&'static str, &'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

/// Everything that the doctor found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) checks: Vec<Check>,
    pub(crate) backends: BTreeMap<&'static str, BackendCoverage>,
}

impl Report {
    /// Probes the host.
    pub(crate) fn make(output_dir: &Path) -> Self {
        let mut checks: Vec<Check> = PROBES.iter().map(check).collect();
        let failed: Vec<&str> =
            checks.iter().filter(|check| check.non_fixable).map(|check| check.message.as_str()).collect();
        let mut backends = BTreeMap::from([("seccomp", coverage(failed.is_empty(), failed.join("; ")))]);
        let ebpf = probe::ebpf().map_err(|why| format!("{}; {}", why.what, why.remedy));
        backends.insert("ebpf", coverage(ebpf.is_ok(), ebpf.err().unwrap_or_default()));
        backends.insert("ptrace", coverage(false, "not part of this version of gait".to_owned()));
        checks.push(output_check(output_dir));
        checks.push(key_check());
        Self { checks, backends }
    }

    /// Returns the worst outcome.
    pub(crate) fn status(&self) -> Outcome {
        self.checks.iter().map(|check| check.status).max().unwrap_or(Outcome::Pass)
    }
}

fn coverage(able: bool, reason: String) -> BackendCoverage {
    let level = if able { "enforced" } else { "absent" };
    let classes = EndpointClass::KERNEL.into_iter().map(|class| (class.as_str(), level)).collect();
    BackendCoverage { classes, reason }
}

fn check(probe: &Probe) -> Check {
    let (status, message) = match (probe.run)() {
        Found::Yes => (Outcome::Pass, format!("can {}", probe.purpose)),
        Found::No(why) => {
            let status = if probe.essential { Outcome::Fail } else { Outcome::Warn };
            (status, format!("cannot {}: {why}; {}", probe.purpose, probe.remedy))
        }
    };
    Check { name: probe.name, status, message, fix_command: None, non_fixable: status == Outcome::Fail }
}

fn output_check(directory: &Path) -> Check {
    let (status, message) = match probe::writable(directory) {
        Found::Yes => (Outcome::Pass, format!("evidence can be written to {}", directory.display())),
        Found::No(why) => {
            (Outcome::Fail, format!("evidence cannot be written to {}: {why}", directory.display()))
        }
    };
    let fix_command = (status == Outcome::Fail).then(|| "gait exec --out-dir DIR -- CMD".to_owned());
    Check { name: "output_dir", status, message, fix_command, non_fixable: false }
}

fn key_check() -> Check {
    let (status, message) = match keyring::user_key() {
        Ok(key) => (Outcome::Pass, format!("the per-user signing key is {}", key.key_id())),
        Err(error) => (Outcome::Fail, format!("the per-user signing key cannot be used: {error}")),
    };
    let fix_command = (status == Outcome::Fail).then(|| "gait keys init".to_owned());
    Check { name: "key_config", status, message, fix_command, non_fixable: false }
}
