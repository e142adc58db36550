//! Where a policy comes from, and what it is bound to: a shipped name or a file, the facts of a session, the values of
//! its variables.
//!
//! Called by every verb that takes a policy.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use gait_agent::intent::{SessionFacts, path_text};
pub use gait_agent::policy::DEFAULT as DEFAULT_POLICY;
use gait_agent::policy::{CompileError, CompiledPolicy, Policy, PolicyErrors, SHIPPED, Vars};
use nix::unistd::{Uid, User, getuid};

/// A home that does not exist, for users without one: patterns below it match nothing.
const NO_HOME: &str = "/nonexistent";

/// A policy cannot be had, or not for this session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicySourceError {
    /// The policy has mistakes; all of them.
    #[error("policy {name} is not valid")]
    Policy {
        /// The policy.
        name: String,
        /// Its mistakes.
        #[source]
        errors: PolicyErrors,
    },
    /// The policy does not fit the session.
    #[error("policy {name} cannot be used here")]
    Compile {
        /// The policy.
        name: String,
        /// Why.
        #[source]
        source: CompileError,
    },
    /// The workspace is not a directory that can be resolved.
    #[error("workspace {}", path.display())]
    Workspace {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The identity is blank.
    #[error("the identity is blank")]
    Identity,
}

/// Loads a policy: a shipped one by its name, else a file.
///
/// # Errors
///
/// Fails with every mistake of the policy and of those it extends.
pub fn load_policy(name: &str) -> Result<Policy, PolicySourceError> {
    Policy::load(name).map_err(|errors| PolicySourceError::Policy { name: name.to_owned(), errors })
}

/// Compiles a policy for a session.
///
/// # Errors
///
/// Fails if a pattern does not fit the session, or a rule asks for what held calls cannot have.
pub fn compile(
    policy: &Policy,
    facts: &SessionFacts,
    vars: &Vars,
) -> Result<CompiledPolicy, PolicySourceError> {
    CompiledPolicy::compile(policy, facts, vars)
        .map_err(|source| PolicySourceError::Compile { name: policy.name().to_owned(), source })
}

/// Returns the shipped policies, each with its text.
#[must_use]
pub const fn shipped_policies() -> &'static [(&'static str, &'static str)] {
    &SHIPPED
}

/// Returns the facts of a session in a workspace, for an identity or else the user.
///
/// # Errors
///
/// Fails if the workspace is not a directory, or the identity blank.
pub fn session_facts(
    workspace: &Path,
    identity: Option<&str>,
    run_id: &str,
) -> Result<SessionFacts, PolicySourceError> {
    let failed = |source| PolicySourceError::Workspace { path: workspace.to_owned(), source };
    let resolved = workspace.canonicalize().map_err(failed)?;
    if !resolved.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let identity = match identity.map(str::trim) {
        Some("") => return Err(PolicySourceError::Identity),
        Some(identity) => identity.to_owned(),
        None => format!("uid:{}", getuid()),
    };
    Ok(SessionFacts { identity, workspace: text_of(&resolved), run_id: run_id.to_owned() })
}

/// Returns the values of a session's variables; `protect` are the paths that no workload may change.
#[must_use]
pub fn vars(protect: &[PathBuf]) -> Vars {
    let uid = getuid();
    Vars {
        home: text_of(&resolve(&home(uid))),
        tmp: text_of(&resolve(&absolute("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp")))),
        run_dir: text_of(&resolve(
            &absolute("XDG_RUNTIME_DIR").unwrap_or_else(|| PathBuf::from(format!("/run/user/{uid}"))),
        )),
        uid: uid.as_raw(),
        protect: protect.iter().map(|path| text_of(&resolve(path))).collect(),
    }
}

fn absolute(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn home(uid: Uid) -> PathBuf {
    absolute("HOME")
        .or_else(|| User::from_uid(uid).ok().flatten().map(|user| user.dir))
        .filter(|home| home.is_absolute())
        .unwrap_or_else(|| PathBuf::from(NO_HOME))
}

/// Patterns are held against resolved paths, so their fixed parts must be resolved, too.
fn resolve(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn text_of(path: &Path) -> String {
    path_text(path.as_os_str().as_encoded_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_resolved_and_never_blank() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        let facts = session_facts(&root.join("link"), None, "run_a").unwrap();
        assert_eq!(facts.workspace, root.join("real").to_str().unwrap());
        assert_eq!(facts.identity, format!("uid:{}", getuid()));
        assert!(session_facts(&root.join("file"), None, "run_a").is_err());
        assert!(session_facts(&root.join("nothing"), None, "run_a").is_err());
        assert!(session_facts(&root, Some(" "), "run_a").is_err());
    }

    #[test]
    fn the_default_policy_is_shipped() {
        assert!(shipped_policies().iter().any(|(name, _)| *name == DEFAULT_POLICY));
    }
}
