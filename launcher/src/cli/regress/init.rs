//! `gait regress init` and `add`: a run becomes a fixture.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use gait_agent::policy::is_shipped;
use gait_agent::regress::{
    ExecFixture, ExpectedDecision, Fixture, Judgement, RecordedError, Session, fixture_name, unescaped,
};
use gait_agent::runpack::{ReadError, Runpack};
use gait_agent::sign::Digest;
use serde::Serialize;

use super::suite::Suite;
use super::{FixtureArgs, RegressInit, replay};
use crate::cli::{Answer, CliError};
use crate::policy_source::load_policy;
use crate::run_id::find_runpack;

/// Which of the two names was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Init,
    Add,
}

/// What was made.
#[derive(Debug, Serialize)]
pub(super) struct Made {
    pub(super) run_id: String,
    pub(super) fixture_name: String,
    pub(super) fixture_dir: String,
    pub(super) runpack_path: String,
    pub(super) config_path: String,
    pub(super) next_commands: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    #[serde(skip)]
    pub(super) warnings: Vec<String>,
}

/// Makes a fixture.
///
/// # Errors
///
/// See [`make`].
pub(super) fn init(args: &RegressInit, verb: Verb) -> Result<Answer, CliError> {
    let mut made = make(&args.fixture, &args.config)?;
    let name = match verb {
        Verb::Init => "init",
        Verb::Add => "add",
    };
    made.source = (verb == Verb::Add).then_some("run");
    let text = format!(
        "regress {name} ok: fixture={} dir={}\nnext: {}",
        made.fixture_name,
        made.fixture_dir,
        made.next_commands.join("\nnext: ")
    );
    let warnings = std::mem::take(&mut made.warnings);
    Ok(Answer::ok(&made, text)?.warn(warnings))
}

/// Copies the runpack, checks the copy, and names it in the suite.
///
/// # Errors
///
/// A run that is not there or does not hold, a name that is none, a command that is another, files that cannot be written.
pub(super) fn make(args: &FixtureArgs, config: &Path) -> Result<Made, CliError> {
    let source = find_runpack(&args.from)?;
    let mut suite = Suite::open_or_begin(config)?;
    let named = args.name.as_deref().map(name_of).transpose()?;
    // Before anything is written: a file that is no runpack has no run id.
    let run_id = replay::holding(&source)?.report.run_id;
    let name = named.map_or_else(|| name_of(&run_id), Ok)?;
    let staged = suite.stage(&name)?;
    let runpack_path = staged.copy_runpack(&source)?;
    // What counts is the copy.
    let verified = replay::holding(&runpack_path)?;
    let unreadable =
        |error: ReadError| CliError::input(format!("read runpack {}", source.display())).because(error);
    let mut runpack = Runpack::open(&runpack_path).map_err(unreadable)?;
    let manifest = runpack.manifest().map_err(unreadable)?;
    let mut fixture = Fixture::new(&name, &manifest);
    let mut warnings = Vec::new();
    if verified.report.exec.is_some() {
        fixture.exec = exec(args, &suite, &mut runpack, &source, &mut warnings)?;
    } else if !args.command.is_empty() || args.expect_policy.is_some() {
        let message =
            format!("{} is not the run of a command: it was not made by gait exec", source.display());
        return Err(CliError::input(message).hint("leave out CMD and --expect-policy"));
    }
    staged.commit(&fixture, &mut suite)?;
    let directory = suite.fixture_directory(&name);
    let config = suite.path.display().to_string();
    let flag = if config == super::suite::CONFIG { String::new() } else { format!(" --config {config}") };
    Ok(Made {
        run_id: fixture.run_id,
        fixture_name: name,
        runpack_path: directory.join(super::suite::RUNPACK).display().to_string(),
        fixture_dir: directory.display().to_string(),
        config_path: config,
        next_commands: vec![format!("gait regress run{flag} --json")],
        source: None,
        warnings,
    })
}

fn name_of(text: &str) -> Result<String, CliError> {
    fixture_name(text).map_err(|error| CliError::input("--name").because(error))
}

/// Finds out what a session is held against.
fn exec(
    args: &FixtureArgs,
    suite: &Suite,
    runpack: &mut Runpack,
    source: &Path,
    warnings: &mut Vec<String>,
) -> Result<Option<ExecFixture>, CliError> {
    let session = match Session::read(runpack) {
        Ok(session) => session,
        Err(RecordedError::NoCircumstances) if args.command.is_empty() && args.expect_policy.is_none() => {
            warnings.push("the run is of an earlier gait; its decisions will not be judged again".to_owned());
            return Ok(None);
        }
        Err(error) => return Err(replay::unreplayable(source, error)),
    };
    let about = &session.circumstances;
    let root = suite.root.canonicalize().unwrap_or_else(|_not_there_yet| suite.root.clone());
    let recorded = path_of(&about.directory).join(&about.policy);
    let mut exec = ExecFixture {
        policy: policy_of(&root, &about.policy, &recorded)?,
        policy_digest: session.policy_digest,
        workspace: relative(&root, &path_of(&about.workspace)),
        command: command(args, &session)?,
        ..ExecFixture::default()
    };
    if let Some(expected) = &args.expect_policy {
        let path = std::path::absolute(expected)
            .map_err(|error| CliError::input("--expect-policy").because(error))?;
        exec.policy = policy_of(&root, expected, &path)?;
        expect(expected, &session, runpack, &mut exec, warnings).map_err(|error| match error {
            Expect::Cli(error) => error,
            Expect::Recorded(error) => replay::unreplayable(source, error),
        })?;
    }
    Ok(Some(exec))
}

enum Expect {
    Cli(CliError),
    Recorded(RecordedError),
}

/// Notes the decisions that a policy makes otherwise than they were made.
fn expect(
    name: &str,
    session: &Session,
    runpack: &mut Runpack,
    exec: &mut ExecFixture,
    warnings: &mut Vec<String>,
) -> Result<(), Expect> {
    let policy = load_policy(name).map_err(|error| Expect::Cli(error.into()))?;
    let was = replay::was(session, None).map_err(Expect::Cli)?;
    let judge = replay::judge(&policy, was.as_ref(), session, None).map_err(Expect::Cli)?;
    let mut open = 0_u64;
    let replayed = judge.replay(session, runpack, |recorded, judgement| match judgement {
        Judgement::Same => {}
        Judgement::Open(_) => open += 1,
        Judgement::Changed { now, .. } => exec.expected.push(ExpectedDecision {
            intent_id: recorded.intent_id(),
            about: format!("{} {} {}", recorded.class(), recorded.operation.as_str(), recorded.value),
            recorded: recorded.verdict,
            verdict: now,
        }),
    });
    replayed.map_err(Expect::Recorded)?;
    exec.policy_digest = Some(policy.digest());
    if open > 0 {
        warnings.push(format!(
            "{open} decisions depend on arguments that were not kept; the recorded verdicts stay expected \
             (`gait exec --capture raw` keeps arguments)"
        ));
    }
    Ok(())
}

/// Returns how a fixture names a policy: relative to the suite where it can, so that both move together.
fn policy_of(root: &Path, name: &str, path: &Path) -> Result<String, CliError> {
    if is_shipped(name) {
        return Ok(name.to_owned());
    }
    // What is no longer there is named nevertheless: the grading says so.
    let path = path.canonicalize().unwrap_or_else(|_gone| path.to_owned());
    let path = path.strip_prefix(root).map(Path::to_owned).unwrap_or(path);
    let shown = path.display().to_string();
    path.into_os_string()
        .into_string()
        .map_err(|_path| CliError::input(format!("the policy {shown} is not UTF-8")))
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    let rest = path.strip_prefix(root).ok()?.to_str()?;
    Some(if rest.is_empty() { ".".to_owned() } else { rest.to_owned() })
}

/// Reads the text form of a path.
fn path_of(text: &str) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescaped(text)))
}

/// Returns the command for `--live`: the one that is given, else the recorded one. Either must be the one that ran.
fn command(args: &FixtureArgs, session: &Session) -> Result<Option<Vec<String>>, CliError> {
    let is_it = |words: &mut dyn Iterator<Item = &[u8]>| {
        let mut joined = Vec::new();
        for word in words {
            joined.extend_from_slice(word);
            joined.push(0);
        }
        session.command_digest == Some(Digest::sha256(&joined))
    };
    if args.command.is_empty() {
        let recorded = session.circumstances.command.clone();
        // One that is not UTF-8 stands there in a form that cannot be run.
        return Ok(recorded.filter(|words| is_it(&mut words.iter().map(String::as_bytes))));
    }
    if !is_it(&mut args.command.iter().map(|word| word.as_bytes())) {
        return Err(CliError::input("this is not the command of the run: its digest is another")
            .hint("give exactly what stood after -- of `gait exec`"));
    }
    let words = args.command.iter().map(|word| word.to_str().map(str::to_owned)).collect::<Option<_>>();
    words.map(Some).ok_or_else(|| CliError::input("the command is not UTF-8"))
}
