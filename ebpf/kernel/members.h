/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Which tasks are under control. */
#pragma once

/* The acting task, if it is a member. Its value is also the room in which its actions are judged: nothing per CPU could be
 * used, since another task may run on this CPU in the middle of a hook. */
static __always_inline struct member *acting(void)
{
	u64 task = bpf_get_current_task();

	return bpf_map_lookup_elem(&members, &task);
}

/* An address as a number; what is read behind it afterwards is read with fault-tolerant helpers only. */
static __always_inline u64 number(const void *pointer)
{
	u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), &pointer);
	return address;
}

static __always_inline struct session *session_of(struct member *m)
{
	u32 session = m->session;

	return bpf_map_lookup_elem(&sessions, &session);
}

static __always_inline bool simulates(struct member *m)
{
	struct session *s = session_of(m);

	return s && (s->flags & SESSION_FLAGS_SIMULATE);
}

static __always_inline void count_members(u32 session, long change)
{
	struct counters *c = bpf_map_lookup_elem(&counters, &session);

	if (c)
		__sync_fetch_and_add(&c->members, change);
}

/* Runs in the parent, before the child can: there is no task that is not tracked. */
SEC("lsm/task_alloc")
int BPF_PROG(task_alloc, struct task_struct *task, unsigned long clone_flags, int ret)
{
	struct member *parent;
	struct counters *c;
	u64 child;
	u32 session;

	if (ret)
		return ret;
	parent = acting();
	if (!parent)
		return 0;
	session = parent->session;
	child = number(task);
	if (!bpf_map_update_elem(&members, &child, parent, BPF_NOEXIST)) {
		count_members(session, 1);
		return 0;
	}
	c = bpf_map_lookup_elem(&counters, &session);
	if (c)
		__sync_fetch_and_add(&c->forks_refused, 1);
	return simulates(parent) ? 0 : -EAGAIN;
}

/* The task's memory can be used again after this, for a task that is no member. It may run in any context. */
SEC("lsm/task_free")
int BPF_PROG(task_free, struct task_struct *task)
{
	u64 key = number(task);
	struct member *m = bpf_map_lookup_elem(&members, &key);
	struct counters *c;
	u32 session;

	if (!m)
		return 0;
	session = m->session;
	if (bpf_map_delete_elem(&members, &key))
		return 0;
	c = bpf_map_lookup_elem(&counters, &session);
	if (c && __sync_fetch_and_add(&c->members, -1ul) == 1)
		tell_empty(session);
	return 0;
}

/* Makes the task that `seed` names a member. Only user space runs this, as a reader of the iterator. */
SEC("iter/task")
int seed_member(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	u32 zero = 0;
	struct seed *wanted = bpf_map_lookup_elem(&seed, &zero);
	struct member *m = bpf_map_lookup_elem(&blank, &zero);
	u64 key;

	if (!task || !wanted || !m || task->pid != (int)wanted->pid || task->tgid != task->pid)
		return 0;
	/* A thread that is not placed would stay outside. */
	if (BPF_CORE_READ(task, signal, nr_threads) != 1)
		return 0;
	key = number(task);
	if (bpf_map_update_elem(&members, &key, m, BPF_NOEXIST))
		return 0;
	count_members(wanted->session, 1);
	m = bpf_map_lookup_elem(&members, &key);
	if (!m)
		return 0;
	m->image_class = wanted->image_class;
	m->session = wanted->session;
	wanted->placed += 1;
	return 0;
}
