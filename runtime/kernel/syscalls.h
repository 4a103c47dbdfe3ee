/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PYRUN_SYSCALLS_H
#define PYRUN_SYSCALLS_H

#include <stdint.h>
#include <sys/types.h>

#define PYRUN_SPAWN_MAX_FDS 64

/* What pyrun_spawn() starts. fds[0] is the socket, fds[1] the plan, the rest the plan's own (init/wire.h). */
struct pyrun_spawn {
    uint64_t flags; /* CLONE_NEW*, CLONE_PARENT */
    int cgroup;     /* directory of the cgroup to be born in, or -1 */
    int program;    /* sealed memfd of pyrun-init */
    int count;
    int fds[PYRUN_SPAWN_MAX_FDS];
    int pidfd; /* out */
};

/* One new object that pyrun_make_objects() makes. Offsets are into `text`, where strings end with NUL. */
struct pyrun_object {
    uint32_t kind; /* S_IFREG, S_IFDIR or S_IFLNK */
    uint32_t mode; /* permission bits; a directory gets 0700, and its metadata from the caller at the end */
    uint32_t uid, gid;
    int64_t seconds; /* modification time */
    uint32_t nanoseconds;
    uint32_t parent; /* path of its directory below the root, "" for the root */
    uint32_t name;
    uint32_t length; /* of a file's content */
    uint64_t data;   /* a file: where its content is in `data`; a symlink: its target in `text` */
};

int pyrun_make_objects(int root, const struct pyrun_object *objects, int first, int count, const char *text,
                       const char *data);
int pyrun_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
int pyrun_syncfs(int fd);
int pyrun_start_writeback(int fd, int64_t offset, int64_t count);
int pyrun_spawn(struct pyrun_spawn *s);
int pyrun_pidfd_exit_status(int pidfd, int *status);
int pyrun_pidfd_getfd(int pidfd, int fd);
int pyrun_wait_pidfd(int pidfd, int options, int *status);
int pyrun_setns(int fd, int flags);
int pyrun_unshare(int flags);
int pyrun_set_dumpable(int value);
ssize_t pyrun_tee(int from, int to, size_t n, unsigned flags);
ssize_t pyrun_splice(int from, int to, size_t n, unsigned flags);
int pyrun_open_tree(int dirfd, const char *path, unsigned flags);
int pyrun_move_mount(int from, int to);
int pyrun_bpf_prog_load_cgroup_device(const void *instructions, uint32_t count, char *log, uint32_t log_size);
int pyrun_bpf_prog_attach(int cgroup, int program, uint32_t flags, int replaced);
int pyrun_bpf_prog_detach(int cgroup, int program);
int pyrun_bpf_prog_query(int cgroup, uint32_t *ids, uint32_t size);
int pyrun_bpf_prog_get_fd_by_id(uint32_t id);
int pyrun_wire_count(void);
const char *pyrun_wire_name(int operation);
const char *pyrun_wire_signature(int operation);

#endif
