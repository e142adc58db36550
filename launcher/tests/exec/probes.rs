//! The probes: C programs of `probe/`, each built once.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// Set where there is no compiler: the probes that `every_probe_builds` left on another machine are used as they are.
const PREBUILT: &str = "GAIT_TEST_PREBUILT";

/// Builds a probe once and returns its path.
pub(crate) fn probe(name: &'static str) -> String {
    static BUILT: OnceLock<Mutex<Vec<(&'static str, String)>>> = OnceLock::new();
    let mut built = BUILT.get_or_init(Mutex::default).lock().expect("no builder panicked");
    if let Some((_, path)) = built.iter().find(|(known, _)| *known == name) {
        return path.clone();
    }
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exec/probe").join(name).with_extension("c");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join(format!("probe-{name}"));
    if std::env::var_os(PREBUILT).is_none() {
        let fresh = dir.join(format!("{name}.{}", std::process::id()));
        let output = Command::new("cc")
            .args(["-std=gnu11", "-O1", "-Wall", "-Wno-nonnull", "-pthread", "-o"])
            .args([fresh.as_os_str(), source.as_os_str()])
            .output()
            .expect("cc, which the Rust linker needs too");
        assert!(output.status.success(), "cc {source:?}\n{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&fresh, &path).expect("a probe in its place");
    }
    let path =
        fs::canonicalize(path).expect("a probe").to_str().expect("a UTF-8 target directory").to_owned();
    built.push((name, path.clone()));
    path
}

#[test]
fn every_probe_builds() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exec/probe");
    let mut built = 0;
    for entry in fs::read_dir(sources).expect("the probes") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ext| ext == "c") {
            let name = path.file_stem().and_then(OsStr::to_str).expect("a name of ours").to_owned();
            assert!(Path::new(&probe(name.leak())).is_file());
            built += 1;
        }
    }
    assert!(built > 0, "there are no probes");
}
