//! `gait keys init`, `rotate` and `verify`.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::args::{KeysInit, VerifyKeyArgs};
use super::{Answer, CliError, ErrorCode};
use crate::atomic_file::{Existing, Staged};
use crate::keyring::{KeyMode, PrivateSource, VerifySource, new_key, signing_key};
use crate::run_id::compact_now;

/// Flags of `gait keys rotate`.
#[derive(Debug, Args)]
pub struct KeysRotate {
    /// Where the two files go.
    #[arg(long, value_name = "DIR", default_value = "gait-out/keys")]
    pub out_dir: PathBuf,
    /// How the names of the files begin; the time follows.
    #[arg(long, value_name = "NAME", default_value = "gait")]
    pub prefix: String,
}

/// Flags of `gait keys verify`.
#[derive(Debug, Args)]
pub struct KeysVerify {
    #[command(flatten)]
    pub key: VerifyKeyArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    prefix: &'a str,
    key_id: String,
    private_key_path: String,
    public_key_path: String,
}

/// Makes a key pair and writes its two files; neither appears if one of them cannot.
///
/// # Errors
///
/// A prefix that is no file name, files that exist already, a directory that cannot be written.
pub(super) fn init(args: &KeysInit) -> Result<Answer, CliError> {
    check_prefix(&args.prefix)?;
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    make_pair("init", &args.out_dir, &args.prefix, existing)
}

/// Makes a key pair with the time in its name. The pair before stays: what it signed is still to be verified.
///
/// # Errors
///
/// As [`init`].
pub(super) fn rotate(args: &KeysRotate) -> Result<Answer, CliError> {
    check_prefix(&args.prefix)?;
    let prefix = format!("{}_{}", args.prefix, compact_now());
    make_pair("rotate", &args.out_dir, &prefix, Existing::Keep)
}

fn check_prefix(prefix: &str) -> Result<(), CliError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if prefix.is_empty() || prefix.starts_with('.') || !prefix.chars().all(plain) {
        return Err(CliError::input(format!("--prefix {prefix:?} is not a plain file name"))
            .hint("use letters, digits, '.', '_' and '-'"));
    }
    Ok(())
}

fn make_pair(verb: &str, directory: &Path, prefix: &str, existing: Existing) -> Result<Answer, CliError> {
    let private = directory.join(format!("{prefix}_private.key"));
    let public = directory.join(format!("{prefix}_public.key"));
    if existing == Existing::Keep
        && let Some(taken) = [&private, &public].into_iter().find(|path| path.symlink_metadata().is_ok())
    {
        return Err(taken_error(taken));
    }
    let key = new_key()
        .map_err(|error| CliError::new(ErrorCode::InternalFailure, "make a random seed").because(error))?;
    let stage = |path: &Path, text: String| Staged::write(path, text.as_bytes()).map_err(|e| failed(path, e));
    let staged_private = stage(&private, key.to_file_text())?;
    let staged_public = stage(&public, key.verify_key().to_file_text())?;
    staged_private.commit(existing).map_err(|error| failed(&private, error))?;
    if let Err(error) = staged_public.commit(existing) {
        let removed = std::fs::remove_file(&private);
        let failure = failed(&public, error);
        return Err(if removed.is_ok() {
            failure
        } else {
            failure.hint(format!("remove {}", private.display()))
        });
    }
    let report = Report {
        prefix,
        key_id: key.key_id().to_string(),
        private_key_path: private.display().to_string(),
        public_key_path: public.display().to_string(),
    };
    let text = format!(
        "keys {verb} ok: prefix={} key_id={}\nprivate_key={}\npublic_key={}",
        report.prefix, report.key_id, report.private_key_path, report.public_key_path
    );
    Answer::ok(&report, text)
}

#[derive(Serialize)]
struct VerifyReport {
    key_id: String,
    private_key_source: String,
    public_key_source: String,
}

/// Checks that a private key is one, and that the public key, if one is named, is its other half.
///
/// # Errors
///
/// No private key, sources that hold no keys; two halves that do not belong together fail the verification.
pub(super) fn verify(args: KeysVerify) -> Result<Answer, CliError> {
    let VerifyKeyArgs { public_key, public_key_env, private_key, private_key_env } = args.key;
    if private_key.is_none() && private_key_env.is_none() {
        return Err(
            CliError::input("no private key is named").hint("give --private-key or --private-key-env")
        );
    }
    let label = |path: &Option<PathBuf>, env: &Option<String>| match (path, env) {
        (Some(path), _) => format!("path:{}", path.display()),
        (None, Some(name)) => format!("env:{name}"),
        (None, None) => "derived".to_owned(),
    };
    let private_key_source = label(&private_key, &private_key_env);
    let public_key_source = label(&public_key, &public_key_env);
    let warning = private_key.as_deref().and_then(exposed);
    let source = PrivateSource { path: private_key, env: private_key_env };
    let (private, _) = signing_key(KeyMode::Prod, &source, crate::keyring::DevKey::Ephemeral)?;
    let public =
        VerifySource { public_path: public_key, public_env: public_key_env, ..VerifySource::default() };
    let public = public.load()?;
    let key_id = private.key_id();
    if let Some(other) = public.filter(|public| *public != private.verify_key()) {
        let message = format!(
            "the keys do not belong together: {private_key_source} is {key_id}, {public_key_source} is {}",
            other.key_id()
        );
        return Err(CliError::new(ErrorCode::VerificationFailed, message)
            .hint("name the public key that was made with the private one"));
    }
    let report = VerifyReport { key_id: key_id.to_string(), private_key_source, public_key_source };
    let text = format!(
        "keys verify ok: key_id={key_id}\nprivate_key={}\npublic_key={}",
        report.private_key_source, report.public_key_source
    );
    Ok(Answer::ok(&report, text)?.warn(warning))
}

/// Says if others may read a private key.
fn exposed(path: &Path) -> Option<String> {
    let mode = path.metadata().ok()?.permissions().mode() & 0o7777;
    let shown = path.display();
    (mode & 0o077 != 0)
        .then(|| format!("private key {shown} can be read by others (mode {mode:04o}); chmod 600 it"))
}

fn taken_error(path: &Path) -> CliError {
    CliError::input(format!("{} exists already", path.display()))
        .hint("choose another --prefix, or replace it with --force")
}

fn failed(path: &Path, error: std::io::Error) -> CliError {
    if error.kind() == ErrorKind::AlreadyExists {
        return taken_error(path);
    }
    CliError::io(format!("write {}", path.display())).because(error)
}
