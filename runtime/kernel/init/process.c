/* SPDX-License-Identifier: Apache-2.0
 * The process: namespaces, identity, privileges, limits, and at last the user's program. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/netlink.h>

/* ---- namespaces -------------------------------------------------------------------------------------------------- */

int step_SYNC(const struct arg *a)
{
    report(REPORT_SYNC, (uint32_t)a[0].u, "", 0, -1);
    return wait_for_go();
}

int step_BECOME_ROOT(const struct arg *a)
{
    (void)a;
    /* The parent's groups mean nothing here; a mapping without setgroups (rootless) keeps them, which is no error. */
    if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
        return fail("setgroups", "");
    if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
        return fail("become root of the user namespace", "");
    return prctl(PR_SET_DUMPABLE, 0) < 0 ? fail("prctl", "PR_SET_DUMPABLE") : 0;
}

int step_SETNS(const struct arg *a)
{
    return setns((int)a[0].u, (int)a[1].u) < 0 ? fail("setns", "") : 0;
}

int step_UNSHARE(const struct arg *a)
{
    return unshare((int)a[0].u) < 0 ? fail("unshare", "") : 0;
}

int step_FORK(const struct arg *a)
{
    (void)a;
    int pidfd = -1;
    if (state.proc >= 0) { /* it shows the pid namespace we come from; and nobody may find it in our descriptors */
        close(state.proc);
        state.proc = -1;
    }
    /* CLONE_PARENT: the child is Python's, not ours, so we can go; exit_signal must be 0 with it (clone(2)). Not clone3:
     * in `exec` the container's seccomp filter is in force already, and the usual ones answer clone3 with ENOSYS. The
     * kernel puts the pidfd where the third argument points, on every architecture. */
    long pid = syscall(SYS_clone, (unsigned long)(CLONE_PARENT | CLONE_PIDFD), NULL, &pidfd, NULL, NULL);
    if (pid < 0)
        return fail("clone", "");
    if (pid > 0) {
        report(REPORT_PID, (uint32_t)pid, "", 0, pidfd);
        _exit(0);
    }
    return wait_for_go(); /* Python has the pid and reaped the one before */
}

int step_LOOPBACK_UP(const struct arg *a)
{
    (void)a;
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s < 0)
        s = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int rc = s < 0 ? -1 : ioctl(s, SIOCSIFFLAGS, &lo);
    if (rc < 0)
        return fail("bring up", "lo");
    close(s);
    return 0;
}

int step_NETLINK(const struct arg *a)
{
    (void)a;
    /* A socket belongs to the network namespace it was made in, wherever it is used: with this one Python sets up
     * addresses and routes of the container without ever entering it. */
    int s = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (s < 0)
        return fail("socket", "netlink");
    report(REPORT_FD, 0, "netlink", 7, s);
    close(s);
    return 0;
}

int step_HOSTNAME(const struct arg *a)
{
    return sethostname(a[0].s, a[0].u) < 0 ? fail("sethostname", a[0].s) : 0;
}

int step_DOMAINNAME(const struct arg *a)
{
    return setdomainname(a[0].s, a[0].u) < 0 ? fail("setdomainname", a[0].s) : 0;
}

/* ---- identity and privileges ------------------------------------------------------------------------------------- */

int step_SESSION(const struct arg *a)
{
    (void)a;
    return setsid() < 0 && errno != EPERM ? fail("setsid", "") : 0;
}

int step_KEYRING(const struct arg *a)
{
    /* A keyring of its own, so that the caller's keys are not reachable. ENOSYS: kernel without keys. */
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, a[0].s, 0, 0, 0) < 0 && errno != ENOSYS)
        return fail("keyctl", "KEYCTL_JOIN_SESSION_KEYRING");
    return 0;
}

int step_RLIMIT(const struct arg *a)
{
    struct rlimit64 limit = {.rlim_cur = a[1].u, .rlim_max = a[2].u};
    if (prlimit64(0, (enum __rlimit_resource)a[0].u, &limit, NULL) < 0)
        return fail("setrlimit", "");
    return 0;
}

int step_UMASK(const struct arg *a)
{
    umask((mode_t)a[0].u);
    return 0;
}

int step_PERSONALITY(const struct arg *a)
{
    return personality((unsigned long)a[0].u) < 0 ? fail("personality", "") : 0;
}

int step_BOUNDING(const struct arg *a)
{
    for (unsigned cap = 0; cap < 64; cap++) {
        if (a[0].u >> cap & 1)
            continue;
        int held = prctl(PR_CAPBSET_READ, cap);
        if (held < 0)
            break; /* past the last capability of this kernel */
        if (held == 1 && prctl(PR_CAPBSET_DROP, cap) < 0)
            return fail("drop from the bounding set", "");
    }
    return 0;
}

int step_IDS(const struct arg *a)
{
    static gid_t groups[65536];
    size_t count = a[2].u / sizeof(gid_t);
    if (count > sizeof groups / sizeof *groups) {
        errno = E2BIG;
        return fail("setgroups", "");
    }
    memcpy(groups, a[2].s, count * sizeof(gid_t));
    /* The permitted set would be lost with uid 0; CAPABILITIES comes next and sets it to what the plan says. */
    if (prctl(PR_SET_KEEPCAPS, 1) < 0)
        return fail("prctl", "PR_SET_KEEPCAPS");
    if (syscall(SYS_setgroups, count, groups) < 0 && !(errno == EPERM && count == 0))
        return fail("setgroups", "");
    if (syscall(SYS_setresgid, a[1].u, a[1].u, a[1].u) < 0)
        return fail("setresgid", "");
    if (syscall(SYS_setresuid, a[0].u, a[0].u, a[0].u) < 0)
        return fail("setresuid", "");
    /* A change of ids sets dumpable to fs.suid_dumpable, which may be 1. */
    return prctl(PR_SET_DUMPABLE, 0) < 0 ? fail("prctl", "PR_SET_DUMPABLE") : 0;
}

int step_CAPABILITIES(const struct arg *a)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    for (unsigned i = 0; i < 2; i++) {
        data[i].effective = (uint32_t)(a[0].u >> 32 * i);
        data[i].permitted = (uint32_t)(a[1].u >> 32 * i);
        data[i].inheritable = (uint32_t)(a[2].u >> 32 * i);
    }
    if (syscall(SYS_capset, &header, data) < 0)
        return fail("capset", "");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
        return fail("clear ambient capabilities", "");
    for (unsigned long cap = 0; cap < 64; cap++)
        if (a[3].u >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            return fail("raise ambient capability", "");
    return 0;
}

int step_NO_NEW_PRIVS(const struct arg *a)
{
    (void)a;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? fail("prctl", "PR_SET_NO_NEW_PRIVS") : 0;
}

/* Without no_new_privs a filter needs CAP_SYS_ADMIN in effect, and a change of ids to a user who is not root took
 * it from the effective set, though not from the permitted one. */
static void raise_permitted(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) == 0) {
        data[0].effective = data[0].permitted;
        data[1].effective = data[1].permitted;
        syscall(SYS_capset, &header, data);
    }
}

int step_SECCOMP(const struct arg *a)
{
    struct sock_fprog program = {.len = (unsigned short)(a[1].u / sizeof(struct sock_filter)),
                                 .filter = (struct sock_filter *)(void *)a[1].s};
    if (a[1].u % sizeof(struct sock_filter) || a[1].u / sizeof(struct sock_filter) > 0xffff) {
        errno = EINVAL;
        return fail("seccomp", "");
    }
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0)
        raise_permitted(); /* CAPABILITIES, the next step, sets all of them */
    long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (unsigned)a[0].u, &program);
    if (fd < 0)
        return fail("seccomp", "");
    if (a[0].u & SECCOMP_FILTER_FLAG_NEW_LISTENER) {
        report(REPORT_FD, 0, "seccomp", 7, (int)fd);
        close((int)fd);
    }
    return 0;
}

int step_CHDIR(const struct arg *a)
{
    char here[4096];
    if (state.root >= 0) { /* the last step that could need it is behind us */
        close(state.root);
        state.root = -1;
    }
    if (chdir(a[0].s) < 0)
        return fail("chdir", a[0].s);
    /* Outside the root the kernel answers "(unreachable)…": a working directory through a leaked descriptor
     * (CVE-2024-21626). The system call, since a libc may look it up differently. */
    long n = syscall(SYS_getcwd, here, sizeof here);
    if (n < 1 || here[0] != '/') {
        errno = ENOENT;
        return fail("check that the working directory is inside the container", a[0].s);
    }
    return 0;
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static int executable(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return -1;
    if (!S_ISREG(st.st_mode)) {
        errno = S_ISDIR(st.st_mode) ? EISDIR : EACCES;
        return -1;
    }
    /* By the effective ids, and AT_EACCESS in the kernel where it has faccessat2 (5.8). */
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS);
}

int step_LOOKUP(const struct arg *a)
{
    const char *name = a[0].s;
    size_t length = strlen(name);
    int worst = ENOENT;
    if (length == 0 || length >= sizeof state.program) {
        errno = length ? ENAMETOOLONG : ENOENT;
        return fail("find program", name);
    }
    if (strchr(name, '/')) {
        memcpy(state.program, name, length + 1);
        if (executable(name) < 0) {
            state.program[0] = 0;
            return fail("find program", name);
        }
        return 0;
    }
    /* As execvp(3): a match that may not be run is remembered, but the search goes on. */
    for (const char *dir = a[1].s; dir;) {
        const char *end = strchr(dir, ':');
        size_t n = end ? (size_t)(end - dir) : strlen(dir);
        if (n + length + 2 < sizeof state.program) {
            int at = n ? snprintf(state.program, sizeof state.program, "%.*s/%s", (int)n, dir, name)
                       : snprintf(state.program, sizeof state.program, "./%s", name);
            if (at > 0 && executable(state.program) == 0)
                return 0;
            if (errno == EACCES)
                worst = EACCES;
        }
        dir = end ? end + 1 : NULL;
    }
    state.program[0] = 0;
    errno = worst;
    return fail("find program", name);
}

int step_WAIT_START(const struct arg *a)
{
    char path[64], byte = 0;
    snprintf(path, sizeof path, "self/fd/%d", (int)a[0].u);
    report(REPORT_READY, 0, "", 0, -1);
    state.alone = true;
    /* Opening the FIFO for writing blocks until `start` opens it for reading. By the private procfs: the container's
     * own /proc may be anything. */
    int fd = openat(state.proc, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return fail("open", "exec.fifo");
    if (write(fd, &byte, 1) != 1)
        return fail("write", "exec.fifo");
    close(fd);
    return 0;
}

static pid_t reaped_child;

static void forward(int signal_number)
{
    kill(reaped_child, signal_number);
}

int step_REAPER(const struct arg *a)
{
    (void)a;
    pid_t child = fork();
    if (child < 0)
        return fail("fork", "");
    if (child == 0) {
        setpgid(0, 0);
        /* With a terminal the program must be its foreground group; SIGTTOU would stop us for asking. */
        signal(SIGTTOU, SIG_IGN);
        tcsetpgrp(STDIN_FILENO, getpid());
        signal(SIGTTOU, SIG_DFL);
        return 0;
    }
    reaped_child = child;
    for (int s = 1; s < _NSIG; s++)
        if (s != SIGCHLD && s != SIGKILL && s != SIGSTOP && s != SIGTTIN && s != SIGTTOU)
            signal(s, forward);
    prctl(PR_SET_NAME, "pyrun-reaper");
    close_range(SYNC_FD, ~0u, 0);
    for (;;) {
        int status;
        pid_t done = waitpid(-1, &status, 0);
        if (done == child)
            _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
        if (done < 0 && errno == ECHILD)
            _exit(125);
    }
}

int step_EXEC(const struct arg *a)
{
    report(REPORT_EXEC, 0, "", 0, -1);
    if (state.program[0] == 0) {
        errno = ENOENT;
        return fail("exec", a[0].u ? a[0].l[0] : "");
    }
    execve(state.program, a[0].l, a[1].l);
    return fail("exec", state.program);
}
