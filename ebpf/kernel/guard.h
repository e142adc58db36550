/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What never comes from a member: the ground that the session stands on, and what its supervisor does for it. None of this
 * depends on a policy. Where the number of a hook's arguments differs between kernels, they are not declared. */
#pragma once

#define PTRACE_MODE_NOAUDIT 4
#define SEND_SIG_PRIV 1

#define NEVER(hook, operation, what, ...)                                                                              \
	SEC("lsm/" #hook)                                                                                              \
	int BPF_PROG(hook, ##__VA_ARGS__)                                                                      \
	{                                                                                                              \
		return never(OPERATION_##operation, GROUND_##what);                                                    \
	}

NEVER(bpf, GROUND, BPF)
NEVER(sb_mount, GROUND, MOUNT)
NEVER(sb_kern_mount, GROUND, MOUNT)
NEVER(move_mount, GROUND, MOUNT)
NEVER(sb_umount, GROUND, MOUNT)
NEVER(sb_pivotroot, GROUND, MOUNT)
NEVER(path_chroot, GROUND, CHROOT)
NEVER(userns_create, GROUND, USER_NAMESPACE)
NEVER(uring_override_creds, GROUND, URING_CREDENTIALS)
NEVER(kernel_load_data, GROUND, KERNEL_CODE)
NEVER(kernel_read_file, GROUND, KERNEL_CODE)
NEVER(locked_down, GROUND, LOCKDOWN)
NEVER(perf_event_open, GROUND, PERF)
NEVER(unix_stream_connect, UNIX_CONNECT, UNIX)

/* Whether a task is not of the acting member's session. */
static __always_inline bool is_outside(struct member *m, u64 task)
{
	struct member *other = bpf_map_lookup_elem(&members, &task);

	return !other || other->session != m->session;
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_access_check, struct task_struct *task, unsigned int mode, int ret)
{
	struct member *m = acting();

	if (ret || !m || !is_outside(m, number(task)))
		return ret;
	/* A look at a public entry of procfs, which shows less then. */
	if (mode & PTRACE_MODE_NOAUDIT)
		return simulates(m) ? 0 : -EPERM;
	return never(OPERATION_PTRACE, GROUND_PTRACE);
}

SEC("lsm/task_kill")
int BPF_PROG(task_kill, struct task_struct *task, struct kernel_siginfo *info, int signal, const struct cred *cred, int ret)
{
	struct member *m = acting();

	/* The kernel's own signals are nobody's. */
	if (ret || !m || (u64)info == SEND_SIG_PRIV || !is_outside(m, number(task)))
		return ret;
	return never(OPERATION_SIGNAL, GROUND_SIGNAL);
}

/* What a socket's addresses stand for: of the internet, of a unix socket, or nothing that is kept here. */
#define ELSEWHERE 0
#define INTERNET 1
#define LOCAL 2

static __always_inline u32 reach_of(struct socket *socket)
{
	u16 family = BPF_CORE_READ(socket, sk, __sk_common.skc_family);

	if (family == AF_INET || family == AF_INET6)
		return INTERNET;
	return family == AF_UNIX ? LOCAL : ELSEWHERE;
}

SEC("lsm/socket_connect")
int BPF_PROG(socket_connect, struct socket *socket, struct sockaddr *address, int length, int ret)
{
	u32 reach = reach_of(socket);

	/* Without a family it takes a connection back. */
	if (ret || reach == ELSEWHERE || !BPF_CORE_READ(address, sa_family))
		return ret;
	return reach == LOCAL ? never(OPERATION_UNIX_CONNECT, GROUND_UNIX) : never(OPERATION_CONNECT, GROUND_CONNECT);
}

SEC("lsm/socket_bind")
int BPF_PROG(socket_bind, struct socket *socket, struct sockaddr *address, int length, int ret)
{
	/* A unix socket is bound by making its name, which is judged. */
	if (ret || reach_of(socket) != INTERNET)
		return ret;
	return never(OPERATION_LISTEN, GROUND_LISTEN);
}

SEC("lsm/socket_sendmsg")
int BPF_PROG(socket_sendmsg, struct socket *socket, struct msghdr *message, int size, int ret)
{
	u32 reach;

	if (ret || !message->msg_name)
		return ret;
	reach = reach_of(socket);
	if (reach == ELSEWHERE)
		return 0;
	return reach == LOCAL ? never(OPERATION_UNIX_CONNECT, GROUND_UNIX) : never(OPERATION_SEND, GROUND_CONNECT);
}
