//! Templates: which evidence answers which control (contract §23).

use super::manifest::{Control, Entry};

/// A way of indexing evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// Controls of SOC 2.
    Soc2,
    /// Requirements of PCI DSS.
    Pci,
    /// The questions of an incident.
    IncidentResponse,
}

/// A control: its id and title, the types of entries that answer it, and the names that do besides.
type Row = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const DECISIONS: &[&str] = &["approval_audit_", "credential_evidence_"];

const SOC2: [Row; 3] = [
    ("CC6.6", "Change Management Evidence", &["trace", "evidence"], DECISIONS),
    ("CC7.2", "Operational Monitoring", &["report"], &["regress_summary.json", "trace_summary.json"]),
    (
        "CC8.1",
        "Incident Evidence Integrity",
        &["runpack", "evidence"],
        &["runpack_summary.json", "referenced_runpacks.json"],
    ),
];

const PCI: [Row; 3] = [
    ("PCI-10", "Audit Trail and Monitoring", &["trace", "report"], &["trace_summary.json"]),
    ("PCI-7", "Access and Approval Controls", &["evidence"], DECISIONS),
    (
        "PCI-12",
        "Incident Handling Evidence",
        &["runpack", "report"],
        &["runpack_summary.json", "regress_summary.json"],
    ),
];

const INCIDENT: [Row; 2] = [
    (
        "IR-CHAIN",
        "Reconstruction Chain",
        &["runpack", "trace", "evidence"],
        &["runpack_summary.json", "trace_summary.json", "approval_audit_", "credential_evidence_"],
    ),
    (
        "IR-ROOTCAUSE",
        "Root Cause and Regression",
        &["report"],
        &["regress_summary.json", "policy_digests.json"],
    ),
];

impl Template {
    /// Returns the template of a name; an unknown one means an incident.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name.trim().to_ascii_lowercase().as_str() {
            "soc2" | "" => Self::Soc2,
            "pci" => Self::Pci,
            _ => Self::IncidentResponse,
        }
    }

    /// Returns the spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Soc2 => "soc2",
            Self::Pci => "pci",
            Self::IncidentResponse => "incident_response",
        }
    }

    const fn rows(self) -> &'static [Row] {
        match self {
            Self::Soc2 => &SOC2,
            Self::Pci => &PCI,
            Self::IncidentResponse => &INCIDENT,
        }
    }

    /// Names the entries that answer each control.
    pub(super) fn index(self, entries: &[Entry]) -> Vec<Control> {
        let control = |(id, title, types, names): &Row| {
            let answers = |entry: &&Entry| {
                types.contains(&&*entry.kind) || names.iter().any(|name| entry.path.contains(name))
            };
            Control {
                control_id: (*id).to_owned(),
                title: (*title).to_owned(),
                evidence_paths: entries.iter().filter(answers).map(|entry| entry.path.clone()).collect(),
            }
        };
        self.rows().iter().map(control).collect()
    }
}
