//! What went wrong, as the person and the machine see it: one table makes the exit code, the fields of the `--json`
//! envelope and `docs/exit-codes.md`.
//!
//! Every verb returns [`CliError`]; libraries below know nothing of exit codes, hints or JSON.

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;

use crate::input::InputError;
use crate::keyring::KeyringError;
use crate::policy_source::InvalidPolicy;
use crate::run_id::{InvalidRunId, RunpackNotFound};
use crate::toolgate::approval_token::TokenError;
use crate::toolgate::credential::BrokerError;
use crate::toolgate::rate_limit::RateLimitError;

/// One row of the table.
struct Row {
    code: &'static str,
    category: &'static str,
    exit: u8,
    retryable: bool,
    meaning: &'static str,
    hint: &'static str,
}

macro_rules! codes {
    ($( $name:ident = $exit:literal, $code:literal, $category:literal, $retryable:literal, $meaning:literal, $hint:literal; )*) => {
        /// The kinds of failure that a caller can tell apart.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $( #[doc = concat!("Exit ", $exit, ": ", $meaning, ".")] $name, )* }

        impl ErrorCode {
            /// Every code, in the order of the exit codes.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            const fn row(self) -> Row {
                match self { $( Self::$name => Row {
                    code: $code,
                    category: $category,
                    exit: $exit,
                    retryable: $retryable,
                    meaning: $meaning,
                    hint: $hint,
                }, )* }
            }
        }
    };
}

codes! {
    InternalFailure = 1, "internal_failure", "internal_failure", false,
        "an unexpected failure",
        "look at the message and the environment; if it persists, report it";
    IoFailure = 1, "io_failure", "io_failure", false,
        "a file could not be written or a stream failed",
        "check that the path exists, is writable and has room";
    StateContention = 1, "state_contention", "state_contention", true,
        "another process holds a lock",
        "try again once the other process is done";
    VerificationFailed = 2, "verification_failed", "verification_failed", false,
        "an artefact, signature or chain does not verify",
        "do not trust the artefact; obtain it again from its source and verify again";
    PolicyBlocked = 3, "policy_blocked", "policy_blocked", false,
        "the policy blocks (`gate eval`, `policy test`, `exec --fail-on block`)",
        "look at reason_codes; change the intent or the policy";
    ApprovalRequired = 4, "approval_required", "approval_required", false,
        "the policy asks for an approval that was not given",
        "supply a valid approval token";
    RegressFailed = 5, "regress_failed", "internal_failure", false,
        "a regression check failed",
        "look at the failing graders";
    InvalidInput = 6, "invalid_input", "invalid_input", false,
        "bad flags, an unreadable or unparsable input, an unmet precondition of a profile",
        "check the usage (--help) and the named input";
    DependencyMissing = 7, "dependency_missing", "dependency_missing", false,
        "this host cannot do what is required",
        "run `gait doctor` to see what this host lacks";
    UnsafeOperation = 8, "unsafe_operation", "internal_failure", false,
        "an unsafe operation without its interlocks",
        "unsafe flags are for approved replays only";
    ExecFailed = 125, "exec_failed", "internal_failure", false,
        "`gait exec` itself failed, before or during the session",
        "nothing ran unjudged; look at the message and at `gait doctor`";
    NotExecutable = 126, "command_not_executable", "invalid_input", false,
        "the program of `gait exec` cannot be executed",
        "check the file's mode and format";
    CommandNotFound = 127, "command_not_found", "invalid_input", false,
        "the program of `gait exec` was not found",
        "check the spelling and PATH";
}

impl ErrorCode {
    /// Returns the machine's name of the code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().code
    }

    /// Returns the contract's category.
    #[must_use]
    pub const fn category(self) -> &'static str {
        self.row().category
    }

    /// Returns the exit code.
    #[must_use]
    pub const fn exit(self) -> u8 {
        self.row().exit
    }

    /// Returns whether the same command may succeed if it is repeated.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        self.row().retryable
    }

    /// Returns the hint that is shown where the error brings none of its own.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        self.row().hint
    }

    /// Renders `docs/exit-codes.md`.
    #[must_use]
    pub fn reference() -> String {
        let mut page = String::from(PAGE_HEAD);
        for code in Self::ALL {
            let Row { code, category, exit, retryable, meaning, hint } = code.row();
            let retryable = if retryable { "yes" } else { "no" };
            // Writing to a String cannot fail.
            _ = writeln!(page, "| {exit} | `{code}` | `{category}` | {retryable} | {meaning} | {hint} |");
        }
        page.push_str(PAGE_TAIL);
        page.push_str(&super::bad_input::section());
        page
    }
}

const PAGE_HEAD: &str = "\
# Exit codes

Generated from the table in `launcher/src/cli/error.rs`; a test compares the two. To write it anew:
`GAIT_BLESS=1 cargo test -p gait --test cli exit_codes_page`.

0 is success: the command did its work. For `gate eval` and `policy test` that is verdict allow or dry_run.
With `--json` the other columns are the fields `error_code`, `error_category`, `retryable` and `hint`.

| exit | error_code | error_category | retryable | meaning | hint |
|--:|---|---|---|---|---|
";

const PAGE_TAIL: &str = "
## `gait exec`

The exit status of `gait exec -- CMD` is CMD's own, whatever it is; a CMD that died of signal N gives 128 + N.
Only 125, 126 and 127 (as for `env` and `nohup`), 6, 7 and 1 come from gait itself, and each of them comes with a line
`exec error: …` on stderr; 1 where the kernel decided otherwise than the policy says, which ends the session. 3 comes with
`--fail-on block` where something was blocked.

## `gate eval` in the older convention

`GAIT_GATE_EVAL_EXIT=reference` makes `gate eval` exit 0 on verdict block, for callers that look at `verdict` alone.
";

/// A failed command: what kind, what happened, and what to do.
#[derive(Debug)]
pub struct CliError {
    /// Decides the exit code and the envelope's fields.
    pub code: ErrorCode,
    /// What happened, where: a fragment without a period. The causes are in `source`.
    pub message: String,
    /// The cause.
    pub source: Option<Box<dyn Error + Send + Sync>>,
    /// What to do; empty for the table's own hint.
    pub hints: Vec<String>,
}

impl CliError {
    /// Makes an error of `code` that says `message`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None, hints: Vec::new() }
    }

    /// Makes an [`ErrorCode::InvalidInput`] error.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidInput, message)
    }

    /// Makes an [`ErrorCode::IoFailure`] error.
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::IoFailure, message)
    }

    /// Makes an error of `code` that is `error` and its causes.
    fn caused(code: ErrorCode, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(code, "").because(error)
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Returns the message with its whole chain of causes.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = cause {
            let cause_text = error.to_string();
            if !text.is_empty() {
                // Several lines, such as the mistakes of a policy with their carets, stand below.
                text.push_str(if cause_text.contains('\n') { ":\n" } else { ": " });
            }
            text.push_str(&cause_text);
            cause = error.source();
        }
        text
    }

    /// Returns why an input is bad, as a stable code; `None` if no input is to blame.
    #[must_use]
    pub fn reason_code(&self) -> Option<&'static str> {
        // Elsewhere a file that is not there is no input.
        let judges_inputs = matches!(self.code, ErrorCode::InvalidInput | ErrorCode::VerificationFailed);
        self.source.as_deref().filter(|_| judges_inputs).and_then(|source| super::bad_input::reason(source))
    }

    /// Returns the hints as one line.
    #[must_use]
    pub fn hint_text(&self) -> String {
        if self.hints.is_empty() { self.code.hint().to_owned() } else { self.hints.join("; ") }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Error for CliError {}

impl From<InputError> for CliError {
    fn from(error: InputError) -> Self {
        Self::caused(ErrorCode::InvalidInput, error)
    }
}

impl From<InvalidRunId> for CliError {
    fn from(error: InvalidRunId) -> Self {
        Self::input(error.to_string()).hint("use run_ followed by letters, digits, '_' and '-'")
    }
}

impl From<RunpackNotFound> for CliError {
    fn from(error: RunpackNotFound) -> Self {
        Self::caused(ErrorCode::InvalidInput, error)
            .hint("name a run below ./gait-out, or the path of a .zip")
    }
}

impl From<InvalidPolicy> for CliError {
    fn from(error: InvalidPolicy) -> Self {
        let hint = if error.errors.errors().iter().all(|error| error.line == 0) {
            "name a policy file or a shipped policy"
        } else {
            "correct the policy and try `gait policy validate`"
        };
        Self::caused(ErrorCode::InvalidInput, error).hint(hint)
    }
}

impl From<TokenError> for CliError {
    fn from(error: TokenError) -> Self {
        Self::caused(ErrorCode::InvalidInput, error).hint("name a token made by `gait approve`")
    }
}

impl From<RateLimitError> for CliError {
    fn from(error: RateLimitError) -> Self {
        let code = match &error {
            RateLimitError::Contended(_) => ErrorCode::StateContention,
            RateLimitError::Lock { .. } | RateLimitError::Write { .. } => ErrorCode::IoFailure,
            RateLimitError::Read(_) | RateLimitError::Parse { .. } | RateLimitError::Shape(_) => {
                ErrorCode::InvalidInput
            }
        };
        let unreadable = code == ErrorCode::InvalidInput;
        let error = Self::caused(code, error);
        if unreadable {
            error.hint("remove the file to begin counting anew, or name another --rate-limit-state")
        } else {
            error
        }
    }
}

impl From<BrokerError> for CliError {
    fn from(error: BrokerError) -> Self {
        Self::caused(ErrorCode::InvalidInput, error)
    }
}

impl From<KeyringError> for CliError {
    fn from(error: KeyringError) -> Self {
        let hint = match &error {
            KeyringError::Read(_) | KeyringError::Variable(_) | KeyringError::Invalid { .. } => {
                "name a key made by `gait keys init`"
            }
            KeyringError::Ambiguous(..) => "give one of them",
            KeyringError::NoProdKey => "give --private-key or --private-key-env",
            KeyringError::DevWithKey => "add --key-mode prod, or leave the key out",
            KeyringError::Exposed { .. } => "chmod 600 it, or remove it if others may have read it",
            KeyringError::NoHome => "set HOME, or sign with --key-mode prod --private-key",
            KeyringError::Make { .. } => {
                "make the directory writable, or sign with --key-mode prod --private-key"
            }
        };
        let made = matches!(error, KeyringError::Make { .. });
        let code = if made { ErrorCode::IoFailure } else { ErrorCode::InvalidInput };
        Self::caused(code, error).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_every_cause_once() {
        let error = CliError::input("read intent a.json").because(std::io::Error::other("it is a directory"));
        assert_eq!(error.text(), "read intent a.json: it is a directory");
        assert_eq!(error.hint_text(), ErrorCode::InvalidInput.hint());
        assert_eq!(error.hint("name a file").hint_text(), "name a file");
    }

    #[test]
    fn codes_are_distinct_and_only_contention_is_retryable() {
        let mut names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        for &code in ErrorCode::ALL {
            assert_eq!(code.is_retryable(), code == ErrorCode::StateContention, "{code:?}");
            assert_ne!(code.exit(), 0, "{code:?}");
        }
    }
}
