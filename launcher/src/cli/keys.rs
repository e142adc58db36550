//! `gait keys init`.

use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;

use super::args::KeysInit;
use super::{Answer, CliError, ErrorCode};
use crate::atomic_file::{Existing, Staged};
use crate::keyring::new_key;

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
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if args.prefix.is_empty() || args.prefix.starts_with('.') || !args.prefix.chars().all(plain) {
        return Err(CliError::input(format!("--prefix {:?} is not a plain file name", args.prefix))
            .hint("use letters, digits, '.', '_' and '-'"));
    }
    let private = args.out_dir.join(format!("{}_private.key", args.prefix));
    let public = args.out_dir.join(format!("{}_public.key", args.prefix));
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
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
        prefix: &args.prefix,
        key_id: key.key_id().to_string(),
        private_key_path: private.display().to_string(),
        public_key_path: public.display().to_string(),
    };
    let text = format!(
        "keys init ok: prefix={} key_id={}\nprivate_key={}\npublic_key={}",
        report.prefix, report.key_id, report.private_key_path, report.public_key_path
    );
    Answer::ok(&report, text)
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
