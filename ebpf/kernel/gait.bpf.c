// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* The programs at the hooks of the kernel's security modules. ../src/layout.rs says what they share with user space.
 *
 * Rules that hold in every part:
 * - no room per CPU: these programs can be preempted (members.h says where they keep things);
 * - what lies behind a hook's argument is read in ways that survive a bad address, and never tested for NULL before;
 * - every case that is not known blocks, and says so;
 * - functions with loops are not static: the verifier looks at each once. */
#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "layout.h"

#include "maps.h"

static __always_inline void tell_empty(u32 session);

#include "members.h"
#include "tables.h"
#include "walk.h"
#include "identify.h"
#include "events.h"
#include "fs.h"
#include "exec.h"
#include "guard.h"

/* The kernel's readers of its own memory are for programs under its licence. */
char LICENSE[] SEC("license") = "GPL";
