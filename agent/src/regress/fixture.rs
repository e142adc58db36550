//! The files of a regression suite: `gait.yaml`, which is JSON, and `fixtures/<name>/fixture.json` (contract section
//! 19.1).

use std::path::{Component, Path};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gate::Verdict;
use crate::runpack::Manifest;
use crate::schema;
use crate::sign::{Digest, Limits, ParseError, parse_strict};

/// The name of the only set of fixtures.
const FIXTURE_SET: &str = "default";
/// A fixture whose run id has nothing that a name may have.
const FALLBACK_NAME: &str = "fixture";
/// A name becomes a directory.
const NAME_BYTES: usize = 128;
/// Documents beyond this are not of this kind.
const DOCUMENT_BYTES: usize = 16 << 20;

/// A document of a regression suite cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FixtureError {
    /// Not JSON that means one thing.
    #[error("not strict JSON")]
    Parse(#[from] ParseError),
    /// Another document, or a key that is none of its.
    #[error("not a document of this kind")]
    Shape(#[source] serde_json::Error),
    /// Another schema.
    #[error("schema_id is {found:?}, expected {wanted:?}")]
    Schema {
        /// What it says.
        found: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// A name that could not be a directory.
    #[error(
        "{0:?} is not the name of a fixture: a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
    )]
    Name(String),
    /// A path that could lead out of the suite.
    #[error("{0:?} is not a path inside of the directory: it must be relative and without `..`")]
    Path(String),
    /// Two fixtures of one name.
    #[error("two fixtures are called {0:?}")]
    Twice(String),
}

/// `gait.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `gait.regress.config`.
    pub schema_id: String,
    /// `1.0.0`.
    pub schema_version: String,
    /// `default`.
    pub fixture_set: String,
    /// The fixtures, by name.
    pub fixtures: Vec<ConfigEntry>,
}

/// A fixture as `gait.yaml` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// The run that it was made of.
    pub run_id: String,
    /// Its runpack, relative to `gait.yaml`.
    pub runpack: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            schema_id: schema::REGRESS_CONFIG.to_owned(),
            schema_version: schema::VERSION.to_owned(),
            fixture_set: FIXTURE_SET.to_owned(),
            fixtures: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// Fails if it is none, or a name or path in it could lead elsewhere.
    pub fn from_json(bytes: &[u8]) -> Result<Self, FixtureError> {
        let mut config: Self = document(bytes)?;
        check_schema(&config.schema_id, schema::REGRESS_CONFIG)?;
        config.fixtures.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in &config.fixtures {
            check_name(&entry.name)?;
            check_relative(&entry.runpack)?;
        }
        match config.fixtures.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(FixtureError::Twice(pair[0].name.clone())),
            None => Ok(config),
        }
    }

    /// Adds a fixture, in place of one of the same name.
    pub fn put(&mut self, entry: ConfigEntry) {
        self.fixtures.retain(|known| known.name != entry.name);
        self.fixtures.push(entry);
        self.fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

/// `fixture.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// `gait.regress.fixture`.
    pub schema_id: String,
    /// `1.0.0`.
    pub schema_version: String,
    /// Its name.
    pub name: String,
    /// The run.
    pub run_id: String,
    /// `runpack.zip`, relative to this file.
    pub runpack: String,
    /// What replaying the recorded results is to exit with: 0, or 2 where results are missing.
    pub expected_replay_exit_code: i32,
    /// The runpack that is compared with the recorded one; the recorded one itself if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate_runpack: Option<String>,
    /// Entries in which the candidate may differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diff_allow_changed_files: Vec<String>,
    /// The tools, in the order of the intents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_tool_sequence: Option<Vec<String>>,
    /// What the intents were answered, in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_verdict_sequence: Option<Vec<String>>,
    /// What a session of `gait exec` is held against; additive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecFixture>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context_conformance: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allow_context_runtime_drift: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected_context_set_digest: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_chain: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint_index: Option<Value>,
}

/// What a session of `gait exec` is held against.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecFixture {
    /// The policy: a shipped one, or a file relative to `gait.yaml` (absolute if it is not below it).
    pub policy: String,
    /// The digest of the policy that the expected verdicts come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_digest: Option<Digest>,
    /// Decisions that are expected to be others than the recorded ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<ExpectedDecision>,
    /// The workspace, relative to `gait.yaml`, where it is not the recorded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// The command, for `--live`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// What `--live` does not compare: `CLASS TARGET`, globs over the normalised form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub live_ignore: Vec<String>,
}

/// A decision that is to be another than the recorded one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedDecision {
    /// Which one, as `gait run inspect` numbers them.
    pub intent_id: String,
    /// What it is about, for readers.
    pub about: String,
    /// The recorded verdict.
    pub recorded: Verdict,
    /// The expected one.
    pub verdict: Verdict,
}

impl ExpectedDecision {
    /// Returns the number of the decision.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.intent_id.strip_prefix("intent_")?.parse().ok()
    }
}

impl Fixture {
    /// Makes the fixture of a run.
    #[must_use]
    pub fn new(name: &str, manifest: &Manifest) -> Self {
        Self {
            schema_id: schema::REGRESS_FIXTURE.to_owned(),
            schema_version: schema::VERSION.to_owned(),
            name: name.to_owned(),
            run_id: manifest.run_id.clone(),
            runpack: "runpack.zip".to_owned(),
            expected_replay_exit_code: 0,
            candidate_runpack: None,
            diff_allow_changed_files: Vec::new(),
            expected_tool_sequence: None,
            expected_verdict_sequence: None,
            exec: None,
            context_conformance: None,
            allow_context_runtime_drift: None,
            expected_context_set_digest: None,
            session_chain: None,
            checkpoint_index: None,
        }
    }

    /// Reads a fixture.
    ///
    /// # Errors
    ///
    /// Fails if it is none, or its name or the path of its runpack could lead elsewhere.
    pub fn from_json(bytes: &[u8]) -> Result<Self, FixtureError> {
        let fixture: Self = document(bytes)?;
        check_schema(&fixture.schema_id, schema::REGRESS_FIXTURE)?;
        check_name(&fixture.name)?;
        check_relative(&fixture.runpack)?;
        Ok(fixture)
    }

    /// Returns the keys of later generations of the contract that are set and that nothing here checks.
    #[must_use]
    pub fn unchecked(&self) -> Vec<&'static str> {
        let later = [
            ("context_conformance", &self.context_conformance),
            ("allow_context_runtime_drift", &self.allow_context_runtime_drift),
            ("expected_context_set_digest", &self.expected_context_set_digest),
            ("session_chain", &self.session_chain),
            ("checkpoint_index", &self.checkpoint_index),
        ];
        later.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name).collect()
    }
}

fn document<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FixtureError> {
    let value = parse_strict(bytes, Limits { bytes: DOCUMENT_BYTES, ..Limits::DOCUMENT })?;
    if !value.is_object() {
        // serde would read an array as the fields in order.
        return Err(FixtureError::Shape(serde::de::Error::custom("not an object")));
    }
    serde_json::from_value(value).map_err(FixtureError::Shape)
}

fn check_schema(found: &str, wanted: &'static str) -> Result<(), FixtureError> {
    if found == wanted { Ok(()) } else { Err(FixtureError::Schema { found: found.to_owned(), wanted }) }
}

fn check_name(name: &str) -> Result<(), FixtureError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = name.as_bytes().first().is_some_and(|&first| plain(first))
        && name.len() <= NAME_BYTES
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'));
    if good { Ok(()) } else { Err(FixtureError::Name(name.to_owned())) }
}

/// Checks that a path stays below where it is taken from.
///
/// # Errors
///
/// Fails if it is absolute, empty or has `..` in it.
pub fn check_relative(path: &str) -> Result<(), FixtureError> {
    let inside = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if !path.is_empty() && !path.contains(['\\', '\0']) && Path::new(path).components().all(inside) {
        Ok(())
    } else {
        Err(FixtureError::Path(path.to_owned()))
    }
}

/// Makes the name of a fixture of what was given, by the contract's rule.
///
/// # Errors
///
/// Fails if the result could not be a directory.
pub fn fixture_name(text: &str) -> Result<String, FixtureError> {
    let mut name = String::new();
    for c in text.trim().to_lowercase().chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-') {
            name.push(c);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_matches(['-', '.', '_']);
    let name = if name.is_empty() { FALLBACK_NAME } else { name };
    check_name(name)?;
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_by_the_contracts_rule() {
        for (text, name) in [
            ("run_Demo", "run_demo"),
            ("  My Incident #42! ", "my-incident-42"),
            ("../../etc/passwd", "etc-passwd"),
            ("..", "fixture"),
            ("", "fixture"),
            ("ÄÖ", "fixture"),
            ("-_.x._-", "x"),
        ] {
            assert_eq!(fixture_name(text).unwrap(), name, "{text}");
        }
        assert!(fixture_name(&"x".repeat(200)).is_err());
    }

    #[test]
    fn a_configuration_cannot_lead_elsewhere() {
        let config = |name: &str, runpack: &str| {
            let mut config = Config::default();
            let (name, runpack) = (name.to_owned(), runpack.to_owned());
            config.put(ConfigEntry { name, run_id: "run_x".into(), runpack });
            Config::from_json(&serde_json::to_vec(&config).unwrap())
        };
        assert!(config("a", "fixtures/a/runpack.zip").is_ok());
        for (name, runpack) in [
            ("..", "fixtures/a/runpack.zip"),
            ("a/b", "x"),
            (".hidden", "x"),
            ("a", "../x"),
            ("a", "/x"),
            ("a", "fixtures/../../x"),
            ("a", ""),
            ("a", "a\\b"),
        ] {
            assert!(config(name, runpack).is_err(), "{name} {runpack}");
        }
    }

    #[test]
    fn misspelt_keys_and_doubled_ones_are_no_fixture() {
        let good = r#"{"schema_id":"gait.regress.fixture","schema_version":"1.0.0","name":"a","run_id":"run_a",
            "runpack":"runpack.zip","expected_replay_exit_code":0,"context_conformance":"none"}"#;
        assert_eq!(Fixture::from_json(good.as_bytes()).unwrap().unchecked(), ["context_conformance"]);
        for (from, to) in [
            ("run_id", "runid"),
            ("gait.regress.fixture", "gait.regress.config"),
            ("\"name\":\"a\"", "\"name\":\"a\",\"name\":\"b\""),
            ("runpack.zip", "../runpack.zip"),
        ] {
            assert!(Fixture::from_json(good.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
        assert!(Fixture::from_json(b"[]").is_err());
    }

    #[test]
    fn a_fixture_of_a_name_is_there_once() {
        let mut config = Config::default();
        for (name, run_id) in [("b", "run_1"), ("a", "run_2"), ("b", "run_3")] {
            config.put(ConfigEntry { name: name.into(), run_id: run_id.into(), runpack: "x".into() });
        }
        let runs: Vec<_> = config.fixtures.iter().map(|entry| entry.run_id.as_str()).collect();
        assert_eq!(runs, ["run_2", "run_3"]);
        let twice =
            Config { fixtures: vec![config.fixtures[0].clone(), config.fixtures[0].clone()], ..config };
        assert!(matches!(
            Config::from_json(&serde_json::to_vec(&twice).unwrap()),
            Err(FixtureError::Twice(_))
        ));
    }
}
