//! What can go wrong in a benchmark.

use std::io;

/// A benchmark could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A file, pipe or process failed.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// A measured program did not do its work.
    #[error("{command}: {detail}")]
    Program { command: String, detail: String },
    /// Something that a benchmark builds on is not there.
    #[error("{0}")]
    Missing(String),
    /// A document could not be read or written.
    #[error("{what}: {source}")]
    Json { what: String, source: serde_json::Error },
}

impl BenchError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    pub(crate) fn json(what: impl Into<String>, source: serde_json::Error) -> Self {
        Self::Json { what: what.into(), source }
    }
}
