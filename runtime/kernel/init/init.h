/* SPDX-License-Identifier: Apache-2.0
 * What pyrun-init's four source files share. */
#ifndef PYRUN_INIT_H
#define PYRUN_INIT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "wire.h"

/* One decoded argument. Strings point into the plan and end with a NUL. */
struct arg {
    uint64_t u;    /* u; for b and s the length; for l the count; for f the descriptor or -1 */
    char *s;       /* s, b */
    char **l;      /* l: ends with NULL */
};

/* What the steps leave for later steps. -1 where there is none yet. */
struct state {
    int root;              /* O_PATH of the container's root directory */
    int proc;              /* private procfs */
    uint32_t step;         /* index of the running step, for reports */
    bool trace;
    bool alone;            /* nobody is at the other end of the socket any more */
    char program[4097];    /* what EXEC runs */
};
extern struct state state;

/* Every step returns 0, or -1 with errno set after fail() noted what and where. */
typedef int step_fn(const struct arg *a);
#define WIRE_DECLARE(name, signature) step_fn step_##name;
WIRE_OPERATIONS(WIRE_DECLARE)

/* init.c */
int fail(const char *what, const char *path);           /* notes both, keeps errno, returns -1 */
void report(uint32_t type, uint32_t value, const char *text, size_t length, int fd);
int wait_for_go(void);

/* root.c: paths inside the container's root, never followed out of it */
int open_in_root(const char *path, uint64_t flags, uint64_t resolve);
int make_directory(const char *path, mode_t mode);       /* mkdir -p, returns O_PATH of the last */
int open_parent(const char *path, const char **name);    /* makes missing parents */
int make_target(const char *path, bool directory, mode_t mode, bool no_symlinks);
int attach_mount(int mount, int target, const char *path);

#endif
