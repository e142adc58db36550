//! `gait agent run` where it cannot run. What it does where it can is tested in `launcher/src/daemon/tests`, and with a kernel
//! and systemd in `ebpf/vmtest`.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::sandbox::Sandbox;

/// As a plain user: it says what is missing, and touches nothing.
#[test]
fn a_plain_user_cannot_own_programs() {
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("gait");
    std::fs::copy(env!("CARGO_BIN_EXE_gait"), &program).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        if is_root() {
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        }
        let done = command.arg("--no-new-privs").arg(&program).args(words).current_dir("/").output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let socket = place.path().join("run/agent.sock");
    let (exit, stdout, stderr) = run(&["agent", "run", "--socket", socket.to_str().unwrap()]);
    assert_eq!((exit, stdout.as_str()), (Some(7), ""));
    assert!(stderr.starts_with("agent run error: "), "{stderr}");
    assert!(stderr.contains("needs root") && stderr.contains("\nhint: "), "{stderr}");
    let (exit, stdout, stderr) = run(&["agent", "run", "--json"]);
    assert_eq!((exit, stderr.as_str()), (Some(7), ""));
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(answer["error_code"], "dependency_missing");
    assert!(!socket.parent().unwrap().exists(), "nothing was made");
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t")
}

#[test]
fn it_explains_itself_and_its_usage() {
    let mut sandbox = Sandbox::new();
    let answered = sandbox.gait("agent run --explain");
    assert_eq!((answered.exit, answered.stdout.lines().count()), (0, 1));
    assert!(answered.stdout.contains("needs root"), "{}", answered.stdout);
    assert_eq!(sandbox.gait("agent").exit, 6);
    assert_eq!(sandbox.gait("agent run --socket").exit, 6);
}
