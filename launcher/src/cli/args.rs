//! The command line: what was typed, as types.
//!
//! Before clap sees it, [`rewrite`] turns the contract's other spellings into clap's: long flags with one dash and
//! switches with a value (`--json=false`).

use std::cell::LazyCell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

use gait_agent::endpoint::EndpointClass;
use gait_agent::sign::Digest;

use crate::keyring::{KeyMode, PrivateSource, VerifySource};
use crate::session_config::DEFAULT_POLICY;

/// Runs any program under a policy that is enforced at the kernel boundary, and hands out proof of what it did.
#[derive(Debug, Parser)]
#[command(name = "gait", disable_version_flag = true, infer_long_args = false)]
pub struct Cli {
    /// Answer with one line of JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print one line about what the command does, and do nothing.
    #[arg(long, global = true)]
    pub explain: bool,
    /// Print the version.
    #[arg(short = 'v', long)]
    pub version: bool,
    /// What to do; nothing prints the version.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves sessions whose rules are in the kernel.
    #[command(subcommand)]
    Agent(super::agent::AgentCommand),
    /// Makes an approval token: signed consent to one intent under one policy, for a time.
    Approve(Approve),
    /// Makes a first runpack, verifies it, and shows its line for a ticket.
    Demo,
    /// Says what this host can enforce, and the remedy for what it cannot.
    Doctor(super::doctor::Doctor),
    /// Runs a program under the policy.
    Exec(super::exec::Exec),
    /// Judges tool calls.
    #[command(subcommand)]
    Gate(GateCommand),
    /// Packs evidence for audits, and checks such packs.
    #[command(subcommand)]
    Guard(super::guard::GuardCommand),
    /// Packs the evidence of an incident.
    #[command(subcommand)]
    Incident(super::guard::IncidentCommand),
    /// Makes and checks signing keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Brings a runpack into the form of this generation.
    Migrate(super::migrate::Migrate),
    /// Checks, tries and starts policies.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Ranks what many runs did.
    #[command(subcommand)]
    Report(super::report::ReportCommand),
    /// Turns runs into regression tests, and grades them.
    #[command(subcommand)]
    Regress(super::regress::RegressCommand),
    /// Records runs, and shows, compares and replays what they did.
    #[command(subcommand)]
    Run(RunCommand),
    /// Finds what many runs have in common.
    #[command(subcommand)]
    Scout(super::scout::ScoutCommand),
    /// Checks trace records.
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Checks a runpack offline: every file, the journal's chain and the signatures.
    Verify(Verify),
    /// Prints the version.
    Version,
    /// Says what the policy would say of one action, and which rule says it: the code that judges held calls.
    Why(Why),
}

/// `gait gate …`.
#[derive(Debug, Subcommand)]
pub enum GateCommand {
    /// Judges one intent and leaves a signed trace; exit 3 is a block, 4 a missing approval.
    Eval(Box<GateEval>),
}

/// Flags of `gait gate eval`.
#[derive(Debug, Args)]
pub struct GateEval {
    /// The policy: a file, or the name of a shipped one.
    #[arg(long, value_name = "POLICY")]
    pub policy: String,
    /// The file of the intent.
    #[arg(long, value_name = "FILE")]
    pub intent: PathBuf,
    /// oss-prod refuses what is not fit for production.
    #[arg(long, value_enum, default_value_t)]
    pub profile: GateProfile,
    /// Say what would be said, and let everything pass.
    #[arg(long)]
    pub simulate: bool,
    /// Where the trace goes [default: `trace_TRACE_ID.json`].
    #[arg(long, value_name = "FILE")]
    pub trace_out: Option<PathBuf>,
    /// An approval token.
    #[arg(long, value_name = "FILE")]
    pub approval_token: Option<PathBuf>,
    /// More approval tokens.
    #[arg(long, value_name = "FILE,…", value_delimiter = ',')]
    pub approval_token_chain: Vec<PathBuf>,
    /// A reference to an approval, recorded as it is; it grants nothing.
    #[arg(long, value_name = "TEXT")]
    pub approval_token_ref: Option<String>,
    /// Where the approval audit goes [default: `approval_audit_TRACE_ID.json`].
    #[arg(long, value_name = "FILE")]
    pub approval_audit_out: Option<PathBuf>,
    /// The file of the public key that approvals are signed with.
    #[arg(long, value_name = "FILE")]
    pub approval_public_key: Option<PathBuf>,
    /// The environment variable that holds this key.
    #[arg(long, value_name = "NAME")]
    pub approval_public_key_env: Option<String>,
    /// The file of the private key whose public half this is.
    #[arg(long, value_name = "FILE")]
    pub approval_private_key: Option<PathBuf>,
    /// The environment variable that holds that key.
    #[arg(long, value_name = "NAME")]
    pub approval_private_key_env: Option<String>,
    #[command(flatten)]
    pub key: SigningKeyArgs,
    /// Where rate limits are counted.
    #[arg(long, value_name = "FILE", default_value = ".gait-out/gate_rate_limits.json")]
    pub rate_limit_state: PathBuf,
    /// Who issues credentials.
    #[arg(long, value_enum, default_value_t)]
    pub credential_broker: BrokerKind,
    /// How the variables of the env broker begin.
    #[arg(long, value_name = "PREFIX", default_value = "GAIT_BROKER_TOKEN_")]
    pub credential_env_prefix: String,
    /// Which credential, instead of the rule's.
    #[arg(long, value_name = "NAME")]
    pub credential_ref: Option<String>,
    /// For what, instead of the rule's.
    #[arg(long, value_name = "SCOPE,…", value_delimiter = ',')]
    pub credential_scopes: Vec<String>,
    /// The program of the command broker.
    #[arg(long, value_name = "PROGRAM")]
    pub credential_command: Option<String>,
    /// Its arguments.
    #[arg(long, value_name = "ARG,…", value_delimiter = ',', allow_hyphen_values = true)]
    pub credential_command_args: Vec<String>,
    /// Where the credential evidence goes [default: `credential_evidence_TRACE_ID.json`].
    #[arg(long, value_name = "FILE")]
    pub credential_evidence_out: Option<PathBuf>,
}

/// How severe `gait gate eval` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum GateProfile {
    /// As the policy says.
    #[default]
    Standard,
    /// With the preconditions of production.
    OssProd,
}

/// Who issues credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum BrokerKind {
    /// Nobody.
    #[default]
    Off,
    /// Nobody, but a reference is made; for tests.
    Stub,
    /// Environment variables.
    Env,
    /// A program.
    Command,
}

/// `gait policy …`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Lays a policy file out: keys in order, clean line ends, every comment kept.
    Fmt(super::policy_fmt::PolicyFmt),
    /// Writes a shipped policy as a file to start from.
    Init(PolicyInit),
    /// Judges one intent by a policy and leaves nothing behind; exit codes as of gate eval.
    Test(PolicyTest),
    /// Says of which intents a changed policy would say something else.
    Simulate(super::policy_simulate::PolicySimulate),
    /// Checks a policy and reports every mistake in it at once.
    Validate(PolicyValidate),
}

/// Arguments of `gait policy init`.
#[derive(Debug, Args)]
pub struct PolicyInit {
    /// The name of a shipped policy.
    pub template: String,
    /// Where it goes.
    #[arg(long, value_name = "FILE", default_value = "gait.policy.yaml")]
    pub out: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `gait policy test`.
#[derive(Debug, Args)]
pub struct PolicyTest {
    /// The policy: a file, or the name of a shipped one.
    pub policy: String,
    /// The file of the intent.
    pub intent: PathBuf,
}

/// Arguments of `gait policy validate`.
#[derive(Debug, Args)]
pub struct PolicyValidate {
    /// The policy: a file, or the name of a shipped one.
    pub policy: String,
}

/// Arguments of `gait why`.
#[derive(Debug, Args)]
pub struct Why {
    /// fs.read, fs.write, fs.delete, proc.exec, net.http, net.dns or other.
    pub class: EndpointClass,
    /// A path, `host:port`, a name to resolve, or the name of a call.
    pub object: OsString,
    /// The operation, where it is not the usual one of the class.
    #[arg(long, value_name = "NAME")]
    pub operation: Option<String>,
    /// The program that acts, for rules that ask.
    #[arg(long, value_name = "PATH")]
    pub image: Option<PathBuf>,
    /// The policy: a file, or the name of a shipped one.
    #[arg(long, value_name = "POLICY", default_value = DEFAULT_POLICY)]
    pub policy: String,
    /// The directory that `${workspace}` means; the working directory by default.
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// The arguments of a new program; its own name may come first.
    #[arg(last = true)]
    pub argv: Vec<OsString>,
}

/// `gait keys …`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Makes an Ed25519 key pair and writes it as two files that only the owner can read.
    Init(KeysInit),
    /// Makes a further key pair with the time in its name; the pairs before stay.
    Rotate(super::keys::KeysRotate),
    /// Checks that keys are keys, and that two halves belong together.
    Verify(super::keys::KeysVerify),
}

/// Flags of `gait keys init`.
#[derive(Debug, Args)]
pub struct KeysInit {
    /// Where the two files go.
    #[arg(long, value_name = "DIR", default_value = "gait-out/keys")]
    pub out_dir: PathBuf,
    /// How the names of the files begin.
    #[arg(long, value_name = "NAME", default_value = "gait")]
    pub prefix: String,
    /// Replace existing files.
    #[arg(long)]
    pub force: bool,
}

/// `gait run …`.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Says what differs between two runs; for sessions, which decisions are new, vanished or changed.
    Diff(super::run::RunDiff),
    /// Lists the decisions of a run from its runpack, after checking that the runpack holds.
    Inspect(RunFrom),
    /// Prints the line for a ticket that names a run and its evidence, after checking that the runpack holds.
    Receipt(RunFrom),
    /// Packs a run that a JSON file describes.
    Record(super::run::RunRecordArgs),
    /// Cuts a run down to the first intent that fails, and packs what is left.
    Reduce(super::run::RunReduce),
    /// Goes through a run again with recorded results and stand-ins; nothing is executed.
    Replay(super::run::RunReplay),
    /// Seals what a session left whose guard was killed, as aborted, after checking that nobody changed it.
    Seal(super::run_seal::Seal),
}

/// Which run `gait run …` is about.
#[derive(Debug, Args)]
#[group(id = "which_run", required = true, multiple = false)]
pub struct RunFrom {
    /// The run, or the runpack's path.
    #[arg(value_name = "RUN_ID|PATH")]
    pub run: Option<String>,
    /// The same, as a flag.
    #[arg(long, value_name = "RUN_ID|PATH")]
    pub from: Option<String>,
}

impl RunFrom {
    /// Returns what was named; empty only if clap let neither pass.
    #[must_use]
    pub fn name(&self) -> &str {
        self.run.as_deref().or(self.from.as_deref()).unwrap_or_default()
    }
}

/// `gait trace …`.
#[derive(Debug, Subcommand)]
pub enum TraceCommand {
    /// Checks the signature of a trace file.
    Verify(TraceVerify),
}

/// Arguments of `gait trace verify`.
#[derive(Debug, Args)]
pub struct TraceVerify {
    /// The trace file.
    #[arg(value_name = "PATH", required_unless_present = "path_flag", conflicts_with = "path_flag")]
    pub path: Option<PathBuf>,
    /// The same, as a flag.
    #[arg(long = "path", id = "path_flag", value_name = "PATH")]
    pub path_flag: Option<PathBuf>,
    #[command(flatten)]
    pub key: VerifyKeyArgs,
}

/// Arguments of `gait verify`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Verify {
    /// The run, or the runpack's path.
    #[arg(value_name = "RUN_ID|PATH", required = true)]
    pub run: Option<String>,
    #[command(subcommand)]
    pub chain: Option<super::verify::VerifyCommand>,
    /// strict demands a signature by a key that is named.
    #[arg(long, value_enum, default_value_t)]
    pub profile: VerifyProfile,
    /// Fail unless the runpack is signed by a trusted key.
    #[arg(long)]
    pub require_signature: bool,
    #[command(flatten)]
    pub key: VerifyKeyArgs,
}

/// How severe `gait verify` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum VerifyProfile {
    /// What is signed must be valid.
    #[default]
    Standard,
    /// It must be signed, by a key that is named.
    Strict,
}

/// Where a verify key comes from.
#[derive(Debug, Clone, Args)]
pub struct VerifyKeyArgs {
    /// The file of the trusted public key.
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<PathBuf>,
    /// The environment variable that holds the trusted public key.
    #[arg(long, value_name = "NAME")]
    pub public_key_env: Option<String>,
    /// The file of a private key whose public half is trusted.
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// The environment variable that holds such a private key.
    #[arg(long, value_name = "NAME")]
    pub private_key_env: Option<String>,
}

impl From<VerifyKeyArgs> for VerifySource {
    fn from(args: VerifyKeyArgs) -> Self {
        let private = PrivateSource { path: args.private_key, env: args.private_key_env };
        Self { public_path: args.public_key, public_env: args.public_key_env, private }
    }
}

/// Flags of `gait approve`.
#[derive(Debug, Args)]
pub struct Approve {
    /// The digest of the intent.
    #[arg(long, value_name = "SHA256")]
    pub intent_digest: Digest,
    /// The digest of the policy that asked.
    #[arg(long, value_name = "SHA256")]
    pub policy_digest: Digest,
    /// How long the consent holds, such as 15m or 1h30m.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub ttl: Duration,
    /// What it covers: tool:NAME, or * for all.
    #[arg(long, value_name = "SCOPE,…", value_delimiter = ',', required = true)]
    pub scope: Vec<String>,
    /// Who consents.
    #[arg(long, value_name = "WHO")]
    pub approver: String,
    /// Why.
    #[arg(long, value_name = "CODE")]
    pub reason_code: String,
    /// Where the token goes [default: approval_TOKEN_ID.json].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub key: SigningKeyArgs,
}

/// Which key signs.
#[derive(Debug, Args)]
pub struct SigningKeyArgs {
    /// dev makes a key, prod takes one.
    #[arg(long, value_enum, default_value_t)]
    pub key_mode: KeyMode,
    /// The file of the private key.
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// The environment variable that holds the private key.
    #[arg(long, value_name = "NAME")]
    pub private_key_env: Option<String>,
}

impl SigningKeyArgs {
    /// Returns mode and source.
    #[must_use]
    pub fn source(&self) -> (KeyMode, PrivateSource) {
        (self.key_mode, PrivateSource { path: self.private_key.clone(), env: self.private_key_env.clone() })
    }
}

/// Parses a duration as the contract's callers write it: numbers with a unit, one after the other, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 15m or 1h30m");
    let mut rest = text;
    let mut nanos = 0.0_f64;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        nanos += number.parse::<f64>().ok().ok_or_else(wrong)? * scale;
        rest = tail;
    }
    match Duration::try_from_secs_f64(nanos / 1e9) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(wrong()),
    }
}

/// Turns the contract's spellings of flags into clap's; arguments after `--` stay as they are.
#[must_use]
pub fn rewrite(argv: &[OsString]) -> Vec<OsString> {
    // Building the definitions takes longer than the rest of the start, so only who needs them builds them.
    let known = LazyCell::new(|| switches(&Cli::command()));
    let mut rewritten = Vec::with_capacity(argv.len());
    let mut arguments = argv.iter();
    rewritten.extend(arguments.next().cloned());
    for argument in arguments.by_ref() {
        if argument == "--" {
            rewritten.push(argument.clone());
            break;
        }
        let argument = double_dash(argument);
        let value = if argument.as_bytes().contains(&b'=') { switch_value(&argument, &known) } else { None };
        match value {
            None => rewritten.push(argument),
            Some((name, true)) => rewritten.push(format!("--{name}").into()),
            Some((_, false)) => {}
        }
    }
    rewritten.extend(arguments.cloned());
    rewritten
}

/// `-policy` → `--policy`; `-v`, `-` and `--policy` stay.
fn double_dash(argument: &OsStr) -> OsString {
    let bytes = argument.as_bytes();
    match bytes {
        [b'-', first, _, ..] if first.is_ascii_alphabetic() => {
            let mut longer = Vec::with_capacity(bytes.len() + 1);
            longer.push(b'-');
            longer.extend_from_slice(bytes);
            OsString::from_vec(longer)
        }
        _ => argument.to_owned(),
    }
}

/// `--json=false` → `("json", false)` if `json` is a switch.
fn switch_value<'a>(argument: &OsStr, switches: &'a [String]) -> Option<(&'a str, bool)> {
    let (name, value) = argument.to_str()?.strip_prefix("--")?.split_once('=')?;
    let name = switches.iter().find(|switch| *switch == name)?;
    // The spellings of Go's flag package, which the contract's callers use.
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some((name, true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some((name, false)),
        _ => None,
    }
}

fn switches(command: &clap::Command) -> Vec<String> {
    let own = command
        .get_arguments()
        .filter(|argument| matches!(argument.get_action(), ArgAction::SetTrue))
        .filter_map(|argument| argument.get_long().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(switches)).collect()
}

/// Returns the verb that `argv` names and the one line about it.
#[must_use]
pub fn verb(argv: &[OsString]) -> (String, String) {
    let root = Cli::command();
    let mut command = &root;
    let mut path = Vec::new();
    let words = argv
        .iter()
        .skip(1)
        .take_while(|argument| *argument != "--")
        .filter(|argument| !argument.as_bytes().starts_with(b"-"));
    for word in words {
        let Some(next) = word.to_str().and_then(|word| command.find_subcommand(word)) else { break };
        path.push(next.get_name().to_owned());
        command = next;
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    (path.join(" "), format!("{}.", about.trim_end_matches('.')))
}

/// Returns whether a switch stands among the arguments, for the answers that come before clap's.
#[must_use]
pub fn has_switch(rewritten: &[OsString], name: &str) -> bool {
    rewritten.iter().skip(1).take_while(|argument| *argument != "--").any(|argument| argument == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn clap_accepts_the_definitions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn one_dash_is_as_good_as_two_before_the_separator() {
        assert_eq!(
            rewrite(&argv("gait keys init -prefix x -out-dir=y -v - -- -policy --json=false")),
            argv("gait keys init --prefix x --out-dir=y -v - -- -policy --json=false"),
        );
    }

    #[test]
    fn switches_take_a_value_with_an_equals_sign() {
        assert_eq!(
            rewrite(&argv("gait keys init --json=true -force=0 --prefix=true")),
            argv("gait keys init --json --prefix=true"),
        );
        assert_eq!(rewrite(&argv("gait --json=maybe")), argv("gait --json=maybe"));
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s500ms"), Ok(Duration::from_secs(2)));
        for text in ["", "0s", "5", "-1h", "1d", "h", "1h5", "9e9h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_verb_is_found_between_flags() {
        assert_eq!(verb(&argv("gait --json keys --force init")).0, "keys init");
        assert_eq!(verb(&argv("gait nothing keys")).0, "");
        assert_eq!(verb(&argv("gait -- keys")).0, "");
    }
}
