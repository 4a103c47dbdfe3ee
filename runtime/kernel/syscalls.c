/* SPDX-License-Identifier: Apache-2.0
 * The system calls that Python has no function for. Each returns what the kernel does, or -1 with errno set. */
#define _GNU_SOURCE
#include "syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init/wire.h"

int pyrun_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
    return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}

int pyrun_syncfs(int fd) { return syncfs(fd); }

int pyrun_start_writeback(int fd, int64_t offset, int64_t count)
{
    return sync_file_range(fd, offset, count, SYNC_FILE_RANGE_WRITE);
}

/* ---- files of an archive ---------------------------------------------------------------------------------------- */

static const struct timespec *times_of(const struct pyrun_object *o, struct timespec times[2])
{
    times[0] = times[1] = (struct timespec){.tv_sec = o->seconds, .tv_nsec = o->nanoseconds};
    return times;
}

/* Owner before mode: chown(2) clears setuid. What is right already costs no transaction of the file system's journal. */
static int set_metadata(int fd, const struct pyrun_object *o)
{
    struct stat found;
    struct timespec times[2];
    int other_owner;
    if (fstat(fd, &found) < 0)
        return -1;
    other_owner = found.st_uid != o->uid || found.st_gid != o->gid;
    if (other_owner && fchown(fd, o->uid, o->gid) < 0)
        return -1;
    if ((other_owner || (found.st_mode & 07777) != o->mode) && fchmod(fd, o->mode) < 0)
        return -1;
    return futimens(fd, times_of(o, times));
}

/* Takes back what was just made, so that the caller can try again by itself and say what went wrong. */
static int unmake(int parent, const char *name)
{
    unlinkat(parent, name, 0);
    return -1;
}

static int make_file(int parent, const struct pyrun_object *o, const char *name, const char *content)
{
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, o->mode & 0777);
    if (fd < 0)
        return -1;
    int result = o->length == 0 || write(fd, content, o->length) == (ssize_t)o->length ? set_metadata(fd, o) : -1;
    if (close(fd) < 0)
        result = -1;
    return result < 0 ? unmake(parent, name) : 0;
}

static int make_symlink(int parent, const struct pyrun_object *o, const char *name, const char *target)
{
    struct stat found;
    struct timespec times[2];
    if (symlinkat(target, parent, name) < 0)
        return -1;
    if (fstatat(parent, name, &found, AT_SYMLINK_NOFOLLOW) < 0)
        return unmake(parent, name);
    if ((found.st_uid != o->uid || found.st_gid != o->gid) &&
        fchownat(parent, name, o->uid, o->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return unmake(parent, name);
    return utimensat(parent, name, times_of(o, times), AT_SYMLINK_NOFOLLOW) < 0 ? unmake(parent, name) : 0;
}

static int make_object(int parent, const struct pyrun_object *o, const char *text, const char *data)
{
    const char *name = text + o->name;
    switch (o->kind) {
    case S_IFDIR:
        return mkdirat(parent, name, 0700);
    case S_IFREG:
        return make_file(parent, o, name, data + o->data);
    case S_IFLNK:
        return make_symlink(parent, o, name, text + o->data);
    }
    return -1;
}

/* Makes new objects below `root`, from number `first` on, and stops at the first that cannot be made as if nothing were
 * special about it: it replaces, follows and leaves behind nothing. Returns that one's number, or `count`. Parents are
 * resolved inside the root, names are single components. */
int pyrun_make_objects(int root, const struct pyrun_object *objects, int first, int count, const char *text,
                       const char *data)
{
    int parent = -1, at;
    for (at = first; at < count; at++) {
        const struct pyrun_object *o = &objects[at];
        if (parent < 0 || o->parent != objects[at - 1].parent) {
            const char *path = text + o->parent;
            if (parent >= 0)
                close(parent);
            parent = pyrun_openat2(root, *path ? path : ".", O_PATH | O_DIRECTORY, 0,
                                   RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
            if (parent < 0)
                break;
        }
        if (make_object(parent, o, text, data) < 0)
            break;
    }
    if (parent >= 0)
        close(parent);
    return at;
}

/* ---- spawn ------------------------------------------------------------------------------------------------------- */

static _Noreturn void spawn_failed(int error, const char *what)
{
    struct report r = {.type = REPORT_ERROR, .step = STEP_NONE, .error = error};
    size_t n = strlen(what);
    memcpy(r.text, what, n);
    r.text[n] = r.text[n + 1] = 0;
    send(SYNC_FD, &r, REPORT_HEAD + n + 2, MSG_NOSIGNAL);
    _exit(125);
}

/* In the child, between clone3 and execveat, in memory borrowed from Python: it changes nothing there but its own stack,
 * allocates nothing, takes no lock. Its descriptors are its own (no CLONE_FILES). */
static void spawn_child(const struct pyrun_spawn *s)
{
    char name[] = "pyrun-init";
    char *argv[] = {name, NULL}, *env[] = {NULL};
    int base = SYNC_FD + s->count + 1, program = -1;
    int moved[PYRUN_SPAWN_MAX_FDS];
    /* First all of them out of the way, then each to its place: a source may be another one's target. */
    for (int i = 0; i < s->count; i++)
        if ((moved[i] = fcntl(s->fds[i], F_DUPFD_CLOEXEC, base)) < 0)
            spawn_failed(errno, "dup");
    if ((program = fcntl(s->program, F_DUPFD_CLOEXEC, base)) < 0)
        spawn_failed(errno, "dup");
    for (int i = 0; i < s->count; i++)
        if (dup2(moved[i], SYNC_FD + i) < 0)
            spawn_failed(errno, "dup2");
    if (dup2(program, base - 1) < 0 || fcntl(base - 1, F_SETFD, FD_CLOEXEC) < 0)
        spawn_failed(errno, "dup2");
    if (close_range((unsigned)base, ~0u, 0) < 0)
        spawn_failed(errno, "close_range");
    execveat(base - 1, "", argv, env, AT_EMPTY_PATH);
    spawn_failed(errno, "execveat pyrun-init");
}

/* clone3 as vfork does it: the child borrows our memory on a stack of its own, and we wait until it has executed
 * pyrun-init. A plain fork would copy the page tables of a warm Python first: 2 ms more. glibc has no wrapper that takes
 * clone3's flags, and no C code may run on the new stack before the call, hence these few instructions. */
static long clone3_on_stack(struct clone_args *args, void (*child)(const struct pyrun_spawn *), struct pyrun_spawn *s)
{
    long result;
#if defined(__x86_64__)
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %[s], %%rdi\n\t"
                     "call *%[child]\n\t"
                     "hlt\n\t"
                     "1:"
                     : "=a"(result)
                     : "0"((long)SYS_clone3), "D"(args), "S"(sizeof *args), [child] "r"(child), [s] "r"(s)
                     : "rcx", "r11", "memory", "cc");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = SYS_clone3;
    register long x0 __asm__("x0") = (long)args;
    register long x1 __asm__("x1") = sizeof *args;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "mov x0, %[s]\n\t"
                     "blr %[child]\n\t"
                     "brk #1\n\t"
                     "1:"
                     : "+r"(x0)
                     : "r"(x1), "r"(x8), [child] "r"(child), [s] "r"(s)
                     : "memory", "cc", "x30");
    result = x0;
#else
#error "clone3_on_stack() is written for x86_64 and aarch64"
#endif
    if (result < 0) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

int pyrun_spawn(struct pyrun_spawn *s)
{
    _Alignas(16) char stack[32 * 1024]; /* the child's; ours until it has executed pyrun-init */
    sigset_t all, before;
    if (s->count > PYRUN_SPAWN_MAX_FDS) {
        errno = EMFILE;
        return -1;
    }
    int pidfd = -1;
    struct clone_args args = {
        .flags = s->flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | (s->cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = s->flags & CLONE_PARENT ? 0 : SIGCHLD, /* clone(2): must be 0 with CLONE_PARENT */
        .stack = (uint64_t)(uintptr_t)stack,
        .stack_size = sizeof stack,
        .cgroup = s->cgroup >= 0 ? (uint64_t)s->cgroup : 0,
    };
    /* A signal in the child before execveat would run Python's C handler there. pyrun-init unblocks. */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    long pid = clone3_on_stack(&args, spawn_child, s);
    int saved = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    s->pidfd = pidfd;
    return (int)pid;
}

/* ---- pidfd ------------------------------------------------------------------------------------------------------- */

/* PIDFD_GET_INFO, kernel 6.13, the exit code since 6.15. Not in Debian 12's headers; the layout is the kernel's ABI
 * (include/uapi/linux/pidfd.h) and its first published size is enough. */
struct pidfd_info_abi {
    uint64_t mask, cgroupid;
    uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
#define PIDFD_GET_INFO_ABI _IOWR(0xFF, 11, struct pidfd_info_abi)
#define PIDFD_INFO_EXIT_ABI (1ull << 3)

int pyrun_pidfd_exit_status(int pidfd, int *status)
{
    struct pidfd_info_abi info = {.mask = PIDFD_INFO_EXIT_ABI};
    if (ioctl(pidfd, PIDFD_GET_INFO_ABI, &info) < 0)
        return -1;
    if (!(info.mask & PIDFD_INFO_EXIT_ABI))
        return 0;
    *status = info.exit_code;
    return 1;
}

int pyrun_pidfd_getfd(int pidfd, int fd)
{
    return (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
}

int pyrun_wait_pidfd(int pidfd, int options, int *status)
{
    /* __WALL: a child cloned with CLONE_PARENT has exit_signal 0 and is invisible to a plain wait (waitid(2)). */
    siginfo_t info = {0};
    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL | options) < 0)
        return -1;
    if (info.si_pid == 0)
        return 0;
    *status = info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8 : (info.si_status & 0x7f);
    return 1;
}

/* ---- namespaces, pipes ------------------------------------------------------------------------------------------- */

int pyrun_setns(int fd, int flags) { return setns(fd, flags); }
int pyrun_unshare(int flags) { return unshare(flags); }
int pyrun_set_dumpable(int value) { return prctl(PR_SET_DUMPABLE, value); }

ssize_t pyrun_tee(int from, int to, size_t n, unsigned flags) { return tee(from, to, n, flags); }
ssize_t pyrun_splice(int from, int to, size_t n, unsigned flags) { return splice(from, NULL, to, NULL, n, flags); }

/* ---- mount API --------------------------------------------------------------------------------------------------- */

int pyrun_open_tree(int dirfd, const char *path, unsigned flags) { return open_tree(dirfd, path, flags); }

int pyrun_move_mount(int from, int to)
{
    return move_mount(from, "", to, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* ---- bpf --------------------------------------------------------------------------------------------------------- */

static int bpf(int command, union bpf_attr *attr) { return (int)syscall(SYS_bpf, command, attr, sizeof *attr); }

int pyrun_bpf_prog_load_cgroup_device(const void *instructions, uint32_t count, char *log, uint32_t log_size)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = (uint64_t)(uintptr_t)instructions;
    attr.insn_cnt = count;
    attr.license = (uint64_t)(uintptr_t) "Apache-2.0";
    if (log_size) {
        attr.log_buf = (uint64_t)(uintptr_t)log;
        attr.log_size = log_size;
        attr.log_level = 1;
    }
    memcpy(attr.prog_name, "pyrun_devices", 14);
    return bpf(BPF_PROG_LOAD, &attr);
}

int pyrun_bpf_prog_attach(int cgroup, int program, uint32_t flags, int replaced)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.target_fd = (uint32_t)cgroup;
    attr.attach_bpf_fd = (uint32_t)program;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = flags;
    if (replaced >= 0)
        attr.replace_bpf_fd = (uint32_t)replaced;
    return bpf(BPF_PROG_ATTACH, &attr);
}

int pyrun_bpf_prog_detach(int cgroup, int program)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.target_fd = (uint32_t)cgroup;
    attr.attach_bpf_fd = (uint32_t)program;
    attr.attach_type = BPF_CGROUP_DEVICE;
    return bpf(BPF_PROG_DETACH, &attr);
}

int pyrun_bpf_prog_query(int cgroup, uint32_t *ids, uint32_t size)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.query.target_fd = (uint32_t)cgroup;
    attr.query.attach_type = BPF_CGROUP_DEVICE;
    attr.query.prog_ids = (uint64_t)(uintptr_t)ids;
    attr.query.prog_cnt = size;
    return bpf(BPF_PROG_QUERY, &attr) < 0 ? -1 : (int)attr.query.prog_cnt;
}

int pyrun_bpf_prog_get_fd_by_id(uint32_t id)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_id = id;
    return bpf(BPF_PROG_GET_FD_BY_ID, &attr);
}

/* ---- the wire format, for Python --------------------------------------------------------------------------------- */

#define WIRE_NAME(name, signature) #name,
#define WIRE_SIGNATURE(name, signature) signature,
static const char *const names[] = {WIRE_OPERATIONS(WIRE_NAME)};
static const char *const signatures[] = {WIRE_OPERATIONS(WIRE_SIGNATURE)};

int pyrun_wire_count(void) { return OP_COUNT; }
const char *pyrun_wire_name(int operation) { return names[operation]; }
const char *pyrun_wire_signature(int operation) { return signatures[operation]; }
