//! What the kernel programs and user space share: maps, their keys and values, the records of the ring.
//!
//! This is the one place. `kernel/layout.h` is made from it by a test, and the compiler of each side checks sizes and
//! offsets.
//!
//! ## How a path is judged
//!
//! A path is a sequence of components from the root down. Two automata read it, and both live in [`CELLS`], an array of
//! 64-bit cells:
//!
//! - the *name automaton* reads the bytes of one component and says of which *name class* it is: which of the policy's
//!   component patterns match it. Class 0 is "none of interest".
//! - the *path automaton* reads name classes and says in which *region* of the policy's patterns the path is.
//!
//! A state is the number of its first cell, counted from the session's first one, so that tables can be made before anyone
//! knows where they will lie. That cell is a [`State`], the next one an [`Accept`]. A step from state `s` by
//! symbol `c` (a byte, or a name class) looks at cell `s.base + c`, an [`Edge`]: where its `check` is `s` the next state is
//! its `next`, otherwise `s.fallback`. A state whose base is [`NO_EDGES`] always falls back; where it falls back to itself,
//! nothing more is looked up for that text. Symbol 0 of the path automaton (a component of no interest) always falls back. A cell
//! number that is not below the session's number of cells is an error, and an error blocks.
//!
//! A component with a byte above 0x7f is not classified: the whole path is [`verdict::HOLD`].
//!
//! The region's number and the class of the acting image select one word of [`WORDS`]: two bits of [`verdict`] for each
//! operation, at `2 * operation`. The number of an operation is its place in `gait_agent::endpoint::Operation::ALL`.
//! The class of an image comes from the path automaton too, started at another state.
//!
//! ## Identity
//!
//! [`IDENTITIES`] says of directories and files that rules name, by their inode in memory, in which state of the path
//! automaton the path *that the rule names* ends. Where an object lies below one of them by another path (it was moved,
//! or another mount shows it), it is judged by both and the stricter verdict holds. The strictness order of verdicts is
//! allow, hold, block. Only the nearest one counts, and where it says the same as the path nothing is told of it.
//!
//! A bind mount may show a directory from below a named one. Then names lie between the named directory and the root of
//! the mount that are not in the object's path: the *hidden* names, which the event tells besides.
//!
//! [`FILTER`] stands before the table: a bit for each identity, at [`filter_bit`]. Where the bit is not set there is none.
//!
//! User space opens what rules name and keeps it open; [`IDENTIFY_PROGRAM`] finds the inodes behind the descriptors. An
//! inode is known by its address, since numbers of devices and inodes are not unique where a file system has subvolumes,
//! and are not what stat(2) says where it has layers. The address stays the inode's own for as long as a descriptor is
//! open; one that was closed too early can only make a session of its own user stricter.

/// Version of everything on this page; stands in the object and in the pinned map of sessions.
pub const VERSION: u32 = 2;

/// Where programs and maps are pinned: one directory per session or daemon below it, mode 0700.
pub const PIN_ROOT: &str = "/sys/fs/bpf/gait";

/// Sessions of one loaded object.
pub const MAX_SESSIONS: u32 = 64;
/// Tasks of all sessions. A task that does not fit is not made.
pub const MAX_MEMBERS: u32 = 65_536;
/// Components of a path, beyond which it is blocked.
pub const MAX_DEPTH: u32 = 64;
/// Mounts that a path may cross, beyond which it is blocked.
pub const MAX_MOUNTS: u32 = 16;
/// Bytes of names that one event can hold (both paths of a rename together), beyond which the action is blocked.
pub const MAX_NAMES: u32 = 6_144;
/// Room behind the names, so that one more can be read before its length is known.
pub const NAME_SLACK: u32 = 256;
/// Bind mounts on one path that show something from below a named directory, beyond which it is blocked.
pub const MAX_HIDDEN: u32 = 4;
/// Names of one task whose class is remembered.
pub const MEMO_SLOTS: u32 = 32;
/// Bits of [`FILTER`].
pub const FILTER_BITS: u32 = 1 << 20;
/// [`State::base`] of a state without edges.
pub const NO_EDGES: u32 = u32::MAX;
/// [`Member::image_class`] of an image of which nothing is known: before the first exec, and where it has no path.
pub const UNKNOWN_IMAGE: u32 = 0;
/// Default size of a session's ring, in bytes.
pub const RING_BYTES: u32 = 16 << 20;

/// Name of the map of automata: array of `u64`.
pub const CELLS: &str = "cells";
/// Name of the map of verdicts: array of `u64`.
pub const WORDS: &str = "words";
/// Name of the map of identities: hash from [`IdentityKey`] to [`Identity`].
pub const IDENTITIES: &str = "identities";
/// Name of the map in front of [`IDENTITIES`]: array of `u64`.
pub const FILTER: &str = "filter";
/// Name of the map by which a task is made a member: array of one [`Seed`].
pub const SEED: &str = "seed";
/// Name of the program (an iterator over tasks) that does what [`SEED`] asks.
pub const SEED_PROGRAM: &str = "seed_member";
/// Name of the map by which descriptors are named: hash from a descriptor's number to its [`Identity`].
pub const NAMED: &str = "named";
/// Name of the map that says whose descriptors those are: array of one [`Naming`].
pub const NAMING: &str = "naming";
/// Name of the program that fills [`IDENTITIES`]; it runs once for each file that the process has open.
pub const IDENTIFY_PROGRAM: &str = "identify";
/// Name of the map of sessions: array of [`Session`]; session 0 is never used.
pub const SESSIONS: &str = "sessions";
/// Name of the map of the tasks under control: hash from the address of the kernel's task to [`Member`].
pub const MEMBERS: &str = "members";
/// Name of the map of rings: array of maps, by session number.
pub const RINGS: &str = "rings";
/// Name of the map of answers: hash from [`GrantKey`] to [`Grant`].
pub const GRANTS: &str = "grants";
/// Name of the map of counters: array of [`Counters`], by session number.
pub const COUNTERS: &str = "counters";

/// What the tables say about one operation.
pub mod verdict {
    /// Allowed, and told.
    pub const ALLOW: u8 = 0;
    /// Allowed, and not told.
    pub const SILENT: u8 = 1;
    /// Not decided here: the thread is stopped, the gate of the guard answers, the call is made again.
    pub const HOLD: u8 = 2;
    /// Blocked, and told.
    pub const BLOCK: u8 = 3;
}

/// Numbers of operations: the place of each in `gait_agent::endpoint::Operation::ALL`.
pub mod operation {
    /// `Read`.
    pub const READ: u32 = 0;
    /// `List`.
    pub const LIST: u32 = 1;
    /// `Write`.
    pub const WRITE: u32 = 2;
    /// `Create`.
    pub const CREATE: u32 = 3;
    /// `Truncate`.
    pub const TRUNCATE: u32 = 4;
    /// `Mkdir`.
    pub const MKDIR: u32 = 5;
    /// `Mknod`.
    pub const MKNOD: u32 = 6;
    /// `Symlink`.
    pub const SYMLINK: u32 = 7;
    /// `LinkOld`.
    pub const LINK_OLD: u32 = 8;
    /// `LinkNew`.
    pub const LINK_NEW: u32 = 9;
    /// `RenameOld`.
    pub const RENAME_OLD: u32 = 10;
    /// `RenameNew`.
    pub const RENAME_NEW: u32 = 11;
    /// `RenameOver`.
    pub const RENAME_OVER: u32 = 12;
    /// `Unlink`.
    pub const UNLINK: u32 = 13;
    /// `Rmdir`.
    pub const RMDIR: u32 = 14;
    /// `Chmod`.
    pub const CHMOD: u32 = 15;
    /// `Chown`.
    pub const CHOWN: u32 = 16;
    /// `Utime`.
    pub const UTIME: u32 = 17;
    /// `Setxattr`.
    pub const SETXATTR: u32 = 18;
    /// `Exec`.
    pub const EXEC: u32 = 19;
    /// `MmapExec`.
    pub const MMAP_EXEC: u32 = 20;
    /// `Connect`.
    pub const CONNECT: u32 = 21;
    /// `Send`.
    pub const SEND: u32 = 22;
    /// `Resolve`.
    pub const RESOLVE: u32 = 23;
    /// `Listen`.
    pub const LISTEN: u32 = 24;
    /// `UnixConnect`.
    pub const UNIX_CONNECT: u32 = 25;
    /// `AbstractConnect`.
    pub const ABSTRACT_CONNECT: u32 = 26;
    /// `Socket`.
    pub const SOCKET: u32 = 27;
    /// `Ptrace`.
    pub const PTRACE: u32 = 28;
    /// `Signal`.
    pub const SIGNAL: u32 = 29;
    /// `Ground`.
    pub const GROUND: u32 = 30;
}

/// First cell of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct State {
    /// Where its edges begin.
    pub base: u32,
    /// Where it goes by every symbol without an edge.
    pub fallback: u32,
}

/// Second cell of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Accept {
    /// What a text that ends here is: a name class, a region, or a class of images.
    pub value: u32,
    /// Not used; zero.
    pub zero: u32,
}

/// Any other cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Edge {
    /// The state that the edge belongs to; `u32::MAX` where the cell is free.
    pub check: u32,
    /// Where it leads.
    pub next: u32,
}

/// A directory or file that a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct IdentityKey {
    /// Number of the session.
    pub session: u32,
    /// Zero.
    pub zero: u32,
    /// Address of the inode.
    pub inode: u64,
}

/// Where it stands in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Identity {
    /// State of the path automaton after the path that the rule names.
    pub state: u32,
    /// Number of the path among those that the session registered, for the event.
    pub name: u32,
}

/// What a session is made of. Written before its first member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Session {
    /// First of its cells; states count from here.
    pub cells: u32,
    /// How many cells it has.
    pub cell_count: u32,
    /// Start of the name automaton.
    pub names: u32,
    /// Start of the path automaton, at `/`, for objects.
    pub paths: u32,
    /// Start of the path automaton, at `/`, for images.
    pub images: u32,
    /// First of its words.
    pub words: u32,
    /// How many words it has.
    pub word_count: u32,
    /// Classes of images; word number is `words + region * image_classes + image_class`.
    pub image_classes: u32,
    /// [`session_flags`].
    pub flags: u32,
}

/// Flags of a session.
pub mod session_flags {
    /// It exists. Members of a session without this flag may do nothing that is judged.
    pub const LIVE: u32 = 1;
    /// Nothing is stopped, everything is told.
    pub const SIMULATE: u32 = 2;
    /// Executable mappings of files are judged.
    pub const MMAP_EXEC: u32 = 4;
}

/// One grant: the answer to one held action of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct GrantKey {
    /// Number of the session.
    pub session: u32,
    /// The thread, as in [`Event::tid`].
    pub tid: u32,
}

/// What was answered, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Grant {
    /// [`Event::object`] of the held action.
    pub object: u64,
    /// [`Event::second`] of the held action.
    pub second: u64,
    /// Until when it can be used, nanoseconds of `CLOCK_BOOTTIME`. It is used once.
    pub until: u64,
    /// [`Event::operations`] of the held action.
    pub operations: u32,
    /// [`verdict::ALLOW`] or [`verdict::BLOCK`].
    pub verdict: u32,
}

/// What happened in a session that no event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counters {
    /// Events that did not fit into the ring; the actions were blocked, or (image news) happened.
    pub lost: u64,
    /// Tasks that could not be made because the map of members was full.
    pub forks_refused: u64,
    /// Members that live.
    pub members: u64,
    /// Images that were numbered.
    pub images: u64,
}

/// Returns the bit of [`FILTER`] that stands for an identity.
#[must_use]
pub const fn filter_bit(inode: u64) -> u32 {
    let mixed = inode.wrapping_mul(MIX);
    (mixed >> (64 - FILTER_BITS.trailing_zeros())) as u32
}

/// The odd constant that spreads bits: 2^64 divided by the golden ratio.
pub const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// A task that shall become a member, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Seed {
    /// The process, in the first namespace of pids. It is stopped and has one thread.
    pub pid: u32,
    /// Number of the session.
    pub session: u32,
    /// Tasks that were made members: 1, or something is wrong.
    pub placed: u32,
    /// Class of the image that it runs now, or [`UNKNOWN_IMAGE`].
    pub image_class: u32,
}

/// Whose descriptors become identities, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Naming {
    /// The process, in the first namespace of pids.
    pub process: u32,
    /// Number of the session.
    pub session: u32,
    /// Descriptors whose inode is an identity now. Several may have one inode; then the first stands.
    pub found: u32,
    /// Identities for which there was no room.
    pub refused: u32,
}

/// Kinds of events.
pub mod event_kind {
    /// An action that was decided.
    pub const ACTION: u8 = 1;
    /// An action whose thread waits for an answer.
    pub const HOLD: u8 = 2;
    /// A task runs a new image: the first path is the image's.
    pub const IMAGE: u8 = 3;
    /// The thread was stopped because the ring is nearly full; it waits to be continued, and makes its call again.
    pub const PAUSE: u8 = 4;
    /// The last member of the session is gone.
    pub const EMPTY: u8 = 5;
}

/// Why an action was blocked without asking the tables, or how it was found.
pub mod event_flags {
    /// More components, mounts or bytes than can be judged.
    pub const TOO_LONG: u8 = 1;
    /// The object is not below the root of the task.
    pub const UNREACHABLE: u8 = 2;
    /// Never allowed, whatever the policy says (devices, another process, the ground).
    pub const NEVER: u8 = 4;
    /// An identity was found on the way: [`Event::identity`](super::Event::identity) and [`Event::identity_depth`](super::Event::identity_depth) count.
    pub const IDENTITY: u8 = 8;
    /// The action was performed although the verdict is another: a simulation.
    pub const SIMULATED: u8 = 16;
    /// The file was removed; the path is the one that it had.
    pub const REMOVED: u8 = 32;
    /// The tables led out of themselves.
    pub const TABLES: u8 = 64;
    /// As [`IDENTITY`], for the second path.
    pub const SECOND_IDENTITY: u8 = 128;
}

/// What is never allowed, in [`Event::object`] of an event without a path.
pub mod ground {
    /// bpf(2).
    pub const BPF: u64 = 1;
    /// Mounting, unmounting, moving a mount, pivot_root(2).
    pub const MOUNT: u64 = 2;
    /// chroot(2).
    pub const CHROOT: u64 = 3;
    /// Making a user namespace.
    pub const USER_NAMESPACE: u64 = 4;
    /// io_uring with somebody else's credentials.
    pub const URING_CREDENTIALS: u64 = 5;
    /// Loading modules, firmware, another kernel.
    pub const KERNEL_CODE: u64 = 6;
    /// What lockdown would forbid.
    pub const LOCKDOWN: u64 = 7;
    /// perf_event_open(2).
    pub const PERF: u64 = 8;
    /// Tracing a process outside the session.
    pub const PTRACE: u64 = 9;
    /// Signalling one.
    pub const SIGNAL: u64 = 10;
    /// Reaching an internet address, past the supervisor.
    pub const CONNECT: u64 = 11;
    /// Binding one.
    pub const LISTEN: u64 = 12;
    /// Reaching a unix socket.
    pub const UNIX: u64 = 13;
}

/// A record of the ring, followed by [`Event::first_bytes`], [`Event::first_hidden`], [`Event::second_bytes`] and
/// [`Event::second_hidden`] bytes of names.
///
/// A path is its components, last one first, each followed by a zero byte. The root has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// When, nanoseconds of `CLOCK_BOOTTIME`.
    pub at: u64,
    /// What the object is, for the answer: its inode, or its directory's inode mixed with its name's hash.
    pub object: u64,
    /// The same of the second object; 0 where there is none.
    pub second: u64,
    /// The word of the first path; for a kind without tables 0.
    pub word: u64,
    /// The word of the second path.
    pub second_word: u64,
    /// Operations on the first path, one bit for each, at the operation's number.
    pub operations: u32,
    /// Operations on the second path.
    pub second_operations: u32,
    /// Device of the first object, `s_dev`.
    pub device: u32,
    /// The acting thread.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// Number of the acting process's image, as told by an IMAGE event; 0 before the first.
    pub image: u32,
    /// [`Identity::name`] of what was found.
    pub identity: u32,
    /// How many components of the path are below it.
    pub identity_depth: u32,
    /// [`Identity::name`] of what was found on the second path.
    pub second_identity: u32,
    /// How many components of the second path are below it.
    pub second_identity_depth: u32,
    /// Bytes of the first path.
    pub first_bytes: u32,
    /// Bytes of names between the first path's identity and the root of the mount below it.
    pub first_hidden: u32,
    /// Bytes of the second path.
    pub second_bytes: u32,
    /// As [`Event::first_hidden`], of the second path.
    pub second_hidden: u32,
    /// [`event_kind`].
    pub kind: u8,
    /// [`event_flags`].
    pub flags: u8,
    /// The verdict that was carried out, [`verdict`].
    pub verdict: u8,
    /// Zero.
    pub zero: [u8; 5],
}

/// A name whose class is remembered: at most 15 bytes, the rest zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Memo {
    /// Its first eight bytes.
    pub low: u64,
    /// Its other bytes.
    pub high: u64,
    /// Its class.
    pub class: u32,
    /// Zero.
    pub zero: u32,
}

/// One climb from an object to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Walk {
    /// Address of the dentry that the climb has come to.
    pub dentry: u64,
    /// Address of its mount.
    pub mount: u64,
    /// Roots of mounts that show a part of a file system only.
    pub partial: [u64; MAX_HIDDEN as usize],
    /// How many components are below each.
    pub partial_depth: [u32; MAX_HIDDEN as usize],
    /// How many there are.
    pub partials: u32,
    /// As in [`Session`].
    pub cells: u32,
    /// As in [`Session`].
    pub cell_count: u32,
    /// As in [`Session`].
    pub names: u32,
    /// As in [`Session`].
    pub session_flags: u32,
    /// Magic number of the object's file system, where its names are not all names; else 0.
    pub numbered: u32,
    /// Components so far.
    pub count: u32,
    /// Bytes of names so far, both paths.
    pub bytes: u32,
    /// Where the names of this path end and hidden ones begin.
    pub visible: u32,
    /// Hidden components of this path.
    pub hidden: u32,
    /// The least verdict that can come out.
    pub least: u32,
    /// [`event_flags`] that block.
    pub reason: u32,
    /// Whether an identity was found.
    pub found: u32,
    /// [`Identity::state`] of it.
    pub state: u32,
    /// [`Identity::name`] of it.
    pub name: u32,
    /// Components below it.
    pub depth: u32,
    /// Whose entry of procfs the object is.
    pub process: u32,
    /// What stands for the name at hand, if it is a number.
    pub odd: u32,
}

/// A task under control, and the room in which its actions are judged. Only the task itself uses that room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Member {
    /// Number of the session.
    pub session: u32,
    /// Number of its image; 0 before the first exec.
    pub image: u32,
    /// Class of its image.
    pub image_class: u32,
    /// Zero.
    pub zero: u32,
    /// Inode of the file that an open may truncate, which comes to a hook of its own.
    pub truncating: u64,
    /// The climb.
    pub walk: Walk,
    /// Classes of the components, last one first.
    pub classes: [u32; MAX_DEPTH as usize],
    /// The same of hidden components.
    pub hidden: [u32; MAX_DEPTH as usize],
    /// Names whose class is known.
    pub memo: [Memo; MEMO_SLOTS as usize],
    /// The event that is being made.
    pub event: Event,
    /// Its names.
    pub bytes: [u8; (MAX_NAMES + NAME_SLACK) as usize],
}

// The same numbers stand in `kernel/layout.h`.
const _: () = assert!(size_of::<Event>() == 104);
const _: () = assert!(size_of::<Walk>() == 136);
const _: () = assert!(size_of::<Member>() == 7944);
const _: () = assert!(size_of::<Session>() == 36);
const _: () = assert!(size_of::<Grant>() == 32);
