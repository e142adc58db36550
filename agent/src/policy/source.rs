//! Policy files as text, and errors that point into them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::syntax::Place;

/// A policy file: its name, as people know it, and its text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Where a rule was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file, or `builtin:` and the name of a shipped policy. Not part of the decoded form, whose reader knows it.
    #[serde(skip, default = "no_file")]
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
}

fn no_file() -> Arc<str> {
    "".into()
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One mistake in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The file.
    pub file: String,
    /// The line, counted from 1; 0 where the mistake is the file itself.
    pub line: u32,
    /// The column, counted from 1 in characters.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    snippet: Option<Snippet>,
}

/// How many characters of a line are shown before and after the place that is meant. A policy may be one long line.
const SHOWN: usize = 120;
/// More mistakes than this are not shown: each holds a piece of the file.
const MAX_ERRORS: usize = 100;

/// The part of a line that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snippet {
    text: String,
    /// How many of its characters stand before the place.
    before: usize,
    /// How many are meant.
    width: usize,
}

impl Snippet {
    fn new(line: &str, column: u32, width: u32) -> Self {
        let column = usize::try_from(column.saturating_sub(1)).unwrap_or_default();
        let skipped = column.saturating_sub(SHOWN);
        let mut rest = line.trim_end().chars().skip(skipped);
        let mut text = String::from(if skipped > 0 { "…" } else { "" });
        let before = column - skipped + text.chars().count();
        text.extend(rest.by_ref().take(2 * SHOWN));
        if rest.next().is_some() {
            text.push('…');
        }
        let left = text.chars().count().saturating_sub(before);
        let width = usize::try_from(width).unwrap_or(1).min(left).max(1);
        Self { text, before, width }
    }
}

impl PolicyError {
    pub(crate) fn at(source: &Source, place: Place, message: impl Into<String>) -> Self {
        let line = usize::try_from(place.line).unwrap_or(usize::MAX);
        let text = source.text.lines().nth(line.saturating_sub(1)).unwrap_or("");
        Self {
            file: source.name.clone(),
            line: place.line,
            column: place.column,
            message: message.into(),
            snippet: Some(Snippet::new(text, place.column, place.width)),
        }
    }

    pub(crate) fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message: message.into(), snippet: None }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Snippet { text, before, width }) = &self.snippet else {
            return write!(f, "{}: {}", self.file, self.message);
        };
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        // Tabs stay tabs, so that the caret stands where the eye expects it.
        let indent: String = text.chars().take(*before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(*width);
        let (file, line, column, message) = (&self.file, self.line, self.column, &self.message);
        write!(
            f,
            "{file}:{line}:{column}: {message}\n{gutter} |\n{number} | {text}\n{gutter} | {indent}{carets}"
        )
    }
}

/// Everything that is wrong with a policy and the policies it extends, in the order of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyErrors(pub(crate) Vec<PolicyError>);

impl PolicyErrors {
    /// Returns the mistakes; there is at least one.
    #[must_use]
    pub fn errors(&self) -> &[PolicyError] {
        &self.0
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

/// Collects the mistakes of one file.
#[derive(Debug)]
pub(crate) struct Reporter<'a> {
    pub(crate) source: &'a Source,
    pub(crate) errors: Vec<PolicyError>,
}

impl<'a> Reporter<'a> {
    pub(crate) const fn new(source: &'a Source) -> Self {
        Self { source, errors: Vec::new() }
    }

    pub(crate) fn report(&mut self, place: Place, message: impl Into<String>) {
        if self.errors.len() == MAX_ERRORS {
            self.errors.push(PolicyError::of_file(&self.source.name, "there are more mistakes than these"));
        }
        if self.errors.len() > MAX_ERRORS {
            return;
        }
        let place = Place { line: place.line.max(1), column: place.column.max(1), ..place };
        self.errors.push(PolicyError::at(self.source, place, message));
    }
}
