/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the programs read of the kernel's own structs. Only the names count: the loader puts in the offsets of the running
 * kernel (CO-RE), so fields that nobody reads are left out, and the order says nothing. */
#pragma once

#include <linux/bpf.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef _Bool bool;
typedef unsigned short umode_t;
typedef unsigned int fmode_t;

#define NULL ((void *)0)
#define true 1
#define false 0

/* uapi errno and signals */
#define EPERM 1
#define EAGAIN 11
#define EACCES 13
#define EEXIST 17
/* include/linux/errno.h: the call is made again, whatever the handler of the signal says. */
#define ERESTARTNOINTR 513
#define SIGSTOP 19

/* include/linux/fs.h */
#define FMODE_CREATED 0x100000
#define FMODE_NOACCOUNT 0x20000000
#define FMODE_EXEC_OPEN 0x20 /* __FMODE_EXEC, in f_flags */
#define SB_NOUSER (1u << 31)
#define RENAME_EXCHANGE 2
#define RENAME_WHITEOUT 4

/* uapi fcntl.h and stat.h */
#define O_ACCMODE 3
#define O_RDONLY 0
#define O_WRONLY 1
#define O_TRUNC 01000
#define O_TMPFILE_BIT 020000000
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFLNK 0120000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#define S_IFIFO 0010000
#define PROT_EXEC 4
#define VM_EXEC 4

/* include/linux/sched.h */
#define PF_EXITING 0x4
#define PF_IO_WORKER 0x10

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10

/* uapi linux/magic.h, and those that stand in a file system's own source */
#define PROC_SUPER_MAGIC 0x9fa0
#define DEVPTS_SUPER_MAGIC 0x1cd1
#define SYSFS_MAGIC 0x62656572
#define BPF_FS_MAGIC 0xcafe4a11
#define CGROUP_SUPER_MAGIC 0x27e0eb
#define CGROUP2_SUPER_MAGIC 0x63677270
#define DEBUGFS_MAGIC 0x64626720
#define TRACEFS_MAGIC 0x74726163
#define SECURITYFS_MAGIC 0x73636673
#define SELINUX_MAGIC 0xf97cff8c
#define EFIVARFS_MAGIC 0xde5e81e4
#define CONFIGFS_MAGIC 0x62656570
#define BINFMTFS_MAGIC 0x42494e4d

#define __NR_io_uring_enter 426

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct dentry;
struct vfsmount;

struct super_block {
	u32 s_dev;
	unsigned long s_flags;
	unsigned long s_magic;
};

struct inode {
	umode_t i_mode;
	unsigned int i_nlink;
	struct super_block *i_sb;
	unsigned long i_ino;
	u32 i_rdev;
};

struct qstr {
	union {
		struct {
			u32 hash;
			u32 len;
		};
		u64 hash_len;
	};
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	unsigned char d_iname[32];
	struct super_block *d_sb;
};

/* As `dentry` is from 6.14 on: the short name has another name. */
union shortname_store {
	unsigned char string[40];
};

struct dentry___since_6_14 {
	union shortname_store d_shortname;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	fmode_t f_mode;
	struct inode *f_inode;
	unsigned int f_flags;
	struct path f_path;
};

struct linux_binprm {
	struct file *file;
};

struct vm_area_struct {
	unsigned long vm_flags;
	struct file *vm_file;
};

struct hlist_node;

struct hlist_head {
	struct hlist_node *first;
};

struct hlist_node {
	struct hlist_node *next;
};

struct pid {
	struct hlist_head tasks[4];
};

struct proc_inode {
	struct pid *pid;
	struct inode vfs_inode;
};

struct fs_struct {
	struct path root;
};

struct signal_struct {
	int nr_threads;
};

struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	struct fs_struct *fs;
	struct signal_struct *signal;
	struct hlist_node pid_links[4];
};

struct pt_regs {
	unsigned long orig_ax;
};

struct sockaddr {
	unsigned short sa_family;
};

struct sock_common {
	unsigned short skc_family;
};

struct sock {
	struct sock_common __sk_common;
};

struct socket {
	struct sock *sk;
};

struct msghdr {
	void *msg_name;
};

struct bpf_iter__task {
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

#pragma clang attribute pop

struct cred;
struct kernel_siginfo;
