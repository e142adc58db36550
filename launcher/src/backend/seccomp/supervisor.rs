//! The supervisor's workers: receive a held call, handle it, answer it.
//!
//! One receiving thread does almost all the work. A second one is released only while the first is stuck in a call of its
//! own and others wait. Calls that may block (a FIFO, a connect, a question to a person) are handled again from the start
//! on threads that may. An exec is finished by a thread that traces the caller for the time of the exec.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::{EndpointClass, Operation};
use gait_agent::gate::{Limit, Verdict};
use rustc_hash::FxHashMap;

use super::calls::{self, ExecPlan};
use super::judge::{Caller, Judge};
use super::numbers::{AUDIT_ARCH, X32_BIT};
use super::task::{Credentials, Task, Tasks};
use crate::net::resolv_conf;
use crate::net::resolver::Resolver;
use crate::sys::notify::{Listener, Notification};
use crate::sys::{Errno, credentials, fs, process, signal};

/// Signal that interrupts a thread's blocking call when its caller is gone.
const INTERRUPT: i32 = libc::SIGUSR1;
/// Threads that may block at the same time. Each is one held call of the workload; beyond it callers wait their turn.
const SLOW_THREADS: usize = 512;
/// Threads that verify execs at the same time.
const EXEC_THREADS: usize = 64;
/// How long a receiver may be stuck in one call before another is released.
const STUCK_NS: u64 = 10_000_000;
/// The beat of the watchdog while calls are handled.
const TICK: Duration = Duration::from_millis(4);
/// Stack of a worker: paths and addresses are on the heap.
const STACK: usize = 256 << 10;

/// Why a call is not simply answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) enum Stop {
    /// The caller gets this errno.
    Errno(Errno),
    /// The handling would block: do it again on a thread that may.
    Slow,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// How a call is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// With a value.
    Value(i64),
    /// With a descriptor put into the caller's table.
    Fd { fd: OwnedFd, cloexec: bool },
    /// The kernel goes on with the call: no pointer decides.
    Continue,
    /// An exec, to be verified.
    Exec(Box<ExecPlan>),
}

/// What all threads of the supervisor share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) listener: Listener,
    pub(super) judge: Judge,
    /// The root of the workload's tree: everything in it descends from this pid (the reaper).
    pub(super) tree: u32,
    /// The supervisor's own credentials, where the workload could have others.
    pub(super) own: Option<Credentials>,
    /// Set once a task has changed its credentials; from then on each call's caller is looked at.
    pub(super) credentials_changed: AtomicBool,
    /// Tasks with a new image, for the workers' caches: a number that grows, and the recent ones.
    execs: AtomicU64,
    exec_log: Mutex<VecDeque<(u64, u32)>>,
    /// Text of resolv.conf(5), read before the floor was laid.
    resolv_conf: String,
    /// The built-in resolver; it starts with the first connection to port 53.
    resolver: OnceLock<Option<Arc<Resolver>>>,
    /// Numbers of the terminals that the tree made for itself.
    terminals: Mutex<rustc_hash::FxHashSet<u32>>,
    /// Ports that the kernel picked for sockets of the tree.
    picked: Mutex<rustc_hash::FxHashSet<u16>>,
    /// System V objects that the tree made.
    pub(super) made: calls::Made,
    /// Counts the workload's umask(2) calls.
    umasks: AtomicU64,
    /// Whether the kernel itself keeps signals inside the tree.
    pub(super) signals_scoped: bool,
    /// Whether callers are kept on our CPU while they get a descriptor. Held for as long as one is.
    steering: RwLock<bool>,
    slow: Queue<Notification>,
    verify: Queue<(Notification, Box<ExecPlan>)>,
    /// Slow threads at work: thread id and the held call.
    pending: Mutex<FxHashMap<u32, u64>>,
    /// When the receiver began with its present call; 0 while it waits.
    busy_since: [AtomicU64; 2],
    done: AtomicBool,
}

/// A queue whose consumers are started on demand.
#[derive(Debug)]
struct Queue<T> {
    state: Mutex<QueueState<T>>,
    wake: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct QueueState<T> {
    items: VecDeque<T>,
    idle: usize,
    threads: usize,
}

/// Locks, also after a panic elsewhere: every critical section here leaves its data whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + 'static> Queue<T> {
    fn new(limit: usize) -> Self {
        let state = QueueState { items: VecDeque::new(), idle: 0, threads: 0 };
        Self { state: Mutex::new(state), wake: Condvar::new(), limit }
    }

    /// Adds an item; starts a thread where none is free. Returns whether somebody will take it.
    fn submit(&self, item: T, start: impl FnOnce() -> bool) -> bool {
        let mut state = lock(&self.state);
        state.items.push_back(item);
        if state.idle >= state.items.len() {
            self.wake.notify_one();
        } else if state.threads < self.limit {
            state.threads += 1;
            if !start() {
                state.threads -= 1;
                if state.threads == 0 {
                    state.items.pop_back();
                    return false;
                }
            }
        }
        true
    }

    /// Takes the next item; `None` after a while without one, and the thread is to end.
    fn take(&self) -> Option<T> {
        let mut state = lock(&self.state);
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            state.idle += 1;
            let (back, timeout) =
                self.wake.wait_timeout(state, Duration::from_secs(5)).unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
            if timeout.timed_out() && state.items.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }
}

impl Shared {
    pub(super) fn new(
        listener: Listener,
        judge: Judge,
        tree: u32,
        own: Option<Credentials>,
        signals_scoped: bool,
        resolv_conf: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            listener,
            judge,
            tree,
            own,
            credentials_changed: AtomicBool::new(false),
            execs: AtomicU64::new(0),
            exec_log: Mutex::new(VecDeque::new()),
            resolv_conf,
            resolver: OnceLock::new(),
            terminals: Mutex::new(rustc_hash::FxHashSet::default()),
            picked: Mutex::new(rustc_hash::FxHashSet::default()),
            made: calls::Made::default(),
            umasks: AtomicU64::new(0),
            signals_scoped,
            steering: RwLock::new(true),
            slow: Queue::new(SLOW_THREADS),
            verify: Queue::new(EXEC_THREADS),
            pending: Mutex::new(FxHashMap::default()),
            busy_since: [AtomicU64::new(0), AtomicU64::new(0)],
            done: AtomicBool::new(false),
        })
    }

    /// Tells every worker that the task has a new image.
    fn announce_exec(&self, pid: u32) {
        let mut log = lock(&self.exec_log);
        let number = self.execs.load(Ordering::Relaxed) + 1;
        log.push_back((number, pid));
        if log.len() > 4096 {
            log.pop_front();
        }
        self.execs.store(number, Ordering::Release);
    }

    /// Tells every worker that some task changed its umask.
    pub(super) fn announce_umask(&self) {
        self.umasks.fetch_add(1, Ordering::Release);
    }

    /// Leaves the CPU masks of the tree alone from now on: one of its tasks is about to set another's, and a mask that we
    /// put back a moment later would undo that. Returns when no mask is narrowed any more.
    pub(super) fn stop_steering(&self) {
        *self.steering.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Remembers a port that the kernel picked.
    pub(super) fn add_picked(&self, port: u16) {
        lock(&self.picked).insert(port);
    }

    /// Returns the built-in resolver, starting it at the first call; `None` where it cannot be had.
    pub(super) fn start_resolver(self: &Arc<Self>) -> Option<&Arc<Resolver>> {
        let start = || {
            let shared = Arc::clone(self);
            let judge = move |name: &str| shared.judge_query(name);
            Resolver::start(resolv_conf::name_servers(&self.resolv_conf), Arc::new(judge)).ok()
        };
        self.resolver.get_or_init(start).as_ref()
    }

    /// Returns the built-in resolver, if something was resolved already.
    pub(super) fn resolver(&self) -> Option<&Arc<Resolver>> {
        self.resolver.get()?.as_ref()
    }

    /// Judges one query of the tree. Whose it is cannot be told from the datagram.
    fn judge_query(&self, name: &str) -> bool {
        let host = Host { name: Some(name), address: None, port: 0 };
        let action =
            Action { operation: Operation::Resolve, object: Object::Host(host), image: b"", argv: None };
        let caller = Caller { tid: 0, at_ns: process::now_ns(), may_block: true, absent: false };
        self.judge.judge(caller, &[action], &mut Vec::new()).is_ok()
    }

    /// Remembers a terminal that the tree made.
    pub(super) fn add_terminal(&self, number: u32) {
        lock(&self.terminals).insert(number);
    }

    /// Returns whether the tree made the terminal.
    pub(super) fn is_own_terminal(&self, number: u32) -> bool {
        lock(&self.terminals).contains(&number)
    }

    /// Returns whether the kernel picked the port for a socket of the tree.
    pub(super) fn is_picked(&self, port: u16) -> bool {
        lock(&self.picked).contains(&port)
    }

    /// Returns whether the first receiver has been in one call for long.
    fn is_stuck(&self) -> bool {
        let since = self.busy_since[0].load(Ordering::Relaxed);
        since != 0 && process::now_ns().saturating_sub(since) > STUCK_NS
    }

    /// Returns whether the session is over.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    fn submit_slow(self: &Arc<Self>, notification: Notification) {
        let shared = Arc::clone(self);
        let id = notification.id;
        let taken = self.slow.submit(notification, || spawn("gait-slow", move || slow_loop(&shared)));
        if !taken {
            self.refuse(id, Errno(libc::EAGAIN));
        }
    }

    fn submit_exec(self: &Arc<Self>, notification: Notification, plan: Box<ExecPlan>) {
        let shared = Arc::clone(self);
        let id = notification.id;
        let taken =
            self.verify.submit((notification, plan), || spawn("gait-exec", move || exec_loop(&shared)));
        if !taken {
            self.refuse(id, Errno(libc::EAGAIN));
        }
    }

    /// Answers with an errno; a caller that is gone needs no answer.
    pub(super) fn refuse(&self, id: u64, errno: Errno) {
        let _gone = self.listener.answer_errno(id, errno).is_err();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> bool {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(run).is_ok()
}

/// Starts the receiving thread and the watchdog.
///
/// # Errors
/// Where a thread cannot be started.
pub(super) fn start(shared: &Arc<Shared>) -> Result<(), Errno> {
    signal::interrupt_only(INTERRUPT)?;
    let (receiver, watchdog) = (Arc::clone(shared), Arc::clone(shared));
    let started = spawn("gait-receive", move || {
        receive_loop(&receiver, 0);
        receiver.done.store(true, Ordering::Release);
    }) && spawn("gait-watch", move || watch_loop(&watchdog));
    if started { Ok(()) } else { Err(Errno(libc::EAGAIN)) }
}

fn receive_loop(shared: &Arc<Shared>, index: usize) {
    let Ok(mut worker) = Worker::new(Arc::clone(shared), false) else { return };
    loop {
        match shared.listener.receive() {
            Ok(notification) => {
                shared.busy_since[index].store(process::now_ns(), Ordering::Relaxed);
                worker.serve(&notification);
                shared.busy_since[index].store(0, Ordering::Relaxed);
                // Two receivers take turns and both stay cold: the second helps out only as long as it must.
                if index > 0 && !shared.is_stuck() {
                    return;
                }
            }
            Err(Errno(libc::EINTR)) if index == 0 => {}
            Err(Errno(libc::ENOENT)) if !process::hung_up(shared.listener.0.as_fd()) => {}
            Err(_) => return,
        }
    }
}

/// States of the second receiver besides a thread id.
const GONE: u64 = u64::MAX;
const STARTING: u64 = 0;

/// Watches over the receiver and over slow calls whose callers are gone.
fn watch_loop(shared: &Arc<Shared>) {
    // The thread id of the second receiver, or that there is none.
    let second = Arc::new(AtomicU64::new(GONE));
    let mut beat = 0u32;
    while !shared.is_done() {
        std::thread::sleep(TICK);
        beat = beat.wrapping_add(1);
        let stuck = shared.is_stuck();
        match second.load(Ordering::Acquire) {
            GONE if stuck && process::readable(shared.listener.0.as_fd()) => {
                let (mine, their) = (Arc::clone(shared), Arc::clone(&second));
                second.store(STARTING, Ordering::Release);
                if !spawn("gait-receive-2", move || {
                    their.store(u64::from(process::tid()), Ordering::Release);
                    receive_loop(&mine, 1);
                    their.store(GONE, Ordering::Release);
                }) {
                    second.store(GONE, Ordering::Release);
                }
            }
            GONE | STARTING => {}
            // It waits in vain: a signal ends it.
            tid if !stuck && shared.busy_since[1].load(Ordering::Relaxed) == 0 => {
                process::interrupt_thread(u32::try_from(tid).unwrap_or(0), INTERRUPT);
            }
            _ => {}
        }
        if beat.is_multiple_of(16) {
            for (&tid, &id) in lock(&shared.pending).iter() {
                if !shared.listener.is_valid(id) {
                    process::interrupt_thread(tid, INTERRUPT);
                }
            }
        }
    }
}

fn slow_loop(shared: &Arc<Shared>) {
    let Ok(mut worker) = Worker::new(Arc::clone(shared), true) else { return };
    let tid = process::tid();
    while let Some(notification) = shared.slow.take() {
        lock(&shared.pending).insert(tid, notification.id);
        worker.serve(&notification);
        lock(&shared.pending).remove(&tid);
    }
}

fn exec_loop(shared: &Arc<Shared>) {
    let Ok(mut worker) = Worker::new(Arc::clone(shared), true) else { return };
    while let Some((notification, plan)) = shared.verify.take() {
        if let Some(pid) = calls::finish_exec(&mut worker, &notification, &plan) {
            shared.announce_exec(pid);
            // The image may run now that nobody remembers the old one.
            calls::release_exec(pid);
        }
    }
}

/// One thread that handles calls.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) tasks: Tasks,
    /// Whether this thread may block.
    pub(super) may_block: bool,
    pub(super) now_ns: u64,
    /// Buffers that are kept from call to call.
    pub(super) path: Vec<u8>,
    pub(super) joined: Vec<u8>,
    message: Vec<u8>,
    umask: Option<u32>,
    seen_execs: u64,
    seen_umasks: u64,
}

impl Worker {
    fn new(shared: Arc<Shared>, may_block: bool) -> Result<Self, Errno> {
        process::unshare_fs()?;
        let seen_execs = shared.execs.load(Ordering::Acquire);
        Ok(Self {
            shared,
            tasks: Tasks::new(),
            may_block,
            now_ns: 0,
            path: Vec::with_capacity(4096),
            joined: Vec::with_capacity(4096),
            message: Vec::with_capacity(8192),
            umask: None,
            seen_execs,
            seen_umasks: 0,
        })
    }

    /// Handles one call and answers it. Whatever goes wrong on the way, the call is not performed.
    fn serve(&mut self, notification: &Notification) {
        self.now_ns = process::now_ns();
        self.forget_execs();
        let umasks = self.shared.umasks.load(Ordering::Acquire);
        if umasks != self.seen_umasks {
            self.tasks.forget_umasks();
            self.seen_umasks = umasks;
        }
        let id = notification.id;
        let result = self.handle(notification);
        let listener = &self.shared.listener;
        let sent = match result {
            Ok(Answer::Value(value)) => listener.answer_value(id, value),
            Ok(Answer::Fd { fd, cloexec }) => self.inject(notification, fd, cloexec),
            Ok(Answer::Continue) => listener.answer_continue(id),
            Ok(Answer::Exec(plan)) => {
                self.shared.submit_exec(*notification, plan);
                Ok(())
            }
            Err(Stop::Errno(errno)) => listener.answer_errno(id, errno),
            Err(Stop::Slow) if !self.may_block => {
                self.shared.submit_slow(*notification);
                Ok(())
            }
            // A thread that may block has nothing to hand over to.
            Err(Stop::Slow) => listener.answer_errno(id, Errno(libc::EPERM)),
        };
        // Where it could not be sent, the caller was killed meanwhile and nobody waits for the answer.
        let _gone = sent.is_err();
    }

    /// Injects a descriptor; where the caller's table is full, the caller gets that errno.
    fn inject(&self, held: &Notification, fd: OwnedFd, cloexec: bool) -> Result<(), Errno> {
        let steer = self.shared.steering.read().unwrap_or_else(PoisonError::into_inner);
        match self.shared.listener.answer_fd(held, fd, cloexec, *steer) {
            Err(Errno(libc::ENOENT)) | Ok(()) => Ok(()),
            Err(errno) => self.shared.listener.answer_errno(held.id, errno),
        }
    }

    fn forget_execs(&mut self) {
        let latest = self.shared.execs.load(Ordering::Acquire);
        if latest == self.seen_execs {
            return;
        }
        let log = lock(&self.shared.exec_log);
        if log.front().is_some_and(|(number, _)| *number > self.seen_execs + 1) {
            self.tasks = Tasks::new();
        }
        for (_, pid) in log.iter().filter(|(number, _)| *number > self.seen_execs) {
            self.tasks.forget(*pid);
        }
        self.seen_execs = latest;
    }

    fn handle(&mut self, notification: &Notification) -> Result<Answer, Stop> {
        let task = self.tasks.get(notification.tid, self.now_ns)?;
        if notification.arch != AUDIT_ARCH || notification.nr.cast_unsigned() & X32_BIT != 0 {
            return calls::foreign_abi(self, notification, &task);
        }
        let restore = self.assume(&task)?;
        let result = calls::dispatch(self, notification, &task);
        if restore {
            self.resume_own()?;
        }
        result
    }

    /// Takes on the caller's credentials where they are not our own; returns whether they must be put back.
    fn assume(&self, task: &Task) -> Result<bool, Stop> {
        let Some(own) = &self.shared.own else { return Ok(false) };
        if !self.shared.credentials_changed.load(Ordering::Acquire) {
            return Ok(false);
        }
        let theirs = task.status()?.credentials;
        if theirs == *own {
            return Ok(false);
        }
        let result = credentials::set_groups(&theirs.groups)
            .and_then(|()| credentials::set_fs_ids(theirs.fsuid, theirs.fsgid))
            .and_then(|()| {
                let (effective, permitted) = credentials::capabilities()?;
                // What the supervisor itself needs to look at other tasks stays; it does not open files.
                let keep = SUPERVISING & effective;
                credentials::set_effective(theirs.effective & permitted | keep, permitted)
            });
        if let Err(errno) = result {
            self.resume_own()?;
            return Err(errno.into());
        }
        Ok(true)
    }

    fn resume_own(&self) -> Result<(), Stop> {
        let Some(own) = &self.shared.own else { return Ok(()) };
        let (_, permitted) = credentials::capabilities()?;
        credentials::set_effective(own.effective & permitted, permitted)?;
        credentials::set_fs_ids(own.fsuid, own.fsgid)?;
        credentials::set_groups(&own.groups)?;
        Ok(())
    }

    /// Makes this thread's umask the caller's, for a call that creates something.
    pub(super) fn take_umask(&mut self, task: &Task) -> Result<(), Errno> {
        let mask = self.tasks.umask(task)?;
        if self.umask != Some(mask) {
            fs::set_umask(mask);
            self.umask = Some(mask);
        }
        Ok(())
    }

    /// Fails unless the call is still held, so that what was read came from its caller.
    pub(super) fn still_held(&self, notification: &Notification) -> Result<(), Stop> {
        if self.shared.listener.is_valid(notification.id) { Ok(()) } else { Err(Errno(libc::ESRCH).into()) }
    }

    /// Judges the actions of one call and records them; the strictest verdict holds for the call.
    ///
    /// # Errors
    /// The errno of a blocked call, or [`Stop::Slow`] where a person must be asked and this thread may not wait.
    pub(super) fn judge(&mut self, task: &Task, actions: &[(Operation, Object<'_>)]) -> Result<(), Stop> {
        let action =
            |&(operation, object): &(_, _)| Action { operation, object, image: &task.image, argv: None };
        if let [only] = actions {
            return self.judge_actions(task.tid, &[action(only)]);
        }
        let built: Vec<Action<'_>> = actions.iter().map(action).collect();
        self.judge_actions(task.tid, &built)
    }

    /// As [`Self::judge`], for actions that are built already.
    pub(super) fn judge_actions(&mut self, tid: u32, actions: &[Action<'_>]) -> Result<(), Stop> {
        let caller = self.caller(tid, false);
        self.shared.judge.judge(caller, actions, &mut self.message)
    }

    /// Judges an attempt on a name that is not there; where it is allowed there is nothing to record.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub(super) fn judge_absent(
        &mut self,
        task: &Task,
        operation: Operation,
        path: &[u8],
    ) -> Result<(), Stop> {
        let object = Object::Path(path);
        if self.would_allow(task, operation, object) {
            return Ok(());
        }
        let action = Action { operation, object, image: &task.image, argv: None };
        let caller = self.caller(task.tid, true);
        self.shared.judge.judge(caller, &[action], &mut self.message)
    }

    fn caller(&self, tid: u32, absent: bool) -> Caller {
        Caller { tid, at_ns: self.now_ns, may_block: self.may_block, absent }
    }

    /// Returns whether the policy allows an action outright, without recording anything.
    pub(super) fn would_allow(&self, task: &Task, operation: Operation, object: Object<'_>) -> bool {
        let action = Action { operation, object, image: &task.image, argv: None };
        self.would_allow_all(std::slice::from_ref(&action))
    }

    /// As [`Self::would_allow`], for several actions.
    pub(super) fn would_allow_all(&self, actions: &[Action<'_>]) -> bool {
        actions.iter().all(|action| self.shared.judge.decide(action).verdict() == Verdict::Allow)
    }

    /// Records an action that never happens, whatever the policy says.
    ///
    /// # Errors
    /// Its errno; none in a simulation.
    pub(super) fn refuse(&mut self, tid: u32, action: &Action<'_>) -> Result<(), Stop> {
        let caller = self.caller(tid, false);
        self.shared.judge.refuse(caller, action, &mut self.message)
    }

    /// Records actions that would go beyond a limit.
    ///
    /// # Errors
    /// As [`Self::refuse`].
    pub(super) fn exceed(&mut self, tid: u32, actions: &[Action<'_>], limit: Limit) -> Result<(), Stop> {
        let caller = self.caller(tid, false);
        self.shared.judge.exceed(caller, actions, limit, &mut self.message)
    }

    /// As [`Self::refuse`], for an action on a path.
    pub(super) fn refuse_path(&mut self, task: &Task, operation: Operation, path: &[u8]) -> Result<(), Stop> {
        let action = Action { operation, object: Object::Path(path), image: &task.image, argv: None };
        self.refuse(task.tid, &action)
    }

    /// Judges an action on a path.
    pub(super) fn judge_path(&mut self, task: &Task, operation: Operation, path: &[u8]) -> Result<(), Stop> {
        self.judge(task, &[(operation, Object::Path(path))])
    }
}

/// `CAP_KILL`, `CAP_SYS_PTRACE`, `CAP_SETGID`, `CAP_SETUID`, `CAP_SETPCAP`.
const SUPERVISING: u64 = 1 << 5 | 1 << 19 | 1 << 6 | 1 << 7 | 1 << 8;

/// The errno of a blocked action.
pub(super) fn errno_of(action: &Action<'_>) -> Errno {
    match (action.class(), action.operation) {
        (_, Operation::Socket) => Errno(libc::EAFNOSUPPORT),
        (EndpointClass::Other, _) => Errno(libc::EPERM),
        _ => Errno(libc::EACCES),
    }
}
