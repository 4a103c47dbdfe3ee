/* SPDX-License-Identifier: Apache-2.0
 *
 * pyrun-init: executes a plan in the container's namespaces, then becomes the user's program.
 *
 * It is the only code of pyrun's that ever runs inside. It is static, started from a sealed memfd (so a container
 * cannot write to it through /proc/self/exe, CVE-2019-5736), not dumpable (CVE-2016-9962), and holds no descriptor but
 * those of the plan (CVE-2024-21626). It reads nothing from the container's files except what a step asks for.
 *
 * init.c     the decoder, the step loop, reports
 * root.c     paths and mounts inside the root
 * process.c  namespaces, ids, capabilities, limits, exec
 * terminal.c the pseudo-terminal and stdio
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct state state = {.root = -1, .proc = -1, .step = STEP_NONE};

static const char *failed_what = "", *failed_path = "";
static char failed_path_copy[4096];

static step_fn *const steps[] = {
#define WIRE_ENTRY(name, signature) [OP_##name] = step_##name,
    WIRE_OPERATIONS(WIRE_ENTRY)};

static const char *const signatures[] = {
#define WIRE_SIGNATURE(name, signature) [OP_##name] = signature,
    WIRE_OPERATIONS(WIRE_SIGNATURE)};

int fail(const char *what, const char *path)
{
    int saved = errno;
    failed_what = what;
    if (path != failed_path_copy) { /* the caller's buffer may be gone by the time it is reported */
        size_t n = strnlen(path, sizeof failed_path_copy - 1);
        memcpy(failed_path_copy, path, n);
        failed_path_copy[n] = 0;
    }
    failed_path = failed_path_copy;
    errno = saved;
    return -1;
}

/* After WAIT_START nobody listens any more: `create` has exited. What still fails is said where the program's own
 * errors would be. */
static void say(const struct report *r)
{
    if (r->type != REPORT_ERROR)
        return;
    const char *what = r->text, *path = what + strlen(what) + 1, *reason = strerrordesc_np(r->error);
    dprintf(STDERR_FILENO, "pyrun: %s %s: %s\n", what, path, reason ? reason : "unknown error");
}

static void send_report(struct report *r, size_t text_length, int fd)
{
    if (state.alone) {
        say(r);
        return;
    }
    struct iovec data = {r, REPORT_HEAD + text_length};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t sent;
    do
        sent = sendmsg(SYNC_FD, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    /* Python is gone: what it wanted started must not start. */
    if (sent < 0)
        _exit(125);
}

void report(uint32_t type, uint32_t value, const char *text, size_t length, int fd)
{
    static struct report r;
    r = (struct report){.type = type, .step = state.step, .value = value};
    memcpy(r.text, text, length < sizeof r.text ? length : sizeof r.text);
    send_report(&r, length < sizeof r.text ? length : sizeof r.text, fd);
}

int wait_for_go(void)
{
    char go;
    ssize_t n;
    do
        n = recv(SYNC_FD, &go, 1, 0);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        _exit(125); /* Python died or gave up: it does the cleaning */
    return n < 0 ? fail("recv", "sync socket") : 0;
}

/* The head of a program that the kernel would not run: Python tells a CRLF shebang, a missing loader or a wrong
 * machine from it. A regular file only: opening anything else could block or act. */
static size_t program_head(char *out, size_t size)
{
    struct stat st;
    int fd = open(state.program, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read(fd, out, size) : 0;
    close(fd);
    return n > 0 ? (size_t)n : 0;
}

static void report_error(uint32_t operation)
{
    static struct report r;
    r = (struct report){.type = REPORT_ERROR, .step = state.step, .error = errno};
    size_t used = 0;
    for (int i = 0; i < 2; i++) {
        const char *text = i == 0 ? failed_what : failed_path;
        size_t n = strnlen(text, 1700);
        memcpy(r.text + used, text, n);
        used += n;
        r.text[used++] = 0;
    }
    if (operation == OP_EXEC && state.program[0])
        used += program_head(r.text + used, 1024);
    send_report(&r, used, -1);
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

struct cursor {
    char *at, *end;
};

static bool take(struct cursor *c, void *into, size_t n)
{
    if ((size_t)(c->end - c->at) < n)
        return false;
    memcpy(into, c->at, n);
    c->at += n;
    return true;
}

static bool take_bytes(struct cursor *c, char **into, uint64_t *length, bool text)
{
    uint32_t n;
    if (!take(c, &n, sizeof n) || (size_t)(c->end - c->at) < (size_t)n + 1 || c->at[n] != 0)
        return false;
    if (text && strnlen(c->at, n) != n)
        return false;
    *into = c->at;
    *length = n;
    c->at += (size_t)n + 1;
    return true;
}

/* The lists of the step being decoded. Only EXEC has two; its lists are the command line and the environment. */
static char *list_storage[65536];
static size_t list_used;

static bool take_list(struct cursor *c, struct arg *a)
{
    uint32_t n;
    if (!take(c, &n, sizeof n) || n >= sizeof list_storage / sizeof *list_storage - list_used)
        return false;
    a->l = list_storage + list_used;
    a->u = n;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t ignored;
        if (!take_bytes(c, &a->l[i], &ignored, true))
            return false;
    }
    a->l[n] = NULL;
    list_used += (size_t)n + 1;
    return true;
}

static bool decode(struct cursor *c, const char *signature, struct arg *args, uint32_t fds)
{
    list_used = 0;
    for (size_t i = 0; signature[i]; i++) {
        struct arg *a = &args[i];
        bool ok = false;
        switch (signature[i]) {
        case 'u': ok = take(c, &a->u, sizeof a->u); break;
        case 's': ok = take_bytes(c, &a->s, &a->u, true); break;
        case 'b': ok = take_bytes(c, &a->s, &a->u, false); break;
        case 'l': ok = take_list(c, a); break;
        case 'f':
            ok = take(c, &a->u, sizeof a->u) && (a->u == NO_FD || a->u < fds);
            a->u = a->u == NO_FD ? (uint64_t)-1 : a->u + FIRST_FD;
            break;
        }
        if (!ok)
            return false;
    }
    return c->at == c->end;
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int run_record(struct cursor *plan, const struct plan_header *header)
{
    struct {
        uint16_t operation, zero;
        uint32_t length;
    } head;
    struct arg args[WIRE_MAX_ARGS] = {0};
    if (!take(plan, &head, sizeof head) || head.operation >= OP_COUNT || (size_t)(plan->end - plan->at) < head.length) {
        errno = EBADMSG;
        fail("decode plan", "record");
        report_error(OP_COUNT);
        return -1;
    }
    struct cursor body = {plan->at, plan->at + head.length};
    plan->at = body.end;
    uint64_t started = state.trace ? now() : 0;
    failed_what = failed_path = "";
    if (!decode(&body, signatures[head.operation], args, header->fds)) {
        errno = EBADMSG;
        fail("decode plan", "arguments");
    } else if (steps[head.operation](args) == 0) {
        if (state.trace) {
            struct report r = {.type = REPORT_TRACE, .step = state.step, .nanoseconds = now() - started};
            send_report(&r, 0, -1);
        }
        return 0;
    }
    report_error(head.operation);
    return -1;
}

/* A process started by Python has SIGPIPE and SIGXFSZ ignored, and whatever else its caller ignored or blocked. */
static void reset_signals(void)
{
    for (int s = 1; s < _NSIG; s++)
        signal(s, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

#ifndef PYRUN_FUZZ
static
#endif
int run_plan(char *bytes, size_t size)
{
    struct cursor plan = {bytes, bytes + size};
    struct plan_header header;
    if (!take(&plan, &header, sizeof header) || header.magic != WIRE_MAGIC || header.version != WIRE_VERSION) {
        errno = EBADMSG;
        fail("decode plan", "header");
        report_error(OP_COUNT);
        return 125;
    }
    state.trace = header.flags & PLAN_TRACE;
    for (uint32_t i = 0; i < header.count; i++) {
        state.step = i;
        if (run_record(&plan, &header) < 0)
            return 125;
    }
    return 125; /* EXEC does not return: a plan without one is a mistake */
}

#ifndef PYRUN_FUZZ
int main(void)
{
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_NAME, "pyrun-init");
    reset_signals();
    fcntl(SYNC_FD, F_SETFD, FD_CLOEXEC);
    struct stat st;
    if (fstat(PLAN_FD, &st) < 0 || st.st_size <= 0)
        return 125;
    char *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, PLAN_FD, 0);
    if (bytes == MAP_FAILED)
        return 125;
    close(PLAN_FD);
    /* Everything from here on closes at execve: what the program may keep is put on 0, 1, 2 by STDIO or inherited. */
    if (close_range(SYNC_FD, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        return 125;
    return run_plan(bytes, (size_t)st.st_size);
}
#endif
