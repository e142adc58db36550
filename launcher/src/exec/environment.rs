//! The workload's environment: `exec.env` of the policy, and what gait tells the workload.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

use super::command::CommandError;

/// The variable that tells a workload its run.
pub(crate) const RUN_ID: &str = "GAIT_RUN_ID";

/// Returns the variables of the workload as execve(2) takes them.
///
/// # Errors
/// Where a value holds a NUL byte.
pub(crate) fn build(
    inherited: impl Iterator<Item = (OsString, OsString)>,
    keeps: impl Fn(&[u8]) -> bool,
    set: impl Iterator<Item = (String, String)>,
    run_id: &str,
) -> Result<Vec<CString>, CommandError> {
    let mut variables: std::collections::BTreeMap<Vec<u8>, Vec<u8>> = inherited
        .map(|(name, value)| (name.into_vec(), value.into_vec()))
        .filter(|(name, _)| keeps(name))
        .collect();
    variables.extend(set.map(|(name, value)| (name.into_bytes(), value.into_bytes())));
    variables.insert(RUN_ID.as_bytes().to_vec(), run_id.as_bytes().to_vec());
    variables
        .into_iter()
        .map(|(mut line, value)| {
            line.push(b'=');
            line.extend_from_slice(&value);
            CString::new(line).map_err(|_nul| CommandError::Nul)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_kept_dropped_and_set() {
        let inherited = [("A", "1"), ("B_TOKEN", "2"), ("C", "3")].map(|(n, v)| (n.into(), v.into()));
        let set = [("C".to_owned(), "4".to_owned())];
        let built = build(inherited.into_iter(), |name| !name.ends_with(b"_TOKEN"), set.into_iter(), "run_x")
            .unwrap();
        let expected = [c"A=1", c"C=4", c"GAIT_RUN_ID=run_x"].map(CString::from);
        assert_eq!(built, expected);
    }
}
