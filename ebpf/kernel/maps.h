/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The maps; layout.h says what is in them. Sizes that depend on the policies are the loader's. */
#pragma once

#define ARRAY_OF(name_, type_, entries_)                                                                               \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                      \
		__uint(max_entries, entries_);                                                                         \
		__type(key, u32);                                                                                      \
		__type(value, type_);                                                                                  \
	} name_ SEC(".maps")

#define HASH_OF(name_, key_, type_, entries_)                                                                          \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                       \
		__uint(max_entries, entries_);                                                                         \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                  \
		__type(key, key_);                                                                                     \
		__type(value, type_);                                                                                  \
	} name_ SEC(".maps")

ARRAY_OF(cells, u64, 1 << 20);
ARRAY_OF(words, u64, 1 << 16);
ARRAY_OF(filter, u64, FILTER_BITS / 64);
ARRAY_OF(sessions, struct session, MAX_SESSIONS);
ARRAY_OF(counters, struct counters, MAX_SESSIONS);
ARRAY_OF(seed, struct seed, 1);
/* Stays zero: what a new member begins with. */
ARRAY_OF(blank, struct member, 1);
ARRAY_OF(naming, struct naming, 1);
/* By descriptor, for the time of one pass over them. */
HASH_OF(named, u32, struct identity, 1 << 14);
HASH_OF(identities, struct identity_key, struct identity, 1 << 16);
HASH_OF(grants, struct grant_key, struct grant, 4096);

/* A hash and not task storage: on 6.1 with preempt=full a lookup in that fails where another task was preempted in one. */
HASH_OF(members, u64, struct member, MAX_MEMBERS);

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_SESSIONS);
	__type(key, u32);
	__array(values, struct ring);
} rings SEC(".maps");
