//! The one way to stdout and stderr: data to stdout, talk to stderr, JSON as one line with sorted keys.
//!
//! A reader that went away (`BrokenPipe`) is no failure: the rest is dropped and the command keeps its exit code. Any
//! other write error is reported, because a caller would otherwise take half an answer for a whole one.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Write};

use gait_agent::sign::Digest;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{CliError, ErrorCode};

/// How a command's answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One line of JSON on stdout, also for failures.
    Json,
}

/// The two streams.
pub struct Output {
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
}

impl Output {
    /// Opens the streams of the process.
    #[must_use]
    pub fn of_process() -> Self {
        Self { stdout: Box::new(io::stdout()), stderr: Box::new(io::stderr()) }
    }

    /// Writes to the given streams.
    pub fn new(stdout: impl Write + 'static, stderr: impl Write + 'static) -> Self {
        Self { stdout: Box::new(stdout), stderr: Box::new(stderr) }
    }

    /// Writes data for people, with a newline at the end if it has none, to stdout.
    ///
    /// # Errors
    ///
    /// Returns the stream's error, but not that nobody reads it any more.
    pub fn data(&mut self, text: &str) -> io::Result<()> {
        write_whole(&mut self.stdout, &harmless(text))
    }

    /// Writes a line of JSON to stdout.
    ///
    /// # Errors
    ///
    /// Returns the stream's error, but not that nobody reads it any more.
    pub fn json(&mut self, line: &str) -> io::Result<()> {
        write_whole(&mut self.stdout, line)
    }

    /// Writes a line of talk to stderr.
    ///
    /// # Errors
    ///
    /// Returns the stream's error, but not that nobody reads it any more.
    pub fn talk(&mut self, text: &str) -> io::Result<()> {
        write_whole(&mut self.stderr, &harmless(text))
    }
}

/// Whether a terminal would obey the character rather than show it: controls, and overrides of the writing direction.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes what a terminal would obey. Paths, arguments and file contents come from the workload.
fn harmless(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_obeyed(c) && c != '\n' && c != '\t')
}

/// Escapes a value that has to stay on one line, such as a path.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escape(text, is_obeyed)
}

fn escape(text: &str, which: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&which) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if which(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

fn write_whole(stream: &mut dyn Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    // One write per answer, so that lines of concurrent processes do not mix.
    match stream.write_all(format!("{text}{newline}").as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// What a command has to say once it is done.
#[derive(Debug)]
pub struct Answer {
    /// The exit code.
    pub exit: u8,
    /// The fields of the JSON answer, without the envelope's.
    pub fields: Map<String, Value>,
    /// The answer for people.
    pub text: String,
    /// Why the command failed although it has an answer (a verification that found something).
    pub failure: Option<CliError>,
    /// What the person should know besides; to stderr, and `warnings` in JSON.
    pub warnings: Vec<String>,
    /// Talk at the end of a command whose stdout belongs to somebody else; not in JSON.
    pub talk: Vec<String>,
}

impl Answer {
    /// Makes a successful answer.
    ///
    /// # Errors
    ///
    /// Fails if `report` does not serialise to an object, which is a bug.
    pub fn ok(report: &impl Serialize, text: impl Into<String>) -> Result<Self, CliError> {
        match serde_json::to_value(report) {
            Ok(Value::Object(fields)) => Ok(Self {
                exit: 0,
                fields,
                text: text.into(),
                failure: None,
                warnings: Vec::new(),
                talk: Vec::new(),
            }),
            Ok(_) => Err(CliError::new(ErrorCode::InternalFailure, "the answer is not an object")),
            Err(error) => {
                Err(CliError::new(ErrorCode::InternalFailure, "serialise the answer").because(error))
            }
        }
    }

    /// Makes an answer that was already given (by a command that writes as it goes).
    #[must_use]
    pub fn given(exit: u8) -> Self {
        Self {
            exit,
            fields: Map::new(),
            text: String::new(),
            failure: None,
            warnings: Vec::new(),
            talk: Vec::new(),
        }
    }

    /// Sets the exit code; `ok` stays true.
    #[must_use]
    pub const fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Turns the answer into a failure: exit code and error fields come from `error`.
    #[must_use]
    pub fn failed(mut self, error: CliError) -> Self {
        self.exit = error.code.exit();
        self.failure = Some(error);
        self
    }

    /// Adds warnings.
    #[must_use]
    pub fn warn(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }
}

/// Returns the contract's correlation id of a command line: the same arguments give the same id.
#[must_use]
pub fn correlation_id<S: AsRef<std::ffi::OsStr>>(argv: &[S]) -> String {
    let joined: Vec<Vec<u8>> =
        argv.iter().map(|argument| argument.as_ref().to_string_lossy().trim().as_bytes().to_vec()).collect();
    let mut id = Digest::sha256(&joined.join(&0x1f)).to_string();
    id.truncate(24);
    id
}

/// Renders the JSON line: the fields without the empty ones, and the envelope.
///
/// Keys are in alphabetical order at every depth, because `serde_json`'s maps are sorted.
#[must_use]
pub fn envelope(mut fields: Map<String, Value>, correlation_id: &str, error: Option<&CliError>) -> String {
    fields.retain(|_, value| !is_empty(value));
    fields.insert("ok".to_owned(), Value::Bool(error.is_none()));
    fields.insert("correlation_id".to_owned(), correlation_id.into());
    if let Some(error) = error {
        fields.insert("error".to_owned(), error.text().into());
        fields.insert("error_code".to_owned(), error.code.as_str().into());
        fields.insert("error_category".to_owned(), error.code.category().into());
        if let Some(reason) = error.reason_code() {
            fields.insert("reason_code".to_owned(), reason.into());
        }
        fields.insert("retryable".to_owned(), error.code.is_retryable().into());
        fields.insert("hint".to_owned(), error.hint_text().into());
    }
    Value::Object(fields).to_string()
}

/// Whether a field is left out of an answer.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_correlation_id_is_the_contracts_formula() {
        // sha256("gait\x1fversion"), first 12 bytes.
        assert_eq!(
            correlation_id(&["gait", " version "]),
            Digest::sha256(b"gait\x1fversion").to_string()[..24]
        );
        assert_ne!(correlation_id(&["gait", "version"]), correlation_id(&["./gait", "version"]));
    }

    #[test]
    fn envelope_keys_are_sorted_at_every_depth_and_empty_ones_absent() {
        let fields = serde_json::json!({"z": {"b": 1, "a": 2}, "a": "", "list": [], "no": null, "zero": 0, "f": false});
        let Value::Object(fields) = fields else { panic!("an object") };
        assert_eq!(
            envelope(fields, "c", None),
            r#"{"correlation_id":"c","f":false,"ok":true,"z":{"a":2,"b":1},"zero":0}"#
        );
    }

    #[test]
    fn a_terminal_is_not_commanded_by_what_it_shows() {
        assert_eq!(harmless("a\x1b]0;x\x07\n\tb\u{202e}\u{9b}"), "a\\u{1b}]0;x\\u{7}\n\tb\\u{202e}\\u{9b}");
        assert_eq!(one_line("/tmp/a\nverify ok"), "/tmp/a\\nverify ok");
        assert!(matches!(one_line("/tmp/ä"), Cow::Borrowed(_)));
    }

    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure_and_a_full_disk_is() {
        assert!(Output::new(Gone, Gone).data("x").is_ok());
        assert!(Output::new(Full, Gone).data("x").is_err());
    }
}
