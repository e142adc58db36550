//! Credential brokers: somebody else issues a credential for the call, and the evidence names it without holding it.

use std::env;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gait_agent::intent::Intent;
use gait_agent::schema;
use gait_agent::sign::{Digest, Limits, parse_strict};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::TraceId;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

const RECORD_SCHEMA: &str = "gait.gate.broker_credential_record";
/// The variable with the commands that may be brokers; unset, any may.
const ALLOWLIST_VARIABLE: &str = "GAIT_CREDENTIAL_COMMAND_ALLOWLIST";
const ANSWER_BYTES: u64 = 16 << 10;
/// How long a program may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
const WAIT_STEP: Duration = Duration::from_millis(5);
const REF_CHARS: usize = 256;

/// The broker cannot be used at all; a broker that fails to issue is a block, not an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// A command is needed.
    #[error("credential broker command needs --credential-command")]
    NoCommand,
    /// The command could be read in two ways.
    #[error("credential command {0:?} is neither an absolute path nor a bare name without white space")]
    Command(String),
    /// The command is not on the list.
    #[error("credential command {0:?} is not in {ALLOWLIST_VARIABLE}")]
    NotAllowed(String),
}

/// Who issues credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broker {
    /// Nobody; the reference is made of the request. For tests and demonstrations.
    Stub,
    /// The environment: a variable named after the reference or the tool.
    Env {
        /// How the variables' names begin.
        prefix: String,
    },
    /// A program that reads the request and answers with a reference.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        args: Vec<String>,
    },
}

impl Broker {
    /// Makes the broker that is a program.
    ///
    /// # Errors
    ///
    /// Fails if no program is given, it could be read in two ways, or is not allowed.
    pub fn command(program: Option<&str>, args: Vec<String>) -> Result<Self, BrokerError> {
        let program = program.unwrap_or_default().trim();
        if program.is_empty() {
            return Err(BrokerError::NoCommand);
        }
        let bare = !program.contains('/');
        if program.contains(char::is_whitespace) || !(bare || Path::new(program).is_absolute()) {
            return Err(BrokerError::Command(program.to_owned()));
        }
        if let Ok(list) = env::var(ALLOWLIST_VARIABLE) {
            let base = Path::new(program).file_name();
            let mut entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            // Comparing components does the cleaning: `//` and `/./` vanish.
            if !entries.any(|entry| Path::new(entry) == Path::new(program) || base == Some(entry.as_ref())) {
                return Err(BrokerError::NotAllowed(program.to_owned()));
            }
        }
        Ok(Self::Command { program: program.to_owned(), args })
    }

    /// Returns the contract's name of the broker.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stub => "stub",
            Self::Env { .. } => "env",
            Self::Command { .. } => "command",
        }
    }

    /// Asks for a credential. `None` if none was issued; why is not told, for it could hold a secret.
    #[must_use]
    pub fn issue(&self, request: &Request<'_>) -> Option<Issued> {
        match self {
            Self::Stub => Some(Issued { issued_by: "stub".to_owned(), credential_ref: stub_ref(request) }),
            Self::Env { prefix } => {
                let name = variable_name(prefix, request);
                let value = env::var(&name).ok().filter(|value| !value.is_empty())?;
                let digest = Digest::sha256(value.as_bytes()).to_string();
                let credential_ref = format!("env:{name}:{}", &digest[..16]);
                Some(Issued { issued_by: "env".to_owned(), credential_ref })
            }
            Self::Command { program, args } => issue_by_command(program, args, request, ANSWER_WAIT),
        }
    }
}

/// What a broker is told, in the contract's spelling.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Request<'a> {
    tool_name: &'a str,
    identity: &'a str,
    workspace: &'a str,
    #[serde(rename = "SessionID")]
    session_id: &'a str,
    #[serde(rename = "RequestID")]
    request_id: &'a str,
    reference: &'a str,
    scope: &'a [String],
}

impl<'a> Request<'a> {
    /// Makes the request for the credential of an intent.
    #[must_use]
    pub fn new(intent: &'a Intent, reference: &'a str, scope: &'a [String]) -> Self {
        let context = intent.context();
        Self {
            tool_name: intent.tool_name(),
            identity: &context.identity,
            workspace: &context.workspace,
            session_id: &context.session_id,
            request_id: &context.request_id,
            reference,
            scope,
        }
    }
}

/// A credential that was issued: its name, never itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Issued {
    /// Who issued it.
    #[serde(default)]
    pub issued_by: String,
    /// Its name.
    pub credential_ref: String,
}

fn stub_ref(request: &Request<'_>) -> String {
    let Request { tool_name, identity, workspace, session_id, request_id, reference, scope } = request;
    let scope = scope.join(",");
    let text = [tool_name, identity, workspace, session_id, request_id, reference, scope.as_str()].join("|");
    format!("stub:{}", &Digest::sha256(text.as_bytes()).to_string()[..24])
}

fn variable_name(prefix: &str, request: &Request<'_>) -> String {
    let source = if request.reference.is_empty() { request.tool_name } else { request.reference };
    let plain = |c: char| if c.is_ascii_uppercase() || c.is_ascii_digit() { c } else { '_' };
    let name: String = source.to_uppercase().chars().map(plain).collect();
    let name = name.trim_matches('_');
    format!("{prefix}{}", if name.is_empty() { "DEFAULT" } else { name })
}

fn issue_by_command(program: &str, args: &[String], request: &Request<'_>, wait: Duration) -> Option<Issued> {
    let question = serde_json::to_vec(request).ok()?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // It may hold a secret, so nobody reads it.
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .ok()?;
    let answer = converse(&mut child, question, wait);
    let succeeded = answer.is_some() && child.wait().is_ok_and(|status| status.success());
    let value = parse_strict(&answer.filter(|_| succeeded)?, Limits::DOCUMENT).ok()?;
    let mut issued: Issued = serde_json::from_value(value).ok()?;
    issued.credential_ref = issued.credential_ref.trim_matches(' ').to_owned();
    let reference = &issued.credential_ref;
    let usable = !reference.is_empty()
        && reference.chars().count() <= REF_CHARS
        && !reference.contains(['\r', '\n', '\t']);
    if issued.issued_by.is_empty() {
        "command".clone_into(&mut issued.issued_by);
    }
    usable.then_some(issued)
}

/// Asks the program and returns its whole answer once it has ended; `None` if it took too long or said too much.
fn converse(child: &mut Child, question: Vec<u8>, wait: Duration) -> Option<Vec<u8>> {
    let deadline = Instant::now() + wait;
    let (mut stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
    let (sender, receiver) = mpsc::channel();
    // Detached: a program that never reads or never closes its output cannot hold this one up.
    thread::spawn(move || stdin.write_all(&question).is_ok());
    thread::spawn(move || {
        let mut answer = Vec::new();
        let read = stdout.take(ANSWER_BYTES + 1).read_to_end(&mut answer);
        sender.send(read.is_ok().then_some(answer)).is_ok()
    });
    let answer = receiver.recv_timeout(wait).ok().flatten();
    let answer = answer.filter(|answer| answer.len() as u64 <= ANSWER_BYTES);
    while answer.is_some() && Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => thread::sleep(WAIT_STEP),
            Ok(Some(_)) => return answer,
            Err(_) => break,
        }
    }
    stop(child);
    None
}

/// Ends the program and what it started.
fn stop(child: &mut Child) {
    let killed = i32::try_from(child.id()).is_ok_and(|id| killpg(Pid::from_raw(id), Signal::SIGKILL).is_ok());
    if killed || child.kill().is_ok() {
        // Reaped so that it does not stay a zombie; its status says nothing any more.
        drop(child.wait());
    }
}

/// The evidence that a credential was issued for a decision.
#[derive(Debug, Serialize)]
pub struct CredentialRecord<'a> {
    schema_id: &'static str,
    schema_version: &'static str,
    created_at: Timestamp,
    producer_version: &'static str,
    trace_id: TraceId,
    tool_name: &'a str,
    identity: &'a str,
    broker: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reference: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    scope: &'a [String],
    credential_ref: &'a str,
}

impl<'a> CredentialRecord<'a> {
    /// Makes the record.
    #[must_use]
    pub fn new(
        created_at: Timestamp,
        trace_id: TraceId,
        broker: &Broker,
        request: &Request<'a>,
        issued: &'a Issued,
    ) -> Self {
        Self {
            schema_id: RECORD_SCHEMA,
            schema_version: schema::VERSION,
            created_at,
            producer_version: schema::PRODUCER_VERSION,
            trace_id,
            tool_name: request.tool_name,
            identity: request.identity,
            broker: broker.name(),
            reference: request.reference,
            scope: request.scope,
            credential_ref: &issued.credential_ref,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: [String; 0] = [];

    fn request(reference: &str) -> Request<'_> {
        Request {
            tool_name: "tool.pay",
            identity: "ann",
            workspace: "/w",
            session_id: "s",
            request_id: "r",
            reference,
            scope: &SCOPE,
        }
    }

    fn shell(script: &str) -> Option<Issued> {
        let broker = Broker::command(Some("/bin/sh"), vec!["-c".into(), script.into()]).unwrap();
        broker.issue(&request("ref"))
    }

    #[test]
    fn the_stub_names_the_request() {
        let text = Digest::sha256(b"tool.pay|ann|/w|s|r|ref|").to_string();
        assert_eq!(
            Broker::Stub.issue(&request("ref")).unwrap().credential_ref,
            format!("stub:{}", &text[..24])
        );
    }

    #[test]
    fn variables_are_named_after_the_reference_or_the_tool() {
        assert_eq!(variable_name("P_", &request("a.b-c9")), "P_A_B_C9");
        assert_eq!(variable_name("P_", &request("")), "P_TOOL_PAY");
        assert_eq!(variable_name("P_", &request("--")), "P_DEFAULT");
        assert!(Broker::Env { prefix: "GAIT_NO_SUCH_".into() }.issue(&request("x")).is_none());
    }

    #[test]
    fn a_program_gets_the_request_and_answers_with_a_reference() {
        let issued =
            shell(r#"grep -q '"SessionID":"s"' && echo '{"issued_by":"vault","credential_ref":"v1"}'"#);
        assert_eq!(issued.unwrap(), Issued { issued_by: "vault".into(), credential_ref: "v1".into() });
    }

    #[test]
    fn a_program_that_does_not_answer_properly_issues_nothing() {
        for script in [
            "true",
            "echo no json",
            r#"echo '{"credential_ref":""}'"#,
            r#"printf '{"credential_ref":"a\\nb"}'"#,
            r#"echo '{"credential_ref":"v"}'; exit 1"#,
            r#"echo '{"credential_ref":"v"}' >&2"#,
            "head -c 20000 /dev/zero | tr '\\0' ' '; echo '{\"credential_ref\":\"v\"}'",
            r#"printf '{"credential_ref":"%0300d"}' 0"#,
        ] {
            assert_eq!(shell(script), None, "{script}");
        }
    }

    #[test]
    fn a_program_that_takes_too_long_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("pid");
        let script = format!("echo $$ >{}; exec sleep 600", mark.display());
        let wait = Duration::from_millis(300);
        assert_eq!(issue_by_command("/bin/sh", &["-c".into(), script], &request(""), wait), None);
        let pid: i32 = std::fs::read_to_string(mark).unwrap().trim().parse().unwrap();
        assert!(nix::sys::signal::kill(Pid::from_raw(pid), None).is_err(), "it still runs");
    }

    #[test]
    fn ambiguous_commands_are_refused() {
        assert_eq!(Broker::command(None, vec![]), Err(BrokerError::NoCommand));
        for program in ["a b", "./a", "dir/a"] {
            assert_eq!(Broker::command(Some(program), vec![]), Err(BrokerError::Command(program.into())));
        }
        assert!(Broker::command(Some("vault"), vec![]).is_ok());
    }
}
