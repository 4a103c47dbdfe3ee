/* SPDX-License-Identifier: Apache-2.0
 *
 * libFuzzer's harness of pyrun-init's plan decoder: init.c as it is (with PYRUN_FUZZ: no main), and steps that execute
 * nothing but touch every byte that the decoder says is theirs, so that the sanitizers see a wrong length or pointer.
 * Some steps fail, by what the input says, so that the reporting of errors is reached too.
 *
 * With clang: -fsanitize=fuzzer, which follows the coverage. Elsewhere -DSTANDALONE: a plain loop of mutations,
 * `fuzz_plan SECONDS SEED FILE…`, for machines that have gcc only.
 */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int run_plan(char *bytes, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned char sink;

static void touch(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        sink ^= (unsigned char)bytes[i];
}

static void drain(void);

static int use(const char *signature, const struct arg *a)
{
    drain();
    uint64_t sum = 0;
    for (size_t i = 0; signature[i]; i++) {
        switch (signature[i]) {
        case 's':
            if (strlen(a[i].s) != a[i].u)
                abort(); /* a string has no NUL but its last */
            touch(a[i].s, a[i].u + 1);
            break;
        case 'b':
            if (a[i].s[a[i].u] != 0)
                abort();
            touch(a[i].s, a[i].u + 1);
            break;
        case 'l':
            for (uint64_t n = 0; n < a[i].u; n++)
                touch(a[i].l[n], strlen(a[i].l[n]) + 1);
            if (a[i].l[a[i].u] != NULL)
                abort();
            break;
        case 'f':
            if (a[i].u != (uint64_t)-1 && (a[i].u < FIRST_FD || a[i].u - FIRST_FD >= UINT32_MAX))
                abort();
            break;
        default: sum += a[i].u;
        }
    }
    if (sum % 7 != 3)
        return 0;
    errno = (int)(sum % 133);
    return fail(signature, signature[0] == 's' ? a[0].s : "");
}

#define STUB(name, signature) \
    int step_##name(const struct arg *a) { return use(signature, a); }
WIRE_OPERATIONS(STUB)

static int reader = -1; /* the other end of SYNC_FD */

static void drain(void)
{
    static struct report r;
    ssize_t n;
    while ((n = recv(reader, &r, sizeof r, MSG_DONTWAIT | MSG_TRUNC)) > 0)
        if ((size_t)n < REPORT_HEAD || (size_t)n > sizeof r)
            abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) < 0)
        abort();
    reader = fcntl(ends[1], F_DUPFD, 100);
    if (reader < 0 || dup2(ends[0], SYNC_FD) < 0)
        abort();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *plan = malloc(size); /* exactly as long as the input: one byte more read is an error */
    if (!plan)
        abort();
    memcpy(plan, data, size);
    state = (struct state){.root = -1, .proc = -1, .step = STEP_NONE, .program = "/proc/self/exe"};
    run_plan(plan, size);
    free(plan);
    drain();
    return 0;
}

#ifdef STANDALONE
static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
    random_state ^= random_state << 13; /* xorshift64, Marsaglia 2003 */
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % limit;
}

enum { LONGEST = 1 << 16 };

/* A few changes of the kinds that decoders fall for: bits, lengths, counts, pieces cut out and pieces twice. */
static size_t mutate(uint8_t *plan, size_t size)
{
    static const uint32_t odd[] = {0, 1, 0x7f, 0xff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    for (uint64_t rounds = 1 + random_below(6); rounds > 0 && size > 8; rounds--) {
        size_t at = random_below(size - 4), length = random_below(size - at);
        switch (random_below(5)) {
        case 0: plan[at] ^= (uint8_t)(1u << random_below(8)); break;
        case 1: plan[at] = (uint8_t)random_below(256); break;
        case 2: memcpy(plan + at, &odd[random_below(sizeof odd / sizeof *odd)], 4); break;
        case 3:
            memmove(plan + at, plan + at + length, size - at - length);
            size -= length;
            break;
        default:
            if (size + length < LONGEST) {
                memmove(plan + at + length, plan + at, size - at);
                size += length;
            }
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t plan[LONGEST];
    if (argc < 4)
        return 2;
    time_t end = time(NULL) + atoi(argv[1]);
    random_state = strtoull(argv[2], NULL, 10) | 1;
    LLVMFuzzerInitialize(&argc, &argv);
    unsigned long runs = 0;
    for (; time(NULL) < end; runs++) {
        FILE *file = fopen(argv[3 + random_below((uint64_t)argc - 3)], "rb");
        if (!file)
            return 2;
        size_t size = fread(plan, 1, sizeof plan, file);
        fclose(file);
        LLVMFuzzerTestOneInput(plan, runs ? mutate(plan, size) : size);
    }
    printf("%lu runs\n", runs);
    return 0;
}
#endif
