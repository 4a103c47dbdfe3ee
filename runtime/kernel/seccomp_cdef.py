# SPDX-License-Identifier: Apache-2.0
"""What pyrun uses of libseccomp, for cffi (API mode): build.py compiles it to pyrun.runtime.kernel._seccomp.

Only the filter builder is here: pyrun-init loads the exported program itself with seccomp(2), so nothing of
libseccomp is needed inside a container. Architectures are resolved by name at run time, because an older
<seccomp.h> lacks the tokens of newer architectures. Needs libseccomp 2.5 (binary-tree optimisation, raw return codes).
"""

from __future__ import annotations

from cffi import FFI

ffibuilder = FFI()

ffibuilder.cdef(
    """
    typedef void *scmp_filter_ctx;

    struct scmp_version {
        unsigned int major;
        unsigned int minor;
        unsigned int micro;
    };

    enum scmp_filter_attr {
        SCMP_FLTATR_CTL_NNP, SCMP_FLTATR_CTL_OPTIMIZE, SCMP_FLTATR_API_SYSRAWRC, ...
    };

    enum scmp_compare {
        SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE, SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_MASKED_EQ, ...
    };

    struct scmp_arg_cmp {
        unsigned int arg;
        enum scmp_compare op;
        uint64_t datum_a;
        uint64_t datum_b;
        ...;
    };

    #define SCMP_ACT_KILL_PROCESS ...
    #define SCMP_ACT_KILL_THREAD ...
    #define SCMP_ACT_TRAP ...
    #define SCMP_ACT_NOTIFY ...
    #define SCMP_ACT_LOG ...
    #define SCMP_ACT_ALLOW ...
    #define __NR_SCMP_ERROR ...

    static uint32_t act_errno(uint16_t value);
    static uint32_t act_trace(uint16_t value);

    const struct scmp_version *seccomp_version(void);
    unsigned int seccomp_api_get(void);
    scmp_filter_ctx seccomp_init(uint32_t def_action);
    void seccomp_release(scmp_filter_ctx ctx);
    uint32_t seccomp_arch_resolve_name(const char *arch_name);
    uint32_t seccomp_arch_native(void);
    int seccomp_arch_add(scmp_filter_ctx ctx, uint32_t arch_token);
    int seccomp_attr_set(scmp_filter_ctx ctx, enum scmp_filter_attr attr, uint32_t value);
    int seccomp_syscall_resolve_name(const char *name);
    int seccomp_syscall_resolve_name_arch(uint32_t arch_token, const char *name);
    int seccomp_rule_add_array(scmp_filter_ctx ctx, uint32_t action, int syscall,
                               unsigned int arg_cnt, const struct scmp_arg_cmp *arg_array);
    int seccomp_export_bpf(const scmp_filter_ctx ctx, int fd);
    """
)

ffibuilder.set_source(
    "pyrun.runtime.kernel._seccomp",
    """
    #include <seccomp.h>

    /* Macros with an argument: cffi needs functions. */
    static uint32_t act_errno(uint16_t value) { return SCMP_ACT_ERRNO(value); }
    static uint32_t act_trace(uint16_t value) { return SCMP_ACT_TRACE(value); }
    """,
    libraries=["seccomp"],
    py_limited_api=True,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
