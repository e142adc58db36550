/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From an object up to the root of the task, the way d_path goes.
 *
 * The parents in the object's own file system are read by typed loads, which the verifier makes fault-tolerant and which
 * cost one instruction each. Mounts cannot be climbed so (the outer struct of a vfsmount has no type here): from the first
 * mount point on, helpers read. The object itself is read by helpers where it came as a hook's argument: 6.12 takes the
 * inode of such a dentry for never NULL. */
#pragma once

/* Names that dentries hold in themselves on every kernel since 6.1 (DNAME_INLINE_LEN), the zero byte included. */
#define INLINE_NAME 32

/* walk.process */
#define NOBODY 0
#define OWN 1
#define FOREIGN 2

/* Names that stand for numbers, as the bytes of a word. */
#define NAME_SELF 0x666c6573ull /* self */
#define NAME_TID 0x5d6469745bull /* [tid] */
#define NAME_N 0x5d6e5bull /* [n] */

/* walk.odd: what stands for the name at hand. */
#define ODD_NONE 0
#define ODD_SELF 1
#define ODD_TID 2
#define ODD_N 3

#define NAME_TASK 0x6b736174ull /* task */
#define FIVE_BYTES 0xffffffffffull

static __always_inline void begin_path(struct member *m)
{
	struct walk *w = &m->walk;

	w->count = 0;
	w->hidden = 0;
	w->partials = 0;
	w->found = 0;
	w->process = NOBODY;
	w->odd = ODD_NONE;
}

/* Starts an action: an empty event, and what the walk needs to know of the session. */
static __always_inline void begin(struct member *m)
{
	struct session *s = session_of(m);
	struct walk *w = &m->walk;
	struct event *e = &m->event;
	u64 task = bpf_get_current_pid_tgid();

	begin_path(m);
	w->bytes = 0;
	w->least = VERDICT_ALLOW;
	w->reason = 0;
	w->session_flags = 0;
	if (s) {
		w->cells = s->cells;
		w->cell_count = s->cell_count;
		w->names = s->names;
		w->session_flags = s->flags;
	}
	if (!(w->session_flags & SESSION_FLAGS_LIVE))
		w->reason = EVENT_FLAGS_TABLES;
	e->tid = task;
	e->tgid = task >> 32;
	e->image = m->image;
	e->word = 0;
	e->second = 0;
	e->second_word = 0;
	e->second_bytes = 0;
	e->second_hidden = 0;
	e->first_hidden = 0;
	e->flags = 0;
}

/* The bit was set: is there an identity? */
__noinline int look_up(struct member *m, u64 inode, u32 depth)
{
	struct identity_key key = {};
	struct identity *found;
	struct walk *w;

	if (!m)
		return 0;
	w = &m->walk;
	key.session = m->session;
	key.inode = inode;
	found = bpf_map_lookup_elem(&identities, &key);
	if (!found)
		return 0;
	w->found = 1;
	w->state = found->state;
	w->name = found->name;
	w->depth = depth;
	return 0;
}

static __always_inline u32 filter_bit(u64 inode)
{
	_Static_assert(FILTER_BITS == 1 << 20, "the shift below");
	return inode * MIX >> (64 - 20);
}

static __always_inline void look(struct member *m, u64 inode, u32 depth)
{
	u32 bit = filter_bit(inode), index = bit >> 6;
	u64 *bits;

	if (m->walk.found)
		return;
	bits = bpf_map_lookup_elem(&filter, &index);
	if (bits && *bits >> (bit & 63) & 1)
		look_up(m, inode, depth);
}

/* Takes the class of the name that was written at `at` into the list. */
static __always_inline void enlist(struct member *m, u32 at, u32 length, u32 class, bool hidden)
{
	struct walk *w = &m->walk;
	u32 n = hidden ? w->hidden : w->count;

	if (class >= UNCLASSED) {
		if (class == BROKEN) {
			w->reason |= EVENT_FLAGS_TABLES;
		} else {
			w->least = VERDICT_HOLD;
			class = 0;
		}
	}
	if (hidden) {
		m->hidden[n & (MAX_DEPTH - 1)] = class;
		w->hidden = n + 1;
	} else {
		m->classes[n & (MAX_DEPTH - 1)] = class;
		w->count = n + 1;
	}
	w->bytes = at + length + 1;
}

/* Takes the name of `walk.dentry`, by helpers. */
__noinline int take(struct member *m, u32 hidden)
{
	struct walk *w;
	struct dentry *d;
	u32 at;
	long length;

	if (!m)
		return 0;
	w = &m->walk;
	at = w->bytes;
	if ((hidden ? w->hidden : w->count) >= MAX_DEPTH || at > MAX_NAMES) {
		w->reason |= EVENT_FLAGS_TOO_LONG;
		return 1;
	}
	d = (void *)w->dentry;
	length = bpf_probe_read_kernel_str(&m->bytes[at], NAME_SLACK, BPF_CORE_READ(d, d_name.name));
	if (length <= 1 || length > NAME_SLACK) {
		w->reason |= EVENT_FLAGS_TOO_LONG;
		return 1;
	}
	length -= 1;
	u64 *words = (u64 *)&m->bytes[at];
	u64 low = words[0], high = words[1];
	enlist(m, at, length, class_of(m, at, length, low, high), hidden);
	return 0;
}

/* Where a dentry keeps a short name. The offset is a number that is added, since the array's name and length differ
 * between kernels. */
static __always_inline u64 *inline_name(struct dentry *d)
{
	u64 offset;

	if (bpf_core_field_exists(struct dentry___since_6_14, d_shortname))
		offset = bpf_core_field_offset(struct dentry___since_6_14, d_shortname);
	else
		offset = bpf_core_field_offset(struct dentry, d_iname);
	/* Else the compiler makes it part of a load, whose size the loader would compare with the array's. */
	asm volatile("" : "+r"(offset));
	return (void *)d + offset;
}

static __always_inline bool is_digit(u64 word)
{
	return (word & 0xff) - '0' <= 9;
}

/* What a number is called in a path: nothing in a path differs between equal runs. */
static __always_inline u32 odd_name(struct member *m, struct dentry *d, u64 odd)
{
	struct dentry *up = d->d_parent, *above = up->d_parent;

	if (!is_digit(*inline_name(d)))
		return ODD_NONE;
	if (odd == DEVPTS_SUPER_MAGIC)
		return ODD_N;
	if (m->walk.process == NOBODY)
		return ODD_NONE;
	if (above == up)
		return m->walk.process == OWN ? ODD_SELF : ODD_NONE;
	if ((*inline_name(up) & FIVE_BYTES) != NAME_TASK)
		return ODD_NONE;
	above = above->d_parent;
	return above == above->d_parent ? ODD_TID : ODD_NONE;
}

/* Takes the name that was just written at `at`, and begins with `low` and `high`. */
static __always_inline int take_short(struct member *m, u32 at, u32 length, u64 low, u64 high)
{
	struct walk *w = &m->walk;

	if (w->odd) {
		low = w->odd == ODD_SELF ? NAME_SELF : w->odd == ODD_TID ? NAME_TID : NAME_N;
		length = w->odd == ODD_SELF ? 4 : w->odd == ODD_TID ? 5 : 3;
		high = 0;
		*(u64 *)&m->bytes[at] = low;
	}
	enlist(m, at, length, class_of(m, at, length, low, high), false);
	return 0;
}

/* As take(), of a dentry that the verifier knows. `odd` says that the file system has numbers for names. */
static __always_inline int take_typed(struct member *m, struct dentry *d, u64 odd)
{
	struct walk *w = &m->walk;
	u32 at = w->bytes, length = d->d_name.len;
	u64 *from = inline_name(d), *to, low, high = 0;

	if (length >= INLINE_NAME || (u64)d->d_name.name != (u64)from) {
		w->dentry = (u64)d;
		return take(m, 0);
	}
	if (w->count >= MAX_DEPTH || at > MAX_NAMES) {
		w->reason |= EVENT_FLAGS_TOO_LONG;
		return 1;
	}
	if (odd)
		w->odd = odd_name(m, d, odd);
	to = (u64 *)&m->bytes[at];
	to[0] = low = from[0];
	/* Each of these loads is a handful of instructions, since the address is looked at first. */
	if (length >= 8)
		to[1] = high = from[1];
	if (length >= 16) {
		to[2] = from[2];
		to[3] = from[3];
	}
	return take_short(m, at, length, low, high);
}

/* Remembers that a mount shows a part of a file system, where an identity may lie above. */
static __always_inline void note_partial(struct member *m, u64 dentry)
{
	struct walk *w = &m->walk;
	u32 n = w->partials;

	if (w->found)
		return;
	if (n >= MAX_HIDDEN) {
		w->reason |= EVENT_FLAGS_TOO_LONG;
		return;
	}
	w->partial[n & (MAX_HIDDEN - 1)] = dentry;
	w->partial_depth[n & (MAX_HIDDEN - 1)] = w->count;
	w->partials = n + 1;
}

static __always_inline u64 parent_of(u64 dentry)
{
	struct dentry *d = (void *)dentry;

	return (u64)BPF_CORE_READ(d, d_parent);
}

static __always_inline void look_at(struct member *m, u64 dentry, u32 depth)
{
	struct dentry *d = (void *)dentry;
	struct inode *inode = BPF_CORE_READ(d, d_inode);

	if (inode && !m->walk.found)
		look(m, (u64)inode, depth);
}

/* What one turn of a climb says. */
#define ON 0
#define ARRIVED 1
#define STRANDED 2

/* One turn of climb_mounts(): out of a mount, or up by one component. */
__noinline int climb_turn(struct member *m, u64 root_dentry, u64 root_mount)
{
	struct walk *w;
	u64 up;

	if (!m)
		return STRANDED;
	w = &m->walk;
	struct mount *outer = (void *)w->mount - bpf_core_field_offset(struct mount, mnt);
	struct vfsmount *mount = (void *)w->mount;

	up = parent_of(w->dentry);
	if (w->dentry == root_dentry && w->mount == root_mount) {
		if (up != w->dentry)
			note_partial(m, w->dentry);
		return ARRIVED;
	}
	if (w->dentry == (u64)BPF_CORE_READ(mount, mnt_root)) {
		struct mount *next = BPF_CORE_READ(outer, mnt_parent);
		struct dentry *point = BPF_CORE_READ(outer, mnt_mountpoint);

		if (up != w->dentry)
			note_partial(m, w->dentry);
		if (!next || next == outer)
			return STRANDED;
		w->dentry = (u64)point;
		w->mount = (u64)next + bpf_core_field_offset(struct mount, mnt);
		look_at(m, w->dentry, w->count);
		return ON;
	}
	if (up == w->dentry || !up || take(m, 0))
		return STRANDED;
	w->dentry = up;
	look_at(m, up, w->count);
	return ON;
}

/* From the root of a mount (`walk.dentry` in `walk.mount`) to the root of the task. Returns whether it was reached. */
__noinline int climb_mounts(struct member *m, u64 root_dentry, u64 root_mount)
{
	int result;
	u32 i;

	if (!m)
		return 0;
	for (i = 0; i < MAX_DEPTH + MAX_MOUNTS; i++) {
		result = climb_turn(m, root_dentry, root_mount);
		if (result != ON)
			return result == ARRIVED;
	}
	m->walk.reason |= EVENT_FLAGS_TOO_LONG;
	return 0;
}

/* One turn of climb_hidden(). */
__noinline int hidden_turn(struct member *m, u32 depth)
{
	struct walk *w;
	u64 up;

	if (!m)
		return STRANDED;
	w = &m->walk;
	up = parent_of(w->dentry);
	if (up == w->dentry || !up)
		return STRANDED;
	if (take(m, 1))
		return ARRIVED;
	w->dentry = up;
	look_at(m, up, depth);
	return w->found ? ARRIVED : ON;
}

/* Looks for an identity above the root of a mount that shows a part of a file system. */
__noinline int climb_hidden(struct member *m, u64 dentry, u32 depth)
{
	struct walk *w;
	u32 i, before;
	int result;

	if (!m)
		return 0;
	w = &m->walk;
	before = w->bytes;
	w->dentry = dentry;
	w->found = 0;
	w->hidden = 0;
	for (i = 0; i <= MAX_DEPTH; i++) {
		result = hidden_turn(m, depth);
		if (result == ARRIVED)
			return 1;
		if (result == STRANDED)
			break;
	}
	w->bytes = before;
	w->hidden = 0;
	return 0;
}

/* After the visible part: the nearest identity of the hidden ones, else what was found before. */
__noinline int search_hidden(struct member *m)
{
	struct walk *w;
	u32 i, found, state, name, depth;

	if (!m)
		return 0;
	w = &m->walk;
	w->visible = w->bytes;
	found = w->found;
	state = w->state;
	name = w->name;
	depth = w->depth;
	for (i = 0; i < MAX_HIDDEN; i++) {
		if (i >= w->partials)
			break;
		if (climb_hidden(m, w->partial[i], w->partial_depth[i]))
			return 0;
	}
	w->found = found;
	w->state = state;
	w->name = name;
	w->depth = depth;
	return 0;
}

/* Whose entry of procfs an inode is. */
static __always_inline u32 process_of(u64 inode)
{
	struct proc_inode *entry = (void *)inode - bpf_core_field_offset(struct proc_inode, vfs_inode);
	struct pid *pid = BPF_CORE_READ(entry, pid);
	struct hlist_node *first;
	struct task_struct *task;

	if (!pid)
		return NOBODY;
	first = BPF_CORE_READ(pid, tasks[0].first);
	if (!first)
		return FOREIGN;
	task = (void *)first - bpf_core_field_offset(struct task_struct, pid_links);
	return (u32)BPF_CORE_READ(task, tgid) == bpf_get_current_pid_tgid() >> 32 ? OWN : FOREIGN;
}

/* File systems whose names are not all names. Returns the magic number of those, else 0. */
static __always_inline u64 odd_file_system(struct member *m, struct dentry *d, u64 magic)
{
	struct walk *w = &m->walk;

	if (magic == DEVPTS_SUPER_MAGIC) {
		w->least = VERDICT_HOLD;
		return magic;
	}
	if (magic != PROC_SUPER_MAGIC)
		return 0;
	w->mount = (u64)d->d_inode;
	forget();
	w->process = process_of(w->mount);
	if (w->process == FOREIGN)
		w->least = VERDICT_HOLD;
	return magic;
}

/* walk.mount, before it is an address: how the climb in the object's own file system came to an end. */
#define NOT_YET 0
#define AT_PART 1
#define AT_WHOLE 2

/* What climb() takes along. 6.1 verifies climb_on() once, with the first values only: so these keep their types, and all
 * else that it changes or decides by is in the member, of which the verifier knows nothing: a number in here would be
 * the one of the first verification, and branches that it does not take would be cut out. */
struct climb {
	struct member *m;
	struct dentry *d;
	struct dentry *top;
};

static long climb_on(u32 turn, struct climb *c)
{
	struct member *m = c->m;
	struct dentry *d = c->d, *up = d->d_parent;

	/* Its address is a number to the verifier once it went through memory. */
	m->walk.dentry = (u64)d->d_inode;
	forget();
	look(m, m->walk.dentry, m->walk.count);
	if (d == c->top) {
		m->walk.dentry = (u64)d;
		m->walk.mount = up == d ? AT_WHOLE : AT_PART;
		return 1;
	}
	if (up == d) {
		m->walk.reason |= EVENT_FLAGS_UNREACHABLE;
		return 1;
	}
	if (take_typed(m, d, m->walk.numbered))
		return 1;
	c->d = up;
	return 0;
}

/* Climbs from a dentry that the verifier knows, which is not a hook's argument. */
static __always_inline void climb(struct member *m, struct dentry *d, struct vfsmount *mount)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = task->fs;
	struct vfsmount *root_mount = fs->root.mnt;
	struct dentry *root = fs->root.dentry;
	struct super_block *sb = d->d_sb;
	struct walk *w = &m->walk;
	struct climb c = { .m = m, .d = d, .top = mount == root_mount ? root : mount->mnt_root };

	w->numbered = odd_file_system(m, d, sb->s_magic);
	w->mount = NOT_YET;
	bpf_loop(MAX_DEPTH + 1, climb_on, &c, 0);
	if (w->reason)
		return;
	if (w->mount == NOT_YET) {
		w->reason |= EVENT_FLAGS_TOO_LONG;
		return;
	}
	if (mount == root_mount && w->mount == AT_WHOLE)
		return;
	w->mount = (u64)mount;
	w->partial[0] = (u64)root;
	w->partial[1] = (u64)root_mount;
	/* What went through memory is a number to the verifier. */
	forget();
	if (!climb_mounts(m, w->partial[0], w->partial[1]))
		w->reason |= w->reason ? 0 : EVENT_FLAGS_UNREACHABLE;
	if (w->partials)
		search_hidden(m);
}

/* As climb(), from the last component of a path whose directory is at hand. It may not exist. */
static __always_inline void climb_entry(struct member *m, struct dentry *d, struct dentry *parent, struct vfsmount *mount)
{
	struct walk *w = &m->walk;

	w->dentry = number(d);
	look_at(m, w->dentry, 0);
	if (take(m, 0))
		return;
	climb(m, parent, mount);
}
