/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Made from src/layout.rs, which says what it means:
 * GAIT_BLESS=1 cargo test -p gait-ebpf --test layout */
#pragma once

#define VERSION 2
#define MAX_SESSIONS 64
#define MAX_MEMBERS 65536
#define MAX_DEPTH 64
#define MAX_MOUNTS 16
#define MAX_NAMES 6144
#define NAME_SLACK 256
#define MAX_HIDDEN 4
#define MEMO_SLOTS 32
#define FILTER_BITS (1 << 20)
#define NO_EDGES 0xffffffffu
#define UNKNOWN_IMAGE 0
#define RING_BYTES (16 << 20)
#define VERDICT_ALLOW 0
#define VERDICT_SILENT 1
#define VERDICT_HOLD 2
#define VERDICT_BLOCK 3
#define OPERATION_READ 0
#define OPERATION_LIST 1
#define OPERATION_WRITE 2
#define OPERATION_CREATE 3
#define OPERATION_TRUNCATE 4
#define OPERATION_MKDIR 5
#define OPERATION_MKNOD 6
#define OPERATION_SYMLINK 7
#define OPERATION_LINK_OLD 8
#define OPERATION_LINK_NEW 9
#define OPERATION_RENAME_OLD 10
#define OPERATION_RENAME_NEW 11
#define OPERATION_RENAME_OVER 12
#define OPERATION_UNLINK 13
#define OPERATION_RMDIR 14
#define OPERATION_CHMOD 15
#define OPERATION_CHOWN 16
#define OPERATION_UTIME 17
#define OPERATION_SETXATTR 18
#define OPERATION_EXEC 19
#define OPERATION_MMAP_EXEC 20
#define OPERATION_CONNECT 21
#define OPERATION_SEND 22
#define OPERATION_RESOLVE 23
#define OPERATION_LISTEN 24
#define OPERATION_UNIX_CONNECT 25
#define OPERATION_ABSTRACT_CONNECT 26
#define OPERATION_SOCKET 27
#define OPERATION_PTRACE 28
#define OPERATION_SIGNAL 29
#define OPERATION_GROUND 30

struct state {
	u32 base;
	u32 fallback;
};
_Static_assert(sizeof(struct state) == 8, "size of state");
_Static_assert(__builtin_offsetof(struct state, base) == 0, "place of state.base");
_Static_assert(__builtin_offsetof(struct state, fallback) == 4, "place of state.fallback");

struct accept {
	u32 value;
	u32 zero;
};
_Static_assert(sizeof(struct accept) == 8, "size of accept");
_Static_assert(__builtin_offsetof(struct accept, value) == 0, "place of accept.value");
_Static_assert(__builtin_offsetof(struct accept, zero) == 4, "place of accept.zero");

struct edge {
	u32 check;
	u32 next;
};
_Static_assert(sizeof(struct edge) == 8, "size of edge");
_Static_assert(__builtin_offsetof(struct edge, check) == 0, "place of edge.check");
_Static_assert(__builtin_offsetof(struct edge, next) == 4, "place of edge.next");

struct identity_key {
	u32 session;
	u32 zero;
	u64 inode;
};
_Static_assert(sizeof(struct identity_key) == 16, "size of identity_key");
_Static_assert(__builtin_offsetof(struct identity_key, session) == 0, "place of identity_key.session");
_Static_assert(__builtin_offsetof(struct identity_key, zero) == 4, "place of identity_key.zero");
_Static_assert(__builtin_offsetof(struct identity_key, inode) == 8, "place of identity_key.inode");

struct identity {
	u32 state;
	u32 name;
};
_Static_assert(sizeof(struct identity) == 8, "size of identity");
_Static_assert(__builtin_offsetof(struct identity, state) == 0, "place of identity.state");
_Static_assert(__builtin_offsetof(struct identity, name) == 4, "place of identity.name");

struct session {
	u32 cells;
	u32 cell_count;
	u32 names;
	u32 paths;
	u32 images;
	u32 words;
	u32 word_count;
	u32 image_classes;
	u32 flags;
};
_Static_assert(sizeof(struct session) == 36, "size of session");
_Static_assert(__builtin_offsetof(struct session, cells) == 0, "place of session.cells");
_Static_assert(__builtin_offsetof(struct session, cell_count) == 4, "place of session.cell_count");
_Static_assert(__builtin_offsetof(struct session, names) == 8, "place of session.names");
_Static_assert(__builtin_offsetof(struct session, paths) == 12, "place of session.paths");
_Static_assert(__builtin_offsetof(struct session, images) == 16, "place of session.images");
_Static_assert(__builtin_offsetof(struct session, words) == 20, "place of session.words");
_Static_assert(__builtin_offsetof(struct session, word_count) == 24, "place of session.word_count");
_Static_assert(__builtin_offsetof(struct session, image_classes) == 28, "place of session.image_classes");
_Static_assert(__builtin_offsetof(struct session, flags) == 32, "place of session.flags");
#define SESSION_FLAGS_LIVE 1
#define SESSION_FLAGS_SIMULATE 2
#define SESSION_FLAGS_MMAP_EXEC 4

struct grant_key {
	u32 session;
	u32 tid;
};
_Static_assert(sizeof(struct grant_key) == 8, "size of grant_key");
_Static_assert(__builtin_offsetof(struct grant_key, session) == 0, "place of grant_key.session");
_Static_assert(__builtin_offsetof(struct grant_key, tid) == 4, "place of grant_key.tid");

struct grant {
	u64 object;
	u64 second;
	u64 until;
	u32 operations;
	u32 verdict;
};
_Static_assert(sizeof(struct grant) == 32, "size of grant");
_Static_assert(__builtin_offsetof(struct grant, object) == 0, "place of grant.object");
_Static_assert(__builtin_offsetof(struct grant, second) == 8, "place of grant.second");
_Static_assert(__builtin_offsetof(struct grant, until) == 16, "place of grant.until");
_Static_assert(__builtin_offsetof(struct grant, operations) == 24, "place of grant.operations");
_Static_assert(__builtin_offsetof(struct grant, verdict) == 28, "place of grant.verdict");

struct counters {
	u64 lost;
	u64 forks_refused;
	u64 members;
	u64 images;
};
_Static_assert(sizeof(struct counters) == 32, "size of counters");
_Static_assert(__builtin_offsetof(struct counters, lost) == 0, "place of counters.lost");
_Static_assert(__builtin_offsetof(struct counters, forks_refused) == 8, "place of counters.forks_refused");
_Static_assert(__builtin_offsetof(struct counters, members) == 16, "place of counters.members");
_Static_assert(__builtin_offsetof(struct counters, images) == 24, "place of counters.images");
#define MIX 0x9e3779b97f4a7c15ull

struct seed {
	u32 pid;
	u32 session;
	u32 placed;
	u32 image_class;
};
_Static_assert(sizeof(struct seed) == 16, "size of seed");
_Static_assert(__builtin_offsetof(struct seed, pid) == 0, "place of seed.pid");
_Static_assert(__builtin_offsetof(struct seed, session) == 4, "place of seed.session");
_Static_assert(__builtin_offsetof(struct seed, placed) == 8, "place of seed.placed");
_Static_assert(__builtin_offsetof(struct seed, image_class) == 12, "place of seed.image_class");

struct naming {
	u32 process;
	u32 session;
	u32 found;
	u32 refused;
};
_Static_assert(sizeof(struct naming) == 16, "size of naming");
_Static_assert(__builtin_offsetof(struct naming, process) == 0, "place of naming.process");
_Static_assert(__builtin_offsetof(struct naming, session) == 4, "place of naming.session");
_Static_assert(__builtin_offsetof(struct naming, found) == 8, "place of naming.found");
_Static_assert(__builtin_offsetof(struct naming, refused) == 12, "place of naming.refused");
#define EVENT_KIND_ACTION 1
#define EVENT_KIND_HOLD 2
#define EVENT_KIND_IMAGE 3
#define EVENT_KIND_PAUSE 4
#define EVENT_KIND_EMPTY 5
#define EVENT_FLAGS_TOO_LONG 1
#define EVENT_FLAGS_UNREACHABLE 2
#define EVENT_FLAGS_NEVER 4
#define EVENT_FLAGS_IDENTITY 8
#define EVENT_FLAGS_SIMULATED 16
#define EVENT_FLAGS_REMOVED 32
#define EVENT_FLAGS_TABLES 64
#define EVENT_FLAGS_SECOND_IDENTITY 128
#define GROUND_BPF 1ull
#define GROUND_MOUNT 2ull
#define GROUND_CHROOT 3ull
#define GROUND_USER_NAMESPACE 4ull
#define GROUND_URING_CREDENTIALS 5ull
#define GROUND_KERNEL_CODE 6ull
#define GROUND_LOCKDOWN 7ull
#define GROUND_PERF 8ull
#define GROUND_PTRACE 9ull
#define GROUND_SIGNAL 10ull
#define GROUND_CONNECT 11ull
#define GROUND_LISTEN 12ull
#define GROUND_UNIX 13ull

struct event {
	u64 at;
	u64 object;
	u64 second;
	u64 word;
	u64 second_word;
	u32 operations;
	u32 second_operations;
	u32 device;
	u32 tid;
	u32 tgid;
	u32 image;
	u32 identity;
	u32 identity_depth;
	u32 second_identity;
	u32 second_identity_depth;
	u32 first_bytes;
	u32 first_hidden;
	u32 second_bytes;
	u32 second_hidden;
	u8 kind;
	u8 flags;
	u8 verdict;
	u8 zero[5];
};
_Static_assert(sizeof(struct event) == 104, "size of event");
_Static_assert(__builtin_offsetof(struct event, at) == 0, "place of event.at");
_Static_assert(__builtin_offsetof(struct event, object) == 8, "place of event.object");
_Static_assert(__builtin_offsetof(struct event, second) == 16, "place of event.second");
_Static_assert(__builtin_offsetof(struct event, word) == 24, "place of event.word");
_Static_assert(__builtin_offsetof(struct event, second_word) == 32, "place of event.second_word");
_Static_assert(__builtin_offsetof(struct event, operations) == 40, "place of event.operations");
_Static_assert(__builtin_offsetof(struct event, second_operations) == 44, "place of event.second_operations");
_Static_assert(__builtin_offsetof(struct event, device) == 48, "place of event.device");
_Static_assert(__builtin_offsetof(struct event, tid) == 52, "place of event.tid");
_Static_assert(__builtin_offsetof(struct event, tgid) == 56, "place of event.tgid");
_Static_assert(__builtin_offsetof(struct event, image) == 60, "place of event.image");
_Static_assert(__builtin_offsetof(struct event, identity) == 64, "place of event.identity");
_Static_assert(__builtin_offsetof(struct event, identity_depth) == 68, "place of event.identity_depth");
_Static_assert(__builtin_offsetof(struct event, second_identity) == 72, "place of event.second_identity");
_Static_assert(__builtin_offsetof(struct event, second_identity_depth) == 76, "place of event.second_identity_depth");
_Static_assert(__builtin_offsetof(struct event, first_bytes) == 80, "place of event.first_bytes");
_Static_assert(__builtin_offsetof(struct event, first_hidden) == 84, "place of event.first_hidden");
_Static_assert(__builtin_offsetof(struct event, second_bytes) == 88, "place of event.second_bytes");
_Static_assert(__builtin_offsetof(struct event, second_hidden) == 92, "place of event.second_hidden");
_Static_assert(__builtin_offsetof(struct event, kind) == 96, "place of event.kind");
_Static_assert(__builtin_offsetof(struct event, flags) == 97, "place of event.flags");
_Static_assert(__builtin_offsetof(struct event, verdict) == 98, "place of event.verdict");
_Static_assert(__builtin_offsetof(struct event, zero) == 99, "place of event.zero");

struct memo {
	u64 low;
	u64 high;
	u32 class;
	u32 zero;
};
_Static_assert(sizeof(struct memo) == 24, "size of memo");
_Static_assert(__builtin_offsetof(struct memo, low) == 0, "place of memo.low");
_Static_assert(__builtin_offsetof(struct memo, high) == 8, "place of memo.high");
_Static_assert(__builtin_offsetof(struct memo, class) == 16, "place of memo.class");
_Static_assert(__builtin_offsetof(struct memo, zero) == 20, "place of memo.zero");

struct walk {
	u64 dentry;
	u64 mount;
	u64 partial[MAX_HIDDEN];
	u32 partial_depth[MAX_HIDDEN];
	u32 partials;
	u32 cells;
	u32 cell_count;
	u32 names;
	u32 session_flags;
	u32 numbered;
	u32 count;
	u32 bytes;
	u32 visible;
	u32 hidden;
	u32 least;
	u32 reason;
	u32 found;
	u32 state;
	u32 name;
	u32 depth;
	u32 process;
	u32 odd;
};
_Static_assert(sizeof(struct walk) == 136, "size of walk");
_Static_assert(__builtin_offsetof(struct walk, dentry) == 0, "place of walk.dentry");
_Static_assert(__builtin_offsetof(struct walk, mount) == 8, "place of walk.mount");
_Static_assert(__builtin_offsetof(struct walk, partial) == 16, "place of walk.partial");
_Static_assert(__builtin_offsetof(struct walk, partial_depth) == 48, "place of walk.partial_depth");
_Static_assert(__builtin_offsetof(struct walk, partials) == 64, "place of walk.partials");
_Static_assert(__builtin_offsetof(struct walk, cells) == 68, "place of walk.cells");
_Static_assert(__builtin_offsetof(struct walk, cell_count) == 72, "place of walk.cell_count");
_Static_assert(__builtin_offsetof(struct walk, names) == 76, "place of walk.names");
_Static_assert(__builtin_offsetof(struct walk, session_flags) == 80, "place of walk.session_flags");
_Static_assert(__builtin_offsetof(struct walk, numbered) == 84, "place of walk.numbered");
_Static_assert(__builtin_offsetof(struct walk, count) == 88, "place of walk.count");
_Static_assert(__builtin_offsetof(struct walk, bytes) == 92, "place of walk.bytes");
_Static_assert(__builtin_offsetof(struct walk, visible) == 96, "place of walk.visible");
_Static_assert(__builtin_offsetof(struct walk, hidden) == 100, "place of walk.hidden");
_Static_assert(__builtin_offsetof(struct walk, least) == 104, "place of walk.least");
_Static_assert(__builtin_offsetof(struct walk, reason) == 108, "place of walk.reason");
_Static_assert(__builtin_offsetof(struct walk, found) == 112, "place of walk.found");
_Static_assert(__builtin_offsetof(struct walk, state) == 116, "place of walk.state");
_Static_assert(__builtin_offsetof(struct walk, name) == 120, "place of walk.name");
_Static_assert(__builtin_offsetof(struct walk, depth) == 124, "place of walk.depth");
_Static_assert(__builtin_offsetof(struct walk, process) == 128, "place of walk.process");
_Static_assert(__builtin_offsetof(struct walk, odd) == 132, "place of walk.odd");

struct member {
	u32 session;
	u32 image;
	u32 image_class;
	u32 zero;
	u64 truncating;
	struct walk walk;
	u32 classes[MAX_DEPTH];
	u32 hidden[MAX_DEPTH];
	struct memo memo[MEMO_SLOTS];
	struct event event;
	u8 bytes[MAX_NAMES + NAME_SLACK];
};
_Static_assert(sizeof(struct member) == 7944, "size of member");
_Static_assert(__builtin_offsetof(struct member, session) == 0, "place of member.session");
_Static_assert(__builtin_offsetof(struct member, image) == 4, "place of member.image");
_Static_assert(__builtin_offsetof(struct member, image_class) == 8, "place of member.image_class");
_Static_assert(__builtin_offsetof(struct member, zero) == 12, "place of member.zero");
_Static_assert(__builtin_offsetof(struct member, truncating) == 16, "place of member.truncating");
_Static_assert(__builtin_offsetof(struct member, walk) == 24, "place of member.walk");
_Static_assert(__builtin_offsetof(struct member, classes) == 160, "place of member.classes");
_Static_assert(__builtin_offsetof(struct member, hidden) == 416, "place of member.hidden");
_Static_assert(__builtin_offsetof(struct member, memo) == 672, "place of member.memo");
_Static_assert(__builtin_offsetof(struct member, event) == 1440, "place of member.event");
_Static_assert(__builtin_offsetof(struct member, bytes) == 1544, "place of member.bytes");
