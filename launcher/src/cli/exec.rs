//! `gait exec -- CMD`: from the arguments to a running session, and its end in three lines.

use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use gait_agent::gate::Verdict;
use gait_agent::intent::{Capture, RAW_ARGV_BYTES, SessionFacts, path_text};
use gait_agent::policy::CompiledPolicy;
use gait_agent::sign::{Digest, SigningKey};
use gait_agent::trace::{Circumstances, Ending, RecorderOptions, Totals};
use serde_json::{Map, Value, json};

use super::{Answer, CliError, ErrorCode};
use crate::backend::choice::{self, Choice};
use crate::backend::ebpf::{Ebpf, Refused};
use crate::backend::seccomp::{Files, Seccomp, Workload};
use crate::backend::{BackendKind, StartError};
use crate::exec::command::{self, CommandError};
use crate::exec::environment;
use crate::exec::evidence::{EvidenceError, Identity, RunDirectory};
use crate::exec::session::{self, Outcome, Plan, SessionError};
use crate::exec::status::Step;
use crate::keyring::{self, DevKey, KeyMode, PrivateSource};
use crate::run_id;
use crate::session_config::{self, PolicyChoice};
use crate::sys::process::CStringArray;
use crate::sys::{Errno, signal};

/// Exit code of `--fail-on block` where something was blocked.
const BLOCKED: u8 = 3;
/// What a shell adds to the number of the signal that ended a program.
const SIGNAL_BASE: i32 = 128;

/// Flags of `gait exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// A policy file, or the name of a shipped policy.
    #[arg(long, value_name = "FILE|NAME", default_value = session_config::DEFAULT_POLICY)]
    pub policy: String,
    /// Stop nothing; record what would have been stopped.
    #[arg(long)]
    pub simulate: bool,
    /// How system calls are caught.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// The directory that `${workspace}` means; the working directory by default.
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// The id of the run: `run_` and letters, digits, `_`, `-`.
    #[arg(long, value_name = "ID")]
    pub run_id: Option<String>,
    /// Who acts; `uid:<n>` by default.
    #[arg(long, value_name = "X")]
    pub identity: Option<String>,
    /// Which key signs: `dev` the per-user one, `prod` the one that is named.
    #[arg(long, value_enum, default_value_t)]
    pub key_mode: KeyMode,
    /// A private key file, for `--key-mode prod`.
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// A variable that holds a private key, for `--key-mode prod`.
    #[arg(long, value_name = "VAR")]
    pub private_key_env: Option<String>,
    /// What of arguments is kept: a digest, or everything.
    #[arg(long, value_enum, default_value_t)]
    pub capture: CaptureMode,
    /// Exit with 3 if something was blocked.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub fail_on: Option<FailOn>,
    /// Start although this host enforces less than it could.
    #[arg(long)]
    pub allow_degraded: bool,
    /// A descriptor besides 0, 1 and 2 that the program inherits; may be repeated.
    #[arg(long, value_name = "N")]
    pub inherit_fd: Vec<RawFd>,
    /// Where the evidence goes.
    #[arg(long, value_name = "DIR", default_value = run_id::OUTPUT_DIRECTORY)]
    pub out_dir: PathBuf,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Backends of `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Backend {
    /// The best that this host has.
    #[default]
    Auto,
    /// The policy's rules in the kernel, by root or through a running `gait agent`.
    Ebpf,
    /// Held system calls, unprivileged.
    Seccomp,
}

impl Backend {
    const fn asked(self) -> Option<BackendKind> {
        match self {
            Self::Auto => None,
            Self::Ebpf => Some(BackendKind::Ebpf),
            Self::Seccomp => Some(BackendKind::Seccomp),
        }
    }
}

/// Captures of `--capture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum CaptureMode {
    /// Digests.
    #[default]
    Reference,
    /// Arguments as they are.
    Raw,
}

/// Conditions of `--fail-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// A blocked action.
    Block,
}

/// Runs the session.
///
/// # Errors
/// Bad input, a host that cannot enforce the policy, or a failure of gait itself; the program has not run then, or
/// nothing of it is left.
pub(super) fn exec(args: &Exec, json: bool) -> Result<Answer, CliError> {
    let run_id = match &args.run_id {
        Some(id) => run_id::check(id).map_err(|error| CliError::input("--run-id").because(error))?.to_owned(),
        None => run_id::generate().map_err(|error| CliError::io("make a run id").because(error))?,
    };
    let workspace = workspace(args.workspace.as_deref())?;
    let facts = SessionFacts {
        identity: args.identity.clone().unwrap_or_else(|| format!("uid:{}", crate::sys::process::real_uid())),
        workspace: path_text(workspace.as_os_str().as_bytes()).into_owned(),
        run_id: run_id.clone(),
    };
    let out_dir = absolute(&args.out_dir)?;
    let choice = PolicyChoice { name: &args.policy, facts: &facts, out_dir: &out_dir };
    let policy = session_config::load(&choice)?;
    let circumstances = circumstances(args, &choice)?;
    session_config::check_enforceable(&policy)?;
    outside_of_a_session()?;
    let key = || load_key(args);
    key()?;
    let workload = workload(args, &policy, &run_id)?;
    let identity = Identity {
        facts,
        policy_digest: policy.policy().digest(),
        program: workload.program.as_bytes().to_vec(),
        command_digest: command_digest(&args.command),
        circumstances,
        options: RecorderOptions {
            capture: match args.capture {
                CaptureMode::Reference => Capture::Reference,
                CaptureMode::Raw => Capture::Raw,
            },
            repeats: session_config::repeats(&policy),
            ..RecorderOptions::default()
        },
    };
    let (policy, hidden) = (Arc::new(policy), hidden(args));
    let choice = choose_backend(args, &policy, &hidden, &run_id)?;
    let used = (choice.kind(), choice.instead().map(|why| why.what.clone()));
    let run = RunDirectory::create(&out_dir, &run_id).map_err(evidence_error)?;
    let held =
        |files| Seccomp::new(workload, Arc::clone(&policy), hidden.clone(), args.simulate, files, json);
    let backend: Box<dyn crate::backend::Backend> = match choice {
        Choice::Seccomp(_) => Box::new(held(Files::Held)),
        Choice::Ebpf { kernel, rules } => {
            let (policy, hidden) = (Arc::clone(&policy), hidden.clone());
            Box::new(Ebpf::new(held(Files::Kernel), kernel, policy, hidden, args.simulate, *rules))
        }
    };
    let plan = Plan { backend, policy, hidden, identity, allow_degraded: args.allow_degraded, run };
    let outcome = session::run(plan, || key().map_err(|error| error.text())).map_err(session_error)?;
    answer(args, &run_id, outcome, used)
}

/// Chooses the backend. The command line decides where the policy leaves it open.
fn choose_backend(
    args: &Exec,
    policy: &CompiledPolicy,
    hidden: &[Vec<u8>],
    run_id: &str,
) -> Result<Choice, CliError> {
    let (here, there) = (args.backend.asked(), BackendKind::asked(policy.exec().backend));
    if let (Some(here), Some(there)) = (here, there)
        && here != there
    {
        let said =
            format!("the policy asks for exec.backend: {there}, the command line for --backend {here}");
        return Err(CliError::new(ErrorCode::DependencyMissing, said).hint("drop one of the two"));
    }
    choice::choose(here.or(there), policy, hidden, run_id).map_err(refused)
}

/// What a kernel that does not take the rules means for the command.
fn refused(why: Refused) -> CliError {
    let said = format!("the ebpf backend cannot be used: {}", why.what);
    CliError::new(ErrorCode::DependencyMissing, said).hint(why.remedy)
}

/// Resolves the workspace, by default the working directory.
///
/// # Errors
/// It is not a directory that can be resolved.
pub(super) fn workspace(given: Option<&Path>) -> Result<PathBuf, CliError> {
    let path = given.unwrap_or(Path::new("."));
    let resolved = path.canonicalize().map_err(|error| {
        CliError::input(format!("the workspace {} cannot be used", path.display())).because(error)
    })?;
    if resolved.is_dir() {
        Ok(resolved)
    } else {
        Err(CliError::input(format!("the workspace {} is not a directory", path.display())))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|error| CliError::input("--out-dir").because(error))
}

/// Refuses to start inside a session: only one listener fits a task tree, and the keys are out of reach here.
fn outside_of_a_session() -> Result<(), CliError> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let filtered =
        status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"));
    if filtered && std::env::var_os(environment::RUN_ID).is_some() {
        return Err(CliError::new(ErrorCode::DependencyMissing, "this process runs under gait exec already")
            .hint(
                "the outer session judges and records what this program does; run it without another gait",
            ));
    }
    Ok(())
}

/// What the workload may not even read: the per-user key, and the one that is named.
fn hidden(args: &Exec) -> Vec<Vec<u8>> {
    let mut hidden = session_config::hidden();
    let named = args.private_key.as_deref().map(session_config::resolve);
    hidden.extend(named.map(|path| path.into_os_string().into_encoded_bytes()));
    hidden
}

/// What the session's actions can be judged again with.
fn circumstances(args: &Exec, choice: &PolicyChoice<'_>) -> Result<Circumstances, CliError> {
    let vars = session_config::vars_of(choice);
    let directory =
        std::env::current_dir().map_err(|error| CliError::input("the working directory").because(error))?;
    let text = |word: &OsString| path_text(word.as_bytes()).into_owned();
    let bytes: usize = args.command.iter().map(|word| word.len() + 1).sum();
    let kept = args.capture == CaptureMode::Raw && bytes <= RAW_ARGV_BYTES;
    Ok(Circumstances {
        command: kept.then(|| args.command.iter().map(text).collect()),
        directory: path_text(session_config::resolve(&directory).as_os_str().as_bytes()).into_owned(),
        home: vars.home,
        identity: choice.facts.identity.clone(),
        policy: choice.name.to_owned(),
        protect: vars.protect,
        run_dir: vars.run_dir,
        tmp: vars.tmp,
        uid: vars.uid.to_string(),
        workspace: choice.facts.workspace.clone(),
    })
}

fn load_key(args: &Exec) -> Result<SigningKey, CliError> {
    let source = PrivateSource { path: args.private_key.clone(), env: args.private_key_env.clone() };
    Ok(keyring::signing_key(args.key_mode, &source, DevKey::PerUser)?.0)
}

/// Digest of the command line, each argument ended by NUL.
fn command_digest(command: &[OsString]) -> Digest {
    let mut joined = Vec::new();
    for argument in command {
        joined.extend_from_slice(argument.as_bytes());
        joined.push(0);
    }
    Digest::sha256(&joined)
}

fn workload(args: &Exec, policy: &CompiledPolicy, run_id: &str) -> Result<Workload, CliError> {
    let name = args.command.first().ok_or_else(|| CliError::input("the program is missing"))?;
    let path = std::env::var_os("PATH");
    let program = command::find(name, path.as_deref()).map_err(command_error)?;
    let c_string =
        |text: OsString| CString::new(text.into_vec()).map_err(|_nul| command_error(CommandError::Nul));
    let argv = args.command.iter().cloned().map(c_string).collect::<Result<_, _>>()?;
    let env = &policy.exec().env;
    let set = env.set.iter().map(|(name, value)| (name.clone(), value.clone()));
    let keeper = env.keeper();
    // The variable that holds the signing key is not the workload's, whatever the policy lets through.
    let key = args.private_key_env.as_deref().map(str::as_bytes);
    let keeps = |name: &[u8]| Some(name) != key && keeper.keeps(name);
    let envp = environment::build(std::env::vars_os(), keeps, set, run_id).map_err(command_error)?;
    for &fd in &args.inherit_fd {
        if !crate::sys::process::is_open(fd) {
            return Err(CliError::input(format!("--inherit-fd {fd}: no such descriptor is open"))
                .hint(format!("open it in the shell, for example with `{fd}<file`")));
        }
    }
    let mut keep: Vec<RawFd> = args.inherit_fd.iter().copied().filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    keep.dedup();
    let mask = signal::current_mask()
        .map_err(|error| CliError::new(ErrorCode::ExecFailed, "read the signal mask").because(error))?;
    let program = c_string(program.into_os_string())?;
    Ok(Workload {
        program,
        argv: CStringArray::new(argv),
        envp: CStringArray::new(envp),
        keep,
        open_files: policy.exec().limits.open_files,
        mask,
    })
}

fn command_error(error: CommandError) -> CliError {
    let code = match &error {
        CommandError::NotFound(_) => ErrorCode::CommandNotFound,
        CommandError::NotExecutable(_) => ErrorCode::NotExecutable,
        CommandError::Nul => ErrorCode::InvalidInput,
    };
    CliError::new(code, error.to_string())
}

fn evidence_error(error: EvidenceError) -> CliError {
    match error {
        EvidenceError::Taken(_) => CliError::input(error.to_string()).hint("choose another --run-id"),
        other => CliError::new(ErrorCode::ExecFailed, "")
            .because(other)
            .hint("choose a writable --out-dir with free space"),
    }
}

pub(crate) fn session_error(error: SessionError) -> CliError {
    let busy = "another seccomp listener is installed on this process (a sandbox or another gait); run gait outside of it";
    match error {
        SessionError::Start(StartError::Step { step: Step::Filter, errno: Errno(libc::EBUSY) }) => {
            CliError::new(ErrorCode::DependencyMissing, error.to_string()).hint(busy)
        }
        SessionError::Start(StartError::Kernel(why)) => refused(why),
        SessionError::Start(StartError::Step {
            step: Step::Filter | Step::Landlock | Step::Listener,
            ..
        }) => CliError::new(ErrorCode::DependencyMissing, error.to_string())
            .hint("`gait doctor` says what this host lacks"),
        SessionError::Disagreement { .. } => CliError::new(ErrorCode::InternalFailure, error.to_string())
            .hint("report it with the runpack: either the backend or the rules it was given are wrong"),
        SessionError::Degraded(_) => CliError::new(ErrorCode::DependencyMissing, error.to_string())
            .hint("use a newer kernel, or accept it with --allow-degraded; `gait doctor` tells more"),
        SessionError::Evidence(inner) => {
            let said =
                "evidence cannot be written, so the workload was ended (fail_closed_journal_unavailable)";
            CliError::new(ErrorCode::ExecFailed, said)
                .because(inner)
                .hint("free some space or choose another --out-dir")
        }
        other => CliError::new(ErrorCode::ExecFailed, other.to_string()),
    }
}

/// The exit code of the workload as a shell tells it.
fn exit_of(ending: Ending, exec_failed: Option<Errno>) -> u8 {
    let code = match (exec_failed, ending) {
        (Some(Errno(libc::ENOENT)), _) => 127,
        (Some(_), _) => 126,
        (None, Ending::Exited(status)) => status,
        (None, Ending::Killed(signal)) => SIGNAL_BASE + signal,
        (None, Ending::Aborted) => 125,
    };
    u8::try_from(code & 0xff).unwrap_or(125)
}

fn answer(
    args: &Exec,
    run_id: &str,
    outcome: Outcome,
    (backend, instead): (BackendKind, Option<String>),
) -> Result<Answer, CliError> {
    let own = exit_of(outcome.ending, outcome.exec_failed);
    let exit = if args.fail_on == Some(FailOn::Block) && outcome.blocked > 0 { BLOCKED } else { own };
    let footer = outcome.sealed.ticket_footer();
    let fields = json!({
        "run_id": run_id,
        "exit_status": own,
        "ending": outcome.ending.text(),
        "runpack": outcome.runpack.display().to_string(),
        "manifest_digest": outcome.sealed.manifest_digest.to_string(),
        "ticket_footer": footer,
        "simulate_mode": args.simulate,
        "blocked": outcome.blocked,
        "losses": outcome.summary.losses,
        "totals": outcome.summary.totals.to_map(),
    });
    let Value::Object(mut fields) = fields else { return Ok(Answer::given(exit)) };
    fields.insert("backend".to_owned(), json!(backend.as_str()));
    if let Some(why) = instead {
        fields.insert("backend_reason".to_owned(), json!(why));
    }
    let mut talk: Vec<String> = outcome
        .exec_failed
        .map(|errno| format!("gait: cannot run {}: {errno}", args.command[0].display()))
        .into_iter()
        .collect();
    talk.extend([
        format!("gait: {}", counts(&outcome.summary.totals)),
        format!("gait: evidence in {}", outcome.runpack.display()),
        footer,
    ]);
    Ok(Answer {
        exit,
        fields: Map::from_iter(fields),
        text: String::new(),
        failure: None,
        warnings: Vec::new(),
        talk,
    })
}

/// `fs.read 12 allowed, fs.delete 1 blocked`.
fn counts(totals: &Totals) -> String {
    let word = |verdict| match verdict {
        Verdict::Allow => "allowed",
        Verdict::DryRun => "dry run",
        Verdict::RequireApproval => "unapproved",
        Verdict::Block => "blocked",
    };
    let parts: Vec<String> = totals
        .iter()
        .filter(|(_, _, count)| *count > 0)
        .map(|(class, verdict, count)| format!("{class} {count} {}", word(verdict)))
        .collect();
    if parts.is_empty() { "nothing happened".to_owned() } else { parts.join(", ") }
}
