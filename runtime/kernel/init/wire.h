/* SPDX-License-Identifier: Apache-2.0
 *
 * The wire format between Python and pyrun-init: described here, once, for both sides. Python reads this file's
 * constants and signatures through cffi (runtime/kernel/kernel_cdef.py), so the two cannot drift apart.
 *
 *   fd 3        SOCK_SEQPACKET socket to Python: reports out, answers in
 *   fd 4        the plan: a sealed memfd
 *   fd 5, 6, …  the plan's own descriptors, in the order in which its steps name them
 *
 * Plan:    struct plan_header, then `count` records. Native byte order: both sides run on the same machine.
 * Record:  u16 operation, u16 zero, u32 length of the arguments, then the arguments by the operation's signature:
 *            u   u64
 *            s   u32 length, that many bytes without a NUL, then a NUL        (a C string)
 *            b   u32 length, that many bytes, then a NUL that is not counted  (a blob)
 *            l   u32 count, then that many `s`                                (a list of strings)
 *            f   u64 index of a descriptor, NO_FD for none
 */
#ifndef PYRUN_WIRE_H
#define PYRUN_WIRE_H

#include <stdint.h>

#define WIRE_MAGIC 0x4e525950u /* "PYRN" */
#define WIRE_VERSION 1u
#define WIRE_MAX_ARGS 12
#define SYNC_FD 3
#define PLAN_FD 4
#define FIRST_FD 5
#define NO_FD UINT64_MAX

enum { PLAN_TRACE = 1 }; /* plan_header.flags: report every finished step */

struct plan_header {
    uint32_t magic, version, flags, count, fds;
};

/* The operations: X(NAME, signature). What each does is said where it is implemented; what its arguments are: */
#define WIRE_OPERATIONS(X)                                                                                            \
    /* talk to Python */                                                                                              \
    X(SYNC, "u")          /* sync point: report it, wait for the answer GO */                                         \
    /* namespaces */                                                                                                  \
    X(BECOME_ROOT, "")    /* root of the new user namespace */                                                        \
    X(SETNS, "fu")        /* namespace or pidfd, CLONE_NEW* flags */                                                  \
    X(UNSHARE, "u")       /* CLONE_NEW* flags */                                                                      \
    X(TIME_OFFSETS, "s")  /* lines for timens_offsets */                                                              \
    X(FORK, "")           /* the child goes on: it is in the pid and time namespaces joined or made before */         \
    X(LOOPBACK_UP, "")                                                                                                \
    X(NETLINK, "")        /* a route netlink socket of this network namespace, handed to Python */                    \
    /* the root file system */                                                                                        \
    X(PROC_HANDLE, "")    /* a private procfs for all later writes below /proc */                                     \
    X(PROPAGATION, "su")  /* path, MS_* */                                                                            \
    X(PARENT_PRIVATE, "s") /* path: the mount that holds it */                                                         \
    X(ROOT_BIND, "su")    /* directory, recursive: it becomes the root */                                             \
    X(ROOT_OVERLAY, "slsss") /* mount point, lower directories (top first), upper, work, options */                   \
    X(ROOT_HERE, "")      /* the present "/" is the root (after SETNS) */                                             \
    X(MOUNT, "sssusu")    /* fstype, source, target, MOUNT_ATTR_*, data, mode of a target that is made */             \
    X(BIND, "ssuuuuuu")   /* source, target, recursive, attr set, clear, recursive attr set, clear, MS_ propagation */\
    X(MOUNT_PROPAGATION, "su") /* target, MS_*: of a mount made before */                                             \
    X(MKDIR, "suuu")      /* path, mode, uid, gid */                                                                  \
    X(SYMLINK, "ss")      /* target, path */                                                                          \
    X(MKNOD, "suuuu")     /* path, mode with type, dev_t, uid, gid */                                                 \
    X(MASK, "s")          /* path; missing is fine */                                                                 \
    X(READONLY, "s")      /* path; missing is fine */                                                                 \
    X(ROOT_READONLY, "")                                                                                              \
    X(PIVOT_ROOT, "")                                                                                                 \
    /* the host's view of the container */                                                                            \
    X(SYSCTL, "ss")       /* path below /proc/sys, value */                                                           \
    X(PROC_WRITE, "ss")   /* path below /proc, value */                                                               \
    X(HOSTNAME, "s")                                                                                                  \
    X(DOMAINNAME, "s")                                                                                                \
    /* the process */                                                                                                 \
    X(TERMINAL, "uuuu")   /* rows, columns, owner uid, bind on /dev/console */                                        \
    X(STDIO, "fff")       /* stdin, stdout, stderr; NO_FD leaves what is inherited */                                 \
    X(STDIO_OWNER, "u")   /* uid */                                                                                   \
    X(SESSION, "")        /* setsid */                                                                                \
    X(KEYRING, "s")       /* new session keyring of that name */                                                      \
    X(RLIMIT, "uuu")      /* resource, soft, hard */                                                                  \
    X(UMASK, "u")                                                                                                     \
    X(PERSONALITY, "u")                                                                                               \
    X(BOUNDING, "u")      /* mask of the capabilities that stay in the bounding set */                                \
    X(IDS, "uub")         /* uid, gid, additional gids as u32 */                                                      \
    X(CAPABILITIES, "uuuu") /* effective, permitted, inheritable, ambient masks */                                    \
    X(NO_NEW_PRIVS, "")                                                                                               \
    X(SECCOMP, "ub")      /* SECCOMP_FILTER_FLAG_*, struct sock_filter[] */                                           \
    X(CHDIR, "s")                                                                                                     \
    X(LOOKUP, "ss")       /* argv[0], PATH: finds the program that EXEC runs */                                       \
    X(WAIT_START, "f")    /* FIFO: `start` opens the other end */                                                     \
    X(REAPER, "")         /* stay as a small init, the child goes on */                                               \
    X(EXEC, "ll")         /* argv, environment */                                                                     \
    /* the root file system again; last, so that older numbers stay */                                                \
    X(BIND_TREE, "slsssssu") /* as ROOT_OVERLAY (upper and work may be ""), path below the merged tree, target, attr set */

#define WIRE_ENUM(name, signature) OP_##name,
enum { WIRE_OPERATIONS(WIRE_ENUM) OP_COUNT };

/* What pyrun-init says on the socket. One datagram each; REPORT_FD and REPORT_PID carry a descriptor (SCM_RIGHTS). */
enum {
    REPORT_SYNC = 1, /* value: the sync point; Python answers one byte when it is done */
    REPORT_ERROR,    /* error: errno; text: what failed, then the path, each ended by a NUL; then the head of a program */
    REPORT_TRACE,    /* nanoseconds: how long the step took */
    REPORT_PID,      /* value: pid of the process that goes on; with its pidfd */
    REPORT_FD,       /* text: "console", "netlink" or "seccomp" */
    REPORT_READY,    /* WAIT_START is about to wait */
    REPORT_EXEC,     /* execve comes next: after this, end of file means that it worked */
};

#define REPORT_TEXT 4608
struct report {
    uint32_t type, step;
    int32_t error;
    uint32_t value;
    uint64_t nanoseconds;
    char text[REPORT_TEXT]; /* only as much as is used is sent */
};
#define REPORT_HEAD 24 /* offsetof(struct report, text) */
#define STEP_NONE UINT32_MAX /* report.step: before the first step */

#endif
