//! The grader `live`: the recorded command runs again under `gait exec`, and what it reaches is compared with what was
//! recorded, after normalisation.
//!
//! The command runs as a session of its own, in a process of its own, exactly as a person would start it.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gait_agent::regress::{Behaviour, Difference, ExecFixture, Fixture, Ignored, Judge, Session};
use gait_agent::runpack::Runpack;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::grade::{Graded, SHOWN};
use super::replay;
use super::suite::Suite;
use crate::cli::output::one_line;
use crate::cli::{CliError, ErrorCode};
use crate::run_id;

/// How often a running command is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long a command that is told to end may take.
const GRACE: Duration = Duration::from_secs(5);
/// How many differences stand in the result.
const LISTED: usize = 200;

/// How commands run again.
#[derive(Debug)]
pub(super) struct LiveOptions<'a> {
    pub(super) workspace: Option<&'a Path>,
    pub(super) out_dir: &'a Path,
    pub(super) timeout: Duration,
}

/// Runs the command of a fixture and compares.
///
/// # Errors
///
/// The command is not known, its workspace is not there, or `gait exec` could not run it.
#[expect(clippy::too_many_arguments, reason = "what a fixture, its session and the call each bring")]
pub(super) fn live(
    suite: &Suite,
    fixture: &Fixture,
    exec: &ExecFixture,
    policy: &str,
    judge: &Judge,
    (session, runpack): (&Session, &mut Runpack),
    options: &LiveOptions<'_>,
    graded: &mut Graded,
) -> Result<(), CliError> {
    let command = exec.command.as_deref().ok_or_else(|| {
        CliError::input(format!("fixture {}: the command of the run is not known", fixture.name)).hint(
            format!(
                "give it once: gait regress init --from {} --name {} -- CMD (or record with --capture raw)",
                fixture.run_id, fixture.name
            ),
        )
    })?;
    let ignored = Ignored::parse(&exec.live_ignore).map_err(|(pattern, why)| {
        let error = CliError::input(format!("fixture {}: live_ignore {pattern:?}", fixture.name));
        let error = error.hint("write a class and a target, such as `fs.* ${workspace}/.cache/**`");
        match why {
            Some(why) => error.because(why),
            None => error,
        }
    })?;
    let mut then = Behaviour::default();
    let read = session.decisions(runpack, |recorded| {
        let verdict = judge.held(&recorded);
        then.add(session, &recorded, verdict);
    });
    let fixture_pack = suite.fixture_directory(&fixture.name).join(&fixture.runpack);
    read.map_err(|error| replay::unreplayable(&fixture_pack, error))?;
    let run = run(suite, fixture, exec, policy, session, command, options)?;
    let (now_session, mut now_pack) = replay::session(&run.runpack)?;
    let mut now = Behaviour::default();
    let read = now_session.decisions(&mut now_pack, |recorded| {
        let verdict = recorded.verdict;
        now.add(&now_session, &recorded, verdict);
    });
    read.map_err(|error| replay::unreplayable(&run.runpack, error))?;
    report(fixture, session, &now_session, &run, then.differences(&now, &ignored), then.len(), graded);
    Ok(())
}

/// A finished live run.
struct Run {
    runpack: PathBuf,
    timed_out: bool,
}

fn run(
    suite: &Suite,
    fixture: &Fixture,
    exec: &ExecFixture,
    policy: &str,
    session: &Session,
    command: &[String],
    options: &LiveOptions<'_>,
) -> Result<Run, CliError> {
    let (workspace, directory) = places(suite, fixture, exec, session, options)?;
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| CliError::input(path.display().to_string()).because(error))
    };
    let out_dir = absolute(options.out_dir)?;
    // A file is named from here, the command starts elsewhere.
    let policy =
        if Path::new(policy).exists() { absolute(Path::new(policy))? } else { PathBuf::from(policy) };
    let run_id = run_id::generate().map_err(|error| CliError::io("make a run id").because(error))?;
    let failed = |error| CliError::new(ErrorCode::ExecFailed, "start gait exec").because(error);
    let own = std::env::current_exe().map_err(failed)?;
    // The workload's output is talk here: stdout is for the answer.
    let output = std::io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut child = Command::new(own)
        .args(["exec", "--run-id", &run_id, "--identity", &session.circumstances.identity])
        .arg("--policy")
        .arg(policy)
        .arg("--workspace")
        .arg(&workspace)
        .arg("--out-dir")
        .arg(&out_dir)
        .arg("--")
        .args(command)
        .current_dir(&directory)
        .stdin(Stdio::null())
        .stdout(Stdio::from(output))
        .spawn()
        .map_err(failed)?;
    let (status, timed_out) = wait(&mut child, options.timeout).map_err(failed)?;
    let runpack = run_id::runpack_path(&out_dir, &run_id);
    if !runpack.exists() {
        return Err(no_run(fixture, status));
    }
    replay::holding(&runpack)?;
    Ok(Run { runpack, timed_out })
}

/// Returns workspace and working directory of the live run.
fn places(
    suite: &Suite,
    fixture: &Fixture,
    exec: &ExecFixture,
    session: &Session,
    options: &LiveOptions<'_>,
) -> Result<(PathBuf, PathBuf), CliError> {
    let recorded = PathBuf::from(&session.circumstances.workspace);
    let wanted = match (options.workspace, &exec.workspace) {
        (Some(given), _) => given.to_owned(),
        (None, Some(relative)) => suite.root.join(relative),
        (None, None) => recorded.clone(),
    };
    let workspace = wanted.canonicalize().map_err(|error| {
        CliError::input(format!("fixture {}: the workspace {} is not there", fixture.name, wanted.display()))
            .because(error)
            .hint("name another with --workspace")
    })?;
    let directory = Path::new(&session.circumstances.directory);
    let directory = match directory.strip_prefix(&recorded) {
        Ok(below) => workspace.join(below),
        Err(_elsewhere) => directory.to_owned(),
    };
    Ok((workspace, directory))
}

fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<(ExitStatus, bool)> {
    let end = Instant::now() + timeout;
    let mut told = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, told.is_some()));
        }
        let now = Instant::now();
        match told {
            None if now >= end => {
                // gait hands it on to the workload and seals what there is.
                let pid = i32::try_from(child.id()).map_err(std::io::Error::other)?;
                let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM).is_err();
                told = Some(now);
            }
            Some(at) if now >= at + GRACE => {
                // With its guard gone the whole tree ends.
                child.kill()?;
                return Ok((child.wait()?, true));
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}

/// Makes the error of a session that left no runpack: gait itself could not run it.
fn no_run(fixture: &Fixture, status: ExitStatus) -> CliError {
    let code = match status.code() {
        Some(6) => ErrorCode::InvalidInput,
        Some(7) => ErrorCode::DependencyMissing,
        Some(126) => ErrorCode::NotExecutable,
        Some(127) => ErrorCode::CommandNotFound,
        _ => ErrorCode::ExecFailed,
    };
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    };
    CliError::new(code, format!("fixture {}: gait exec did not run the command ({how})", fixture.name))
        .hint("its own message stands above")
}

fn report(
    fixture: &Fixture,
    then: &Session,
    now: &Session,
    run: &Run,
    differences: Vec<Difference>,
    endpoints: usize,
    graded: &mut Graded,
) {
    let mut reasons: BTreeSet<&str> = differences.iter().map(Difference::reason).collect();
    let mut order: Vec<String> = Vec::new();
    if run.timed_out {
        order.push("live_timeout".to_owned());
    }
    for reason in ["new_endpoint", "changed_verdict", "vanished_endpoint"] {
        order.extend(reasons.take(reason).map(str::to_owned));
    }
    let ending = |session: &Session| session.ending.clone().unwrap_or_else(|| "unfinished".to_owned());
    if !order.is_empty() {
        let lines = differences.iter().take(SHOWN).map(line).collect();
        let ended = if ending(then) == ending(now) {
            String::new()
        } else {
            format!("; it ended with {} instead of {}", ending(now), ending(then))
        };
        let late = if run.timed_out { "; it took too long and was ended" } else { "" };
        let count = differences.len();
        let head = format!(
            "{}: the live run differs in {count} of {endpoints} endpoints{late}{ended}",
            fixture.name
        );
        graded.show(head, lines, count);
    }
    let listed: Vec<Value> = differences
        .iter()
        .take(LISTED)
        .map(|one| {
            let (was, is) = one.verdicts();
            let endpoint = one.endpoint();
            json!({
                "reason": one.reason(),
                "endpoint_class": endpoint.class,
                "target": endpoint.target,
                "recorded": was,
                "live": is,
            })
        })
        .collect();
    let details = json!({
        "live_run_id": now.run_id,
        "live_runpack": run.runpack.display().to_string(),
        "endpoints": endpoints,
        "differences_total": differences.len(),
        "differences": listed,
        "recorded_ending": ending(then),
        "live_ending": ending(now),
    });
    graded.add_live(fixture, order, details);
}

fn line(difference: &Difference) -> String {
    let (was, is) = difference.verdicts();
    let endpoint = difference.endpoint();
    let (class, target) = (endpoint.class, one_line(&endpoint.target));
    match difference {
        Difference::New(..) => format!("  new       {class} {target}  {is}"),
        Difference::Vanished(..) => format!("  vanished  {class} {target}  {was}"),
        Difference::Verdict(..) => format!("  changed   {class} {target}  {was} -> {is}"),
    }
}
