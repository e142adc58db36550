//! A directory, an environment and a log of commands with what they answered.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where one test's commands run.
pub(crate) struct Sandbox {
    root: tempfile::TempDir,
    env: Vec<(String, String)>,
    log: String,
}

/// What a command answered.
pub(crate) struct Answered {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
}

impl Answered {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("home")).unwrap();
        let home = root.path().join("home").to_str().unwrap().to_owned();
        let env = vec![("HOME".to_owned(), home), ("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        Self { root, env, log: String::new() }
    }

    pub(crate) fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Every file below the sandbox, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, files: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, root, files);
                } else {
                    files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let mut files = Vec::new();
        walk(self.root.path(), self.root.path(), &mut files);
        files.sort();
        files
    }

    /// Runs `gait` with the words of `line`, and logs it.
    pub(crate) fn gait(&mut self, line: &str) -> Answered {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answered = self.gait_with(&words, "");
        _ = writeln!(self.log, "$ gait {line}");
        self.log_answer(&answered.0, &answered.1)
    }

    /// Runs `gait` with at most so many KiB of address space; an allocation beyond that ends it.
    pub(crate) fn gait_within(&self, kib: u64, words: &[&str]) -> Answered {
        let done = Command::new("/bin/sh")
            .args(["-c", &format!("ulimit -v {kib}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_gait")])
            .args(words)
            .env_clear()
            .envs(self.env.iter().cloned())
            .current_dir(self.root.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stdout = String::from_utf8(done.stdout).unwrap();
        let exit = done.status.code().unwrap_or_else(|| panic!("{words:?}: {:?}", done.status));
        Answered { exit, stdout }
    }

    fn log_answer(&mut self, answered: &Answered, stderr: &str) -> Answered {
        let root = self.root.path().to_str().unwrap().to_owned();
        _ = writeln!(self.log, "exit {}", answered.exit);
        for (mark, text) in [(" ", &*answered.stdout), ("!", stderr)] {
            for text_line in text.replace(&root, "$ROOT").lines() {
                _ = writeln!(self.log, "{mark} {text_line}");
            }
        }
        self.log.push('\n');
        Answered { exit: answered.exit, stdout: answered.stdout.clone() }
    }

    fn gait_with(&self, words: &[&str], stdin: &str) -> (Answered, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gait"))
            // The correlation id covers it.
            .arg0("gait")
            .args(words)
            .env_clear()
            .envs(self.env.iter().cloned())
            .current_dir(self.root.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let stdout = String::from_utf8(done.stdout).unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        (Answered { exit: done.status.code().unwrap(), stdout }, stderr)
    }

    /// The log: a line `$ gait …`, the exit code, stdout after a blank, stderr after an exclamation mark.
    pub(crate) fn story(&self) -> &str {
        &self.log
    }
}
