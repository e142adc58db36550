//! `regress_result.json`: what every grader of every fixture said (contract section 19.3).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::junit::{Case, Suite};
use crate::schema;
use crate::timestamp::Timestamp;

/// Whether it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It does.
    Pass,
    /// It does not.
    Fail,
}

impl Status {
    /// Returns the spelling in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
        }
    }
}

/// What one grader said of one fixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grader {
    /// `<fixture>/<grader>`.
    pub name: String,
    /// The answer.
    pub status: Status,
    /// Why not, in the order of importance.
    pub reason_codes: Vec<String>,
    /// The facts behind it.
    pub details: Map<String, Value>,
}

impl Grader {
    /// Makes the answer: without reasons it passes.
    #[must_use]
    pub fn new(fixture: &str, grader: &str, reason_codes: Vec<String>, details: Map<String, Value>) -> Self {
        let status = if reason_codes.is_empty() { Status::Pass } else { Status::Fail };
        Self { name: format!("{fixture}/{grader}"), status, reason_codes, details }
    }
}

/// `regress_result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields common to all documents")]
pub struct RegressResult {
    pub schema_id: String,
    pub schema_version: String,
    /// The time of the first fixture's run, so that equal input gives equal bytes.
    pub created_at: Timestamp,
    pub producer_version: String,
    /// The set.
    pub fixture_set: String,
    /// Whether all graders passed.
    pub status: Status,
    /// The graders, by name.
    pub graders: Vec<Grader>,
}

impl RegressResult {
    /// Adds up the answers of the graders.
    #[must_use]
    pub fn new(created_at: Timestamp, fixture_set: &str, mut graders: Vec<Grader>) -> Self {
        graders.sort_by(|a, b| a.name.cmp(&b.name));
        let passes = graders.iter().all(|grader| grader.status == Status::Pass);
        Self {
            schema_id: schema::REGRESS_RESULT.to_owned(),
            schema_version: schema::VERSION.to_owned(),
            created_at,
            producer_version: schema::PRODUCER_VERSION.to_owned(),
            fixture_set: fixture_set.to_owned(),
            status: if passes { Status::Pass } else { Status::Fail },
            graders,
        }
    }

    /// Returns the number of graders that failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.graders.iter().filter(|grader| grader.status == Status::Fail).count()
    }

    /// Returns the first reason of the first grader that failed.
    #[must_use]
    pub fn top_failure_reason(&self) -> Option<&str> {
        let first = self.graders.iter().find(|grader| grader.status == Status::Fail)?;
        first.reason_codes.first().map(String::as_str)
    }

    /// Returns the result as a suite of test cases: one per grader, of the class of its fixture.
    #[must_use]
    pub fn suite(&self) -> Suite {
        let case = |grader: &Grader| {
            let (fixture, name) = grader.name.split_once('/').unwrap_or(("", &grader.name));
            Case {
                name: name.to_owned(),
                classname: fixture.to_owned(),
                failure: (grader.status == Status::Fail).then(|| grader.reason_codes.join(",")),
                more: String::new(),
            }
        };
        Suite {
            name: format!("gait.regress.{}", self.fixture_set),
            cases: self.graders.iter().map(case).collect(),
        }
    }
}
