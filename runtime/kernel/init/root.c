/* SPDX-License-Identifier: Apache-2.0
 *
 * The root file system. No path of the container is trusted: every path is resolved from the root's descriptor with
 * openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), what is missing is made component by component with mkdirat and
 * mknodat (never O_CREAT, CVE-2024-45310), and mounts are attached to descriptors, not to names (CVE-2021-30465).
 * All of it happens before pivot_root, while the host's files can still be opened as bind sources.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef MOUNT_ATTR_RDONLY
#include <linux/mount.h>
#endif

#define IN_ROOT (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
#define DETACHED (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)

static int openat2_(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
    int fd;
    do /* EAGAIN: a rename raced with the walk of "..", see openat2(2) */
        fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
    while (fd < 0 && (errno == EAGAIN || errno == EINTR));
    return fd;
}

int open_in_root(const char *path, uint64_t flags, uint64_t resolve)
{
    return openat2_(state.root, path, flags, IN_ROOT | resolve);
}

static int make_directory_at(const char *path, mode_t mode, int links);

/* A symbolic link that leads to nothing yet: makes the directory that it names, inside the root like all others. */
static int make_link_target(int parent, const char *name, const char *prefix, mode_t mode, int links)
{
    char target[2048], joined[4096];
    ssize_t n = readlinkat(parent, name, target, sizeof target - 1);
    if (n < 0)
        return -1;
    target[n] = 0;
    if (links == 0) {
        errno = ELOOP;
        return -1;
    }
    int length = target[0] == '/' ? snprintf(joined, sizeof joined, "%s", target)
                                  : snprintf(joined, sizeof joined, "%.*s%s", (int)(name - prefix), prefix, target);
    if (length < 0 || (size_t)length >= sizeof joined) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return make_directory_at(joined, mode, links - 1);
}

static int make_component(int parent, const char *prefix, const char *name, mode_t mode, int links)
{
    int fd = open_in_root(prefix, O_PATH | O_DIRECTORY, 0);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    if (mkdirat(parent, name, mode) < 0 && errno != EEXIST)
        return -1;
    fd = openat2_(parent, name, O_PATH | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
    return fd < 0 && errno == ELOOP ? make_link_target(parent, name, prefix, mode, links) : fd;
}

static int make_directory_at(const char *path, mode_t mode, int links)
{
    char prefix[4096];
    size_t length = strlen(path), at = 0;
    if (length >= sizeof prefix) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int parent = open_in_root("/", O_PATH | O_DIRECTORY, 0);
    while (parent >= 0 && at < length) {
        while (path[at] == '/')
            at++;
        size_t start = at;
        while (at < length && path[at] != '/')
            at++;
        if (at == start)
            break;
        memcpy(prefix, path, at);
        prefix[at] = 0;
        int next = make_component(parent, prefix, prefix + start, mode, links);
        int saved = errno;
        close(parent);
        errno = saved;
        parent = next;
    }
    return parent;
}

/* Opens the directory `path` in the root, making what is missing with `mode`. Symbolic links are followed inside the
 * root; new components are made below a descriptor and opened without following anything. */
int make_directory(const char *path, mode_t mode)
{
    int fd = open_in_root(path, O_PATH | O_DIRECTORY, 0);
    if (fd < 0 && errno == ENOENT)
        fd = make_directory_at(path, mode, 40); /* as many links as the kernel follows, path_resolution(7) */
    return fd < 0 ? fail("make directory", path) : fd;
}

int open_parent(const char *path, const char **name)
{
    char directory[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    *name = slash ? slash + 1 : path;
    if (n >= sizeof directory || !**name || !strcmp(*name, "..") || !strcmp(*name, ".")) {
        errno = EINVAL;
        return fail("open parent directory", path);
    }
    memcpy(directory, path, n);
    directory[n] = 0;
    return make_directory(n ? directory : "/", 0755);
}

/* The place where a mount goes: an existing one of the right kind, or a new directory or empty file. */
int make_target(const char *path, bool directory, mode_t mode, bool no_symlinks)
{
    uint64_t resolve = no_symlinks ? RESOLVE_NO_SYMLINKS : 0;
    int fd = open_in_root(path, O_PATH | (directory ? O_DIRECTORY : 0), resolve);
    if (fd >= 0 || errno != ENOENT)
        return fd < 0 ? fail("open mount point", path) : fd;
    if (directory)
        return make_directory(path, mode);
    const char *name;
    int parent = open_parent(path, &name);
    if (parent < 0)
        return -1;
    if (mknodat(parent, name, S_IFREG | 0644, 0) == 0 || errno == EEXIST)
        fd = openat2_(parent, name, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
    int saved = errno;
    close(parent);
    errno = saved;
    return fd < 0 ? fail("make mount point", path) : fd;
}

/* Moves a detached mount onto an open target and closes both. */
int attach_mount(int mount, int target, const char *path)
{
    int rc = move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    int saved = errno;
    close(mount);
    close(target);
    errno = saved;
    return rc < 0 ? fail("move_mount", path) : 0;
}

static int set_attributes(int fd, bool recursive, uint64_t set, uint64_t clear, uint64_t propagation, const char *path)
{
    /* mount_setattr(2), kernel 5.12. An atime mode can be set only when the whole atime field is cleared first. */
    if (set & MOUNT_ATTR__ATIME || clear & MOUNT_ATTR__ATIME)
        clear |= MOUNT_ATTR__ATIME;
    struct mount_attr attr = {.attr_set = set, .attr_clr = clear, .propagation = propagation};
    if (!set && !clear && !propagation)
        return 0;
    if (mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr, sizeof attr) < 0)
        return fail("mount_setattr", path);
    return 0;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

int step_PROC_HANDLE(const struct arg *a)
{
    (void)a;
    int fs = fsopen("proc", FSOPEN_CLOEXEC), fd = -1;
    if (fs >= 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        fd = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (fs >= 0)
        close(fs);
    if (fd < 0) { /* a nested user namespace may not mount procfs: then the host's, checked to be one */
        struct statfs sf;
        fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && (fstatfs(fd, &sf) < 0 || sf.f_type != PROC_SUPER_MAGIC)) {
            close(fd);
            errno = ENOTSUP;
            return fail("open a private procfs", "/proc");
        }
    }
    state.proc = fd;
    return fd < 0 ? fail("open a private procfs", "/proc") : 0;
}

int step_PROPAGATION(const struct arg *a)
{
    return mount(NULL, a[0].s, NULL, (unsigned long)a[1].u, NULL) < 0 ? fail("change propagation", a[0].s) : 0;
}

int step_PARENT_PRIVATE(const struct arg *a)
{
    /* pivot_root(2) refuses a root whose parent mount is shared, and what is mounted there would show on the host.
     * Only a mount point takes a propagation type, so go up until there is one. */
    char path[4096];
    if (a[0].u >= sizeof path) {
        errno = ENAMETOOLONG;
        return fail("make private", a[0].s);
    }
    memcpy(path, a[0].s, a[0].u + 1);
    while (mount(NULL, path, NULL, MS_PRIVATE, NULL) < 0) {
        char *slash = strrchr(path, '/');
        if (errno != EINVAL || !slash || !path[1])
            return fail("make private", path);
        slash[slash == path] = 0; /* "/a" becomes "/" */
    }
    return 0;
}

int step_ROOT_BIND(const struct arg *a)
{
    /* pivot_root wants a mount point, and a root that is one can be made read-only alone. */
    int tree = open_tree(AT_FDCWD, a[0].s, DETACHED | (a[1].u ? AT_RECURSIVE : 0));
    int target = open(a[0].s, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (tree < 0 || target < 0)
        return fail("open root file system", a[0].s);
    state.root = dup(tree);
    if (state.root < 0)
        return fail("dup", a[0].s);
    fcntl(state.root, F_SETFD, FD_CLOEXEC);
    return attach_mount(tree, target, a[0].s);
}

static int overlay_fds[256];
static size_t overlay_count;

/* Opens a directory for an option of the overlay and appends /proc/self/fd/N. */
static int append_directory(char *data, size_t size, size_t *used, const char *before, const char *path)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail("open overlay directory", path);
    int n = snprintf(data + *used, size - *used, "%s/proc/self/fd/%d", before, fd);
    if (n < 0 || (size_t)n >= size - *used || overlay_count == sizeof overlay_fds / sizeof *overlay_fds) {
        errno = E2BIG;
        return fail("mount overlay: too many layers", path);
    }
    *used += (size_t)n;
    overlay_fds[overlay_count++] = fd;
    return 0;
}

static int mount_overlay(const struct arg *a)
{
    /* Directories by /proc/self/fd: mount(2) takes one page of options, and 127 paths of layers do not fit in it. */
    static char data[4096];
    size_t used = 0;
    for (uint64_t i = 0; i < a[1].u; i++)
        if (append_directory(data, sizeof data, &used, i ? ":" : "lowerdir=", a[1].l[i]) < 0)
            return -1;
    if (a[2].u && (append_directory(data, sizeof data, &used, ",upperdir=", a[2].s) < 0 ||
                   append_directory(data, sizeof data, &used, ",workdir=", a[3].s) < 0))
        return -1;
    if (a[4].u) {
        int n = snprintf(data + used, sizeof data - used, ",%s", a[4].s);
        if (n < 0 || (size_t)n >= sizeof data - used) {
            errno = E2BIG;
            return fail("mount overlay: too many options", a[0].s);
        }
    }
    if (mount("overlay", a[0].s, "overlay", 0, data) < 0)
        return fail("mount overlay", a[0].s);
    /* They are the host's directories: not one step longer than needed (CVE-2024-21626). */
    while (overlay_count > 0)
        close(overlay_fds[--overlay_count]);
    return 0;
}

int step_ROOT_OVERLAY(const struct arg *a)
{
    if (mount_overlay(a) < 0)
        return -1;
    state.root = open(a[0].s, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return state.root < 0 ? fail("open root file system", a[0].s) : 0;
}

int step_ROOT_HERE(const struct arg *a)
{
    (void)a;
    state.root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return state.root < 0 ? fail("open root file system", "/") : 0;
}

static int configure(int fs, char *data, const char *target)
{
    for (char *option = data; option && *option;) {
        char *next = strchr(option, ',');
        if (next)
            *next++ = 0;
        char *value = strchr(option, '=');
        if (value)
            *value++ = 0;
        int rc = value ? fsconfig(fs, FSCONFIG_SET_STRING, option, value, 0)
                       : fsconfig(fs, FSCONFIG_SET_FLAG, option, NULL, 0);
        if (rc < 0)
            return fail("set mount option", option);
        option = next;
    }
    return fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ? fail("create file system", target) : 0;
}

int step_MOUNT(const struct arg *a)
{
    /* /proc and /sys must be what they say: through a symbolic link, later writes would land in a file of the
     * image (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642). */
    bool kernel_fs = !strcmp(a[0].s, "proc") || !strcmp(a[0].s, "sysfs");
    int fs = fsopen(a[0].s, FSOPEN_CLOEXEC);
    if (fs < 0)
        return fail("fsopen", a[0].s);
    if (a[1].u && fsconfig(fs, FSCONFIG_SET_STRING, "source", a[1].s, 0) < 0)
        return fail("set mount source", a[1].s);
    if (configure(fs, a[4].s, a[2].s) < 0)
        return -1;
    int mount = fsmount(fs, FSMOUNT_CLOEXEC, (unsigned)a[3].u);
    if (mount < 0)
        return fail("fsmount", a[2].s);
    close(fs);
    int target = make_target(a[2].s, true, (mode_t)a[5].u, kernel_fs);
    return target < 0 ? -1 : attach_mount(mount, target, a[2].s);
}

int step_BIND(const struct arg *a)
{
    int tree = open_tree(AT_FDCWD, a[0].s, DETACHED | (a[2].u ? AT_RECURSIVE : 0));
    struct stat st;
    if (tree < 0 || fstat(tree, &st) < 0)
        return fail("open bind source", a[0].s);
    if (set_attributes(tree, false, a[3].u, a[4].u, 0, a[1].s) < 0 ||
        set_attributes(tree, true, a[5].u, a[6].u, 0, a[1].s) < 0)
        return -1;
    int target = make_target(a[1].s, S_ISDIR(st.st_mode), 0755, false);
    if (target < 0)
        return -1;
    int keep = dup(tree);
    if (attach_mount(tree, target, a[1].s) < 0)
        return -1;
    int rc = 0;
    if (a[7].u) /* propagation: set when attached, since a detached tree has no peers to belong to */
        rc = set_attributes(keep, a[7].u & MS_REC, 0, 0, a[7].u & ~(uint64_t)MS_REC, a[1].s);
    close(keep);
    return rc;
}

int step_BIND_TREE(const struct arg *a)
{
    /* Something out of a tree that others filled: its path is resolved here, inside the tree and by descriptor, so that
     * no link in it leads to the host's files (CVE-2024-1753, CVE-2024-23651, CVE-2024-23653). More than one directory,
     * or changes that are thrown away, take an overlay; it is mounted where nobody looks, and only the copy that goes
     * to the target stays. */
    bool overlay = a[1].u > 1 || a[2].u;
    if (a[1].u == 0) {
        errno = EINVAL;
        return fail("bind from a tree without directories", a[6].s);
    }
    if (overlay && mount_overlay(a) < 0)
        return -1;
    const char *top = overlay ? a[0].s : a[1].l[0];
    int root = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail("open tree", top);
    struct stat st;
    int found = openat2_(root, a[5].s, O_PATH, IN_ROOT);
    if (found < 0 || fstat(found, &st) < 0)
        return fail("open bind source", a[5].s);
    /* What the host has mounted below a single directory belongs to it. */
    int tree = open_tree(found, "", DETACHED | AT_EMPTY_PATH | (overlay ? 0 : AT_RECURSIVE));
    close(found);
    close(root);
    if (tree < 0)
        return fail("open_tree", a[5].s);
    if (overlay && umount2(a[0].s, MNT_DETACH) < 0)
        return fail("unmount", a[0].s);
    if (set_attributes(tree, true, a[7].u, 0, 0, a[6].s) < 0)
        return -1;
    int target = make_target(a[6].s, S_ISDIR(st.st_mode), 0755, false);
    return target < 0 ? -1 : attach_mount(tree, target, a[6].s);
}

int step_MOUNT_PROPAGATION(const struct arg *a)
{
    int fd = open_in_root(a[0].s, O_PATH, 0);
    if (fd < 0)
        return fail("open mount point", a[0].s);
    int rc = set_attributes(fd, a[1].u & MS_REC, 0, 0, a[1].u & ~(uint64_t)MS_REC, a[0].s);
    close(fd);
    return rc;
}

int step_MKDIR(const struct arg *a)
{
    int known = open_in_root(a[0].s, O_PATH | O_DIRECTORY, 0);
    if (known >= 0) {
        close(known);
        return 0;
    }
    int fd = make_directory(a[0].s, (mode_t)a[1].u);
    if (fd < 0)
        return -1;
    int rc = fchownat(fd, "", (uid_t)a[2].u, (gid_t)a[3].u, AT_EMPTY_PATH);
    close(fd);
    return rc < 0 ? fail("chown", a[0].s) : 0;
}

int step_SYMLINK(const struct arg *a)
{
    const char *name;
    int parent = open_parent(a[1].s, &name);
    if (parent < 0)
        return -1;
    if (symlinkat(a[0].s, parent, name) < 0 && errno != EEXIST)
        return fail("symlink", a[1].s);
    close(parent);
    return 0;
}

int step_MKNOD(const struct arg *a)
{
    const char *name;
    int parent = open_parent(a[0].s, &name);
    if (parent < 0)
        return -1;
    mode_t mode = (mode_t)a[1].u;
    if (mknodat(parent, name, mode, (dev_t)a[2].u) < 0 && errno != EEXIST)
        return fail("mknod", a[0].s);
    /* What is there must be the device that was asked for, not a stand-in of the image or of who shares the root with
     * us. O_PATH, since opening a device acts; owner and mode by that descriptor, since a name can become a symbolic
     * link meanwhile, and fchmodat(2) would follow it to a file of the host's. */
    int fd = openat2_(parent, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH);
    struct stat st;
    char self[64];
    if (fd < 0 || fstat(fd, &st) < 0 || (st.st_mode & S_IFMT) != (mode & S_IFMT) || st.st_rdev != (dev_t)a[2].u) {
        errno = EEXIST;
        return fail("mknod", a[0].s);
    }
    snprintf(self, sizeof self, "self/fd/%d", fd);
    if (fchownat(fd, "", (uid_t)a[3].u, (gid_t)a[4].u, AT_EMPTY_PATH) < 0 ||
        fchmodat(state.proc, self, mode & 07777, 0) < 0)
        return fail("set owner and mode", a[0].s);
    close(fd);
    close(parent);
    return 0;
}

static int empty_directory(void)
{
    int fs = fsopen("tmpfs", FSOPEN_CLOEXEC), fd = -1;
    if (fs >= 0 && fsconfig(fs, FSCONFIG_SET_STRING, "size", "0", 0) == 0 &&
        fsconfig(fs, FSCONFIG_SET_STRING, "nr_inodes", "2", 0) == 0 &&
        fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        fd = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (fs >= 0)
        close(fs);
    return fd;
}

int step_MASK(const struct arg *a)
{
    int target = open_in_root(a[0].s, O_PATH, 0), mount;
    struct stat st;
    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : fail("open", a[0].s);
    if (fstat(target, &st) < 0)
        return fail("stat", a[0].s);
    if (S_ISDIR(st.st_mode)) {
        mount = empty_directory();
    } else {
        /* The host's /dev/null, checked after opening: the container's could be anything (CVE-2025-31133). Read-only,
         * so that a chmod inside does not change the host's. */
        mount = open_tree(AT_FDCWD, "/dev/null", DETACHED);
        if (mount >= 0 && (fstat(mount, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))) {
            errno = ENODEV;
            return fail("check that /dev/null is the null device", "/dev/null");
        }
        if (mount >= 0 && set_attributes(mount, false, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC, 0, 0, a[0].s) < 0)
            return -1;
    }
    return mount < 0 ? fail("mask", a[0].s) : attach_mount(mount, target, a[0].s);
}

int step_READONLY(const struct arg *a)
{
    int target = open_in_root(a[0].s, O_PATH, 0);
    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : fail("open", a[0].s);
    int tree = open_tree(target, "", DETACHED | AT_EMPTY_PATH | AT_RECURSIVE);
    if (tree < 0)
        return fail("open_tree", a[0].s);
    if (set_attributes(tree, true, MOUNT_ATTR_RDONLY, 0, 0, a[0].s) < 0)
        return -1;
    return attach_mount(tree, target, a[0].s);
}

int step_ROOT_READONLY(const struct arg *a)
{
    (void)a;
    return set_attributes(state.root, false, MOUNT_ATTR_RDONLY, 0, 0, "/");
}

int step_PIVOT_ROOT(const struct arg *a)
{
    (void)a;
    /* pivot_root(".", "."): the old root ends up mounted over the new one and is detached from there, so nothing has
     * to be made in the image for it (pivot_root(2), NOTES). */
    int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (old < 0 || fchdir(state.root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
        return fail("pivot_root", "/");
    /* Private first: the unmount must not travel back to the host. */
    if (fchdir(old) < 0 || mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) < 0 || umount2(".", MNT_DETACH) < 0)
        return fail("unmount the old root", "/");
    close(old);
    return chdir("/") < 0 ? fail("chdir", "/") : 0;
}

static int write_proc(const char *below, const char *path, const char *value)
{
    char full[512];
    int n = snprintf(full, sizeof full, "%s%s", below, path);
    if (n < 0 || (size_t)n >= sizeof full) {
        errno = ENAMETOOLONG;
        return fail("write", path);
    }
    int fd = openat2_(state.proc, full, O_WRONLY, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
    if (fd < 0)
        return fail("open", full);
    size_t length = strlen(value);
    ssize_t done = write(fd, value, length);
    int saved = errno;
    close(fd);
    errno = saved;
    return done != (ssize_t)length ? fail("write", full) : 0;
}

int step_SYSCTL(const struct arg *a)
{
    return write_proc("sys/", a[0].s, a[1].s);
}

int step_PROC_WRITE(const struct arg *a)
{
    return write_proc("", a[0].s, a[1].s);
}

int step_TIME_OFFSETS(const struct arg *a)
{
    return write_proc("", "self/timens_offsets", a[0].s);
}
