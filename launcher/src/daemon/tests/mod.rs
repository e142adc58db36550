//! The daemon as a process of its own, and clients that are other processes and other users.
//!
//! The kernel is played by [`owner::Pins`], whose state is files that a test reads from outside. As root the clients become
//! another user; as a plain user they stay who they are, and everything holds the same.

mod lifecycle;
mod owner;
mod refusals;

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::peer::ROOT;
use super::{Owner, run};
use crate::sys::{packets, process};

/// The variable that tells the test binary to be a daemon, and where.
const DAEMON_DIRECTORY: &str = "GAIT_TEST_DAEMON";
/// Nobody's user and group id.
const NOBODY: &str = "65534";
const CLIENT: &str = include_str!("client.py");
const SOON: Duration = Duration::from_secs(20);

/// Not a test: what [`Daemon::start`] runs in a process of its own.
#[test]
#[ignore = "it is the daemon of the other tests, which start it"]
fn a_daemon_for_other_tests() {
    let directory = PathBuf::from(std::env::var_os(DAEMON_DIRECTORY).unwrap());
    let files =
        run::Files { socket: directory.join("run/agent.sock"), lock: directory.join("run/agent.lock") };
    let pins = directory.join("pins");
    let load = || match std::fs::read_to_string(directory.join("unable")) {
        Ok(why) => Err(super::refused(why, "use another kernel")),
        Err(_) => Ok(Arc::new(owner::Pins::load(&pins)) as Arc<dyn Owner>),
    };
    let ended = run::run(&files, || Ok(()), load);
    match ended {
        Ok(ended) => println!("\nended with {} live, {} blocked", ended.live, ended.blocked),
        Err(error) => println!("\ndid not run: {error}"),
    }
}

/// A place with a daemon in it, or several in turn.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn socket(&self) -> PathBuf {
        self.path().join("run/agent.sock")
    }

    /// What is pinned, as `name content`, sorted.
    fn pins(&self) -> Vec<String> {
        owner::listing(&self.path().join("pins"))
    }

    fn daemon_command(&self) -> Command {
        let mut command = Command::new("env");
        command
            // The harness has a thread that knows nothing of signals; the program as it is has none.
            .args(["--block-signal=TERM", "--block-signal=INT", "--block-signal=HUP"])
            .arg(std::env::current_exe().unwrap())
            .args(["daemon::tests::a_daemon_for_other_tests", "--exact", "--ignored", "--nocapture"])
            .env(DAEMON_DIRECTORY, self.path())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a daemon and waits until it listens.
    fn start(&self) -> Daemon {
        let daemon = Daemon(self.daemon_command().spawn().unwrap());
        soon("the daemon listens", || is_there(&self.socket()));
        daemon
    }

    /// A client that is somebody else.
    fn client(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        if process::real_uid() == ROOT {
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        }
        command.args(["--no-new-privs", "python3", "-c", CLIENT]).arg(self.socket()).args(words);
        // The interpreter that everybody may run.
        command
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Lets a client do what it is told, and returns what it says.
    fn ask(&self, words: &[&str]) -> String {
        let done = self.client(words).output().unwrap();
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{words:?}: {told}");
        String::from_utf8(done.stdout).unwrap().trim_end().to_owned()
    }

    /// Starts a client that holds a session, and waits until it has it.
    fn hold(&self) -> Holder {
        let mut child = self.client(&["hold"]).spawn().unwrap();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        let member = line.trim().strip_prefix("holds ").unwrap_or_else(|| panic!("{line}"));
        Holder { member: member.parse().unwrap(), child, said }
    }
}

/// A running daemon; killed where a test forgets it.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: i32) {
        process::kill(self.0.id(), signal).unwrap();
    }

    /// Waits for the end; returns what was printed, and the signal that ended it.
    fn ended(mut self) -> (String, Option<i32>) {
        let status = self.0.wait().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.0.stdout.take().unwrap(), &mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with("ended") || line.starts_with("did not"));
        (line.unwrap_or_default().to_owned(), status.signal())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A client with a session, and the process in it.
struct Holder {
    child: Child,
    member: u32,
    said: std::io::BufReader<std::process::ChildStdout>,
}

impl Holder {
    /// What the client says when it is done, after the end of its standard input.
    fn done(mut self) -> String {
        drop(self.child.stdin.take());
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.said, &mut text).unwrap();
        self.child.wait().unwrap();
        text.trim_end().to_owned()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = process::kill(self.member, libc::SIGKILL);
    }
}

/// Whether a daemon takes connections.
fn is_there(socket: &Path) -> bool {
    packets::connect_to(socket).is_ok_and(|fd| !process::hung_up(fd.as_fd()))
}

fn soon(what: &str, so: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < until, "not so after {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
