// One attack a run: `escape NAME ARGS…`. Prints `escaped=1` where the attack reached what it must not reach, else
// `escaped=0`, with the errno of the last refusal. Without gait every attack but the marked ones must succeed.
#include "probe.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>

static char **args;
static int count;

static const char *arg(int i) {
    if (i >= count) { fprintf(stderr, "escape: argument %d is missing\n", i); _exit(98); }
    return args[i];
}

static int verdict(int escaped) {
    int error = errno;
    printf("escaped=%d errno=%s\n", escaped, errno_name(error));
    fflush(stdout);
    return 0;
}

static int xopenat(int dir, const char *path, int flags) { return syscall(SYS_openat, dir, path, flags | O_CLOEXEC, 0644); }
static int xopen(const char *path, int flags) { return xopenat(AT_FDCWD, path, flags); }

// The secret starts with an s; everything else that a probe may read does not.
static int holds_secret(int fd) {
    char first = 0;
    int error = errno;
    int yes = fd >= 0 && pread(fd, &first, 1, 0) == 1 && first == 's';
    if (fd < 0) errno = error;
    return yes;
}
static int reads_secret(const char *path) { return verdict(holds_secret(xopen(path, O_RDONLY))); }

static char text[8192];
static const char *in(const char *format, ...) __attribute__((format(printf, 1, 2)));
#include <stdarg.h>
static const char *in(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return text;
}

// ---- reading what is secret: arg 0 is the workspace, with open/, keep/ and secret/file in it

static int read_dotdot(void) { return reads_secret(in("%s/open/../secret/.//./file", arg(0))); }
static int read_symlink(void) {
    symlink("../secret/file", in("%s/open/l", arg(0)));
    return reads_secret(text);
}
static int read_symlinked_directory(void) {
    symlink("../secret", in("%s/open/d", arg(0)));
    return reads_secret(in("%s/open/d/file", arg(0)));
}
static int read_symlink_chain(void) {
    char name[512], to[512];
    for (int i = 0; i < 30; i++) {
        snprintf(name, sizeof name, "%s/open/c%d", arg(0), i);
        if (i) snprintf(to, sizeof to, "c%d", i - 1);
        else snprintf(to, sizeof to, "../secret/file");
        symlink(to, name);
    }
    return reads_secret(name);
}
static int read_proc_root(void) { return reads_secret(in("/proc/self/root%s/secret/file", arg(0))); }
static int read_proc_thread_root(void) { return reads_secret(in("/proc/thread-self/root%s/secret/file", arg(0))); }
static int read_proc_pid_root(void) { return reads_secret(in("/proc/%d/root%s/secret/file", getpid(), arg(0))); }
static int read_proc_task_root(void) { return reads_secret(in("/proc/%d/task/%d/root%s/secret/file", getpid(), getpid(), arg(0))); }
static int read_proc_cwd(void) {
    if (chdir(in("%s/secret", arg(0)))) return verdict(0);
    return reads_secret("/proc/self/cwd/file");
}
static int read_other_root(void) { return reads_secret(in("/proc/%s/root%s/secret/file", arg(1), arg(0))); }
static int read_other_cwd(void) { return reads_secret(in("/proc/%s/cwd/secret/file", arg(1))); }
static int read_other_fd(void) { return reads_secret(in("/proc/%s/fd/%s", arg(1), arg(2))); }
static int read_fd_link(void) {
    int fd = xopen(in("%s/secret/file", arg(0)), O_PATH);
    return reads_secret(in("/proc/self/fd/%d", fd));
}
static int read_dev_fd(void) {
    int fd = xopen(in("%s/secret/file", arg(0)), O_PATH);
    return reads_secret(in("/dev/fd/%d", fd));
}
static int read_fd_directory_link(void) {
    int fd = xopen(in("%s/secret", arg(0)), O_PATH | O_DIRECTORY);
    return reads_secret(in("/proc/self/fd/%d/file", fd));
}
static int read_link_to_fd_link(void) {
    int fd = xopen(in("%s/secret", arg(0)), O_PATH | O_DIRECTORY);
    char to[64];
    snprintf(to, sizeof to, "/proc/self/fd/%d", fd);
    symlink(to, in("%s/open/fdlink", arg(0)));
    return reads_secret(in("%s/open/fdlink/file", arg(0)));
}
static int read_directory_descriptor(void) {
    int fd = xopen(in("%s/secret", arg(0)), O_PATH | O_DIRECTORY);
    return verdict(holds_secret(xopenat(fd, "file", O_RDONLY)));
}
static int read_directory_descriptor_up(void) {
    int fd = xopen(in("%s/open", arg(0)), O_PATH | O_DIRECTORY);
    return verdict(holds_secret(xopenat(fd, "../secret/file", O_RDONLY)));
}
static int read_after_chdir(void) {
    if (chdir(in("%s/secret", arg(0)))) return verdict(0);
    return reads_secret("file");
}
static int read_after_fchdir(void) {
    if (fchdir(xopen(in("%s/secret", arg(0)), O_PATH | O_DIRECTORY))) return verdict(0);
    return reads_secret("./file");
}
static void *do_chdir(void *to) { return chdir(to) ? to : NULL; }
static int read_after_thread_chdir(void) {
    pthread_t thread;
    void *failed;
    pthread_create(&thread, NULL, do_chdir, (void *)in("%s/secret", arg(0)));
    pthread_join(thread, &failed);
    return failed ? verdict(0) : reads_secret("file");
}
static int read_in_root(void) {
    uint64_t how[3] = {O_RDONLY, 0, 0x10};
    int fd = xopen(arg(0), O_PATH | O_DIRECTORY);
    return verdict(holds_secret(syscall(SYS_openat2, fd, "/secret/file", how, sizeof how)));
}
static int read_by_handle(void) {
    struct { struct file_handle handle; char room[128]; } h = {.handle.handle_bytes = 128};
    int mount;
    if (name_to_handle_at(AT_FDCWD, in("%s/secret/file", arg(0)), &h.handle, &mount, 0)) return verdict(0);
    int at = xopen(arg(0), O_RDONLY | O_DIRECTORY);
    return verdict(holds_secret(syscall(SYS_open_by_handle_at, at, &h.handle, O_RDONLY)));
}
static int read_long_path(void) {
    char path[4096];
    size_t length = snprintf(path, sizeof path, "%s/open/..", arg(0));
    while (length + 2 + strlen("/secret/file") < sizeof path - 1) length += sprintf(path + length, "/.");
    strcpy(path + length, "/secret/file");
    return reads_secret(path);
}
static int read_page_crossing(void) {
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    const char *path = in("%s/secret/file", arg(0));
    char *at = page + 4096 - strlen(path) - 1;
    strcpy(at, path);
    return reads_secret(at);
}
static int read_not_utf8(void) { return reads_secret(in("%s/secret/\xff\xfe", arg(0))); }
static int read_hard_link(void) {
    char new[512];
    snprintf(new, sizeof new, "%s/open/hard", arg(0));
    if (syscall(SYS_link, in("%s/secret/file", arg(0)), new)) return verdict(0);
    return reads_secret(new);
}
static int read_hard_link_of_descriptor(void) {
    char new[512];
    snprintf(new, sizeof new, "%s/open/hard2", arg(0));
    int fd = xopen(in("%s/secret/file", arg(0)), O_PATH);
    if (syscall(SYS_linkat, fd, "", AT_FDCWD, new, AT_EMPTY_PATH)
        && syscall(SYS_linkat, AT_FDCWD, in("/proc/self/fd/%d", fd), AT_FDCWD, new, AT_SYMLINK_FOLLOW)) return verdict(0);
    return reads_secret(new);
}
static int read_renamed_directory(void) {
    char new[512];
    snprintf(new, sizeof new, "%s/open/moved", arg(0));
    if (syscall(SYS_rename, in("%s/secret", arg(0)), new)) return verdict(0);
    return reads_secret(in("%s/open/moved/file", arg(0)));
}
static int read_exchanged_directory(void) {
    char new[512];
    snprintf(new, sizeof new, "%s/open/swap", arg(0));
    syscall(SYS_mkdir, new, 0755);
    if (syscall(SYS_renameat2, AT_FDCWD, in("%s/secret", arg(0)), AT_FDCWD, new, 2)) return verdict(0);
    return reads_secret(in("%s/open/swap/file", arg(0)));
}
static int read_unlinked_path_descriptor(void) {
    // The descriptor was free because it gives no data; the file has no name any more that a rule could be about.
    int fd = xopen(in("%s/secret/file", arg(0)), O_PATH);
    if (syscall(SYS_unlink, text)) return verdict(0);
    return reads_secret(in("/proc/self/fd/%d", fd));
}
static int read_replaced_path_descriptor(void) {
    char other[512];
    snprintf(other, sizeof other, "%s/open/file", arg(0));
    int fd = xopen(in("%s/secret/file", arg(0)), O_PATH);
    if (syscall(SYS_rename, other, text)) return verdict(0);
    return reads_secret(in("/proc/self/fd/%d", fd));
}
static int read_renamed_file(void) {
    char new[512];
    snprintf(new, sizeof new, "%s/open/renamed", arg(0));
    if (syscall(SYS_rename, in("%s/secret/file", arg(0)), new)) return verdict(0);
    return reads_secret(new);
}
static int read_restricted_self(void) {
    // Whoever resolves /proc/self must not be somebody else.
    uint64_t how[3] = {O_RDONLY, 0, 0x02 /* RESOLVE_NO_MAGICLINKS */};
    char stat[64] = {0};
    int fd = syscall(SYS_openat2, AT_FDCWD, "/proc/self/stat", how, sizeof how);
    return verdict(fd >= 0 && read(fd, stat, sizeof stat - 1) > 0 && atoi(stat) != getpid());
}
static int read_after_filter(void) {
    // A filter of the workload's own that allows everything must change nothing.
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {1, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    return reads_secret(in("%s/secret/file", arg(0)));
}
static int read_after_log_filter(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_LOG),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    return reads_secret(in("%s/secret/file", arg(0)));
}
static int read_undumpable(void) {
    prctl(PR_SET_DUMPABLE, 0);
    return reads_secret(in("%s/secret/file", arg(0)));
}
static int read_in_vfork_child(void) {
    int fd = -1, status;
    const char *path = in("%s/secret/file", arg(0));
    pid_t child = vfork();
    if (child == 0) { fd = xopen(path, O_RDONLY); _exit(holds_secret(fd) ? 1 : 0); }
    waitpid(child, &status, 0);
    return verdict(WEXITSTATUS(status));
}
static int read_shared_table_child(void) {
    // A child that shares the descriptor table opens; the parent reads.
    static char stack[65536];
    const char *path = in("%s/secret/file", arg(0));
    int status;
    pid_t child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0L, 0L, 0L, 0L);
    (void)stack;
    if (child == 0) { int fd = xopen(path, O_RDONLY); _exit(fd < 0 ? 0 : fd); }
    waitpid(child, &status, 0);
    return verdict(WEXITSTATUS(status) > 0 && holds_secret(WEXITSTATUS(status)));
}
static int read_passed_path_descriptor(void) {
    // An O_PATH descriptor passed over a socket, then opened through its magic link by the receiver.
    int pair[2], fd = xopen(in("%s/secret/file", arg(0)), O_PATH);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return verdict(0);
    char byte = 'x', control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(pair[0], &message, 0) < 0 || recvmsg(pair[1], &message, 0) < 0) return verdict(0);
    // Where the kernel judges what is received, nothing is.
    if (!CMSG_FIRSTHDR(&message)) return verdict(0);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return reads_secret(in("/proc/self/fd/%d", fd));
}
static int read_inherited(void) { return verdict(holds_secret(atoi(arg(0)))); }
static int read_i386(void) {
    // open() by `int $0x80`, in a child because the right answer may be death.
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    strcpy(low, in("%s/secret/file", arg(0)));
    int status;
    pid_t child = fork();
    if (child == 0) {
        long fd;
        __asm__ volatile("int $0x80" : "=a"(fd) : "a"(5L), "b"(low), "c"(0L), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
        _exit(fd >= 0 && holds_secret(fd) ? 1 : 0);
    }
    waitpid(child, &status, 0);
    return verdict(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}
static int read_x32(void) {
    long fd = syscall(0x40000000 + SYS_open, in("%s/secret/file", arg(0)), O_RDONLY);
    if (fd < 0) fd = syscall(0x40000000 + SYS_openat, AT_FDCWD, text, O_RDONLY);
    return verdict(holds_secret(fd));
}
static long six(long nr, long a, long b, long c, long d) {
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
static int read_dirty_number(void) {
    // The kernel looks at the low half of the number.
    long fd = six(0x700000000L | SYS_openat, AT_FDCWD, (long)in("%s/secret/file", arg(0)), O_RDONLY, 0);
    if (fd < 0) errno = -fd;
    return verdict(holds_secret(fd));
}
static int unknown_numbers(void) {
    // Numbers that gait does not know must fail as if no kernel knew them. The running one may know some: fchroot(2) is of
    // Linux 7.
    int odd = 0;
    for (long nr = 471; nr < 700; nr++) {
        long result = six(nr, -1, 0, 0, 0);
        if (result != -ENOSYS && result != -EPERM) odd++;
    }
    errno = 0;
    return verdict(odd);
}

// ---- changing what is to be kept: arg 0 is the workspace; keep/file may be read

static int write_dirty_flags(void) {
    long fd = six(SYS_openat, 0xabcd00000000L | (uint32_t)AT_FDCWD, (long)in("%s/keep/file", arg(0)), 0x100000000L | O_WRONLY, 0);
    if (fd < 0) errno = -fd;
    return verdict(fd >= 0);
}
static int write_reopened(void) {
    int fd = xopen(in("%s/keep/file", arg(0)), O_RDONLY);
    return verdict(xopen(in("/proc/self/fd/%d", fd), O_RDWR) >= 0);
}
static int write_dangling_symlink(void) {
    symlink("../keep/born", in("%s/open/dangling", arg(0)));
    return verdict(xopen(text, O_WRONLY | O_CREAT) >= 0);
}
static int write_tmpfile_link(void) {
    int fd = xopen(in("%s/open", arg(0)), O_TMPFILE | O_RDWR);
    if (fd < 0) return verdict(0);
    char from[64];
    snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
    return verdict(!syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, in("%s/keep/linked", arg(0)), AT_SYMLINK_FOLLOW)
                   || !syscall(SYS_linkat, fd, "", AT_FDCWD, text, AT_EMPTY_PATH));
}
static int write_exchange(void) {
    char other[512];
    snprintf(other, sizeof other, "%s/open/file", arg(0));
    return verdict(!syscall(SYS_renameat2, AT_FDCWD, other, AT_FDCWD, in("%s/keep/file", arg(0)), 2));
}
static int write_exchange_back(void) {
    char other[512];
    snprintf(other, sizeof other, "%s/open/file", arg(0));
    return verdict(!syscall(SYS_renameat2, AT_FDCWD, in("%s/keep/file", arg(0)), AT_FDCWD, other, 2));
}
static int write_rename_over(void) {
    char other[512];
    snprintf(other, sizeof other, "%s/open/file", arg(0));
    return verdict(!syscall(SYS_rename, other, in("%s/keep/file", arg(0))));
}
static int write_trailing_slash(void) { return verdict(!syscall(SYS_mkdir, in("%s/open/../keep/fresh///", arg(0)), 0755)); }
static int write_through_linked_directory(void) {
    symlink("../keep", in("%s/open/k", arg(0)));
    return verdict(!syscall(SYS_mkdir, in("%s/open/k/fresh2", arg(0)), 0755));
}
static int write_chmod_descriptor(void) { return verdict(!syscall(SYS_fchmod, xopen(in("%s/keep/file", arg(0)), O_RDONLY), 0777)); }
static int write_chmod_magic_link(void) {
    int fd = xopen(in("%s/keep/file", arg(0)), O_PATH);
    return verdict(!syscall(SYS_chmod, in("/proc/self/fd/%d", fd), 0777));
}
static int write_chmod_empty_path(void) {
    int fd = xopen(in("%s/keep/file", arg(0)), O_PATH);
    return verdict(!syscall(452 /* fchmodat2 */, fd, "", 0777, AT_EMPTY_PATH));
}
static int write_chown_empty_path(void) {
    int fd = xopen(in("%s/keep/file", arg(0)), O_PATH);
    return verdict(!syscall(SYS_fchownat, fd, "", getuid(), getgid(), AT_EMPTY_PATH));
}
static int write_attribute_descriptor(void) {
    return verdict(!syscall(SYS_fsetxattr, xopen(in("%s/keep/file", arg(0)), O_RDONLY), "user.x", "y", 1, 0));
}
static int write_times_descriptor(void) {
    struct timespec when[2] = {{1, 0}, {1, 0}};
    return verdict(!syscall(SYS_utimensat, xopen(in("%s/keep/file", arg(0)), O_RDONLY), NULL, when, 0));
}
static int write_inode_flags(void) {
    int flags = 0, fd = xopen(in("%s/keep/file", arg(0)), O_RDONLY);
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags)) return verdict(0);
    flags ^= FS_NODUMP_FL;
    return verdict(!ioctl(fd, FS_IOC_SETFLAGS, &flags));
}
static int write_inode_project(void) {
    struct fsxattr attributes;
    int fd = xopen(in("%s/keep/file", arg(0)), O_RDONLY);
    if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes)) return verdict(0);
    attributes.fsx_xflags ^= FS_XFLAG_NODUMP;
    return verdict(!ioctl(fd, FS_IOC_FSSETXATTR, &attributes));
}
static int write_unlink_after_chdir(void) {
    if (chdir(in("%s/keep", arg(0)))) return verdict(0);
    return verdict(!syscall(SYS_unlink, "file"));
}
static int write_unlink_descriptor(void) {
    int fd = xopen(in("%s/keep", arg(0)), O_PATH | O_DIRECTORY);
    return verdict(!syscall(SYS_unlinkat, fd, "file", 0));
}
static int write_unlink_magic_parent(void) {
    int fd = xopen(in("%s/keep", arg(0)), O_PATH | O_DIRECTORY);
    return verdict(!syscall(SYS_unlink, in("/proc/self/fd/%d/file", fd)));
}
static int write_truncate_magic_link(void) {
    int fd = xopen(in("%s/keep/file", arg(0)), O_PATH);
    return verdict(!syscall(SYS_truncate, in("/proc/self/fd/%d", fd), 0L));
}
static int write_device_node(void) { return verdict(!syscall(SYS_mknod, in("%s/open/disk", arg(0)), S_IFBLK | 0600, 0x700)); }
static int write_creat_setuid(void) {
    // Legal, but only inside the open area.
    return verdict(xopen(in("%s/keep/suid", arg(0)), O_WRONLY | O_CREAT) >= 0 || !chmod(in("%s/keep/file", arg(0)), 04755));
}

// ---- running what must not run: arg 0 is a program that prints RAN

static int ran(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 42;
}
static char *none[] = {NULL};
static int exec_plain(void) {
    pid_t child = fork();
    if (child == 0) { syscall(SYS_execve, arg(0), (char *[]){"x", NULL}, none); _exit(errno == EACCES ? 77 : 78); }
    return verdict(ran(child));
}
static int exec_vfork(void) {
    pid_t child = vfork();
    if (child == 0) { syscall(SYS_execve, arg(0), (char *[]){"x", NULL}, none); _exit(77); }
    return verdict(ran(child));
}
static void *exec_in_thread(void *path) {
    syscall(SYS_execve, path, (char *[]){"x", NULL}, none);
    _exit(77);
}
static int exec_thread(void) {
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, exec_in_thread, (void *)arg(0));
        for (;;) pause();
    }
    return verdict(ran(child));
}
static int copied(const char *from, int to) {
    char block[65536];
    int fd = xopen(from, O_RDONLY);
    ssize_t length;
    while (fd >= 0 && (length = read(fd, block, sizeof block)) > 0)
        if (write(to, block, length) != length) return -1;
    return fd < 0 ? -1 : 0;
}
static int exec_memfd(void) {
    int fd = syscall(SYS_memfd_create, "innocent", MFD_CLOEXEC);
    if (fd < 0 || copied(arg(0), fd)) return verdict(0);
    pid_t child = fork();
    if (child == 0) { syscall(SYS_execveat, fd, "", (char *[]){"x", NULL}, none, AT_EMPTY_PATH); _exit(77); }
    return verdict(ran(child));
}
static int exec_memfd_link(void) {
    int fd = syscall(SYS_memfd_create, "innocent", 0);
    if (fd < 0 || copied(arg(0), fd)) return verdict(0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    pid_t child = fork();
    if (child == 0) { syscall(SYS_execve, path, (char *[]){"x", NULL}, none); _exit(77); }
    return verdict(ran(child));
}
static int exec_copy(void) {
    // A copy in a place that may be written but holds no programs.
    int fd = syscall(SYS_openat, AT_FDCWD, arg(1), O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    if (fd < 0 || copied(arg(0), fd)) return verdict(0);
    close(fd);
    pid_t child = fork();
    if (child == 0) { syscall(SYS_execve, arg(1), (char *[]){"x", NULL}, none); _exit(77); }
    return verdict(ran(child));
}
static int exec_loader(void) {
    const char *loader = "/lib64/ld-linux-x86-64.so.2";
    pid_t child = fork();
    if (child == 0) { syscall(SYS_execve, loader, (char *[]){"ld.so", (char *)arg(0), NULL}, none); _exit(77); }
    return verdict(ran(child));
}
static int exec_descriptor(void) {
    int fd = xopen(arg(0), O_PATH);
    pid_t child = fork();
    if (child == 0) { syscall(SYS_execveat, fd, "", (char *[]){"x", NULL}, none, AT_EMPTY_PATH); _exit(77); }
    return verdict(ran(child));
}
static int exec_magic_link(void) {
    int fd = xopen(arg(0), O_PATH);
    const char *path = in("/proc/self/fd/%d", fd);
    pid_t child = fork();
    if (child == 0) { syscall(SYS_execve, path, (char *[]){"x", NULL}, none); _exit(77); }
    return verdict(ran(child));
}
static int exec_interpreter(void) {
    // arg 1: a writable place for a script whose interpreter is the program.
    int fd = syscall(SYS_openat, AT_FDCWD, arg(1), O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    if (fd < 0) return verdict(0);
    dprintf(fd, "#!%s\n", arg(0));
    close(fd);
    pid_t child = fork();
    if (child == 0) { syscall(SYS_execve, arg(1), (char *[]){"x", NULL}, none); _exit(77); }
    return verdict(ran(child));
}
static int exec_interpreter_chain(void) {
    // Scripts whose interpreters are scripts, as many as the kernel follows, and the program at the end.
    char path[512], next[512];
    snprintf(next, sizeof next, "%s", arg(0));
    for (int i = 4; i >= 1; i--) {
        snprintf(path, sizeof path, "%s%d", arg(1), i);
        int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
        if (fd < 0) return verdict(0);
        dprintf(fd, "#!%s\n", next);
        close(fd);
        strcpy(next, path);
    }
    pid_t child = fork();
    if (child == 0) { syscall(SYS_execve, path, (char *[]){"x", NULL}, none); _exit(77); }
    return verdict(ran(child));
}
static int exec_without_arguments(void) {
    pid_t child = fork();
    if (child == 0) { syscall(SYS_execve, arg(0), NULL, NULL); _exit(77); }
    return verdict(ran(child));
}

// ---- other processes: arg 0 is the victim's pid, or `parent`, or `grandparent`

static pid_t parent_of(pid_t pid) {
    char stat[1024] = {0};
    int fd = open(in("/proc/%d/stat", pid), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, stat, sizeof stat - 1) < 0) return -1;
    close(fd);
    char *end = strrchr(stat, ')');
    return end ? atoi(end + 4) : -1;
}
static pid_t victim(void) {
    if (!strcmp(arg(0), "parent")) return getppid();
    if (!strcmp(arg(0), "grandparent")) {
        pid_t pid = parent_of(getppid());
        return pid > 1 ? pid : getppid();
    }
    return atoi(arg(0));
}
static int other_kill(void) { return verdict(!syscall(SYS_kill, victim(), 0)); }
static int other_tgkill(void) { return verdict(!syscall(SYS_tgkill, victim(), victim(), 0)); }
static int other_tkill(void) { return verdict(!syscall(SYS_tkill, victim(), 0)); }
static int other_sigqueue(void) {
    siginfo_t info = {.si_code = SI_QUEUE};
    return verdict(!syscall(SYS_rt_sigqueueinfo, victim(), 0, &info));
}
static int other_pidfd_signal(void) { return verdict(!syscall(SYS_pidfd_send_signal, syscall(SYS_pidfd_open, victim(), 0), 0, NULL, 0)); }
static int other_proc_pidfd_signal(void) {
    int fd = xopen(in("/proc/%d", victim()), O_RDONLY | O_DIRECTORY);
    return verdict(!syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
}
static int other_group(void) {
    pid_t group = getpgid(victim());
    return verdict(group > 1 && group != getpgrp() && !syscall(SYS_kill, -group, 0));
}
static int everyone(void) { return verdict(!syscall(SYS_kill, -1, 0)); }
static int other_seize(void) {
    int seized = syscall(SYS_ptrace, 0x4206 /* PTRACE_SEIZE */, victim(), NULL, NULL) == 0;
    return verdict(seized);  // The tracee goes free when this process ends.
}
static int other_read(void) {
    char byte;
    // Any mapped address will do: the vDSO's neighbourhood differs, so take one from the victim's maps.
    FILE *maps = fopen(in("/proc/%d/maps", victim()), "re");
    unsigned long at = 0;
    if (maps && fscanf(maps, "%lx", &at) != 1) at = 0;
    struct iovec mine = {&byte, 1}, theirs = {(void *)at, 1};
    return verdict(syscall(SYS_process_vm_readv, victim(), &mine, 1L, &theirs, 1L, 0L) == 1);
}
static int other_memory(void) { return verdict(xopen(in("/proc/%d/mem", victim()), O_RDWR) >= 0); }
static int other_environment(void) {
    char byte;
    int fd = xopen(in("/proc/%d/environ", victim()), O_RDONLY);
    return verdict(fd >= 0 && read(fd, &byte, 1) == 1);
}
static int other_descriptor(void) {
    int pidfd = syscall(SYS_pidfd_open, victim(), 0), got = 0;
    for (int fd = 0; fd < 64 && !got; fd++) got = syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0;
    return verdict(got);
}
static int other_descriptor_links(void) {
    int got = 0;
    for (int fd = 0; fd < 64 && !got; fd++) {
        int opened = xopen(in("/proc/%d/fd/%d", victim(), fd), O_RDONLY | O_NONBLOCK);
        got = opened >= 0;
    }
    return verdict(got);
}
static int other_limit(void) {
    struct rlimit limit;
    return verdict(!syscall(SYS_prlimit64, victim(), RLIMIT_NOFILE, NULL, &limit));
}
static int other_priority(void) { return verdict(!syscall(SYS_setpriority, PRIO_PROCESS, victim(), getpriority(PRIO_PROCESS, victim()))); }
static int other_affinity(void) {
    cpu_set_t cpus;
    sched_getaffinity(0, sizeof cpus, &cpus);
    return verdict(!syscall(SYS_sched_setaffinity, victim(), sizeof cpus, &cpus));
}
static int other_oom_score(void) { return verdict(xopen(in("/proc/%d/oom_score_adj", victim()), O_WRONLY) >= 0); }
// SIGIO of a descriptor, turned into another signal, to whomever `own` made its owner. Returns whether there was one.
static int owner_signals(int (*own)(int fd, int pid), int pid, int signal) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return 0;
    if (own(pair[0], pid)) return 0;
    fcntl(pair[0], F_SETSIG, signal);
    fcntl(pair[0], F_SETFL, O_ASYNC | O_NONBLOCK);
    return write(pair[1], "x", 1) == 1;
}
static int owner_by_number(int fd, int pid) { return fcntl(fd, F_SETOWN, pid); }
static int owner_by_structure(int fd, int pid) {
    struct f_owner_ex owner = {F_OWNER_PID, pid};
    return fcntl(fd, F_SETOWN_EX, &owner);
}
static int owner_by_thread(int fd, int pid) {
    struct f_owner_ex owner = {F_OWNER_TID, pid};
    return fcntl(fd, F_SETOWN_EX, &owner);
}
static int owner_by_group(int fd, int pid) { return fcntl(fd, F_SETOWN, -getpgid(pid)); }
static int owner_by_group_structure(int fd, int pid) {
    struct f_owner_ex owner = {F_OWNER_PGRP, getpgid(pid)};
    return fcntl(fd, F_SETOWN_EX, &owner);
}
static int owner_by_request(int fd, int pid) { return ioctl(fd, FIOSETOWN, &pid); }
static int owner_by_old_request(int fd, int pid) { return ioctl(fd, SIOCSPGRP, &pid); }
// The default action of SIGUSR1 ends the victim.
static int owner_kills(int (*own)(int fd, int pid)) {
    char stat[512] = {0};
    if (!owner_signals(own, victim(), SIGUSR1)) return verdict(0);
    usleep(50000);
    int fd = xopen(in("/proc/%d/stat", victim()), O_RDONLY);
    if (fd < 0) return verdict(1);
    if (read(fd, stat, sizeof stat - 1) < 0) return verdict(1);
    char *end = strrchr(stat, ')');
    return verdict(end && end[2] == 'Z');
}
static int other_owner_signal(void) { return owner_kills(owner_by_number); }
static int other_owner_structure(void) { return owner_kills(owner_by_structure); }
static int other_owner_thread(void) { return owner_kills(owner_by_thread); }
static int other_owner_group(void) { return owner_kills(owner_by_group); }
static int other_owner_group_structure(void) { return owner_kills(owner_by_group_structure); }
static int other_owner_request(void) { return owner_kills(owner_by_request); }
static int other_owner_old_request(void) { return owner_kills(owner_by_old_request); }
static volatile sig_atomic_t owner_heard;
static void owner_hears(int signal) { (void)signal, owner_heard++; }
// What programs do: each way to be signalled oneself, or by a group of one's own, and to be so no more.
static int own_owner(void) {
    int (*ways[])(int, int) = {owner_by_number, owner_by_structure, owner_by_thread, owner_by_group,
                               owner_by_group_structure, owner_by_request, owner_by_old_request};
    int pair[2], wrong = 0;
    struct f_owner_ex nobody = {F_OWNER_PID, 0};
    signal(SIGUSR2, owner_hears);
    if (getpgrp() != getpid() && setpgid(0, 0)) return verdict(0);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        owner_heard = 0;
        if (!owner_signals(ways[i], getpid(), SIGUSR2)) wrong++;
        for (int n = 0; n < 1000 && !owner_heard; n++) usleep(1000);
        wrong += !owner_heard;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return verdict(0);
    if (fcntl(pair[0], F_SETOWN, getpid()) || fcntl(pair[0], F_GETOWN) != getpid()) wrong++;
    if (fcntl(pair[0], F_SETOWN, 0) || fcntl(pair[0], F_GETOWN)) wrong++;
    if (owner_by_request(pair[0], getpid()) || fcntl(pair[0], F_SETOWN_EX, &nobody) || fcntl(pair[0], F_GETOWN)) wrong++;
    if (owner_by_group(pair[0], getpid()) || fcntl(pair[0], F_GETOWN) != -getpid()) wrong++;
    // Answers are the kernel's: a number of nobody, a kind that there is not, a pointer to nothing.
    if (!fcntl(pair[0], F_SETOWN, 0x3ffffff) || errno != ESRCH) wrong++;
    nobody.type = 9;
    if (!fcntl(pair[0], F_SETOWN_EX, &nobody) || errno != EINVAL) wrong++;
    if (!fcntl(pair[0], F_SETOWN_EX, NULL) || errno != EFAULT) wrong++;
    if (!fcntl(-1, F_SETOWN, getpid()) || errno != EBADF) wrong++;
    return verdict(!wrong);
}
static int own_listener(void) {
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {1, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return verdict(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program) >= 0);
}
static int own_uring(void) {
    char parameters[256] = {0};
    return verdict(syscall(SYS_io_uring_setup, 4, parameters) >= 0);
}
static int own_user_namespace(void) { return verdict(!syscall(SYS_unshare, CLONE_NEWUSER)); }
static int own_clone_namespace(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0L, 0L, 0L, 0L);
    if (child == 0) _exit(0);
    if (child > 0) waitpid(child, NULL, 0);
    return verdict(child > 0);
}
static int own_clone3_namespace(void) {
    uint64_t arguments[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    long child = syscall(SYS_clone3, arguments, sizeof arguments);
    if (child == 0) _exit(0);
    if (child > 0) waitpid(child, NULL, 0);
    return verdict(child > 0);
}
static int own_setns(void) { return verdict(!syscall(SYS_setns, xopen("/proc/self/ns/uts", O_RDONLY), 0)); }
static int own_userfault(void) { return verdict(syscall(SYS_userfaultfd, 1 /* user mode only */) >= 0); }
static int own_keyring(void) { return verdict(syscall(SYS_keyctl, 1L /* join session */, NULL) >= 0); }

static int own_route(void) {
    // Asks to take away an address that nobody has: only the right is checked, nothing can change.
    struct { uint32_t length; uint16_t type, flags; uint32_t sequence, pid; uint8_t family, prefix, ifa_flags, scope; uint32_t index;
             uint16_t size, kind; uint32_t address; } request = {
        .length = sizeof request, .type = 21 /* RTM_DELADDR */, .flags = 1 | 4 /* request, acknowledge */, .sequence = 1,
        .family = AF_INET, .prefix = 32, .index = 1, .size = 8, .kind = 2 /* IFA_LOCAL */, .address = htonl(0x7f4d4d4d)};
    struct { uint32_t length; uint16_t type, flags; uint32_t sequence, pid; int32_t error; char rest[512]; } answer = {0};
    int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (s < 0 || write(s, &request, sizeof request) < 0 || read(s, &answer, sizeof answer) < 0) return verdict(0);
    errno = -answer.error;
    return verdict(answer.error != -EPERM && answer.error != -EACCES);
}
static int own_queue(void) {
    // arg 0: make or remove, arg 1: the name of a message queue
    if (!strcmp(arg(0), "make")) {
        int queue = syscall(SYS_mq_open, arg(1), O_RDWR | O_CREAT, 0600, NULL);
        return verdict(queue >= 0);
    }
    return verdict(!syscall(SYS_mq_unlink, arg(1)));
}

// arg 0: what to do, arg 1: a key. `make` says the ids of three objects that somebody else uses; the others know key or ids.
static int own_sysv(void) {
    int key = atoi(arg(1)), make = !strcmp(arg(0), "make") ? 0600 | 01000 /* IPC_CREAT */ : 0;
    if (make || !strcmp(arg(0), "find")) {
        int m = syscall(SYS_shmget, key, 4096L, make), s = syscall(SYS_semget, key, 1, make), q = syscall(SYS_msgget, key, make);
        printf("memory=%d semaphores=%d queue=%d\n", m, s, q);
        return verdict(m >= 0 || s >= 0 || q >= 0);
    }
    int m = atoi(arg(2)), s = atoi(arg(3)), q = atoi(arg(4));
    if (!strcmp(arg(0), "create")) return verdict(syscall(SYS_shmget, key, 1L, 0600 | 01000) == m || syscall(SYS_msgget, key, 01000) == q);
    if (!strcmp(arg(0), "attach")) return verdict(syscall(SYS_shmat, m, NULL, 010000 /* SHM_RDONLY */) != -1);
    if (!strcmp(arg(0), "list")) {
        char data[512];
        for (int i = 0; i < 64; i++)
            if (syscall(SYS_shmctl, i, 13 /* SHM_STAT */, data) == m) return verdict(1);
        return verdict(0);
    }
    if (!strcmp(arg(0), "value")) return verdict(syscall(SYS_semctl, s, 0, 12 /* GETVAL */, 0) >= 0);
    if (!strcmp(arg(0), "receive")) return verdict(syscall(SYS_msgctl, q, 2 /* IPC_STAT */, text) == 0);
    int gone = !syscall(SYS_shmctl, m, 0, NULL) + !syscall(SYS_semctl, s, 0, 0, 0) + !syscall(SYS_msgctl, q, 0, NULL);
    return verdict(gone > 0);
}

// ---- terminals: arg 0 is the path of somebody else's

static int tty_write(void) { return verdict(xopen(arg(0), O_WRONLY | O_NOCTTY) >= 0); }
static int tty_read(void) { return verdict(xopen(arg(0), O_RDONLY | O_NOCTTY | O_NONBLOCK) >= 0); }
static int tty_dotdot(void) { return verdict(xopen(in("/dev/pts/../pts/.//%s", strrchr(arg(0), '/') + 1), O_RDWR | O_NOCTTY) >= 0); }
static int tty_descriptor(void) {
    int path = xopen(arg(0), O_PATH);
    return verdict(path >= 0 && xopen(in("/proc/self/fd/%d", path), O_RDWR | O_NOCTTY) >= 0);
}

// Makes a terminal of the probe's own, the controlling one; the tests give the probe a session without any.
static int own_terminal(void) {
    int unlocked = 0, number = -1, pty = xopen("/dev/ptmx", O_RDWR | O_NOCTTY);
    if (pty < 0 || ioctl(pty, TIOCSPTLCK, &unlocked) || ioctl(pty, TIOCGPTN, &number)) return -1;
    return xopen(in("/dev/pts/%d", number), O_RDWR);
}
static int tty_own(void) { return verdict(own_terminal() >= 0); }
static int tty_inject(void) { return verdict(!syscall(SYS_ioctl, own_terminal(), TIOCSTI, "x")); }
static int tty_inject_dirty(void) { return verdict(!syscall(SYS_ioctl, own_terminal(), 0xdead00000000L | TIOCSTI, "x")); }
static int tty_discipline(void) {
    int plain = 0;
    return verdict(!syscall(SYS_ioctl, own_terminal(), TIOCSETD, &plain));
}
static int file_version(void) {
    // arg 0 is a file that may be read only. The number is the one it has.
    int fd = xopen(arg(0), O_RDONLY);
    long version = 0;
    if (ioctl(fd, FS_IOC_GETVERSION, &version)) return verdict(0);
    return verdict(!syscall(SYS_ioctl, fd, 0x40087602 /* FS_IOC_SETVERSION */, &version));
}

// ---- the network: arg 0 is a blocked port on loopback, arg 1 an allowed one

static int port(int i) { return atoi(arg(i)); }
static int net_fast_open(void) {
    struct sockaddr_in sa = inet4("127.0.0.1", port(0));
    int s = socket(AF_INET, SOCK_STREAM, 0);
    return verdict(sendto(s, "x", 1, MSG_FASTOPEN, (void *)&sa, sizeof sa) >= 0);
}
static int net_fast_open_message(void) {
    struct sockaddr_in sa = inet4("127.0.0.1", port(0));
    struct iovec iov = {"x", 1};
    struct msghdr message = {.msg_name = &sa, .msg_namelen = sizeof sa, .msg_iov = &iov, .msg_iovlen = 1};
    return verdict(sendmsg(socket(AF_INET, SOCK_STREAM, 0), &message, MSG_FASTOPEN) >= 0);
}
static int net_fast_open_connect(void) {
    struct sockaddr_in sa = inet4("127.0.0.1", port(0));
    int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(s, IPPROTO_TCP, 30 /* TCP_FASTOPEN_CONNECT */, &one, sizeof one);
    return verdict(!connect(s, (void *)&sa, sizeof sa) && write(s, "x", 1) == 1);
}
static int net_mptcp(void) {
    struct sockaddr_in sa = inet4("127.0.0.1", port(0));
    int s = socket(AF_INET, SOCK_STREAM, 262);
    return verdict(s >= 0 && !connect(s, (void *)&sa, sizeof sa));
}
static int net_second_message(void) {
    struct sockaddr_in good = inet4("127.0.0.1", port(1)), bad = inet4("127.0.0.1", port(0));
    struct iovec iov = {"x", 1};
    struct mmsghdr messages[2] = {
        {.msg_hdr = {.msg_name = &good, .msg_namelen = sizeof good, .msg_iov = &iov, .msg_iovlen = 1}},
        {.msg_hdr = {.msg_name = &bad, .msg_namelen = sizeof bad, .msg_iov = &iov, .msg_iovlen = 1}},
    };
    return verdict(sendmmsg(socket(AF_INET, SOCK_DGRAM, 0), messages, 2, 0) == 2);
}
static int net_other_than_connected(void) {
    struct sockaddr_in good = inet4("127.0.0.1", port(1)), bad = inet4("127.0.0.1", port(0));
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (connect(s, (void *)&good, sizeof good)) return verdict(0);
    return verdict(sendto(s, "x", 1, 0, (void *)&bad, sizeof bad) == 1);
}
static int net_reconnected(void) {
    struct sockaddr_in good = inet4("127.0.0.1", port(1)), bad = inet4("127.0.0.1", port(0));
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (connect(s, (void *)&good, sizeof good)) return verdict(0);
    connect(s, &nowhere, sizeof nowhere);
    return verdict(!connect(s, (void *)&bad, sizeof bad) && write(s, "x", 1) == 1);
}
static int net_mapped(void) {
    struct sockaddr_in6 sa = inet6("::ffff:127.0.0.1", port(0));
    return verdict(!connect(socket(AF_INET6, SOCK_STREAM, 0), (void *)&sa, sizeof sa));
}
static int net_mapped_datagram(void) {
    struct sockaddr_in6 sa = inet6("::ffff:127.0.0.1", port(0));
    return verdict(sendto(socket(AF_INET6, SOCK_DGRAM, 0), "x", 1, 0, (void *)&sa, sizeof sa) == 1);
}
static int net_any_address(void) {
    // 0.0.0.0 means this host.
    struct sockaddr_in sa = inet4("0.0.0.0", port(0));
    return verdict(!connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&sa, sizeof sa));
}
static int net_long_address(void) {
    struct sockaddr_storage sa = {0};
    *(struct sockaddr_in *)&sa = inet4("127.0.0.1", port(0));
    return verdict(!connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&sa, sizeof sa));
}
static int net_nonblocking(void) {
    struct sockaddr_in sa = inet4("127.0.0.1", port(0));
    int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int result = connect(s, (void *)&sa, sizeof sa);
    return verdict(!result || errno == EINPROGRESS);
}
static int net_family_unspec_v4(void) {
    // AF_UNSPEC with an INADDR of sendto on UDP is treated as AF_INET by the kernel.
    struct sockaddr_in sa = inet4("127.0.0.1", port(0));
    sa.sin_family = AF_UNSPEC;
    return verdict(sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (void *)&sa, sizeof sa) == 1);
}
static int net_passed_socket(void) {
    // A socket that a sibling process made and passed on is judged like any other.
    struct sockaddr_in sa = inet4("127.0.0.1", port(0));
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair)) return verdict(0);
    pid_t child = fork();
    int fd = -1;
    char byte = 'x', control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (child == 0) {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        _exit(sendmsg(pair[0], &message, 0) < 0);
    }
    if (recvmsg(pair[1], &message, 0) < 0) return verdict(0);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    waitpid(child, NULL, 0);
    return verdict(!connect(fd, (void *)&sa, sizeof sa));
}
static int unix_connects(const char *path) {
    struct sockaddr_un sa;
    socklen_t length = unix_address(&sa, path);
    return verdict(!connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&sa, length));
}
// arg 0: the workspace, with a listener on keep/sock and a datagram socket on keep/dgram.
static int unix_symlink(void) {
    symlink("../keep/sock", in("%s/open/s", arg(0)));
    return unix_connects(text);
}
static int unix_relative(void) {
    if (chdir(in("%s/keep", arg(0)))) return verdict(0);
    return unix_connects("sock");
}
static int unix_magic_link(void) {
    int fd = xopen(in("%s/keep", arg(0)), O_PATH | O_DIRECTORY);
    return unix_connects(in("/proc/self/fd/%d/sock", fd));
}
static int unix_datagram(void) {
    struct sockaddr_un sa;
    socklen_t length = unix_address(&sa, in("%s/keep/dgram", arg(0)));
    return verdict(sendto(socket(AF_UNIX, SOCK_DGRAM, 0), "x", 1, 0, (void *)&sa, length) == 1);
}
static int unix_datagram_message(void) {
    struct sockaddr_un sa;
    struct iovec iov = {"x", 1};
    struct msghdr message = {.msg_name = &sa, .msg_iov = &iov, .msg_iovlen = 1};
    message.msg_namelen = unix_address(&sa, in("%s/keep/dgram", arg(0)));
    return verdict(sendmsg(socket(AF_UNIX, SOCK_DGRAM, 0), &message, 0) == 1);
}
static int unix_abstract(void) { return unix_connects(arg(0)); }
static int unix_unterminated(void) {
    // A path that fills sun_path without a NUL is legal for the kernel.
    struct sockaddr_un sa;
    unix_address(&sa, in("%s/keep/sock", arg(0)));
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(sa.sun_path);
    return verdict(!connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&sa, length));
}

// ---- evidence: arg 0 is a file or directory of gait's own

static int own_evidence_write(void) { return verdict(xopen(arg(0), O_WRONLY | O_APPEND) >= 0); }
static int own_evidence_create(void) { return verdict(xopen(arg(0), O_WRONLY | O_CREAT | O_EXCL) >= 0); }
static int own_evidence_unlink(void) { return verdict(!syscall(SYS_unlink, arg(0))); }
static int own_evidence_rename(void) { return verdict(!syscall(SYS_rename, arg(0), in("%s.gone", arg(0)))); }
static int own_evidence_truncate(void) { return verdict(!syscall(SYS_truncate, arg(0), 0L)); }
static int own_evidence_link(void) { return verdict(!syscall(SYS_link, arg(0), arg(1))); }
static int own_evidence_read(void) {
    char byte;
    int fd = xopen(arg(0), O_RDONLY);
    return verdict(fd >= 0 && read(fd, &byte, 1) == 1);
}

#define A(name) {#name, name}
static const struct { const char *name; int (*run)(void); } ATTACKS[] = {
    A(read_dotdot), A(read_symlink), A(read_symlinked_directory), A(read_symlink_chain), A(read_proc_root), A(read_proc_thread_root),
    A(read_proc_pid_root), A(read_proc_task_root), A(read_proc_cwd), A(read_other_root), A(read_other_cwd), A(read_other_fd),
    A(read_fd_link), A(read_dev_fd), A(read_fd_directory_link), A(read_link_to_fd_link), A(read_directory_descriptor),
    A(read_directory_descriptor_up), A(read_after_chdir), A(read_after_fchdir), A(read_after_thread_chdir), A(read_in_root),
    A(read_by_handle), A(read_long_path), A(read_page_crossing), A(read_not_utf8), A(read_hard_link), A(read_hard_link_of_descriptor),
    A(read_renamed_directory), A(read_unlinked_path_descriptor), A(read_replaced_path_descriptor), A(read_renamed_file),
    A(read_restricted_self), A(read_exchanged_directory), A(read_after_filter), A(read_after_log_filter), A(read_undumpable),
    A(read_in_vfork_child), A(read_shared_table_child), A(read_passed_path_descriptor), A(read_inherited), A(read_i386), A(read_x32),
    A(read_dirty_number), A(unknown_numbers), A(write_dirty_flags), A(write_reopened), A(write_dangling_symlink),
    A(write_tmpfile_link), A(write_exchange), A(write_exchange_back), A(write_rename_over), A(write_trailing_slash),
    A(write_through_linked_directory), A(write_chmod_descriptor), A(write_chmod_magic_link), A(write_chmod_empty_path),
    A(write_chown_empty_path), A(write_attribute_descriptor), A(write_times_descriptor), A(write_inode_flags),
    A(write_inode_project), A(write_unlink_after_chdir), A(write_unlink_descriptor), A(write_unlink_magic_parent),
    A(write_truncate_magic_link), A(write_device_node), A(write_creat_setuid), A(exec_plain), A(exec_vfork), A(exec_thread), A(exec_memfd),
    A(exec_memfd_link), A(exec_copy), A(exec_loader), A(exec_descriptor), A(exec_magic_link), A(exec_interpreter), A(exec_interpreter_chain),
    A(exec_without_arguments), A(other_kill), A(other_tgkill), A(other_tkill), A(other_sigqueue), A(other_pidfd_signal),
    A(other_proc_pidfd_signal), A(other_group), A(everyone), A(other_seize), A(other_read), A(other_memory),
    A(other_environment), A(other_descriptor), A(other_descriptor_links), A(other_limit), A(other_priority),
    A(other_affinity), A(other_oom_score), A(other_owner_signal), A(other_owner_structure), A(other_owner_thread), A(other_owner_group),
    A(other_owner_group_structure), A(other_owner_request), A(other_owner_old_request), A(own_owner), A(own_listener), A(own_uring), A(own_user_namespace),
    A(own_clone_namespace), A(own_clone3_namespace), A(own_setns), A(own_userfault), A(own_keyring), A(own_route), A(own_queue), A(own_sysv), A(tty_write), A(tty_read), A(tty_dotdot), A(tty_descriptor),
    A(tty_own), A(tty_inject), A(tty_inject_dirty), A(tty_discipline), A(file_version), A(net_fast_open),
    A(net_fast_open_message), A(net_fast_open_connect), A(net_mptcp), A(net_second_message), A(net_other_than_connected),
    A(net_reconnected), A(net_mapped), A(net_mapped_datagram), A(net_any_address), A(net_long_address), A(net_nonblocking),
    A(net_family_unspec_v4), A(net_passed_socket), A(unix_symlink), A(unix_relative), A(unix_magic_link), A(unix_datagram),
    A(unix_datagram_message), A(unix_abstract), A(unix_unterminated), A(own_evidence_write), A(own_evidence_create),
    A(own_evidence_unlink), A(own_evidence_rename), A(own_evidence_truncate), A(own_evidence_link), A(own_evidence_read),
};

int main(int argc, char **argv) {
    if (argc < 2) return 98;
    args = argv + 2, count = argc - 2;
    for (size_t i = 0; i < sizeof ATTACKS / sizeof *ATTACKS; i++)
        if (!strcmp(ATTACKS[i].name, argv[1])) { errno = 0; return ATTACKS[i].run(); }
    fprintf(stderr, "escape: no attack %s\n", argv[1]);
    return 98;
}
