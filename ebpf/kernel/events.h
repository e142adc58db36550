/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What is told, and how an action ends. */
#pragma once

/* The ring is nearly full when less than this part of it is free. */
#define RING_RESERVE 4

/* Bytes of names that an event can carry. */
#define EVENT_BYTES (MAX_NAMES + NAME_SLACK)

/* A record without names, from any context: nothing of a member's room is touched. Returns whether it was taken. */
static __always_inline bool tell_bare(u32 session, struct event *e)
{
	void *ring = bpf_map_lookup_elem(&rings, &session);
	struct counters *c;

	e->at = bpf_ktime_get_boot_ns();
	if (ring && !bpf_ringbuf_output(ring, e, sizeof(*e), 0))
		return true;
	c = bpf_map_lookup_elem(&counters, &session);
	if (c)
		__sync_fetch_and_add(&c->lost, 1);
	return false;
}

static __always_inline void tell_empty(u32 session)
{
	struct event e = {};

	e.kind = EVENT_KIND_EMPTY;
	tell_bare(session, &e);
}

/* Whether the call of this thread can be interrupted and made again. The workers of io_uring make no calls, and what they
 * or the ring's owner were asked to do would end with an error instead. */
static __always_inline bool can_stop(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);

	if (task->flags & (PF_IO_WORKER | PF_EXITING))
		return false;
	return BPF_CORE_READ(regs, orig_ax) != __NR_io_uring_enter;
}

/* Stops the thread; the call is made again when it is continued. */
static __always_inline int stop(void)
{
	return bpf_send_signal_thread(SIGSTOP) ? -EACCES : -ERESTARTNOINTR;
}

/* Writes the member's event into the ring. Returns 0, or what the hook must return. */
__noinline int tell(struct member *m, u32 kind, u32 may_stop)
{
	struct event *e;
	struct counters *c;
	void *ring;
	u32 session, bytes;

	if (!m)
		return -EACCES;
	e = &m->event;
	session = m->session;
	e->kind = kind;
	e->at = bpf_ktime_get_boot_ns();
	ring = bpf_map_lookup_elem(&rings, &session);
	if (!ring)
		goto lost;
	if (may_stop) {
		u64 size = bpf_ringbuf_query(ring, BPF_RB_RING_SIZE);

		if (bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) > size - size / RING_RESERVE) {
			struct event pause = {};

			pause.kind = EVENT_KIND_PAUSE;
			pause.tid = e->tid;
			pause.tgid = e->tgid;
			return tell_bare(session, &pause) ? stop() : -EACCES;
		}
	}
	bytes = m->walk.bytes;
	if (bytes > EVENT_BYTES)
		goto lost;
	if (!bpf_ringbuf_output(ring, e, sizeof(*e) + bytes, 0))
		return 0;
lost:
	c = bpf_map_lookup_elem(&counters, &session);
	if (c)
		__sync_fetch_and_add(&c->lost, 1);
	return -EACCES;
}

/* Two bits for each bit. */
static __always_inline u64 spread(u32 operations)
{
	u64 x = operations;

	x = (x | x << 16) & 0x0000ffff0000ffffull;
	x = (x | x << 8) & 0x00ff00ff00ff00ffull;
	x = (x | x << 4) & 0x0f0f0f0f0f0f0f0full;
	x = (x | x << 2) & 0x3333333333333333ull;
	return (x | x << 1) & 0x5555555555555555ull;
}

/* The strictest of the verdicts on some operations. SILENT only where every one is. */
static __always_inline u32 strictest(u64 word, u32 operations)
{
	u64 asked = spread(operations), low = word & asked, high = word >> 1 & asked;

	if (high & low)
		return VERDICT_BLOCK;
	if (high)
		return VERDICT_HOLD;
	return asked & ~low ? VERDICT_ALLOW : VERDICT_SILENT;
}

static __always_inline u32 both(u32 a, u32 b)
{
	if (a >= VERDICT_HOLD || b >= VERDICT_HOLD)
		return a > b ? a : b;
	return a < b ? a : b;
}

/* The answer to this action, if there is one: it is for this thread, these objects and these operations, and used once. */
static __always_inline u32 answered(struct member *m)
{
	struct event *e = &m->event;
	struct grant_key key = { .session = m->session, .tid = e->tid };
	struct grant *g = bpf_map_lookup_elem(&grants, &key);
	u32 verdict;

	if (!g || g->object != e->object || g->second != e->second ||
	    g->operations != e->operations || g->until < bpf_ktime_get_boot_ns())
		return VERDICT_HOLD;
	verdict = g->verdict;
	bpf_map_delete_elem(&grants, &key);
	return verdict == VERDICT_ALLOW ? VERDICT_ALLOW : VERDICT_BLOCK;
}

/* Ends an action on one path or two: tells it, and returns what the hook returns. */
__noinline int conclude(struct member *m, u32 first, u32 second, u32 may_stop)
{
	struct event *e;
	u32 verdict, flags, answer;
	int told;

	if (!m)
		return -EACCES;
	e = &m->event;
	flags = m->walk.session_flags;
	e->operations = first;
	e->second_operations = second;
	verdict = strictest(e->word, first);
	if (second)
		verdict = both(verdict, strictest(e->second_word, second));
	if (m->walk.least > verdict)
		verdict = m->walk.least;
	if (m->walk.reason) {
		verdict = VERDICT_BLOCK;
		e->flags |= m->walk.reason;
	}
	e->verdict = verdict;
	if (verdict == VERDICT_SILENT)
		return 0;
	if ((flags & SESSION_FLAGS_SIMULATE) && verdict >= VERDICT_HOLD) {
		e->flags |= EVENT_FLAGS_SIMULATED;
		tell(m, EVENT_KIND_ACTION, 0);
		return 0;
	}
	may_stop = may_stop && can_stop();
	if (verdict == VERDICT_HOLD) {
		answer = answered(m);
		if (answer != VERDICT_HOLD)
			return answer == VERDICT_ALLOW ? 0 : -EACCES;
		if (may_stop) {
			told = tell(m, EVENT_KIND_HOLD, 1);
			return told ? told : stop();
		}
		/* Nobody can be asked here. */
		verdict = e->verdict = VERDICT_BLOCK;
	}
	told = tell(m, EVENT_KIND_ACTION, may_stop);
	if (verdict == VERDICT_BLOCK && told != -ERESTARTNOINTR)
		return -EACCES;
	return flags & SESSION_FLAGS_SIMULATE ? 0 : told;
}

/* As conclude(), with a value that the verifier knows to be one that a hook may return. */
static __always_inline int finish(struct member *m, u32 first, u32 second, u32 may_stop)
{
	int result;

	/* What nobody is told of costs no more than this. */
	if (!m->walk.reason && !m->walk.least && strictest(m->event.word, first) == VERDICT_SILENT &&
	    (!second || strictest(m->event.second_word, second) == VERDICT_SILENT))
		return 0;
	result = conclude(m, first, second, may_stop);
	if (!result)
		return 0;
	return result == -ERESTARTNOINTR ? -ERESTARTNOINTR : -EACCES;
}

/* Blocks, or in a simulation tells, what never comes from a member. It may be called from any context. */
static __always_inline int never(u32 operation, u64 what)
{
	struct member *m = acting();
	struct event e = {};
	u64 task;
	bool simulated;

	if (!m)
		return 0;
	simulated = simulates(m);
	task = bpf_get_current_pid_tgid();
	e.kind = EVENT_KIND_ACTION;
	e.verdict = VERDICT_BLOCK;
	e.flags = EVENT_FLAGS_NEVER | (simulated ? EVENT_FLAGS_SIMULATED : 0);
	e.operations = 1u << operation;
	e.object = what;
	e.tid = task;
	e.tgid = task >> 32;
	e.image = m->image;
	tell_bare(m->session, &e);
	return simulated ? 0 : -EPERM;
}
