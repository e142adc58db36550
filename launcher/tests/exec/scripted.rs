//! The scenarios of `conformance/` on the scripted kernel.
//!
//! [`Kernel::actions`] is the mapping table once more, written down from the table and not from any backend: which actions
//! a step of a scenario is. They go through the real gate, recorder and runpack; a step that is let through is performed
//! by the probe itself, without gait, so that the next step finds what it would find. What comes out must be what the
//! scenario says, and the same decisions as of the backend that holds real calls.

use std::collections::VecDeque;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gait::rehearsal::{Answer, Deed, Rehearsal, Step, Thing};
use gait_agent::endpoint::{Operation, Row, Treatment};
use gait_agent::gate::Verdict;
use gait_agent::intent::SessionFacts;
use gait_agent::policy::{CompiledPolicy, Policy, Vars};

use crate::harness::World;

/// Calls that the seccomp backend answers `ENOSYS`, so that programs fall back to what they did before these calls were
/// there. Which errno a refusal has is up to a backend; that it is one is not.
const ANSWERED_ENOSYS: [&str; 10] = [
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "keyctl",
    "add_key",
    "request_key",
    "setxattrat",
    "removexattrat",
    "file_setattr",
    "clone3",
];

/// Plays what a kernel would do.
pub(crate) struct Kernel {
    pub(crate) world: Arc<World>,
    policy: CompiledPolicy,
    program: String,
}

/// What came of the steps: for each the errno, unless a backend may choose it.
pub(crate) type Errnos = Vec<Option<String>>;

impl Kernel {
    pub(crate) fn new(world: Arc<World>, program: &str) -> Self {
        let file = world.root().join("policy.yaml");
        let text = fs::read_to_string(&file).expect("the policy");
        let policy = Policy::parse("policy.yaml", &text).expect("a policy");
        let facts = SessionFacts {
            identity: "uid:0".to_owned(),
            workspace: world.at(""),
            run_id: "run_scripted".to_owned(),
        };
        let policy = CompiledPolicy::compile(&policy, &facts, &Vars::default()).expect("a policy");
        Self { world, policy, program: program.to_owned() }
    }

    /// Plays all steps in one session; returns the runpack and the errno of each step.
    pub(crate) fn play(self, steps: Vec<Vec<String>>) -> Result<(PathBuf, Errnos), String> {
        let world = Arc::clone(&self.world);
        let errnos = Arc::new(Mutex::new(Vec::new()));
        let policy = world.root().join("policy.yaml");
        let play = Rehearsal {
            policy: policy.to_str().expect("a path of ours"),
            identity: format!("uid:{}", nix::unistd::getuid()),
            workspace: &world.ws(),
            out_dir: &world.out(),
            run_id: "run_scripted",
            simulate: false,
        };
        let start = self.start(&self.program, std::slice::from_ref(&self.program));
        let told = Arc::clone(&errnos);
        let mut reel = Reel {
            kernel: self,
            steps: steps.into(),
            queue: start.into(),
            at: None,
            errnos: told,
            exited: false,
        };
        let curtain = play.play(Box::new(move |answer| reel.next(answer))).map_err(|error| error.text())?;
        if curtain.ending != "exited:0" || curtain.losses != 0 {
            return Err(format!("the script ended by {} with {} losses", curtain.ending, curtain.losses));
        }
        let errnos = errnos.lock().expect("no player panicked").clone();
        Ok((curtain.runpack, errnos))
    }

    /// The start of a dynamically linked program: the exec, and what its loader does.
    fn start(&self, program: &str, argv: &[String]) -> Vec<Step> {
        let mut steps = vec![Step::Held(vec![exec(Path::new(program), argv)])];
        steps.extend(self.loader());
        steps
    }

    fn loader(&self) -> Vec<Step> {
        let libc = libc_path();
        let mut steps =
            vec![path(Operation::Read, Path::new("/etc/ld.so.cache")), path(Operation::Read, &libc)];
        // The catalogue: held only where the policy can block it.
        if self.policy.can_block(Operation::MmapExec) {
            steps.push(path(Operation::MmapExec, &libc));
        }
        steps
    }

    fn allows(&self, deed: &Deed) -> bool {
        let Thing::Path(path) = &deed.thing else { return false };
        let action = gait_agent::action::Action {
            operation: deed.operation,
            object: gait_agent::action::Object::Path(path),
            image: b"",
            argv: deed.argv.as_deref(),
        };
        self.policy.decide(&action).verdict() == Verdict::Allow
    }

    /// Which actions a step is, in order; the first refusal ends the step.
    fn actions(&self, words: &[String]) -> Vec<Step> {
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        let file = |at: usize| resolved(Path::new(word(at)));
        let own = |at: usize| unfollowed(Path::new(word(at)));
        let below = |dir: usize, name: usize| Path::new(word(dir)).join(word(name));
        match word(0) {
            "open" | "openat2" => self.open(Path::new(word(2)), word(1)),
            "openat" => self.open(&below(1, 3), word(2)),
            "creat" => self.open(Path::new(word(1)), "WRONLY|CREAT|TRUNC"),
            "truncate" => vec![path(Operation::Truncate, &file(1))],
            "ftruncate" | "punch" => {
                vec![path(Operation::Write, &file(1)), path(Operation::Truncate, &file(1))]
            }
            "mkdir" => vec![path(Operation::Mkdir, &own(1))],
            "mkdirat" => vec![path(Operation::Mkdir, &unfollowed(&below(1, 2)))],
            "mkfifo" => vec![path(Operation::Mknod, &own(1))],
            "mknodat" => vec![path(Operation::Create, &unfollowed(&below(1, 2)))],
            "mkdevice" => vec![Step::Refused(deed(Operation::Mknod, &own(1)))],
            "symlink" => vec![path(Operation::Symlink, &own(2))],
            "symlinkat" => vec![path(Operation::Symlink, &unfollowed(&below(2, 3)))],
            "link" => link(&own(1), &own(2)),
            "linkat" => link(&unfollowed(&below(1, 2)), &unfollowed(&below(3, 4))),
            "rename" | "noreplace" => rename(&own(1), &own(2)),
            "renameat" => rename(&unfollowed(&below(1, 2)), &unfollowed(&below(3, 4))),
            "exchange" => exchange(&own(1), &own(2)),
            "unlink" => remove(Operation::Unlink, &own(1)),
            "unlinkat" => remove(Operation::Unlink, &unfollowed(&below(1, 2))),
            "rmdir" => remove(Operation::Rmdir, &own(1)),
            "removedir" => remove(Operation::Rmdir, &unfollowed(&below(1, 2))),
            "fchmodat" => vec![path(Operation::Chmod, &resolved(&below(1, 2)))],
            "fchownat" => vec![path(Operation::Chown, &resolved(&below(1, 2)))],
            verb @ ("fchmod" | "fchown" | "futimens" | "fsetxattr" | "fremovexattr") => {
                vec![path(Operation::Read, &file(1)), path(metadata(verb), &file(1))]
            }
            verb @ ("chmod" | "chown" | "lchown" | "utime" | "utimensat" | "setxattr" | "lsetxattr"
            | "removexattr") => vec![path(metadata(verb), &file(1))],
            "exec" | "execveat" => self.exec(&words[1..]),
            // More arguments than the kernel takes; a question whether a program could be run.
            "exec_large" | "execcheck" => Vec::new(),
            "mmap_exec" | "mprotect_exec" => {
                vec![path(Operation::Read, &file(1)), path(Operation::MmapExec, &file(1))]
            }
            "connect" => reach(Operation::Connect, word(2), word(3)),
            "sendto" | "sendmsg" | "sendmmsg" => reach(Operation::Send, word(2), word(3)),
            "bind" | "listen" => vec![host(Operation::Listen, word(1), word(2))],
            "autobind" => vec![host(Operation::Listen, "0.0.0.0", "0")],
            "bind_path" => vec![path(Operation::Mknod, &own(1))],
            "socket" => socket([word(1), word(2), word(3)]),
            "sysv_own" => Vec::new(),
            "raw" => raw(word(1), word(2)),
            verb => panic!("no verb {verb}"),
        }
    }

    fn open(&self, name: &Path, flags: &str) -> Vec<Step> {
        let has = |flag: &str| flags.split('|').any(|word| word == flag);
        let found = resolved(name);
        if has("PATH") {
            return Vec::new();
        }
        if has("TMPFILE") {
            return vec![path(Operation::Create, &found)];
        }
        let Ok(metadata) = found.symlink_metadata() else {
            // An attempt on what is not there is told only where it is not allowed.
            return if has("CREAT") { vec![path(Operation::Create, &found)] } else { Vec::new() };
        };
        let writes = has("WRONLY") || has("RDWR");
        let mut deeds = vec![match (writes, metadata.is_dir()) {
            (true, _) => deed(Operation::Write, &found),
            (false, true) => deed(Operation::List, &found),
            (false, false) => deed(Operation::Read, &found),
        }];
        if has("RDWR") {
            deeds.push(deed(Operation::Read, &found));
        }
        if has("TRUNC") {
            deeds.push(deed(Operation::Truncate, &found));
        }
        vec![Step::Held(deeds)]
    }

    /// A program and, for a script, its interpreters; then what the new image does before its own first step.
    fn exec(&self, argv: &[String]) -> Vec<Step> {
        let mut files = Vec::new();
        let mut name = argv[0].clone();
        let is_binary = loop {
            let found = resolved(Path::new(&name));
            let runs = found.metadata().is_ok_and(|it| it.permissions().mode() & 0o111 != 0);
            let head = if runs { fs::read(&found).unwrap_or_default() } else { Vec::new() };
            files.push((name, found));
            match head.strip_prefix(b"#!").and_then(|rest| rest.split(|&b| b == b'\n').next()) {
                Some(interpreter) => name = String::from_utf8(interpreter.to_vec()).expect("UTF-8"),
                None => break head.starts_with(b"\x7fELF"),
            }
        };
        if !is_binary {
            // The kernel does not run it, whatever the policy says.
            return Vec::new();
        }
        let asked: Vec<_> = files.iter().map(|(_, found)| exec(found, argv)).collect();
        if !asked.iter().all(|deed| self.allows(deed)) {
            return vec![Step::Held(asked)];
        }
        // What really runs has its interpreters' names in front of its arguments.
        let names: Vec<_> =
            files.iter().rev().map(|(name, _)| name.clone()).chain(argv[1..].iter().cloned()).collect();
        let run = files.iter().rev().enumerate().map(|(at, (_, found))| exec(found, &names[at..])).collect();
        let mut steps = vec![Step::Held(run)];
        steps.extend(self.loader());
        if let [.., (_, script), _] = files.as_slice() {
            steps.push(path(Operation::Read, script));
        }
        steps
    }
}

/// The running script: one step of the scenario after the other.
struct Reel {
    kernel: Kernel,
    steps: VecDeque<Vec<String>>,
    queue: VecDeque<Step>,
    /// The scenario's step that is being played.
    at: Option<Vec<String>>,
    errnos: Arc<Mutex<Errnos>>,
    exited: bool,
}

impl Reel {
    fn next(&mut self, answer: Option<Answer>) -> Option<Step> {
        if let Some(Err(errno)) = answer {
            let words = self.at.take().expect("the start of the probe is allowed");
            self.queue.clear();
            let free = ANSWERED_ENOSYS.contains(&words.get(1).map_or("", String::as_str));
            let name = format!("{:?}", nix::errno::Errno::from_raw(errno));
            self.tell((!free).then_some(name));
        }
        loop {
            if let Some(step) = self.queue.pop_front() {
                return Some(step);
            }
            if let Some(words) = self.at.take() {
                let errno = self.perform(&words);
                self.tell(errno);
            }
            let Some(words) = self.steps.pop_front() else {
                return (!std::mem::replace(&mut self.exited, true)).then_some(Step::Exits(0));
            };
            self.queue = self.kernel.actions(&words).into();
            self.at = Some(words);
        }
    }

    fn tell(&self, errno: Option<String>) {
        self.errnos.lock().expect("no player panicked").push(errno);
    }

    /// Has the probe do what was let through.
    fn perform(&self, words: &[String]) -> Option<String> {
        if ANSWERED_ENOSYS.contains(&words.get(1).map_or("", String::as_str)) {
            return None;
        }
        let line = words.join("\t") + "\n";
        let outcome = self.kernel.world.native_with(&[&self.kernel.program], line.as_bytes());
        let errno = outcome.stdout.trim().rsplit_once("errno=").expect("a result").1;
        Some(errno.to_owned())
    }
}

fn deed(operation: Operation, path: &Path) -> Deed {
    let thing = Thing::Path(path.as_os_str().as_encoded_bytes().to_vec());
    Deed { operation, thing, image: Vec::new(), argv: None }
}

fn path(operation: Operation, path: &Path) -> Step {
    Step::Held(vec![deed(operation, path)])
}

fn other(operation: Operation, text: &str) -> Deed {
    Deed { operation, thing: Thing::Other(text.to_owned()), image: Vec::new(), argv: None }
}

fn exec(file: &Path, argv: &[String]) -> Deed {
    let argv = argv.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    Deed { argv: Some(argv), ..deed(Operation::Exec, file) }
}

/// Where a name leads, through a last symlink too, also if nothing is there.
fn resolved(name: &Path) -> PathBuf {
    let own = unfollowed(name);
    match (own.canonicalize(), own.read_link()) {
        (Ok(found), _) => found,
        (Err(_), Ok(target)) => resolved(&own.parent().expect("a directory").join(target)),
        (Err(_), Err(_)) => own,
    }
}

/// The name itself, with its directory resolved.
fn unfollowed(name: &Path) -> PathBuf {
    let (parent, last) = (name.parent().expect("a directory"), name.file_name().expect("a name"));
    parent.canonicalize().map_or_else(|_| name.to_owned(), |parent| parent.join(last))
}

fn libc_path() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").expect("procfs");
    let line = maps.lines().find(|line| line.ends_with("/libc.so.6")).expect("a test with the C library");
    PathBuf::from(&line[line.find('/').expect("a path")..])
}

fn metadata(verb: &str) -> Operation {
    match verb {
        "chmod" | "fchmod" => Operation::Chmod,
        "chown" | "lchown" | "fchown" => Operation::Chown,
        "utime" | "utimensat" | "futimens" => Operation::Utime,
        _ => Operation::Setxattr,
    }
}

fn link(old: &Path, new: &Path) -> Vec<Step> {
    vec![Step::Held(vec![
        deed(Operation::LinkOld, old),
        deed(Operation::LinkNew, old),
        deed(Operation::LinkNew, new),
    ])]
}

fn rename(old: &Path, new: &Path) -> Vec<Step> {
    let mut deeds = vec![deed(Operation::RenameOld, old), deed(Operation::RenameNew, new)];
    if new.symlink_metadata().is_ok() {
        deeds.push(deed(Operation::RenameOver, new));
    }
    vec![Step::Held(deeds)]
}

fn exchange(one: &Path, two: &Path) -> Vec<Step> {
    let both = [one, two].into_iter();
    let deeds = both.flat_map(|it| [deed(Operation::RenameOver, it), deed(Operation::RenameNew, it)]);
    vec![Step::Held(deeds.collect())]
}

fn remove(operation: Operation, name: &Path) -> Vec<Step> {
    if name.symlink_metadata().is_ok() { vec![path(operation, name)] } else { Vec::new() }
}

fn host(operation: Operation, address: &str, port: &str) -> Step {
    let address: IpAddr = address.parse().expect("an address");
    let thing = Thing::Host(None, Some(address.to_canonical()), port.parse().expect("a port"));
    Step::Held(vec![Deed { operation, thing, image: Vec::new(), argv: None }])
}

fn reach(operation: Operation, to: &str, port: &str) -> Vec<Step> {
    if to.starts_with('/') {
        return vec![path(Operation::UnixConnect, &resolved(Path::new(to)))];
    }
    if to.starts_with('@') {
        return vec![Step::Held(vec![other(Operation::AbstractConnect, &format!("unix:{to}"))])];
    }
    vec![host(if port == "53" { Operation::Resolve } else { operation }, to, port)]
}

/// Plain sockets are no action; the rest is named by family, and by kind where the family alone would be plain.
fn socket(words: [&str; 3]) -> Vec<Step> {
    let text = match words {
        ["1", ..] | ["2" | "10", "1", "0" | "6"] | ["2" | "10", "2", "0" | "17"] | ["16", _, "0"] => {
            return Vec::new();
        }
        ["2", "3", _] => "AF_INET:raw",
        ["2", _, "262"] => "AF_INET:mptcp",
        ["2", _, "132"] => "AF_INET:sctp",
        ["16", ..] => "AF_NETLINK",
        ["17", ..] => "AF_PACKET",
        ["29", ..] => "AF_CAN",
        ["38", ..] => "AF_ALG",
        ["40", ..] => "AF_VSOCK",
        ["44", ..] => "AF_XDP",
        other => panic!("no name for the socket {other:?}"),
    };
    vec![Step::Held(vec![other(Operation::Socket, text)])]
}

/// Calls whose row alone says what they are. Which program stands behind a foreign pid cannot be seen from inside.
fn raw(call: &str, whom: &str) -> Vec<Step> {
    let Some(row) = Row::of_syscall(call) else { return Vec::new() };
    if row.id == "sysv_ipc" {
        // Only ids that the tree did not make are an action.
        let foreign = !whom.is_empty();
        return foreign.then(|| Step::Refused(other(row.operations[0], call))).into_iter().collect();
    }
    match (row.treatment, whom) {
        (Treatment::Scalar, "0") => Vec::new(),
        (Treatment::Scalar, _) => vec![Step::Held(vec![other(row.operations[0], "pid:unknown")])],
        (Treatment::Refused, _) => {
            let text = if call == "ioctl" { "ioctl:TIOCSTI" } else { call };
            vec![Step::Refused(other(row.operations[0], text))]
        }
        // Of their rows the calls that answer ENOSYS.
        (Treatment::OnBehalf | Treatment::Verified, _) => Vec::new(),
    }
}
