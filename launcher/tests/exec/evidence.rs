//! What a sealed runpack says, read without any code of gait's: a zip, JSON lines, and nothing else.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// The records of one session.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) records: Vec<Record>,
}

/// One decision, reduced to what a scenario can state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) verdict: String,
    pub(crate) class: String,
    pub(crate) operation: String,
    pub(crate) target: String,
    pub(crate) intent_digest: String,
    pub(crate) reason_codes: Vec<String>,
    /// What the verdict would have been, in a session that stops nothing.
    pub(crate) simulated: Option<String>,
}

impl Evidence {
    /// Reads the runpack's traces.
    pub(crate) fn read(pack: &Path) -> Self {
        let text = entry(pack, "traces.jsonl");
        let records = text
            .lines()
            .map(|line| Record::from_json(&serde_json::from_str(line).expect("a line of JSON")))
            .collect();
        Self { records }
    }

    /// Whether some record is `verdict class operation target`, where a target of `*` stands for any.
    pub(crate) fn has(&self, wanted: &str) -> bool {
        let mut words = wanted.splitn(4, ' ');
        let [verdict, class, operation, target] =
            [(); 4].map(|()| words.next().expect("verdict class operation target"));
        self.records.iter().any(|record| {
            record.verdict == verdict
                && record.class == class
                && record.operation == operation
                && (target == "*" || record.target == target)
        })
    }

    /// The records that were blocked, as text.
    pub(crate) fn blocked(&self) -> Vec<String> {
        self.records.iter().filter(|record| record.verdict == "block").map(ToString::to_string).collect()
    }

    /// What two equal sessions must have in common.
    pub(crate) fn decisions(&self) -> BTreeSet<(String, String)> {
        self.records.iter().map(Record::decision).collect()
    }
}

impl Record {
    /// What it has in common with the same decision of another session.
    pub(crate) fn decision(&self) -> (String, String) {
        (self.intent_digest.clone(), self.verdict.clone())
    }

    fn from_json(line: &Value) -> Self {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let target = &line["target"];
        Self {
            verdict: text(line, "verdict"),
            class: text(target, "endpoint_class"),
            operation: text(target, "operation"),
            target: text(target, "value"),
            intent_digest: text(line, "intent_digest"),
            simulated: line["simulated_verdict"].as_str().map(str::to_owned),
            reason_codes: line["reason_codes"]
                .as_array()
                .map(|codes| codes.iter().filter_map(|code| code.as_str().map(str::to_owned)).collect())
                .unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {} {}", self.verdict, self.class, self.operation, self.target)
    }
}

/// Returns the text of one entry of a runpack.
pub(crate) fn entry(pack: &Path, name: &str) -> String {
    let mut archive = zip::ZipArchive::new(File::open(pack).expect("a runpack")).expect("a zip");
    let mut text = String::new();
    archive.by_name(name).expect(name).read_to_string(&mut text).expect("UTF-8");
    text
}
