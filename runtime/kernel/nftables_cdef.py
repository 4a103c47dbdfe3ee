# SPDX-License-Identifier: Apache-2.0
"""Builds pyrun.runtime.kernel._nftables: one C function that runs nft commands through libnftables, in this process.

A context is made and freed in each call on purpose. It owns a netlink socket, which belongs to the network namespace
and the process that opened it: one that outlives a fork(2) would be read by two processes, and one that outlives a
setns(2) would configure the wrong namespace. Making one costs a tenth of a millisecond. Freeing one after a deletion
costs 5 to 20 (closing the socket waits until the kernel has freed what was deleted, an RCU grace period), so that can
be left to later, or to the end of the process.
"""

from __future__ import annotations

from cffi import FFI

CDEF = """
struct pyrun_nft_result { int status; char *output; char *error; };
int pyrun_nft_run(const char *command, unsigned int output_flags, struct pyrun_nft_result *result, void **keep);
void pyrun_nft_close(void *ctx);
void pyrun_nft_free(struct pyrun_nft_result *result);
#define NFT_CTX_OUTPUT_STATELESS ...
#define NFT_CTX_OUTPUT_HANDLE ...
#define NFT_CTX_OUTPUT_JSON ...
#define NFT_CTX_OUTPUT_NUMERIC_ALL ...
#define NFT_CTX_OUTPUT_TERSE ...
"""

SOURCE = r"""
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <nftables/libnftables.h>

struct pyrun_nft_result { int status; char *output; char *error; };

static void pyrun_nft_free(struct pyrun_nft_result *result)
{
	free(result->output);
	free(result->error);
	memset(result, 0, sizeof *result);
}

static void pyrun_nft_close(void *ctx)
{
	nft_ctx_free(ctx);
}

/* Returns 0 when the commands were handed to libnftables (result->status says how that went), else an errno.
 * With `keep` not NULL the context is left there, for pyrun_nft_close(). */
static int pyrun_nft_run(const char *command, unsigned int output_flags, struct pyrun_nft_result *result, void **keep)
{
	int err = ENOMEM;
	struct nft_ctx *ctx;

	memset(result, 0, sizeof *result);
	ctx = nft_ctx_new(NFT_CTX_DEFAULT);
	if (ctx == NULL)
		return ENOMEM;
	nft_ctx_output_set_flags(ctx, output_flags);
	if (nft_ctx_buffer_output(ctx) != 0 || nft_ctx_buffer_error(ctx) != 0)
		goto out;
	result->status = nft_run_cmd_from_buffer(ctx, command);
	/* The buffers die with the context, so the caller gets copies. */
	result->output = strdup(nft_ctx_get_output_buffer(ctx));
	result->error = strdup(nft_ctx_get_error_buffer(ctx));
	if (result->output == NULL || result->error == NULL) {
		pyrun_nft_free(result);
		goto out;
	}
	err = 0;
	if (keep != NULL) {
		*keep = ctx;
		return 0;
	}
out:
	nft_ctx_free(ctx);
	return err;
}
"""

ffibuilder = FFI()
ffibuilder.cdef(CDEF)
ffibuilder.set_source(
    "pyrun.runtime.kernel._nftables",
    SOURCE,
    libraries=["nftables"],
    py_limited_api=True,
    extra_compile_args=["-std=gnu17", "-Wall", "-Wextra"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
