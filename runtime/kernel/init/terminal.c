/* SPDX-License-Identifier: Apache-2.0
 * Standard input, output and error: descriptors from Python, or a pseudo-terminal of the container's own devpts. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int open_terminal(int *master)
{
    /* Not /dev/ptmx of the image: the container's devpts, checked to be one, and the other end through the master
     * itself, never through a name that can be a symbolic link (CVE-2025-52565). */
    struct statfs sf;
    int unlock = 0;
    *master = open_in_root("dev/pts/ptmx", O_RDWR | O_NOCTTY, RESOLVE_NO_SYMLINKS);
    if (*master < 0 && (errno == EPERM || errno == ENOSYS))
        /* In `exec` a filter older than openat2 may be in force; the root is ours there, so no path leads out. */
        *master = openat(state.root, "dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
    if (*master < 0)
        return fail("open", "/dev/pts/ptmx");
    if (fstatfs(*master, &sf) < 0 || sf.f_type != DEVPTS_SUPER_MAGIC) {
        errno = ENODEV;
        return fail("check that this is devpts", "/dev/pts/ptmx");
    }
    if (ioctl(*master, TIOCSPTLCK, &unlock) < 0)
        return fail("unlock terminal", "/dev/pts/ptmx");
    int slave = ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return slave < 0 ? fail("open terminal", "/dev/pts/ptmx") : slave;
}

int step_TERMINAL(const struct arg *a)
{
    int master, slave = open_terminal(&master);
    if (slave < 0)
        return -1;
    if (a[0].u || a[1].u) {
        struct winsize size = {.ws_row = (unsigned short)a[0].u, .ws_col = (unsigned short)a[1].u};
        if (ioctl(master, TIOCSWINSZ, &size) < 0)
            return fail("set window size", "");
    }
    if (fchown(slave, (uid_t)a[2].u, (gid_t)-1) < 0 && errno != EPERM)
        return fail("chown terminal", "");
    if (a[3].u) {
        int tree = open_tree(slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        if (tree < 0)
            return fail("open_tree", "/dev/console");
        int target = make_target("dev/console", false, 0, true);
        if (target < 0 || attach_mount(tree, target, "/dev/console") < 0)
            return -1;
    }
    report(REPORT_FD, 0, "console", 7, master);
    close(master);
    /* A session of its own, and this its controlling terminal. */
    setsid();
    if (ioctl(slave, TIOCSCTTY, 0) < 0)
        return fail("make controlling terminal", "");
    for (int fd = 0; fd < 3; fd++)
        if (dup2(slave, fd) < 0)
            return fail("dup2", "terminal");
    close(slave);
    return 0;
}

int step_STDIO(const struct arg *a)
{
    for (int fd = 0; fd < 3; fd++) {
        int from = (int)a[fd].u;
        if (from >= 0 && dup2(from, fd) < 0)
            return fail("dup2", "standard stream");
    }
    return 0;
}

int step_STDIO_OWNER(const struct arg *a)
{
    /* So that a program that is not root can open /dev/stdout. Never the null device, which everybody shares, nor
     * what a read-only or foreign file system refuses. */
    for (int fd = 0; fd < 3; fd++) {
        struct stat st;
        if (fstat(fd, &st) < 0 || st.st_uid == (uid_t)a[0].u)
            continue;
        if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3))
            continue;
        if (fchown(fd, (uid_t)a[0].u, (gid_t)-1) < 0 && errno != EPERM && errno != EINVAL && errno != EROFS)
            return fail("chown standard stream", "");
    }
    return 0;
}
