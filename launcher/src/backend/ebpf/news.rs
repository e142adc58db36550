//! What the kernel's records say, as actions that are judged and recorded.

use std::collections::VecDeque;
use std::sync::Arc;

use gait_agent::action::{Action, Object as Target};
use gait_agent::endpoint::{EndpointClass, Operation, TargetKind};
use gait_agent::gate::{Decision, Verdict};
use gait_agent::policy::{CompiledPolicy, Lowered};
use gait_ebpf::layout::{event_flags, event_kind, ground, verdict};
use rustc_hash::FxHashMap;

use super::hold::{Held, Holder, Question};
use super::objects::{self, Asker, Object};
use super::record::{Deed, Record, Side};
use crate::session_config::decide;
use crate::sys::bpf::boot_ns;
use crate::sys::process;

/// What the records said.
#[derive(Debug)]
pub(super) struct News {
    pub(super) holder: Holder,
    pub(super) images: Images,
    /// Actions of the record that was read last.
    pub(super) pending: VecDeque<Pending>,
    /// Processes that were stopped because the ring was nearly full.
    pub(super) paused: Vec<(u32, u32)>,
    /// What everything of the workload descends from.
    pub(super) tree: u32,
    /// Records that could not be read.
    pub(super) garbled: u64,
}

/// What actions are judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gate<'a> {
    pub(super) policy: &'a CompiledPolicy,
    pub(super) hidden: &'a [Vec<u8>],
    pub(super) rules: &'a Lowered,
}

impl Gate<'_> {
    fn decide(self, action: &Action<'_>) -> Decision {
        decide(self.policy, self.hidden, action)
    }
}

/// Paths of images by the kernel's number.
#[derive(Debug)]
pub(super) struct Images {
    known: FxHashMap<u32, Arc<[u8]>>,
    /// One copy of each path.
    paths: FxHashMap<Box<[u8]>, Arc<[u8]>>,
    /// What runs before the first exec.
    own: Arc<[u8]>,
}

impl Images {
    pub(super) fn new() -> Self {
        let own = objects::own_image().into();
        Self { known: FxHashMap::default(), paths: FxHashMap::default(), own }
    }

    fn learn(&mut self, number: u32, path: Vec<u8>) {
        let path = match self.paths.get(path.as_slice()) {
            Some(known) => Arc::clone(known),
            None => {
                let shared: Arc<[u8]> = path.as_slice().into();
                self.paths.insert(path.into_boxed_slice(), Arc::clone(&shared));
                shared
            }
        };
        self.known.insert(number, path);
    }

    fn of(&self, number: u32) -> Arc<[u8]> {
        let unknown = || if number == 0 { Arc::clone(&self.own) } else { Arc::from(&b""[..]) };
        self.known.get(&number).map_or_else(unknown, Arc::clone)
    }
}

/// One action that the kernel decided.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) at_ns: u64,
    pub(super) tid: u32,
    image: Arc<[u8]>,
    operation: Operation,
    path: Vec<u8>,
    pub(super) decision: Decision,
}

impl News {
    /// Takes one record in.
    pub(super) fn take(&mut self, record: &Record<'_>, gate: Gate<'_>) {
        let event = record.event;
        match event.kind {
            event_kind::IMAGE => self.images.learn(event.image, record.path(Side::First)),
            event_kind::PAUSE => self.paused.push((event.tgid, event.tid)),
            event_kind::HOLD => self.hold(record, gate),
            event_kind::ACTION => self.decided(record, gate),
            event_kind::EMPTY => {}
            _ => self.garbled += 1,
        }
    }

    /// The object of one operation as it is judged.
    fn object(&self, record: &Record<'_>, deed: Deed, image: &[u8], gate: Gate<'_>) -> Object {
        let asker = Asker { tid: record.event.tid, tgid: record.event.tgid, tree: self.tree };
        let writes = deed.operation.class() != EndpointClass::FsRead;
        let object = objects::judged(record.path(deed.object), record.inode(deed.object), asker, writes);
        let Object::Judged(path) = &object else { return object };
        // The rule that names the thing counts, whatever it is called by now.
        let Some(named) = record.identity(deed.object).and_then(|name| gate.rules.literals.get(name)) else {
            return object;
        };
        let other = record.path_below(deed.object, &named.path);
        let on = |path: &[u8]| {
            let object = Target::Path(path);
            gate.decide(&Action { operation: deed.operation, object, image, argv: None }).verdict()
        };
        if on(&other) > on(path) { Object::Judged(other) } else { object }
    }

    fn hold(&mut self, record: &Record<'_>, gate: Gate<'_>) {
        let event = record.event;
        let image = self.images.of(event.image);
        // A file that was removed can only be reached through a descriptor of the tree's: there is nothing to judge.
        let deeds = if record.has(event_flags::REMOVED) {
            Vec::new()
        } else {
            record.deeds().map(|deed| (deed.operation, self.object(record, deed, &image, gate))).collect()
        };
        let question = Question { object: event.object, second: event.second, operations: event.operations };
        let at_ns = wall_clock(event.at);
        self.holder.ask(Held {
            tid: event.tid,
            tgid: event.tgid,
            at_ns,
            asked: event.at,
            image,
            deeds,
            question,
        });
    }

    fn decided(&mut self, record: &Record<'_>, gate: Gate<'_>) {
        let event = record.event;
        let image = self.images.of(event.image);
        let at_ns = wall_clock(event.at);
        let blocks = record.deeds().any(|deed| deed.verdict == verdict::BLOCK);
        // Blocked although no table says so: the tables leave it to the gate, and nobody could be asked there.
        let unasked = event.verdict == verdict::BLOCK && !blocks && !record.has(event_flags::SIMULATED);
        for deed in record.deeds() {
            let mut pending = Pending {
                at_ns,
                tid: event.tid,
                image: Arc::clone(&image),
                operation: deed.operation,
                path: Vec::new(),
                decision: Decision::NEVER,
            };
            if !record.is_pathless() {
                let (path, foreign) = match self.object(record, deed, &image, gate) {
                    Object::Judged(path) => (path, false),
                    Object::Foreign(path) => (path, true),
                    Object::Hidden => continue,
                };
                pending.path = path;
                pending.decision = match deed.verdict {
                    _ if foreign || record.is_never() => Decision::NEVER,
                    _ if unasked => {
                        let decision = gate.decide(&pending.action());
                        if decision.verdict() == Verdict::Allow { Decision::NEVER } else { decision }
                    }
                    verdict::ALLOW | verdict::SILENT => Decision::preloaded(true),
                    verdict::BLOCK => Decision::preloaded(false),
                    // Left to the gate, and something else decided the call.
                    _ => gate.decide(&pending.action()),
                };
            } else {
                pending.operation = without_path(deed.operation);
                pending.path = ground_text(event.object).as_bytes().to_vec();
            }
            self.pending.push_back(pending);
        }
    }

    /// The ring is read out: who had to wait for that goes on.
    pub(super) fn resume_paused(&mut self) {
        for (tgid, tid) in std::mem::take(&mut self.paused) {
            self.holder.resume(tgid, tid);
        }
    }
}

impl Pending {
    pub(super) fn action(&self) -> Action<'_> {
        let object = if self.operation.target_kind() == TargetKind::Path {
            Target::Path(&self.path)
        } else {
            Target::Other(std::str::from_utf8(&self.path).unwrap_or_default())
        };
        Action { operation: self.operation, object, image: &self.image, argv: None }
    }
}

/// The operation of what has no object that could be named: what it would have been on the host's side is not known.
const fn without_path(operation: Operation) -> Operation {
    match operation {
        Operation::Ptrace | Operation::Signal => operation,
        _ => Operation::Ground,
    }
}

/// What a member tried to do by itself, by the name of the call or of the kernel's reason.
const fn ground_text(what: u64) -> &'static str {
    match what {
        ground::BPF => "bpf",
        ground::MOUNT => "mount",
        ground::CHROOT => "chroot",
        ground::USER_NAMESPACE => "unshare",
        ground::URING_CREDENTIALS => "io_uring",
        ground::KERNEL_CODE => "kernel_code",
        ground::LOCKDOWN => "lockdown",
        ground::PERF => "perf_event_open",
        ground::PTRACE => "ptrace",
        ground::SIGNAL => "kill",
        ground::CONNECT => "connect",
        ground::LISTEN => "bind",
        ground::UNIX => "unix",
        _ => "unknown",
    }
}

/// Nanoseconds since 1970 of a moment of `CLOCK_BOOTTIME`.
fn wall_clock(moment: u64) -> u64 {
    process::now_ns().saturating_sub(boot_ns().saturating_sub(moment))
}
