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
	key.device = w->device;
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

static __always_inline void look(struct member *m, u64 inode, u32 depth)
{
	u64 mixed = (inode + ((u64)m->walk.device << 32)) * MIX;
	u32 bit = mixed >> (64 - 20), index = bit >> 6;
	u64 *bits;

	_Static_assert(FILTER_BITS == 1 << 20, "the shift above");
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

	if (class == UNCLASSED) {
		w->least = VERDICT_HOLD;
		class = 0;
	} else if (class == BROKEN) {
		w->reason |= EVENT_FLAGS_TABLES;
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

static __always_inline bool is_digit(u64 word)
{
	return (word & 0xff) - '0' <= 9;
}

/* What a number in procfs is called in a path: nothing in a path differs between equal runs. Returns 0 where it stays. */
static __always_inline u64 proc_name(struct member *m, struct dentry *d, u64 low)
{
	struct dentry *up = d->d_parent, *above = up->d_parent;

	if (!is_digit(low) || m->walk.process == NOBODY)
		return 0;
	if (above == up)
		return m->walk.process == OWN ? NAME_SELF : 0;
	if ((*(u64 *)up->d_iname & FIVE_BYTES) != NAME_TASK)
		return 0;
	above = above->d_parent;
	return above == above->d_parent ? NAME_TID : 0;
}

/* As take(), of a dentry that the verifier knows. `odd` says that the file system has numbers for names. */
static __always_inline int take_typed(struct member *m, struct dentry *d, u64 odd)
{
	struct walk *w = &m->walk;
	u32 at = w->bytes, length = d->d_name.hash_len >> 32;
	u64 *to, w0, w1, w2, w3, other = 0;

	if (length >= INLINE_NAME || (u64)d->d_name.name != (u64)d + bpf_core_field_offset(struct dentry, d_iname)) {
		w->dentry = (u64)d;
		return take(m, 0);
	}
	if (w->count >= MAX_DEPTH || at > MAX_NAMES) {
		w->reason |= EVENT_FLAGS_TOO_LONG;
		return 1;
	}
	w0 = *(u64 *)&d->d_iname[0];
	w1 = *(u64 *)&d->d_iname[8];
	w2 = *(u64 *)&d->d_iname[16];
	w3 = *(u64 *)&d->d_iname[24];
	if (odd == PROC_SUPER_MAGIC)
		other = proc_name(m, d, w0);
	else if (odd == DEVPTS_SUPER_MAGIC && is_digit(w0))
		other = NAME_N;
	if (other) {
		w0 = other;
		w1 = 0;
		length = other == NAME_TID ? 5 : other == NAME_N ? 3 : 4;
	}
	to = (u64 *)&m->bytes[at];
	to[0] = w0;
	to[1] = w1;
	to[2] = w2;
	to[3] = w3;
	enlist(m, at, length, class_of(m, at, length, w0, w1), false);
	return 0;
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
		look(m, BPF_CORE_READ(inode, i_ino), depth);
}

/* From the root of a mount (`walk.dentry` in `walk.mount`) to the root of the task. Returns whether it was reached. */
__noinline int climb_mounts(struct member *m, u64 root_dentry, u64 root_mount)
{
	struct walk *w;
	u64 top;
	u32 i;

	if (!m)
		return 0;
	w = &m->walk;
	top = w->dentry;
	for (i = 0; i < MAX_DEPTH + MAX_MOUNTS; i++) {
		forget();
		u64 dentry = w->dentry, mount = w->mount;
		u64 up = parent_of(dentry);

		if (dentry == root_dentry && mount == root_mount) {
			if (up != dentry)
				note_partial(m, dentry);
			return 1;
		}
		if (dentry == top) {
			struct mount *outer = (void *)mount - bpf_core_field_offset(struct mount, mnt);
			struct mount *next = BPF_CORE_READ(outer, mnt_parent);

			if (up != dentry)
				note_partial(m, dentry);
			if (!next || next == outer)
				return 0;
			w->dentry = (u64)BPF_CORE_READ(outer, mnt_mountpoint);
			w->mount = (u64)next + bpf_core_field_offset(struct mount, mnt);
			struct dentry *d = (void *)w->dentry;
			w->device = BPF_CORE_READ(d, d_sb, s_dev);
			struct vfsmount *v = (void *)w->mount;
			top = (u64)BPF_CORE_READ(v, mnt_root);
			look_at(m, w->dentry, w->count);
			continue;
		}
		if (up == dentry || !up)
			return 0;
		if (take(m, 0))
			return 0;
		w->dentry = up;
		look_at(m, up, w->count);
	}
	w->reason |= EVENT_FLAGS_TOO_LONG;
	return 0;
}

/* Looks for an identity above the root of a mount that shows a part of a file system. */
__noinline int climb_hidden(struct member *m, u64 dentry, u32 depth)
{
	struct walk *w;
	struct dentry *d = (void *)dentry;
	u32 i, before;

	if (!m)
		return 0;
	w = &m->walk;
	before = w->bytes;
	w->dentry = dentry;
	w->device = BPF_CORE_READ(d, d_sb, s_dev);
	w->found = 0;
	w->hidden = 0;
	for (i = 0; i < MAX_DEPTH; i++) {
		forget();
		u64 up = parent_of(w->dentry);

		if (up == w->dentry || !up)
			break;
		if (take(m, 1))
			return 1;
		w->dentry = up;
		look_at(m, up, depth);
		if (w->found)
			return 1;
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

/* Climbs from a dentry that the verifier knows, which is not a hook's argument. */
static __always_inline void climb(struct member *m, struct dentry *d, struct vfsmount *mount)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = task->fs;
	struct vfsmount *root_mount = fs->root.mnt;
	struct dentry *root = fs->root.dentry, *up;
	struct dentry *top = mount == root_mount ? root : mount->mnt_root;
	struct walk *w = &m->walk;
	struct super_block *sb = d->d_sb;
	u64 odd = odd_file_system(m, d, sb->s_magic);
	u32 i;

	w->device = sb->s_dev;
	for (i = 0; i <= MAX_DEPTH; i++) {
		forget();
		look(m, d->d_inode->i_ino, w->count);
		up = d->d_parent;
		if (d == top)
			goto root_of_mount;
		if (up == d) {
			w->reason |= EVENT_FLAGS_UNREACHABLE;
			return;
		}
		if (take_typed(m, d, odd))
			return;
		d = up;
	}
	w->reason |= EVENT_FLAGS_TOO_LONG;
	return;

root_of_mount:
	if (mount == root_mount && up == d)
		return;
	w->dentry = (u64)d;
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

	w->device = parent->d_sb->s_dev;
	w->dentry = number(d);
	look_at(m, w->dentry, 0);
	if (take(m, 0))
		return;
	climb(m, parent, mount);
}
