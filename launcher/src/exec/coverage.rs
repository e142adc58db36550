//! Coverage: what this session really enforces, per class and per row of the catalogue.
//!
//! It is written from what the start of the session could install, never from a version number.

use std::collections::BTreeMap;

use gait_agent::endpoint::{CATALOG, EndpointClass, Preload, Treatment};
use gait_agent::policy::ReadEvidence;
use gait_agent::schema;
use serde::Serialize;

use crate::backend::BackendKind;

/// What the seccomp backend could install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Installed {
    /// The Landlock floor.
    pub(crate) floor: bool,
    /// The Landlock scope of signals and abstract sockets.
    pub(crate) scope: bool,
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
    pub(crate) killable: bool,
    /// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`.
    pub(crate) sync: bool,
}

/// How far a class or row is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Seen and recorded, not stopped.
    Observed,
    /// Stopped where the policy says so.
    Enforced,
}

/// `coverage.json` of a runpack.
#[derive(Debug, Serialize)]
pub(crate) struct Coverage {
    schema_id: &'static str,
    schema_version: &'static str,
    backend: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    preloaded_by: Option<&'static str>,
    mode: &'static str,
    classes: BTreeMap<&'static str, Level>,
    #[serde(flatten)]
    installed: Option<SeccompFacts>,
    /// `exec.evidence.reads` of the policy: exact, named, or off.
    reads: &'static str,
    rows: Vec<Row>,
    /// What is weaker here than on a kernel with everything; empty where nothing is.
    degraded: Vec<&'static str>,
}

/// What only the seccomp backend tells.
#[derive(Debug, Serialize)]
struct SeccompFacts {
    floor: &'static str,
    scope: &'static str,
    wait_killable: bool,
    sync_wake_up: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    id: &'static str,
    level: Level,
    treatment: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    note: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    preloaded: Option<&'static str>,
}

const NO_FLOOR: &str = "no Landlock floor: a mistake of the supervisor is not bounded by the kernel";
const NO_SCOPE: &str = "no Landlock scope: signals are checked by pid only, and a pid may change its meaning";

fn degraded(installed: Installed) -> Vec<&'static str> {
    let mut list = Vec::new();
    if !installed.floor {
        list.push(NO_FLOOR);
    }
    if !installed.scope {
        list.push(NO_SCOPE);
    }
    if !installed.killable {
        list.push("no WAIT_KILLABLE_RECV: a signal may make a call happen twice");
    }
    list
}

impl Coverage {
    /// Describes a session of which every row is covered as the catalogue says.
    fn whole(backend: BackendKind, simulate: bool, reads: ReadEvidence) -> Self {
        let level = if simulate { Level::Observed } else { Level::Enforced };
        let treatment = |treatment| match treatment {
            Treatment::OnBehalf => "on_behalf",
            Treatment::Verified => "verified",
            Treatment::Scalar => "scalar",
            Treatment::Refused => "refused",
        };
        Self {
            schema_id: schema::COVERAGE,
            schema_version: schema::VERSION,
            backend: backend.as_str(),
            preloaded_by: None,
            mode: if simulate { "simulate" } else { "enforce" },
            classes: EndpointClass::KERNEL.into_iter().map(|class| (class.as_str(), level)).collect(),
            installed: None,
            reads: reads.as_str(),
            rows: CATALOG
                .iter()
                .map(|row| Row {
                    id: row.id,
                    level,
                    treatment: treatment(row.treatment),
                    note: row.note,
                    preloaded: None,
                })
                .collect(),
            degraded: if simulate { vec!["simulation: nothing is stopped"] } else { Vec::new() },
        }
    }

    /// Describes a session on the seccomp backend.
    pub(crate) fn seccomp(installed: Installed, simulate: bool, reads: ReadEvidence) -> Self {
        let word = |on: bool| if on { "landlock" } else { "absent" };
        let mut coverage = Self::whole(BackendKind::Seccomp, simulate, reads);
        coverage.installed = Some(SeccompFacts {
            floor: word(installed.floor),
            scope: word(installed.scope),
            wait_killable: installed.killable,
            sync_wake_up: installed.sync,
        });
        if !simulate {
            coverage.degraded = degraded(installed);
        }
        coverage
    }

    /// Makes the description of a seccomp session that of one on the eBPF backend, which is that and more.
    pub(crate) fn with_rules_in_the_kernel(mut self) -> Self {
        self.preloaded_by = Some(BackendKind::Ebpf.as_str());
        // The hooks judge files by themselves, and keep signals and abstract sockets inside the session.
        self.degraded.retain(|weakness| ![NO_FLOOR, NO_SCOPE].contains(weakness));
        for (row, known) in self.rows.iter_mut().zip(CATALOG) {
            row.preloaded = match known.preload {
                Preload::Decided => Some("wholly"),
                Preload::Partly(_) => Some("partly"),
                Preload::Held(_) => None,
            };
        }
        self
    }

    /// Describes a session on a scripted kernel.
    #[cfg(any(test, feature = "fake"))]
    pub(crate) fn fake(simulate: bool, reads: ReadEvidence) -> Self {
        Self::whole(BackendKind::Fake, simulate, reads)
    }

    /// Returns what is weaker here than it could be, and not so because nothing is to be stopped anyway.
    pub(crate) fn weaknesses(&self) -> &[&'static str] {
        if self.mode == "simulate" { &[] } else { &self.degraded }
    }
}
