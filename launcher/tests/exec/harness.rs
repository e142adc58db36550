//! A temporary world for one session: root directory, workspace, policy, and the way to run something in it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use crate::probes::probe;

/// The binary under test: the one just built, or what `GAIT_TEST_BINARY` names, such as a release build.
pub(crate) static GAIT: LazyLock<String> = LazyLock::new(|| {
    std::env::var("GAIT_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_gait").to_owned())
});

/// The backend that sessions are to have: `seccomp`, or what `GAIT_TEST_BACKEND` names.
static BACKEND: LazyLock<String> =
    LazyLock::new(|| std::env::var("GAIT_TEST_BACKEND").unwrap_or_else(|_| "seccomp".to_owned()));

/// Set where the kernel cannot enforce everything and the tests are to run all the same: sessions are told to accept it.
const DEGRADED: &str = "GAIT_TEST_DEGRADED";

/// A file to which each check that could not be made adds a line, so that whoever runs the tests can hold it against
/// what was declared.
const SKIPS: &str = "GAIT_TEST_SKIPS";

/// How many times longer than on ordinary hardware things may take, from `GAIT_TEST_SLOWNESS`: an emulated processor has
/// the same order of events, at another pace.
static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    std::env::var("GAIT_TEST_SLOWNESS")
        .map_or(1, |text| text.parse().expect("GAIT_TEST_SLOWNESS is a number"))
});

/// How long a session may take before the test calls it wedged. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A policy that lets through what most probes need and blocks the rest: `open/` and `pub/` are free, `keep/` may be
/// read, `secret/` may not, and only `${port}` on loopback can be reached.
pub(crate) const STANDARD: &str = include_str!("conformance/standard.yaml");

/// One world. Removed with everything in it at the end of the test.
pub(crate) struct World {
    root: TempDir,
    policy: PathBuf,
    mark: String,
    flags: Vec<OsString>,
    wrapper: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    patience: Duration,
}

/// What came of one run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl World {
    /// Makes the directories and the standard policy.
    pub(crate) fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let root = tempfile::Builder::new().prefix("gait-test-").tempdir().expect("a temporary directory");
        let mark = format!("{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let mut world = Self {
            policy: root.path().join("policy.yaml"),
            root,
            mark,
            flags: vec!["--backend".into(), BACKEND.as_str().into()],
            wrapper: Vec::new(),
            envs: Vec::new(),
            patience: PATIENCE,
        };
        // `/tmp` may be reached through a symlink; targets in records are resolved paths.
        assert_eq!(
            world.root(),
            fs::canonicalize(world.root()).expect("an existing root"),
            "TMPDIR must be a resolved path"
        );
        if std::env::var_os(DEGRADED).is_some() {
            world.flags(["--allow-degraded"]);
        }
        for dir in ["ws/open", "ws/keep", "ws/secret", "home", "out"] {
            fs::create_dir_all(world.root().join(dir)).expect("a directory");
        }
        world.write("ws/keep/file", "keep\n");
        world.write("ws/secret/file", "secret\n");
        world.write("ws/open/file", "open\n");
        world.set_policy(STANDARD, 0);
        world
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn ws(&self) -> PathBuf {
        self.root().join("ws")
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.root().join("out")
    }

    /// Returns the path of something in the workspace as text.
    pub(crate) fn at(&self, relative: &str) -> String {
        self.ws().join(relative).to_str().expect("a path of ours").to_owned()
    }

    /// Writes a file below the root, with the directories it needs.
    pub(crate) fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(relative);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, content).expect("a written file");
        path
    }

    pub(crate) fn exists(&self, relative: &str) -> bool {
        self.root().join(relative).symlink_metadata().is_ok()
    }

    /// Writes the policy, with `${root}`, `${ws}` and `${port}` filled in.
    pub(crate) fn set_policy(&self, text: &str, port: u16) {
        fs::write(&self.policy, self.fill(text, port)).expect("a written policy");
    }

    /// Replaces `${root}`, `${ws}` and `${port}`.
    pub(crate) fn fill(&self, text: &str, port: u16) -> String {
        text.replace("${ws}", self.ws().to_str().expect("a path of ours"))
            .replace("${root}", self.root().to_str().expect("a path of ours"))
            .replace("${port}", &port.to_string())
    }

    /// Uses a shipped policy instead of the file.
    pub(crate) fn use_builtin(&mut self, name: &str) {
        self.policy = PathBuf::from(name);
    }

    /// Adds flags of `gait exec`.
    pub(crate) fn flags<S: Into<OsString>>(&mut self, flags: impl IntoIterator<Item = S>) -> &mut Self {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Runs gait itself under another program, such as `setpriv`.
    pub(crate) fn wrapper<S: Into<OsString>>(&mut self, words: impl IntoIterator<Item = S>) -> &mut Self {
        self.wrapper = words.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn env(&mut self, key: &str, value: impl Into<OsString>) -> &mut Self {
        self.envs.push((key.into(), value.into()));
        self
    }

    pub(crate) fn patience(&mut self, patience: Duration) -> &mut Self {
        self.patience = patience;
        self
    }

    /// Prepares `gait exec … -- words`, without starting it.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut line: Vec<OsString> = self.wrapper.clone();
        line.extend([
            GAIT.as_str().into(),
            "exec".into(),
            "--policy".into(),
            self.policy.clone().into_os_string(),
        ]);
        line.extend([
            "--workspace".into(),
            self.ws().into_os_string(),
            "--out-dir".into(),
            self.out().into_os_string(),
        ]);
        line.extend(self.flags.iter().cloned());
        line.push("--".into());
        line.extend(words.iter().map(Into::into));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        self.dress(&mut command);
        command
    }

    /// Prepares the same words without gait.
    pub(crate) fn native_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        self.dress(&mut command);
        command
    }

    fn dress(&self, command: &mut Command) {
        command
            .current_dir(self.ws())
            .env("HOME", self.root().join("home"))
            .env("GAIT_TEST_MARK", &self.mark);
        command.env_remove("GAIT_RUN_ID").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (key, value) in &self.envs {
            command.env(key, value);
        }
        // Its own session: no probe can reach the terminal or the process group of whoever runs the tests.
        // SAFETY: setsid is async-signal-safe and touches no memory.
        #[expect(unsafe_code, reason = "std has no setsid")]
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                Ok(())
            });
        }
    }

    /// Runs words under gait.
    pub(crate) fn gait(&self, words: &[&str]) -> Outcome {
        self.finish(self.command(words), b"")
    }

    /// Runs words under gait with something on standard input.
    pub(crate) fn gait_with(&self, words: &[&str], input: &[u8]) -> Outcome {
        self.finish(self.command(words), input)
    }

    /// Runs words as they are.
    pub(crate) fn native(&self, words: &[&str]) -> Outcome {
        self.finish(self.native_command(words), b"")
    }

    /// Runs words as they are with something on standard input.
    pub(crate) fn native_with(&self, words: &[&str], input: &[u8]) -> Outcome {
        self.finish(self.native_command(words), input)
    }

    /// Runs a prepared command to its end, or fails the test when it wedges.
    pub(crate) fn finish(&self, mut command: Command, input: &[u8]) -> Outcome {
        let started = Instant::now();
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let feeder = child.stdin.take().map(|mut pipe| {
            let input = input.to_vec();
            // A reader that goes away early is the workload's own affair.
            thread::spawn(move || drop(pipe.write_all(&input)))
        });
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let status = self.wait(&mut child);
        let outcome = Outcome {
            status: status.unwrap_or_default(),
            stdout: stdout.join().expect("a reader"),
            stderr: stderr.join().expect("a reader"),
            took: started.elapsed(),
        };
        if let Some(feeder) = feeder {
            feeder.join().expect("a feeder");
        }
        assert!(
            status.is_some(),
            "{command:?} wedged after {:?}\n{}{}",
            outcome.took,
            outcome.stdout,
            outcome.stderr
        );
        outcome
    }

    /// Waits for a child; `None` where it had to be killed for being late.
    pub(crate) fn wait(&self, child: &mut Child) -> Option<ExitStatus> {
        let deadline = Instant::now() + self.patience * *SLOWNESS;
        loop {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                return Some(status);
            }
            if Instant::now() > deadline {
                child.kill().expect("a child of ours");
                child.wait().expect("a child of ours");
                for pid in self.survivors() {
                    signal(pid, nix::sys::signal::Signal::SIGKILL);
                }
                return None;
            }
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Lists the processes that carry this world's mark in their environment, whoever their parent is.
    pub(crate) fn survivors(&self) -> Vec<i32> {
        let wanted = format!("GAIT_TEST_MARK={}\0", self.mark);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("procfs").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            if contains(&environ, wanted.as_bytes()) && !is_zombie(pid) {
                found.push(pid);
            }
        }
        found
    }

    /// Fails where a process of the session is still there after a grace time.
    pub(crate) fn assert_no_survivor(&self, grace: Duration) -> Duration {
        let started = Instant::now();
        loop {
            let left = self.survivors();
            if left.is_empty() {
                return started.elapsed();
            }
            if started.elapsed() > grace * *SLOWNESS {
                let described: Vec<_> = left.iter().map(|&pid| (pid, cmdline(pid))).collect();
                for &pid in &left {
                    signal(pid, nix::sys::signal::Signal::SIGKILL);
                }
                panic!("still alive {grace:?} after the session: {described:?}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the sealed runpack; there must be exactly one.
    pub(crate) fn runpack(&self) -> PathBuf {
        let packs = self.runpacks();
        assert_eq!(packs.len(), 1, "one runpack in {:?}: {packs:?}", self.out());
        packs.into_iter().next().expect("one")
    }

    pub(crate) fn runpacks(&self) -> Vec<PathBuf> {
        let mut packs: Vec<_> = fs::read_dir(self.out())
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        packs.retain(|path| path.extension().is_some_and(|ext| ext == "zip"));
        packs.sort();
        packs
    }

    /// Empties the output directory, so that a world can be used for a second session.
    pub(crate) fn forget_runs(&self) {
        fs::remove_dir_all(self.out()).expect("an output directory");
        fs::create_dir(self.out()).expect("an output directory");
    }
}

impl Outcome {
    /// The exit code as a shell would show it.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// The lines in which gait says that it blocked something.
    pub(crate) fn blocked(&self) -> Vec<&str> {
        // The workload may be in the middle of a line of its own.
        self.stderr.lines().filter_map(|line| line.find("gait: blocked ").map(|at| &line[at..])).collect()
    }

    /// Fails with everything that was seen unless the exit code is the wanted one.
    pub(crate) fn expect_code(&self, wanted: i32) -> &Self {
        assert_eq!(
            self.code(),
            wanted,
            "exit code\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Fails where gait blocked anything.
    pub(crate) fn expect_clean(&self) -> &Self {
        assert!(self.blocked().is_empty(), "{}", self.stderr);
        self
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).expect("a readable pipe");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Sends a signal to one process; a process that is gone is fine.
pub(crate) fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    match nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("kill {pid}: {error}"),
    }
}

/// Returns the children of a process, read from procfs.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|word| word.parse::<i32>().ok()));
    }
    found
}

fn cmdline(pid: i32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Waits until a condition holds; `false` where it does not in time.
pub(crate) fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the tests run as root; some native comparisons need it.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Finds a program in `PATH`.
/// Whether sessions have their rules in the kernel.
pub(crate) fn in_kernel() -> bool {
    *BACKEND == "ebpf"
}

pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Reads the value after `key=` in a probe's output.
pub(crate) fn value<'a>(output: &'a str, key: &str) -> Option<&'a str> {
    output.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// Reads a number after `key=` in a probe's output.
pub(crate) fn count(outcome: &Outcome, key: &str) -> u64 {
    value(&outcome.stdout, key)
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no {key}= in\n{}\n{}", outcome.stdout, outcome.stderr))
}

/// Says on the test's output that a check could not be made here, and why.
pub(crate) fn skipped(what: &str, why: impl AsRef<OsStr>) {
    let line = format!("{what}: {}", why.as_ref().to_string_lossy());
    eprintln!("SKIPPED {line}");
    if let Some(file) = std::env::var_os(SKIPS) {
        let mut file =
            fs::OpenOptions::new().append(true).create(true).open(file).expect("the list of skips");
        file.write_all(format!("{line}\n").as_bytes()).expect("the list of skips");
    }
}
