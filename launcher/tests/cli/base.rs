//! What holds for every verb: usage errors, the envelope, `--explain`, spellings.

use std::fs::OpenOptions;
use std::process::{Command, Stdio};

use gait::cli::ErrorCode;

use super::sandbox::Sandbox;

#[test]
fn version_in_all_its_spellings() {
    let mut sandbox = Sandbox::new();
    for line in
        ["", "version", "--version", "-version", "-v", "version --json", "--json", "--json=false version"]
    {
        sandbox.gait(line);
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn unknown_commands_and_flags_are_usage_errors() {
    let mut sandbox = Sandbox::new();
    for line in [
        "frobnicate",
        "frobnicate --json",
        "keys",
        "keys frobnicate",
        "keys init --frobnicate",
        "keys init --prefix",
        "exec",
        "exec --json true",
    ] {
        assert_eq!(sandbox.gait(line).exit, 6, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn explain_says_one_line_and_does_nothing() {
    let mut sandbox = Sandbox::new();
    for line in
        ["--explain", "keys init --explain", "--explain keys init --no-such-flag", "version --explain --json"]
    {
        let answered = sandbox.gait(line);
        assert_eq!((answered.exit, answered.stdout.lines().count()), (0, 1), "{line}");
    }
    assert_eq!(sandbox.files(), [""; 0]);
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn help_is_data() {
    for line in [&["--help"][..], &["help"], &["keys", "init", "--help"]] {
        let done = Command::new(env!("CARGO_BIN_EXE_gait")).args(line).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{line:?}");
        assert!(String::from_utf8(done.stdout).unwrap().contains("Usage: gait"), "{line:?}");
    }
}

#[test]
fn a_closed_pipe_is_success_and_a_full_disk_is_not() {
    let gait = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gait"));
        command.arg("version");
        command
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let done = gait().stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");

    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let done = gait().stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8(done.stderr).unwrap().starts_with("version error: write the answer: "));
}

#[test]
fn exit_codes_page() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/exit-codes.md");
    if std::env::var_os("GAIT_BLESS").is_some() {
        std::fs::write(page, ErrorCode::reference()).unwrap();
    }
    assert!(
        std::fs::read_to_string(page).unwrap() == ErrorCode::reference(),
        "docs/exit-codes.md differs from the table: GAIT_BLESS=1 cargo test -p gait --test cli exit_codes_page"
    );
}
