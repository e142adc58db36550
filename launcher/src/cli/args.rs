//! The command line: what was typed, as types.
//!
//! Before clap sees it, [`rewrite`] turns the contract's other spellings into clap's: long flags with one dash and
//! switches with a value (`--json=false`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

use crate::keyring::{PrivateSource, VerifySource};

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
    /// Says what this host can enforce, and the remedy for what it cannot.
    Doctor(super::doctor::Doctor),
    /// Runs a program under the policy.
    Exec(super::exec::Exec),
    /// Makes signing keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Shows what a run did.
    #[command(subcommand)]
    Run(RunCommand),
    /// Checks trace records.
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Checks a runpack offline: every file, the journal's chain and the signatures.
    Verify(Verify),
    /// Prints the version.
    Version,
}

/// `gait keys …`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Makes an Ed25519 key pair and writes it as two files that only the owner can read.
    Init(KeysInit),
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
    /// Lists the decisions of a run from its runpack, after checking that the runpack holds.
    Inspect(RunFrom),
    /// Prints the line for a ticket that names a run and its evidence, after checking that the runpack holds.
    Receipt(RunFrom),
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
pub struct Verify {
    /// The run, or the runpack's path.
    #[arg(value_name = "RUN_ID|PATH")]
    pub run: String,
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
#[derive(Debug, Args)]
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

/// Turns the contract's spellings of flags into clap's; arguments after `--` stay as they are.
#[must_use]
pub fn rewrite(argv: &[OsString]) -> Vec<OsString> {
    let switches = switches(&Cli::command());
    let mut rewritten = Vec::with_capacity(argv.len());
    let mut arguments = argv.iter();
    rewritten.extend(arguments.next().cloned());
    for argument in arguments.by_ref() {
        if argument == "--" {
            rewritten.push(argument.clone());
            break;
        }
        let argument = double_dash(argument);
        match switch_value(&argument, &switches) {
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
    fn the_verb_is_found_between_flags() {
        assert_eq!(verb(&argv("gait --json keys --force init")).0, "keys init");
        assert_eq!(verb(&argv("gait nothing keys")).0, "");
        assert_eq!(verb(&argv("gait -- keys")).0, "");
    }
}
