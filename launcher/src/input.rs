//! Reading the files that a person names: bounded, with the path in the error.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A named file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("read {what} {}", path.display())]
pub struct InputError {
    /// What the file should be, such as `policy`.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
///
/// Fails if the file cannot be read or is larger.
pub fn read(what: &'static str, path: &Path, limit: u64) -> Result<Vec<u8>, InputError> {
    let failed = |source| InputError { what, path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > limit {
        let message = format!("larger than {limit} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    Ok(bytes)
}

/// Reads a whole UTF-8 file of at most `limit` bytes.
///
/// # Errors
///
/// Fails if the file cannot be read, is larger, or is not UTF-8.
pub fn read_text(what: &'static str, path: &Path, limit: u64) -> Result<String, InputError> {
    let bytes = read(what, path, limit)?;
    String::from_utf8(bytes).map_err(|error| InputError {
        what,
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_files_are_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, [b'x'; 5]).unwrap();
        assert_eq!(read("key", &path, 5).unwrap().len(), 5);
        let error = read("key", &path, 4).unwrap_err();
        assert_eq!(error.to_string(), format!("read key {}", path.display()));
        assert_eq!(error.source.to_string(), "larger than 4 bytes");
    }
}
