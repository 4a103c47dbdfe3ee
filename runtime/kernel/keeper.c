// SPDX-License-Identifier: Apache-2.0
// pyrun-keeper: holds a second copy of every fd that must outlive a monitor killed with SIGKILL.
//
// A name keeps its fds and a few bytes that say what they are (JSON; nothing here looks into it). The monitor starts
// this program with a listening SOCK_SEQPACKET socket as fd 3 and is its only client. One message is one command:
//
//     'P' u8 length, name, bytes, with fds    put: keep them under the name, instead of what it had; answers '+' or '-'
//     'D' u8 length, name                     drop the name and close its fds;                       answers '+'
//     'G'                                     get: one 'E' u8 length, name, bytes, with fds for each name, then '.'
//
// It ends when no monitor is connected and no name is left that counts; names that begin with a dot do not (what the
// monitor keeps for itself). It never reads or writes an fd that it holds. Static, so that it maps few pages.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { LISTENER = 3, MESSAGE = 32 * 1024, FDS = 253 /* SCM_MAX_FD */, CLIENTS = 8 };

struct entry {
    struct entry *next;
    size_t size;    // of data: length byte, name, bytes, as they came
    size_t fd_count;
    int *fds;
    unsigned char data[];
};

static struct entry *entries;
static unsigned char message[MESSAGE];
static union {
    struct cmsghdr align;
    char space[CMSG_SPACE(FDS * sizeof(int))];
} control;

static void close_all(const int *fds, size_t count) {
    for (size_t i = 0; i < count; i++) close(fds[i]);
}

static int same_name(const struct entry *entry, const unsigned char *name) {
    return entry->data[0] == name[0] && memcmp(entry->data + 1, name + 1, name[0]) == 0;
}

static void drop(const unsigned char *name) {
    for (struct entry **link = &entries; *link; link = &(*link)->next) {
        struct entry *entry = *link;
        if (!same_name(entry, name)) continue;
        *link = entry->next;
        close_all(entry->fds, entry->fd_count);
        free(entry->fds);
        free(entry);
        return;
    }
}

// Takes over the fds; returns 0, or -1 when there is no memory for them (then they are closed).
static int put(const unsigned char *data, size_t size, const int *fds, size_t fd_count) {
    struct entry *entry = malloc(sizeof *entry + size);
    int *copy = malloc((fd_count ? fd_count : 1) * sizeof *copy);
    if (!entry || !copy) {
        free(entry);
        free(copy);
        close_all(fds, fd_count);
        return -1;
    }
    memcpy(entry->data, data, size);
    memcpy(copy, fds, fd_count * sizeof *copy);
    entry->size = size;
    entry->fds = copy;
    entry->fd_count = fd_count;
    drop(data);
    entry->next = entries;
    entries = entry;
    return 0;
}

// A monitor that was killed does not hear the answer; what it had sent before must be carried out all the same, so
// that only the end of file ends a connection.
static void reply(int client, char answer) {
    if (send(client, &answer, 1, MSG_NOSIGNAL) < 0) errno = 0;
}

static int send_entry(int client, const struct entry *entry) {
    char kind = 'E';
    struct iovec parts[] = {{&kind, 1}, {(void *)(uintptr_t)entry->data, entry->size}};
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = 2};
    if (entry->fd_count) {
        header.msg_control = control.space;
        header.msg_controllen = CMSG_SPACE(entry->fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(entry->fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), entry->fds, entry->fd_count * sizeof(int));
    }
    return sendmsg(client, &header, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

// Carries out one command that is already in `message`; returns -1 when the client is to be disconnected.
static int obey(int client, size_t size, const int *fds, size_t fd_count, int truncated) {
    int named = size >= 2 && size >= 2u + message[1];
    if (message[0] != 'P' || !named || truncated) close_all(fds, fd_count);
    if (message[0] == 'P' && named) {
        reply(client, truncated || put(message + 1, size - 1, fds, fd_count) ? '-' : '+');
    } else if (message[0] == 'D' && named) {
        drop(message + 1);
        reply(client, '+');
    } else if (message[0] == 'G') {
        const struct entry *entry = entries;
        while (entry && send_entry(client, entry) == 0) entry = entry->next;
        reply(client, entry ? '-' : '.');
    } else {
        return -1;
    }
    return 1;
}

// Receives and obeys one message; 1: and there may be more, 0: there was none, -1: the connection is over.
static int serve(int client) {
    struct iovec part = {message, sizeof message};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    ssize_t size = recvmsg(client, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return 0;
    // ECONNRESET comes once, before what is still queued: the other side has not read our answers.
    if (size < 0) return errno == EINTR || errno == ECONNRESET ? 1 : -1;
    int fds[FDS];
    size_t fd_count = 0;
    for (struct cmsghdr *rights = CMSG_FIRSTHDR(&header); rights; rights = CMSG_NXTHDR(&header, rights)) {
        if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
        size_t bytes = rights->cmsg_len - CMSG_LEN(0);
        memcpy(fds + fd_count, CMSG_DATA(rights), bytes);
        fd_count += bytes / sizeof(int);
    }
    if (size == 0) return -1;  // end of file
    // A cut-off message (too long, or no room for its fds) must not be kept as if it were whole.
    return obey(client, (size_t)size, fds, fd_count, header.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
}

// A connection from another user (possible only if the directory's mode was changed) is closed at once.
static int admit(void) {
    int client = accept4(LISTENER, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) return -1;
    struct ucred peer;
    socklen_t length = sizeof peer;
    struct timeval patience = {.tv_sec = 5};  // for a monitor that is stopped while it is being answered
    if (getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 || peer.uid != geteuid() ||
        setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0) {
        close(client);
        return -1;
    }
    return client;
}

static int holds_something(void) {
    for (const struct entry *entry = entries; entry; entry = entry->next)
        if (entry->data[0] == 0 || entry->data[1] != '.') return 1;
    return 0;
}

static void prepare(void) {
    close_range(LISTENER + 1, ~0U, 0);  // whatever the monitor inherited from whoever started it
    prctl(PR_SET_NAME, "pyrun-keeper");
    prctl(PR_SET_DUMPABLE, 0);  // nobody of the same uid takes the fds by ptrace or pidfd_getfd
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int adjustment = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (adjustment >= 0) {  // without CAP_SYS_RESOURCE this fails, and the keeper is as likely a victim as any
        if (write(adjustment, "-900", 4) < 0) errno = 0;
        close(adjustment);
    }
    if (fcntl(LISTENER, F_SETFD, FD_CLOEXEC) < 0 || fcntl(LISTENER, F_SETFL, O_NONBLOCK) < 0) _exit(1);
}

int main(void) {
    prepare();
    struct pollfd polled[1 + CLIENTS] = {{.fd = LISTENER, .events = POLLIN}};
    nfds_t count = 1;
    int met = 0;  // a monitor has been here: before the first one, having nothing is no reason to go
    while (count > 1 || !met || holds_something()) {
        polled[0].events = count <= CLIENTS ? POLLIN : 0;
        if (poll(polled, count, -1) < 0) {
            if (errno == EINTR) continue;
            return 1;
        }
        // Oldest first, and to the last message: what a killed monitor had sent comes before what its successor asks.
        nfds_t kept = 1;
        for (nfds_t i = 1; i < count; i++) {
            int more;
            while ((more = serve(polled[i].fd)) > 0) continue;
            if (more == 0) polled[kept++] = polled[i];
            else close(polled[i].fd);
        }
        count = kept;
        if (!(polled[0].revents & POLLIN)) continue;
        int client = admit();
        if (client < 0) continue;
        polled[count++] = (struct pollfd){.fd = client, .events = POLLIN};
        met = 1;
    }
    return 0;
}
