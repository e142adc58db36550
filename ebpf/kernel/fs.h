/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Files and directories. Which operations a hook stands for is what the seccomp backend makes of the same calls. */
#pragma once

#define BIT(operation) (1u << OPERATION_##operation)

/* Signals, exec and mappings cannot be made again. */
#define MAY_STOP 1
#define MAY_NOT_STOP 0

static __always_inline u64 inode_number(u64 dentry)
{
	struct dentry *d = (void *)dentry;
	struct inode *inode = BPF_CORE_READ(d, d_inode);

	return inode ? BPF_CORE_READ(inode, i_ino) : 0;
}

/* The object's inode; where there is none yet, its directory's, mixed with its name. */
static __always_inline u64 object_of(u64 dentry)
{
	struct dentry *d = (void *)dentry;
	u64 inode = inode_number(dentry);

	if (inode)
		return inode;
	return inode_number(parent_of(dentry)) ^ (u64)BPF_CORE_READ(d, d_name.hash) << 32;
}

static __always_inline u32 kind_of(u64 dentry)
{
	struct dentry *d = (void *)dentry;
	struct inode *inode = BPF_CORE_READ(d, d_inode);

	return inode ? BPF_CORE_READ(inode, i_mode) & S_IFMT : 0;
}

/* After the climb of the first path. */
static __always_inline void close_first(struct member *m)
{
	struct walk *w = &m->walk;
	struct event *e = &m->event;
	u32 end;

	e->word = judge(m);
	end = w->hidden ? w->visible : w->bytes;
	e->first_bytes = end;
	e->first_hidden = w->bytes - end;
	if (w->found) {
		e->flags |= EVENT_FLAGS_IDENTITY;
		e->identity = w->name;
		e->identity_depth = w->depth;
	}
}

/* After the climb of the second one. */
static __always_inline void close_second(struct member *m)
{
	struct walk *w = &m->walk;
	struct event *e = &m->event;
	u32 end;

	e->second_word = judge(m);
	end = w->hidden ? w->visible : w->bytes;
	e->second_bytes = end - e->first_bytes - e->first_hidden;
	e->second_hidden = w->bytes - end;
	if (w->found) {
		e->flags |= EVENT_FLAGS_SECOND_IDENTITY;
		e->second_identity = w->name;
		e->second_identity_depth = w->depth;
	}
}

/* File systems through which more is changed than files: a write there reaches other processes or the kernel. Of procfs
 * that is so for what belongs to no process. */
__noinline int is_ground(u64 magic)
{
	return magic == SYSFS_MAGIC || magic == BPF_FS_MAGIC || magic == CGROUP2_SUPER_MAGIC ||
	       magic == CGROUP_SUPER_MAGIC || magic == DEBUGFS_MAGIC || magic == TRACEFS_MAGIC ||
	       magic == SECURITYFS_MAGIC || magic == SELINUX_MAGIC || magic == EFIVARFS_MAGIC ||
	       magic == CONFIGFS_MAGIC || magic == BINFMTFS_MAGIC;
}

static __always_inline void refuse_ground(struct member *m, u64 magic)
{
	if (is_ground(magic) || (magic == PROC_SUPER_MAGIC && m->walk.process == NOBODY))
		m->walk.reason |= EVENT_FLAGS_NEVER;
}

/* One operation on a name in a directory. */
static __always_inline int on_entry(struct path *directory, struct dentry *d, u32 operations, u32 reason)
{
	struct member *m = acting();
	struct dentry *parent;

	if (!m)
		return 0;
	parent = directory->dentry;
	begin(m);
	climb_entry(m, d, parent, directory->mnt);
	m->event.object = object_of(number(d));
	m->event.device = parent->d_sb->s_dev;
	refuse_ground(m, parent->d_sb->s_magic);
	m->walk.reason |= reason;
	close_first(m);
	return finish(m, operations, 0, MAY_STOP);
}

/* One operation on an object that exists. */
static __always_inline int on_path(struct path *path, u32 operations, u32 reason)
{
	struct member *m = acting();
	struct dentry *d;

	if (!m)
		return 0;
	d = path->dentry;
	if (d->d_sb->s_flags & SB_NOUSER)
		return 0;
	begin(m);
	m->event.object = d->d_inode->i_ino;
	m->event.device = d->d_sb->s_dev;
	climb(m, d, path->mnt);
	refuse_ground(m, d->d_sb->s_magic);
	m->walk.reason |= reason;
	close_first(m);
	return finish(m, operations, 0, MAY_STOP);
}

/* What an open is, from its flags and what it opens. */
static __always_inline u32 open_operations(u32 flags, u32 kind)
{
	u32 access = flags & O_ACCMODE, operations;

	if (access == O_RDONLY)
		operations = kind == S_IFDIR ? BIT(LIST) : BIT(READ);
	else if (access == O_WRONLY)
		operations = BIT(WRITE);
	else
		operations = BIT(WRITE) | BIT(READ);
	if ((flags & O_TRUNC) && kind == S_IFREG)
		operations |= BIT(TRUNCATE);
	return operations;
}

/* O_TMPFILE: a file without a name is made in a directory. */
static __always_inline int open_temporary(struct member *m, struct file *file)
{
	struct dentry *d = file->f_path.dentry, *directory = d->d_parent;

	begin(m);
	m->event.object = directory->d_inode->i_ino;
	m->event.device = d->d_sb->s_dev;
	climb(m, directory, file->f_path.mnt);
	refuse_ground(m, d->d_sb->s_magic);
	close_first(m);
	return finish(m, BIT(CREATE), 0, MAY_STOP);
}

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file, int ret)
{
	struct member *m;
	struct dentry *d;
	struct inode *inode;
	u32 flags, kind, operations;
	u64 magic;
	int result;

	if (ret)
		return ret;
	m = acting();
	if (!m)
		return 0;
	flags = file->f_flags;
	m->truncating = 0;
	if (flags & O_TMPFILE_BIT)
		return open_temporary(m, file);
	/* Told when the name was made; judged as an exec; the lower file of a stacked file system. */
	if ((file->f_mode & (FMODE_CREATED | FMODE_NOACCOUNT)) || (flags & FMODE_EXEC_OPEN))
		return 0;
	d = file->f_path.dentry;
	inode = d->d_inode;
	/* Pipes, sockets, memory files: the tree had them. */
	if (d->d_sb->s_flags & SB_NOUSER)
		return 0;
	kind = inode->i_mode & S_IFMT;
	operations = open_operations(flags, kind);
	begin(m);
	m->event.object = inode->i_ino;
	m->event.device = d->d_sb->s_dev;
	climb(m, d, file->f_path.mnt);
	magic = d->d_sb->s_magic;
	if (operations & (BIT(WRITE) | BIT(TRUNCATE)))
		refuse_ground(m, magic);
	if (kind == S_IFBLK)
		m->walk.reason |= EVENT_FLAGS_NEVER;
	close_first(m);
	if (!inode->i_nlink) {
		m->event.flags |= EVENT_FLAGS_REMOVED;
		/* It was open already. Where the path that it had says otherwise, user space finds out. */
		if (strictest(m->event.word, operations) <= VERDICT_SILENT && !m->walk.reason && !m->walk.least)
			return 0;
		m->walk.least = VERDICT_HOLD;
	}
	result = finish(m, operations, 0, MAY_STOP);
	if (!result && (operations & BIT(TRUNCATE)))
		m->truncating = inode->i_ino;
	return result;
}

/* The truncation that belongs to an open was judged there. Any other comes from the supervisor, who is no member. */
static __always_inline int truncation(struct member *m, u64 inode)
{
	u64 expected = m->truncating;

	m->truncating = 0;
	return expected && expected == inode;
}

SEC("lsm/path_truncate")
int BPF_PROG(path_truncate, struct path *path, int ret)
{
	struct member *m = acting();

	if (ret || !m || truncation(m, path->dentry->d_inode->i_ino))
		return ret;
	return on_path(path, BIT(TRUNCATE), EVENT_FLAGS_NEVER);
}

SEC("lsm/file_truncate")
int BPF_PROG(file_truncate, struct file *file, int ret)
{
	struct member *m = acting();

	if (ret || !m || truncation(m, file->f_path.dentry->d_inode->i_ino))
		return ret;
	return on_path(&file->f_path, BIT(TRUNCATE), EVENT_FLAGS_NEVER);
}

SEC("lsm/path_mknod")
int BPF_PROG(path_mknod, struct path *directory, struct dentry *d, umode_t mode, unsigned int device, int ret)
{
	u32 kind = mode & S_IFMT, reason = 0, operation = BIT(MKNOD);

	if (ret)
		return ret;
	/* A device node is a door around every path. */
	if (kind == S_IFCHR || kind == S_IFBLK)
		reason = EVENT_FLAGS_NEVER;
	if (kind == S_IFREG || !kind)
		operation = BIT(CREATE);
	return on_entry(directory, d, operation, reason);
}

SEC("lsm/path_mkdir")
int BPF_PROG(path_mkdir, struct path *directory, struct dentry *d, umode_t mode, int ret)
{
	return ret ? ret : on_entry(directory, d, BIT(MKDIR), 0);
}

SEC("lsm/path_symlink")
int BPF_PROG(path_symlink, struct path *directory, struct dentry *d, const char *target, int ret)
{
	return ret ? ret : on_entry(directory, d, BIT(SYMLINK), 0);
}

SEC("lsm/path_unlink")
int BPF_PROG(path_unlink, struct path *directory, struct dentry *d, int ret)
{
	return ret ? ret : on_entry(directory, d, BIT(UNLINK), 0);
}

SEC("lsm/path_rmdir")
int BPF_PROG(path_rmdir, struct path *directory, struct dentry *d, int ret)
{
	return ret ? ret : on_entry(directory, d, BIT(RMDIR), 0);
}

SEC("lsm/path_chmod")
int BPF_PROG(path_chmod, struct path *path, umode_t mode, int ret)
{
	return ret ? ret : on_path(path, BIT(CHMOD), 0);
}

SEC("lsm/path_chown")
int BPF_PROG(path_chown, struct path *path, u64 uid, u64 gid, int ret)
{
	return ret ? ret : on_path(path, BIT(CHOWN), 0);
}

SEC("lsm/path_link")
int BPF_PROG(path_link, struct dentry *old, struct path *directory, struct dentry *new, int ret)
{
	struct member *m;
	struct dentry *parent;
	u64 from;

	if (ret)
		return ret;
	m = acting();
	if (!m)
		return 0;
	from = number(old);
	/* A file made by O_TMPFILE has no old name. */
	struct dentry *unknown = (void *)from;
	if (!BPF_CORE_READ(unknown, d_inode, i_nlink))
		return on_entry(directory, new, BIT(LINK_NEW), 0);
	parent = directory->dentry;
	begin(m);
	/* The kernel makes no link across mounts. */
	climb_entry(m, old, old->d_parent, directory->mnt);
	m->event.object = object_of(from);
	m->event.device = parent->d_sb->s_dev;
	close_first(m);
	begin_path(m);
	climb_entry(m, new, parent, directory->mnt);
	m->event.second = object_of(number(new));
	refuse_ground(m, parent->d_sb->s_magic);
	close_second(m);
	/* Writing through the new name is writing the old file. */
	return finish(m, BIT(LINK_OLD) | BIT(LINK_NEW), BIT(LINK_NEW), MAY_STOP);
}

/* A new name must not make readable what may not be read under the old one: the operation that says so, and its verdict. */
static __always_inline u32 reading(u32 kind)
{
	return kind == S_IFLNK ? 0 : kind == S_IFDIR ? BIT(LIST) : BIT(READ);
}

/* Returns whether the action ends here: the old name may not be read. `*more` gets the operation where that is asked. */
static __always_inline bool unreadable(struct member *m, u64 word, u32 kind, u32 *more)
{
	u32 operation = reading(kind), verdict;

	if (!operation || m->walk.reason)
		return false;
	verdict = strictest(word, operation);
	if (verdict == VERDICT_HOLD)
		*more = operation;
	return verdict == VERDICT_BLOCK;
}

SEC("lsm/path_rename")
int BPF_PROG(path_rename, struct path *old_directory, struct dentry *old, struct path *new_directory,
	     struct dentry *new, unsigned int flags, int ret)
{
	struct member *m;
	struct dentry *parent;
	u32 first, second, more = 0, kind;
	int result;

	if (ret)
		return ret;
	m = acting();
	if (!m)
		return 0;
	parent = old_directory->dentry;
	begin(m);
	climb_entry(m, old, parent, old_directory->mnt);
	m->event.object = object_of(number(old));
	m->event.device = parent->d_sb->s_dev;
	refuse_ground(m, parent->d_sb->s_magic);
	/* A whiteout is a device node. */
	if (flags & RENAME_WHITEOUT)
		m->walk.reason |= EVENT_FLAGS_NEVER;
	close_first(m);
	begin_path(m);
	parent = new_directory->dentry;
	climb_entry(m, new, parent, new_directory->mnt);
	m->event.second = object_of(number(new));
	close_second(m);
	if (unreadable(m, m->event.word, kind_of(number(old)), &more)) {
		result = finish(m, reading(kind_of(number(old))), 0, MAY_STOP);
		if (result)
			return result;
	}
	kind = kind_of(number(new));
	if (flags & RENAME_EXCHANGE) {
		first = BIT(RENAME_OVER) | BIT(RENAME_NEW) | more;
		more = 0;
		if (unreadable(m, m->event.second_word, kind, &more)) {
			result = finish(m, 0, reading(kind), MAY_STOP);
			if (result)
				return result;
		}
		second = BIT(RENAME_OVER) | BIT(RENAME_NEW) | more;
	} else {
		first = BIT(RENAME_OLD) | more;
		second = BIT(RENAME_NEW) | (kind ? BIT(RENAME_OVER) : 0);
	}
	return finish(m, first, second, MAY_STOP);
}
