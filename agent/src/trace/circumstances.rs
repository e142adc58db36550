//! What a session's policy was bound to and how its command was started: enough to judge its actions again, or to run
//! the command again, on another machine.

use serde::{Deserialize, Serialize};

/// The circumstances of a session. Paths are resolved, in the text form of [`crate::intent::path_text`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circumstances {
    /// The command and its arguments; in raw capture only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// The directory that it was started in.
    pub directory: String,
    /// `${home}`.
    pub home: String,
    /// Whom the workload acted for.
    pub identity: String,
    /// The policy as it was named: a file, or a shipped policy.
    pub policy: String,
    /// What the workload was not to change.
    pub protect: Vec<String>,
    /// `${run_dir}`.
    pub run_dir: String,
    /// `${tmp}`.
    pub tmp: String,
    /// `${uid}`; a decimal string, as all integers of evidence.
    pub uid: String,
    /// `${workspace}`.
    pub workspace: String,
}
