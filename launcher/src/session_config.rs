//! What every verb that judges needs before it can: the policy, bound to a session's variables.
//!
//! `gait exec` and `gait why` both come here, so that they cannot disagree.

use std::path::{Path, PathBuf};

use gait_agent::action::Action;
use gait_agent::gate::Decision;
use gait_agent::intent::{SessionFacts, path_text};
use gait_agent::policy::{CompiledPolicy, Policy, ReadEvidence, RepeatEvidence, Vars};
use gait_agent::trace::Repeats;
use std::os::unix::ffi::OsStrExt;

use crate::backend::BackendKind;
use crate::cli::{CliError, ErrorCode};
use crate::keyring;
use crate::policy_source::load_policy;

/// The policy of a session that names none.
pub const DEFAULT_POLICY: &str = gait_agent::policy::DEFAULT;

/// Which policy, for which session.
#[derive(Debug)]
pub struct PolicyChoice<'a> {
    /// A file, or the name of a shipped policy.
    pub name: &'a str,
    /// The session.
    pub facts: &'a SessionFacts,
    /// Where its evidence goes: out of the workload's reach.
    pub out_dir: &'a Path,
}

/// Loads a policy and compiles it for a session.
///
/// # Errors
/// Everything that is wrong with the policy, at once; or what of it `gait exec` cannot enforce (exit 7).
pub fn load(choice: &PolicyChoice<'_>) -> Result<CompiledPolicy, CliError> {
    let policy = load_policy(choice.name)?;
    compile(&policy, choice.facts, &vars_of(choice))
}

/// Compiles a policy for a session whose variables are known.
///
/// # Errors
/// What of it `gait exec` cannot enforce (exit 7).
pub fn compile(policy: &Policy, facts: &SessionFacts, vars: &Vars) -> Result<CompiledPolicy, CliError> {
    CompiledPolicy::compile(policy, facts, vars)
        .map_err(|error| CliError::new(ErrorCode::DependencyMissing, error.to_string()))
}

/// Returns the variables of a session of this user.
#[must_use]
pub fn vars_of(choice: &PolicyChoice<'_>) -> Vars {
    let mut vars = vars();
    vars.protect.extend(protected(choice));
    vars
}

/// Refuses a policy that asks for what this version of gait does not have.
///
/// # Errors
/// Exit 7, with what is asked for.
pub fn check_enforceable(policy: &CompiledPolicy) -> Result<(), CliError> {
    let exec = policy.exec();
    let reads =
        "exec.evidence.reads other than exact, together with rules that stop reads inside an allowed tree";
    let asks = match BackendKind::asked(exec.backend) {
        Some(kind) if !kind.is_built() => Some(format!("exec.backend: {kind}")),
        // Where the floor cannot say what may be read, every read must be performed on the caller's behalf.
        _ if exec.reads != ReadEvidence::Exact && !policy.floor().reads_expressible() => {
            Some(reads.to_owned())
        }
        _ if exec.limits.processes.is_some() => Some("exec.limits.processes".to_owned()),
        _ => None,
    };
    match asks {
        None => Ok(()),
        Some(what) => Err(CliError::new(
            ErrorCode::DependencyMissing,
            format!("the policy asks for {what}, which this version of gait cannot enforce"),
        )
        .hint("remove it from the policy; `gait doctor` says what this host can do")),
    }
}

/// Decides about one action of a session: what is hidden never happens, the policy judges the rest.
#[must_use]
pub fn decide(policy: &CompiledPolicy, hidden: &[Vec<u8>], action: &Action<'_>) -> Decision {
    policy.decide_hiding(hidden, action)
}

/// Returns how repeated decisions are recorded.
#[must_use]
pub fn repeats(policy: &CompiledPolicy) -> Repeats {
    match policy.exec().repeat {
        RepeatEvidence::All => Repeats::All,
        RepeatEvidence::Distinct => Repeats::Counted,
    }
}

/// Returns a path as patterns and records have it: resolved as far as it exists, as text.
fn text(path: &Path) -> String {
    let resolved = resolve(path);
    path_text(resolved.as_os_str().as_bytes()).into_owned()
}

/// Resolves the part of a path that exists.
#[must_use]
pub fn resolve(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_unusable| path.to_owned());
    let mut missing = Vec::new();
    let mut at = path.as_path();
    loop {
        if let Ok(found) = at.canonicalize() {
            return missing.iter().rev().fold(found, |path, name| path.join(name));
        }
        match (at.parent(), at.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name);
                at = parent;
            }
            _ => return path,
        }
    }
}

/// Returns the variables of the user's session.
fn vars() -> Vars {
    let directory = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let uid = crate::sys::process::real_uid();
    let home = directory("HOME").or_else(home_of_user).unwrap_or_else(|| PathBuf::from("/nonexistent"));
    let run_dir = directory("XDG_RUNTIME_DIR").unwrap_or_else(|| PathBuf::from(format!("/run/user/{uid}")));
    Vars {
        home: text(&home),
        tmp: text(&directory("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp"))),
        run_dir: text(&run_dir),
        uid,
        protect: Vec::new(),
    }
}

fn home_of_user() -> Option<PathBuf> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok()??;
    Some(user.dir)
}

/// Returns what no workload may change: the policy's file, the keys, the evidence.
fn protected(choice: &PolicyChoice<'_>) -> Vec<String> {
    let mut paths = vec![text(choice.out_dir)];
    if Path::new(choice.name).exists() {
        paths.push(text(Path::new(choice.name)));
    }
    paths.extend(hidden().iter().map(|path| path_text(path).into_owned()));
    paths
}

/// Returns what no workload may even read: the directory of the signing key.
#[must_use]
pub fn hidden() -> Vec<Vec<u8>> {
    let keys = keyring::user_key_directory().ok().map(|path| resolve(&path));
    keys.into_iter().map(|path| path.into_os_string().into_encoded_bytes()).collect()
}
