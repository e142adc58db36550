//! Replaying a described run without doing anything: what was recorded, and stand-ins for what was not.
//!
//! The contract's stub mode (§18.3). A stand-in is a digest of run, intent and kind of tool, so that a replay is the
//! same on every machine and never touches the world.

use std::collections::HashMap;

use serde::{Serialize, Serializer};

use super::record::{IntentEntry, ResultEntry};
use crate::sign::Digest;

/// The kind of tool that a stand-in answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StubType {
    /// Fetches over the network.
    Http,
    /// Files.
    File,
    /// Databases.
    Db,
    /// Message queues.
    Queue,
}

/// Words of tool names, in the order in which they are looked for.
const WORDS: [(StubType, &[&str]); 4] = [
    (StubType::Http, &["http", "fetch", "url"]),
    (StubType::File, &["file", "path", "fs", "write"]),
    (StubType::Db, &["db", "sql", "query", "table"]),
    (StubType::Queue, &["queue", "topic", "publish", "kafka"]),
];

impl StubType {
    /// Returns the kind of a tool, told by its name.
    #[must_use]
    pub fn of(tool_name: &str) -> Option<Self> {
        let name = tool_name.to_lowercase();
        WORDS.iter().find(|(_, words)| words.iter().any(|word| name.contains(word))).map(|(kind, _)| *kind)
    }

    /// Returns the spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::File => "file",
            Self::Db => "db",
            Self::Queue => "queue",
        }
    }

    /// Returns the digest that stands in for the result of an intent.
    #[must_use]
    pub fn digest(self, run_id: &str, intent: &IntentEntry) -> Digest {
        let (tool, args) = (intent.tool_name.to_lowercase(), intent.args_digest.to_lowercase());
        let text = format!("{run_id}:{}:{tool}:{args}:{}", intent.intent_id, self.as_str());
        Digest::sha256(text.as_bytes())
    }
}

impl Serialize for StubType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a replay says of one intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayStep {
    /// The intent.
    pub intent_id: String,
    /// Its tool.
    pub tool_name: String,
    /// The recorded status, `stubbed`, or `missing`.
    pub status: String,
    /// The kind of the stand-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stub_type: Option<StubType>,
    /// The digest of the recorded result, or of the stand-in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_digest: Option<String>,
}

/// A replayed run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replay {
    /// One step per intent, in their order.
    pub steps: Vec<ReplayStep>,
    /// The intents that have neither a result nor a stand-in.
    pub missing_results: Vec<String>,
}

/// Replays a run. Of several results of one intent the last counts.
#[must_use]
pub fn replay(run_id: &str, intents: &[IntentEntry], results: &[ResultEntry]) -> Replay {
    let by_intent: HashMap<&str, &ResultEntry> =
        results.iter().map(|result| (result.intent_id.as_str(), result)).collect();
    let mut replay = Replay::default();
    for intent in intents {
        let recorded = by_intent.get(intent.intent_id.as_str());
        let stub = StubType::of(&intent.tool_name).filter(|_| recorded.is_none());
        let (status, result_digest) = match (recorded, stub) {
            (Some(result), _) => (result.status.as_str(), Some(result.result_digest.clone())),
            (None, Some(stub)) => ("stubbed", Some(stub.digest(run_id, intent).to_string())),
            (None, None) => {
                replay.missing_results.push(intent.intent_id.clone());
                ("missing", None)
            }
        };
        replay.steps.push(ReplayStep {
            intent_id: intent.intent_id.clone(),
            tool_name: intent.tool_name.clone(),
            status: status.to_owned(),
            stub_type: stub,
            result_digest,
        });
    }
    replay
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::runpack::{Payloads, RunRecord};
    use crate::timestamp::Timestamp;

    const INPUT: &[u8] = include_bytes!("../../tests/vectors/inputs/run_record.json");

    #[test]
    fn steps_equal_the_vector() {
        let expected: Value =
            serde_json::from_str(include_str!("../../tests/vectors/expected_v17.json")).unwrap();
        let record =
            RunRecord::from_json(INPUT).unwrap().complete(Timestamp::UNSET, Payloads::Strip).unwrap();
        let replay = replay(&record.run.run_id, &record.intents, &record.results);
        assert_eq!(json!(replay.steps), expected["replay"]["out"]["steps"]);
        assert!(replay.missing_results.is_empty());
    }

    #[test]
    fn kinds_are_told_in_the_contracts_order() {
        let kinds = [
            ("tool.FETCH_file", Some(StubType::Http)),
            ("fs.write_sql", Some(StubType::File)),
            ("run_Query", Some(StubType::Db)),
            ("kafka", Some(StubType::Queue)),
            ("tool.think", None),
        ];
        for (name, kind) in kinds {
            assert_eq!(StubType::of(name), kind, "{name}");
        }
    }

    #[test]
    fn an_intent_without_result_and_stand_in_is_missing() {
        let intent =
            IntentEntry { intent_id: "i".into(), tool_name: "think".into(), ..IntentEntry::default() };
        let replay = replay("run_x", &[intent], &[]);
        assert_eq!((replay.steps[0].status.as_str(), &replay.steps[0].result_digest), ("missing", &None));
        assert_eq!(replay.missing_results, ["i"]);
    }
}
