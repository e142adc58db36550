//! Policies for recorded sessions: which one a session had, whether it can still be had, and which one is asked now.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use gait_agent::policy::{Policy, is_shipped};
use gait_agent::regress::{ExecFixture, Judge, RecordedError, Session, unescaped};
use gait_agent::runpack::Runpack;

use crate::cli::verify::{self, Verified};
use crate::cli::{CliError, ErrorCode};
use crate::policy_source::load_policy;

/// Reads the session of a runpack that holds.
///
/// # Errors
///
/// The runpack is not that of a session, or is of an earlier gait.
pub(in crate::cli) fn session(path: &Path) -> Result<(Session, Runpack), CliError> {
    let failed = |error: RecordedError| unreplayable(path, error);
    let mut runpack = Runpack::open(path).map_err(|error| failed(error.into()))?;
    let session = Session::read(&mut runpack).map_err(failed)?;
    Ok((session, runpack))
}

/// Makes the error of a runpack whose actions cannot be judged again.
pub(in crate::cli) fn unreplayable(path: &Path, error: RecordedError) -> CliError {
    let hint = match &error {
        RecordedError::NotASession => {
            "runpacks of `gait run record` hold no actions that a policy could judge"
        }
        RecordedError::NoCircumstances => "record the run again with this version of gait",
        _ => "check it with `gait verify`",
    };
    CliError::input(format!("{} cannot be judged again", path.display())).because(error).hint(hint)
}

/// Verifies a runpack that is named by its path.
///
/// # Errors
///
/// It is not there, is something else, or does not hold.
pub(super) fn holding(path: &Path) -> Result<Verified, CliError> {
    let absolute = std::path::absolute(path)
        .map_err(|error| CliError::input(format!("read runpack {}", path.display())).because(error))?;
    let name =
        absolute.to_str().ok_or_else(|| CliError::input(format!("{} is not UTF-8", path.display())))?;
    let mut verified = verify::check(name, None, false)?;
    path.clone_into(&mut verified.path);
    verified.failure().map_or(Ok(verified), Err)
}

/// Returns the policy that a session had, if it is still the same.
///
/// `base` is what the person says it was; else it is looked for where it was.
///
/// # Errors
///
/// The one that the person names is not valid.
pub(in crate::cli) fn was(session: &Session, base: Option<&str>) -> Result<Option<Policy>, CliError> {
    if let Some(base) = base {
        return Ok(Some(load_policy(base)?));
    }
    let about = &session.circumstances;
    let path = if is_shipped(&about.policy) {
        about.policy.clone()
    } else {
        let directory = PathBuf::from(std::ffi::OsString::from_vec(unescaped(&about.directory)));
        match directory.join(&about.policy).into_os_string().into_string() {
            Ok(path) => path,
            Err(_not_utf8) => return Ok(None),
        }
    };
    let policy = load_policy(&path).ok();
    Ok(policy.filter(|policy| session.policy_digest == Some(policy.digest())))
}

/// Loads the policy of a fixture, as it is now.
///
/// # Errors
///
/// It is not there or not valid.
pub(super) fn of_fixture(root: &Path, exec: &ExecFixture) -> Result<(String, Policy), CliError> {
    let name = policy_name(root, &exec.policy)?;
    let policy = load_policy(&name)
        .map_err(|error| CliError::from(error).hint("`gait regress run --policy POLICY` asks another one"))?;
    Ok((name, policy))
}

/// Returns how a fixture's policy is called from the working directory.
fn policy_name(root: &Path, policy: &str) -> Result<String, CliError> {
    if is_shipped(policy) {
        return Ok(policy.to_owned());
    }
    let path = root.join(policy).into_os_string().into_string();
    path.map_err(|path| CliError::input(format!("{} is not UTF-8", path.display())))
}

/// Binds a policy to a session.
///
/// # Errors
///
/// The policy asks for what `gait exec` cannot enforce.
pub(in crate::cli) fn judge(
    policy: &Policy,
    was: Option<&Policy>,
    session: &Session,
    exec: Option<&ExecFixture>,
) -> Result<Judge, CliError> {
    let (held_by, expected) = match exec {
        Some(exec) => {
            let numbers = exec.expected.iter().filter_map(|one| Some((one.number()?, one.verdict)));
            (exec.policy_digest, numbers.collect())
        }
        None => (session.policy_digest, BTreeMap::new()),
    };
    Judge::new(policy, was, session, held_by, expected)
        .map_err(|error| CliError::new(ErrorCode::DependencyMissing, error.to_string()))
}
