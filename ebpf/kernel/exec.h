/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Images. An exec is judged by user space, which sees the arguments; what the tables block is blocked here too. */
#pragma once

/* Blocks where the tables do; nothing is asked and nothing else is told. */
static __always_inline int only_block(struct file *file, u32 operations)
{
	struct member *m = acting();
	struct dentry *d;

	if (!m)
		return 0;
	d = file->f_path.dentry;
	if (d->d_sb->s_flags & SB_NOUSER)
		return 0;
	begin(m);
	m->event.object = d->d_inode->i_ino;
	m->event.device = d->d_sb->s_dev;
	climb(m, d, file->f_path.mnt);
	close_first(m);
	if (!m->walk.reason && strictest(m->event.word, operations) != VERDICT_BLOCK)
		return 0;
	if (m->walk.session_flags & SESSION_FLAGS_SIMULATE)
		return 0;
	return finish(m, operations, 0, MAY_NOT_STOP);
}

/* Comes for a script, and again for its interpreter. */
SEC("lsm/bprm_check_security")
int BPF_PROG(bprm_check_security, struct linux_binprm *bprm, int ret)
{
	return ret ? ret : only_block(bprm->file, BIT(EXEC));
}

/* A descriptor that came through a socket, or from the listener, is as good as an open. */
SEC("lsm/file_receive")
int BPF_PROG(file_receive, struct file *file, int ret)
{
	u32 kind = file->f_path.dentry->d_inode->i_mode & S_IFMT;

	return ret ? ret : only_block(file, open_operations(file->f_flags & O_ACCMODE, kind));
}

/* Past the point of no return, before the first instruction: what the task is from now on. */
__noinline int enter_image(struct member *m)
{
	struct session *s;
	struct counters *c;
	u32 session, class;

	if (!m)
		return 0;
	session = m->session;
	m->image_class = UNKNOWN_IMAGE;
	c = bpf_map_lookup_elem(&counters, &session);
	m->image = c ? __sync_fetch_and_add(&c->images, 1) + 1 : 0;
	m->event.image = m->image;
	s = session_of(m);
	if (!s || m->walk.reason)
		return 0;
	class = run(m, s->images, m->walk.count, 0, 0);
	class = class == BROKEN ? BROKEN : accepted(s->cells, s->cell_count, class);
	/* A name that is not classified may be any image. */
	if (class < s->image_classes && m->walk.least == VERDICT_ALLOW)
		m->image_class = class;
	return 0;
}

SEC("lsm/bprm_committed_creds")
int BPF_PROG(bprm_committed_creds, struct linux_binprm *bprm)
{
	struct member *m = acting();
	struct file *file;
	struct dentry *d;
	struct event *e;

	if (!m)
		return 0;
	file = bprm->file;
	d = file->f_path.dentry;
	begin(m);
	e = &m->event;
	e->object = d->d_inode->i_ino;
	e->device = d->d_sb->s_dev;
	if (d->d_sb->s_flags & SB_NOUSER)
		m->walk.reason |= EVENT_FLAGS_UNREACHABLE;
	else
		climb(m, d, file->f_path.mnt);
	enter_image(m);
	e->first_bytes = m->walk.hidden ? m->walk.visible : m->walk.bytes;
	e->first_hidden = m->walk.bytes - e->first_bytes;
	e->operations = 0;
	e->second_operations = 0;
	e->verdict = VERDICT_ALLOW;
	e->flags |= m->walk.reason;
	tell(m, EVENT_KIND_IMAGE, 0);
	return 0;
}

/* Mapping a file executable, or making a mapping so. Nothing can be asked: what would be held is blocked. */
static __always_inline int on_mapping(struct file *file)
{
	struct member *m = acting();
	struct dentry *d;

	if (!m)
		return 0;
	d = file->f_path.dentry;
	/* The kernel's own mapping of an image that was judged as such. */
	if ((file->f_flags & FMODE_EXEC_OPEN) || (d->d_sb->s_flags & SB_NOUSER))
		return 0;
	begin(m);
	if (!(m->walk.session_flags & SESSION_FLAGS_MMAP_EXEC))
		return 0;
	m->event.object = d->d_inode->i_ino;
	m->event.device = d->d_sb->s_dev;
	climb(m, d, file->f_path.mnt);
	close_first(m);
	return finish(m, BIT(MMAP_EXEC), 0, MAY_NOT_STOP);
}

SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *file, unsigned long asked, unsigned long prot, unsigned long flags, int ret)
{
	/* The file is NULL for memory without one. */
	if (ret || !file || !(prot & PROT_EXEC))
		return ret;
	return on_mapping(file);
}

SEC("lsm/file_mprotect")
int BPF_PROG(file_mprotect, struct vm_area_struct *area, unsigned long asked, unsigned long prot, int ret)
{
	struct file *file;

	if (ret || !(prot & PROT_EXEC) || (area->vm_flags & VM_EXEC))
		return ret;
	file = area->vm_file;
	return file ? on_mapping(file) : 0;
}
