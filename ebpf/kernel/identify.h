/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* From the descriptors of files that rules name to the inodes behind them. */
#pragma once

/* Runs for each file that a process has open. Only user space runs this, as a reader of the iterator. */
SEC("iter/task_file")
int identify(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	u32 zero = 0, fd = ctx->fd, bit, index;
	struct naming *naming_of = bpf_map_lookup_elem(&naming, &zero);
	struct identity_key key = {};
	struct identity *name;
	u64 *bits;
	long result;

	if (!task || !file || !naming_of || task->tgid != (int)naming_of->process)
		return 0;
	name = bpf_map_lookup_elem(&named, &fd);
	if (!name)
		return 0;
	key.session = naming_of->session;
	key.inode = number(file->f_inode);
	bit = filter_bit(key.inode);
	index = bit >> 6;
	bits = bpf_map_lookup_elem(&filter, &index);
	if (!key.inode || !bits)
		return 0;
	/* The bit first, so that there is never an identity that it does not show. */
	__sync_fetch_and_or(bits, 1ull << (bit & 63));
	result = bpf_map_update_elem(&identities, &key, name, BPF_NOEXIST);
	if (!result || result == -EEXIST)
		naming_of->found += 1;
	else
		naming_of->refused += 1;
	return 0;
}
