//! The command line: what was typed, as types.
//!
//! Before clap sees it, [`rewrite`] turns the contract's other spellings into clap's: long flags with one dash and
//! switches with a value (`--json=false`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

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
    /// Makes signing keys.
    #[command(subcommand)]
    Keys(KeysCommand),
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
