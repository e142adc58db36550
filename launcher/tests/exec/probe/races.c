// Races against the judge: a second thread, or a process outside, changes what a call names while it is judged.
//   races KIND TRIES ALLOWED BLOCKED
// Prints `tries=N allowed=N refused=N other=N bypass=N`. A bypass is a try that reached the blocked thing.
#include "probe.h"

static char path[512];
static char *allowed_path, *blocked_path;
static struct sockaddr_in peer;
static in_port_t allowed_port, blocked_port;
static volatile int stop, flipping;
static unsigned tries, allowed, refused, other, bypass;

// The delay sweeps, so that every distance between the check and the use is hit.
static void pause_a_little(unsigned turn) {
    for (volatile unsigned i = 0; i < (turn * 37) % 1500; i++) {}
}
static void *flip_path(void *unused) {
    size_t a = strlen(allowed_path) + 1, b = strlen(blocked_path) + 1;
    for (unsigned turn = 0; !stop; turn++) {
        flipping = 1;
        memcpy(path, allowed_path, a);
        pause_a_little(turn);
        memcpy(path, blocked_path, b);
        pause_a_little(turn * 7);
    }
    return unused;
}
static void *flip_peer(void *unused) {
    for (unsigned turn = 0; !stop; turn++) {
        *(volatile in_port_t *)&peer.sin_port = allowed_port;
        pause_a_little(turn);
        *(volatile in_port_t *)&peer.sin_port = blocked_port;
        pause_a_little(turn * 7);
    }
    return unused;
}

static void failed(void) {
    if (errno == EACCES || errno == EPERM) refused++;
    else other++;
}
static int exists(const char *name) {
    struct stat st;
    return !lstat(name, &st);
}

static void try_open(int flags) {
    struct stat blocked, got;
    if (stat(blocked_path, &blocked)) _exit(97);
    for (unsigned i = 0; i < tries; i++) {
        int fd = syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0);
        if (fd < 0) { failed(); continue; }
        fstat(fd, &got);
        if (got.st_ino == blocked.st_ino && got.st_dev == blocked.st_dev) bypass++;
        else allowed++;
        close(fd);
    }
}
static void try_create(void) {
    for (unsigned i = 0; i < tries; i++) {
        int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0) failed();
        else { allowed++; close(fd); }
        if (exists(blocked_path)) { bypass++; if (unlink(blocked_path)) return; }
    }
}
static void try_unlink(void) {
    for (unsigned i = 0; i < tries; i++) {
        close(syscall(SYS_openat, AT_FDCWD, allowed_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        if (syscall(SYS_unlink, path)) failed();
        else allowed++;
        if (!exists(blocked_path)) {
            bypass++;
            int fd = syscall(SYS_openat, AT_FDCWD, blocked_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
            if (fd < 0) return;
            close(fd);
        }
    }
}
static void try_rename(void) {
    char from[600];
    snprintf(from, sizeof from, "%s.from", allowed_path);
    for (unsigned i = 0; i < tries; i++) {
        close(syscall(SYS_openat, AT_FDCWD, from, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        if (syscall(SYS_rename, from, path)) failed();
        else allowed++;
        if (exists(blocked_path)) { bypass++; if (unlink(blocked_path)) return; }
    }
}
static void try_connect(void) {
    for (unsigned i = 0; i < tries; i++) {
        int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (syscall(SYS_connect, s, &peer, sizeof peer)) failed();
        else {
            struct sockaddr_in got;
            socklen_t length = sizeof got;
            getpeername(s, (void *)&got, &length);
            if (got.sin_port == blocked_port) bypass++;
            else allowed++;
        }
        close(s);
    }
}
static void try_send(int message) {
    // What arrives is counted by the receiver outside; here only what the caller saw.
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct iovec iov = {"x", 1};
    struct msghdr header = {.msg_name = &peer, .msg_namelen = sizeof peer, .msg_iov = &iov, .msg_iovlen = 1};
    for (unsigned i = 0; i < tries; i++) {
        long result = message ? syscall(SYS_sendmsg, s, &header, 0) : syscall(SYS_sendto, s, "x", 1, 0, &peer, sizeof peer);
        if (result < 0) failed();
        else allowed++;
    }
}
// The allowed program exits with 0, the blocked one with 42.
static void try_exec(void) {
    for (unsigned i = 0; i < tries; i++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            strcpy(path, allowed_path);
            pthread_create(&thread, NULL, flip_path, NULL);
            while (!flipping) sched_yield();
            char *words[] = {"x", NULL}, *none[] = {NULL};
            for (int k = 0; k < 10; k++) syscall(SYS_execve, path, words, none);
            _exit(77);
        }
        int status;
        waitpid(child, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 42) bypass++;
        else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) allowed++;
        else refused++;
    }
}

int main(int argc, char **argv) {
    if (argc != 5) return 98;
    const char *kind = argv[1];
    pthread_t thread;
    tries = atoi(argv[2]);
    allowed_path = argv[3], blocked_path = argv[4];
    strcpy(path, allowed_path);
    int by_peer = !strcmp(kind, "connect") || !strcmp(kind, "sendto") || !strcmp(kind, "sendmsg");
    int outside = !strncmp(kind, "outside-", 8);
    if (by_peer) {
        allowed_port = htons(atoi(argv[3])), blocked_port = htons(atoi(argv[4]));
        peer = inet4("127.0.0.1", atoi(argv[3]));
        pthread_create(&thread, NULL, flip_peer, NULL);
    } else if (!outside && strcmp(kind, "exec")) {
        pthread_create(&thread, NULL, flip_path, NULL);
    }
    if (!strcmp(kind, "open") || !strcmp(kind, "outside-open")) try_open(O_RDONLY);
    else if (!strcmp(kind, "write")) try_open(O_WRONLY);
    else if (!strcmp(kind, "create") || !strcmp(kind, "outside-create")) try_create();
    else if (!strcmp(kind, "unlink") || !strcmp(kind, "outside-unlink")) try_unlink();
    else if (!strcmp(kind, "rename")) try_rename();
    else if (!strcmp(kind, "connect")) try_connect();
    else if (!strcmp(kind, "sendto")) try_send(0);
    else if (!strcmp(kind, "sendmsg")) try_send(1);
    else if (!strcmp(kind, "exec")) try_exec();
    else return 98;
    stop = 1;
    printf("tries=%u allowed=%u refused=%u other=%u bypass=%u\n", tries, allowed, refused, other, bypass);
    return 0;
}
