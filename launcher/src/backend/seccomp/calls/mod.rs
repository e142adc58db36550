//! What each held call does. One module per family; every function reads its arguments once, judges, then acts.

mod exec;
mod ipc;
mod metadata;
mod names;
mod net;
mod open;
mod process;

#[cfg(any(test, fuzzing))]
pub(crate) use exec::shebang;

use std::rc::Rc;

use gait_agent::action::{Action, Object};
use gait_agent::endpoint::{Operation, Row, Treatment};

pub(super) use exec::{ExecPlan, finish as finish_exec, release as release_exec};
pub(super) use ipc::Made;

use super::numbers::{self, X32_BIT, names as nr};
use super::resolve::{PATH_MAX, Resolver};
use super::supervisor::{Answer, Stop, Worker};
use super::task::Task;
use crate::sys::notify::Notification;
use crate::sys::{Errno, memory};

/// The call and who made it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) notification: &'a Notification,
    pub(super) task: &'a Task,
}

impl Call<'_> {
    /// An argument as the 32-bit integer that the kernel takes it for.
    fn int(&self, index: usize) -> i32 {
        (self.notification.args[index] & 0xffff_ffff) as u32 as i32
    }

    /// An argument as an unsigned 32-bit integer.
    fn uint(&self, index: usize) -> u32 {
        (self.notification.args[index] & 0xffff_ffff) as u32
    }

    /// An argument as it is: a pointer or a 64-bit number.
    fn long(&self, index: usize) -> u64 {
        self.notification.args[index]
    }

    /// Reads a path argument, without its NUL.
    fn path(&self, index: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
        memory::read_c_str(self.task.tid, self.long(index), PATH_MAX, out)?;
        out.pop();
        Ok(())
    }

    fn resolver(&self, worker: &Worker) -> Resolver<'_> {
        Resolver { task: self.task, tree: worker.shared.tree }
    }
}

/// Handles one call.
pub(super) fn dispatch(
    worker: &mut Worker,
    notification: &Notification,
    task: &Rc<Task>,
) -> Result<Answer, Stop> {
    let call = Call { notification, task };
    let number = i64::from(notification.nr);
    match number {
        nr::open | nr::openat | nr::openat2 | nr::creat => open::open(worker, call),
        nr::unlink | nr::unlinkat | nr::rmdir => names::remove(worker, call),
        nr::mkdir | nr::mkdirat => names::mkdir(worker, call),
        nr::mknod | nr::mknodat => names::mknod(worker, call),
        nr::symlink | nr::symlinkat => names::symlink(worker, call),
        nr::link | nr::linkat => names::link(worker, call),
        nr::rename | nr::renameat | nr::renameat2 => names::rename(worker, call),
        nr::truncate => metadata::truncate(worker, call),
        nr::ftruncate | nr::fallocate => metadata::truncate_open(worker, call),
        nr::chmod | nr::fchmod | nr::fchmodat | nr::fchmodat2 => metadata::chmod(worker, call),
        nr::chown | nr::lchown | nr::fchown | nr::fchownat => metadata::chown(worker, call),
        nr::utime | nr::utimes | nr::futimesat | nr::utimensat => metadata::utime(worker, call),
        nr::setxattr
        | nr::lsetxattr
        | nr::fsetxattr
        | nr::removexattr
        | nr::lremovexattr
        | nr::fremovexattr => metadata::xattr(worker, call),
        nr::ioctl => metadata::ioctl(worker, call),
        nr::fcntl => process::set_owner(worker, call),
        nr::execve | nr::execveat => exec::exec(worker, call),
        nr::mmap | nr::mprotect | nr::pkey_mprotect => exec::map_executable(worker, call),
        nr::connect => net::connect(worker, call),
        nr::sendto => net::sendto(worker, call),
        nr::sendmsg => net::sendmsg(worker, call),
        nr::sendmmsg => net::sendmmsg(worker, call),
        nr::bind => net::bind(worker, call),
        nr::listen => net::listen(worker, call),
        nr::socket | nr::socketpair => net::socket(worker, call),
        nr::shmget | nr::semget | nr::msgget => ipc::get(worker, call),
        nr::shmat
        | nr::shmctl
        | nr::semop
        | nr::semtimedop
        | nr::semctl
        | nr::msgsnd
        | nr::msgrcv
        | nr::msgctl => ipc::by_id(worker, call),
        nr::umask => process::umask(worker),
        nr::prctl => Ok(Answer::Value(0)),
        nr::setuid
        | nr::setgid
        | nr::setreuid
        | nr::setregid
        | nr::setresuid
        | nr::setresgid
        | nr::setfsuid
        | nr::setfsgid
        | nr::setgroups
        | nr::capset => process::change_credentials(worker),
        _ => by_row(worker, call, numbers::name(number)),
    }
}

/// Calls that are told apart by their row alone.
fn by_row(worker: &mut Worker, call: Call<'_>, name: &'static str) -> Result<Answer, Stop> {
    match Row::of_syscall(name) {
        Some(row) if row.treatment == Treatment::Scalar => process::scalar(worker, call, row.operations[0]),
        Some(row) => refuse(worker, call, row.operations[0], name),
        // The filter holds only what it knows; anything else is a fault of ours, and blocked.
        None => refuse(worker, call, Operation::Ground, "unknown"),
    }
}

/// Refuses and records a call that never passes.
fn refuse(worker: &mut Worker, call: Call<'_>, operation: Operation, name: &str) -> Result<Answer, Stop> {
    let action = Action { operation, object: Object::Other(name), image: &call.task.image, argv: None };
    worker.refuse(call.task.tid, &action).map_err(|stop| match stop {
        // Programs that try these first fall back at ENOSYS.
        Stop::Errno(_)
            if matches!(
                name,
                "io_uring_setup"
                    | "io_uring_enter"
                    | "io_uring_register"
                    | "keyctl"
                    | "add_key"
                    | "request_key"
            ) =>
        {
            Stop::Errno(Errno(libc::ENOSYS))
        }
        other => other,
    })?;
    Ok(Answer::Continue)
}

/// A call of another ABI: recorded, answered `ENOSYS`, and its process gets SIGSYS.
pub(super) fn foreign_abi(
    worker: &mut Worker,
    notification: &Notification,
    task: &Rc<Task>,
) -> Result<Answer, Stop> {
    let x32 = notification.arch == numbers::AUDIT_ARCH && notification.nr.cast_unsigned() & X32_BIT != 0;
    let object = Object::Other(if x32 { "abi:x32" } else { "abi:foreign" });
    let action = Action { operation: Operation::Ground, object, image: &task.image, argv: None };
    let refused = worker.refuse(task.tid, &action);
    if !x32 && refused.is_err() {
        let _gone = crate::sys::process::kill(task.tid, libc::SIGSYS).is_err();
    }
    refused.map_err(|_error| Stop::Errno(Errno(libc::ENOSYS)))?;
    Ok(Answer::Continue)
}
