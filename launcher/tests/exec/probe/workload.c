// Workloads for the tests of the session itself: `workload KIND ARGS…`.
#include "probe.h"

static void busy_writer(const char *dir, int id) {
    // Creates files until it is killed; the newest one dates the moment of death.
    char path[512];
    for (unsigned i = 0;; i++) {
        snprintf(path, sizeof path, "%s/%d-%u", dir, id, i % 50);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd >= 0) close(fd);
    }
}

// A daemon that leaves its session, its parent and its terminal, and ignores what it can ignore.
static void daemonise(void) {
    if (fork()) return;
    setsid();
    if (fork()) _exit(0);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    for (int fd = 0; fd < 3; fd++) close(fd);
    for (;;) pause();
}

static volatile sig_atomic_t caught;
static void on_signal(int number) { caught = number; }

static void *thread_work(void *dir) {
    char path[512];
    for (int i = 0; i < 50; i++) {
        snprintf(path, sizeof path, "%s/t%ld-%d", (char *)dir, (long)syscall(SYS_gettid), i);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0) return dir;
        close(fd);
        if (unlink(path)) return dir;
    }
    return NULL;
}

static void *block_on_fifo(void *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    close(fd);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 2) return 98;
    const char *kind = argv[1];
    if (!strcmp(kind, "exit")) return atoi(argv[2]);
    if (!strcmp(kind, "die")) {
        signal(atoi(argv[2]), SIG_DFL);
        raise(atoi(argv[2]));
        return 98;
    }
    if (!strcmp(kind, "daemons")) {
        for (int i = 0; i < atoi(argv[2]); i++) daemonise();
        usleep(50000);
        return 0;
    }
    if (!strcmp(kind, "churn")) {  // forks for ever, each child gone at once, beside some daemons
        for (int i = 0; i < 5; i++) daemonise();
        for (int i = 0; i < 4; i++) if (!fork()) for (;;) { if (!fork()) _exit(0); while (waitpid(-1, NULL, WNOHANG) > 0) {} }
        printf("ready\n"), fflush(stdout);
        for (;;) pause();
    }
    if (!strcmp(kind, "writers")) {  // writers DIR COUNT
        for (int i = 1; i < atoi(argv[3]); i++) if (!fork()) { if (i % 2) setsid(); busy_writer(argv[2], i); }
        printf("ready\n"), fflush(stdout);
        busy_writer(argv[2], 0);
    }
    if (!strcmp(kind, "idle")) {
        printf("ready\n"), fflush(stdout);
        for (;;) pause();
    }
    if (!strcmp(kind, "execs")) {  // programs one after another, for ever
        printf("ready\n"), fflush(stdout);
        for (;;) {
            pid_t child = fork();
            if (child == 0) { execl("/bin/true", "true", NULL); _exit(1); }
            waitpid(child, NULL, 0);
        }
    }
    if (!strcmp(kind, "signals")) {  // reports the first signal it gets and exits with its number
        for (int s = 1; s < 16; s++) if (s != SIGKILL) signal(s, on_signal);
        printf("ready\n"), fflush(stdout);
        while (!caught) usleep(2000);
        printf("caught=%d\n", (int)caught);
        return caught;
    }
    if (!strcmp(kind, "forks")) {
        int count = atoi(argv[2]), good = 0, status;
        for (int i = 0; i < count; i++) {
            pid_t child = fork();
            if (child < 0) return 97;
            if (child == 0) _exit(i & 127);
            if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == (i & 127)) good++;
        }
        printf("good=%d\n", good);
        return 0;
    }
    if (!strcmp(kind, "threads")) {  // threads DIR COUNT
        int count = atoi(argv[3]), bad = 0;
        pthread_t thread[256];
        void *result;
        for (int i = 0; i < count; i++) if (pthread_create(&thread[i], NULL, thread_work, argv[2])) return 97;
        for (int i = 0; i < count; i++) { pthread_join(thread[i], &result); bad += result != NULL; }
        printf("bad=%d\n", bad);
        return 0;
    }
    if (!strcmp(kind, "slow")) {  // slow FIFO FILE: blocked opens of the FIFO must not delay opens of the file
        pthread_t thread;
        struct timespec a, b;
        double worst = 0;
        for (int i = 0; i < 12; i++) pthread_create(&thread, NULL, block_on_fifo, argv[2]);
        usleep(100000);
        for (int i = 0; i < 200; i++) {
            clock_gettime(CLOCK_MONOTONIC, &a);
            int fd = open(argv[3], O_RDONLY | O_CLOEXEC);
            clock_gettime(CLOCK_MONOTONIC, &b);
            if (fd < 0) return 97;
            close(fd);
            double took = (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6;
            if (took > worst) worst = took;
        }
        printf("worst_ms=%d\n", (int)worst);
        fflush(stdout);
        _exit(0);
    }
    if (!strcmp(kind, "storm")) {  // storm DIR TRIES: exclusive creates under a storm of signals happen exactly once
        struct itimerval timer = {{0, 200}, {0, 200}};
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
        char path[512];
        int twice = 0;
        sigaction(SIGALRM, &action, NULL);
        setitimer(ITIMER_REAL, &timer, NULL);
        for (int i = 0; i < atoi(argv[3]); i++) {
            snprintf(path, sizeof path, "%s/s%d", argv[2], i);
            int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
            if (fd < 0) twice++;
            else close(fd);
            if (unlink(path) && fd >= 0) twice++;
        }
        printf("twice=%d\n", twice);
        return 0;
    }
    if (!strcmp(kind, "busy-text")) {  // busy-text FILE TRIES: write a program, close it, run it at once
        int busy = 0, status;
        for (int i = 0; i < atoi(argv[3]); i++) {
            int fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
            int source = open("/bin/true", O_RDONLY | O_CLOEXEC);
            char block[65536];
            ssize_t length;
            while ((length = read(source, block, sizeof block)) > 0) if (write(fd, block, length) < 0) return 97;
            close(source);
            close(fd);
            pid_t child = vfork();
            if (child == 0) { execl(argv[2], "x", NULL); _exit(errno == ETXTBSY ? 66 : 67); }
            waitpid(child, &status, 0);
            busy += WEXITSTATUS(status) == 66;
            unlink(argv[2]);
        }
        printf("busy=%d\n", busy);
        return 0;
    }
    if (!strcmp(kind, "fds")) {  // lists the open descriptors
        for (int fd = 0; fd < 256; fd++) if (fcntl(fd, F_GETFD) >= 0) printf("%d ", fd);
        printf("\n");
        return 0;
    }
    if (!strcmp(kind, "tree")) {  // facts about itself that a supervisor could disturb
        sigset_t blocked;
        sigprocmask(SIG_SETMASK, NULL, &blocked);
        unsigned long mask = 0, ignored = 0;
        for (int s = 1; s < 32; s++) {
            struct sigaction action;
            if (sigismember(&blocked, s) == 1) mask |= 1UL << s;
            if (!sigaction(s, NULL, &action) && action.sa_handler == SIG_IGN) ignored |= 1UL << s;
        }
        struct rlimit files, core;
        getrlimit(RLIMIT_NOFILE, &files);
        getrlimit(RLIMIT_CORE, &core);
        mode_t old = umask(0);
        int death = -1;
        prctl(PR_GET_PDEATHSIG, &death);
        printf("mask=%lx ignored=%lx files=%ld core=%ld umask=%o leader=%d group=%d nice=%d death=%d\n", mask,
               ignored, (long)files.rlim_cur, (long)core.rlim_cur, old, getsid(0) == getpid(), getpgrp() == getpid(), getpriority(PRIO_PROCESS, 0), death);
        return 0;
    }
    return 98;
}
