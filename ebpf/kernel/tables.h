/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The two automata, as layout.rs describes them. The functions that are not static are verified once, with any arguments,
 * and not again for every way to them. */
#pragma once

/* What a step returns where the tables lead out of themselves. */
#define BROKEN 0xffffffffu
/* Just below it: class of a name that is not classified: it has a byte above 0x7f. */
#define UNCLASSED 0xfffffffeu

#define MAX_NAME_BYTES 255

/* Keeps the compiler from remembering what it read before this. Where a loop's variables live in memory, the verifier
 * knows nothing of their values, and sees that one turn is as good as another. */
#define forget() asm volatile("" ::: "memory")

static __always_inline u64 *cell(u32 first, u32 count, u64 at)
{
	u32 index = first + (u32)at;

	if (at >= count)
		return NULL;
	return bpf_map_lookup_elem(&cells, &index);
}

/* One step. Symbol 0 always falls back. */
__noinline u32 step(u32 first, u32 count, u32 state, u32 symbol)
{
	u64 *c = cell(first, count, state), *e, head;

	if (!c)
		return BROKEN;
	head = *c;
	if ((u32)head == NO_EDGES || !symbol)
		return head >> 32;
	e = cell(first, count, (u64)(u32)head + symbol);
	if (!e)
		return BROKEN;
	return (u32)*e == state ? *e >> 32 : head >> 32;
}

/* What a text that ends in a state is. */
static __always_inline u32 accepted(u32 first, u32 count, u32 state)
{
	u64 *c = cell(first, count, (u64)state + 1);

	return c ? (u32)*c : BROKEN;
}

/* Class of the name that lies at `at` among the member's bytes. */
__noinline int classify(struct member *m, u32 at, u32 length)
{
	u32 first, count, state, i;

	if (!m || at > MAX_NAMES || length > MAX_NAME_BYTES)
		return BROKEN;
	first = m->walk.cells;
	count = m->walk.cell_count;
	state = m->walk.names;
	for (i = 0; i < MAX_NAME_BYTES; i++) {
		if (i >= length)
			break;
		u8 byte = m->bytes[at + i];
		if (byte & 0x80)
			return UNCLASSED;
		state = step(first, count, state, byte);
	}
	return accepted(first, count, state);
}

/* Slots of a short name among the remembered ones: the first of two. */
static __always_inline u32 memo_slot(u64 low, u64 high)
{
	return (((low ^ high) * MIX) >> 40) & (MEMO_SLOTS - 2);
}

static __always_inline bool remembers(struct memo *memo, u64 low, u64 high)
{
	return memo->low == low && memo->high == high && low;
}

/* As classify(), of a name that has at most 31 bytes and whose first 16 are at hand. A process uses the same names over
 * and over; its memory of them is exact, and the tables of a session never change. Of two names with the same slots each
 * keeps one: the names of one path must not drive each other out. */
static __always_inline u32 class_of(struct member *m, u32 at, u32 length, u64 low, u64 high)
{
	struct memo *memo;
	u32 class;

	if (length >= 16)
		return classify(m, at, length);
	if (length < 8) {
		low &= (1ull << (length * 8)) - 1;
		high = 0;
	} else {
		high &= (1ull << ((length - 8) * 8)) - 1;
	}
	memo = &m->memo[memo_slot(low, high)];
	if (remembers(&memo[0], low, high))
		return memo[0].class;
	if (remembers(&memo[1], low, high))
		return memo[1].class;
	class = classify(m, at, length);
	if (class < UNCLASSED) {
		memo[1] = memo[0];
		memo->low = low;
		memo->high = high;
		memo->class = class;
	}
	return class;
}

/* Runs the path automaton from a state over classes [to, from), last one first: those of the path, or hidden ones. Step by
 * step as step() goes, but written out: this is done for every component of every action. */
__noinline u32 run(struct member *m, u32 state, u32 from, u32 to, u32 hidden)
{
	u32 first, count, i, symbol;
	u64 *c, *e, head;
	u32 *classes;

	if (!m)
		return BROKEN;
	first = m->walk.cells;
	count = m->walk.cell_count;
	classes = hidden ? m->hidden : m->classes;
	for (i = 0; i < MAX_DEPTH; i++) {
		if (from <= to)
			break;
		from -= 1;
		symbol = classes[from & (MAX_DEPTH - 1)];
		c = cell(first, count, state);
		if (!c)
			return BROKEN;
		head = *c;
		/* A state that nothing leads out of: no further component changes it. */
		if ((u32)head == NO_EDGES && head >> 32 == state)
			break;
		if ((u32)head == NO_EDGES || !symbol) {
			state = head >> 32;
			continue;
		}
		e = cell(first, count, (u64)(u32)head + symbol);
		if (!e)
			return BROKEN;
		state = (u32)*e == state ? *e >> 32 : head >> 32;
	}
	return state;
}

/* The stricter of two verdicts, field by field: two bits each, of which "silent" only stays where both say so. */
static __always_inline u64 stricter(u64 a, u64 b)
{
	const u64 lows = 0x5555555555555555ull;
	u64 ah = a >> 1 & lows, bh = b >> 1 & lows, high = ah | bh;
	u64 low = (ah & a) | (bh & b) | (~high & a & b);

	return high << 1 | (low & lows);
}

/* The word for a path that ends in a state. */
static __always_inline u64 word_of(struct member *m, struct session *s, u32 state)
{
	u32 region = accepted(s->cells, s->cell_count, state);
	u64 at = (u64)region * s->image_classes + m->image_class;
	u32 index = s->words + (u32)at;
	u64 *w;

	if (region == BROKEN || m->image_class >= s->image_classes || at >= s->word_count)
		goto broken;
	w = bpf_map_lookup_elem(&words, &index);
	if (w)
		return *w;
broken:
	m->walk.reason |= EVENT_FLAGS_TABLES;
	return 0;
}

/* Judges the path that the walk has left in the member. Returns its word; `walk.found` stays set where an identity had a
 * say in it. */
__noinline u64 judge(struct member *m)
{
	struct session *s;
	struct walk *w;
	u32 state;
	u64 word;

	if (!m)
		return 0;
	s = session_of(m);
	w = &m->walk;
	if (!s || w->reason)
		return 0;
	if (!w->found)
		return word_of(m, s, run(m, s->paths, w->count, 0, 0));
	/* Where the path comes by in the very state that the identity stands for, both say the same. */
	state = run(m, s->paths, w->count, w->depth, 0);
	if (!w->hidden && state == w->state)
		w->found = 0;
	word = word_of(m, s, run(m, state, w->depth, 0, 0));
	if (!w->found)
		return word;
	state = run(m, w->state, w->hidden, 0, 1);
	return stricter(word, word_of(m, s, run(m, state, w->depth, 0, 0)));
}
